"""Quantisation with scales that are learned.

Reference: Esser et al. (2020), Learned Step Size Quantization, arXiv 1902.08153; Zhu et
al. (2017), Trained Ternary Quantization, arXiv 1612.01064.
"""

import functools

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from enasq.straight_through import Values


def learned_codes(
    x: Values, step: Float[Array, "..."], low: int, high: int
) -> Int[Array, "*shape"]:
    """Return round(clip(x / step, low, high))."""
    return jnp.round(jnp.clip(x / step, low, high)).astype(jnp.int32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def learned_step(
    x: Values,
    step: Float[Array, "..."],
    low: int,
    high: int,
    gradient_scale: float | int = 1.0,
) -> Values:
    """Return step round(clip(x / step, low, high)).

    With v = x / step, the gradient by x is 1[low < v < high], that by the step
    round(v) - v inside that interval, low below and high above it, all times
    `gradient_scale`.

    Args:
        x: any shape.
        step: > 0, one number or `[1, ..., 1, channels]`.
        low, high: least and largest code.
        gradient_scale: 1 / √(n high) of n values that share the step keeps its updates
            in proportion to those of weights.
    """
    return learned_codes(x, step, low, high).astype(x.dtype) * step


def _learned_step_fwd(x, step, low, high, gradient_scale):
    return learned_step(x, step, low, high, gradient_scale), (x, step)


def _learned_step_bwd(low, high, gradient_scale, kept, g):
    x, step = kept
    v = x / step
    inside = (v > low) & (v < high)
    code = jnp.round(jnp.clip(v, low, high))
    by_step = g * jnp.where(inside, code - v, code)
    axes = tuple(range(x.ndim - 1)) if step.ndim else None
    total = jnp.sum(by_step, axis=axes, keepdims=step.ndim > 0)
    return jnp.where(inside, g, jnp.zeros_like(g)), total * gradient_scale


learned_step.defvjp(_learned_step_fwd, _learned_step_bwd)


def trained_codes(w: Values, factor: float | int = 0.05) -> Int[Array, "*shape"]:
    """Return the signs of the weights whose size is above factor max |w|, else 0."""
    delta = factor * jnp.max(jnp.abs(w))
    return jnp.where(jnp.abs(w) > delta, jnp.sign(w), 0).astype(jnp.int32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def trained_ternary(
    w: Values,
    positive: Float[Array, "..."],
    negative: Float[Array, "..."],
    factor: float | int = 0.05,
) -> Values:
    """Return `positive`, 0 or -`negative`, by the threshold factor max |w|.

    The gradients by the two scales are the true ones, sums over the weights that have
    them; that by w is `positive` above the threshold, 1 inside and `negative` below.

    Args:
        w: latent weights.
        positive, negative: one number, or `[1, ..., 1, channels]`.
        factor: of the threshold.
    """
    codes = trained_codes(w, factor)
    return codes.astype(w.dtype) * jnp.where(codes > 0, positive, negative)


def _trained_fwd(w, positive, negative, factor):
    kept = trained_codes(w, factor), positive, negative
    return trained_ternary(w, positive, negative, factor), kept


def _trained_bwd(factor, kept, g):
    codes, positive, negative = kept
    none = jnp.zeros_like(g)
    axes = tuple(range(g.ndim - 1)) if positive.ndim else None
    total = lambda part: jnp.sum(part, axis=axes, keepdims=positive.ndim > 0)
    small = jnp.where(codes < 0, g * negative, g)
    return (
        jnp.where(codes > 0, g * positive, small),
        total(jnp.where(codes > 0, g, none)),
        -total(jnp.where(codes < 0, g, none)),
    )


trained_ternary.defvjp(_trained_fwd, _trained_bwd)
