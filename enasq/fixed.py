"""Networks of one architecture, with running statistics.

Cells start with a 1x1 convolution, reduction cells have strides inside, and a cell's
output is made of all its loose ends. Variables are nested dicts: `stem`, `cell_0` ...,
`head`, `aux_head`; of a cell `input_0`, `input_1`, `base`, `block_1_x`, `block_1_y` ...
and `loose_0`, `loose_1`, as far as they have any.

Reference: Pham et al. (2018), section 2.4.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Int, Key

from enasq import cell as cells
from enasq import child, exact, pools, units
from enasq.behaviour import Behaviour
from enasq.cell import Architecture
from enasq.drop_path import drop_path, keep_rate
from enasq.plan import Cell, Network, Plan, plan
from enasq.policy import Precision, QuantPolicy
from enasq.quantization import Quantizer
from enasq.records import KERNELS
from enasq.units import Images, Kind, Norms, Tree
from shared.errors import UsageError, check_choice
from shared.model import Model, Variables

Step = int | Int[Array, ""]


class Branch(NamedTuple):
    """One operation of a cell.

    Attributes:
        name: of its variables.
        node: what it reads.
        target: the node that it adds to.
        op: operation, without its choice of a quantiser.
        stride: of the operation.
        precision: its quantisers.
    """

    name: str
    node: int
    target: int
    op: int
    stride: int
    precision: Precision


class Fixed(NamedTuple):
    """What a network is made of, hashable.

    Attributes:
        plan: its cells.
        policy: its quantisers.
        behaviour: the rest.
        codes: of the normal and the reduction cell, as tuples.
        axis_name: mesh axis over which training batches are shared out.
    """

    plan: Plan
    policy: QuantPolicy
    behaviour: Behaviour
    codes: tuple[tuple[tuple[int, ...], ...], ...]
    axis_name: str | None = None

    @property
    def arc(self) -> Architecture:
        """The architecture as an array."""
        return np.asarray(self.codes, np.int32)


class Trace(NamedTuple):
    """What a pass computes.

    Attributes:
        logits: of the classes.
        aux: those of the auxiliary head, in training.
        outputs: of all cells.
        state: changed in training.
    """

    logits: Array
    aux: Array | None
    outputs: list[Array]
    state: Tree


def build(
    network: Network,
    policy: QuantPolicy,
    arc: Architecture,
    behaviour: Behaviour | None = None,
    *,
    dtype: DTypeLike = jnp.float32,
) -> Model:
    """Return the network of an architecture.

    `apply(variables, x, *, train=False, key=None, step=0)` returns
    `((logits, aux), state)`: aux is None but in training with an auxiliary head, `step`
    counts training steps done, for dropping paths. The key is needed where values or
    paths are dropped.

    Args:
        network: its settings, of kind "fixed".
        policy: its quantisers.
        arc: the architecture.
        behaviour: by default what is recommended.
        dtype: of the variables.

    Raises:
        UsageError: if the architecture does not fit the network or the policy.
    """
    net = describe(network, policy, arc, behaviour)

    def apply(variables, x, *, train=False, key=None, step=0):
        found = run(net, variables, x, train=train, key=key, step=step)
        return (found.logits, found.aux), found.state

    return Model(functools.partial(init, net, dtype=dtype), apply)


def describe(
    network: Network,
    policy: QuantPolicy,
    arc: Architecture,
    behaviour: Behaviour | None = None,
) -> Fixed:
    """Return what the network of an architecture is made of."""
    if network.kind != "fixed":
        raise UsageError("kind", network.kind, "'fixed', for one architecture")
    arc = cells.check(arc, ops=5 * max(len(policy.choices), 1))
    codes = tuple(tuple(map(tuple, cell.tolist())) for cell in arc)
    return Fixed(plan(network, arc), policy, behaviour or Behaviour(), codes)


def branches(net: Fixed, cell: Cell) -> list[Branch]:
    """Return the operations of a cell, both of a block in turn."""
    found = []
    code = net.arc[int(cell.reduction)]
    for node, target, branch, op in cells.edges(code).tolist():
        kind, choice = cells.split_op(op)
        precision = net.policy.of_branch(cell.number, branch, choice)
        name = f"block_{target - 1}_{'xy'[branch]}"
        stride = cell.stride if node < 2 else 1
        found.append(Branch(name, node, target, kind, stride, precision))
    return found


def loose_ends(net: Fixed, cell: Cell) -> list[int]:
    """Return the nodes that a cell's output is made of."""
    loose = cells.loose_ends(net.arc[int(cell.reduction)])
    return [int(node) for node in loose.nonzero()[0]]


def _entry(net: Fixed, precision: Precision) -> tuple[Quantizer, Quantizer | None]:
    """Return the quantisers of a reduction that has no activation as published."""
    return precision.weights, (
        precision.activations if net.policy.quantize_inputs else None
    )


def init(
    net: Fixed, key: Key[Array, ""], *, dtype: DTypeLike = jnp.float32
) -> Variables:
    """Return the variables of a network."""
    network, policy = net.plan.network, net.policy
    stem, head, aux, rest = jax.random.split(key, 4)
    parts = {"stem": child.init_stem(stem, net.plan, policy, running=True, dtype=dtype)}
    for name, cell in child.cells_of(net.plan):
        parts[name] = _init_cell(
            jax.random.fold_in(rest, cell.number), net, cell, dtype
        )
    last, high = net.plan.cells[-1].channels, net.behaviour.head_range
    how = {"high": high, "dtype": dtype}
    params = child.init_head(head, last, network.classes, policy, **how)
    parts["head"] = Variables(params, {})
    if net.plan.aux is not None:
        params = child.init_aux(aux, net.plan.aux, network.classes, policy, **how)
        parts["aux_head"] = Variables(params, {})
    return child.collect(parts)


def _init_cell(key: Array, net: Fixed, cell: Cell, dtype: DTypeLike) -> Variables:
    own, filters, policy = net.policy.of_cell(cell.number), cell.filters, net.policy
    how = {"running": True, "dtype": dtype}
    keys = iter(jax.random.split(key, 2 * len(net.codes[0]) + 5))
    parts = {}
    for number, source in enumerate(cell.sources):
        parts[f"input_{number}"] = child.init_source(
            next(keys), source, filters, policy, cell.number, **how
        )
    pair = own.weights, own.activations
    parts["base"] = units.init_unit(next(keys), 1, filters, filters, *pair, **how)
    for branch in branches(net, cell):
        parts[branch.name] = _init_branch(next(keys), net, branch, filters, **how)
    for node in loose_ends(net, cell):
        if cell.node_size(node) != cell.output_size:
            parts[f"loose_{node}"] = units.init_reduction(
                next(keys), filters, filters, *_entry(net, own), **how
            )
    return child.collect({name: part for name, part in parts.items() if part.params})


def _kind(net: Fixed, precision: Precision) -> Kind:
    return Kind(precision, net.policy.inner_activation, net.behaviour.rescale)


def _init_branch(
    key: Array, net: Fixed, branch: Branch, filters: int, **how: Any
) -> Variables:
    if branch.op in KERNELS:
        kind, window = _kind(net, branch.precision), KERNELS[branch.op]
        stacks = [
            units.init_separable(own, window, filters, kind, **how)
            for own in jax.random.split(key)
        ]
        return child.collect({f"stack_{s}": stack for s, stack in enumerate(stacks)})
    if branch.op == cells.IDENTITY and branch.stride == 2:
        pair = _entry(net, branch.precision)
        return units.init_reduction(key, filters, filters, *pair, **how)
    return Variables({}, {})


def run(
    net: Fixed,
    variables: Variables,
    x: Images,
    *,
    train: bool,
    key: Array | None = None,
    step: Step = 0,
    rule: str = "auto",
) -> Trace:
    """Pass images through a network; arguments as of the model's `apply`.

    Args:
        rule: of evaluation: "float"; "exact", that of exported networks, see
            `enasq.exact`; or "auto": the latter for networks that can be exported.
    """
    check_choice("rule", rule, ("auto", "float", "exact"))
    own = net.behaviour
    why = exact.obstacle(net.plan.network, net.policy, net.arc)
    if rule == "exact" and why:
        raise UsageError("rule", rule, f"'float', for {why}")
    mode = "eval" if rule == "float" or why else "exact"
    norms = Norms(mode, own.momentum, own.epsilon)
    if train:
        norms = norms._replace(mode="train", axis_name=net.axis_name)
    params, state = variables
    head_key = child.drop_key(key, own, train=train)
    drop = _dropper(net, key, step, train=train)
    y, stem = child.stem(params["stem"], state["stem"], x, net.policy, norms)
    before = last = y
    states, outputs, aux = {"stem": stem}, [], None
    for name, cell in child.cells_of(net.plan):
        pair = params[name], state[name]
        y, states[name] = _run_cell(net, cell, *pair, (before, last), norms, drop)
        before, last = last, y
        outputs.append(y)
        if train and net.plan.aux is not None and net.plan.aux.cell == cell.number:
            frozen = child.frozen(params["aux_head"], own)
            aux = child.aux_head(frozen, y, net.plan.aux, net.policy, norms)
    logits = child.head(
        params["head"],
        last,
        net.policy.head,
        net.policy.classifier,
        key=head_key,
        keep=own.keep,
    )
    return Trace(logits, aux, outputs, states)


def _dropper(
    net: Fixed, key: Array | None, step: Step, *, train: bool
) -> Callable[[int, int, Array], Array]:
    """Return (cell, place of a branch, x) -> x, which drops examples in training."""
    keep, steps = net.behaviour.drop_path_keep, net.behaviour.drop_path_steps
    if not train or keep == 1:
        return lambda number, place, x: x
    if key is None:
        raise UsageError("key", key, "a random key, for dropping paths in training")
    rates = [
        keep_rate(keep, number, len(net.plan.cells), step, steps)
        for number in range(len(net.plan.cells))
    ]

    def drop(number: int, place: int, x: Array) -> Array:
        own = jax.random.fold_in(jax.random.fold_in(key, number + 1), place)
        return drop_path(x, rates[number], own)

    return drop


def _run_cell(
    net: Fixed,
    cell: Cell,
    params: Tree,
    state: Tree,
    inputs: tuple[Array, Array],
    norms: Norms,
    drop: Callable[[int, int, Array], Array],
) -> tuple[Array, Tree]:
    own, policy, states = net.policy.of_cell(cell.number), net.policy, {}

    def part(name: str, run: Callable, *args: Any, **kwargs: Any) -> Array:
        y, changed = run(params.get(name, {}), state.get(name, {}), *args, **kwargs)
        if changed:
            states[name] = changed
        return y

    nodes: list[Array] = []
    for number, (x, source) in enumerate(zip(inputs, cell.sources, strict=True)):
        place = source, policy, cell.number, norms
        nodes.append(part(f"input_{number}", child.fit, x, *place))
    pair = own.weights, own.activations
    nodes[1] = part("base", units.unit, nodes[1], *pair, norms)
    for place, branch in enumerate(branches(net, cell)):
        y = part(branch.name, _operate, nodes[branch.node], net, branch, norms)
        if branch.op != cells.IDENTITY:
            y = drop(cell.number, place, y)
        nodes += [y] if branch.target == len(nodes) else []
        if place % 2:
            nodes[-1] = nodes[-1] + y
    ends = []
    for node in loose_ends(net, cell):
        y = nodes[node]
        if cell.node_size(node) != cell.output_size:
            y = part(f"loose_{node}", units.reduction, y, *_entry(net, own), norms)
        ends.append(y)
    return jnp.concatenate(ends, -1), states


def _operate(
    params: Tree, state: Tree, x: Array, net: Fixed, branch: Branch, norms: Norms
) -> tuple[Array, Tree]:
    stride = branch.stride
    if branch.op in KERNELS:
        kind, states = _kind(net, branch.precision), {}
        for name, own in (("stack_0", stride), ("stack_1", 1)):
            given = params[name], state.get(name, {})
            how = {"stride": own, "node": name == "stack_1"}
            x, states[name] = units.separable(*given, x, kind, norms, **how)
        return x, states
    if branch.op == cells.AVG_POOL and norms.mode == "exact":
        return exact.avg_pool(x, stride=stride), state
    if branch.op == cells.AVG_POOL:
        return pools.avg_pool(x, stride=stride), state
    if branch.op == cells.MAX_POOL:
        return pools.max_pool(x, stride=stride), state
    if stride == 1:
        return x, state
    pair = _entry(net, branch.precision)
    return units.reduction(params, state, x, *pair, norms)
