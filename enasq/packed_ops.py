"""The steps of packed networks: integers and bits alone, up to the classifier.

Values are laid out as in `enasq.planar`: channels or words first, images last.
"""

import functools
import math
import operator
from typing import Any

from jax import lax
from jax import numpy as jnp
from jaxtyping import Array

from enasq import (
    bit_conv,
    bit_depthwise,
    fixed_point,
    packing,
    planar,
    thresholds,
)
from enasq.graph import Step
from enasq.packing import Columns, Packed

Own = dict[str, Any]
Value = Array | Packed

DIRECT = 4
"""Products of planes for each tap, up to which depthwise stages stay packed."""


def image(step: Step, own: Own, images: Array) -> Array:
    """Return bytes as fixed-point codes."""
    m = 2 ** (step.options["bits"] - 1)
    x = jnp.moveaxis(images, (0, 3), (3, 0)).astype(jnp.float32)
    x = (x - planar.upright(own["mean"])) / planar.upright(own["std"])
    return jnp.clip(jnp.round(x * m), -m, m - 1)


def activate(step: Step, own: Own, node: Array) -> Packed:
    """Pack the codes of nodes."""
    kind, bits = step.options["codes"]
    planes = [planar.pack(plane) for plane in _planes(node, kind, bits)]
    return Packed(jnp.stack(planes), kind, node.shape[0])


def _planes(node: Array, kind: str, bits: int) -> list[Array]:
    one = 2**fixed_point.FRACTION
    if kind == "binary":
        return [node > 0]
    if kind == "ternary":
        low = node <= -one // 2
        return [(node > one // 2) | low, low]
    # To the nearest code, from halves to the even one.
    drop = fixed_point.FRACTION + 1 - bits
    wide = node.astype(jnp.int32)
    code = (wide + (2 ** (drop - 1) - 1) + ((wide >> drop) & 1)) >> drop
    low, high = packing.span(kind, bits)
    return packing.bit_planes(jnp.clip(code, low, high), kind, bits)


def conv_sums(step: Step, own: Own, x: Value) -> Array:
    """Return the sums of a convolution."""
    kernel = _columns(step, own["kernel"])
    if isinstance(x, Packed):
        return planar.product(x, kernel)
    return _image_sums(x, kernel, step.options["reads"][1])


def _columns(step: Step, planes: Array) -> Columns:
    kind, _ = step.options["weights"]
    window = step.options["window"]
    return Columns(planes, kind, step.options["inputs"], (window, window))


def _image_sums(x: Array, kernel: Columns, bits: int) -> Array:
    """Convolve few channels of many bits, in float32 where that is exact."""
    weights = packing.unpack_columns(kernel)
    reach = packing.span(kernel.kind, kernel.planes.shape[0])
    most = math.prod(weights.shape[:-1]) * max(map(abs, reach)) * 2 ** (bits - 1)
    kind = jnp.float32 if most < 2**24 else jnp.int32
    pads = bit_conv.pads_of("same", x.shape[1:3], kernel.window, 1)
    wide = jnp.pad(x.astype(kind), ((0, 0), *pads, (0, 0)))
    wide = lax.optimization_barrier(wide)
    none = ((0, 0), (0, 0))
    terms = [
        tap[c][None]
        * planar.upright(
            weights[t // kernel.window[1], t % kernel.window[1], c].astype(kind)
        )
        for t, tap in enumerate(bit_conv.taps(wide, kernel.window, 1, none))
        for c in range(x.shape[0])
    ]
    return functools.reduce(operator.add, terms).astype(jnp.int32)


def halve_sums(step: Step, own: Own, x: Packed) -> Array:
    """Return the sums of a factorised reduction."""
    planes = x.planes
    paths = (
        ("kernel_1", planes[..., ::2, ::2, :]),
        ("kernel_2", planes[..., 1::2, 1::2, :]),
    )
    parts = [
        planar.product(Packed(part, x.kind, x.length), _columns(step, own[name]))
        for name, part in paths
    ]
    return jnp.concatenate(parts)


def finish(step: Step, own: Own, acc: Array) -> Value:
    """Normalise sums: to nodes, or to codes by thresholds."""
    if step.options.get("codes"):
        return planar.codes_of_sums(_fold(step, own), acc)
    pair = (own[name].astype(jnp.int32) for name in ("multiplier", "start"))
    multiplier, start = map(planar.upright, pair)
    return ((acc * multiplier + start) >> step.options["shift"]).astype(
        step.options["dtype"]
    )


def _fold(step: Step, own: Own) -> thresholds.Thresholds:
    kind, bits = step.options["codes"]
    count = step.options["outputs"]
    flipped = jnp.unpackbits(own["flipped"], count=count).astype(bool)
    return thresholds.Thresholds(own["levels"].astype(jnp.int32), flipped, kind, bits)


def depthwise_sums(step: Step, own: Own, x: Packed) -> Packed | Array:
    """Return the sums of each channel, packed if few planes make them."""
    kind, _ = step.options["weights"]
    kernel = Packed(own["kernel"], kind, step.options["outputs"])
    stride = step.options["stride"]
    if x.planes.shape[0] * kernel.planes.shape[0] <= DIRECT:
        return planar.depthwise(x, kernel, stride)
    codes, weights = packing.unpack(planar.turned(x)), packing.unpack(kernel)
    total = bit_depthwise.depthwise_numbers(codes, weights, strides=stride)
    return jnp.moveaxis(total, (0, 3), (3, 0))


def depthwise_finish(step: Step, own: Own, sums: Packed | Array) -> Packed:
    """Turn the sums of channels into codes."""
    fold = _fold(step, own)
    if isinstance(sums, Packed) and fold.kind in ("binary", "ternary"):
        reached = planar.reach(fold.levels, fold.flipped, sums)
        return planar.codes_of_words(fold, reached, sums.length)
    if isinstance(sums, Packed):
        sums = jnp.moveaxis(packing.unpack(planar.turned(sums)), (0, 3), (3, 0))
    return planar.codes_of_sums(fold, sums)


def add(step: Step, own: Own, x: Array, y: Array) -> Array:
    """Add nodes."""
    kind = step.options["dtype"]
    return x.astype(kind) + y.astype(kind)


def average(step: Step, own: Own, x: Array) -> Array:
    """Return means of windows, rounded as `fixed_point.mean` does."""
    stride, kind = step.options["stride"], step.options["dtype"]
    total = planar.windows(x.astype(jnp.int32), 0, stride, operator.add)
    pads = bit_conv.pads_of("same", x.shape[1:3], (3, 3), stride)
    count = bit_conv.inside(x.shape[1:3], (3, 3), stride, pads).sum(-1)[
        None, :, :, None
    ]
    if kind == "int32":
        return fixed_point.mean(total, jnp.asarray(count))
    # A quarter step lies between the halves and what rounding may do to a quotient.
    near = total.astype(jnp.float32) + jnp.asarray(count / 2 + 0.25, jnp.float32)
    return jnp.floor(near * jnp.asarray(1 / count, jnp.float32)).astype(kind)


def largest(step: Step, own: Own, x: Array) -> Array:
    """Return the largest values of windows."""
    fill = int(jnp.iinfo(x.dtype).min)
    return planar.windows(x, fill, step.options["stride"], jnp.maximum)


def join(step: Step, own: Own, *parts: Array) -> Array:
    """Put nodes behind each other."""
    kind = step.options["dtype"]
    return jnp.concatenate([part.astype(kind) for part in parts])


def head(step: Step, own: Own, node: Array) -> Array:
    """Activate, add up all positions, classify."""
    kind, bits = step.options["codes"]
    planes = _planes(node, kind, bits)
    codes = packing.from_bit_planes(planes, kind)
    total = jnp.sum(codes, axis=(1, 2), dtype=jnp.int32).T
    unit = 2.0 ** (1 - bits) if kind == "signed" else 1.0
    means = total.astype(jnp.float32) * jnp.float32(
        unit / (node.shape[1] * node.shape[2])
    )
    kernel = own["kernel"]
    if "weights" in step.options:
        code, _ = step.options["weights"]
        columns = Columns(kernel, code, step.options["inputs"])
        kernel = packing.unpack_columns(columns)[0, 0].astype(jnp.float32)
        kernel = kernel * jnp.float32(step.options["step"])
    return jnp.matmul(means, kernel, precision="highest")


def step_of(step: Step, own: Own, given: list[Any]) -> tuple[Any, Any]:
    """Run a step; return its value, and its sums if it convolves."""
    if step.op in SUMS:
        sums, end = SUMS[step.op]
        acc = sums(step, own, given[0])
        return end(step, own, acc), acc
    return OTHERS[step.op](step, own, *given), None


SUMS = {
    "conv": (conv_sums, finish),
    "halve": (halve_sums, finish),
    "depthwise": (depthwise_sums, depthwise_finish),
}
OTHERS = {
    "image": image,
    "activate": activate,
    "add": add,
    "average": average,
    "largest": largest,
    "join": join,
    "head": head,
}
