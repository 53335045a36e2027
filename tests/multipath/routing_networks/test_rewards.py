"""Properties of rewards: batches register like single actions; answers are paid."""

import functools
import math

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from multipath.routing_networks import rewards
from multipath.routing_networks.rewards import Reward
from shared.errors import UsageError
from tests.quick import quick

ACTIONS = 3
SETTINGS = {
    "collaboration": Reward("collaboration", rho=0.5, window=7),
    "running_average": Reward("running_average", rho=0.5, window=7),
}


def _by_hand(reward, actions):
    """Return the rewards of all actions, registering one at a time."""
    if reward.kind == "collaboration":
        last = actions[-reward.window :]
        return reward.rho * np.bincount(last, minlength=ACTIONS) / max(len(last), 1)
    shares, alpha = np.zeros(ACTIONS), 10 ** (-1 / reward.window)
    for action in actions:
        shares = alpha * shares + (1 - alpha) * np.eye(ACTIONS)[action]
        shares = shares / shares.sum()
    return reward.rho * shares


@functools.cache
def _programs(kind):
    reward = SETTINGS[kind]
    register = quick(functools.partial(rewards.register, reward))
    query = quick(lambda state: rewards.query(reward, state, jnp.arange(ACTIONS)))
    return reward, register, query


@pytest.mark.parametrize("kind", SETTINGS)
def test_batches_register_as_if_actions_came_one_by_one(kind):
    reward, register, query = _programs(kind)
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        state, history = rewards.init(reward, ACTIONS), []
        # Batches shorter and longer than the window, with rows that do not count; the
        # first ones do not fill it, and one has no row at all.
        for share in (0.3, 0.5, 0.0, 1.0, 0.7):
            actions = rng.integers(0, ACTIONS, 9)
            mask = rng.random(9) < share
            state = register(state, jnp.asarray(actions), jnp.asarray(mask))
            history += list(actions[mask])
            expected = _by_hand(reward, np.array(history, int))
            np.testing.assert_allclose(query(state), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", SETTINGS)
def test_no_action_no_reward(kind):
    reward, register, query = _programs(kind)
    state = rewards.init(reward, ACTIONS)
    np.testing.assert_array_equal(query(state), 0)
    nothing = register(state, jnp.zeros(9, int), jnp.zeros(9, bool))
    np.testing.assert_array_equal(query(nothing), 0)
    np.testing.assert_array_equal(rewards.query(reward, (), jnp.arange(2)), 0)


def test_the_published_ratio_counts_twice():
    once = SETTINGS["collaboration"]
    twice = Reward("collaboration", rho=0.5, window=7, ratio_power=2)

    @quick
    def run(actions):
        state = rewards.register(once, rewards.init(once, ACTIONS), actions)
        return [rewards.query(reward, state, actions) for reward in (once, twice)]

    found = run(jnp.array([1, 1, 2]))
    np.testing.assert_allclose(found[0], [1 / 3, 1 / 3, 1 / 6], rtol=1e-6)
    np.testing.assert_allclose(found[1], 0.5 * found[0], rtol=1e-6)


def test_manual_rewards_are_looked_up_in_any_shape():
    reward = Reward("manual", table=(0.1, -2.0, 3.0))
    found = rewards.query(reward, rewards.init(reward, 3), jnp.array([[2, 1], [0, 0]]))
    np.testing.assert_allclose(found, [[3, -2], [0.1, 0.1]])
    np.testing.assert_array_equal(rewards.query(Reward(), (), jnp.array([0, 5])), 0)


@pytest.mark.parametrize(
    "y", ([1, 0, 2], [[1], [0], [2]], [[0, 1, 0], [1, 0, 0], [0, 0, 1]])
)
def test_right_classes_are_rewarded_and_wrong_ones_are_punished(y):
    outputs = jnp.array([[0.1, 0.9, 0.0], [0.1, 0.9, 0.0], [0.3, 0.3, 0.9]])
    found = rewards.final_reward("correct", jnp.ones(3), outputs, jnp.array(y), 2)
    np.testing.assert_array_equal(found, [2, -2, 2])


def test_the_negative_loss_is_a_constant():
    reward = lambda loss: rewards.final_reward("neg_loss", loss, scale=3.0)
    np.testing.assert_allclose(reward(jnp.array([1.0, -2.0])), [-3, 6])
    gradient = jax.grad(lambda loss: jnp.sum(reward(loss)))(jnp.ones(2))
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda: Reward("colaboration"), "'collaboration'"),
        (lambda: Reward("manual"), "table"),
        (lambda: rewards.init(Reward("manual", table=(1.0,)), 2), "2 rewards"),
        (lambda: Reward("collaboration", window=0), "window"),
        (lambda: Reward("collaboration", rho=math.nan), "rho: got nan"),
        (lambda: Reward("collaboration", rho=-1), "rho: got -1"),
        (lambda: Reward("manual", table=(1.0, math.inf)), "table: got inf"),
        (lambda: rewards.final_reward("neg", jnp.ones(2)), "neg_loss"),
        (lambda: rewards.final_reward("correct", jnp.ones(2)), "outputs"),
        (
            lambda: rewards.final_reward(
                "correct", jnp.ones(2), jnp.ones((3, 2)), jnp.zeros(2)
            ),
            "outputs: got '3 rows', expected 2 rows",
        ),
    ],
)
def test_wrong_input_is_one_usage_error(wrong, named):
    with pytest.raises(UsageError) as error:
        wrong()
    assert named in str(error.value)
