"""Routed recurrent cells over time: one step, and a whole sequence.

Reference: Hochreiter and Schmidhuber (1997); Cho et al. (2014); Rosenbaum et al.
(2019), section 3; Cases et al. (2019).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from multipath.routing_networks import cells, recursive, scanning
from multipath.routing_networks import decision as decisions
from multipath.routing_networks import selection as selections
from multipath.routing_networks.cells import Cell, State, init, zero_state
from multipath.routing_networks.checks import check_indices, check_lengths
from multipath.routing_networks.recursive import Recursive
from multipath.routing_networks.trajectory import Trajectory
from shared.errors import UsageError
from shared.layers.linear import linear
from shared.layers.recurrent import LSTMState

__all__ = ["Cell", "LSTMState", "State", "init", "lstm_scan", "lstm_step", "zero_state"]


class _Call(NamedTuple):
    """What a decision is called with; rows by call, or None.

    Attributes:
        mask: of the samples, or None.
        key, forced, noise: a row for each call.
        train, exploration: the same for all calls.
    """

    mask: Array | None
    key: Array | None
    forced: Array | None
    noise: PyTree
    train: bool
    exploration: Any

    def at(self, rows: Any) -> "_Call":
        """Return the same for one call, or for some."""
        pick = lambda values: jax.tree.map(lambda a: a[rows], values)
        return self._replace(
            key=pick(self.key), forced=pick(self.forced), noise=pick(self.noise)
        )


def lstm_step(
    cell: Cell,
    params: PyTree,
    x: Float[Array, "batch inputs"],
    trajectory: Trajectory,
    actions: Int[Array, " batch"] | None,
    *,
    state: State | None = None,
    mask: Bool[Array, " batch_"] | None = None,
    **options: Any,
) -> tuple[State, Trajectory, Int[Array, " batch"] | None]:
    """Take one step.

    Args:
        cell, params, trajectory, actions, state: see `lstm_scan`.
        x: the input of this step.
        mask: the samples that take decisions; routed maps of others give 0.
        options: `key`, `train`, `exploration`, `forced`, `noise` of `lstm_scan`.

    Returns:
        The new state, the longer trajectory, and the actions as they came.

    Raises:
        UsageError: see `lstm_scan`.
    """
    # Inside a scan no decision is refused because all its samples have stopped.
    (_, new), trajectory, actions = lstm_scan(
        cell,
        params,
        x[:, None],
        trajectory,
        actions,
        state=state,
        mask=None if mask is None else mask[:, None],
        **options,
    )
    return new, trajectory, actions


def lstm_scan(
    cell: Cell,
    params: PyTree,
    x: Float[Array, "batch time inputs"],
    trajectory: Trajectory,
    actions: Int[Array, " batch"] | None,
    *,
    state: State | None = None,
    mask: Bool[Array, "batch_ time_"] | None = None,
    lengths: Int[Array, " sequences"] | None = None,
    key: Array | None = None,
    train: bool = False,
    exploration: Float[Array, ""] | float | int | None = None,
    forced: Int[Array, "..."] | None = None,
    noise: Any = None,
) -> tuple[
    tuple[Float[Array, "batch time hidden"], State],
    Trajectory,
    Int[Array, " batch"] | None,
]:
    """Take a step for each position of a sequence.

    Args:
        cell: its settings.
        params: from `init`.
        x: inputs, as wide as the cell says.
        trajectory: of the steps before. The new ones are in order of time; within
            a time those of the input come first, and within a map those of the first
            layer.
        actions: the agent of each sample, at all times.
        state: before the first step; zeros by default.
        mask: where decisions are taken `[batch, time]`; elsewhere routed maps give 0.
        lengths: of each sequence `[batch]`, if they are padded: from its end on no
            decision is taken, its state stays as it is, and its outputs are 0.
        key: for sampling, as `decide` needs it.
        train: whether to sample.
        exploration: in place of the decisions' own.
        forced: actions of all calls `[calls, batch]`, in the order of the trajectory.
        noise: with such a leading axis, see `decide`.

    Returns:
        The outputs h of all steps with the last state, the longer trajectory, and the
        actions as they came.

    Raises:
        UsageError: see `decide`; or for arrays of the wrong shape, or lengths that are
            out of range.
    """
    batch, time = x.shape[:2]
    calls = time * cell.calls
    _check(cell, x, mask, lengths)
    taken = cells.all_decisions(cell)
    for decision in taken:
        scanning.check_call(batch, calls, decision, actions, mask, forced, noise)
    first = zero_state(cell, batch, x.dtype) if state is None else state
    keys = None if key is None else jax.random.split(key, calls)
    rows = jax.tree.map(
        lambda a: a.reshape(time, cell.calls, *a.shape[1:]), (keys, forced, noise)
    )
    inside = None
    active = None if mask is None else mask.T
    if lengths is not None:
        inside = jnp.arange(time, dtype=lengths.dtype)[:, None] < lengths[None]
        active = inside if active is None else active & inside

    def step(state, now, inner):
        x, active, inside, (key, forced, noise) = now
        call = _Call(active, key, forced, noise, train, exploration)
        new, inner = _step(cell, params, x, state, inner, actions, call)
        if inside is None:
            return new, inner, cells.output(new)
        keep = lambda a, b: jnp.where(inside[:, None], a, b)
        h = cells.output(new)
        return jax.tree.map(keep, new, state), inner, keep(h, jnp.zeros_like(h))

    xs = jnp.moveaxis(x, 1, 0), active, inside, rows
    last, trajectory, outputs = scanning.scan(step, first, xs, trajectory, taken)
    return (jnp.moveaxis(outputs, 0, 1), last), trajectory, actions


def _check(cell: Cell, x: Array, mask: Array | None, lengths: Array | None) -> None:
    """Raise a UsageError for inputs, a mask or lengths that do not fit together."""
    batch, time = x.shape[:2]
    if x.shape[2:] != (cell.inputs,):
        allowed = f"shape {(batch, time, cell.inputs)}"
        raise UsageError("x", f"shape {x.shape}", allowed)
    if mask is not None and mask.shape != (batch, time):
        allowed = f"shape {(batch, time)}: samples, and times of each"
        raise UsageError("mask", f"shape {mask.shape}", allowed)
    check_lengths(batch, lengths=lengths)
    check_indices("lengths", lengths, time + 1)


def _step(
    cell: Cell,
    params: PyTree,
    x: Array,
    state: State,
    trajectory: Trajectory,
    actions: Array | None,
    call: _Call,
) -> tuple[State, Trajectory]:
    """Advance a cell once."""
    given = {"i2h": x, "h2h": cells.output(state)}
    apply, start = _map_again if cell.recurrent else _map, 0
    for stream in cells.STREAMS:
        if stream not in cell.routed:
            given[stream] = linear(params["modules"][stream], given[stream])
            continue
        own = call.at(slice(start, start + cell.depth))
        given[stream], trajectory = apply(
            cell, params, stream, given[stream], trajectory, actions, own
        )
        start += cell.depth
    return cells.advance(given["i2h"], given["h2h"], state), trajectory


def _map(
    cell: Cell,
    params: PyTree,
    stream: str,
    x: Array,
    trajectory: Trajectory,
    actions: Array | None,
    call: _Call,
) -> tuple[Array, Trajectory]:
    """Apply a routed map layer by layer."""
    mask = call.mask
    for j, (decision, modules) in enumerate(cells.layers(cell, stream)):
        x, trajectory, action = decisions.decide(
            decision,
            params["routing"][decision.name],
            x if j == 0 else jax.nn.relu(x),
            trajectory,
            actions,
            **call.at(j)._replace(mask=mask)._asdict(),
        )
        if cell.router.compat:
            mask = action > 0 if mask is None else mask & (action > 0)
        own = params["modules"][decision.name]
        x, trajectory, _ = selections.select(
            modules, own, x, trajectory, action, mask=mask
        )
    return x, trajectory


def _map_again(
    cell: Cell,
    params: PyTree,
    stream: str,
    x: Array,
    trajectory: Trajectory,
    actions: Array | None,
    call: _Call,
) -> tuple[Array, Trajectory]:
    """Apply a recursive router and the layer after it."""
    ((decision, modules),) = cells.layers(cell, stream)
    own = {**params, "modules": params["modules"][decision.name]}
    key = None if call.key is None else call.key[0]
    x, trajectory, _ = recursive.recurse(
        Recursive(decision, modules, cell.depth),
        own,
        x,
        trajectory,
        actions,
        **call._replace(key=key)._asdict(),
    )
    x = linear(params["modules"][stream], x)
    return (x if call.mask is None else jnp.where(call.mask[:, None], x, 0)), trajectory
