"""Images at several scales, from the finest to the coarsest: how they are made, mixed
and normalised. Images are `[batch, height, width, channels]`.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from multipath.trees.convolution import convolve
from multipath.trees.kinds import MultiscaleConvMax, MultiscaleLLN, ToPyramid
from shared.errors import UsageError
from shared.layers import pooling
from shared.layers.conv import conv

LUMINANCE = (0.2126, 0.7152, 0.0722)

Scales = tuple[Any, ...]


def pyramid(layer: ToPyramid, x: Array) -> Scales:
    """Return the image at `n_scales` sizes, each half of the one before.

    Raises:
        UsageError: for images too small for so many sizes.
    """
    height, width = x.shape[1:3]
    sizes = [(height // 2**i, width // 2**i) for i in range(layer.n_scales)]
    if min(sizes[-1]) < 1:
        allowed = f"at most the halvings that an image of {height} x {width} allows"
        raise UsageError("n_scales", layer.n_scales, allowed)
    if layer.method == "area":
        pooled = [x]
        for _ in sizes[1:]:
            pooled.append(pooling.avg_pool(pooled[-1], 2))
        return tuple(pooled)
    return tuple(_resized(x, size) for size in sizes)


def _resized(x: Array, size: tuple[int, int]) -> Array:
    """Resize: output i reads the source at i times the ratio, without smoothing."""
    for axis, wanted in zip((1, 2), size, strict=True):
        given = x.shape[axis]
        if given % wanted == 0:
            x = jax.lax.slice_in_dim(x, 0, given, given // wanted, axis)
            continue
        place = np.arange(wanted) * (given / wanted)
        low = np.floor(place).astype(int)
        part = jnp.asarray(place - low, x.dtype)
        part = part.reshape([-1 if a == axis else 1 for a in range(x.ndim)])
        high = np.minimum(low + 1, given - 1)
        first, second = jnp.take(x, low, axis), jnp.take(x, high, axis)
        x = first + (second - first) * part
    return x


def init_conv_max(
    normals: Array, layer: MultiscaleConvMax, x: Scales
) -> dict[str, Array]:
    """Return `w_horz_s`, `b_s` of each scale and `w_vert_s` from it to the next.

    Args:
        normals: standard normal numbers, at least as many as there are kernel entries.
        layer: its options.
        x: signals of the kind that will come.

    Raises:
        UsageError: if the layer has no scale, or more than x has.
    """
    channels = layer.n_chan
    if not 1 <= len(channels) <= len(x):
        raise UsageError("n_chan", channels, f"channels of 1 to {len(x)} scales")
    params, used = {}, 0
    for s, scale in enumerate(x[-len(channels) :]):
        height, width, inputs = scale.shape[1:]
        window = (min(layer.supp, height), min(layer.supp, width))
        kernels = {f"w_horz_{s}": (*window, inputs, channels[s])}
        if s + 1 < len(channels):
            to = channels[s], channels[s + 1]
            kernels[f"w_vert_{s}"] = (layer.supp, layer.supp, *to)
        for name, shape in kernels.items():
            z = normals[used : used + math.prod(shape)].reshape(shape)
            used += math.prod(shape)
            # The nominal window scales the weights, also where it is cut.
            params[name] = layer.sigma_w / (layer.supp * math.sqrt(shape[2])) * z
        params[f"b_{s}"] = jnp.zeros(channels[s], normals.dtype)
    return params


def conv_max(
    layer: MultiscaleConvMax,
    params: dict[str, Array],
    x: Scales,
    sources: Sequence[int] | None = None,
) -> Scales:
    """Convolve each scale, and add a convolution of the finer output, pooled.

    Z_0 = b_0 + X_0 * h_0;  Z_s = b_s + X_s * h_s + pool(Z_(s-1)) * v_(s-1).

    Args:
        layer: its options.
        params: from `init_conv_max`; with a leading axis of members if there are
            sources.
        x: signals, with a leading axis of those that members may read.
        sources: which signal each member reads; None for one layer on its own.
            Members convolve in turn.
    """
    outputs: list[Array] = []
    for s, scale in enumerate(x[-len(layer.n_chan) :]):
        paths = [(params[f"w_horz_{s}"], scale, sources)]
        if s:
            finer = pooling.max_pool(outputs[-1], 2, padding="SAME")
            own = None if sources is None else range(len(sources))
            paths.append((params[f"w_vert_{s - 1}"], finer, own))
        y = _convolve_all(paths)
        bias = params[f"b_{s}"]
        shape = (*bias.shape[:-1], *(1,) * (y.ndim - bias.ndim), bias.shape[-1])
        outputs.append(y + bias.reshape(shape))
    return tuple(outputs)


def _convolve_all(paths: list[tuple[Array, Array, Sequence[int] | None]]) -> Array:
    """Add up the convolutions of some paths `(kernels, signals, sources)`."""
    if paths[0][2] is None:
        return _added([convolve(kernel, signal) for kernel, signal, _ in paths])
    parts = [
        [
            convolve(kernels[i], signals[source])
            for i, source in enumerate(sources or ())
        ]
        for kernels, signals, sources in paths
    ]
    return jnp.stack([_added(list(member)) for member in zip(*parts, strict=True)])


def _added(terms: list[Array]) -> Array:
    return sum(terms[1:], terms[0])


def count_conv_max(layer: MultiscaleConvMax, params: dict[str, Any], x: Scales) -> int:
    """Return the operations of `conv_max` on one image."""
    total = 0
    for s, scale in enumerate(x[-len(layer.n_chan) :]):
        entries = math.prod(params[f"w_horz_{s}"].shape)
        if s:
            entries += math.prod(params[f"w_vert_{s - 1}"].shape)
        total += math.prod(scale.shape[1:3]) * entries
    return total


def normalise_luminance(layer: MultiscaleLLN, x: Array) -> Array:
    """Divide a colour image by the luminance around each pixel.

    Raises:
        UsageError: for images without three channels.
    """
    if x.shape[-1] != 3:
        raise UsageError("channels", x.shape[-1], "3, for MultiscaleLLN")
    reach = math.ceil(2 * layer.sigma)
    u = np.arange(-reach, reach + 1)
    square = u[:, None] ** 2 + u[None] ** 2
    window = np.exp(-square / (2 * layer.sigma**2)) / (2 * np.pi * layer.sigma**2)
    weights = window[:, :, None, None] * np.array(LUMINANCE)[None, None, :, None]
    kernel = {"kernel": jnp.asarray(weights, x.dtype)}
    # Near borders, divided by the part of the window that lies inside.
    inside = conv(kernel, jnp.ones((1, *x.shape[1:]), x.dtype))
    luminance = conv(kernel, x) / jnp.broadcast_to(inside, (*x.shape[:3], 1))
    return x / jnp.broadcast_to(luminance + layer.eps, x.shape)
