"""Trainings of one architecture: recorded, resumed, projected."""

import jax
import numpy as np
import pytest

from enasq import config, learning, parts, retrain, search, sessions, train
from enasq import policy as policies
from shared import runs
from shared.config import split
from shared.errors import UsageError
from tests import tiny_runs
from tests.enasq.tiny import ARC, FIXED, SEARCH, go, new_run
from tests.quick import quick


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed training and its summary."""
    with new_run(tmp_path_factory.mktemp("whole"), FIXED) as run:
        return run.path, go(run, FIXED)[0]


def test_a_killed_training_resumes_to_the_same_numbers(tmp_path, whole):
    with new_run(tmp_path, FIXED) as run, tiny_runs.killed_at(3, member=0):
        go(run, FIXED)
    with runs.open(run.path) as again:
        go(again, FIXED)
    assert tiny_runs.numbers(run.path) == tiny_runs.numbers(whole[0])


@pytest.mark.parametrize("given", (SEARCH, FIXED))
def test_both_precisions_are_kept_throughout(given):
    with jax.enable_x64(True):
        static, hyper = split(given)
        sets = parts.load(static, None)
        if given is SEARCH:
            own = sessions.searching(static, sets)
            program, taken = search.build(own), search.batches(static, sets)
            arrays = sets.train, sets.valid
        else:
            own = sessions.training_of(static, sets, parts.architecture(static))
            program, taken = retrain.build(own), parts.batches(static, sets)
            arrays = sets.train
        key = jax.random.key(0)
        state = jax.eval_shape(program.init, key, hyper)
        batch = taken.take(arrays, taken.plan(key, 0, hyper), 0, key)
        after, _ = jax.eval_shape(program.step, state, batch)
    kinds = {leaf.dtype for leaf in jax.tree.leaves(after.params)}
    assert kinds == {np.dtype(np.float64)}


def test_both_sets_are_evaluated_and_the_architecture_is_logged(whole):
    path, summary = whole
    last = runs.read_metrics(path)[-1]
    assert summary["test/accuracy"] == last["test/accuracy"]
    assert {"valid/accuracy", "batch/aux_loss", "batch/rate"} <= set(last)
    assert (path / "log.txt").read_text().endswith("architecture: 0 0 1 3 1 1 0 4\n")
    assert "bit-operations" in (path / "accounting.txt").read_text()
    (record,) = train.evaluate(path)
    assert record["test/accuracy"] == pytest.approx(last["test/accuracy"], abs=1e-6)


def test_latent_weights_are_kept_where_they_have_gradients():
    static, hyper = split(config.changed(FIXED, high=0.5, aux_head=False))
    sets = parts.load(static, None)
    own = sessions.training_of(static, sets, parts.architecture(static))
    state = quick(retrain.build(own).init)(jax.random.key(1), hyper)
    wide = jax.tree.map(lambda leaf: leaf + 3.0, state.params)
    found = learning.project(wide, own.net.policy)
    block = found["cell_0"]["block_1_x"]["stack_0"]
    assert float(block["depthwise"]["kernel"].max()) == 0.5
    assert float(block["pointwise"]["kernel"].max()) == 0.5
    # Four bits end at the largest code, and what is not quantised has no end.
    assert float(found["stem"]["conv"]["kernel"].max()) == 0.875
    np.testing.assert_array_equal(
        found["head"]["dense"]["kernel"], wide["head"]["dense"]["kernel"]
    )
    np.testing.assert_array_equal(
        block["norm"]["scale"], wide["cell_0"]["block_1_x"]["stack_0"]["norm"]["scale"]
    )


def test_an_auxiliary_head_that_is_not_trained_stays_as_it_was():
    static, _ = split(config.changed(FIXED, train_aux_head=False))
    policy = policies.preset("float")
    before = {"aux_head": {"kernel": np.zeros(2)}, "stem": {"conv": {"kernel": 0.0}}}
    after = {"aux_head": {"kernel": np.ones(2)}, "stem": {"conv": {"kernel": 1.0}}}
    static = config.changed(FIXED, train_aux_head=False, project=False)
    found = learning.kept(static, policy, before, after)
    assert found["aux_head"] is before["aux_head"]
    assert found["stem"] is after["stem"]


def test_the_rate_falls_over_the_whole_training_or_restarts():
    hyper = {"lr_max": 1.0, "lr_min": 0.0}
    once, often = (config.changed(FIXED, lr_period=p) for p in (0, 2))
    rates = [float(learning.rate(once, 2 * e, hyper, 2, 4)) for e in range(4)]
    np.testing.assert_allclose(rates, (1 + np.cos(np.pi * np.arange(4) / 4)) / 2)
    rates = [float(learning.rate(often, 2 * e, hyper, 2, 4)) for e in range(4)]
    np.testing.assert_allclose(
        rates, [1, 0.5, 1, (1 + np.cos(np.pi / 4)) / 2], atol=1e-6
    )
    assert parts.architecture(FIXED).shape == (2, len(ARC.split()) // 8, 4)


def test_two_devices_train_what_one_does(whole):
    (summary,) = train.train((FIXED,), devices=2, progress=False)
    # Statistics of the whole batch on both; what differs is the order of sums.
    for name in ("test/accuracy", "valid/accuracy"):
        assert summary[name] == pytest.approx(whole[1][name], abs=0.05)


def test_a_range_that_no_weight_has_is_refused():
    with pytest.raises(UsageError, match="high: got 0.5.*policy float"):
        config.changed(FIXED, policy="float", high=0.5)
    assert config.changed(FIXED, high=0.5).high == 0.5
