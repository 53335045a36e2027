"""A search as users run it: recorded, judged, killed and resumed."""

import json

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from enasq import (
    candidates,
    cell,
    config,
    data,
    judging,
    parts,
    search,
    sessions,
    supernet,
    train,
)
from shared import runs
from shared.config import split
from shared.errors import UsageError
from shared.model import Variables
from tests import tiny_runs
from tests.enasq.tiny import SEARCH, go, new_run
from tests.quick import quick


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed search and its summary."""
    with new_run(tmp_path_factory.mktemp("whole"), SEARCH) as run:
        return run.path, go(run, SEARCH)[0]


def test_candidates_are_judged_after_each_epoch(whole):
    path, summary = whole
    records = [r for r in runs.read_metrics(path) if "arcs" in r]
    assert [r["step"] for r in records] == [0, 2, 4]
    for record in records:
        assert np.shape(record["arcs"]) == (3, 2, 1, 4)
        found = record["valid/accuracies"]
        assert len(found) == 3
        assert record["valid/accuracy"] == pytest.approx(np.mean(found), abs=1e-6)
    assert summary["best/accuracy"] == max(records[-1]["valid/accuracies"])
    assert "controller/loss" not in records[0]
    for record in records[1:]:
        assert np.shape(record["controller/loss"]) == (2,)
        assert 0 < record["entropy"] < 2 * (2 * np.log(2) + 2 * np.log(5))
        assert record["reward"] <= record["accuracy"]


@pytest.mark.slow
def test_every_step_of_a_resumed_search_equals_that_of_a_whole_one(tmp_path, whole):
    with new_run(tmp_path, SEARCH) as run, tiny_runs.killed_at(3, member=0):
        go(run, SEARCH)
    with runs.open(run.path) as again:
        go(again, SEARCH)
    assert tiny_runs.numbers(run.path) == tiny_runs.numbers(whole[0])
    ours, theirs = (
        (path / candidates.FILE).read_text() for path in (run.path, whole[0])
    )
    assert ours == theirs


def test_evaluation_repeats_the_last_record(whole):
    (record,) = train.evaluate(whole[0])
    last = runs.read_metrics(whole[0])[-1]
    for name in ("valid/accuracies", "test/accuracy"):
        np.testing.assert_allclose(record[name], last[name], atol=1e-6)


def test_candidates_are_written_with_costs_and_the_front(whole):
    lines = (whole[0] / candidates.FILE).read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert len(found) == 9
    ahead = [own for own in found if own["front"]]
    for own in found:
        cell.parse(own["architecture"], blocks=1)
        beaten = any(
            other["costs"]["bits"] <= own["costs"]["bits"]
            and other["accuracy"] > own["accuracy"]
            for other in found
            if other["step"] == own["step"]
        )
        assert not (beaten and own["front"])
    assert {own["step"] for own in ahead} == {own["step"] for own in found}


def test_the_best_candidate_keeps_to_the_budget():
    make = lambda step, accuracy, bits: candidates.Candidate(
        step, step / 2, "", accuracy, {"bits": bits}
    )
    found = [make(2, 0.9, 5), make(4, 0.7, 9), make(4, 0.6, 4), make(4, 0.5, 3)]
    assert candidates.best(found).accuracy == 0.7
    assert candidates.best(found, cost="bits", budget=5).accuracy == 0.6
    with pytest.warns(UserWarning, match="budget of 2 bits: the cheapest takes 3"):
        assert candidates.best(found, cost="bits", budget=2).accuracy == 0.5


def test_the_log_has_the_published_lines(whole):
    text = (whole[0] / "log.txt").read_text()
    assert text.count("Here are 3 architectures") == 2
    assert text.count("ctrl_step = ") == 4
    assert text.count("ch_step = ") == 4
    assert text.count("-" * 80 + "\n") == 6
    assert "Epoch 2: Training controller\nctrl_step = 3     " in text
    assert "Eval at 4\nValid Num examples: 100\nvalid_accuracy: 0." in text


@pytest.fixture(scope="module")
def made():
    """A search that is described, its data, and a state."""
    static, hyper = split(SEARCH)
    sets = parts.load(static, None)
    own = sessions.searching(static, sets)
    state = quick(search.build(own).init)(jax.random.key(1), hyper)
    return own, sets, state


def test_every_validation_image_counts_once():
    for count, size in ((100, 30), (60, 30), (7, 30)):
        starts, counted = judging.windows(count, size)
        rows = (starts[:, None] + np.arange(counted.shape[1]))[counted]
        assert sorted(rows.tolist()) == list(range(count))


def test_accuracies_are_those_of_each_architecture_alone(made):
    own, sets, state = made
    arcs = judging.candidates(own, state)[:2]
    variables = Variables(state.params, {})
    found = quick(
        lambda arcs: judging.accuracies(
            own, variables, arcs, sets.valid, sets.info.norms.valid
        )
    )(arcs)
    images = data.whole(sets, "valid").images
    alone = quick(lambda arc, x: supernet.run(own.net, variables, arc, x).logits)
    for arc, accuracy in zip(arcs, found, strict=True):
        right = np.asarray(jnp.argmax(alone(arc, images), -1) == sets.valid.labels)
        assert accuracy == pytest.approx(right.mean(), abs=1e-6)


def test_as_published_each_batch_has_another_architecture(made):
    own, sets, state = made
    static = config.changed(SEARCH, compat=True, eval_batch=40, batch_size=64)
    own = own._replace(static=static)
    judge = quick(lambda split: judging.judge(own, state, split))
    splits = judging.splits(sets)
    tested, valid = judge(splits["test"]), judge(splits["valid"])
    variables = Variables(state.params, {})
    alone = quick(lambda arc, x: supernet.run(own.net, variables, arc, x).logits)

    def accuracies(arcs, name, size):
        """Return those of architectures, each on the batch that is its turn."""
        images, labels = data.whole(sets, name)
        starts, _ = judging.windows(len(labels), size)
        return [
            np.mean(np.argmax(alone(arc, images[start:][:size]), -1) == given)
            for arc, start in zip(arcs, starts, strict=False)
            for given in [labels[start:][:size]]
        ]

    arcs = judging._anew(own, state, len(sets.test.labels), jnp.int32(-1))
    assert len(np.unique(arcs.reshape(len(arcs), -1), axis=0)) == len(arcs) == 9
    expected = np.mean(accuracies(arcs, "test", 40))
    assert tested["accuracy"] == pytest.approx(expected, abs=1e-6)
    # Candidates are judged on batches of training's size: 64 of 100 images, then
    # the last 64, then the first again.
    listed = accuracies(judging.candidates(own, state)[:2], "valid", 64)
    np.testing.assert_allclose(valid["accuracies"][:2], listed, atol=1e-6)


def test_a_budget_that_nothing_meets_is_refused(made):
    poor = config.changed(SEARCH, budget=10.0)
    with pytest.raises(UsageError, match=r"budget: got 10.*expected at least \d+"):
        train.train((poor,), progress=False)


def test_a_search_without_validation_images_is_refused():
    with pytest.raises(UsageError, match="valid_size: got 0"):
        config.changed(SEARCH, valid_size=0)


def test_measured_seconds_are_kept_for_a_resumed_search(tmp_path, monkeypatch):
    asked = []

    def measured(network, policy):
        asked.append(network)
        return lambda arc: float(np.sum(arc[..., 1::2]))

    monkeypatch.setattr(sessions.latency, "measured", measured)
    timed = config.changed(SEARCH, budget_of="seconds", budget=1.0)
    sets = parts.load(timed, None)
    first, again = (sessions.searching(timed, sets, tmp_path) for _ in range(2))
    assert len(asked) == 1
    for ours, theirs in zip(
        first.tables["seconds"], again.tables["seconds"], strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
