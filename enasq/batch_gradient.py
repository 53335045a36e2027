"""Normalisation by a batch, with its gradient by hand.

Automatic gradients pass through the mean and through the variance on their own: a pass
over the batch for each of them, one of which adds up to nothing.
"""

import functools

import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

from shared.layers.norm import AxisName, moments

Kept = tuple[Array, Array, Array, Array]


def normalize_batch(
    params: dict[str, Array],
    x: Float[Array, "*lead channels"],
    *,
    epsilon: float,
    axis_name: AxisName | None = None,
) -> Float[Array, "*lead channels"]:
    """Normalise by the batch: y = scale (x - mean) / √(var + epsilon) + offset.

    With z the normalised x of M rows, and s = scale / √(var + epsilon), the gradient by
    x is s (g - (Σ g + z Σ g z) / M).

    Args:
        params: `scale` and `offset`.
        x: any leading axes.
        epsilon: added to the variance.
        axis_name: mapped axes to pool the batch's statistics over.
    """
    return _normalized(epsilon, axis_name, params["scale"], params["offset"], x)


def _wide(vector: Array, x: Array) -> Array:
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _normalized(
    epsilon: float, axis_name: AxisName | None, scale: Array, offset: Array, x: Array
) -> Array:
    return _forward(epsilon, axis_name, scale, offset, x)[0]


def _forward(
    epsilon: float, axis_name: AxisName | None, scale: Array, offset: Array, x: Array
) -> tuple[Array, Kept]:
    mean, var = moments(x, axis_name=axis_name)
    inverse = lax.rsqrt(var + epsilon)
    y = (x - _wide(mean, x)) * _wide(inverse * scale, x) + _wide(offset, x)
    return y.astype(x.dtype), (scale, x, mean, inverse)


def _backward(
    epsilon: float, axis_name: AxisName | None, kept: Kept, g: Array
) -> tuple[Array, Array, Array]:
    scale, x, mean, inverse = kept
    axes = tuple(range(x.ndim - 1))
    z = (x - _wide(mean, x)) * _wide(inverse, x)
    offset_g, scale_g = jnp.sum(g, axes), jnp.sum(g * z, axes)
    rows = x.size // x.shape[-1]
    share, slope = offset_g / rows, scale_g / rows
    if axis_name is not None:
        share, slope = lax.pmean((share, slope), axis_name)
    x_g = (g - _wide(share, x) - z * _wide(slope, x)) * _wide(scale * inverse, x)
    return scale_g, offset_g, x_g.astype(x.dtype)


_normalized.defvjp(_forward, _backward)
