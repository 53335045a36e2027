"""LU factors of kernels: solving and inverting, one kernel or a stack of them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int


class Factors(NamedTuple):
    """LU factors of a kernel, `W[order] = L U`."""

    lu: Float[Array, "*layers n n"]
    order: Int[Array, "*layers n"]


def factor(kernels: Float[Array, "*layers n n"]) -> Factors:
    """Return the LU factors.

    A kernel that is singular at its precision gets factors that are not a number, so
    that whatever is solved with them shows it.
    """
    lu, _, order = lax.linalg.lu(kernels)
    pivots = jnp.abs(jnp.diagonal(lu, axis1=-2, axis2=-1))
    smallest, largest = pivots.min(axis=-1), pivots.max(axis=-1)
    sound = smallest > 10 * jnp.finfo(lu.dtype).eps * largest
    return Factors(jnp.where(sound[..., None, None], lu, jnp.nan), order)


def solve(
    found: Factors, q: Float[Array, "*layers batch n"]
) -> Float[Array, "*layers batch n"]:
    """Return `q W^-1` by two triangular solves."""
    x = lax.linalg.triangular_solve(found.lu, q)
    x = lax.linalg.triangular_solve(found.lu, x, lower=True, unit_diagonal=True)
    back = jnp.argsort(found.order, axis=-1)[..., None, :]
    return jnp.take_along_axis(x, jnp.broadcast_to(back, x.shape), axis=-1)


def inverse(found: Factors) -> Float[Array, "*layers n n"]:
    """Return `W^-1`."""
    eye = jnp.eye(found.lu.shape[-1], dtype=found.lu.dtype)
    return solve(found, jnp.broadcast_to(eye, found.lu.shape))


def invert(kernels: Float[Array, "*layers n n"]) -> Float[Array, "*layers n n"]:
    """Return the inverse of each kernel; NaN where it is singular."""
    return inverse(factor(kernels))


def by_width(
    fn: Callable[[Array], Any], kernels: Sequence[Float[Array, "_ _"]]
) -> list[Any]:
    """Apply `fn` to stacks `[layers, n, m]` of the kernels that share a shape.

    Returns:
        The slice of `fn`'s result that belongs to each kernel, in order.
    """
    results: list[Any] = [None] * len(kernels)
    for shape in dict.fromkeys(kernel.shape for kernel in kernels):
        members = [i for i, kernel in enumerate(kernels) if kernel.shape == shape]
        stacked = fn(jnp.stack([kernels[i] for i in members]))
        for row, i in enumerate(members):
            results[i] = jax.tree.map(lambda leaf, row=row: leaf[row], stacked)
    return results
