"""Sets of weights: what masks keep together, how many, and how much they share.

All numbers count weights. Masks whose entries cover blocks of weights are expanded to
single ones first, for which the functions need the parameters.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from shared.errors import UsageError
from shared.masking.logits import expand


def invert(masks: PyTree) -> PyTree:
    """Return boolean masks that keep what these remove."""
    return jax.tree.map(lambda mask: ~_bool(mask), masks)


def union(a: PyTree, b: PyTree) -> PyTree:
    """Return what either keeps; a parameter that one masks has the mask of that one."""
    return _pairwise(lambda x, y: _either(x, y, jnp.logical_or), a, b)


def intersection(a: PyTree, b: PyTree) -> PyTree:
    """Return what both keep, for parameters that both mask; None for others."""
    both = lambda x, y: (
        None if x is None or y is None else jnp.logical_and(_bool(x), _bool(y))
    )
    return _pairwise(both, a, b)


def count(masks: PyTree, params: PyTree | None = None) -> PyTree:
    """Count the weights that each mask keeps: a tree of numbers.

    Args:
        masks: one tree.
        params: what it masks; needed if entries cover more than one weight.
    """
    (masks,) = _full(params, masks)
    return jax.tree.map(lambda mask: jnp.sum(_bool(mask)), masks)


def total(counts: PyTree) -> Array:
    """Add up a tree of numbers."""
    return jax.tree.reduce(jnp.add, counts, jnp.zeros((), jnp.int32))


def density(masks: PyTree, params: PyTree) -> tuple[PyTree, Array]:
    """Return the share of weights kept of each masked parameter, and of all together.

    Args:
        masks: one tree.
        params: what it masks.
    """
    (masks,) = _full(params, masks)
    whole = jax.tree.map(lambda mask: mask.size, masks)
    return _ratios(count(masks), whole)


def iou(a: PyTree, b: PyTree, params: PyTree | None = None) -> tuple[PyTree, Array]:
    """Return |a ∩ b| / |a ∪ b| for each parameter that both mask, and for all together.

    Nothing kept by either gives 0.

    Args:
        a, b: two trees.
        params: what they mask; needed if entries cover more than one weight.
    """
    a, b = _full(params, a, b)
    shared = count(intersection(a, b))
    either = count(_common(union(a, b), shared))
    return _ratios(shared, either)


def iomin(a: PyTree, b: PyTree, params: PyTree | None = None) -> tuple[PyTree, Array]:
    """Return |a ∩ b| / min(|a|, |b|), how far one is a subset, as `iou` does.

    For all together, the smaller counts of all parameters are added up.
    """
    a, b = _full(params, a, b)
    shared = count(intersection(a, b))
    sizes = count(_common(a, shared)), count(_common(b, shared))
    return _ratios(shared, jax.tree.map(jnp.minimum, *sizes))


def remaining(
    masks: PyTree, reference: PyTree, params: PyTree | None = None
) -> tuple[PyTree, Array]:
    """Return the share |mask ∩ reference| / |reference|, as `iou` does."""
    masks, reference = _full(params, masks, reference)
    kept = count(intersection(masks, reference))
    return _ratios(kept, count(_common(reference, kept)))


def sharing(
    masks: PyTree, others: list[PyTree], params: PyTree | None = None
) -> tuple[PyTree, Array]:
    """Return the share of a mask that any of the others keep too, as `iou` does."""
    if not others:
        raise UsageError("others", others, "at least one tree of masks")
    masks, rest, *more = _full(params, masks, *others)
    for other in more:
        rest = union(rest, other)
    shared = count(intersection(masks, rest))
    return _ratios(shared, count(_common(masks, shared)))


def _full(params: PyTree | None, *masks: PyTree) -> tuple[PyTree, ...]:
    return masks if params is None else tuple(expand(m, params) for m in masks)


def _ratios(parts: PyTree, wholes: PyTree) -> tuple[PyTree, Array]:
    share = lambda part, whole: part / jnp.maximum(whole, 1)
    return jax.tree.map(share, parts, wholes), share(total(parts), total(wholes))


def _bool(mask: Array) -> Array:
    return mask.astype(bool)


def _either(x: Any, y: Any, combine: Callable[[Array, Array], Array]) -> Any:
    if x is None or y is None:
        return y if x is None else x
    return combine(_bool(x), _bool(y))


def _pairwise(fn: Callable[[Any, Any], Any], a: PyTree, b: PyTree) -> PyTree:
    """Map over two trees of masks, with None as a leaf."""
    none = lambda leaf: leaf is None
    try:
        return jax.tree.map(fn, a, b, is_leaf=none)
    except ValueError as error:
        raise UsageError("masks", str(error), "two trees of one structure") from error


def _common(masks: PyTree, like: PyTree) -> PyTree:
    """Leave out what has no value in the other tree."""
    return _pairwise(lambda m, other: None if other is None else m, masks, like)
