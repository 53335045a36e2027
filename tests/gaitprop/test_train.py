"""Training from configs: seeds as members, devices, evaluation, checks up front."""

import dataclasses

import numpy as np
import pytest

from gaitprop import analysis, train
from gaitprop.config import Config
from gaitprop.experiments import square
from shared import config as configs
from shared import runs
from shared.errors import UsageError

BASE = Config(
    dataset="digits",
    widths=(64, 40, 20, 10),
    algorithm="gait",
    ortho_weight=0.1,
    learning_rate=1e-3,
    batch_size=32,
    steps=60,
    eval_every=30,
    eval_train_rows=200,
    diagnose=False,
)


def run_for(tmp_path, members) -> runs.Run:
    written = [configs.to_dict(member) for member in members]
    options = {"data_dir": None, "dtype": "float32"}
    return runs.create(
        tmp_path,
        "gaitprop",
        "test",
        written[0],
        options,
        members=written if len(written) > 1 else None,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two rules, two seeds: two programs, four members."""
    members = [
        dataclasses.replace(BASE, algorithm=rule, seed=seed)
        for rule in ("bp", "gait")
        for seed in (1, 2)
    ]
    with run_for(tmp_path_factory.mktemp("runs"), members) as run:
        summaries = train.train(members, run=run, progress=False)
        run.finish({"status": "done"}, summaries)
        return run.path, members, summaries


def test_members_equal_runs_of_their_own(trained):
    path, members, _ = trained
    for index in (1, 2):
        (alone,) = train.train([members[index]], progress=False)
        stored = runs.read_summary(runs.members(path)[index])
        for name in ("train/accuracy/final", "test/accuracy/final"):
            assert abs(stored[name] - alone[name]) < 0.01


def test_seeds_and_rules_give_different_networks(trained):
    path, _, _ = trained
    finals = [runs.read_metrics(m)[-1]["test/mse"] for m in runs.members(path)]
    assert len(set(finals)) == 4


def test_evaluation_of_a_run_repeats_its_last_record(trained):
    path, members, _ = trained
    for record, place in zip(train.evaluate(path), runs.members(path), strict=True):
        last = runs.read_metrics(place)[-1]
        assert record["step"] == 60
        assert record["test/accuracy"] == last["test/accuracy"]
        np.testing.assert_allclose(record["train/mse"], last["train/mse"], rtol=1e-6)


def test_updates_of_gait_turn_away_from_those_of_bp_below_the_top(trained):
    path, _, _ = trained
    by_rule = {found.rule: found for found in train.updates(path)}
    np.testing.assert_array_equal(by_rule["bp"].own[0], by_rule["bp"].bp[0])
    gait = by_rule["gait"]
    np.testing.assert_allclose(gait.own[-1], gait.bp[-1], rtol=1e-6)
    assert not np.allclose(gait.own[0], gait.bp[0], rtol=1e-2)


def test_two_devices_share_a_batch_and_give_the_same_network():
    one = train.train([BASE], progress=False)[0]
    two = train.train([BASE], devices=2, progress=False)[0]
    assert abs(one["test/accuracy/final"] - two["test/accuracy/final"]) < 0.01


def test_batch_that_devices_do_not_divide_is_refused():
    odd = dataclasses.replace(BASE, batch_size=33)
    with pytest.raises(UsageError, match="batch size: got 33.*multiple of 2"):
        train.train([odd], devices=2, progress=False)


def test_batch_larger_than_the_training_set_is_refused():
    large = dataclasses.replace(BASE, batch_size=1438)
    with pytest.raises(UsageError, match="batch_size: got 1438.*1 to 1437"):
        train.train([large], progress=False)


def test_classes_fewer_than_those_of_the_data_are_refused():
    few = dataclasses.replace(BASE, classes=5)
    with pytest.raises(UsageError, match="classes: got 5.*at least the 10 of digits"):
        train.train([few], progress=False)


def test_diagnosis_records_angles_and_orthogonality():
    config = dataclasses.replace(BASE, diagnose=True, steps=30, ortho_weight=0.0)
    from shared import data
    from shared.data import batching

    dataset = data.load("digits")
    static, hyper = configs.split(config)
    program = train.build(static, scale=16)
    import jax

    state = program.init(jax.random.key(1), hyper)
    batch = batching.slice_rows(dataset.train, 0, 32)
    found = train.make_probe(static, batch, 16)(state)
    # Orthogonal kernels: GAIT's update is BP's, up to sign changes.
    assert all(float(found[f"layer{i}/angle"]) < 3 for i in (1, 2, 3))
    np.testing.assert_allclose(found["layer1/condition"], 1, rtol=1e-3)
    np.testing.assert_allclose(found["layer3/row_norm_mean"], 1, rtol=1e-4)
    assert float(found["layer2/off_norm"]) < 1e-4
    far, far_hyper = configs.split(dataclasses.replace(config, gamma=1.0))
    far_state = state._replace(hyper=far_hyper)
    found = train.make_probe(far, batch, 16)(far_state)
    shares = [float(found[f"layer{i}/sign_changes"]) for i in (1, 2, 3)]
    # A unit of the last layer moves all the way to a target that is no wider.
    assert 0 < max(shares) < 1 and len(set(shares)) > 1


def test_roundoff_of_the_published_form_grows_with_depth_and_ours_does_not():
    rows = analysis.roundoff(
        [dataclasses.replace(BASE, widths=square(h, 64)) for h in (1, 3)]
    )
    shallow, deep = rows
    assert deep["subtract64"] > 1e3 * shallow["subtract64"]
    assert deep["subtract32"] > 1
    assert max(shallow["difference32"], deep["difference32"]) < 1e-3


def test_export_in_the_published_layout_reads_back(tmp_path, monkeypatch, trained):
    from gaitprop import upstream

    # The published program knew no digits; the layout does not care.
    monkeypatch.setitem(upstream.DATASETS, "digits", "MNIST")
    path, members, _ = trained
    square_run = run_for(
        tmp_path, [dataclasses.replace(BASE, widths=square(1, 64), steps=30)]
    )
    with square_run as run:
        config = dataclasses.replace(BASE, widths=square(1, 64), steps=30)
        train.train([config], run=run, progress=False)
        (folder,) = train.export(run.path, tmp_path / "out")
    assert folder.name == "MNIST_GAIT_OrthoInit_0.1OrthoReg_1Seed_0.001LR_1L"
    found = upstream.load(folder)
    (updates,) = train.updates(run.path)
    assert len(found.params) == len(updates.own) == 2
    records = runs.read_metrics(run.path)
    accuracies = [r["test/accuracy"] for r in records if "test/accuracy" in r]
    np.testing.assert_allclose(found.series["test_acc"], accuracies)
    with pytest.raises(UsageError, match="does not exist yet"):
        train.export(run.path, tmp_path / "out")


def test_seed_rate_regulariser_and_gamma_vary_within_one_mapped_step():
    import jax

    from shared import data, sweep
    from shared.data import batching

    varied = [(1, 1e-3, 0.1, 1e-3), (2, 1e-4, 10.0, 1e-1), (3, 1e-2, 1.0, 1e-2)]
    names = ("seed", "learning_rate", "ortho_weight", "gamma")
    members = [
        dataclasses.replace(BASE, **dict(zip(names, values, strict=True)))
        for values in varied
    ]
    ((static, _, hyper),) = sweep.group(members)
    program = train.build(static, scale=16)
    batch = batching.slice_rows(data.load("digits").train, 0, 32)

    def one_step(hyper):
        state = program.init(jax.random.key(hyper["seed"]), hyper)
        return program.step(state, batch)[0].params

    mapped = jax.jit(jax.vmap(one_step))(hyper)
    single = jax.jit(one_step)
    for m in range(len(members)):
        alone = single({name: values[m] for name, values in hyper.items()})
        for a, b in zip(jax.tree.leaves(mapped), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[m], b, atol=2e-5)
