"""Trained networks as files that run without the code that trained them.

`export` folds a network for integers: kernels into planes of bits, norms into integer
thresholds where one activation reads them, and otherwise into a multiplier, a start and
a shift. `export_float` folds norms into kernels of float32, for comparison.
"""

import os
from typing import Any

import numpy as np

from enasq import fixed_point, packed_file, packing, thresholds
from enasq.blueprint import blueprint
from enasq.fixed import Fixed
from enasq.graph import Arrays, Graph, Step
from shared.errors import UsageError
from shared.model import Variables

INT16 = 2**15
WIDEST = 2**24


def export(
    net: Fixed, variables: Variables, path: str | os.PathLike, **facts: Any
) -> Graph:
    """Write a trained network as one packed file, and return what is in it.

    Args:
        net: from `fixed.describe`, of a deployable policy.
        variables: trained; running statistics are those of evaluation.
        path: of the file, which is replaced in one go.
        facts: `mean` and `std` of each channel, since the network reads
            (pixel - mean) / std; and `labels`, names of the classes, by default their
            numbers.

    Raises:
        UsageError: as `blueprint.blueprint`; if sums may pass what integers hold; or if
            the file cannot be written.
    """
    found = packed_graph(net, variables, **facts)
    packed_file.save(found, path)
    return found


def export_float(
    net: Fixed, variables: Variables, path: str | os.PathLike, **facts: Any
) -> Graph:
    """Write any network in float32, norms folded into kernels; arguments as above."""
    found = float_graph(net, variables, **facts)
    packed_file.save(found, path)
    return found


def packed_graph(net: Fixed, variables: Variables, **facts: Any) -> Graph:
    """Return a network with packed kernels; arguments as of `export`."""
    return fold(blueprint(net, variables, **facts))


def float_graph(net: Fixed, variables: Variables, **facts: Any) -> Graph:
    """Return a network in float32; arguments as of `export`."""
    plan = blueprint(net, variables, form="float", **facts)
    steps = tuple(step._replace(arrays=_in_float(step.arrays)) for step in plan.steps)
    return plan._replace(steps=steps)


def _in_float(arrays: Arrays) -> Arrays:
    """Multiply kernels by the factors of a norm, and make a bias of the rest."""
    if "factor" not in arrays:
        return arrays
    names = [name for name in arrays if name.startswith("kernel")]
    factors = np.split(arrays["factor"], len(names)) if len(names) > 1 else None
    found = {
        name: arrays[name] * (arrays["factor"] if factors is None else factors[i])
        for i, name in enumerate(names)
    }
    bias = arrays["offset"] - arrays["mean"] * arrays["factor"]
    both = found | {"bias": bias}
    return {name: value.astype(np.float32) for name, value in both.items()}


def fold(plan: Graph) -> Graph:
    """Turn a graph of form "exact" into one of form "packed"."""
    steps, limits = [], []
    for step in plan.steps:
        given = [limits[number] for number in step.inputs]
        folded, limit = _fold_step(step, given)
        if limit >= WIDEST:
            allowed = "sums that float32 holds, below 2^24"
            raise UsageError(step.name, f"nodes up to {limit} x 2^-8", allowed)
        steps.append(folded)
        limits.append(limit)
    return Graph("packed", plan.info, tuple(steps))


def _fold_step(step: Step, given: list[int]) -> tuple[Step, int]:
    """Return a step with packed kernels, and a bound of the nodes that it gives."""
    if step.op in ("conv", "halve", "depthwise"):
        return _fold_conv(step)
    if step.op == "head":
        return _fold_head(step), 0
    if step.op in ("image", "activate"):
        return step, 0
    limit = sum(given) if step.op == "add" else max(given)
    return _sized(step, limit), limit


def _sized(step: Step, limit: int, **options: Any) -> Step:
    """Return a step that tells how wide the nodes that it gives are."""
    kind = "int16" if limit < INT16 else "int32"
    return step._replace(options=step.options | options | {"dtype": kind})


def _fold_conv(step: Step) -> tuple[Step, int]:
    options = dict(step.options)
    kind, bits = options["weights"]
    bound, alpha = options.pop("bound"), options.pop("alpha")
    norm = thresholds.Affine(*(step.arrays[n] for n in thresholds.Affine._fields))
    pack = planes if step.op == "depthwise" else columns
    arrays = {
        name: pack(value, kind, bits)
        for name, value in step.arrays.items()
        if name.startswith("kernel")
    }
    sizes = [np.shape(value)[-2:] for n, value in step.arrays.items() if n in arrays]
    options |= {"inputs": sizes[0][0], "outputs": len(norm.mean)}
    if options.get("codes"):
        code = options["codes"]
        found = thresholds.fold_norm(norm, bound, *code, alpha=alpha)
        arrays["levels"] = narrow(np.asarray(found.levels))
        arrays["flipped"] = np.packbits(np.asarray(found.flipped))
        return step._replace(options=options, arrays=arrays), 0
    scale = fixed_point.scale_of(norm, bound, alpha=alpha)
    multiplier, start = np.asarray(scale.multiplier), np.asarray(scale.start)
    arrays |= {"multiplier": narrow(multiplier), "start": narrow(start)}
    reach = np.abs(multiplier.astype(np.int64)) * bound + np.abs(start.astype(np.int64))
    limit = int(reach.max() >> scale.shift) + 1
    folded = step._replace(options=options, arrays=arrays)
    return _sized(folded, limit, shift=scale.shift), limit


def planes(codes: np.ndarray, kind: str, bits: int) -> np.ndarray:
    """Return `packing.pack` of codes, without a compiler."""
    found = [np.asarray(plane) for plane in packing.bit_planes(codes, kind, bits)]
    tail = -codes.shape[-1] % packing.WORD
    bits_ = np.pad(np.stack(found), [(0, 0)] * codes.ndim + [(0, tail)])
    packed = np.ascontiguousarray(np.packbits(bits_, -1, "little"))
    return packed.view("<u4").astype(np.uint32)


def columns(kernel: np.ndarray, kind: str, bits: int) -> np.ndarray:
    """Return `packing.pack_columns` of a kernel, without a compiler."""
    words = np.moveaxis(planes(np.moveaxis(kernel, -1, -2), kind, bits), -2, -1)
    return np.ascontiguousarray(words.reshape(len(words), -1, kernel.shape[-1]))


def _fold_head(step: Step) -> Step:
    if "weights" not in step.options:
        return step
    kind, bits = step.options["weights"]
    kernel = step.arrays["kernel"]
    options = step.options | {"inputs": kernel.shape[0]}
    return step._replace(
        options=options, arrays={"kernel": columns(kernel, kind, bits)}
    )


def narrow(values: np.ndarray) -> np.ndarray:
    """Return integers in the smallest type that holds all of them."""
    for kind in (np.int8, np.int16):
        if np.all(values == values.astype(kind)):
            return values.astype(kind)
    return values.astype(np.int32)
