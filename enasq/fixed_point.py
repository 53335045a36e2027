"""Sums of norms in fixed point, one rule for simulation and packed execution.

A node adds two normalised convolutions. Each is rounded once, to a multiple of 2^-F,
from its integer sum:

    value = (acc multiplier + start + 2^(S-F-1)) >> (S - F)

with multiplier and start the norm's gain and shift times 2^S, rounded to whole numbers
in float32: a compiled program finds the same ones as NumPy does. Means of a window of
values are rounded to the nearest multiple, halves upwards. Everything else is exact:
adding values, comparing them with thresholds, and the same arithmetic again in float32
as long as values stay below 2^24.

Reference: Jacob et al. (2018), arXiv 1712.05877.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Int, Int32

from enasq import packing, thresholds
from shared.errors import UsageError

FRACTION = 8
"""Bits behind the point."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scale:
    """How sums become multiples of 2^-F.

    Attributes:
        multiplier, start: int32 `[channels]`; the start holds the half for rounding.
        shift: S - F.
    """

    multiplier: Array
    start: Array
    shift: int = packing.static_field()


def scale_of(
    norm: thresholds.Affine,
    bound: int,
    *,
    alpha: float | int = 1.0,
    fraction: int = FRACTION,
) -> Scale:
    """Return the scale of a norm, as fine as 32 bits allow.

    Args:
        norm: of the channels.
        bound: no sum is larger, nor smaller than its negative.
        alpha: value of one step of the sums.
        fraction: F.

    Raises:
        UsageError: if values may pass what 32 bits hold with so fine a fraction.
    """
    multiplier, start, shift, reach = numbers(norm, bound, alpha, fraction, np)
    if shift <= 0:
        hint = f"Normalised values reach {float(reach):.3g}."
        raise UsageError("fraction", fraction, f"an integer < {fraction + shift}", hint)
    return Scale(jnp.asarray(multiplier), jnp.asarray(start), int(shift))


def numbers(
    norm: thresholds.Affine, bound: int, alpha: float | int, fraction: int, xp: Any
) -> tuple[Any, Any, Any, Any]:
    """Return multiplier, start and shift of `Scale`, and the largest value.

    Args:
        norm, bound, alpha, fraction: as of `scale_of`.
        xp: `numpy`, or `jax.numpy` for norms that are traced.
    """
    clip = lambda x: xp.clip(x, -np.float32(thresholds.FAR), np.float32(thresholds.FAR))
    # Clipped, no product and sum are compiled into one operation.
    gain = clip(norm.factor * np.float32(alpha))
    start = norm.offset - clip(norm.mean * norm.factor)
    reach = xp.max(clip(xp.abs(gain) * np.float32(bound)) + xp.abs(start))
    # One bit of room takes the roundings, and the half that is added.
    exponent = xp.frexp(xp.maximum(reach, np.float32(1)))[1]
    places = xp.minimum(30 - exponent, 24 + fraction).astype(np.int32)
    shift = places - fraction
    half = xp.left_shift(np.int32(1), xp.maximum(shift - 1, 0)).astype(np.int32)
    whole = lambda x: xp.rint(xp.ldexp(x, places)).astype(np.int32)
    return whole(gain), whole(start) + half, shift, reach


def apply(
    scale: Scale, acc: Int[Array, "*rows channels"]
) -> Int32[Array, "*rows channels"]:
    """Return normalised sums as multiples of 2^-F."""
    return value(acc, scale.multiplier, scale.start, scale.shift)


def value(acc: Any, multiplier: Any, start: Any, shift: Any) -> Any:
    """Return what `apply` does, of numbers that may be traced."""
    wide = lambda x: x.reshape((1,) * (acc.ndim - 1) + (-1,))
    return (acc.astype(jnp.int32) * wide(multiplier) + wide(start)) >> shift


def mean(total: Any, count: Any) -> Any:
    """Return whole numbers over counts, to the nearest, halves upwards; exact."""
    return (2 * total + count) // (2 * count)


def fold(
    bound: int, channels: int, kind: str, bits: int = 1, *, fraction: int = FRACTION
) -> thresholds.Thresholds:
    """Return the thresholds of an activation of sums of such values.

    Args:
        bound: no sum of multiples of 2^-F is larger, nor smaller than its negative.
        channels: of the sums.
        kind, bits: of the codes.
        fraction: F.
    """
    step = np.float32(2.0**-fraction)
    simulate = lambda value: thresholds.activation(
        value.astype(np.float32) * step, kind, bits
    )
    return thresholds.fold(simulate, bound, channels, kind, bits)
