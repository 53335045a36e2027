"""Whole runs: members, logs, killed and resumed, evaluated, exported."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from multipath.trees import descriptions, files, learning, train
from multipath.trees.config import Config
from multipath.trees.forward import apply
from shared import runs
from shared.errors import UsageError
from tests import tiny_runs

TINY = Config(
    dataset="digits",
    arch=("2,2", "3"),
    router_n_chan=4,
    n_iter=8,
    t_log=4,
    lr_half=2.0,
    tau_half=4.0,
    batch=16,
    shift=1,
    eval_rows=40,
    valid_fraction=0.1,
    k_cpts=(0.0, 1e-6),
)
MEMBERS = tuple(
    dataclasses.replace(TINY, k_cpt=price, seed=seed)
    for price, seed in ((0.0, 1), (1e-5, 2))
)


def new_run(folder, members=MEMBERS) -> runs.Run:
    return tiny_runs.create(folder, "trees", members)


def go(run, members=MEMBERS):
    return train.train(members, run=run, progress=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run and its summaries."""
    with new_run(tmp_path_factory.mktemp("whole")) as run:
        return run.path, go(run)


def test_statistics_are_logged_for_each_set(whole):
    path, summaries = whole
    for place in runs.members(path):
        records = runs.read_metrics(place)
        assert [r["step"] for r in records] == [0, 4, 8]
        last = records[-1]
        for name in ("train", "valid", "test"):
            shares = np.array(last[f"{name}/p_cor"]) + np.array(last[f"{name}/p_inc"])
            assert shares.shape == (2,) and shares.sum() == pytest.approx(1, abs=1e-5)
            assert np.shape(last[f"{name}/p_cor_by_cls"]) == (2, 10)
            assert last[f"{name}/accuracy"] == pytest.approx(
                np.sum(last[f"{name}/p_cor"]), abs=1e-5
            )
    assert [s["status"] for s in summaries] == ["done", "done"]


def test_the_log_describes_each_iteration(whole):
    text = (runs.members(whole[0])[1] / "log.txt").read_text()
    assert text.count("[ActorNet]") == 6
    assert "tiny/0001 — iteration 8" in text


def test_a_member_equals_a_run_of_its_own(tmp_path, whole):
    with new_run(tmp_path, MEMBERS[1:]) as run:
        go(run, MEMBERS[1:])
    (own,) = tiny_runs.numbers(run.path)
    for ours, theirs in zip(own, tiny_runs.numbers(whole[0])[1], strict=True):
        for name, value in ours.items():
            np.testing.assert_allclose(value, theirs[name], rtol=1e-4, atol=1e-5)


def test_a_killed_run_resumes_to_the_same_numbers(tmp_path, whole):
    with new_run(tmp_path) as run, tiny_runs.killed_at(8):
        go(run)
    with runs.open(run.path) as again:
        go(again)
    assert tiny_runs.numbers(run.path) == tiny_runs.numbers(whole[0])


def test_evaluation_repeats_the_last_record(whole):
    records = train.evaluate(whole[0])
    for record, place in zip(records, runs.members(whole[0]), strict=True):
        last = runs.read_metrics(place)[-1]
        for name in ("test/accuracy", "test/moc", "valid/c_err", "train/p_tr"):
            np.testing.assert_allclose(record[name], last[name], rtol=1e-5)


def test_an_exported_network_is_the_trained_one(tmp_path, whole):
    written = train.export(whole[0], tmp_path)
    for file, one in zip(written, train.trained(whole[0]), strict=True):
        stored = files.read(file)
        assert stored.net == one.net
        x = one.sets.test.images[:8]
        ours, theirs = (
            apply(one.net, *tree, x)[0] for tree in (stored.variables, one.variables)
        )
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
        assert stored.extra["k_cpt"] == pytest.approx(float(one.hyper["k_cpt"]))


def test_an_adaptive_network_is_logged_at_every_price(tmp_path):
    config = dataclasses.replace(TINY, dyn_k_cpt=True, n_iter=4, valid_fraction=0.0)
    with new_run(tmp_path, (config,)) as run:
        (summary,) = go(run, (config,))
    last = runs.read_metrics(run.path)[-1]
    assert {"test/k0/moc", "test/k1/moc"} <= set(last) and "test/moc" not in last
    assert "test/k1/accuracy" in summary
    text = (run.path / "log.txt").read_text()
    assert "iteration 4, k_cpt 1e-06" in text and text.count("[ActorNet]") == 8


def test_eight_networks_are_one_program(monkeypatch):
    config = dataclasses.replace(TINY, n_iter=2, t_log=2, valid_fraction=0.0)
    members = [dataclasses.replace(config, k_cpt=k * 1e-6) for k in range(8)]
    traced, make = [], learning.make_update

    def counted(*args, **options):
        update = make(*args, **options)

        def noted(params, *rest):
            traced.append(params)
            return update(params, *rest)

        return noted

    monkeypatch.setattr(learning, "make_update", counted)
    train.train(members[:1], progress=False)
    alone = len(traced)
    summaries = train.train(members, progress=False)
    assert len(traced) - alone == alone
    assert [s["steps"] for s in summaries] == [2] * 8


def test_a_part_of_a_set_is_spread_over_its_classes():
    sets, _ = train._prepare(dataclasses.replace(TINY, dataset="digits-hybrid"), None)
    part = train._splits(sets, 100)["train"]
    assert len(part.labels) == 100 and len(np.unique(part.labels)) == 10


def test_statistics_before_training_are_refused(whole):
    one = next(iter(train.trained(whole[0])))
    with pytest.raises(UsageError, match="trained and evaluated"):
        descriptions.from_metrics(one.net, {"step": 0})


def test_a_network_that_diverges_stops_with_its_step(tmp_path):
    config = dataclasses.replace(TINY, lr=1e30, valid_fraction=0.0)
    with (
        new_run(tmp_path, (config,)) as run,
        pytest.raises(FloatingPointError, match="non-finite at step"),
    ):
        go(run, (config,))


def test_a_run_without_a_checkpoint_cannot_be_evaluated(tmp_path):
    with new_run(tmp_path) as run:
        pass
    with pytest.raises(UsageError, match="a whole checkpoint"):
        list(train.trained(run.path))
    assert json.loads((run.path / "config.json").read_text())["system"] == "trees"
