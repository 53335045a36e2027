"""Sums of norms in fixed point, one rule for simulation and packed execution.

A node adds two normalised convolutions. Each is rounded once, to a multiple of 2^-F,
from its integer sum:

    value = (acc multiplier + start + 2^(S-F-1)) >> (S - F)

with multiplier and start the norm's gain and shift times 2^S, rounded to whole numbers.
Everything after that is exact: adding values, comparing them with thresholds, and the
same arithmetic again in float32 as long as values stay below 2^24.

Reference: Jacob et al. (2018), arXiv 1712.05877.
"""

import dataclasses
import math

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
    factor = np.asarray(norm.factor, np.float64)
    gain = factor * float(alpha)
    start = np.asarray(norm.offset, np.float64) - np.asarray(norm.mean) * factor
    reach = float(np.max(np.abs(gain) * bound + np.abs(start)))
    # One bit of room takes the roundings, and the half that is added.
    places = min(30 - math.frexp(max(reach, 1.0))[1], 24 + fraction)
    if places <= fraction:
        hint = f"Normalised values reach {reach:.3g}."
        raise UsageError("fraction", fraction, f"an integer < {places}", hint)
    half = 2 ** (places - fraction - 1)
    whole = lambda x: np.rint(x * 2.0**places)
    return Scale(
        jnp.asarray(whole(gain), jnp.int32),
        jnp.asarray(whole(start) + half, jnp.int32),
        places - fraction,
    )


def apply(
    scale: Scale, acc: Int[Array, "*rows channels"]
) -> Int32[Array, "*rows channels"]:
    """Return normalised sums as multiples of 2^-F."""
    wide = lambda x: x.reshape((1,) * (acc.ndim - 1) + (-1,))
    value = acc.astype(jnp.int32) * wide(scale.multiplier) + wide(scale.start)
    return value >> scale.shift


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
