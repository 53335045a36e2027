"""Pooling of images `[..., height, width, channels]`."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from shared.layers._arrays import explicit_padding, pair
from shared.layers.conv import Padding, Sizes


def max_pool(
    x: Float[Array, "*lead height width channels"],
    window: Sizes,
    *,
    stride: Sizes | None = None,
    padding: Padding = "VALID",
) -> Float[Array, "*lead rows columns channels"]:
    """Take the largest value of each window; padding never wins.

    Where windows tile the image, equal largest values share the gradient; elsewhere
    the first of them takes it.

    Args:
        x: any leading axes.
        window: size of a window, or its height and width.
        stride: step between windows; the window's size by default.
        padding: as at `conv`.
    """
    blocks = _blocks(x, window, stride, padding)
    if blocks is None:
        return _reduced(x, window, stride, padding, -jnp.inf, jax.lax.max)
    # Pairwise maxima, whose gradient is several times faster than that of a reduction.
    *lead, count, high, across, wide, channels = blocks.shape
    blocks = blocks.reshape(*lead, count, high, across, wide * channels)
    rows = [blocks[..., i, :, :] for i in range(high)]
    tallest = functools.reduce(jnp.maximum, rows)
    columns = jnp.split(tallest, wide, axis=-1)
    return functools.reduce(jnp.maximum, columns)


def avg_pool(
    x: Float[Array, "*lead height width channels"],
    window: Sizes,
    *,
    stride: Sizes | None = None,
    padding: Padding = "VALID",
    count_padding: bool = False,
) -> Float[Array, "*lead rows columns channels"]:
    """Take the mean of each window.

    Args:
        x: any leading axes.
        window: size of a window, or its height and width.
        stride: step between windows; the window's size by default.
        padding: as at `conv`.
        count_padding: whether padded zeros count in the mean.
    """
    blocks = _blocks(x, window, stride, padding)
    if blocks is not None:
        return jnp.mean(blocks, axis=(-4, -2))
    total = _reduced(x, window, stride, padding, 0.0, jax.lax.add)
    if count_padding:
        rows, columns = pair("window", window)
        return total / (rows * columns)
    ones = jnp.ones((*x.shape[-3:-1], 1), x.dtype)
    count = _reduced(ones, window, stride, padding, 0.0, jax.lax.add)
    return total / jnp.broadcast_to(count, total.shape)


def global_avg_pool(
    x: Float[Array, "*lead height width channels"],
) -> Float[Array, "*lead channels"]:
    """Take the mean over height and width."""
    return jnp.mean(x, axis=(-3, -2))


def global_max_pool(
    x: Float[Array, "*lead height width channels"],
) -> Float[Array, "*lead channels"]:
    """Take the maximum over height and width."""
    return jnp.max(x, axis=(-3, -2))


def _blocks(
    x: Array, window: Sizes, stride: Sizes | None, padding: Padding
) -> Array | None:
    """Return `[..., rows, window, columns, window, channels]` if windows tile x.

    Gradients of windowed reductions are slow on CPUs; those of a reshape are not.
    """
    size, step = pair("window", window), pair("stride", stride or window)
    *lead, height, width, channels = x.shape
    pads = explicit_padding(padding, (height, width), size, step)
    if size != step or height % size[0] or width % size[1]:
        return None
    if any(side for sides in pads for side in sides):
        return None
    rows, columns = height // size[0], width // size[1]
    return x.reshape(*lead, rows, size[0], columns, size[1], channels)


def _reduced(
    x: Array,
    window: Sizes,
    stride: Sizes | None,
    padding: Padding,
    start: float,
    reduce: Callable[[Any, Any], Any],
) -> Array:
    size, step = pair("window", window), pair("stride", stride or window)
    pads = explicit_padding(padding, (x.shape[-3], x.shape[-2]), size, step)
    ones = (1,) * (x.ndim - 3)
    around = [(0, 0)] * len(ones) + [*pads, (0, 0)]
    return jax.lax.reduce_window(
        x, start, reduce, (*ones, *size, 1), (*ones, *step, 1), around
    )
