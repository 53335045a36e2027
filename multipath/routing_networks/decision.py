"""Decisions: for each sample an agent chooses the module it goes to.

Reference: Rosenbaum, Klinger and Riemer (2018), section 3.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from multipath.routing_networks import rewards
from multipath.routing_networks.algorithms import ALGORITHMS
from multipath.routing_networks.algorithms.base import Choice
from multipath.routing_networks.settings import Decision
from multipath.routing_networks.trajectory import Memory, Steps, Trajectory, depth
from shared.errors import UsageError
from shared.model import Variables

__all__ = ["Decision", "decide", "init", "pass_through", "per_task"]

HISTORIES = ("collaboration", "running_average")
"""Per-action rewards that remember actions."""

Triplet = tuple[Shaped[Array, "batch ..."], Trajectory, Int[Array, " batch"]]


def init(key: Array, decision: Decision) -> Variables:
    """Return a decision's parameters `[agents, ...]` and its part of the memory."""
    params, state = ALGORITHMS[decision.algorithm].init(key, decision)
    history = rewards.init(decision.reward, decision.actions)
    if decision.reward.kind in HISTORIES and decision.history is None:
        state = {**state, "history": history}
    return Variables(params, state)


def decide(
    decision: Decision,
    params: PyTree,
    x: Shaped[Array, "batch ..."],
    trajectory: Trajectory,
    actions: Int[Array, "..."] | None,
    *,
    key: Array | None = None,
    train: bool = False,
    mask: Bool[Array, "..."] | None = None,
    exploration: Float[Array, ""] | float | int | None = None,
    forced: Int[Array, "..."] | None = None,
    noise: Any = None,
    target: Shaped[Array, "batch ..."] | None = None,
) -> Triplet:
    """Choose a module for each sample, and record it.

    Args:
        decision: its settings.
        params: its parameters.
        x: what it sees.
        trajectory: of the steps before.
        actions: the agent of each sample `[batch]`. One agent takes all samples,
            whatever the actions; None is for one agent only.
        key: for sampling; needed in training unless actions are forced.
        train: whether to sample; otherwise the greedy action is taken, the first of
            equal ones.
        mask: the samples that take this step `[batch]`; None means all.
        exploration: in place of the decision's own.
        forced: actions `[batch]` in place of sampled or greedy ones.
        noise: uniform numbers in place of drawn ones, for reparameterised algorithms.
        target: what the gradient of reparameterised algorithms goes through in place
            of `x`; returned in its place.

    Returns:
        `x`, the longer trajectory, and the modules chosen, 0 where masked.

    Raises:
        UsageError: for no agent to act, an agent or a forced action out of range, a
            mask without any sample, lengths that differ, or a missing key.
    """
    batch = x.shape[0]
    check_lengths(batch, actions=actions, mask=mask, forced=forced)
    _check_features(decision, x)
    if mask is not None and known(mask) and not np.any(mask):
        raise UsageError("mask", "no sample", "at least one that takes the step")
    _check_range("forced", forced, decision.actions, mask)
    agent = _agents(decision, actions, batch, mask)
    seen = jax.lax.stop_gradient(x) if decision.detach else x
    choice = ALGORITHMS[decision.algorithm].act(
        decision,
        params,
        trajectory.memory.get(decision.name, {}),
        seen,
        agent,
        key=key,
        noise=noise,
        train=train,
        exploration=exploration,
        forced=forced,
    )
    steps = _steps(decision, choice, agent, mask, (depth(trajectory),))
    memory = trajectory.memory
    if train or decision.reward.in_eval:
        memory = _registered(decision, memory, steps)
    trajectory = trajectory._replace(steps=(*trajectory.steps, steps), memory=memory)
    out = x if target is None else target
    return _scaled(out, choice.factor, mask), trajectory, steps.action[0]


def _steps(
    decision: Decision,
    choice: Choice,
    agent: Array,
    mask: Array | None,
    positions: tuple[int, ...],
) -> Steps:
    """Return the record of one call."""
    active = jnp.ones(agent.shape, bool) if mask is None else mask
    action = choice.action.astype(jnp.int32)
    exploratory = choice.explored
    if exploratory is None:
        exploratory = (choice.action == choice.greedy) == decision.compat
    if mask is not None:
        action = jnp.where(mask, action, 0)
        exploratory = exploratory & mask
    dtype = jax.tree.leaves(choice.statistics)[0].dtype
    row = lambda array: array[None]
    return Steps(
        mask=row(active),
        agent=row(agent),
        action=row(action),
        exploratory=row(exploratory),
        extra_reward=row(jnp.zeros(agent.shape, dtype)),
        statistics={name: row(value) for name, value in choice.statistics.items()},
        decision=decision,
        positions=positions,
        always=mask is None,
    )


def _registered(decision: Decision, memory: Memory, steps: Steps) -> Memory:
    """Return the memory after the per-action reward has seen the actions."""
    if decision.reward.kind not in HISTORIES:
        return memory
    place = decision.history or decision.name
    own = memory.get(place, {})
    history = own.get("history")
    if history is None:
        history = rewards.init(decision.reward, decision.actions)
    history = rewards.register(decision.reward, history, steps.action[0], steps.mask[0])
    return {**memory, place: {**own, "history": history}}


def _scaled(x: Array, factor: Array | None, mask: Array | None) -> Array:
    if factor is None:
        return x
    if mask is not None:
        factor = jnp.where(mask, factor, 1)
    return x * factor.reshape(factor.shape + (1,) * (x.ndim - 1))


def _agents(
    decision: Decision, actions: Array | None, batch: int, mask: Array | None
) -> Array:
    """Return the agent of each sample."""
    if decision.agents == 1:
        return jnp.zeros(batch, jnp.int32)
    if actions is None:
        allowed = f"the agent of each sample, since there are {decision.agents}"
        raise UsageError("actions", None, allowed, "Dispatch or assign by task first.")
    _check_range("actions", actions, decision.agents, mask)
    return jnp.clip(actions, 0, decision.agents - 1).astype(jnp.int32)


def per_task(
    x: Shaped[Array, "batch ..."],
    trajectory: Trajectory,
    actions: Int[Array, " batch"] | None = None,
) -> Triplet:
    """Take each sample's task for its action; nothing is recorded.

    Raises:
        UsageError: if the trajectory was begun without tasks.
    """
    if trajectory.tasks is None:
        raise UsageError("tasks", None, "the task of each sample, at `initialize`")
    return x, trajectory, trajectory.tasks.astype(jnp.int32)


def pass_through(
    x: Shaped[Array, "batch ..."],
    trajectory: Trajectory,
    actions: Int[Array, " batch"] | None = None,
) -> Triplet:
    """Take action 0 for every sample; nothing is recorded."""
    return x, trajectory, jnp.zeros(x.shape[0], jnp.int32)


def _check_features(decision: Decision, x: Array) -> None:
    """Raise a UsageError for inputs of a size that layers were not made for."""
    given = math.prod(x.shape[1:])
    layered = decision.storage == "approximate" and decision.network is None
    if layered and given != decision.width:
        raise UsageError("x", f"{given} features", f"{decision.width}, as declared")


def check_lengths(batch: int, **arrays: Any) -> None:
    """Raise a UsageError for an array that is not one number for each sample."""
    for name, array in arrays.items():
        if array is not None and array.shape != (batch,):
            allowed = f"{batch} numbers, one for each sample"
            raise UsageError(name, f"shape {array.shape}", allowed)


def _check_range(
    argument: str, given: Any, size: int, mask: Array | None = None
) -> None:
    """Raise a UsageError for an index of an active sample that is out of range.

    Values that are traced cannot be looked at.
    """
    if given is None or not known(given) or not (mask is None or known(mask)):
        return
    active = np.asarray(given) if mask is None else np.asarray(given)[np.asarray(mask)]
    wrong = active[(active < 0) | (active >= size)]
    if wrong.size:
        raise UsageError(argument, int(wrong[0]), f"integers from 0 to {size - 1}")


def known(array: Any) -> bool:
    """Return whether an array's values can be looked at."""
    return not isinstance(array, Tracer)
