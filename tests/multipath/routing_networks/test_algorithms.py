"""Gradients that are those of the expected return, and values that are fixed points."""

import pkgutil

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from multipath.routing_networks import algorithms, losses, trajectory
from multipath.routing_networks.algorithms import ALGORITHMS, Experience
from multipath.routing_networks.decision import Decision, decide
from multipath.routing_networks.losses import Objective
from multipath.routing_networks.rewards import Reward
from tests.quick import quick

ACTIONS, GAMMA, FINAL = 3, 0.5, 2.0
BY_POLICY = ("reinforce", "reinforce_bl1", "actor_critic", "aac")
BY_TRACE = ("egreedy_reinforce", "egreedy_aac")
RETURNS = np.array([1.0, -2.0, 0.5], np.float32)
LOGITS = jnp.array([0.3, -0.5, 0.9])


def test_every_file_of_an_algorithm_is_in_the_table():
    found = [module.name for module in pkgutil.iter_modules(algorithms.__path__)]
    shared = {"acting", "base", "formulas"}
    assert set(found) - shared == set(ALGORITHMS)


def _each_action(name, statistics, **options):
    """Return one step of every action, as if a sample each had taken it."""
    row = lambda values: jnp.asarray(values)[None]
    action, none = row(np.arange(ACTIONS)), row(np.zeros(ACTIONS, int))
    values = {
        "decision": Decision("d", name, ACTIONS, 1),
        "params": {},
        "statistics": statistics,
        "following": {key: jnp.zeros_like(v) for key, v in statistics.items()},
        "action": action,
        "following_action": none,
        "agent": none,
        "mask": row(np.ones(ACTIONS, bool)),
        "reward": row(RETURNS),
        "returns": row(RETURNS),
        "final": row(RETURNS),
        "terminal": row(np.ones(ACTIONS, bool)),
        "gamma": 1.0,
    }
    return Experience(**(values | options))


def _statistics(logits):
    """Return the same scores, values of actions and value for each of the samples."""
    each = lambda row: jnp.broadcast_to(row[None, None], (1, ACTIONS, ACTIONS))
    logp = jax.nn.log_softmax(logits)
    return {
        "logp": each(logp),
        "probs": each(jnp.exp(logp)),
        "mu": each(jnp.array([0.2, 0.5, 0.3])),
        "q": each(jnp.array([0.7, -1.0, 2.0])),
        "v": jnp.full((1, ACTIONS), 0.4),
    }


def test_gradients_of_policies_are_those_of_the_expected_return():
    @quick
    def run(logits):
        def expected(logits, name):
            statistics = _statistics(logits)
            each = ALGORITHMS[name].loss(_each_action(name, statistics))[0]
            behaviour = "mu" if name in BY_TRACE else "probs"
            weights = jax.lax.stop_gradient(statistics[behaviour][0, 0])
            # Policies have no part in what critics regress to.
            return jnp.sum(weights * each)

        exact = lambda logits: -jnp.sum(jax.nn.softmax(logits) * RETURNS)
        even = lambda logits: -jnp.mean(jax.nn.log_softmax(logits) * RETURNS)
        names = (*BY_POLICY, *BY_TRACE, "reinforce_bl2")
        found = {name: jax.grad(expected)(logits, name) for name in names}
        return found, jax.grad(exact)(logits), jax.grad(even)(logits)

    found, exact, even = run(LOGITS)
    for name in (*BY_POLICY, *BY_TRACE):
        np.testing.assert_allclose(found[name], exact, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(found["reinforce_bl2"], even, atol=1e-5)


@pytest.mark.parametrize("compat", (False, True))
def test_equal_rules_under_two_names(compat):
    def pair(one, other):
        statistics = _statistics(LOGITS) | {"adv": _statistics(LOGITS)["q"]}
        losses = []
        for name in (one, other):
            decision = Decision("d", name, ACTIONS, 1, compat=compat)
            going = jnp.zeros((1, ACTIONS), bool)
            experience = _each_action(
                name, statistics, decision=decision, terminal=going
            )
            losses.append(ALGORITHMS[name].loss(experience))
        return losses

    run = quick(
        lambda: (
            pair("actor_critic", "reinforce_bl1"),
            pair("surprise", "bootstrap_advantage"),
        )
    )
    # The published program has them apart.
    for one, other in run():
        assert np.allclose(one, other) != compat


R1, R2 = np.array([0.2, 0.6, 0.4]), np.array([0.5, 0.1, 0.3])
BEST = GAMMA * (R2.max() + FINAL)
"""The value of the second step, discounted, when the best action is taken there."""


def _true_values(name):
    """Return what the stores hold when they are right, with greedy second actions."""
    last, first = R2 + FINAL, R1 + BEST
    if name in ("qlearning", "sarsa"):
        return [{"policy": first}, {"policy": last}]
    values = np.array([first.max()]), np.array([last.max()])
    # The advantage of the best action is 0.
    return [
        {"policy": q - v, "value": v}
        for q, v in zip((first, last), values, strict=True)
    ]


@pytest.mark.parametrize(
    "name", ("qlearning", "sarsa", "advantage", "bootstrap_advantage", "surprise")
)
def test_right_values_lose_nothing(name):
    chosen = [
        Decision(
            f"d{i}",
            name,
            ACTIONS,
            1,
            storage="tabular",
            reward=Reward("manual", table=tuple(2 * rewards)),
        )
        for i, rewards in enumerate((R1, R2))
    ]
    params = {
        f"d{i}": {
            key: {"table": jnp.asarray(v[None], jnp.float32)} for key, v in own.items()
        }
        for i, own in enumerate(_true_values(name))
    }
    # Values of states are those of the best ways alone.
    tries = np.arange(ACTIONS) if name in ("qlearning", "sarsa") else [1]
    first = jnp.asarray(tries)
    objective = Objective(gamma=GAMMA, normalize=False)

    @quick
    def run(params, first):
        x, record, _ = trajectory.initialize(jnp.zeros((len(first), 1)))
        for decision, forced in zip(chosen, (first, None), strict=True):
            x, record, _ = decide(
                decision, params[decision.name], x, record, None, forced=forced
            )
        final = jnp.full(len(first), FINAL)
        return losses.routing_loss(params, record, final, objective=objective)

    found = run(params, first)
    np.testing.assert_allclose(found.routing, 0, atol=1e-10)
    np.testing.assert_allclose(found.returns[0], (R1 + BEST)[tries], rtol=1e-5)
    wrong = run(jax.tree.map(lambda leaf: leaf + 0.1, params), first)
    assert (wrong.routing > 1e-3).all()
