"""Rewards, returns and successors of steps that not every sample executes."""

import dataclasses

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from multipath.routing_networks import trajectory
from multipath.routing_networks.decision import Decision
from multipath.routing_networks.trajectory import Steps, Trajectory
from shared.errors import UsageError
from tests.quick import quick

DEPTH, BATCH = 4, 6
ONE = Decision("one", "qlearning", 3, 2)
OTHER = Decision("other", "qlearning", 3, 2)
WIDER = Decision("wider", "qlearning", 4, 2)
POLICY = Decision("policy", "reinforce", 3, 2)


def _steps(decision, positions, mask, statistics):
    """Return steps that record where they lie, as their actions and values."""
    rows = np.asarray(mask)[np.array(positions)]
    place = np.broadcast_to(np.array(positions)[:, None], rows.shape)
    values = np.float32(10 * place[..., None] + np.arange(decision.actions))
    fields = (
        rows,
        np.zeros_like(place),
        np.where(rows, place % decision.actions, 0),
        np.zeros_like(rows),
        np.zeros(rows.shape, np.float32),
        dict.fromkeys(statistics, values),
    )
    always = bool(np.asarray(mask).all())
    return Steps(*jax.tree.map(jnp.asarray, fields), decision, positions, always)


def _mask(seed):
    return np.random.default_rng(seed).random((DEPTH, BATCH)) < 0.6


def test_rewards_add_up_to_the_first_return_and_reach_executed_steps_alone():
    rng = np.random.default_rng(0)
    mask = _mask(0)
    mask[:, 0] = False
    per_action = jnp.asarray(rng.normal(size=mask.shape), jnp.float32)
    final = jnp.asarray(rng.normal(size=BATCH), jnp.float32)

    @quick
    def run(per_action, mask, final):
        found = [
            trajectory.rewards(per_action, mask, final, normalize=n)
            for n in (False, True)
        ]
        return [(r, trajectory.returns(r, mask)) for r in found]

    found = jax.tree.map(np.asarray, run(per_action, mask, final))
    for normalize, (rewards, returns) in enumerate(found):
        assert not np.any(np.asarray(rewards)[~mask])
        for b in range(BATCH):
            own = np.flatnonzero(mask[:, b])
            if not own.size:
                assert not returns[:, b].any()
                continue
            share = abs(final[b]) if normalize else 1.0
            whole = final[b] + share * np.mean(per_action[own, b])
            np.testing.assert_allclose(rewards[:, b].sum(), whole, rtol=2e-5)
            np.testing.assert_allclose(returns[own[0], b], whole, rtol=2e-5)


def test_there_is_one_final_reward_for_each_sample():
    mask = jnp.asarray(_mask(0))
    with pytest.raises(UsageError, match="final: .*6 numbers"):
        trajectory.rewards(jnp.zeros(mask.shape), mask, jnp.ones(BATCH - 1))


def test_without_rewards_of_actions_every_return_is_the_final_reward():
    mask, final = jnp.asarray(_mask(1)), jnp.arange(1.0, BATCH + 1)

    @quick
    def run(mask, final):
        rewards = trajectory.rewards(jnp.zeros(mask.shape), mask, final)
        return trajectory.returns(rewards, mask)

    np.testing.assert_array_equal(run(mask, final), np.where(mask, final, 0))


@pytest.mark.parametrize("depth", (DEPTH, 20))
def test_discounts_count_executed_steps(depth):
    rng = np.random.default_rng(2)
    mask = rng.random((depth, BATCH)) < 0.6
    rewards = np.where(mask, rng.normal(size=mask.shape), 0).astype(np.float32)
    returns = quick(trajectory.returns)(rewards, mask, 0.5)
    returns = np.asarray(returns)
    for b in range(BATCH):
        later = 0.0
        for t in reversed(np.flatnonzero(mask[:, b])):
            later = rewards[t, b] + 0.5 * later
            np.testing.assert_allclose(returns[t, b], later, rtol=1e-5)


def test_successors_are_the_next_executed_steps():
    mask = _mask(3)
    found = np.asarray(trajectory.successors(jnp.asarray(mask)))
    for t in range(DEPTH):
        for b in range(BATCH):
            later = [s for s in range(t + 1, DEPTH) if mask[s, b]]
            assert found[t, b] == (later[0] if later else DEPTH)


@pytest.mark.parametrize("whole", (False, True))
def test_what_follows_is_found_whatever_the_decision(whole):
    mask = np.ones((5, BATCH), bool) if whole else _five()
    steps = (
        _steps(ONE, (0, 2), mask, ("q",)),
        _steps(OTHER, (1,), mask, ("q",)),
        _steps(WIDER, (3,), mask, ("q",)),
        _steps(POLICY, (4,), mask, ("logp",)),
    )
    taken = Trajectory(None, steps, {})
    usable = (True, True, True, False, False)
    for decision, rows in ((ONE, (0, 2)), (OTHER, (1,))):
        found = quick(trajectory.following, static_argnums=(1, 2))(
            taken, decision, ("q",)
        )
        found = jax.tree.map(np.asarray, found)
        for i, t in enumerate(rows):
            for b in range(BATCH):
                later = [s for s in range(t + 1, 5) if mask[s, b]]
                expected = later[0] if later and usable[later[0]] else None
                assert bool(found.terminal[i, b]) == (expected is None)
                if expected is not None:
                    assert found.statistics["q"][i, b, 0] == 10 * expected
                    assert found.action[i, b] == expected % 3


def _five():
    mask = np.random.default_rng(4).random((5, BATCH)) < 0.6
    mask[2, 0], mask[2, 1] = False, True
    return mask


def test_a_successor_needs_only_what_the_loss_asks_for():
    mask = np.ones((2, BATCH), bool)
    steps = _steps(ONE, (0,), mask, ("q",)), _steps(POLICY, (1,), mask, ("logp",))
    taken = Trajectory(None, steps, {})
    assert trajectory.following(taken, ONE, ("q",)).terminal.all()
    assert not trajectory.following(taken, ONE).terminal.any()


def test_fields_are_gathered_in_the_order_of_positions():
    mask = np.ones((4, BATCH), bool)
    steps = _steps(ONE, (0, 2), mask, ()), _steps(OTHER, (1, 3), mask, ())
    taken = Trajectory(None, steps, {})
    assert trajectory.depth(taken) == 4
    np.testing.assert_array_equal(trajectory.actions(taken)[:, 0], [0, 1, 2, 0])


def test_steps_are_a_pytree_whose_leaves_may_be_anything():
    steps = _steps(ONE, (0,), np.ones((1, BATCH), bool), ("q",))
    counted = jax.tree.map(lambda a: None, steps)
    assert counted.decision is ONE and counted.mask is None
    leaves, tree = jax.tree.flatten(steps)
    assert len(leaves) == 6
    moved = dataclasses.replace(steps, positions=(3,))
    assert jax.tree.structure(moved) != tree


def test_users_add_rewards_to_the_latest_step():
    mask = np.ones((2, BATCH), bool)
    steps = _steps(ONE, (0,), mask, ()), _steps(OTHER, (1,), mask, ())
    extra = jnp.arange(BATCH, dtype=jnp.float32)
    taken = trajectory.add_reward(Trajectory(None, steps, {}), extra)
    np.testing.assert_array_equal(taken.steps[1].extra_reward[0], extra)
    assert not taken.steps[0].extra_reward.any()
    with pytest.raises(UsageError, match="one for each sample"):
        trajectory.add_reward(taken, extra[1:])
    with pytest.raises(UsageError, match="at least one decision"):
        trajectory.add_reward(Trajectory(None, (), {}), extra)


def test_each_sample_has_one_label():
    x = jnp.zeros((BATCH, 2))
    same, taken, actions = trajectory.initialize(x, jnp.arange(BATCH))
    assert same is x and actions is None and taken.steps == ()
    with pytest.raises(UsageError, match="tasks: got 5, expected 6 labels"):
        trajectory.initialize(x, jnp.arange(5))
