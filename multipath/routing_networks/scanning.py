"""Calls of decisions inside `lax.scan`, put together as one trajectory."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, PyTree

from multipath.routing_networks import rewards
from multipath.routing_networks.decision import HISTORIES, check_lengths, known
from multipath.routing_networks.settings import Decision
from multipath.routing_networks.trajectory import Memory, Steps, Trajectory, depth
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
    what one decision does in all rounds is one `Steps`.

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
        place = decision.history or decision.name
        own = memory.get(place, {})
        if decision.reward.kind in HISTORIES and "history" not in own:
            history = rewards.init(decision.reward, decision.actions)
            memory = {**memory, place: {**own, "history": history}}
    return memory


def _joined(steps: Steps, start: int, each: int) -> Steps:
    """Make rows of all rounds, `[rounds, depth, ...]`, the rows of one record.

    Args:
        steps: stacked; their positions are those within a round.
        start: position of the first round.
        each: calls of a round.
    """
    rounds = steps.mask.shape[0]
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
    forced: Int[Array, "rows batch"] | None,
) -> None:
    """Raise a UsageError for what `decide` would refuse, before a loop is traced.

    Args:
        batch: samples.
        rows: calls in all rounds.
        decision: one that is called.
        actions: agents.
        mask: of the samples, perhaps with further axes.
        forced: actions of all calls.
    """
    check_lengths(batch, actions=actions)
    # `np.any` of an array of JAX would be traced inside `jit`.
    if mask is not None and known(mask) and not np.asarray(mask).any():
        raise UsageError("mask", "no sample", "at least one that takes the step")
    if forced is not None and forced.shape != (rows, batch):
        allowed = f"shape {(rows, batch)}: a row for each call in order"
        raise UsageError("forced", f"shape {forced.shape}", allowed)
    agents = actions if decision.agents > 1 else None
    for name, given, size in (
        ("actions", agents, decision.agents),
        ("forced", forced, decision.actions),
    ):
        if given is not None and known(given):
            values = np.asarray(given)
            wrong = values[(values < 0) | (values >= size)]
            if wrong.size:
                allowed = f"integers from 0 to {size - 1}"
                raise UsageError(name, int(wrong.flat[0]), allowed)
