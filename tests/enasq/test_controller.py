"""The controller: distributions, masks, learning."""

import dataclasses

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from enasq import cell, controller, reinforce
from enasq.controller import Settings, published
from shared.config import split
from shared.errors import UsageError
from tests.quick import quick

SETTINGS, HYPER = split(Settings(blocks=3, hidden=8, layers=2))


@pytest.fixture(scope="module")
def params():
    return quick(lambda key: controller.init(key, SETTINGS))(jax.random.key(1))


@pytest.fixture(scope="module")
def drawn(params):
    draw = lambda key: controller.sample(params, key, SETTINGS, HYPER)
    return quick(jax.vmap(draw))(jax.random.split(jax.random.key(2), 400))


@pytest.fixture(scope="module")
def score():
    return quick(lambda p, arc: controller.score(p, arc, SETTINGS, HYPER))


def test_samples_are_valid_and_differ(drawn):
    arcs = np.asarray(drawn.arc)
    for arc in arcs:
        cell.check(arc)
    assert len({arc.tobytes() for arc in arcs}) > 390


def test_scores_are_those_of_sampling(params, drawn, score):
    for i in range(5):
        scored = score(params, drawn.arc[i])
        np.testing.assert_array_equal(scored.arc, drawn.arc[i])
        for name in ("log_prob", "entropy", "logits"):
            ours, theirs = getattr(scored, name), getattr(drawn, name)[i]
            np.testing.assert_allclose(ours, theirs, rtol=2e-5)


def test_decisions_have_the_frequencies_of_their_probabilities(drawn):
    # Of decisions that nothing has influenced yet: the first one.
    chances = np.asarray(jax.nn.softmax(drawn.logits[0, 0, 0, 0]))
    assert (chances[2:] == 0).all()
    share = np.mean(np.asarray(drawn.arc)[:, 0, 0, 0] == 0)
    assert share == pytest.approx(chances[0], abs=5 * 0.025)


def test_the_prior_of_the_normal_cell_favours_convolutions(drawn):
    normal, reduction = np.asarray(drawn.arc)[..., 1::2].transpose(1, 0, 2, 3) < 2
    # About 0.57 and 0.46 by the initial bias and the prior, of 2,400 draws each.
    assert normal.mean() - reduction.mean() > 0.05
    assert reduction.mean() > 0.42


def test_later_decisions_depend_on_earlier_ones(params, score):
    arc = np.zeros((2, 3, 4), np.int32)
    other = arc.copy()
    other[0, 0, 1] = 3
    one, two = (np.asarray(score(params, jnp.asarray(a)).logits) for a in (arc, other))
    # In the order of decisions, op_x of the first block is the third.
    np.testing.assert_array_equal(one[0, 0, :3], two[0, 0, :3])
    assert np.abs(one[0, 0, 3] - two[0, 0, 3]).max() > 0
    assert np.abs(one[1, 0, 2] - two[1, 0, 2]).max() > 0


def test_greedy_takes_the_likeliest(params):
    best = quick(lambda p: controller.greedy(p, SETTINGS, HYPER))(params)
    codes = np.asarray(best.arc)[..., [0, 2, 1, 3]]
    np.testing.assert_array_equal(np.argmax(best.logits, -1), codes)


def test_published_controller_starts_as_the_paper_says():
    settings, hyper = split(published(blocks=5, hidden=8))
    arc = jnp.zeros((2, 5, 4), jnp.int32)

    @quick
    def run(key):
        params = controller.init(key, settings)
        return controller.score(params, arc, settings, hyper)

    found = run(jax.random.key(0))
    assert float(found.entropy) == pytest.approx(57.2, abs=0.15)
    ops = np.asarray(jax.nn.softmax(found.logits[:, 0, 2, :5]))
    np.testing.assert_allclose(ops[0], [0.315, 0.315, 0.123, 0.123, 0.123], atol=0.01)
    np.testing.assert_allclose(ops[1], [0.254, 0.254, 0.164, 0.164, 0.164], atol=0.01)


def test_quantisers_share_the_prior_of_their_operation():
    settings = Settings(choices=3, hidden=4)
    init = quick(lambda key: controller.init(key, settings))
    bias = init(jax.random.key(0))["op_bias"]
    assert bias.shape == (15,)
    np.testing.assert_array_equal(np.nonzero(bias)[0], [0, 1, 5, 6, 10, 11])


def test_baselines():
    rewards, zero = jnp.array([1.0, 0.0, 1.0]), jnp.zeros((), jnp.int32)
    for name, decay in (("previous", 0.5), ("updated", 0.5)):
        settings, hyper = split(Settings(baseline=name, baseline_decay=decay))
        gains, after = reinforce.advantages(
            rewards, jnp.zeros(()), zero, settings, hyper
        )
        if name == "previous":
            np.testing.assert_allclose(gains, [0, -1, 0.5])
            assert float(after) == 0.75
        else:
            # decay (R - b_old): half of 1, -1/2, 3/4.
            np.testing.assert_allclose(gains, [0.5, -0.25, 0.375])
            assert float(after) == 0.625


@pytest.fixture(scope="module")
def learner():
    settings = Settings(blocks=3, hidden=8, layers=2, learning_rate=0.05)
    static, hyper = split(settings)
    assert static == SETTINGS
    update = quick(
        lambda state, arcs, rewards, hyper: reinforce.update(
            state, arcs, rewards, static, hyper
        )
    )
    begin = quick(lambda key: reinforce.init(key, static, hyper))
    return begin(jax.random.key(3)), update, hyper


def test_rewards_move_probabilities(learner, score, drawn):
    state, update, hyper = learner
    arcs = drawn.arc[:4]
    before = [float(score(state.params, arc).log_prob) for arc in arcs]
    rewards = jnp.array([0.0, 0.0, 1.0, 0.0])
    for _ in range(2):
        state, metrics = update(state, arcs, rewards, hyper)
    after = [float(score(state.params, arc).log_prob) for arc in arcs]
    gains = np.subtract(after, before)
    assert gains.argmax() == 2 and gains[2] > 0.1
    assert int(state.rewards) == 8
    # One program serves all updates.
    assert update._cache_size() == 1
    assert float(metrics["reward"]) == 0.25
    assert all(np.isfinite(float(value)) for value in metrics.values())


def test_the_entropy_bonus_has_a_gradient(learner, drawn):
    state, update, hyper = learner
    arcs, rewards = drawn.arc[:4], jnp.array([0.5, 0.5, 0.5, 0.5])
    # Equal rewards have no advantage, so only the bonus is left.
    _, none = update(state, arcs, rewards, hyper | {"entropy_weight": jnp.zeros(())})
    moved, some = update(state, arcs, rewards, hyper | {"entropy_weight": jnp.ones(())})
    assert float(none["grad_norm"]) < 1e-6 < float(some["grad_norm"])
    _, again = update(moved, arcs, rewards, hyper)
    assert float(again["entropy"]) > float(some["entropy"])


def test_impossible_architectures_are_refused(params):
    arc = np.zeros((2, 3, 4), np.int32)
    arc[1, 2, 0] = 4
    with pytest.raises(UsageError, match="position 21 .*index_x of block 3"):
        arc[1, 2, 0] = 5
        controller.score(params, arc, SETTINGS, HYPER)
    with pytest.raises(UsageError, match="4 blocks"):
        controller.score(params, np.zeros((2, 4, 4), np.int32), SETTINGS, HYPER)
    with pytest.raises(UsageError, match="baseline"):
        Settings(baseline="first")
    with pytest.raises(UsageError, match="baseline_decay"):
        dataclasses.replace(Settings(), baseline_decay=1.0)
