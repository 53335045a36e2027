"""Recurrent cells with routed maps: their settings and parameters.

Reference: Hochreiter and Schmidhuber (1997); Cho et al. (2014); Rosenbaum et al.
(2019), section 3.
"""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from multipath.routing_networks import decision as decisions
from multipath.routing_networks import scanning
from multipath.routing_networks import selection as selections
from multipath.routing_networks.selection import Selection
from multipath.routing_networks.settings import Decision
from shared.errors import UsageError, check_choice, check_range
from shared.layers.initializers import symmetric_uniform
from shared.layers.linear import init_linear
from shared.layers.recurrent import LSTMState
from shared.model import Variables

STREAMS = ("i2h", "h2h")
"""The maps of the input and of the state, in the order of their decisions."""

BLOCKS = {"lstm": 4, "gru": 3}
"""Gates and candidate of each kind of cell."""

State = LSTMState | Float[Array, "batch hidden"]
"""What a cell carries on: h and c, or h alone of a GRU."""


@dataclass(frozen=True)
class Cell:
    """A recurrent cell with one or both of its maps routed.

    A routed map has `depth` layers, each with a decision of its own, and rectifiers
    in between; or, if `recurrent`, it is a recursive router with an unrouted layer
    after it. With `router.compat`, as in the published program, action 0 ends a routed
    map for this step: its result is 0, no decision follows, and the first module is
    never used.

    Attributes:
        inputs, hidden: widths.
        router: what all its decisions are like; `actions` is the number of modules,
            `features` of no account. Decisions are called after its name and their
            place, as in NAME_i2h0, and share one history of actions.
        depth: layers of a routed map, or decisions of a recursive router at most.
        routed: i2h, h2h or both.
        recurrent: whether one decision is taken again and again.
        kind: lstm or gru.
        how: see `Selection`.

    Raises:
        UsageError: for settings out of range, or a recurrent cell with
            `router.compat`: the published one never runs.
    """

    inputs: int
    hidden: int
    router: Decision
    depth: int = 1
    routed: tuple[str, ...] = ("h2h",)
    recurrent: bool = False
    kind: str = "lstm"
    how: str = "auto"

    def __post_init__(self):
        for name in ("inputs", "hidden", "depth"):
            check_range(name, getattr(self, name), low=1)
        check_choice("kind", self.kind, BLOCKS)
        for stream in self.routed:
            check_choice("routed", stream, STREAMS)
        if not self.routed or len(set(self.routed)) < len(self.routed):
            raise UsageError("routed", self.routed, "i2h, h2h or both")
        if self.recurrent and self.router.compat:
            raise UsageError("recurrent", True, "False with compat")

    @property
    def calls(self) -> int:
        """Decisions of one step."""
        return self.depth * len(self.routed)


class Layer(NamedTuple):
    """A routed layer: who chooses, and among what."""

    decision: Decision
    modules: Selection


def layers(cell: Cell, stream: str) -> tuple[Layer, ...]:
    """Return the layers of a routed map; if recurrent, the one taken again and again.

    Args:
        cell: its settings.
        stream: i2h or h2h.
    """
    width, count = _width(cell, stream), cell.router.actions
    if cell.recurrent:
        modules = selections.linear_modules(count, width, width, how=cell.how)
        return (Layer(_decision(cell, stream, width, count + 1), modules),)
    found, outputs = [], BLOCKS[cell.kind] * cell.hidden
    for j in range(cell.depth):
        modules = selections.linear_modules(count, width, outputs, how=cell.how)
        found.append(Layer(_decision(cell, f"{stream}{j}", width, count), modules))
        width = outputs
    return tuple(found)


def all_decisions(cell: Cell) -> tuple[Decision, ...]:
    """Return the decisions of a cell in the order in which a step takes them."""
    routed = [stream for stream in STREAMS if stream in cell.routed]
    return tuple(layer.decision for stream in routed for layer in layers(cell, stream))


def _decision(cell: Cell, place: str, width: int, actions: int) -> Decision:
    own = cell.router
    return dataclasses.replace(
        own,
        name=f"{own.name}_{place}",
        actions=actions,
        features=width,
        history=own.history or own.name,
    )


def _width(cell: Cell, stream: str) -> int:
    return cell.inputs if stream == "i2h" else cell.hidden


def init(key: Array, cell: Cell) -> Variables:
    """Return parameters `{"routing": {name: ...}, "modules": ...}` and the memory.

    Modules have their decision's name, unrouted layers that of their map. All numbers
    come from U(±1/√hidden), those of tables included.
    """
    key, redraw = jax.random.split(key)
    routing, modules, memory = {}, {}, {}
    for stream, own in zip(STREAMS, jax.random.split(key), strict=True):
        keys = jax.random.split(own, cell.depth + 1)
        if stream not in cell.routed or cell.recurrent:
            outputs = BLOCKS[cell.kind] * cell.hidden
            modules[stream] = init_linear(keys[-1], _width(cell, stream), outputs)
        if stream not in cell.routed:
            continue
        for layer, one in zip(layers(cell, stream), keys, strict=False):
            first, second = jax.random.split(one)
            name = layer.decision.name
            routing[name], state = decisions.init(first, layer.decision)
            memory[name] = dict(state)
            modules[name] = selections.init(second, layer.modules).params
    params = {"routing": routing, "modules": modules}
    return Variables(
        _redrawn(redraw, params, cell.hidden**-0.5),
        scanning.begun(memory, all_decisions(cell)),
    )


def _redrawn(key: Array, params: PyTree, bound: float) -> PyTree:
    leaves, tree = jax.tree.flatten(params)
    keys, dtype = jax.random.split(key, len(leaves)), jnp.result_type(float)
    draw = symmetric_uniform(bound)
    drawn = [draw(k, leaf.shape, dtype) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, drawn)


def zero_state(cell: Cell, batch: int, dtype: DTypeLike | None = None) -> State:
    """Return the state before the first step.

    Args:
        cell: its settings.
        batch: number of samples.
        dtype: the default floating type by default.
    """
    h = jnp.zeros((batch, cell.hidden), dtype or jnp.result_type(float))
    return h if cell.kind == "gru" else LSTMState(h, h)


def output(state: State) -> Float[Array, "batch hidden"]:
    """Return h."""
    return state.h if isinstance(state, LSTMState) else state


def advance(
    inputs: Float[Array, "batch blocks"],
    recurrent: Float[Array, "batch blocks"],
    state: State,
) -> State:
    """Return the next state from what the two maps say, in blocks of `hidden`.

    Of an LSTM: i, f, o = σ(a), g = tanh(a), in this order, where a is their sum;
    c' = f c + i g; h' = o tanh(c'). Of a GRU: r, z = σ(a), n = tanh(b + r d) with the
    parts b, d of the input and the state; h' = (1 - z) n + z h.
    """
    if isinstance(state, LSTMState):
        i, f, o, g = jnp.split(inputs + recurrent, 4, axis=-1)
        c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return LSTMState(jax.nn.sigmoid(o) * jnp.tanh(c), c)
    width = 2 * state.shape[-1]
    r, z = jnp.split(jax.nn.sigmoid((inputs + recurrent)[:, :width]), 2, axis=-1)
    new = jnp.tanh(inputs[:, width:] + r * recurrent[:, width:])
    return (1 - z) * new + z * state
