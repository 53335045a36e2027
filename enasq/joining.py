"""The output of a shared-weight cell: a 1x1 convolution over its loose ends.

The kernel is assembled from a bank with a row for each node; what is not a loose end
costs nothing. Inputs that are larger than the blocks pass a factorised reduction first.

Reference: Pham et al. (2018), section 2.4.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array

from enasq import cell as cells
from enasq import layers, units
from enasq.operations import Code, Inside, pick, reduce_raw
from enasq.units import Tree


def _node_output(inside: Inside, own: Tree, x: Array) -> Array:
    """Return what a loose end adds to the output of the cell."""
    x = units.activate(own, inside.output.activations, x)
    return layers.conv(own["conv"], x, inside.output.weights)


def _fitted_output(inside: Inside, params: tuple[Tree, Tree], x: Array) -> Array:
    """Return what a loose end of double size adds to the output."""
    fit, own = params
    return _node_output(inside, own, reduce_raw(inside, inside.output, fit, x))


def _parts(inside: Inside, params: Tree) -> list[tuple[Callable, Any]]:
    """Return how each group of nodes gives its part of the output, and by what."""
    learned = {name: own for name, own in params["output"].items() if name != "conv"}
    bank = params["output"]["conv"]
    count = inside.blocks + 2
    share = lambda leaf: jnp.broadcast_to(leaf[None], (count, *leaf.shape))
    own = {"conv": bank} | jax.tree.map(share, learned)
    run = functools.partial(_node_output, inside)
    if inside.stride == 1:
        return [(run, own)]
    ends = jax.tree.map(lambda leaf: leaf[:2], own)
    rest = jax.tree.map(lambda leaf: leaf[2:], own)
    return [
        (functools.partial(_fitted_output, inside), (params["loose"], ends)),
        (run, rest),
    ]


def _loose(code: Code, groups: tuple[Array, ...]) -> list[Array]:
    loose = jnp.asarray(cells.loose_ends(code))
    return [loose] if len(groups) == 1 else [loose[:2], loose[2:]]


def output_of(
    inside: Inside, params: Tree, code: Code, groups: tuple[Array, ...]
) -> Array:
    """Add up what the loose ends give; other nodes cost nothing."""
    total = jnp.zeros(groups[-1].shape[1:], groups[-1].dtype)
    parts, loose = _parts(inside, params), _loose(code, groups)
    for (run, own), ends, nodes in zip(parts, loose, groups, strict=True):

        def step(total, given, run=run, nodes=nodes):
            end, own, place = given
            add = lambda total: total + run(own, pick(nodes, place))
            return lax.cond(end, add, lambda total: total, total), None

        places = jnp.arange(len(nodes), dtype=jnp.int32)
        total, _ = lax.scan(step, total, (ends, own, places))
    return total


def output_gradient(
    inside: Inside, params: Tree, code: Code, groups: tuple[Array, ...], g: Array
) -> tuple[Tree, tuple[Array, ...]]:
    """Return the gradients by the output's parameters, and those by the nodes."""
    found, groups_g = [], []
    parts, loose = _parts(inside, params), _loose(code, groups)
    for (run, own), ends, nodes in zip(parts, loose, groups, strict=True):

        def step(carry, given, run=run, nodes=nodes):
            end, own, place = given
            x = pick(nodes, place)
            back = lambda own, x: jax.vjp(run, own, x)[1](g)
            zeros = lambda own, x: jax.tree.map(jnp.zeros_like, (own, x))
            return carry, lax.cond(end, back, zeros, own, x)

        places = jnp.arange(len(nodes), dtype=jnp.int32)
        _, (own_g, nodes_g) = lax.scan(step, None, (ends, own, places))
        found.append(own_g)
        groups_g.append(nodes_g)
    if inside.stride == 1:
        return {"output": _pooled(found[0])}, tuple(groups_g)
    (fits, ends), rest = found
    own = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), ends, rest)
    return {"output": _pooled(own), "loose": fits}, tuple(groups_g)


def _pooled(own: Tree) -> Tree:
    """Add up what nodes share; rows of the bank are their own."""
    add = lambda leaf: jnp.sum(leaf, 0)
    return {
        name: part if name == "conv" else jax.tree.map(add, part)
        for name, part in own.items()
    }
