"""Decisions: for each sample an agent chooses the module it goes to.

Reference: Rosenbaum, Klinger and Riemer (2018), section 3.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from multipath.routing_networks import rewards
from multipath.routing_networks.algorithms import ALGORITHMS
from multipath.routing_networks.algorithms.base import Choice
from multipath.routing_networks.checks import (
    check_indices,
    check_lengths,
    check_some,
)
from multipath.routing_networks.settings import Decision
from multipath.routing_networks.trajectory import (
    Memory,
    Steps,
    Trajectory,
    depth,
    unweighted,
)
from shared.errors import UsageError, check_range
from shared.model import Variables

__all__ = ["Decision", "decide", "init", "pass_through", "per_task"]

Triplet = tuple[Shaped[Array, "batch ..."], Trajectory, Int[Array, " batch"]]


def init(key: Array, decision: Decision) -> Variables:
    """Return a decision's parameters `[agents, ...]` and its part of the memory."""
    params, state = ALGORITHMS[decision.algorithm].init(key, decision)
    history = rewards.init(decision.reward, decision.actions)
    if decision.reward.kind in rewards.REMEMBERING and decision.history is None:
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
        UsageError: for no agent to act, an agent, a task, a forced action or an
            exploration out of range, a mask without any sample, lengths that differ, a
            history of other actions, missing tasks, or a missing key.
    """
    batch = x.shape[0]
    check_lengths(batch, actions=actions, mask=mask, forced=forced)
    _check_features(decision, x)
    check_some(mask)
    check_indices("forced", forced, decision.actions, mask)
    # To look at an array on a device would mean to wait for it.
    if exploration is not None and not isinstance(exploration, jax.Array):
        check_range("exploration", float(exploration), low=0, high=1)
    agent = _agents(decision, actions, batch, mask)
    seen = _seen(decision, x, trajectory)
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


def _seen(decision: Decision, x: Array, trajectory: Trajectory) -> Array:
    """Return what the policies are functions of."""
    seen = jax.lax.stop_gradient(x) if decision.detach else x
    if not decision.tasks:
        return seen
    tasks = _known_tasks(trajectory)
    check_indices("tasks", tasks, decision.tasks)
    code = jax.nn.one_hot(tasks, decision.tasks, dtype=x.dtype)
    return jnp.concatenate([seen.reshape(x.shape[0], -1), code], -1)


def _known_tasks(trajectory: Trajectory) -> Array:
    if trajectory.tasks is None:
        raise UsageError("tasks", None, "the task of each sample, at `initialize`")
    return trajectory.tasks


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
    if decision.reward.kind not in rewards.REMEMBERING:
        return memory
    history = remembered(decision, memory)
    history = rewards.register(decision.reward, history, steps.action[0], steps.mask[0])
    return with_history(decision, memory, history)


def remembered(decision: Decision, memory: Memory) -> rewards.State:
    """Return what the reward of a decision's actions remembers, perhaps nothing yet.

    Raises:
        UsageError: for a history of another number of actions.
    """
    place = decision.history or decision.name
    history = memory.get(place, {}).get("history")
    if history is None or decision.reward.kind not in rewards.REMEMBERING:
        return rewards.init(decision.reward, decision.actions)
    size = rewards.size(history)
    if size != decision.actions:
        given = f"the history of {place!r}, {size} actions"
        raise UsageError("history", given, f"one of {decision.actions} actions")
    return history


def with_history(decision: Decision, memory: Memory, history: rewards.State) -> Memory:
    """Return a memory in which the reward of a decision's actions remembers this."""
    place = decision.history or decision.name
    return {**memory, place: {**memory.get(place, {}), "history": history}}


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
    check_agents(decision, actions, mask)
    if decision.agents == 1 or actions is None:
        return jnp.zeros(batch, jnp.int32)
    return jnp.clip(actions, 0, decision.agents - 1).astype(jnp.int32)


def check_agents(decision: Decision, actions: Any, mask: Any = None) -> None:
    """Raise a UsageError for samples whose agent is missing or does not exist."""
    if decision.agents == 1:
        return
    if actions is None:
        allowed = f"the agent of each sample, since there are {decision.agents}"
        raise UsageError("actions", None, allowed, "Dispatch or assign by task first.")
    hint = "It needs an agent for each task or dispatcher's action."
    check_indices("actions", actions, decision.agents, mask, hint=hint)


def per_task(
    x: Shaped[Array, "batch ..."],
    trajectory: Trajectory,
    actions: Int[Array, " batch"] | None = None,
) -> Triplet:
    """Take each sample's task for its action; nothing is recorded.

    Raises:
        UsageError: if the trajectory was begun without tasks.
    """
    tasks = _known_tasks(trajectory).astype(jnp.int32)
    return x, unweighted(trajectory), tasks


def pass_through(
    x: Shaped[Array, "batch ..."],
    trajectory: Trajectory,
    actions: Int[Array, " batch"] | None = None,
) -> Triplet:
    """Take action 0 for every sample; nothing is recorded."""
    return x, unweighted(trajectory), jnp.zeros(x.shape[0], jnp.int32)


def _check_features(decision: Decision, x: Array) -> None:
    """Raise a UsageError for inputs of a size that layers were not made for."""
    given, declared = math.prod(x.shape[1:]), decision.width - decision.tasks
    layered = decision.storage == "approximate" and decision.network is None
    if layered and given != declared:
        raise UsageError("x", f"{given} features", f"{declared}, as declared")
