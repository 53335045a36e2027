"""Shares, entropies and accuracies are those counted by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multipath.routing_networks import diagnostics, remedies
from multipath.routing_networks.settings import Decision
from multipath.routing_networks.trajectory import Steps, Trajectory
from shared.errors import UsageError
from tests.quick import quick

TASKS = np.array([0, 0, 1, 1])
ACTIONS = (np.array([[0, 1, 1, 1]]), np.array([[2, 2, 0, 0]]))
MASK = np.array([[True, True, True, False]])


def steps(name, action, logits, position, mask=MASK, **statistics) -> Steps:
    decision = Decision(name, "reinforce", logits.shape[-1], 1)
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return Steps(
        mask=jnp.asarray(mask),
        agent=jnp.zeros(mask.shape, int),
        action=jnp.asarray(np.where(mask, action, 0)),
        exploratory=jnp.asarray(mask & (action == 1)),
        extra_reward=jnp.zeros(mask.shape),
        statistics={"logp": jnp.asarray(logp), "logits": jnp.asarray(logits)}
        | {k: jnp.asarray(v) for k, v in statistics.items()},
        decision=decision,
        positions=(position,),
    )


@pytest.fixture(scope="module")
def trajectory() -> Trajectory:
    random = np.random.default_rng(0)
    first, second = (random.normal(size=(1, 4, k)).astype(np.float32) for k in (2, 3))
    value = np.array([[0.5, 1.0, 0.0, 9.0]], np.float32)
    everyone = np.ones_like(MASK)
    return Trajectory(
        jnp.asarray(TASKS),
        (
            steps("first", ACTIONS[0], first, 0, everyone, v=value),
            steps("second", ACTIONS[1], second, 1),
        ),
        {},
    )


def plain(probs):
    return -np.sum(probs * np.log(probs), -1)


def test_use_entropy_and_flow_are_counted_by_task_over_executed_steps(trajectory):
    found = quick(lambda t: diagnostics.routes(t, t.tasks, task_count=2))(trajectory)
    made = diagnostics.finish({f"test/{k}": v for k, v in found.items()})
    assert made["test/first/use"] == [[0.5, 0.5], [0, 1]]
    assert made["test/second/use"] == [[0, 0, 1], [1, 0, 0]]
    assert made["test/first/depth"] == 1 and made["test/second/depth"] == 0.75
    # Task 0 is torn between two modules, task 1 is not.
    assert made["test/first/agreement"] == pytest.approx(0.75)
    assert made["test/second/agreement"] == pytest.approx(1)
    shares = np.array([0.25, 0.75])
    assert made["test/first/modules"] == pytest.approx(np.exp(plain(shares)))
    probs = np.exp(np.asarray(trajectory.steps[1].statistics["logp"][0]))
    entropies = plain(probs)
    assert made["test/second/entropy"] == pytest.approx(entropies[:3].mean())
    assert made["test/second/task_entropy"] == pytest.approx(
        [entropies[:2].mean(), entropies[2]]
    )
    mean = [probs[:2].mean(0), probs[2]]
    np.testing.assert_allclose(made["test/second/policy"], mean, rtol=1e-6)
    flow = [[0, 0, 0.25], [0.25, 0, 0.25]]
    np.testing.assert_allclose(made["test/first-second/flow"], flow)


def test_acts_are_means_over_executed_steps(trajectory):
    rewards = jnp.array([[1.0, 2, 3, 4], [5, 6, 10, 1000]])
    found = quick(diagnostics.acts)(trajectory, rewards)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {
            "first/exploratory": 0.75,
            "first/reward": 2.5,
            "second/exploratory": 0.0,
            "second/reward": 7.0,
        }
    )


def test_values_are_no_policy(trajectory):
    first = trajectory.steps[0]
    blind = dataclasses.replace(first, statistics={"q": first.statistics["logits"]})
    seen = trajectory._replace(steps=(blind,))
    found = diagnostics.routes(seen, seen.tasks, task_count=2)
    made = diagnostics.finish(found)
    assert "first/modules" in made and "first/entropy" not in made
    with pytest.raises(UsageError, match="algorithm"):
        remedies.entropy(seen)


def test_accuracies_weigh_classes_and_tasks():
    right = jnp.array([True, True, False, True])
    labels = jnp.array([0, 0, 1, 1])
    found = diagnostics.answers(
        right, labels, jnp.array([0, 0, 0, 1]), classes=2, task_count=3
    )
    made = diagnostics.finish(found)
    assert made["accuracy"] == pytest.approx(0.75)
    assert made["task_accuracy"] == pytest.approx([2 / 3, 1, 0])
    # Task 0 has both classes, task 1 one, task 2 no example at all.
    assert made["task_balanced_accuracy"] == pytest.approx([0.5, 1, 0])
    assert made["balanced_accuracy"] == pytest.approx(0.75)
    assert not {"seen", "hits"} & set(made)


def test_critics_are_compared_with_returns_of_their_own_steps(trajectory):
    returns = jnp.array([[1.0, 1, 1, 8], [100, 100, 100, 100]])
    error = diagnostics.critic_error(trajectory, returns)
    assert float(error) == pytest.approx((0.25 + 0 + 1 + 1) / 4)


def test_remedies_are_the_formulas_of_their_papers(trajectory):
    made = quick(
        lambda t: (remedies.entropy(t), remedies.imbalance(t), remedies.score_size(t))
    )(trajectory)
    expected = np.zeros(3)
    for steps in trajectory.steps:
        mask = np.asarray(steps.mask[0])
        logits = np.asarray(steps.statistics["logits"][0])[mask]
        total = np.exp(logits).sum(-1)
        probs = np.exp(logits) / total[:, None]
        taken = np.eye(probs.shape[-1])[np.asarray(steps.action[0])[mask]]
        expected += [
            plain(probs).mean(),
            probs.shape[-1] * np.sum(taken.mean(0) * probs.mean(0)),
            np.mean(np.log(total) ** 2),
        ]
    np.testing.assert_allclose(made, expected / 2, rtol=1e-5)


def test_the_entropy_of_a_sure_policy_has_a_slope(trajectory):
    first = trajectory.steps[0]

    def bonus(logits):
        steps = dataclasses.replace(first, statistics={"logits": logits})
        return remedies.entropy(trajectory._replace(steps=(steps,)))

    # The others' probabilities round to 0.
    sure = jnp.zeros_like(first.statistics["logits"]).at[..., 0].set(500.0)
    entropy, slope = quick(jax.value_and_grad(bonus))(sure)
    assert float(entropy) == 0.0
    assert np.all(np.isfinite(slope))
