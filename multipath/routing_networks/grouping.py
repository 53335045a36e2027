"""Samples sorted into groups, so that each module computes for its own samples alone.

Every module has one tile of rows. Samples beyond it fill further tiles, which a loop
visits one by one: none when samples are spread evenly, at most all samples' worth when
one module has them all. Rows that are left over hold some sample and count for nothing.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Int, PyTree, Shaped

Apply = Callable[[PyTree, PyTree, Array | None, Array], Array]
"""`(params, state, key, rows) -> rows` of one module."""


class Groups(NamedTuple):
    """Where each sample stands when samples are sorted by module.

    Attributes:
        order: samples, those of module 0 first; in a group as in the batch.
        starts, sizes: of the groups.
        action: module of each sample; as many as there are modules for none.
        rank: place of each sample in its group.
    """

    order: Int[Array, " batch"]
    starts: Int[Array, " modules"]
    sizes: Int[Array, " modules"]
    action: Int[Array, " batch"]
    rank: Int[Array, " batch"]


def group(
    action: Int[Array, " batch"],
    modules: int,
    mask: Bool[Array, " batch"] | None = None,
) -> Groups:
    """Sort samples by module.

    Args:
        action: module of each sample.
        modules: how many there are.
        mask: samples that go to a module; None means all.
    """
    batch = len(action)
    if mask is not None:
        action = jnp.where(mask, action, modules)
    action = action.astype(jnp.int32)
    places = jnp.arange(batch, dtype=jnp.int32)
    # One sort of single numbers is quicker than a stable one of pairs.
    order = jnp.sort(action * batch + places) % max(batch, 1)
    rank = jnp.zeros_like(places).at[order].set(places, unique_indices=True)
    kinds = jnp.arange(modules + 1, dtype=jnp.int32)
    bounds = jnp.sum(action[None] < kinds[:, None], 1, dtype=jnp.int32)
    return Groups(order, bounds[:-1], jnp.diff(bounds), action, rank - bounds[action])


def own_rows(
    groups: Groups,
    x: Shaped[Array, "batch ..."],
    module: Int[Array, ""] | int,
    rows: int,
) -> Shaped[Array, "rows ..."]:
    """Return the samples of one module in turn, again and again, to fill some rows."""
    size = jnp.maximum(groups.sizes[module], 1)
    places = groups.starts[module] + jnp.arange(rows, dtype=jnp.int32) % size
    return x[groups.order[jnp.minimum(places, len(x) - 1)]]


def tile_rows(batch: int, modules: int) -> int:
    """Return how many rows a tile has: a module's even share, and what chance adds."""
    share = batch / modules
    return max(8 * round((share + share**0.5) / 8 + 0.49), 8)


def tiles(batch: int, modules: int, rows: int) -> int:
    """Return how many tiles there are: the modules' first ones, and as many further."""
    return modules + max((batch - 1) // rows, 1)


class _Tiles(NamedTuple):
    """Where samples lie in tiles of equal size.

    Attributes:
        source: sample in each row, the batch's size for none.
        row: of each sample.
        module: of each tile.
        further: tiles in use after the modules' first ones.
        active: samples that go to a module.
    """

    source: Array
    row: Array
    module: Array
    further: Array
    active: Array


def _lay(groups: Groups, rows: int) -> _Tiles:
    batch, modules = len(groups.order), len(groups.sizes)
    further = jnp.maximum(-(-groups.sizes // rows) - 1, 0)
    ends = jnp.cumsum(further)
    active = groups.action < modules
    own = jnp.minimum(groups.action, modules - 1)
    tile, place = groups.rank // rows, groups.rank % rows
    tile = jnp.where(tile == 0, own, modules - 1 + (ends - further)[own] + tile)
    row = jnp.where(active, tile * rows + place, 0)
    number = tiles(batch, modules, rows)
    size, later = number * rows, jnp.arange(number - modules)
    module = jnp.sum(ends[None] <= later[:, None], 1, dtype=jnp.int32)
    module = jnp.concatenate([jnp.arange(modules), jnp.minimum(module, modules - 1)])
    source = jnp.full(size, batch, jnp.int32)
    places = jnp.arange(batch, dtype=jnp.int32)
    source = source.at[jnp.where(active, row, size)].set(places, mode="drop")
    return _Tiles(source, row, module, _greatest(ends[-1]), active)


@custom_vmap
def _greatest(number: Array) -> Array:
    """Let all members of a batch loop as often, so that the loop need not choose."""
    return number


@_greatest.def_vmap
def _(size: int, batched: Any, number: Array) -> tuple[Array, bool]:
    del size, batched
    return _greatest(jnp.max(number)), False


class _Fixed(NamedTuple):
    """What has no gradient: the lay-out, the modules' state, keys of all tiles."""

    lay: _Tiles
    state: PyTree
    keys: Array | None


def apply_in_tiles(
    apply: Apply,
    params: PyTree,
    state: PyTree,
    x: Shaped[Array, "batch ..."],
    groups: Groups,
    *,
    rows: int,
    keys: Array | None = None,
) -> Shaped[Array, "batch ..."]:
    """Return what each sample's module makes of it.

    Gradients flow once: the number of further tiles is not known beforehand.

    Args:
        apply: of one module, row by row.
        params: stacked `[modules, ...]`.
        state: stacked as well; without a gradient.
        x: samples; those of no module get that of any row.
        groups: which module they go to.
        rows: of a tile.
        keys: for random numbers, one for each of the `tiles`.
    """
    fixed = _Fixed(_lay(groups, rows), lax.stop_gradient(state), keys)
    return _run(apply, rows, params, x, fixed)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run(apply: Apply, rows: int, params: PyTree, x: Array, fixed: _Fixed) -> Array:
    return _forward(apply, rows, params, x, fixed)[0]


def _forward(apply: Apply, rows: int, params: PyTree, x: Array, fixed: _Fixed):
    source = jnp.minimum(fixed.lay.source, len(x) - 1)
    tiled, count = _tiled(x[source], rows), _count(params)

    def first(params: PyTree, tiled: Array) -> Array:
        keys = None if fixed.keys is None else fixed.keys[:count]
        return jax.vmap(apply)(params, fixed.state, keys, tiled)

    def visit(i: Array, y: Array) -> Array:
        module = fixed.lay.module[i]
        made = apply(_at(params, module), *_own(fixed, i), _at(tiled, i))
        return lax.dynamic_update_index_in_dim(y, made, i, 0)

    y, pull = jax.vjp(first, params, tiled[:count])
    y = lax.fori_loop(count, count + fixed.lay.further, visit, _lengthened(y, tiled))
    return _collect(fixed.lay, y), (pull, params, tiled, fixed)


def _backward(apply: Apply, rows: int, kept: PyTree, gradient: Array):
    pull, params, tiled, fixed = kept
    lay, count = fixed.lay, _count(params)
    padded = jnp.concatenate([gradient, jnp.zeros_like(gradient[:1])])
    gradients = _tiled(padded[lay.source], rows)

    def visit(i: Array, found: tuple[PyTree, Array]) -> tuple[PyTree, Array]:
        of_params, of_x = found
        module, own = lay.module[i], _own(fixed, i)
        one = lambda params, x: apply(params, *own, x)
        _, pull = jax.vjp(one, _at(params, module), _at(tiled, i))
        more, made = pull(_at(gradients, i))
        of_params = jax.tree.map(lambda g, m: g.at[module].add(m), of_params, more)
        return of_params, lax.dynamic_update_index_in_dim(of_x, made, i, 0)

    of_params, of_x = pull(gradients[:count])
    begin = of_params, _lengthened(of_x, tiled)
    of_params, of_x = lax.fori_loop(count, count + lay.further, visit, begin)
    of_x = _collect(lay, of_x)
    active = lay.active.reshape(-1, *(1,) * (of_x.ndim - 1))
    return of_params, jnp.where(active, of_x, 0), None


_run.defvjp(_forward, _backward)


def _count(params: PyTree) -> int:
    return len(jax.tree.leaves(params)[0])


def _own(fixed: _Fixed, i: Array) -> tuple[PyTree, Array | None]:
    """Return state and key of a tile."""
    return _at(fixed.state, fixed.lay.module[i]), _at(fixed.keys, i)


def _tiled(samples: Array, rows: int) -> Array:
    return samples.reshape(-1, rows, *samples.shape[1:])


def _lengthened(first: Array, like: Array) -> Array:
    zeros = jnp.zeros((len(like) - len(first), *first.shape[1:]), first.dtype)
    return jnp.concatenate([first, zeros])


def _collect(lay: _Tiles, rows: Array) -> Array:
    return rows.reshape(-1, *rows.shape[2:])[lay.row]


def _at(tree: PyTree, i: Array) -> PyTree:
    pick = lambda leaf: lax.dynamic_index_in_dim(leaf, i, 0, keepdims=False)
    return jax.tree.map(pick, tree)
