"""Applying `W^-1` to a batch without factoring W: refinement of an approximation.

Training moves a kernel a little at a time, so the inverse of a few steps ago, V, is
nearly the inverse now: `x = q V` is nearly right, and each sweep `x <- x + (q - x W) V`
multiplies the error by `I - W V`. Where the orthogonality regulariser has `G = W W^T`
at hand and keeps its off-diagonal part small, `W^T diag(G)^-1` serves as V, nothing
need be remembered, and a sweep is one product instead of two.
"""

from collections.abc import Callable
from typing import NamedTuple

from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Bool, Float

from gaitprop import factors

MAX_SWEEPS = 12
"""Sweeps after which the kernel is factored instead."""

MIN_PROGRESS = 0.7
"""A sweep that leaves more than this share of the residual is the last."""

NEWTON_RANGE = 0.1
"""Error per sweep below which a Newton step renews an inverse as well as a new one."""

Info = dict[str, Array]
Tolerance = Float[Array, ""] | float


class Memory(NamedTuple):
    """What is kept of a layer from one step to the next.

    Attributes:
        inverse_t: the transpose of an inverse from some steps ago (products with a
            transposed matrix are the faster kind on a CPU).
        sweeps: products it has cost since, in pairs.
        steps: steps it has served.
    """

    inverse_t: Float[Array, "n n"]
    sweeps: Float[Array, ""]
    steps: Float[Array, ""]


def scaled_transpose(kernel: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Return `W^T diag(1 / r^2)`, r the row norms; exact for orthogonal rows."""
    squares = jnp.sum(kernel**2, axis=1)
    return kernel.T / jnp.where(squares > 0, squares, 1)[None]


def start(kernel: Float[Array, "n n"]) -> Memory:
    """Start from the scaled transpose, which needs no factorisation."""
    # Two buffers: one buffer in two places could not be donated.
    counts = jnp.zeros((), kernel.dtype), jnp.zeros((), kernel.dtype)
    return Memory(scaled_transpose(kernel).T, *counts)


def norm(x: Float[Array, "batch n"]) -> Float[Array, ""]:
    """Return the Frobenius norm."""
    return jnp.sqrt(jnp.sum(x * x))


def _sweeps(
    x: Array,
    tool: Array,
    residual: Callable[[Array], tuple[Array, Array]],
    correction: Callable[[Array, Array], Array],
    bound: Array,
) -> tuple[Array, Array, Array, Array]:
    """Correct x until its residual is within the bound or shrinks no more.

    Args:
        x: first solution.
        tool: what corrections need. It travels with the loop: a buffer that the loop
            hands back can be renewed in place afterwards.
        residual: `x -> (r, size)`.
        correction: `(r, tool) -> change of x`.
        bound: largest size.

    Returns:
        x, the size of its residual, the number of sweeps, and the tool.
    """

    def unfinished(carry):
        _, _, size, before, count, _ = carry
        shrinks = size <= MIN_PROGRESS * before
        return (size > bound) & shrinks & (count < MAX_SWEEPS)

    def sweep(carry):
        x, r, size, _, count, tool = carry
        x = x + correction(r, tool)
        return x, *residual(x), size, count + 1, tool

    r, size = residual(x)
    carry = (x, r, size, jnp.full_like(size, jnp.inf), jnp.zeros_like(size), tool)
    x, _, size, _, count, tool = lax.while_loop(unfinished, sweep, carry)
    return x, size, count, tool


def _converged(kernel: Array, x: Array, size: Array, bound: Array) -> Bool[Array, ""]:
    """Tell whether a residual is within the bound or at rounding level."""

    def at_rounding_level():
        scale = jnp.linalg.norm(kernel) * kernel.shape[0] ** -0.5
        return size <= 4 * jnp.finfo(x.dtype).eps * scale * norm(x)

    return lax.cond(size <= bound, lambda: jnp.array(True), at_rounding_level)


def _report(size, length, count, refreshed, fell_back) -> Info:
    return {
        "residual": size / jnp.where(length > 0, length, 1),
        "sweeps": count,
        "refreshes": refreshed.astype(size.dtype),
        "fallbacks": fell_back.astype(size.dtype),
    }


def with_memory(
    kernel: Float[Array, "n n"],
    memory: Memory,
    q: Float[Array, "batch n"],
    tolerance: Tolerance,
) -> tuple[Float[Array, "batch n"], Memory, Info]:
    """Solve with a remembered inverse, and renew it when that is the cheaper way.

    The inverse ages as the kernel moves, and sweeps grow in number. It is renewed once
    a step costs more than the average step since the last renewal has cost, the renewal
    included: the rule that keeps the mean cost least without knowing how fast the
    kernel moves. Sweeps that do not converge are replaced by an LU solve.

    Args:
        kernel: W.
        memory: of this layer.
        q: right-hand sides.
        tolerance: largest residual `||q - x W|| / ||q||`, Frobenius norms. A residual
            at the rounding level of this kernel and dtype counts as converged too.

    Returns:
        `q W^-1`, the new memory, and `residual`, `sweeps`, `refreshes`, `fallbacks`.
    """
    length = norm(q)
    bound = tolerance * length

    def residual(x):
        r = q - x @ kernel
        return r, norm(r)

    def correction(r, inverse_t):
        return r @ inverse_t.T

    x = correction(q, memory.inverse_t)
    x, size, count, inverse_t = _sweeps(
        x, memory.inverse_t, residual, correction, bound
    )
    converged = _converged(kernel, x, size, bound)
    sweeps, steps = memory.sweeps + count + 1, memory.steps + 1
    dear = (count + 1) * steps > sweeps + renewal_cost(*q.shape)
    renew = dear | ~converged
    error = (size / jnp.where(length > 0, length, 1)) ** (1 / (count + 1))
    near = converged & (error < NEWTON_RANGE)

    def by_newton(x, size, old):
        return x, size, 2 * old - old @ (kernel.T @ old)

    def by_factors(x, size, old):
        del old
        # Of the transpose: its factors come in the layout that `inverse_t` keeps.
        inverse_t = factors.invert(kernel.T)
        direct = correction(q, inverse_t)
        direct = direct + correction(residual(direct)[0], inverse_t)
        x = jnp.where(converged, x, direct)
        return x, jnp.where(converged, size, residual(x)[1]), inverse_t

    def renewal(carry):
        return jnp.array(False), *lax.cond(near, by_newton, by_factors, *carry[1:])

    # A loop of at most one turn: unlike a branch it leaves an inverse that is kept
    # where it is, without a copy.
    carry = (renew, x, size, inverse_t)
    _, x, size, inverse_t = lax.while_loop(lambda carry: carry[0], renewal, carry)
    zero = jnp.zeros_like(steps)
    memory = Memory(
        inverse_t, jnp.where(renew, zero, sweeps), jnp.where(renew, zero, steps)
    )
    return x, memory, _report(size, length, count, renew, ~converged)


def renewal_cost(batch: int, n: int) -> float:
    """Return the cost of renewing an inverse in sweeps.

    `4 n^3 / (4 batch n^2)` by arithmetic; large products run half as fast again, and a
    sweep over few rows takes the time to read its matrices.
    """
    return n / (1.5 * max(batch, 32))


def with_gram(
    kernel: Float[Array, "n n"],
    gram: Float[Array, "n n"],
    q: Float[Array, "batch n"],
    tolerance: Tolerance,
) -> tuple[Float[Array, "batch n"], Info]:
    """Solve `x G = q W^T` by Jacobi sweeps, with `G = W W^T` given.

    Args:
        kernel: W, rows near orthogonal; others are solved by LU.
        gram: `W W^T`.
        q: right-hand sides.
        tolerance: as in `with_memory`.
    """
    length = norm(q)
    squares = jnp.diagonal(gram)[None]
    scale = 1 / jnp.where(squares > 0, squares, 1)
    p = q @ kernel.T

    def residual(x):
        r = p - x @ gram
        # With orthogonal rows this is the norm of `q - x W`.
        return r, jnp.sqrt(jnp.sum(r * r * scale))

    # Half the tolerance leaves room for rows that are not orthogonal; what counts is
    # the true residual, formed once at the end.
    x, _, count, _ = _sweeps(
        p * scale, scale, residual, jnp.multiply, 0.5 * tolerance * length
    )
    size = norm(q - x @ kernel)
    converged = _converged(kernel, x, size, tolerance * length)

    def by_factors():
        found = factors.factor(kernel)
        direct = factors.solve(found, q)
        direct = direct + factors.solve(found, q - direct @ kernel)
        return direct, norm(q - direct @ kernel)

    x, size = lax.cond(converged, lambda: (x, size), by_factors)
    return x, _report(size, length, count, jnp.zeros_like(converged), ~converged)
