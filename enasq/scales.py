"""Quantisation with scales taken from the weights themselves.

A scale is one number for a whole tensor, or one a channel, the last axis: then an array
`[1, ..., 1, channels]`. No gradient flows into scales and thresholds, except where a
function says so.

Reference: Li et al. (2016), Ternary Weight Networks, arXiv 1605.04711; Rastegari et al.
(2016), XNOR-Net, arXiv 1603.05279; Zhou et al. (2016), DoReFa-Net, arXiv 1606.06160.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from enasq.straight_through import Values, binarize, estimate, sign
from shared.errors import check_choice

SCALES = ("none", "tensor", "channel")
"""What shares one scale: nothing has one, all weights, or those of one channel."""


def reduced(reduction: Callable, w: Values, scale: str) -> Float[Array, "..."]:
    """Reduce a tensor to one number, or to one a channel `[1, ..., 1, channels]`."""
    check_choice("scale", scale, SCALES[1:])
    if scale == "tensor":
        return reduction(w)
    return reduction(w, axis=tuple(range(w.ndim - 1)), keepdims=True)


def mean_abs(w: Values, scale: str) -> Float[Array, "..."]:
    """Return the mean of |w|, or 1 where `scale` is "none"; it has no gradient."""
    if scale == "none":
        return jnp.ones((), w.dtype)
    return jax.lax.stop_gradient(reduced(jnp.mean, jnp.abs(w), scale))


def xnorize(
    w: Values, high: float | int = 1.0, axis: int | tuple[int, ...] | None = None
) -> tuple[Float[Array, "..."], Values]:
    """Return mean |w| over the axes, which are kept, and binarize(w, high)."""
    scale = jnp.mean(jnp.abs(w), axis=axis, keepdims=axis is not None)
    return jax.lax.stop_gradient(scale), binarize(w, high)


class Threshold(NamedTuple):
    """Ternary weights `alpha codes`, where codes are signs of |w| > delta."""

    delta: Float[Array, "..."]
    alpha: Float[Array, "..."]
    codes: Int[Array, "..."]


def twn_parts(
    w: Values, factor: float | int = 0.75, scale: str = "tensor"
) -> Threshold:
    """Split weights by the threshold delta = factor mean |w|.

    alpha is the mean of |w| over all |w| > delta: the best scale for these signs. The
    published factor is 0.75, often quoted as 0.7; both approximate the best threshold,
    for normal and for uniform weights.

    Args:
        w: weights, channels last.
        factor: of the threshold.
        scale: what shares a threshold and a scale; for "none", as for "tensor" but
            alpha = 1.
    """
    check_choice("scale", scale, SCALES)
    shared = "tensor" if scale == "none" else scale
    size = jnp.abs(w)
    delta = factor * reduced(jnp.mean, size, shared)
    chosen = size > delta
    alpha = jnp.ones((), w.dtype)
    if scale != "none":
        count = reduced(jnp.sum, chosen.astype(w.dtype), shared)
        total = reduced(jnp.sum, jnp.where(chosen, size, jnp.zeros_like(w)), shared)
        alpha = total / jnp.maximum(count, 1)
    return Threshold(delta, alpha, jnp.where(chosen, jnp.sign(w), 0).astype(jnp.int32))


def twn(w: Values, factor: float | int = 0.75, scale: str = "tensor") -> Values:
    """Return alpha codes of `twn_parts`; d = 1."""

    def forward(w):
        parts = twn_parts(w, factor, scale)
        return parts.codes.astype(w.dtype) * parts.alpha

    return estimate(forward, None, w)


def range_step(w: Values, bits: int, scale: str) -> Float[Array, "..."]:
    """Return the step of a grid of k bits whose largest code is the largest |w|."""
    most = reduced(jnp.max, jnp.abs(w), scale)
    step = most / max(2 ** (bits - 1) - 1, 1)
    return jnp.where(step > 0, step, jnp.ones_like(step))


def range_codes(
    w: Values, bits: int, scale: str
) -> tuple[Int[Array, "*shape"], Float[Array, "..."]]:
    """Return codes of two's complement, and `range_step`."""
    step, m = range_step(w, bits, scale), 2 ** (bits - 1)
    return jnp.clip(jnp.round(w / step), -m, m - 1).astype(jnp.int32), step


def range_quantize(w: Values, bits: int, scale: str) -> Values:
    """Return the nearest of 2^bits levels over the range of the weights; d = 1."""

    def forward(w):
        codes, step = range_codes(w, bits, scale)
        return codes.astype(w.dtype) * step

    return estimate(forward, None, w)


def _squashed(w: Array) -> Array:
    """Return tanh(w) / max |tanh(w)|, in [-1, 1]."""
    t = jnp.tanh(w)
    most = jnp.max(jnp.abs(t))
    return t / jnp.where(most > 0, most, jnp.ones_like(most))


def _odd(u: Array, bits: int) -> Array:
    """Return 2 n - (2^bits - 1), n the nearest of 2^bits levels of u in [-1, 1]."""
    n = 2**bits - 1
    return 2 * jnp.round((u / 2 + 0.5) * n) - n


def dorefa_codes(w: Values, bits: int) -> tuple[Int[Array, "*shape"], Float[Array, ""]]:
    """Return the odd codes of `dorefa`, 1 - 2^bits to 2^bits - 1, and their scale."""
    if bits == 1:
        return sign(w).astype(jnp.int32), mean_abs(w, "tensor")
    codes = _odd(_squashed(w), bits).astype(jnp.int32)
    return codes, jnp.asarray(1 / (2**bits - 1), w.dtype)


def dorefa(w: Values, bits: int) -> Values:
    """Round tanh-normalised weights to 2^bits equal steps over [-1, 1].

    With u = tanh(w) / max |tanh(w)| and n = 2^bits - 1, the value is
    2 round(n (u + 1) / 2) / n - 1, and d is that of u: rounding counts 1. One bit gives
    sign(w) mean |w|, d = 1.
    """
    if bits == 1:
        return estimate(lambda w: sign(w) * mean_abs(w, "tensor"), None, w)
    scale = 1 / (2**bits - 1)
    return estimate(lambda u: _odd(u, bits) * scale, None, _squashed(w))


def dorefa_activation_codes(
    x: Values, bits: int
) -> tuple[Int[Array, "*shape"], Float[Array, ""]]:
    """Return the codes of `dorefa_activation`, 0 to 2^bits - 1, and their scale."""
    n = 2**bits - 1
    return jnp.round(jnp.clip(x, 0, 1) * n).astype(jnp.int32), jnp.asarray(
        1 / n, x.dtype
    )


def dorefa_activation(x: Values, bits: int) -> Values:
    """Round to 2^bits equal steps over [0, 1]; d = 1[0 <= x <= 1]."""

    def forward(x):
        codes, scale = dorefa_activation_codes(x, bits)
        return codes.astype(x.dtype) * scale

    return estimate(forward, lambda x: (x >= 0) & (x <= 1), x)
