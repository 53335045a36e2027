"""The inside of a shared-weight cell: an architecture as data, one program for all.

Nodes lie in one stacked array; each branch reads one of them by its index, gathers its
row of the shared weights and switches to the sampled operation, so that nothing else is
computed. In cells with strides inside, nodes 0 and 1 are larger and lie apart.

The gradient is by hand, for the whole of a cell: that of a switch would keep what every
operation needs, and that of a gather a copy of all nodes for every branch. Here it is
again a loop over the branches with a switch, and adds to one array for all nodes. Only
nodes are kept, and each operation is computed again on the way back: to keep its sums
takes longer, as room for them is filled for every branch, whatever its operation.

Reference: Pham et al. (2018), section 2.4.
"""

import functools

import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array

from enasq.joining import output_gradient, output_of
from enasq.operations import (
    Edges,
    Inside,
    Operation,
    Stacked,
    add,
    edges,
    nested,
    number_of,
    pick,
    places,
    row_of,
    rows_of,
    table_of,
)
from enasq.units import Outputs, Tree


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def combine(inside: Inside, params: Tree, code: Array, inputs: Stacked) -> Outputs:
    """Return the sums of the last convolution of a cell, not normalised.

    Args:
        inside: what the cell is made of.
        params: `banks`, `output`, and with strides inside `strided` and `loose`.
        code: of the cell; may be traced.
        inputs: nodes 0 and 1.
    """
    groups = _forward(inside, params, edges(code), inputs)
    return output_of(inside, params, code, groups)


def _combine_fwd(inside: Inside, params: Tree, code: Array, inputs: Array):
    groups = _forward(inside, params, edges(code), inputs)
    return output_of(inside, params, code, groups), (params, code, groups)


def _combine_bwd(inside: Inside, kept: tuple, g: Array):
    params, code, groups = kept
    output_g, groups_g = output_gradient(inside, params, code, groups, g)
    banks_g, groups_g = _backward(inside, params, edges(code), groups, groups_g)
    return output_g | banks_g, None, groups_g[0][:2]


combine.defvjp(_combine_fwd, _combine_bwd)


def _start_nodes(inside: Inside, inputs: Array) -> tuple[Array, ...]:
    _, batch, height, width, channels = inputs.shape
    stride = inside.stride
    size = inside.blocks, batch, height // stride, width // stride, channels
    blocks = jnp.zeros(size, inputs.dtype)
    return (jnp.concatenate([inputs, blocks]),) if stride == 1 else (inputs, blocks)


def _forward(
    inside: Inside, params: Tree, walk: Edges, inputs: Array
) -> tuple[Array, ...]:
    """Return the nodes."""
    operations, table = table_of(inside)

    def branch(operation: Operation):
        def run(params: Tree, groups: tuple[Array, ...], edge: Edges) -> Array:
            own, group = row_of(operation.weights, params, edge), operation.group
            place = places(inside, edge.index)[group][1]
            return operation.run(own, pick(groups[group], place))

        return run

    def step(groups: tuple[Array, ...], edge: Edges):
        number = number_of(inside, table, edge)
        y = lax.switch(
            number, [branch(one) for one in operations], params, groups, edge
        )
        place = places(inside, edge.target)[-1][1]
        return (*groups[:-1], add(groups[-1], place, y)), None

    return lax.scan(step, _start_nodes(inside, inputs), walk)[0]


def _backward(
    inside: Inside,
    params: Tree,
    walk: Edges,
    groups: tuple[Array, ...],
    groups_g: tuple[Array, ...],
) -> tuple[Tree, tuple[Array, ...]]:
    """Return the gradients by the shared weights, and those by the nodes."""
    operations, table = table_of(inside)
    shared = {name: params[name] for name in ("banks", "strided") if name in params}
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), shared)

    def branch(operation: Operation):
        weights, own = operation.weights, operation.group

        def run(params: Tree, groups: tuple[Array, ...], edge: Edges, g: Array):
            x = pick(groups[own], places(inside, edge.index)[own][1])
            # Its forward pass once more.
            _, back = jax.vjp(operation.run, row_of(weights, params, edge), x)
            row_g, x_g = back(g)
            found = nested(weights, row_g) if weights else {}
            found = nothing | {n: nothing[n] | part for n, part in found.items()}
            return found, tuple(
                x_g if n == own else jnp.zeros(group.shape[1:], group.dtype)
                for n, group in enumerate(groups)
            )

        return run

    def step(groups_g: tuple[Array, ...], edge: Edges):
        g = pick(groups_g[-1], places(inside, edge.target)[-1][1])
        number = number_of(inside, table, edge)
        found, parts = lax.switch(
            number, [branch(one) for one in operations], params, groups, edge, g
        )
        spots = places(inside, edge.index)
        groups_g = tuple(
            add(group, place, part)
            for group, (_, place), part in zip(groups_g, spots, parts, strict=True)
        )
        return groups_g, found

    groups_g, found = lax.scan(step, groups_g, walk, reverse=True)
    place = rows_of(walk)
    scatter = lambda name: jax.tree.map(
        lambda leaf, rows: jnp.zeros_like(leaf).at[place[name]].add(rows),
        shared[name],
        found[name],
    )
    return {name: scatter(name) for name in shared}, groups_g
