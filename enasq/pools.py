"""Pools of 3x3 windows, padded to keep the size, with gradients by hand.

XLA's gradient of a windowed maximum is slow on a CPU, and slower in compiled loops and
branches; sums of shifted products are not. Images are
`[batch, height, width, channels]`; width and channels are worked on as one axis.
"""

import functools
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

from enasq import fixed_point
from enasq.depthwise import Pads, explicit

WINDOW = 3

Images = Float[Array, "batch height width channels"]
Pooled = Float[Array, "batch high wide channels"]


def max_pool(x: Images, *, stride: int = 1) -> Pooled:
    """Take the largest value of each window; of equal ones the first has the gradient.

    First is meant by rows, then by columns. Padding never wins.
    """
    return _largest(stride, x)


def avg_pool(x: Images, *, stride: int = 1) -> Pooled:
    """Take the mean of each window, of what is not padding."""
    return _mean(stride, (x.shape[1], x.shape[2]), x)


def whole_means(x: Array, *, stride: int = 1) -> Array:
    """Take the mean of each window of whole numbers, as `fixed_point.mean` rounds it.

    No gradient flows.
    """
    pads = _pads(x, stride)
    total = functools.reduce(jnp.add, _shifts(x, 0, pads, stride))
    return fixed_point.mean(
        total, _counts((x.shape[1], x.shape[2]), pads, stride, x.dtype)
    )


def _pads(x: Array, stride: int) -> Pads:
    return explicit("same", x.shape[1:3], (WINDOW, WINDOW), stride)


def _counts(size: tuple[int, int], pads: Pads, stride: int, dtype: Any) -> Array:
    """Return how many points of each window are no padding `[1, high, wide, 1]`."""

    def along(size: int, pad: tuple[int, int]) -> np.ndarray:
        start = np.arange(0, size + sum(pad) - WINDOW + 1, stride) - pad[0]
        return np.minimum(start + WINDOW, size) - np.maximum(start, 0)

    counts = np.outer(along(size[0], pads[0]), along(size[1], pads[1]))
    return jnp.asarray(counts[None, :, :, None], dtype)


def _shifts(x: Array, fill: float | int, pads: Pads, stride: int) -> list[Array]:
    """Return what each point of the window meets, by rows, then columns."""
    around = [(0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)]
    # Padded once: else every shift would compute again what made x.
    x = lax.optimization_barrier(lax.pad(x, jnp.asarray(fill, x.dtype), around))
    batch, tall, long, channels = x.shape
    high, wide = (tall - WINDOW) // stride + 1, (long - WINDOW) // stride + 1

    def shift(u: int, v: int) -> Array:
        if stride == 1:
            flat = x.reshape(batch, tall, long * channels)
            part = flat[:, u : u + high, v * channels : (v + wide) * channels]
            return part.reshape(batch, high, wide, channels)
        rows = slice(u, u + (high - 1) * stride + 1, stride)
        return x[:, rows, v : v + (wide - 1) * stride + 1 : stride]

    return [shift(u, v) for u in range(WINDOW) for v in range(WINDOW)]


def _spread(
    g: Array, fill: float | int, size: tuple[int, ...], pads: Pads, stride: int
) -> list[Array]:
    """Return, for each point of the window, the outputs that have met an input there.

    They come in the order of `_shifts`.
    """
    ends = [
        (WINDOW - 1 - low, n + low - 1 - (m - 1) * stride)
        for m, n, (low, _) in zip(g.shape[1:3], size, pads, strict=True)
    ]
    around = [(0, 0, 0), *((low, high, stride - 1) for low, high in ends), (0, 0, 0)]
    g = lax.pad(g, jnp.asarray(fill, g.dtype), around)
    return _shifts(g, fill, ((0, 0), (0, 0)), 1)[::-1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _largest(stride: int, x: Array) -> Array:
    shifts = _shifts(x, -jnp.inf, _pads(x, stride), stride)
    return functools.reduce(jnp.maximum, shifts)


def _largest_bwd(stride: int, x: Array, g: Array) -> tuple[Array]:
    pads = _pads(x, stride)
    shifts = _shifts(x, -jnp.inf, pads, stride)
    largest = functools.reduce(jnp.maximum, shifts)
    first = jnp.full(largest.shape, len(shifts), jnp.int8)
    for place in reversed(range(len(shifts))):
        first = jnp.where(shifts[place] == largest, jnp.int8(place), first)
    firsts = _spread(first, -1, x.shape[1:3], pads, stride)
    gs = _spread(g, 0, x.shape[1:3], pads, stride)
    zero = jnp.zeros((), g.dtype)
    parts = [
        jnp.where(own == place, part, zero)
        for place, (own, part) in enumerate(zip(firsts, gs, strict=True))
    ]
    return (functools.reduce(jnp.add, parts),)


_largest.defvjp(lambda stride, x: (_largest(stride, x), x), _largest_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _mean(stride: int, size: tuple[int, int], x: Array) -> Array:
    pads = explicit("same", size, (WINDOW, WINDOW), stride)
    total = functools.reduce(jnp.add, _shifts(x, 0, pads, stride))
    return total / _counts(size, pads, stride, x.dtype)


def _mean_bwd(stride: int, size: tuple[int, int], kept: None, g: Array) -> tuple[Array]:
    pads = explicit("same", size, (WINDOW, WINDOW), stride)
    g = g / _counts(size, pads, stride, g.dtype)
    return (functools.reduce(jnp.add, _spread(g, 0, size, pads, stride)),)


_mean.defvjp(lambda stride, size, x: (_mean(stride, size, x), None), _mean_bwd)
