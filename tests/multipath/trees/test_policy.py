"""Properties of routing: probabilities, choices, costs to go."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import numpy as jnp

from multipath.trees import policy
from multipath.trees.graph import layout
from shared.errors import UsageError
from tests.multipath.trees import toy

PLAN = layout(toy.network(topology="tree").root)
BATCH = 5


def _scores(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    shape = (len(PLAN.switches), BATCH, PLAN.max_sinks)
    return jnp.asarray(scale * rng.normal(size=shape), jnp.float32)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.floats(0.05, 5.0), st.floats(0.0, 1.0))
def test_probabilities_of_leaves_sum_to_one(seed, tau, eps):
    p, q = policy.reach(PLAN, _scores(seed), tau, eps, batch=BATCH)
    leaves = np.array(PLAN.leaves)
    np.testing.assert_allclose(p[leaves].sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(q[leaves].sum(0), 1)
    assert float(p[leaves].min()) >= eps / len(leaves) - 1e-6


def test_the_sum_over_leaves_does_not_move_with_the_scores():
    total = lambda scores: (
        policy.reach(PLAN, scores, 0.7, 0.1, batch=BATCH).p[np.array(PLAN.leaves)].sum()
    )
    np.testing.assert_allclose(jax.grad(total)(_scores(0)), 0, atol=1e-6)


def test_a_cold_policy_is_the_greedy_one():
    p, q = policy.reach(PLAN, _scores(1), 1e-4, 0.0, batch=BATCH)
    np.testing.assert_allclose(p, q, atol=1e-5)


def test_a_temperature_that_vanishes_gives_the_greedy_policy():
    for tau in (1e-40, jnp.float32(0.0)):
        p, q = policy.reach(PLAN, _scores(1, 100.0), tau, 0.0, batch=BATCH)
        np.testing.assert_array_equal(p, q)
    slope = jax.grad(lambda s: policy.reach(PLAN, s, 1e-40, 0.0, batch=BATCH).p.sum())
    assert bool(jnp.all(jnp.isfinite(slope(_scores(1)))))


@pytest.mark.parametrize(
    ("tau", "eps", "message"),
    [(1.0, 1.5, "eps: got 1.5"), (1.0, -0.1, "eps: "), (-1.0, 0.1, "tau: got -1.0")],
)
def test_policies_that_are_none_are_refused(tau, eps, message):
    with pytest.raises(UsageError, match=message):
        policy.reach(PLAN, _scores(1), tau, eps, batch=BATCH)


def test_exploration_alone_treats_all_leaves_alike():
    p, _ = policy.reach(PLAN, _scores(2, 9.0), 0.1, 1.0, batch=BATCH)
    leaves = np.array(PLAN.leaves)
    np.testing.assert_allclose(p[leaves], 1 / len(leaves), rtol=1e-5)


def test_equal_scores_take_the_first_sink():
    _, q = policy.reach(PLAN, _scores(0, 0.0), 1.0, 0.0, batch=BATCH)
    assert bool(jnp.all(q[PLAN.leaves[0]] == 1))


def test_scores_beyond_the_sinks_of_a_switch_count_nothing():
    counts = np.array([len(PLAN.sinks[i]) for i in PLAN.switches])
    assert counts.min() < PLAN.max_sinks
    beyond = np.arange(PLAN.max_sinks)[None] >= counts[:, None]
    scores = jnp.where(beyond[:, None], 99.0, _scores(3))
    found = policy.reach(PLAN, scores, 0.5, 0.1, batch=BATCH)
    expected = policy.reach(PLAN, _scores(3), 0.5, 0.1, batch=BATCH)
    np.testing.assert_array_equal(found.p, expected.p)
    np.testing.assert_array_equal(found.q, expected.q)


@pytest.mark.parametrize("seed", range(3))
def test_the_best_choices_never_cost_more_than_the_own(seed):
    costs = jnp.asarray(
        np.random.default_rng(seed).uniform(size=(len(PLAN.nodes), BATCH)), jnp.float32
    )
    own, best = (
        policy.cost_to_go(PLAN, costs, _scores(seed), optimistic=flag)
        for flag in (False, True)
    )
    assert bool(jnp.all(best <= own + 1e-6)) and bool(jnp.any(best < own - 1e-6))
    # The root's own cost to go is what the greedy way adds up to.
    q = policy.reach(PLAN, _scores(seed), 1.0, 0.0, batch=BATCH).q
    np.testing.assert_allclose(own[0], jnp.sum(q * costs, 0), rtol=1e-5)
