"""Fully connected layer."""

import chex
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from shared.layers._arrays import cast, per_channel
from shared.layers.initializers import Initializer, kernel_and_bias


def init_linear(
    key: Array,
    inputs: int,
    outputs: int,
    *,
    bias: bool = True,
    kernel_init: Initializer | None = None,
    bias_init: Initializer | None = None,
    dtype: DTypeLike = jnp.float32,
) -> dict[str, Array]:
    """Return `kernel` `[inputs, outputs]` and `bias` `[outputs]`.

    Args:
        key: consumed.
        inputs, outputs: widths.
        bias: whether there is one.
        kernel_init, bias_init: by default both U(±1/√inputs).
        dtype: of the parameters.
    """
    return kernel_and_bias(
        key,
        (inputs, outputs),
        bias=bias,
        kernel_init=kernel_init,
        bias_init=bias_init,
        dtype=dtype,
    )


def linear(
    params: dict[str, Array],
    x: Num[Array, "*lead inputs"],
    *,
    dtype: DTypeLike | None = None,
) -> Float[Array, "*lead outputs"]:
    """Map the last axis: y = x W + b.

    Args:
        params: `kernel` and, if there is one, `bias`.
        x: any leading axes.
        dtype: type of computation and result; that of `params` by default.
    """
    params, x = cast(params, dtype, x)
    chex.assert_rank(params["kernel"], 2)
    chex.assert_axis_dimension(x, -1, params["kernel"].shape[0])
    y = jnp.dot(x, params["kernel"])
    return y + per_channel(params["bias"], y) if "bias" in params else y
