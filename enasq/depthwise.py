"""Depthwise convolution as a sum of shifted products, with its gradient by hand.

XLA's grouped convolution is tens of times slower than this on a CPU, and slower still
on the way back or inside compiled loops and branches. Two layouts make it fast there:

* Products by the kernel take width and channels as one axis, so that the inner loop is
  long, and a shift by a column one by `channels`.
* The kernel's gradient takes some images and all channels as its last axis, the lanes.
  Then all shifts of the window around a point are one contiguous block, and a point
  adds `block * g` to sums `[rows, columns, lanes]`, whose lanes are added up last.
"""

import functools
import math
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

from shared.errors import UsageError, check_choice
from shared.layers import conv as convolutions
from shared.layers._arrays import explicit_padding

Pads = tuple[tuple[int, int], tuple[int, int]]

HOW = ("auto", "shift", "grouped")

LANES = 96
"""Images times channels that the kernel's gradient takes at a time, about."""

WIDTH = 16
"""Numbers of the widest registers."""

POINTS = 32
"""Points of a row whose products are written out, at most: it takes time to compile."""


def check_padding(padding: str) -> None:
    """Raise a UsageError unless padding is "same" or "valid"."""
    check_choice("padding", padding, ("same", "valid"))


def explicit(
    padding: str, size: tuple[int, ...], window: tuple[int, ...], stride: int
) -> Pads:
    """Return the zeros to put before and after the rows, and the columns."""
    check_padding(padding)
    if not isinstance(stride, int) or stride < 1:
        raise UsageError("stride", stride, "an integer >= 1")
    if padding == "valid" and any(w > n for w, n in zip(window, size, strict=True)):
        raise UsageError("x", size, f"an image of at least {window}, when not padded")
    return explicit_padding(padding.upper(), size, window, (stride, stride))


def depthwise_conv(
    kernel: Float[Array, "rows columns channels 1"],
    x: Float[Array, "*lead height width channels"],
    *,
    stride: int = 1,
    padding: str = "same",
    how: str = "auto",
) -> Float[Array, "*lead high wide channels"]:
    """Convolve each channel: y[i, j, c] = Σ_uv x[s i + u, s j + v, c] W[u, v, c].

    Args:
        kernel: one window a channel.
        x: any leading axes.
        stride: step s between windows.
        padding: "same" or "valid".
        how: "shift", "grouped" (XLA's convolution), or "auto": the former on CPUs.
    """
    check_choice("how", how, HOW)
    pads = explicit(padding, x.shape[-3:-1], kernel.shape[:2], stride)
    if how == "auto":
        how = "shift" if jax.default_backend() == "cpu" else "grouped"
    kernel = kernel[:, :, :, 0]
    if how == "grouped":
        params = {"kernel": kernel[:, :, None]}
        groups = x.shape[-1]
        return convolutions.conv(params, x, stride=stride, padding=pads, groups=groups)
    lead, image = x.shape[:-3], x.shape[-3:]
    y: Any = _shifted(stride, pads, kernel, x.reshape(-1, *image))
    return y.reshape(*lead, *y.shape[1:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _shifted(stride: int, pads: Pads, kernel: Array, x: Array) -> Array:
    return shifted_products(stride, pads, kernel, x)


def _forward(
    stride: int, pads: Pads, kernel: Array, x: Array
) -> tuple[Array, tuple[Array, Array]]:
    return shifted_products(stride, pads, kernel, x), (kernel, x)


def _backward(
    stride: int, pads: Pads, kept: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    kernel, x = kept
    (rows, columns, _), (_, height, width, _) = kernel.shape, x.shape
    return (
        kernel_gradient(stride, pads, (rows, columns), x, g),
        image_gradient(stride, pads, kernel, (height, width), g),
    )


_shifted.defvjp(_forward, _backward)


def _pad(x: Array, pads: Pads, inner: int = 0) -> Array:
    """Add zeros around images and `inner` ones between points, cut where negative."""
    zero = jnp.zeros((), x.dtype)
    return lax.pad(x, zero, [(0, 0, 0), *((a, b, inner) for a, b in pads), (0, 0, 0)])


def shifted_products(
    stride: int,
    pads: Pads,
    kernel: Float[Array, "rows columns channels"],
    x: Float[Array, "batch height width channels"],
) -> Float[Array, "batch high wide channels"]:
    """Return the convolution, as one sum over the points of the window.

    With a stride, every stride-th row and column lie together first: shifts within such
    a phase are again contiguous.
    """
    (rows, columns, channels), (batch, *size, _) = kernel.shape, x.shape
    high, wide = (
        (sum(pad) + n - k) // stride + 1
        for pad, n, k in zip(pads, size, (rows, columns), strict=True)
    )
    # Up to a multiple of the stride, which may cut what no window reaches.
    tall, long = high + (rows - 1) // stride, wide + (columns - 1) // stride
    (top, _), (left, _) = pads
    ends = tall * stride - size[0] - top, long * stride - size[1] - left
    x = _pad(x, ((top, ends[0]), (left, ends[1])))
    x = x.reshape(batch, tall, stride, long, stride, channels)
    x = x.transpose(2, 4, 0, 1, 3, 5).reshape(stride, stride, batch, tall, -1)
    # Else what made x would be computed again for each point of the window.
    x = lax.optimization_barrier(x)
    wider = jnp.tile(kernel, (1, 1, wide))

    def term(u, v):
        phase, (i, j) = x[u % stride, v % stride], (u // stride, v // stride)
        part = phase[:, i : i + high, j * channels : (j + wide) * channels]
        return part * wider[u, v][None, None]

    y = sum(
        (term(u, v) for u in range(rows) for v in range(columns) if u or v), term(0, 0)
    )
    return y.reshape(batch, high, wide, channels)


def image_gradient(
    stride: int,
    pads: Pads,
    kernel: Float[Array, "rows columns channels"],
    size: tuple[int, int],
    g: Float[Array, "batch high wide channels"],
) -> Float[Array, "batch height width channels"]:
    """Return the gradient by the images of `size`, given that by the outputs.

    It is a convolution of g, spread by the stride, with the flipped kernel.
    """
    before = [k - 1 - low for k, (low, _) in zip(kernel.shape[:2], pads, strict=True)]
    spread = [(n - 1) * stride + 1 for n in g.shape[1:3]]
    after = [
        n + k - 1 - b - s
        for n, k, b, s in zip(size, kernel.shape[:2], before, spread, strict=True)
    ]
    around = (before[0], after[0]), (before[1], after[1])
    if stride > 1:
        g, around = _pad(g, around, stride - 1), ((0, 0), (0, 0))
    return shifted_products(1, around, kernel[::-1, ::-1], g)


def kernel_gradient(
    stride: int,
    pads: Pads,
    window: tuple[int, int],
    x: Float[Array, "batch height width channels"],
    g: Float[Array, "batch high wide channels"],
) -> Float[Array, "rows columns channels"]:
    """Return the gradient by the kernel, dW[u, v] = Σ_ij x[s i + u, s j + v] g[i, j].

    Args:
        stride, pads: of the convolution.
        window: rows and columns of the kernel.
        x: inputs of the convolution.
        g: gradient by its outputs.
    """
    (batch, high, wide, channels), (rows, columns) = g.shape, window
    # Lanes that fill whole registers: others take up to three times as long.
    whole = WIDTH // math.gcd(WIDTH, channels)
    images = min(whole * max(LANES // (whole * channels), 1), batch)
    parts = -(-batch // images)
    blocks = -(-wide // POINTS)
    points = -(-wide // blocks)
    reach = (points - 1) * stride + columns
    # Zeros, which add nothing, fill up the last part and the last block.
    fill = ((0, parts * images - batch), (0, 0), (0, 0), (0, 0))
    size = (high - 1) * stride + rows, (blocks * points - 1) * stride + columns
    ends = [
        n - m - low for n, m, (low, _) in zip(size, x.shape[1:3], pads, strict=True)
    ]
    around = (pads[0][0], ends[0]), (pads[1][0], ends[1])

    def lanes(a, around):
        a = a.transpose(1, 2, 0, 3).reshape(*a.shape[1:3], images * channels)
        return lax.optimization_barrier(_pad(a[None], around)[0])

    def part(total, pair):
        x = lanes(pair[0], around)
        g = lanes(pair[1], ((0, 0), (0, blocks * points - wide)))

        def block(n, total):
            i, j = n // blocks, n % blocks * points
            near = (rows, reach, images * channels)
            near = lax.dynamic_slice(x, (i * stride, j * stride, 0), near)
            own = lax.dynamic_slice(g, (i, j, 0), (1, points, images * channels))
            shifts = (near[:, k * stride : k * stride + columns] for k in range(points))
            terms = [s * own[:, k : k + 1] for k, s in enumerate(shifts)]
            return total + sum(terms[1:], terms[0])

        return lax.fori_loop(0, high * blocks, block, total), None

    split = lambda a: jnp.pad(a, fill).reshape(parts, images, *a.shape[1:])
    start = jnp.zeros((rows, columns, images * channels), x.dtype)
    total, _ = lax.scan(part, start, (split(x), split(g)))
    return total.reshape(rows, columns, images, channels).sum(2)
