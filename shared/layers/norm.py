"""Batch and layer normalisation."""

from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from shared.errors import check_choice, check_range
from shared.layers._arrays import per_channel, widen
from shared.model import Variables

AxisName = str | tuple[str, ...]


def moments(
    x: Float[Array, "*lead channels"], *, axis_name: AxisName | None = None
) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """Return mean and biased variance over all axes but the last.

    The variance is a mean of squared deviations, never a difference of squares, so it
    keeps its digits when the mean is large. Gradients flow through both.

    Args:
        x: at least float32 inside, whatever its type.
        axis_name: mapped axes (of `vmap`, `shard_map`, `pmap`) to pool over as well;
            each must hold equal shares of the batch.
    """
    x = widen(x)
    axes = tuple(range(x.ndim - 1))
    pooled = (
        (lambda value: value)
        if axis_name is None
        else lambda value: jax.lax.pmean(value, axis_name)
    )
    mean = pooled(jnp.mean(x, axes))
    var = pooled(jnp.mean(jnp.square(x - per_channel(mean, x)), axes))
    return mean, var


def normalize(
    params: dict[str, Array],
    x: Float[Array, "*lead channels"],
    mean: Float[Array, " channels"],
    var: Float[Array, " channels"],
    *,
    epsilon: float = 1e-5,
) -> Float[Array, "*lead channels"]:
    """Normalise by given moments: y = scale (x - mean) / √(var + epsilon) + offset.

    Args:
        params: `scale` and `offset`, or nothing.
        x: returned in its own type, whatever the type of the moments.
        mean, var: one value a channel.
        epsilon: added to the variance.
    """
    factor = jax.lax.rsqrt(var + epsilon)
    if params:
        factor = factor * params["scale"].astype(var.dtype)
    y = (x.astype(var.dtype) - per_channel(mean, x)) * per_channel(factor, x)
    if params:
        y = y + per_channel(params["offset"].astype(var.dtype), x)
    return y.astype(x.dtype)


def init_batch_norm(
    channels: int, *, affine: bool = True, dtype: DTypeLike = jnp.float32
) -> Variables:
    """Return params (`scale` 1, `offset` 0) and state (`mean` 0, `var` 1, `count` 0).

    Args:
        channels: size of the last axis.
        affine: whether there are `scale` and `offset`.
        dtype: of all of them; `count` is a number of this type too, so that states can
            be averaged over devices.
    """
    zeros, ones = jnp.zeros(channels, dtype), jnp.ones(channels, dtype)
    params = {"scale": ones, "offset": zeros} if affine else {}
    state = {"mean": zeros, "var": ones, "count": jnp.zeros((), dtype)}
    return Variables(params, state)


def batch_norm(
    params: dict[str, Array],
    state: dict[str, Array],
    x: Float[Array, "*lead channels"],
    *,
    train: bool,
    decay: float = 0.9,
    epsilon: float = 1e-5,
    unbiased: bool = True,
    average: str = "exponential",
    axis_name: AxisName | None = None,
) -> tuple[Float[Array, "*lead channels"], dict[str, Array]]:
    """Normalise each channel by the batch in training, else by running statistics.

    y = scale (x - m) / √(v + epsilon) + offset over all axes but the last. In training
    m and v (biased) are the batch's and the running values take a step towards them:
    r <- r + w (batch - r) with w by `average`.

    Args:
        params: `scale` and `offset`, or nothing.
        state: `mean`, `var`, `count` (of updates).
        x: any leading axes.
        train: which moments to use.
        decay: weight of the old running value: 0.9 is PyTorch's momentum 0.1.
        epsilon: added to the variance.
        unbiased: whether the running variance takes the batch's n / (n - 1) v (as in
            PyTorch) or v (as in Flax).
        average: "exponential" (w = 1 - decay), "debiased" (w = (1 - decay) /
            (1 - decay^t) at update t, so the initial values have no weight) or
            "cumulative" (w = 1 / t, the mean of all batches).
        axis_name: mapped axes to pool the batch's moments over.

    Returns:
        The outputs, and the new state: in evaluation the same as before.

    Reference:
        Ioffe and Szegedy (2015).
    """
    check_choice("average", average, ("exponential", "debiased", "cumulative"))
    check_range("decay", decay, low=0, high=1)
    chex.assert_axis_dimension(x, -1, state["mean"].shape[0])
    if not train:
        y = normalize(params, x, state["mean"], state["var"], epsilon=epsilon)
        return y, state
    mean, var = moments(x, axis_name=axis_name)
    y = normalize(params, x, mean, var, epsilon=epsilon)
    if unbiased:
        size = x.size // x.shape[-1] * _axis_size(axis_name)
        var = var * (size / max(size - 1, 1))
    count = state["count"] + 1
    weight = {
        "exponential": lambda: jnp.asarray(1 - decay, count.dtype),
        "debiased": lambda: (1 - decay) / (1 - decay**count),
        "cumulative": lambda: 1 / count,
    }[average]()
    step = lambda old, new: old + weight * (new.astype(old.dtype) - old)
    mean, var = jax.lax.stop_gradient((mean, var))
    new = {
        "mean": step(state["mean"], mean),
        "var": step(state["var"], var),
        "count": count,
    }
    return y, new


def _axis_size(axis_name: AxisName | None) -> int:
    if axis_name is None:
        return 1
    # The sum of ones is a constant, known while tracing.
    return jax.lax.psum(1, axis_name)


def init_layer_norm(
    width: int | Sequence[int], *, dtype: DTypeLike = jnp.float32
) -> dict[str, Any]:
    """Return `scale` 1 and `offset` 0, both of the shape of the normalised axes."""
    shape = (width,) if isinstance(width, int) else tuple(width)
    return {"scale": jnp.ones(shape, dtype), "offset": jnp.zeros(shape, dtype)}


def layer_norm(
    params: dict[str, Array],
    x: Float[Array, "*shape"],
    *,
    epsilon: float = 1e-5,
    form: str = "variance",
) -> Float[Array, "*shape"]:
    """Normalise each example over its last axes, as many as `scale` has.

    Args:
        params: `scale` and `offset`.
        x: any leading axes.
        epsilon: see `form`.
        form: "variance" divides by √(v + epsilon), v biased; "deviation" by
            s + epsilon, s the unbiased standard deviation.

    Reference:
        Ba et al. (2016).
    """
    check_choice("form", form, ("variance", "deviation"))
    shape = params["scale"].shape
    chex.assert_shape(x, (..., *shape))
    axes = tuple(range(-len(shape), 0))
    wide = widen(x)
    centred = wide - jnp.mean(wide, axes, keepdims=True)
    var = jnp.mean(jnp.square(centred), axes, keepdims=True)
    if form == "variance":
        y = centred * jax.lax.rsqrt(var + epsilon)
    else:
        size = params["scale"].size
        # The root has no gradient at 0, where all values are equal.
        safe = jnp.where(var > 0, var, jnp.ones_like(var))
        deviation = jnp.where(var > 0, jnp.sqrt(safe * (size / max(size - 1, 1))), 0)
        y = centred / (deviation + epsilon)
    lead = (1,) * (x.ndim - len(shape))
    scale, offset = (params[n].reshape(lead + shape) for n in ("scale", "offset"))
    return (y * scale.astype(y.dtype) + offset.astype(y.dtype)).astype(x.dtype)
