"""The operations of a shared-weight cell, by their numbers.

Reference: Pham et al. (2018), section 2.4.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from enasq import cell as cells
from enasq import pools, units
from enasq.policy import Precision
from enasq.quantization import Quantizer
from enasq.records import KERNELS
from enasq.units import Kind, Norms, Tree

Code = Int[Array, "blocks 4"]
Stacked = Float[Array, "nodes batch height width channels"]

STACKS = ("stack_0", "stack_1")


class Inside(NamedTuple):
    """What the inside of a cell is made of, hashable.

    Attributes:
        blocks: of the cell.
        stride: of operations on nodes 0 and 1.
        precisions: that an architecture chooses from; otherwise the cell's one.
        output: the quantisers of the last convolution.
        raw: what reductions of single nodes read: quantised, or None for floats.
        inner, rescale: see `units.Kind`.
        norms: always those of the batch.
    """

    blocks: int
    stride: int
    precisions: tuple[Precision, ...]
    output: Precision
    raw: Quantizer | None
    inner: bool
    rescale: bool
    norms: Norms


class Edges(NamedTuple):
    """The branches of a cell, two a block, one array a field.

    Attributes:
        index: of the node that is read.
        op: operation id.
        target: node that is added to.
        row: of the shared weights.
        place: number of the branch.
    """

    index: Array
    op: Array
    target: Array
    row: Array
    place: Array


class Operation(NamedTuple):
    """One operation.

    Attributes:
        run: (row of its weights, x) -> outputs.
        weights: where its weights lie among a cell's parameters; () for none.
        group: of the nodes that it reads.
    """

    run: Callable[[Tree, Array], Array]
    weights: tuple[str, ...] = ()
    group: int = 0


def bank_name(window: int) -> str:
    """Return the name of the shared weights of a window."""
    return f"conv_{window}"


def rows(blocks: int) -> int:
    """Return how many rows a bank has: one for each node that each branch may read."""
    return sum(2 * (block + 2) for block in range(blocks))


def edges(code: Code) -> Edges:
    """Return the branches of a cell; rows are counted block by block, x before y."""
    blocks = code.shape[0]
    counts = [block + 2 for block in range(blocks) for _ in "xy"]
    start = jnp.asarray(np.cumsum([0, *counts[:-1]]), jnp.int32)
    target = jnp.asarray(np.repeat(np.arange(blocks) + 2, 2), jnp.int32)
    index = code[:, ::2].reshape(-1).astype(jnp.int32)
    op = code[:, 1::2].reshape(-1).astype(jnp.int32)
    place = jnp.arange(2 * blocks, dtype=jnp.int32)
    return Edges(index, op, target, start + index, place)


def places(inside: Inside, node: Array) -> list[tuple[Array | bool, Array]]:
    """Return whether a node is in each group, and its place there (0 if it is not)."""
    if inside.stride == 1:
        return [(True, node)]
    early = node < 2
    zero = jnp.zeros_like(node)
    return [(early, jnp.where(early, node, zero)), (~early, jnp.maximum(node - 2, 0))]


def pick(stacked: Array, place: Array) -> Array:
    """Return one of stacked arrays."""
    return lax.dynamic_index_in_dim(stacked, place, keepdims=False)


def add(stacked: Array, place: Array, x: Array) -> Array:
    """Add to one of stacked arrays."""
    total = pick(stacked, place) + x
    return lax.dynamic_update_index_in_dim(stacked, total, place, 0)


def row_of(weights: tuple[str, ...], params: Tree, edge: Edges) -> Tree:
    """Return the row that a branch has of some weights."""
    if not weights:
        return {}
    own = functools.reduce(lambda tree, name: tree[name], weights, params)
    row = rows_of(edge)[weights[0]]
    return jax.tree.map(lambda leaf: pick(leaf, row), own)


def rows_of(edge: Edges) -> dict[str, Array]:
    """Return the rows of a branch by the names of the weights."""
    return {"banks": edge.row, "strided": 2 * edge.place + edge.index}


def nested(weights: tuple[str, ...], tree: Tree) -> Tree:
    """Return the tree as it lies among a cell's parameters."""
    for name in reversed(weights):
        tree = {name: tree}
    return tree


def table_of(inside: Inside) -> tuple[list[Operation], np.ndarray]:
    """Return the operations, and their numbers by operation id and size of the input.

    Pools and identities are the same for all choices of a quantiser.
    """
    found: list[Operation] = []
    numbers: dict[tuple, int] = {}
    groups = 2 if inside.stride == 2 else 1
    table = np.zeros((groups, 5 * len(inside.precisions)), np.int32)
    for group in range(groups):
        stride = inside.stride if group == 0 else 1
        for choice, precision in enumerate(inside.precisions):
            for kind in range(5):
                strided_identity = kind == cells.IDENTITY and stride == 2
                own = precision if kind in KERNELS or strided_identity else None
                label = group, kind, own
                if label not in numbers:
                    numbers[label] = len(found)
                    operation = _operation(inside, group, kind, own)
                    found.append(operation._replace(group=group))
                table[group, kind + 5 * choice] = numbers[label]
    return found, table


def number_of(inside: Inside, table: np.ndarray, edge: Edges) -> Array:
    """Return the number of a branch's operation."""
    group = jnp.where(edge.index < 2, 0, 1) if inside.stride == 2 else 0
    return jnp.asarray(table, jnp.int32)[group, edge.op]


def _operation(
    inside: Inside, group: int, kind: int, precision: Precision | None
) -> Operation:
    stride = inside.stride if group == 0 else 1
    if kind in KERNELS and precision is not None:
        own = Kind(precision, inside.inner, inside.rescale)
        return _convolution(inside, bank_name(KERNELS[kind]), own, stride)
    if precision is not None:
        # The factorised reduction that stands for an identity with a stride.
        run = functools.partial(reduce_raw, inside, precision)
        return Operation(run, ("strided",))
    if kind == cells.IDENTITY:
        return Operation(lambda own, x: x)
    pool = pools.avg_pool if kind == cells.AVG_POOL else pools.max_pool
    return Operation(lambda own, x: pool(x, stride=stride))


def _convolution(inside: Inside, name: str, kind: Kind, stride: int) -> Operation:
    """Return two separable convolutions."""

    def run(own, x):
        for stack, step in zip(STACKS, (stride, 1), strict=True):
            x, _ = units.separable(own[stack], {}, x, kind, inside.norms, stride=step)
        return x

    return Operation(run, ("banks", name))


def reduce_raw(inside: Inside, precision: Precision, params: Tree, x: Array) -> Array:
    """Return the factorised reduction of a node."""
    raw = None if inside.raw is None else precision.activations
    return units.reduction(params, {}, x, precision.weights, raw, inside.norms)[0]
