"""What an exported network holds and does, layer by layer."""

import math
import os
from typing import Any, NamedTuple

from enasq import packed_file, packing
from enasq.graph import Graph, Step

HEADS = ("layer", "kind", "bytes", "multiply-accumulates", "bit-operations")


class Layer(NamedTuple):
    """One step that has weights.

    Attributes:
        name: where it stands.
        kind: conv, halve (a factorised reduction), depthwise or head.
        stored: bytes of its arrays, before compression.
        macs: multiply-accumulates for one image.
        bit_operations: those times the bits of a weight and of what it meets; none of
            the classifier.
    """

    name: str
    kind: str
    stored: int
    macs: int
    bit_operations: int


def describe(path: str | os.PathLike) -> str:
    """Return a table of an exported network's layers, with totals and the file's size.

    Raises:
        UsageError: as `packed_file.load`.
    """
    graph = packed_file.load(path)
    found = layers(graph)
    rows = [HEADS, *([*map(_text, layer)] for layer in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(_aligned(row, widths)).rstrip() for row in rows]
    totals = [sum(column) for column in list(zip(*found, strict=True))[2:]]
    labels = ", ".join(graph.info["labels"])
    height, width, channels = graph.shape
    below = [
        f"{graph.form} network for images of {height}x{width}x{channels}: {labels}",
        f"{os.path.getsize(path):,} bytes of file, {totals[0]:,} of weights and norms",
        f"{totals[1]:,} multiply-accumulates, {totals[2]:,} bit-operations",
    ]
    return "\n".join([*lines, "", *below])


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else value


def _aligned(row: Any, widths: list[int]) -> list[str]:
    return [
        text.ljust(width) if place < 2 else text.rjust(width)
        for place, (text, width) in enumerate(zip(row, widths, strict=True))
    ]


def layers(graph: Graph) -> list[Layer]:
    """Return the layers of a network of form "packed" or "float"."""
    sizes, found = [], []
    for step in graph.steps:
        size = graph.info["size"] if not step.inputs else sizes[step.inputs[0]]
        stride = 2 if step.op == "halve" else step.options.get("stride", 1)
        sizes.append(-(-size // stride))
        if any(name.startswith("kernel") for name in step.arrays):
            found.append(_layer(step, sizes[-1]))
    return found


def _layer(step: Step, size: int) -> Layer:
    stored = sum(value.nbytes for value in step.arrays.values())
    kernels = [v for k, v in step.arrays.items() if k.startswith("kernel")]
    options = step.options
    if step.op == "head":
        outputs = kernels[0].shape[-1]
        macs = options.get("inputs", kernels[0].shape[-2]) * outputs
        return Layer(step.name, step.op, stored, macs, 0)
    if "window" in options:
        window, outputs = options["window"] ** 2, options["outputs"]
        weights = (
            window * outputs * (1 if step.op == "depthwise" else options["inputs"])
        )
    else:
        weights = sum(math.prod(kernel.shape) for kernel in kernels)
    macs = weights * size**2
    bits = [
        packing.planes_of(*options[k]) if k in options else 32
        for k in ("weights", "reads")
    ]
    return Layer(step.name, step.op, stored, macs, macs * bits[0] * bits[1])
