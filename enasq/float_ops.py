"""The steps of networks in float32, whose norms are folded into kernels and biases."""

from typing import Any

from jax import lax
from jax import numpy as jnp
from jaxtyping import Array

from enasq import depthwise, pools
from enasq.graph import Step

Own = dict[str, Any]

FORMS = {
    "conv": ("product", "convolution"),
    "halve": ("product", "convolution"),
    "depthwise": ("shift", "grouped"),
}
"""How a step may be computed; the first is the default."""


def _convolve(x: Array, kernel: Array, stride: int = 1, groups: int = 1) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _bias(own: Own, y: Array) -> Array:
    if "bias" not in own:
        return y
    return y + own["bias"].reshape((1,) * (y.ndim - 1) + (-1,))


def _image(step: Step, own: Own, how: str, images: Array) -> Array:
    shape = (1,) * (images.ndim - 1) + (-1,)
    mean, std = own["mean"].reshape(shape), own["std"].reshape(shape)
    x = (images.astype(jnp.float32) - mean) / std
    if not step.options["bits"]:
        return x
    m = 2 ** (step.options["bits"] - 1)
    return jnp.clip(jnp.round(x * m), -m, m - 1) / m


def _activate(step: Step, own: Own, how: str, x: Array) -> Array:
    kind, bits = step.options["codes"]
    if kind == "rectified":
        return jnp.maximum(x, 0)
    if kind == "binary":
        return jnp.where(x > 0, 1.0, -1.0)
    if kind == "ternary":
        return (x > 0.5).astype(x.dtype) - (x <= -0.5)
    m = 2 ** (bits - 1)
    return jnp.clip(jnp.round(x * m), -m, m - 1) / m


def _product(x: Array, kernel: Array) -> Array:
    """Return a product of all windows with the kernel, of stride 1."""
    rows, columns, _, outputs = kernel.shape
    if rows == columns == 1:
        return x @ kernel[0, 0]
    around = depthwise.explicit("same", x.shape[1:3], (rows, columns), 1)
    wide = jnp.pad(x, ((0, 0), *around, (0, 0)))
    high, long = x.shape[1:3]
    windows = [
        wide[:, u : u + high, v : v + long] for u in range(rows) for v in range(columns)
    ]
    return jnp.concatenate(windows, -1) @ kernel.reshape(-1, outputs)


def _conv(step: Step, own: Own, how: str, x: Array) -> Array:
    run = _product if how == "product" else _convolve
    return _bias(own, run(x, own["kernel"]))


def _halve(step: Step, own: Own, how: str, x: Array) -> Array:
    run = _product if how == "product" else _convolve
    paths = ("kernel_1", x[:, ::2, ::2]), ("kernel_2", x[:, 1::2, 1::2])
    return _bias(own, jnp.concatenate([run(part, own[n]) for n, part in paths], -1))


def _depthwise(step: Step, own: Own, how: str, x: Array) -> Array:
    kernel, stride = own["kernel"], step.options["stride"]
    if how == "grouped":
        y = _convolve(x, kernel[:, :, None], stride, x.shape[-1])
    else:
        run = depthwise.depthwise_conv
        y = run(kernel[..., None], x, stride=stride, how="shift")
    return _bias(own, y)


def _head(step: Step, own: Own, how: str, x: Array) -> Array:
    means = jnp.mean(_activate(step, own, how, x), axis=(1, 2))
    return jnp.matmul(means, own["kernel"], precision="highest")


def step_of(
    step: Step, own: Own, given: list[Any], how: str | None = None
) -> tuple[Any, None]:
    """Run a step; return its value."""
    how = how or FORMS.get(step.op, ("",))[0]
    return OPS[step.op](step, own, how, *given), None


OPS = {
    "image": _image,
    "activate": _activate,
    "conv": _conv,
    "halve": _halve,
    "depthwise": _depthwise,
    "add": lambda step, own, how, x, y: x + y,
    "average": lambda step, own, how, x: pools.avg_pool(
        x, stride=step.options["stride"]
    ),
    "largest": lambda step, own, how, x: pools.max_pool(
        x, stride=step.options["stride"]
    ),
    "join": lambda step, own, how, *parts: jnp.concatenate(parts, -1),
    "head": _head,
}
