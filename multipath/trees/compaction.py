"""Batches moved by route: each stage of a network on the images that reach it alone.

Images are held in pieces of few sizes, so that little is compiled and little computed
for nothing. On a CPU pieces are small enough for the cache, which makes convolutions
faster for each image than the whole batch at once would be.
"""

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from multipath.trees import layers
from multipath.trees import net as networks
from multipath.trees.graph import layout
from multipath.trees.net import Net
from multipath.trees.stages import (
    Outcome,
    Stage,
    run_stage,
    stages,
    stop_of,
    variables_of,
)
from shared.model import Variables

CACHE = 2**24
"""Bytes of signal that a piece may take on a CPU."""

PIECE = 64
"""Most images of a piece on a CPU."""

STEP = 8
"""Pieces of more images than this have a multiple of it."""


class Pieces(NamedTuple):
    """Signals of images in order.

    Attributes:
        signals: trees of arrays `[size, ...]`; None has no rows. Those of `gather` are
            made as they are read, once, so that a piece moves while the one before it
            is computed.
        counts: how many rows of each are images; the others fill it up.
    """

    signals: Iterable[Any]
    counts: list[int]


class Task(NamedTuple):
    """One member of a stage, ready to run.

    Attributes:
        run: `(pieces) -> [Outcome]`, which need not have been computed yet.
        limit: most images of a piece; None for no limit.
    """

    run: Callable[[Pieces], list[Outcome]]
    limit: int | None


def default_how() -> str:
    """Return how images are moved: on the host where it shares memory with JAX."""
    return "host" if jax.default_backend() == "cpu" else "device"


def make_tasks(
    net: Net, variables: Variables, rule: str | None, levels: np.ndarray, how: str
) -> dict[tuple[int, int], Task]:
    """Return the tasks of a network by stage and member, each before those after it.

    Args:
        net: which network.
        variables: from `net.init`.
        rule: of the thresholds, None for the routers' own choice.
        levels: thresholds by node.
        how: `host` or `device`.
    """
    tasks = {}
    largest = _largest_signals(net)
    for number, stage in enumerate(stages(net.root)):
        program = _program(net, number, rule)
        limit = None if how == "device" else _limit(largest[number])
        for member, last in enumerate(stage.members[-1]):
            own = variables_of(net, variables, stage, member, rule)
            run = functools.partial(_run, program, own, float(levels[last]))
            tasks[number, member] = Task(run, limit)
    return tasks


def _run(
    program: Callable, own: list[Variables], threshold: float, pieces: Pieces
) -> list[Outcome]:
    return [program(own, signal, threshold) for signal in pieces.signals]


@functools.lru_cache(maxsize=256)
def _program(net: Net, number: int, rule: str | None) -> Callable:
    """Return a stage, compiled for each size of pieces that comes."""
    stage = stages(net.root)[number]

    def run(own: list[Variables], x: tuple, threshold: Any) -> Outcome:
        signal, price = x
        out = run_stage(net, stage, rule, own, signal, price, threshold)
        # The price stays with its image.
        return out if out.choice is None else out._replace(signal=(out.signal, price))

    return jax.jit(run)


def run_tasks(
    net: Net, tasks: dict[tuple[int, int], Task], x: Any, how: str
) -> tuple[np.ndarray, np.ndarray]:
    """Run a batch through a network.

    Args:
        net: which network.
        tasks: from `make_tasks`.
        x: images, and the prices as inputs or None, with rows in common.
        how: `host` or `device`.

    Returns:
        Probabilities `[batch, classes]`, and the number of the node that each image
        ended at `[batch]`.
    """
    batch, probabilities = len(x[0]), None
    ends = np.zeros(batch, int)
    if not batch:
        return np.zeros((0, networks.outputs(net)), x[0].dtype), ends
    whole = Pieces([x], [batch])
    waiting = {(0, 0): (np.arange(batch), whole, np.arange(batch))}
    every, sinks = stages(net.root), layout(net.root).sinks

    def end(node: int, rows: np.ndarray, found: np.ndarray) -> None:
        nonlocal probabilities
        if probabilities is None:
            probabilities = np.zeros((batch, *found.shape[1:]), found.dtype)
        probabilities[rows], ends[rows] = found, node

    for (number, member), task in tasks.items():
        if (number, member) not in waiting:
            continue
        rows, source, kept = waiting.pop((number, member))
        stage = every[number]
        pieces = gather(source, kept, task.limit, how)
        outs = task.run(pieces)
        last = stage.members[-1][member]
        if not stage.sinks:
            end(last, rows, _joined([out.probabilities for out in outs], pieces))
            continue
        signals = Pieces([out.signal for out in outs], pieces.counts)
        choice = _joined([out.choice for out in outs], pieces)
        stop = None if outs[0].probabilities is None else stop_of(stage.nodes[-1])
        for position, target in enumerate(stage.sinks):
            chosen = np.flatnonzero(choice == position)
            if not chosen.size:
                continue
            if position == stop:
                found = _joined([out.probabilities for out in outs], pieces)
                end(sinks[last][position], rows[chosen], found[chosen])
            else:
                key = target, stage.places[member][position]
                waiting[key] = rows[chosen], read_by(every[target], signals), chosen
    assert probabilities is not None
    return probabilities, ends


def read_by(stage: Stage, source: Pieces) -> Pieces:
    """Leave out the scales that a stage does not read: they need not be moved."""

    def cut(signal: Any, price: Any) -> tuple:
        if not isinstance(signal, tuple):
            return signal, price
        read = layers.scales_read(stage.nodes[0].chain, len(signal))
        return (None,) * (len(signal) - read) + signal[-read:], price

    return source._replace(signals=[cut(*signal) for signal in source.signals])


def gather(source: Pieces, rows: np.ndarray, limit: int | None, how: str) -> Pieces:
    """Return some images in pieces of at most `limit`.

    Args:
        source: where they are.
        rows: which ones, ascending.
        limit: most images of a piece; None for no limit.
        how: `host` or `device`.
    """
    counts = _counts(len(rows), limit)
    sizes = [padded(count, limit) for count in counts]
    if counts == source.counts and sizes == _sizes(source):
        return source
    ends = list(itertools.accumulate(counts))
    parts = [rows[b - n : b] for b, n in zip(ends, counts, strict=True)]
    take = _take_on_device if how == "device" else _take_on_host
    taken = (take(source, *part) for part in zip(parts, sizes, strict=True))
    return Pieces(taken, counts)


def padded(count: int, limit: int | None) -> int:
    """Return the size of a piece of so many images.

    Powers of two up to `STEP` and then its multiples, or without a limit powers of two
    throughout.
    """
    if limit is None or count <= STEP:
        size = 2 ** (count - 1).bit_length()
    else:
        size = -(-count // STEP) * STEP
    return size if limit is None else min(size, limit)


def _counts(total: int, limit: int | None) -> list[int]:
    if limit is None:
        return [total]
    full, rest = divmod(total, limit)
    return [limit] * full + [rest] * bool(rest)


def _take_on_host(source: Pieces, rows: np.ndarray, size: int) -> Any:
    """Copy images into arrays of so many rows, filled up with the first."""
    starts = np.cumsum([0, *source.counts])
    cuts = np.searchsorted(rows, starts)
    local = [
        (signal, rows[a:b] - start)
        for signal, a, b, start in zip(
            source.signals, cuts, cuts[1:], starts, strict=False
        )
        if a < b
    ]
    signals, own = zip(*local, strict=True)

    def moved(*arrays: Any) -> np.ndarray:
        # On a CPU neither this nor giving the result to JAX copies anything more.
        views = [np.asarray(array) for array in arrays]
        out = np.empty((size, *views[0].shape[1:]), views[0].dtype)
        at = 0
        for view, rows in zip(views, own, strict=True):
            np.take(view, rows, 0, out=out[at : at + rows.size], mode="clip")
            at += rows.size
        out[at:] = out[0]
        return out

    return jax.tree.map(moved, *signals)


def _take_on_device(source: Pieces, rows: np.ndarray, size: int) -> Any:
    index = np.zeros(size, np.int32)
    index[: len(rows)] = _in_padded(source, rows)
    return _take(list(source.signals), index)


@jax.jit
def _take(signals: list[Any], index: Array) -> Any:
    join = lambda *arrays: jnp.concatenate(arrays)[index]
    return jax.tree.map(join, *signals)


def _in_padded(source: Pieces, rows: np.ndarray) -> np.ndarray:
    """Return where rows of images are if the filling is counted too."""
    which = np.searchsorted(np.cumsum(source.counts), rows, "right")
    shift = np.cumsum([0, *_sizes(source)])[:-1] - np.cumsum([0, *source.counts])[:-1]
    return rows + shift[which]


def _sizes(source: Pieces) -> list[int]:
    """Return how many rows each piece has, the filling included."""
    return [len(jax.tree.leaves(signal)[0]) for signal in source.signals]


def _joined(values: list[Any], pieces: Pieces) -> np.ndarray:
    pairs = zip(values, pieces.counts, strict=True)
    return np.concatenate([np.asarray(value)[:count] for value, count in pairs])


def _limit(size: int) -> int:
    """Return how many images of so many bytes make a piece."""
    fitting = max(min(CACHE // size, PIECE), STEP)
    return 2 ** (fitting.bit_length() - 1)


@functools.lru_cache(maxsize=64)
def _largest_signals(net: Net) -> list[int]:
    """Return the bytes of the largest signal inside each stage, for one image."""
    plan = layout(net.root)
    make = lambda key: networks.node_variables(net, networks.init(key, net))
    own = jax.eval_shape(make, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, *net.image), jnp.result_type(float))
    signals: dict[int, Any] = {-1: image}
    largest = []
    for stage in stages(net.root):
        sizes = []
        for node, members in zip(stage.nodes, stage.members, strict=True):
            first = members[0]
            params, state = own[plan.paths[first]]
            before = signals[plan.parents[first]]
            x = layers.shapes(node.chain, params, state, before)
            signals.update(dict.fromkeys(members, x))
            sizes.append(sum(leaf.size * 4 for leaf in jax.tree.leaves(x)))
        largest.append(max(sizes))
    return largest
