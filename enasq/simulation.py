"""Evaluation of a network for integers by ordinary operations, unpacked.

Codes are floats, convolutions those of XLA in float32, norms and activations those of
`enasq.thresholds` in float32; nodes are rounded as in `enasq.fixed_point`. Packed
execution gives the same sums, nodes and codes, bit for bit.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, UInt8

from enasq import fixed_point, thresholds
from enasq.blueprint import blueprint
from enasq.fixed import Fixed
from enasq.graph import Graph, Step
from shared import groups
from shared.model import Variables

STEP = np.float32(2.0**-fixed_point.FRACTION)

Own = dict[str, Any]


class Trace(NamedTuple):
    """What a simulation computes.

    Attributes:
        logits: of the classes.
        values: of every step, whole numbers: codes, or nodes in multiples of 2^-8.
        sums: accumulators of the steps that convolve, None of others.
    """

    logits: Array
    values: list[Array]
    sums: list[Array | None]


def simulate(
    net: Fixed,
    variables: Variables,
    images: UInt8[np.ndarray, "n h w c"],
    *,
    mean: Sequence[float | int],
    std: Sequence[float | int],
) -> Trace:
    """Evaluate a network as its export does; arguments as of `blueprint.blueprint`."""
    return evaluate(blueprint(net, variables, mean=mean, std=std), images)


def evaluate(graph: Graph, images: UInt8[np.ndarray, "n h w c"]) -> Trace:
    """Evaluate a graph of form "exact"."""
    arrays = [step.arrays for step in graph.steps]
    run = jax.jit(
        lambda arrays, x: _pass(graph, arrays, x), compiler_options=groups.ONCE
    )
    return run(arrays, jnp.asarray(images))


def _pass(graph: Graph, arrays: list[Own], images: Array) -> Trace:
    values: list[Array] = []
    sums: list[Array | None] = []
    for step, own in zip(graph.steps, arrays, strict=True):
        given = [values[number] for number in step.inputs] or [images]
        acc = None
        if step.op in SUMS:
            acc = SUMS[step.op](step, own, given[0])
            values.append(_normalised(step, own, acc))
        else:
            values.append(OTHERS[step.op](step, own, *given))
        sums.append(acc)
    return Trace(values[-1], values, sums)


def _convolve(x: Array, kernel: Any, stride: int, groups: int = 1) -> Array:
    y = lax.conv_general_dilated(
        x.astype(jnp.float32),
        jnp.asarray(kernel, jnp.float32),
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    return y.astype(jnp.int32)


def _conv(step: Step, own: Own, x: Array) -> Array:
    return _convolve(x, own["kernel"], 1)


def _depthwise(step: Step, own: Own, x: Array) -> Array:
    kernel = own["kernel"][:, :, None]
    return _convolve(x, kernel, step.options["stride"], x.shape[-1])


def _halve(step: Step, own: Own, x: Array) -> Array:
    paths = ("kernel_1", x[:, ::2, ::2]), ("kernel_2", x[:, 1::2, 1::2])
    return jnp.concatenate([_convolve(part, own[name], 1) for name, part in paths], -1)


def _norm_of(own: Own) -> thresholds.Affine:
    return thresholds.Affine(own["mean"], own["factor"], own["offset"])


def _normalised(step: Step, own: Own, acc: Array) -> Array:
    norm, options = _norm_of(own), step.options
    if options.get("codes"):
        y = thresholds.normalise(acc, norm, options["alpha"])
        return _codes(y, *options["codes"])
    known = options["bound"], options["alpha"], fixed_point.FRACTION
    multiplier, start, shift, _ = fixed_point.numbers(norm, *known, jnp)
    return fixed_point.value(acc, multiplier, start, shift)


def _codes(y: Array, kind: str, bits: int) -> Array:
    if kind == "binary":
        half = jnp.round(jnp.clip(y * 0.5 + 0.5, 0, 1))
        return (2 * half - 1).astype(jnp.int32)
    if kind == "ternary":
        return (y > 0.5).astype(jnp.int32) - (y <= -0.5)
    m = 2 ** (bits - 1)
    return jnp.clip(jnp.round(y * m), -m, m - 1).astype(jnp.int32)


def _activate(step: Step, own: Own, x: Array) -> Array:
    return _codes(x.astype(jnp.float32) * STEP, *step.options["codes"])


def _image(step: Step, own: Own, images: Array) -> Array:
    shape = (1,) * (images.ndim - 1) + (-1,)
    mean, std = (jnp.asarray(own[name]).reshape(shape) for name in ("mean", "std"))
    m = 2 ** (step.options["bits"] - 1)
    x = (images.astype(jnp.float32) - mean) / std
    return jnp.clip(jnp.round(x * m), -m, m - 1).astype(jnp.int32)


def _window(x: Array, fill: int, stride: int, combine: Callable) -> Array:
    sizes, strides = (1, 3, 3, 1), (1, stride, stride, 1)
    start = jnp.asarray(fill, x.dtype)
    return lax.reduce_window(x, start, combine, sizes, strides, "SAME")


def _average(step: Step, own: Own, x: Array) -> Array:
    stride = step.options["stride"]
    # Behind a barrier, else the compiler would take long to count by itself.
    ones = lax.optimization_barrier(jnp.ones_like(x[:1]))
    count = _window(ones, 0, stride, lax.add)
    return fixed_point.mean(_window(x, 0, stride, lax.add), count)


def _largest(step: Step, own: Own, x: Array) -> Array:
    return _window(x, -(2**31), step.options["stride"], lax.max)


def _head(step: Step, own: Own, x: Array) -> Array:
    kind, bits = step.options["codes"]
    codes = _codes(x.astype(jnp.float32) * STEP, kind, bits)
    unit = 2.0 ** (1 - bits) if kind == "signed" else 1.0
    means = jnp.mean(codes * jnp.float32(unit), axis=(1, 2))
    kernel = jnp.asarray(own["kernel"], jnp.float32) * step.options.get("step", 1.0)
    return jnp.matmul(means, kernel, precision="highest")


SUMS = {"conv": _conv, "depthwise": _depthwise, "halve": _halve}
OTHERS = {
    "image": _image,
    "activate": _activate,
    "add": lambda step, own, x, y: x + y,
    "average": _average,
    "largest": _largest,
    "join": lambda step, own, *parts: jnp.concatenate(parts, -1),
    "head": _head,
}
