"""Calls of decisions inside `lax.scan`, put together as one trajectory."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, PyTree

from multipath.routing_networks.checks import (
    check_indices,
    check_lengths,
    check_some,
    known,
)
from multipath.routing_networks.decision import (
    check_agents,
    remembered,
    with_history,
)
from multipath.routing_networks.rewards import REMEMBERING
from multipath.routing_networks.settings import Decision
from multipath.routing_networks.trajectory import (
    Memory,
    Steps,
    Trajectory,
    depth,
    without_weights,
)
from shared.errors import UsageError

Body = Callable[[PyTree, PyTree, Trajectory], tuple[PyTree, Trajectory, PyTree]]


def scan(
    body: Body,
    carry: PyTree,
    xs: PyTree,
    trajectory: Trajectory,
    decisions: Sequence[Decision],
    *,
    unroll: bool = False,
) -> tuple[PyTree, Trajectory, PyTree]:
    """Call `body(carry, x, trajectory) -> (carry, trajectory, output)` for rows of xs.

    The steps, the memory and the order of the positions are those of a loop in Python;
    what one decision does in all rounds is one `Steps`. Weights of modules hold within
    a round alone.

    Args:
        body: takes the decisions of one round; the trajectory that it sees has no
            steps of earlier rounds.
        carry: first argument of the first round.
        xs: arrays with a leading axis of rounds.
        trajectory: of the steps before.
        decisions: those that `body` takes.
        unroll: whether to compile each round by itself.

    Returns:
        The last carry, the longer trajectory, and the outputs of all rounds.
    """

    def one_round(state: tuple, x: PyTree) -> tuple[tuple, tuple]:
        carry, memory = state
        inner = Trajectory(trajectory.tasks, (), memory)
        carry, inner, output = body(carry, x, inner)
        return (carry, inner.memory), (inner.steps, output)

    memory = begun(trajectory.memory, decisions)
    (carry, memory), (found, outputs) = lax.scan(
        one_round, (carry, memory), xs, unroll=unroll
    )
    start, each = depth(trajectory), sum(len(steps.positions) for steps in found)
    steps = tuple(_joined(steps, start, each) for steps in found)
    trajectory = trajectory._replace(
        steps=(*trajectory.steps, *steps), memory={**trajectory.memory, **memory}
    )
    return carry, trajectory, outputs


def begun(memory: Memory, decisions: Sequence[Decision]) -> Memory:
    """Return a memory in which the histories of some decisions have begun."""
    for decision in decisions:
        if decision.reward.kind in REMEMBERING:
            memory = with_history(decision, memory, remembered(decision, memory))
    return memory


def _joined(steps: Steps, start: int, each: int) -> Steps:
    """Make rows of all rounds, `[rounds, depth, ...]`, the rows of one record.

    Args:
        steps: stacked; their positions are those within a round.
        start: position of the first round.
        each: calls of a round.
    """
    rounds = steps.mask.shape[0]
    steps = without_weights(steps)
    joined = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), steps)
    positions = tuple(
        start + i * each + place for i in range(rounds) for place in steps.positions
    )
    return dataclasses.replace(joined, positions=positions)


def check_call(
    batch: int,
    rows: int,
    decision: Decision,
    actions: Int[Array, " batch"] | None,
    mask: Bool[Array, "..."] | None,
    forced: Int[Array, "..."] | None,
    noise: PyTree = None,
) -> None:
    """Raise a UsageError for what `decide` would refuse, before a loop is traced.

    Args:
        batch: samples.
        rows: calls in all rounds.
        decision: one that is called.
        actions: agents.
        mask: of the samples, perhaps with an axis of times, calls in order.
        forced: actions of all calls.
        noise: with a row for each call.
    """
    check_lengths(batch, actions=actions)
    check_some(mask)
    if forced is not None and forced.shape != (rows, batch):
        allowed = f"shape {(rows, batch)}: a row for each call in order"
        raise UsageError("forced", f"shape {forced.shape}", allowed)
    for array in jax.tree.leaves(noise):
        if array.shape[:1] != (rows,):
            allowed = f"{rows} rows, one for each call in order"
            raise UsageError("noise", f"shape {array.shape}", allowed)
    anywhere = everywhere = mask
    if mask is not None and known(mask):
        times = np.asarray(mask).reshape(batch, -1).T
        anywhere, everywhere = times.any(0), times.repeat(rows // len(times), 0)
    check_agents(decision, actions, anywhere)
    check_indices("forced", forced, decision.actions, everywhere)
