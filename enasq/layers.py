"""Layers whose kernels are quantised when they are used.

Parameters are the latent `kernel`, `bias` if there is one, and `quantizer` if its
quantiser learns any. Images are `[..., height, width, channels]`, kernels
`[rows, columns, inputs, outputs]`, those of depthwise stages
`[rows, columns, channels, 1]`. The paddings are "same" (zeros around, one row or column
more at the bottom and the right) and "valid".

Reference: Courbariaux et al. (2016), arXiv 1602.02830; Hubara et al. (2017), arXiv
1609.07061.
"""

import math
from typing import Any

import jax
from jax import numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from enasq import depthwise as shifts
from enasq import quantization
from enasq.pointwise import pointwise
from enasq.quantization import Quantizer
from enasq.schemes import glorot_bound
from enasq.straight_through import scale_gradient
from shared.errors import UsageError
from shared.layers import conv as convolutions
from shared.layers import dropout

Params = dict[str, Any]
Image = Float[Array, "*lead height width _"]
Outputs = Float[Array, "*lead high wide _"]


def init_conv(
    key: Key[Array, ""],
    window: int,
    inputs: int,
    outputs: int,
    quantizer: Quantizer,
    *,
    bias: bool = False,
    dtype: DTypeLike = jnp.float32,
) -> Params:
    """Return the parameters of `conv`.

    Kernels are U(-H, H), H the range of the quantiser or 1: batch normalisation takes
    their scale away. Those of "float" are N(0, 2 / fan-in), He et al. (2015).

    Args:
        key: consumed by the kernel.
        window: rows and columns of the kernel.
        inputs, outputs: channels.
        quantizer: of the kernel.
        bias: whether there is one; it starts at 0.
        dtype: of all of them.
    """
    shape = (window, window, inputs, outputs)
    return _init(key, shape, quantizer, outputs if bias else None, dtype)


def init_depthwise(
    key: Key[Array, ""],
    window: int,
    channels: int,
    quantizer: Quantizer,
    *,
    bias: bool = False,
    dtype: DTypeLike = jnp.float32,
) -> Params:
    """Return the parameters of `depthwise`, as `init_conv` does."""
    shape = (window, window, channels, 1)
    fan_in = window * window
    return _init(key, shape, quantizer, channels if bias else None, dtype, fan_in)


def init_separable_conv(
    key: Key[Array, ""],
    window: int,
    inputs: int,
    outputs: int,
    quantizer: Quantizer,
    *,
    bias: bool = False,
    dtype: DTypeLike = jnp.float32,
) -> Params:
    """Return `depthwise` and `pointwise` parameters; the latter have the bias."""
    deep, point = jax.random.split(key)
    return {
        "depthwise": init_depthwise(deep, window, inputs, quantizer, dtype=dtype),
        "pointwise": init_conv(
            point, 1, inputs, outputs, quantizer, bias=bias, dtype=dtype
        ),
    }


def init_dense(
    key: Key[Array, ""],
    inputs: int,
    outputs: int,
    quantizer: Quantizer,
    *,
    bias: bool = False,
    dtype: DTypeLike = jnp.float32,
) -> Params:
    """Return the parameters of `dense`, as `init_conv` does."""
    return _init(key, (inputs, outputs), quantizer, outputs if bias else None, dtype)


def _init(
    key: Array,
    shape: tuple[int, ...],
    quantizer: Quantizer,
    biases: int | None,
    dtype: DTypeLike,
    fan_in: int | None = None,
) -> Params:
    if quantizer.name == "float":
        deviation = (2 / (fan_in or math.prod(shape[:-1]))) ** 0.5
        kernel = jax.random.normal(key, shape, dtype) * deviation
    else:
        high = quantization.latent_bound(quantizer, shape) or 1.0
        kernel = jax.random.uniform(key, shape, dtype, -high, high)
    params: Params = {"kernel": kernel}
    if biases is not None:
        params["bias"] = jnp.zeros((biases,), dtype)
    learned = quantization.init(quantizer, kernel)
    return params | ({"quantizer": learned} if learned else {})


def effective_kernel(
    params: Params, quantizer: Quantizer, *, factor: float | int = 1
) -> Float[Array, "..."]:
    """Return the quantised kernel; the latent one gets `factor` times its gradient."""
    kernel: Any = params["kernel"]
    if factor != 1:
        kernel = scale_gradient(kernel, factor)
    return quantization.quantize(quantizer, params.get("quantizer", {}), kernel)


def conv(
    params: Params,
    x: Image,
    quantizer: Quantizer,
    *,
    stride: int = 1,
    padding: str = "same",
    factor: float | int = 1,
) -> Outputs:
    """Convolve with a quantised kernel: y[i, j] = b + Σ_uv x[s i + u, s j + v] W[u, v].

    A window of 1 x 1 is a matrix product, which may stand inside compiled loops and
    branches on a CPU.

    Args:
        params: of `init_conv`.
        x: any leading axes.
        quantizer: of the kernel.
        stride: step between windows.
        padding: "same" or "valid".
        factor: of the kernel's gradient.
    """
    kernel = effective_kernel(params, quantizer, factor=factor)
    _check_inputs(kernel.shape[2], x)
    if kernel.shape[:2] == (1, 1):
        shifts.check_padding(padding)
        y = pointwise(x[..., ::stride, ::stride, :], kernel[0, 0])
    else:
        pads = shifts.explicit(padding, x.shape[-3:-1], kernel.shape[:2], stride)
        y = convolutions.conv({"kernel": kernel}, x, stride=stride, padding=pads)
    return _with_bias(params, y)


def depthwise(
    params: Params,
    x: Image,
    quantizer: Quantizer,
    *,
    stride: int = 1,
    padding: str = "same",
    factor: float | int = 1,
    how: str = "auto",
) -> Outputs:
    """Convolve each channel by itself; arguments as of `conv`.

    Args:
        how: as of `enasq.depthwise.depthwise_conv`.
    """
    kernel = effective_kernel(params, quantizer, factor=factor)
    _check_inputs(kernel.shape[2], x)
    y = shifts.depthwise_conv(kernel, x, stride=stride, padding=padding, how=how)
    return _with_bias(params, y)


def separable_conv(
    params: Params,
    x: Image,
    quantizer: Quantizer,
    *,
    stride: int = 1,
    padding: str = "same",
    rescale: bool = False,
    how: str = "auto",
) -> Outputs:
    """Convolve each channel by itself, then all channels point by point.

    Nothing is quantised between the two stages.

    Args:
        params: of `init_separable_conv`.
        x: any leading axes.
        quantizer: of both kernels.
        stride, padding, how: of the depthwise stage.
        rescale: multiply the gradients of both kernels by `rate_multiplier` of the
            whole, as the published program does for kernels of k bits.
    """
    first, second = params["depthwise"], params["pointwise"]
    window = first["kernel"].shape[:2]
    factor = rate_multiplier((*window, *second["kernel"].shape[2:])) if rescale else 1
    y = depthwise(
        first, x, quantizer, stride=stride, padding=padding, factor=factor, how=how
    )
    return conv(second, y, quantizer, factor=factor)


def dense(
    params: Params, x: Float[Array, "*lead inputs"], quantizer: Quantizer
) -> Float[Array, "*lead outputs"]:
    """Map the last axis: y = x W + b, with a quantised kernel."""
    kernel = effective_kernel(params, quantizer)
    _check_inputs(kernel.shape[0], x)
    return _with_bias(params, x @ kernel)


def _check_inputs(inputs: int, x: Array) -> None:
    if x.shape[-1] != inputs:
        raise UsageError("x", x.shape, f"{inputs} channels, as the kernel has")


def _with_bias(params: Params, y: Array) -> Array:
    if "bias" not in params:
        return y
    return y + params["bias"].reshape((1,) * (y.ndim - 1) + (-1,))


def rate_multiplier(
    shape: tuple[int, ...], setting: float | int | str | None = "Glorot"
) -> float:
    """Return what a kernel's learning rate is multiplied by.

    Args:
        shape: of the kernel, inputs and outputs last; of a separable convolution
            `(rows, columns, inputs, outputs)`.
        setting: a number, None for 1, or "Glorot" for √((n_in + n_out) / 1.5).
    """
    if isinstance(setting, str):
        if setting != "Glorot":
            raise UsageError("kernel_lr_multiplier", setting, "'Glorot' or a number")
        return 1 / glorot_bound(shape)
    return 1.0 if setting is None else float(setting)


def project(weights: Any, limits: tuple[float | int, float | int] | None) -> Any:
    """Clip all latent weights of a tree to a range; None leaves them.

    To be done after each step of an optimiser: beyond its range (see
    `quantization.latent_range`) a weight of a binary or k-bit kernel has no gradient,
    and would stay there for ever.
    """
    if limits is None:
        return weights
    low, high = limits
    return jax.tree.map(lambda w: jnp.clip(w, low, high), weights)


def dropout_no_scale(
    x: Float[Array, "*shape"],
    rate: float | int | Float[Array, ""],
    *,
    train: bool,
    key: Key[Array, ""] | None = None,
) -> Float[Array, "*shape"]:
    """Set values to 0 with probability `rate` in training, and leave the others.

    Levels stay levels, as they would not when divided by 1 - rate.
    """
    return dropout.dropout(x, rate, train=train, key=key, rescale=False)
