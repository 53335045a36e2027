"""Logits of masks: which weights have one, which share one, and what they keep."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from shared.errors import UsageError

Filter = Callable[[str, Any], bool]
Share = Callable[[str, Any], tuple[int, ...] | None]


def init_logits(
    params: PyTree,
    where: Filter | None = None,
    value: float | int = 2.0,
    share: Share | None = None,
) -> PyTree:
    """Return logits for the parameters that a filter chooses.

    Args:
        params: any tree.
        where: `(path, leaf) -> bool`, with paths like "layers/0/kernel"; by default
            every parameter of a floating type has a mask.
        value: of all logits: a weight is kept with probability σ(value).
        share: `(path, leaf) -> shape` of the logits, where blocks of weights share one;
            None for a logit of each weight. For a kernel `[in, out]`: `(in, 1)` masks
            whole inputs, `(1, out)` whole units, `(1, heads)` whole heads of a
            projection whose columns are ordered by head.

    Raises:
        UsageError: if nothing is chosen, or a parameter that is not of floating type,
            and for a shape that does not divide the parameter's.
    """

    def logits(path: Any, leaf: Array) -> Array | None:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        if not (floating if where is None else where(name, leaf)):
            return None
        if not floating:
            raise UsageError(f"where({name!r})", True, "a parameter of floating type")
        shape = None if share is None else share(name, leaf)
        if shape is not None and not fits(shape, leaf.shape):
            allowed = f"a shape that divides {leaf.shape}"
            raise UsageError(f"share({name!r})", shape, allowed)
        return jnp.full(leaf.shape if shape is None else shape, value, leaf.dtype)

    chosen = jax.tree_util.tree_map_with_path(logits, params)
    if not jax.tree.leaves(chosen):
        raise UsageError("where", where, "a filter that chooses at least one parameter")
    return chosen


def threshold(logits: PyTree, *, inclusive: bool = False) -> PyTree:
    """Return the masks without chance: keep where logit > 0 (>= 0 if `inclusive`).

    The rule for masks of every kind: what it keeps are the weights whose `soft_mask`
    is above 1/2, at any temperature.
    """
    keep = (lambda leaf: leaf >= 0) if inclusive else (lambda leaf: leaf > 0)
    return jax.tree.map(keep, logits)


def fits(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Tell whether each axis of a mask divides that of its parameter."""
    if len(shape) != len(whole):
        return False
    pairs = zip(shape, whole, strict=True)
    return all(s == w or (s > 0 and w % s == 0) for s, w in pairs)


def stretch(mask: Array, whole: tuple[int, ...]) -> Array:
    """Repeat entries that cover blocks of weights, except those that broadcast."""
    shape = mask.shape
    if all(size in (1, full) for size, full in zip(shape, whole, strict=True)):
        return mask
    pairs = [(s, w // s if s > 1 else 1) for s, w in zip(shape, whole, strict=True)]
    narrow = [size for s, _ in pairs for size in (s, 1)]
    wide = [size for pair in pairs for size in pair]
    blocks = jnp.broadcast_to(mask.reshape(narrow), wide)
    return blocks.reshape([s * block for s, block in pairs])


def expand(masks: PyTree, params: PyTree) -> PyTree:
    """Return masks, or logits, with an entry for each weight.

    Raises:
        UsageError: for masks of another structure or shape than the parameters.
    """
    check_masks(params, masks, None)

    def full(mask: Any, param: Any) -> Any:
        if mask is None:
            return None
        return jnp.broadcast_to(stretch(mask, param.shape), param.shape)

    return jax.tree.map(full, masks, params, is_leaf=lambda leaf: leaf is None)


def block_sizes(masks: PyTree, params: PyTree) -> PyTree:
    """Return how many weights each entry of each mask covers: a tree of integers.

    Raises:
        UsageError: for masks of another structure or shape than the parameters.
    """
    check_masks(params, masks, None)

    def size(mask: Any, param: Any) -> int | None:
        return None if mask is None else param.size // max(math.prod(mask.shape), 1)

    return jax.tree.map(size, masks, params, is_leaf=lambda leaf: leaf is None)


def check_masks(params: PyTree, masks: PyTree, groups: int | None) -> None:
    """Refuse masks that do not fit; with `groups`, all have that leading axis."""

    def check(path: Any, mask: Any, param: Any) -> None:
        if mask is None:
            return
        name = f"masks[{jax.tree_util.keystr(path, simple=True, separator='/')}]"
        if not isinstance(param, jax.Array):
            raise UsageError(name, "a mask", "None, for there is no such parameter")
        lead = () if groups is None else (groups,)
        own = jnp.shape(mask)
        if own[: len(lead)] != lead or not fits(own[len(lead) :], param.shape):
            full = (*lead, *param.shape)
            raise UsageError(name, own, f"the shape {full}, or divisors of its axes")

    none = lambda leaf: leaf is None
    try:
        jax.tree_util.tree_map_with_path(check, masks, params, is_leaf=none)
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError("masks", str(error), "the structure of params") from error
