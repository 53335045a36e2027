"""Claim: an exported binary network is faster than its float32 twin.

Whole networks for MNIST (32x32 grey images, the published sizes: 6 layers, 16 filters,
5 blocks and the published architecture; and wider ones), from bytes to logits. The twin
is the same cell with rectifiers in float32, norms folded, and the fastest float form of
every kind of step found in the same run. Seconds of the twin over seconds of ours, in
turn and in one run; the least time of each is kept.

- at least 2x at batch 256, and no slower at batch 1, for the published size.

Exit status 1 if a ratio is too low.

    python -m benchmarks.enasq_packed [--repeats 10] [--filters 16 32 64]
        [--batches 256 1]
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.mask_step import least
from enasq import cell, export, fixed, float_ops, plan, policy, running
from enasq.graph import Graph
from shared.model import Variables

LAYERS, BLOCKS, SIZE = 6, 5, 32
ARCHITECTURE = (
    "1 2 0 0 1 1 0 1 1 1 0 0 1 1 1 3 0 1 1 0 1 4 1 1 2 0 1 3 1 3 1 2 1 0 1 0 3 1 1 0"
)
LEAST = {256: 2.0, 1: 1.0}
PUBLISHED = 16
IMAGE = {"mean": [128.0], "std": [128.0]}


def described(name: str, filters: int) -> fixed.Fixed:
    """Return the network of a policy."""
    network = plan.Network("fixed", LAYERS, filters, BLOCKS, SIZE, 1)
    return fixed.describe(network, policy.preset(name), cell.parse(ARCHITECTURE))


def variables_of(net: fixed.Fixed) -> Variables:
    """Return random variables, with norms as after training."""
    shapes = jax.eval_shape(lambda key: fixed.init(net, key), jax.random.key(0))
    rng = np.random.default_rng(0)

    def drawn(path, leaf):
        shape, name = leaf.shape, path[-1].key
        if name == "kernel":
            return np.float32(rng.uniform(-1, 1, shape))
        if name in ("scale", "var"):
            low = rng.uniform(0.5, 2, shape)
            return np.float32(low * (1 if name == "scale" else 9))
        return np.float32(rng.normal(size=shape))

    return jax.tree_util.tree_map_with_path(drawn, shapes)


def exported(filters: int) -> tuple[Graph, Graph]:
    """Return a packed network and its twin."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "packed.npz"), Path(folder, "float.npz")
        net, twin = described("deployable", filters), described("float", filters)
        export.export(net, variables_of(net), ours, **IMAGE)
        export.export_float(twin, variables_of(twin), theirs, **IMAGE)
        sizes = [path.stat().st_size for path in (ours, theirs)]
        print(f"{filters} filters: files of {sizes[0]:,} and {sizes[1]:,} bytes")
        return running.load(ours).graph, running.load(theirs).graph


def images_of(batch: int) -> jax.Array:
    """Return random bytes."""
    shape = batch, SIZE, SIZE, 1
    return jnp.asarray(np.random.default_rng(1).integers(0, 256, shape), jnp.uint8)


def compiled(fn: Callable, options: Any, *arguments: Any) -> Callable[[], Any]:
    """Compile a program and return what runs it once."""
    program = jax.jit(fn, compiler_options=options).lower(*arguments).compile()
    return lambda: jax.block_until_ready(program(*arguments))


def arrays_of(graph: Graph) -> list[Any]:
    """Return the weights on the device."""
    return [{k: jnp.asarray(v) for k, v in s.arrays.items()} for s in graph.steps]


def packed_run(graph: Graph, images: jax.Array) -> Callable[[], Any]:
    """Return what runs a packed network, compiled."""
    loaded = running.Loaded(graph)
    jax.block_until_ready(loaded.logits(images))
    return lambda: jax.block_until_ready(loaded.logits(images))


def shapes_of(graph: Graph, images: jax.Array) -> list[Any]:
    """Return the shapes of all values."""
    fn = lambda arrays, x: running.trace(graph, arrays, x).values
    return jax.eval_shape(fn, arrays_of(graph), images)


def fastest_forms(graph: Graph, images: jax.Array, repeats: int) -> list[str | None]:
    """Return the fastest form of each step by itself; equal steps are timed once."""
    values, arrays, known = shapes_of(graph, images), arrays_of(graph), {}
    found = []
    for step, own in zip(graph.steps, arrays, strict=True):
        forms = float_ops.FORMS.get(step.op)
        if forms is None:
            found.append(None)
            continue
        shape = values[step.inputs[0]].shape
        kernels = tuple((k, v.shape) for k, v in own.items())
        label = step.op, shape, kernels, step.options.get("stride")
        if label not in known:
            x = jnp.ones(shape, jnp.float32)
            runs = {
                how: compiled(
                    lambda own, x, step=step, how=how: float_ops.step_of(
                        step, own, [x], how
                    )[0],
                    None,
                    own,
                    x,
                )
                for how in forms
            }
            seconds = least(runs, repeats)
            known[label] = min(seconds, key=lambda how: seconds[how])
        found.append(known[label])
    return found


def float_run(
    graph: Graph, images: jax.Array, forms: list, *, guarded: bool
) -> Callable[[], Any]:
    """Return what runs a twin, each step in a given form.

    Guarded as packed networks are, no step is computed again for another one; which
    way is faster depends on the size of the batch.
    """

    def fn(arrays, x, go):
        values: list[Any] = []
        steps = zip(graph.steps, arrays, forms, strict=True)
        for step, own, how in steps:
            given = [values[i] for i in step.inputs] or [x]
            run = lambda own, given, step=step, how=how: float_ops.step_of(
                step, own, given, how
            )[0]
            nothing = lambda own, given, run=run: jnp.zeros_like(run(own, given))
            values.append(
                jax.lax.cond(go, run, nothing, own, given)
                if guarded
                else run(own, given)
            )
        return values[-1]

    return compiled(fn, None, arrays_of(graph), images, np.True_)


def main() -> int:
    """Print the ratios; return 1 if one is too low."""
    parser = argparse.ArgumentParser(description="Time exported networks.")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--filters", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 1])
    options = parser.parse_args()
    low = False
    for filters in options.filters:
        packed, twin = exported(filters)
        for batch in options.batches:
            images = images_of(batch)
            forms = fastest_forms(twin, images, 3)
            start = time.perf_counter()
            runs = {"packed": packed_run(packed, images)}
            built = time.perf_counter() - start
            for guarded in (False, True):
                name = f"float32{', guarded' if guarded else ''}"
                runs[name] = float_run(twin, images, forms, guarded=guarded)
            seconds = least(runs, options.repeats)
            ours_takes = seconds.pop("packed")
            float_takes = min(seconds.values())
            ratio = float_takes / ours_takes
            needed = LEAST.get(batch) if filters == PUBLISHED else None
            low |= needed is not None and ratio < needed
            words = f"at least {needed:.2f}" if needed else ""
            print(
                f"{filters} filters, batch {batch}: {1e3 * ours_takes:.2f} ms, "
                f"float32 {1e3 * float_takes:.2f} ms, {ratio:.2f}x  {words} "
                f"(compiled in {built:.0f} s)",
                flush=True,
            )
    return int(low)


if __name__ == "__main__":
    raise SystemExit(main())
