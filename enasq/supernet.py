"""Networks with shared weights, which run any architecture as data.

Every cell ends in a 1x1 convolution over its loose ends, and all normalisation is by
the batch. Variables are nested dicts: `stem`, `cell_0` ..., `head`, `aux_head`; of a
cell `entry`, `input_0`, `input_1`, as far as it has them, `banks` (by window and place
in the pair of convolutions; a row for each node that a branch may read, block by block,
x before y) and `output`.

Reference: Pham et al. (2018), sections 2.4 and 3.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from enasq import child, layers, norm, quantization, units
from enasq.behaviour import Behaviour
from enasq.branches import combine
from enasq.operations import STACKS, Inside, bank_name, rows
from enasq.plan import Cell, Network, Plan, plan
from enasq.policy import QuantPolicy
from enasq.records import KERNELS
from enasq.units import Images, Kind, Norms, Outputs, Tree
from shared import sweep
from shared.errors import UsageError
from shared.model import Variables

Code = Int[Array, "2 blocks 4"] | Int[np.ndarray, "2 blocks 4"]
Codes = Int[Array, "archs 2 blocks 4"] | Int[np.ndarray, "archs 2 blocks 4"]


class Supernet(NamedTuple):
    """A shared-weight network.

    Attributes:
        init: `(key) -> Variables`; the state is empty.
        apply: `(variables, arc, x, *, train=False, key=None) -> ((logits, aux), state)`
            with an architecture `[2, blocks, 4]` that may be traced; aux is None but in
            training with an auxiliary head. The key is needed where values are dropped.
        evaluate_many: `(variables, arcs [M, 2, blocks, 4], x, *, how="map") -> logits
            [M, batch, classes]`, in one program by "map" (or "vmap", which computes
            every operation of every branch).
    """

    init: Callable[..., Variables]
    apply: Callable[..., tuple[tuple[Array, Array | None], Any]]
    evaluate_many: Callable[..., Array]


class Shared(NamedTuple):
    """What a network is made of, hashable.

    Attributes:
        plan: its cells.
        policy: its quantisers.
        behaviour: the rest.
        axis_name: mesh axis over which batches are shared out.
    """

    plan: Plan
    policy: QuantPolicy
    behaviour: Behaviour
    axis_name: str | None = None

    @property
    def norms(self) -> Norms:
        """How it normalises: always by the batch."""
        own = self.behaviour
        return Norms("batch", own.momentum, own.epsilon, self.axis_name)


class Trace(NamedTuple):
    """What a pass computes.

    Attributes:
        logits: of the classes.
        aux: those of the auxiliary head, in training.
        outputs: of all cells.
    """

    logits: Array
    aux: Array | None
    outputs: list[Array]


def build(
    network: Network,
    policy: QuantPolicy,
    behaviour: Behaviour | None = None,
    *,
    dtype: DTypeLike = jnp.float32,
) -> Supernet:
    """Return a shared-weight network.

    Args:
        network: its settings, of kind "search".
        policy: its quantisers. Where operations choose theirs, `policy.choices`, the
            choices share latent weights.
        behaviour: by default what is recommended.
        dtype: of the variables.

    Raises:
        UsageError: for a network of another kind, or choices that learn parameters.
    """
    net = describe(network, policy, behaviour)

    def apply(variables, arc, x, *, train=False, key=None):
        found = run(net, variables, arc, x, train=train, key=key)
        return (found.logits, found.aux), variables.state

    # Compiled here, so that further calls find the program.
    many = jax.jit(functools.partial(evaluate_many, net), static_argnames="how")
    return Supernet(functools.partial(init, net, dtype=dtype), apply, many)


def describe(
    network: Network, policy: QuantPolicy, behaviour: Behaviour | None = None
) -> Shared:
    """Return what a network is made of."""
    if network.kind != "search":
        raise UsageError("kind", network.kind, "'search', for shared weights")
    for choice in policy.choices:
        if quantization.init(choice.weights, jnp.ones((1, 1))):
            allowed = "quantisers without learned parameters, to share weights"
            raise UsageError("choices", choice.weights.name, allowed)
    return Shared(plan(network), policy, behaviour or Behaviour())


def inside(net: Shared, cell: Cell) -> Inside:
    """Return what the inside of a cell is made of."""
    own = net.policy.of_cell(cell.number)
    return Inside(
        net.plan.network.blocks,
        cell.stride,
        net.policy.choices or (own,),
        own,
        child.entry_activations(net.policy, cell.number),
        net.policy.inner_activation,
        net.behaviour.rescale,
        net.norms,
    )


def init(
    net: Shared, key: Key[Array, ""], *, dtype: DTypeLike = jnp.float32
) -> Variables:
    """Return the variables of a network."""
    network, policy = net.plan.network, net.policy
    stem, head, aux, rest = jax.random.split(key, 4)
    parts = {
        "stem": child.init_stem(stem, net.plan, policy, running=False, dtype=dtype)
    }
    for name, cell in child.cells_of(net.plan):
        own = jax.random.fold_in(rest, cell.number)
        parts[name] = Variables(_init_cell(own, net, cell, dtype), {})
    last, high = net.plan.cells[-1].channels, net.behaviour.head_range
    how = {"high": high, "dtype": dtype}
    params = child.init_head(head, last, network.classes, policy, **how)
    parts["head"] = Variables(params, {})
    if net.plan.aux is not None:
        params = child.init_aux(aux, net.plan.aux, network.classes, policy, **how)
        parts["aux_head"] = Variables(params, {})
    return Variables(child.collect(parts).params, {})


def _init_cell(key: Array, net: Shared, cell: Cell, dtype: DTypeLike) -> Tree:
    policy, filters, how = net.policy, cell.filters, {"running": False, "dtype": dtype}
    own = policy.of_cell(cell.number)
    entry, sources, banks, output, others = jax.random.split(key, 5)
    raw = child.entry_activations(policy, cell.number)
    params: Tree = {}
    if cell.entry is not None:
        sizes = cell.entry[0], filters, own.weights, raw
        params["entry"] = units.init_reduction(entry, *sizes, **how).params
    for number, source in enumerate(cell.sources):
        place = jax.random.fold_in(sources, number)
        found = child.init_source(place, source, filters, policy, cell.number, **how)
        params |= {f"input_{number}": found.params} if found.params else {}
    spec = inside(net, cell)
    params["banks"] = _init_banks(banks, spec, filters, dtype)
    params["output"] = _init_output(output, spec, filters, dtype)
    if cell.stride == 2:
        make = lambda key: (
            units.init_reduction(key, filters, filters, own.weights, raw, **how).params
        )
        strided, loose = jax.random.split(others)
        # One for each branch and input, and one for each input as a loose end.
        params["strided"] = _rows(make, strided, 4 * spec.blocks)
        params["loose"] = _rows(make, loose, 2)
    return params


def _rows(make: Callable[[Array], Tree], key: Array, count: int) -> Tree:
    return jax.vmap(make)(jax.random.split(key, count))


def _init_banks(key: Array, spec: Inside, filters: int, dtype: DTypeLike) -> Tree:
    kind, count = Kind(spec.precisions[0], spec.inner), rows(spec.blocks)

    def bank(key: Array, window: int) -> Tree:
        make = lambda key: (
            units.init_separable(
                key, window, filters, kind, running=False, dtype=dtype
            ).params
        )
        keys = jax.random.split(key)
        return {
            stack: _rows(make, own, count)
            for stack, own in zip(STACKS, keys, strict=True)
        }

    return {
        bank_name(window): bank(jax.random.fold_in(key, window), window)
        for window in KERNELS.values()
    }


def _init_output(key: Array, spec: Inside, filters: int, dtype: DTypeLike) -> Tree:
    kernels, other = jax.random.split(key)
    own = spec.output
    make = lambda key: layers.init_conv(
        key, 1, filters, filters, own.weights, dtype=dtype
    )
    return {
        "conv": _rows(make, kernels, spec.blocks + 2),
        "norm": norm.init(filters, running=False, dtype=dtype).params,
    } | units.learned(other, own.activations, filters, dtype)


def run(
    net: Shared,
    variables: Variables,
    arc: Code,
    x: Images,
    *,
    train: bool = False,
    key: Array | None = None,
) -> Trace:
    """Pass images through a network; arguments as of `Supernet.apply`."""
    return _from_stem(net, variables, arc, _stem(net, variables, x), train, key)


def _stem(net: Shared, variables: Variables, x: Images) -> Outputs:
    return child.stem(variables.params["stem"], {}, x, net.policy, net.norms)[0]


def _from_stem(
    net: Shared,
    variables: Variables,
    arc: Code,
    x: Images,
    train: bool,
    key: Array | None,
) -> Trace:
    params, own = variables.params, net.behaviour
    key = child.drop_key(key, own, train=train)
    before = last = x
    outputs, aux = [], None
    for name, cell in child.cells_of(net.plan):
        before, last = _run_cell(net, cell, params[name], arc, before, last)
        outputs.append(last)
        if train and net.plan.aux is not None and net.plan.aux.cell == cell.number:
            frozen = child.frozen(params["aux_head"], own)
            aux = child.aux_head(frozen, last, net.plan.aux, net.policy, net.norms)
    pair = net.policy.head, net.policy.classifier
    logits = child.head(params["head"], last, *pair, key=key, keep=own.keep)
    return Trace(logits, aux, outputs)


def _run_cell(
    net: Shared, cell: Cell, params: Tree, arc: Code, before: Array, last: Array
) -> tuple[Array, Array]:
    """Return the input of the cell that counts as the last one, and its output."""
    policy, norms = net.policy, net.norms
    spec = inside(net, cell)
    if cell.entry is not None:
        weights = spec.output.weights
        y, _ = units.reduction(params["entry"], {}, last, weights, spec.raw, norms)
        before, last = last, y
    nodes = [
        child.fit(
            params.get(f"input_{number}", {}), {}, x, source, policy, cell.number, norms
        )[0]
        for number, (x, source) in enumerate(
            zip((before, last), cell.sources, strict=True)
        )
    ]
    own = {
        name: params[name] for name in ("banks", "strided", "loose") if name in params
    }
    own["output"] = {n: part for n, part in params["output"].items() if n != "norm"}
    code = jnp.asarray(arc)[int(cell.reduction)]
    y: Any = combine(spec, own, code, jnp.stack(nodes))
    return last, units.normalize(params["output"], {}, y, norms)[0]


def evaluate_many(
    net: Shared,
    variables: Variables,
    arcs: Codes,
    x: Images,
    *,
    how: str = "map",
) -> Float[Array, "archs batch classes"]:
    """Return the logits of many architectures for the same images.

    Args:
        net: the network.
        variables: of it.
        arcs: the architectures.
        x: images.
        how: schedule of `shared.sweep.fan_out`.
    """
    # The stem is the same for all of them.
    y = _stem(net, variables, x)

    def one(arc: Code, variables: Variables, y: Images) -> Array:
        return _from_stem(net, variables, arc, y, False, None).logits

    return sweep.fan_out(one, how=how, in_axes=(0, None, None))(
        jnp.asarray(arcs), variables, y
    )
