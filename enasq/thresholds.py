"""Batch norm and activation as comparisons of integer sums with thresholds.

Between the sum of a convolution and the code that follows lie a norm and an activation,
both monotone, so every code has one sum from which on it is reached. `fold` finds it by
bisection on the float32 simulation itself; the two agree bit for bit because of that.
The simulation of the norm is, every operation rounded to float32 and in this order,

    y = (alpha acc - mean) factor + offset,   factor = scale / sqrt(variance + epsilon)

A multiplication and an addition may be compiled into one operation that rounds once.
`normalise` clips every product at ±2^100, which stands between the two and keeps the
roundings what they are here.

Reference: Umuroglu et al. (2017), FINN, arXiv 1612.07119.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, UInt32

from enasq import bit_conv, packing
from enasq.packing import Packed
from shared.errors import UsageError

FAR = 2.0**100

Simulate = Callable[[np.ndarray], np.ndarray]


class Affine(NamedTuple):
    """A norm with fixed statistics.

    Attributes:
        mean, factor, offset: float32 `[channels]`.
    """

    mean: Float32[np.ndarray, " channels"]
    factor: Float32[np.ndarray, " channels"]
    offset: Float32[np.ndarray, " channels"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Thresholds:
    """From which sum on every code is reached.

    Attributes:
        levels: int32 `[codes - 1, channels]`: a sum has reached level l if it is at
            least this, or, where flipped, if it is less.
        flipped: `[channels]`, norms of negative factor.
        kind, bits: of the codes.
    """

    levels: Array
    flipped: Array
    kind: str = packing.static_field()
    bits: int = packing.static_field(default=1)


def affine(
    scale: Any, offset: Any, mean: Any, variance: Any, epsilon: float | int
) -> Affine:
    """Return a norm's factor and shifts, float32, from its parameters `[channels]`.

    Raises:
        UsageError: if a value is not finite, or the variance plus epsilon not positive.
    """
    parts = [np.asarray(x, np.float32) for x in (scale, offset, mean, variance)]
    scale, offset, mean, variance = parts
    shifted = variance + np.float32(epsilon)
    if not all(np.isfinite(x).all() for x in parts) or not (shifted > 0).all():
        raise UsageError("norm", "NaN, infinite or negative", "finite statistics")
    return Affine(mean, scale / np.sqrt(shifted), offset)


def normalise(acc: Any, norm: Affine, alpha: float | int = 1.0, xp: Any = jnp) -> Any:
    """Return `(alpha acc - mean) factor + offset`, float32, in the stated order.

    Args:
        acc: whole numbers `[..., channels]`, below 2^24.
        norm: of the channels.
        alpha: value of one step of the sums.
        xp: `jax.numpy`, or `numpy` for the same numbers without a compiler.
    """
    mean, factor, offset = (
        xp.asarray(x).reshape((1,) * (acc.ndim - 1) + (-1,)) for x in norm
    )
    far = np.float32(FAR)
    value = xp.clip(acc.astype(np.float32) * np.float32(alpha), -far, far)
    value = xp.clip((value - mean) * factor, -far, far)
    return value + offset


def activation(
    y: Float[np.ndarray, "*shape"], kind: str, bits: int = 1
) -> Int[np.ndarray, "*shape"]:
    """Return the codes of activations: the sign, ternary, or k-bit in [-1, 1).

    They are those of `straight_through.binary_tanh`, `ternary_tanh` and
    `quantized_tanh`. Unsigned codes are k-bit in [0, 1), for rectified values.
    """
    if kind == "binary":
        half = np.round(np.clip(y * np.float32(0.5) + np.float32(0.5), 0, 1))
        return (2 * half - 1).astype(np.int64)
    if kind == "ternary":
        return (y > 0.5).astype(np.int64) - (y <= -0.5)
    low, high = packing.span(kind, bits)
    steps = np.float32(2 ** (bits - 1) if kind == "signed" else 2**bits)
    return np.clip(np.round(y * steps), low, high).astype(np.int64)


def fold_norm(
    norm: Affine, bound: int, kind: str, bits: int = 1, *, alpha: float | int = 1.0
) -> Thresholds:
    """Fold a norm and the activation behind it.

    Args:
        norm: of the channels.
        bound: no sum is larger, nor smaller than its negative; below 2^24.
        kind, bits: of the activation.
        alpha: value of one step of the sums.
    """
    simulate = lambda acc: activation(normalise(acc, norm, alpha, np), kind, bits)
    return fold(simulate, bound, norm.mean.shape[0], kind, bits)


def fold(
    simulate: Simulate, bound: int, channels: int, kind: str, bits: int = 1
) -> Thresholds:
    """Find the sums at which a simulation flips from code to code.

    Args:
        simulate: integers `[levels, channels]` -> codes; monotone in each channel.
        bound: no sum is larger, nor smaller than its negative; below 2^24.
        channels: of the sums.
        kind, bits: of the codes.

    Raises:
        UsageError: for an unknown kind or width, or a bound that is too large.
    """
    packing.check_kind(kind, bits)
    if not 0 < bound < 2**24:
        raise UsageError("bound", bound, "an integer from 1 to 2^24 - 1")
    codes = _codes(kind, bits)[1:, None]
    ends = np.array([[-bound], [bound]]).repeat(channels, 1)
    first, last = simulate(ends)
    flipped = last < first
    turn = np.where(flipped, -1, 1)[None]
    below = np.full((len(codes), channels), -bound - 1)
    reached = np.full((len(codes), channels), bound + 1)
    while (reached - below > 1).any():
        middle = (below + reached) // 2
        yes = simulate(middle * turn) >= codes
        # Where both ends have met, the middle is the lower and stays.
        open_ = reached - below > 1
        reached = np.where(open_ & yes, middle, reached)
        below = np.where(open_ & ~yes, middle, below)
    levels = np.where(flipped[None], 1 - reached, reached)
    return Thresholds(jnp.asarray(levels, jnp.int32), jnp.asarray(flipped), kind, bits)


def _codes(kind: str, bits: int) -> np.ndarray:
    low, high = packing.span(kind, bits)
    return np.array([-1, 1]) if kind == "binary" else np.arange(low, high + 1)


def apply(thresholds: Thresholds, acc: Int[Array, "*rows channels"]) -> Packed:
    """Return the packed codes of sums."""
    shape = (1,) * (acc.ndim - 1) + (-1,)
    flipped = thresholds.flipped.reshape(shape)
    reached = [(acc >= level.reshape(shape)) ^ flipped for level in thresholds.levels]
    planes = _planes(reached, thresholds)
    return Packed(gather_bits(planes), thresholds.kind, acc.shape[-1])


def _planes(reached: list[Array], thresholds: Thresholds) -> list[Array]:
    """Return the planes of codes, given which levels are reached."""
    if thresholds.kind == "binary":
        return reached
    if thresholds.kind == "ternary":
        above, plus = reached
        return [plus | ~above, ~above]
    steps = sum(
        (r.astype(jnp.int32) for r in reached[1:]), reached[0].astype(jnp.int32)
    )
    low, _ = packing.span(thresholds.kind, thresholds.bits)
    return packing.bit_planes(steps + low, thresholds.kind, thresholds.bits)


def gather_bits(
    planes: list[Bool[Array, "*rows length"]],
) -> UInt32[Array, "planes *rows words"]:
    """Pack several planes as one sum over the last axis.

    A word first takes the bits of all planes for a few positions. So what the planes
    are computed from is computed once, in the same loop, and never stored.
    """
    fields = 1 << (len(planes) - 1).bit_length()
    share, length = packing.WORD // fields, planes[0].shape[-1]
    tail = packing.words_for(length) * packing.WORD - length
    mixed: Any = 0
    for f, plane in enumerate(planes):
        plane = jnp.pad(plane, [(0, 0)] * (plane.ndim - 1) + [(0, tail)])
        plane = plane.reshape(*plane.shape[:-1], -1, share)
        places = np.arange(f * share, (f + 1) * share, dtype=np.uint32)
        bits = packing.along_last(np.uint32(1) << places, plane)
        mixed = mixed | jnp.where(plane, bits, jnp.uint32(0))
    mixed = jnp.sum(mixed, axis=-1, dtype=jnp.uint32)
    if fields == 1:
        return mixed[None]
    mixed = mixed.reshape(*mixed.shape[:-1], -1, fields)
    own, gathered = jnp.uint32(2**share - 1), []
    for f in range(len(planes)):
        parts = (mixed >> jnp.uint32(f * share)) & own
        places = packing.along_last(share * np.arange(fields, dtype=np.uint32), parts)
        gathered.append(jnp.sum(parts << places, axis=-1, dtype=jnp.uint32))
    return jnp.stack(gathered)


def apply_planes(thresholds: Thresholds, sums: Packed) -> Packed:
    """Return the packed codes of sums that are packed themselves.

    a >= t is decided from the least plane up, 32 channels at a time: a larger bit
    settles it, equal bits leave it as it was.

    Args:
        thresholds: of binary or ternary codes.
        sums: "signed" codes.

    Raises:
        UsageError: for other codes.
    """
    if thresholds.kind not in ("binary", "ternary") or sums.kind != "signed":
        raise UsageError("kind", thresholds.kind, "binary or ternary, of signed sums")
    width = sums.planes.shape[0]
    lead = (1,) * (sums.planes.ndim - 2)
    flip = packing.pack_bits(thresholds.flipped).reshape(*lead, -1)
    low, high = -(2 ** (width - 1)), 2 ** (width - 1)
    reached = []
    for level in thresholds.levels:
        # Moved up by `low`, both sides are unsigned, and the sums need no new plane.
        level = jnp.clip(level, low, high) - low
        wanted = [packing.pack_bits((level >> i) & 1 == 1) for i in range(width + 1)]
        wanted = [words.reshape(*lead, -1) for words in wanted]
        planes = [*sums.planes[:-1], ~sums.planes[-1]]
        yes: Any = jnp.uint32(2**32 - 1)
        for a, t in zip(planes, wanted, strict=False):
            yes = (a & ~t) | (~(a ^ t) & yes)
        reached.append((yes & ~wanted[width]) ^ flip)
    tail = jnp.asarray(bit_conv.ones_words(sums.length)).reshape(*lead, -1)
    found = [plane & tail for plane in _planes(reached, thresholds)]
    return Packed(jnp.stack(found), thresholds.kind, sums.length)
