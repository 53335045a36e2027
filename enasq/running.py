"""Run exported networks: images in, labels out. Nothing that trains is needed."""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Float32, Int, UInt8

from enasq import bitwise, float_ops, packed_file, packed_ops
from enasq.graph import Graph
from shared.errors import UsageError

STEPS = {"packed": packed_ops.step_of, "float": float_ops.step_of}


class Answer(NamedTuple):
    """What a network says of images.

    Attributes:
        labels: numbers of the classes.
        logits: of all classes.
    """

    labels: Int[np.ndarray, " n"]
    logits: Float32[np.ndarray, "n classes"]


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
    """A network that is ready to run."""

    graph: Graph

    @functools.cached_property
    def arrays(self) -> list[dict[str, Array]]:
        """Weights on the device."""
        steps = self.graph.steps
        return [{k: jnp.asarray(v) for k, v in step.arrays.items()} for step in steps]

    @functools.cached_property
    def program(self) -> Callable:
        """(weights, images, true) -> logits, compiled for each size of a batch."""
        cpu = jax.default_backend() == "cpu"
        wide = cpu and self.graph.form == "packed"
        run = functools.partial(_guarded if cpu else _plainly, self.graph)
        return jax.jit(run, compiler_options=bitwise.WIDE if wide else None)

    def logits(self, images: Array) -> Array:
        """Return the logits of a batch."""
        return self.program(self.arrays, images, np.True_)


def _plainly(graph: Graph, arrays: list[Any], images: Array, go: Array) -> Array:
    del go
    return trace(graph, arrays, images).logits


def _guarded(graph: Graph, arrays: list[Any], images: Array, go: Array) -> Array:
    """Run every step under a condition that is always true.

    On CPUs the compiler would rather compute nodes again in each step that reads them
    than read them; it does not look through conditions.
    """
    values: list[Any] = []
    for step, own in zip(graph.steps, arrays, strict=True):
        given = [values[i] for i in step.inputs] or [images]
        run = lambda own, given, step=step: STEPS[graph.form](step, own, given)[0]
        nothing = lambda own, given, run=run: jax.tree.map(
            jnp.zeros_like, run(own, given)
        )
        values.append(jax.lax.cond(go, run, nothing, own, given))
    return values[-1]


def load(path: str | os.PathLike) -> Loaded:
    """Read an exported network; raises a UsageError as `packed_file.load` does."""
    return Loaded(packed_file.load(path))


def run_packed(
    network: str | os.PathLike | Loaded,
    images: UInt8[np.ndarray, "n h w c"] | Any,
    *,
    batch: int = 256,
) -> Answer:
    """Classify images by an exported network.

    Args:
        network: the file, or what `load` returns: that keeps its compiled programs.
        images: bytes, of the size and the channels that the network was trained for.
        batch: images at a time; the last ones are filled up to a power of two.

    Raises:
        UsageError: for a file that cannot be used, for other images, or batch < 1.
    """
    found = network if isinstance(network, Loaded) else load(network)
    shape = found.graph.shape
    given = np.asarray(images)
    if given.dtype != np.uint8 or given.ndim != 4 or given.shape[1:] != shape:
        allowed = f"uint8 of shape (n, {', '.join(map(str, shape))})"
        raise UsageError("images", f"{given.dtype} of shape {given.shape}", allowed)
    if batch < 1:
        raise UsageError("batch", batch, "an integer >= 1")
    parts = [
        _some(found, given[i : i + batch], batch) for i in range(0, len(given), batch)
    ]
    classes = found.graph.info["classes"]
    logits = np.concatenate([np.zeros((0, classes), np.float32), *parts])
    return Answer(np.argmax(logits, -1), logits)


def _some(found: Loaded, images: np.ndarray, batch: int) -> np.ndarray:
    size = min(batch, 1 << (len(images) - 1).bit_length())
    fill = [(0, size - len(images))] + [(0, 0)] * 3
    logits = found.logits(jnp.asarray(np.pad(images, fill)))
    return np.asarray(logits)[: len(images)]


class Trace(NamedTuple):
    """All that a packed network computes.

    Attributes:
        logits: of the classes.
        values: of every step: nodes, or codes as `packing.Packed`.
        sums: of the steps that convolve, None of others.
    """

    logits: Array
    values: list[Any]
    sums: list[Any]


def trace(graph: Graph, arrays: list[Any], images: Array) -> Trace:
    """Return what every step computes; a pure function of arrays and images."""
    values, sums = [], []
    for step, own in zip(graph.steps, arrays, strict=True):
        given = [values[i] for i in step.inputs] or [images]
        value, acc = STEPS[graph.form](step, own, given)
        values.append(value)
        sums.append(acc)
    return Trace(values[-1], values, sums)
