"""Convolutions of images `[..., height, width, channels]`, without kernel flip."""

import chex
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from shared.errors import UsageError, check_choice
from shared.layers._arrays import cast, explicit_padding, pair, per_channel
from shared.layers.initializers import Initializer, kernel_and_bias

Sizes = int | tuple[int, int]
Padding = str | int | tuple[tuple[int, int], ...]


def init_conv(
    key: Array,
    window: Sizes,
    inputs: int,
    outputs: int,
    *,
    groups: int = 1,
    bias: bool = True,
    kernel_init: Initializer | None = None,
    bias_init: Initializer | None = None,
    dtype: DTypeLike = jnp.float32,
) -> dict[str, Array]:
    """Return `kernel` `[rows, columns, inputs / groups, outputs]`, `bias` `[outputs]`.

    Args:
        key: consumed.
        window: size of the kernel, or its height and width.
        inputs, outputs: channels.
        groups: channels are split into so many groups that do not see each other.
        bias: whether there is one.
        kernel_init, bias_init: by default both U(±1/√fan-in).
        dtype: of the parameters.

    Raises:
        UsageError: if `groups` does not divide both channel counts.
    """
    if groups < 1 or inputs % groups or outputs % groups:
        raise UsageError("groups", groups, f"a divisor of {inputs} and of {outputs}")
    return kernel_and_bias(
        key,
        (*pair("window", window), inputs // groups, outputs),
        bias=bias,
        kernel_init=kernel_init,
        bias_init=bias_init,
        dtype=dtype,
    )


def conv(
    params: dict[str, Array],
    x: Num[Array, "*lead height width inputs"],
    *,
    stride: Sizes = 1,
    padding: Padding = "SAME",
    groups: int = 1,
    dilation: Sizes = 1,
    dtype: DTypeLike | None = None,
) -> Float[Array, "*lead rows columns outputs"]:
    """Convolve: y[i, j] = b + Σ_uv x[s i + u, s j + v] W[u, v].

    Args:
        params: `kernel` and, if there is one, `bias`.
        x: any leading axes.
        stride: step between windows, or both steps.
        padding: "SAME" (the larger half after), "VALID", a number of zeros on all
            sides, or ((top, bottom), (left, right)).
        groups: as at `init_conv`.
        dilation: step between the points of a window.
        dtype: type of computation and result; that of `params` by default.

    Raises:
        UsageError: for wrong sizes, padding or groups.
    """
    params, x = cast(params, dtype, x)
    kernel = params["kernel"]
    chex.assert_rank(kernel, 4)
    inputs, outputs = kernel.shape[2:]
    if groups < 1 or x.shape[-1] != inputs * groups or outputs % groups:
        allowed = f"a divisor of {outputs} with groups * {inputs} = {x.shape[-1]}"
        raise UsageError("groups", groups, f"{allowed}, the channels of x")
    lead, image = x.shape[:-3], x.shape[-3:]
    stride, dilation = pair("stride", stride), pair("dilation", dilation)
    reach = tuple(
        (k - 1) * d + 1 for k, d in zip(kernel.shape[:2], dilation, strict=True)
    )
    y = jax.lax.conv_general_dilated(
        x.reshape(-1, *image),
        kernel,
        stride,
        explicit_padding(padding, image[:2], reach, stride),
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    y = y.reshape(*lead, *y.shape[1:])
    return y + per_channel(params["bias"], y) if "bias" in params else y


def init_depthwise_conv(
    key: Array,
    window: Sizes,
    channels: int,
    *,
    multiplier: int = 1,
    bias: bool = True,
    kernel_init: Initializer | None = None,
    bias_init: Initializer | None = None,
    dtype: DTypeLike = jnp.float32,
) -> dict[str, Array]:
    """Return parameters of `depthwise_conv`: `init_conv` with a group a channel.

    Args:
        key: consumed.
        window: size of the kernel, or its height and width.
        channels: of the input.
        multiplier: outputs of each channel; output `c multiplier + j` sees channel c.
        bias: whether there is one.
        kernel_init, bias_init: by default both U(±1/√fan-in).
        dtype: of the parameters.
    """
    return init_conv(
        key,
        window,
        channels,
        channels * multiplier,
        groups=channels,
        bias=bias,
        kernel_init=kernel_init,
        bias_init=bias_init,
        dtype=dtype,
    )


def depthwise_conv(
    params: dict[str, Array],
    x: Num[Array, "*lead height width channels"],
    *,
    stride: Sizes = 1,
    padding: Padding = "SAME",
    how: str = "auto",
    dtype: DTypeLike | None = None,
) -> Float[Array, "*lead rows columns outputs"]:
    """Convolve each channel by itself.

    Args:
        params: `kernel` `[rows, columns, 1, outputs]` and, if there is one, `bias`.
        x: any leading axes.
        stride, padding: as at `conv`.
        how: "grouped" is one grouped convolution, "shift" a sum of shifted products;
            "auto" takes the latter on CPUs, where it is many times faster and may
            stand inside compiled loops.
        dtype: type of computation and result; that of `params` by default.
    """
    check_choice("how", how, ("auto", "grouped", "shift"))
    if how == "auto":
        how = "shift" if jax.default_backend() == "cpu" else "grouped"
    if how == "grouped":
        groups = x.shape[-1]
        return conv(
            params, x, stride=stride, padding=padding, groups=groups, dtype=dtype
        )
    params, x = cast(params, dtype, x)
    kernel = params["kernel"]
    if kernel.shape[2] != 1 or kernel.shape[3] % x.shape[-1]:
        allowed = f"[rows, columns, 1, a multiple of {x.shape[-1]}]"
        raise UsageError("kernel", kernel.shape, allowed)
    y = _shifted_products(kernel[:, :, 0], x, pair("stride", stride), padding)
    return y + per_channel(params["bias"], y) if "bias" in params else y


def _shifted_products(
    kernel: Array, x: Array, stride: tuple[int, int], padding: Padding
) -> Array:
    (rows, columns, outputs), size = kernel.shape, (x.shape[-3], x.shape[-2])
    pads = explicit_padding(padding, size, (rows, columns), stride)
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [*pads, (0, 0)])
    x = jnp.repeat(x, outputs // x.shape[-1], axis=-1)
    high, wide = (
        (x.shape[axis] - window) // step
        for axis, window, step in zip((-3, -2), (rows, columns), stride, strict=True)
    )
    terms = [
        x[
            ...,
            i : i + high * stride[0] + 1 : stride[0],
            j : j + wide * stride[1] + 1 : stride[1],
            :,
        ]
        * per_channel(kernel[i, j], x)
        for i in range(rows)
        for j in range(columns)
    ]
    return sum(terms[1:], terms[0])
