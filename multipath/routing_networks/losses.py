"""The two losses of a routing network: of its modules and of its decisions.

Reference: Rosenbaum, Klinger and Riemer (2018), algorithm 2.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree, Shaped

from multipath.routing_networks import rewards as reward_functions
from multipath.routing_networks import trajectory as trajectories
from multipath.routing_networks.algorithms import ALGORITHMS, Experience
from multipath.routing_networks.checks import check_indices, check_lengths
from multipath.routing_networks.decision import remembered, with_history
from multipath.routing_networks.settings import Decision
from multipath.routing_networks.trajectory import Memory, Trajectory
from shared.errors import UsageError, check_choice, check_range

Number = Float[Array, ""] | float | int

MODULE_LOSSES = ("squared", "cross_entropy")
"""Kinds of losses of modules."""


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is minimised.

    Attributes:
        module: squared (distance from one-hot targets, summed) or cross_entropy.
        final: the reward at the end: neg_loss, or correct: 1 or -1.
        scale: what it is multiplied by.
        gamma: discount of rewards.
        normalize: whether per-action rewards are in proportion to the final one.
        clear: whether histories of actions begin anew after each loss.
        rate: learning rate of policies that are tables; None leaves it to the decision.

    Raises:
        UsageError: for a name or a number that is none of those.
    """

    module: str = "squared"
    final: str = "neg_loss"
    scale: float | int = 1.0
    gamma: Number = 1.0
    normalize: bool = True
    clear: bool = False
    rate: Number | None = None

    def __post_init__(self):
        check_choice("module", self.module, MODULE_LOSSES)
        check_choice("final", self.final, reward_functions.FINALS)
        if isinstance(self.gamma, float | int):
            check_range("gamma", self.gamma, low=0, high=1)


class Losses(NamedTuple):
    """What a pass costs; the total is the mean of `module` plus that of `routing`.

    Attributes:
        module: of each sample; its gradient is that of the modules.
        routing: of each sample, all its steps together; that of the decisions.
        final: reward of each sample.
        rewards, returns: of each step.
        memory: for the next pass.
    """

    module: Float[Array, " batch"]
    routing: Float[Array, " batch"]
    final: Float[Array, " batch"]
    rewards: Float[Array, "depth batch"]
    returns: Float[Array, "depth batch"]
    memory: Memory


def total(
    params: dict[str, PyTree],
    trajectory: Trajectory,
    outputs: Float[Array, "batch ..."],
    y: Shaped[Array, "..."] | None = None,
    *,
    objective: Objective = Objective(),
    external: Float[Array, "..."] | None = None,
) -> Losses:
    """Return both losses of a pass.

    Args:
        params: of each decision, by name.
        trajectory: of the pass.
        outputs: of the network.
        y: labels `[batch]`, or targets like `outputs`.
        objective: what is minimised.
        external: losses `[batch, ...]` in place of the objective's, summed over all
            but the batch.

    Raises:
        UsageError: for lengths that differ, or nothing to compare the outputs with.
    """
    batch = outputs.shape[0]
    for name, array in (("y", y), ("external", external)):
        if array is not None and array.shape[:1] != (batch,):
            raise UsageError(name, f"shape {array.shape}", f"{batch} rows, as outputs")
    if external is not None:
        module = jnp.sum(external.reshape(batch, -1), 1)
    elif y is not None:
        module = module_loss(outputs, y, kind=objective.module)
    else:
        raise UsageError("y", None, "labels or targets, or external losses")
    final = reward_functions.final_reward(
        objective.final, lax.stop_gradient(module), outputs, y, objective.scale
    )
    routed = routing_loss(params, trajectory, final, objective=objective)
    return Losses(module, *routed)


def module_loss(
    outputs: Float[Array, "batch ..."],
    y: Shaped[Array, "..."],
    *,
    kind: str = "squared",
) -> Float[Array, " batch"]:
    """Return the loss of each sample, summed over classes.

    Args:
        outputs: of the network.
        y: labels `[batch]`, or targets like `outputs`.
        kind: squared or cross_entropy.

    Raises:
        UsageError: for another kind, targets of another shape, labels that are no
            class, or labels where there is one output.
    """
    check_choice("kind", kind, MODULE_LOSSES)
    if y.ndim < outputs.ndim and jnp.issubdtype(y.dtype, jnp.integer):
        y = _one_hot(y, outputs)
    if y.shape != outputs.shape:
        raise UsageError("y", f"shape {y.shape}", f"labels or shape {outputs.shape}")
    if kind == "squared":
        each = (outputs - y) ** 2
    else:
        each = -y * jax.nn.log_softmax(outputs)
    return jnp.sum(each.reshape(len(each), -1), 1)


def _one_hot(y: Array, outputs: Array) -> Array:
    classes = outputs.shape[-1]
    if classes == 1:
        allowed = f"targets of shape {outputs.shape}, since there is one output"
        raise UsageError("y", f"labels of shape {y.shape}", allowed)
    check_indices("y", y, classes)
    return jax.nn.one_hot(y, classes, dtype=outputs.dtype)


class _Routed(NamedTuple):
    """See `Losses`."""

    routing: Array
    final: Array
    rewards: Array
    returns: Array
    memory: Memory


def routing_loss(
    params: dict[str, PyTree],
    trajectory: Trajectory,
    final: Float[Array, " samples"],
    *,
    objective: Objective = Objective(),
) -> _Routed:
    """Return the loss of the decisions, what it comes from, and the new memory.

    Rewards and returns are constants. A sample without steps loses nothing.

    Args:
        params: of each decision, by name.
        trajectory: of the pass.
        final: reward of each sample.
        objective: how rewards are shared out and discounted.

    Raises:
        UsageError: for a decision without parameters, different ones under one name,
            or another number of rewards than samples.
    """
    final = lax.stop_gradient(final)
    decisions = _decisions(params, trajectory)
    if not decisions:
        none = jnp.zeros((0, *final.shape), final.dtype)
        return _Routed(jnp.zeros_like(final), final, none, none, trajectory.memory)
    mask = trajectories.masks(trajectory)
    check_lengths(mask.shape[1], final=final)
    per_action = lax.stop_gradient(_per_action(trajectory)).astype(final.dtype)
    shared = trajectories.rewards(
        per_action, mask, final, normalize=objective.normalize
    )
    returns = trajectories.returns(shared, mask, objective.gamma)
    loss, memory = jnp.zeros_like(final), trajectory.memory
    for decision in decisions:
        algorithm = ALGORITHMS[decision.algorithm]
        known = _Routed(loss, final, shared, returns, memory)
        experience = _experience(
            decision, params[decision.name], trajectory, known, objective
        )
        each = algorithm.loss(experience)
        loss = loss + jnp.sum(jnp.where(experience.mask, each, 0), 0)
        if algorithm.update is not None:
            own = memory.get(decision.name, {})
            updated = algorithm.update(decision, own, experience)
            if updated:
                memory = {**memory, decision.name: lax.stop_gradient(updated)}
    if objective.clear:
        memory = _cleared(decisions, memory)
    return _Routed(loss, final, shared, returns, memory)


def _decisions(params: dict[str, PyTree], trajectory: Trajectory) -> list[Decision]:
    """Return the decisions of a pass in order of their first calls."""
    found = list(dict.fromkeys(steps.decision for steps in trajectory.steps))
    names = [decision.name for decision in found]
    for name in names:
        if names.count(name) > 1:
            allowed = "another name for each decision with other settings"
            raise UsageError("name", name, allowed)
        if name not in params:
            raise UsageError("params", sorted(params), f"those of {name!r} among them")
    return found


def _per_action(trajectory: Trajectory) -> Array:
    """Return the rewards of all actions, with what users added."""
    parts = []
    for steps in trajectory.steps:
        decision, found = steps.decision, steps.extra_reward
        if decision.reward.kind != "zero":
            history = remembered(decision, trajectory.memory)
            found = found + reward_functions.query(
                decision.reward, history, steps.action
            )
        parts.append(found)
    return trajectories.ordered(trajectory.steps, parts)


def _experience(
    decision: Decision,
    params: PyTree,
    trajectory: Trajectory,
    known: _Routed,
    objective: Objective,
) -> Experience:
    """Return all steps of a decision with what followed them."""
    own = tuple(s for s in trajectory.steps if s.decision == decision)
    joined = lambda values: trajectories.ordered(own, values)
    rows = trajectories.positions(trajectory, decision)
    names = ALGORITHMS[decision.algorithm].bootstraps
    # Weights of modules may be left in some of the steps.
    recorded = [n for n in own[0].statistics if all(n in s.statistics for s in own)]
    after = trajectories.following(trajectory, decision, names)
    action = joined([steps.action for steps in own])
    return Experience(
        decision=decision,
        params=params,
        statistics={
            name: joined([steps.statistics[name] for steps in own]) for name in recorded
        },
        following=after.statistics,
        action=action,
        following_action=after.action,
        agent=joined([steps.agent for steps in own]),
        mask=joined([steps.mask for steps in own]),
        reward=trajectories.take(known.rewards, rows),
        returns=trajectories.take(known.returns, rows),
        final=jnp.broadcast_to(known.final[None], action.shape),
        terminal=after.terminal,
        gamma=objective.gamma,
        rate=objective.rate,
    )


def _cleared(decisions: list[Decision], memory: Memory) -> Memory:
    """Return a memory whose histories begin anew."""
    for decision in decisions:
        if decision.reward.kind in reward_functions.REMEMBERING:
            begun = reward_functions.init(decision.reward, decision.actions)
            memory = with_history(decision, memory, begun)
    return memory
