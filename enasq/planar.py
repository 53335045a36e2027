"""Products and convolutions of packed images whose words come first.

Here images are `[words, height, width, images]`, nodes `[channels, height, width,
images]`: positions lie behind each other. So a word of 32 channels is made of 32 long
vectors without sums across one, strides and shifts move whole rows, and a sum of a
convolution, its norm and its comparison are one loop, whatever the number of channels.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array

from enasq import bit_conv, bit_depthwise, bitwise, packing
from enasq.packing import Columns, Packed
from enasq.thresholds import Thresholds

Planes = list[Array]


def upright(vector: Array | np.ndarray) -> Array:
    """Give one number a channel the rank of an image."""
    return jnp.asarray(vector)[:, None, None, None]


def pack(bits: Array) -> Array:
    """Pack booleans `[channels, ...]` into words, the first into the least bit."""
    channels = bits.shape[0]
    whole = channels - channels % packing.WORD
    if whole in (0, channels):
        return _pack(bits)
    # Padding would make a copy of all channels.
    return jnp.concatenate([_pack(bits[:whole]), _pack(bits[whole:])])


def _pack(bits: Array) -> Array:
    """Pack whole words, or less than one."""
    share = min(bits.shape[0], packing.WORD)
    places = np.arange(bits.shape[0], dtype=np.uint32) % packing.WORD
    words = jnp.where(bits, upright(np.uint32(1) << places), jnp.uint32(0))
    words = words.reshape(-1, share, *bits.shape[1:])
    return jnp.sum(words, axis=1, dtype=jnp.uint32)


def turned(x: Packed) -> Packed:
    """Return an image as `packing` has it, words last."""
    return Packed(jnp.moveaxis(x.planes, (1, 4), (4, 1)), x.kind, x.length)


def product(x: Packed, kernel: Columns) -> Array:
    """Return the sums of a 1x1 convolution `[outputs, height, width, images]`."""
    todo = bitwise.plan(x, kernel)
    total: Array | int = 0
    for w in range(x.planes.shape[1]):
        left = [plane[w][None] for plane in x.planes]
        right = [upright(plane[w]) for plane in kernel.planes]
        for factor, combine in todo.pairs:
            ones = lax.population_count(combine(left, right)).astype(jnp.int32)
            total = total + factor * ones
    constant = jnp.full(kernel.planes.shape[-1], todo.constant * x.length, jnp.int32)
    if any(todo.column):
        constant += bitwise.weighted_ones(kernel.planes, todo.column, axis=0)
    total = total + upright(constant)
    for factor, plane in zip(todo.row, x.planes, strict=True):
        if factor:
            ones = lax.population_count(plane).astype(jnp.int32)
            total = total + factor * jnp.sum(ones, axis=0, keepdims=True)
    return total


def depthwise(x: Packed, kernel: Packed, stride: int) -> Packed:
    """Return the sums of each channel as "signed" codes.

    Args:
        x: an image.
        kernel: planes `[planes, rows, columns, words]`.
        stride: step of the window; the padding is "same".
    """
    window = (kernel.planes.shape[1], kernel.planes.shape[2])
    size = x.planes.shape[2:4]
    pads = bit_conv.pads_of("same", size, window, stride)
    low, high = bit_depthwise.bounds(x, kernel)
    width = max((-low - 1).bit_length(), high.bit_length()) + 1
    around = ((0, 0), *pads, (0, 0))
    # Padded once: else every shift would compute again what made x.
    wide = [lax.optimization_barrier(jnp.pad(plane, around)) for plane in x.planes]
    none = ((0, 0), (0, 0))
    seen = [bit_conv.taps(plane, window, stride, none) for plane in wide]
    weights = kernel.planes.reshape(kernel.planes.shape[0], -1, kernel.planes.shape[-1])
    within = None
    if x.kind == "binary":
        within = bit_conv.inside(size, window, stride, pads)
    buckets: bit_depthwise.Buckets = {}
    constant = np.zeros((1, 1), np.int64)
    for t in range(weights.shape[1]):
        valid = None if within is None or within[..., t].all() else within[..., t]
        a, b = [plane[t] for plane in seen], [upright(plane[t]) for plane in weights]
        pair = a, x.kind, b, kernel.kind
        constant = constant + bit_depthwise.tap(*pair, valid, buckets)
    for i in range(width):
        bits = (constant >> i) & 1
        if bits.any():
            here = jnp.asarray(bits[None, :, :, None] * np.int64(2**32 - 1), jnp.uint32)
            buckets.setdefault(i, []).append(here)
    planes = jnp.broadcast_arrays(*bit_depthwise.add_up(buckets, width))
    return Packed(jnp.stack(planes), "signed", x.length)


def reach(levels: Array, flipped: Array, sums: Packed) -> Planes:
    """Return words that tell which sums have reached each level; see `Thresholds`.

    a >= t is decided from the least plane up, 32 channels at a time: a larger bit
    settles it, equal bits leave it as it was.
    """
    width = sums.planes.shape[0]
    low, high = -(2 ** (width - 1)), 2 ** (width - 1)
    planes = [*sums.planes[:-1], ~sums.planes[-1]]
    flip, found = words_of(flipped), []
    for level in levels:
        # Moved up by `low`, both sides are unsigned, and the sums need no new plane.
        level = jnp.clip(level, low, high) - low
        wanted = [words_of((level >> i) & 1 == 1) for i in range(width + 1)]
        yes = jnp.full((), 2**32 - 1, jnp.uint32)[None, None, None, None]
        for a, t in zip(planes, wanted, strict=False):
            yes = (a & ~t) | (~(a ^ t) & yes)
        found.append((yes & ~wanted[width]) ^ flip)
    return found


def words_of(bits: Array) -> Array:
    """Return one boolean a channel as words that stand for images."""
    return upright(packing.pack_bits(bits))


def codes_of_sums(fold: Thresholds, acc: Array) -> Packed:
    """Return the packed codes of sums `[channels, height, width, images]`."""
    if fold.kind in ("binary", "ternary"):
        flip = words_of(fold.flipped)
        reached = [pack(acc >= upright(level)) ^ flip for level in fold.levels]
        return codes_of_words(fold, reached, acc.shape[0])
    steps: Any = sum(
        ((acc >= upright(level)) ^ upright(fold.flipped)).astype(jnp.int32)
        for level in fold.levels
    )
    low, _ = packing.span(fold.kind, fold.bits)
    planes = packing.bit_planes(steps + low, fold.kind, fold.bits)
    return Packed(jnp.stack([pack(p) for p in planes]), fold.kind, acc.shape[0])


def codes_of_words(fold: Thresholds, reached: Planes, channels: int) -> Packed:
    """Return binary or ternary codes, given which levels are reached."""
    planes = reached
    if fold.kind == "ternary":
        above, plus = reached
        planes = [plus | ~above, ~above]
    tail = upright(bit_conv.ones_words(channels))
    return Packed(jnp.stack([plane & tail for plane in planes]), fold.kind, channels)


def windows(x: Array, fill: int, stride: int, combine: Callable) -> Array:
    """Combine all of each window of 3x3: first rows, then columns."""
    high, wide = (-(-n // stride) for n in x.shape[1:3])
    rows, columns = bit_conv.pads_of("same", x.shape[1:3], (3, 3), stride)
    x = jnp.pad(x, ((0, 0), rows, columns, (0, 0)), constant_values=fill)
    # Padded once: else every shift would compute again what made x.
    x = jax.lax.optimization_barrier(x)
    pick = lambda i, n: slice(i, i + (n - 1) * stride + 1, stride)
    tall = [x[:, pick(i, high)] for i in range(3)]
    x = combine(combine(tall[0], tall[1]), tall[2])
    long = [x[:, :, pick(j, wide)] for j in range(3)]
    return combine(combine(long[0], long[1]), long[2])
