"""Multi-task image sets: images, and what is asked about each.

An image may be shown under several tasks. It is stored once, as bytes, with a label
and a task for each of its slots; a row is one slot of one image, and batches are made
of rows. Pixels become numbers when a batch is drawn.

Reference: Rosenbaum et al. (2018), section 4.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, UInt8

from multipath.routing_networks import questions
from multipath.routing_networks.questions import Questions
from shared import data as sources
from shared.data import batching
from shared.errors import UsageError, check_choice, check_range

SCALES = ("standard", "unit", "raw")
DRAW_SEED = 0
"""Seed of what is held out and of what is left out: every run has the same."""


class TaskSplit(NamedTuple):
    """Images, and what is asked about each of them.

    Attributes:
        images: pixels as stored.
        labels: of each slot of an image.
        tasks: of each slot of an image, all different.
    """

    images: UInt8[Array, "n h w c"]
    labels: Int32[Array, "n slots"]
    tasks: Int32[Array, "n slots"]


class Batch(NamedTuple):
    """Rows to learn from or to be asked.

    Attributes:
        images: ready for a network.
        labels, tasks: of each row. There are as many rows as images, or so many times
            more: row r then belongs to image `r // (rows / n)`.
    """

    images: Float[Array, "n h w c"]
    labels: Int32[Array, " rows"]
    tasks: Int32[Array, " rows"]


@jax.tree_util.register_static
@dataclass(frozen=True)
class TaskInfo:
    """Facts about a loaded set.

    Attributes:
        name: what the user typed.
        tasks: their names.
        classes: names of the labels of each task; "" for a label that no class has.
        outputs: labels of a task, the most of all tasks.
        shape: height, width and channels of an image.
        mean, std: images are (pixels - mean) / std, by channel.
        rows: of training (those chosen), validation and test.
        source: what is known of the images.
    """

    name: str
    tasks: tuple[str, ...]
    classes: tuple[tuple[str, ...], ...]
    outputs: int
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rows: sources.Counts
    source: sources.Info


class TaskData(NamedTuple):
    """A set on the device.

    Attributes:
        train, valid, test: its parts; `valid` may be empty.
        chosen: the rows of `train` to learn from; row r is slot `r % slots` of image
            `r // slots`.
        info: facts.
    """

    train: TaskSplit
    valid: TaskSplit
    test: TaskSplit
    chosen: Int32[Array, " rows"]
    info: TaskInfo


@dataclass(frozen=True)
class _Recipe:
    """How a set is made: source, enlargement, questions, whether yes or no."""

    source: str
    questions: Callable[[str], Questions]
    enlarge: int = 1
    binary: bool = False


def load(
    name: str,
    data_dir: str | os.PathLike | None = None,
    *,
    labels: str = "rank",
    scale: str = "standard",
    valid_fraction: float | int = 0.1,
    balance: bool = False,
    per_task: int = 0,
    tasks: int = 0,
) -> TaskData:
    """Load a multi-task set onto the device.

    Args:
        name: `cifar100_mtl` (20 superclasses of 5 classes), `mnist_mtl` and
            `digits_mtl` (is it this digit? ten times), or `digits_mtl_permuted` (which
            digit is it? each task has its own names for the ten). The digits need no
            files.
        data_dir: the directory with `cifar-100-binary/`, `mnist/`, ...
        labels: of cifar100_mtl: "rank" among the classes of a superclass, or "mod5",
            the class number modulo 5 as in the published program, which gives several
            classes of a superclass one label.
        scale: "standard" (mean 0 and deviation 1 of each channel), "unit" (0 to 1) or
            "raw" (as stored).
        valid_fraction: share of the training images of each class held out for
            validation, in [0, 1).
        balance: learn from as many negatives as positives, drawn once and for all
            (yes-or-no sets only).
        per_task: rows of each task to learn from, drawn once and for all; 0 for all.
        tasks: keep so many, the first ones; 0 for all.

    Raises:
        UsageError: for an unknown name or option, files that are missing or damaged,
            or more rows or tasks than there are.
    """
    check_choice("dataset", name, SETS)
    _check(name, labels, scale, valid_fraction, balance)
    recipe = SETS[name]
    asked = questions.first_tasks(recipe.questions(labels), tasks)
    found = sources.load(recipe.source, data_dir)
    kept, held = _held_out(np.asarray(found.train.labels), valid_fraction)
    make = lambda part, rows: _split(part, rows, asked, recipe.enlarge)
    train, valid = make(found.train, kept), make(found.train, held)
    test = make(found.test, np.arange(found.info.counts.test))
    if not train.images.size:
        raise UsageError("tasks", tasks, "tasks of which there are training images")
    chosen = _chosen(train, len(asked.names), balance, per_task)
    counts = sources.Counts(len(chosen), valid.labels.size, test.labels.size)
    info = _info(name, asked, train.images.shape[1:], scale, counts, found.info)
    return TaskData(train, valid, test, jnp.asarray(chosen, jnp.int32), info)


def _check(
    name: str,
    labels: str,
    scale: str,
    valid_fraction: float | int,
    balance: bool,
) -> None:
    """Check the options of `load` that need no data."""
    check_choice("labels", labels, questions.LABELS)
    check_choice("scale", scale, SCALES)
    check_range("valid_fraction", valid_fraction, low=0, high=1, high_open=True)
    if labels != "rank" and name != "cifar100_mtl":
        raise UsageError("labels", labels, f"rank, for {name}")
    if balance and not SETS[name].binary:
        yes_or_no = ", ".join(n for n, recipe in SETS.items() if recipe.binary)
        raise UsageError("balance", balance, f"False, or one of {yes_or_no}")


def batches(
    sets: TaskData,
    size: int,
    *,
    stratify: bool = False,
    augment: batching.Augment | None = None,
) -> batching.Batches:
    """Draw batches from `(sets.train, sets.chosen)`.

    Args:
        sets: from `load`; its info and its number of rows are read.
        size: rows of a batch.
        stratify: batches hold equally many rows of each task, sorted by task, drawn
            with replacement; otherwise every row comes once an epoch.
        augment: `(key, batch) -> batch`, applied to each.

    Raises:
        UsageError: if there are fewer rows than `size`, or `size` does not divide into
            the tasks.
    """
    inner = batching.epochs(len(sets.chosen), size)
    if stratify:
        inner = _stratified(sets, size)

    def take(arrays, plan, index, key):
        row_key, augment_key = jax.random.split(key)
        split, chosen = arrays
        rows = inner.take(chosen, plan, index, row_key)
        batch = select(split, rows, sets.info)
        return batch if augment is None else augment(augment_key, batch)

    return inner._replace(take=take)


def _stratified(sets: TaskData, size: int) -> batching.Batches:
    count = len(sets.info.tasks)
    if size < 1 or size % count:
        raise UsageError("batch_size", size, f"a multiple of the {count} tasks")
    owner = np.asarray(sets.train.tasks).ravel()[np.asarray(sets.chosen)]
    totals = np.bincount(owner, minlength=count)
    if not totals.all():
        empty = sets.info.tasks[int(np.argmin(totals))]
        raise UsageError("stratify", True, f"False, since {empty} has no rows")
    order, starts = np.argsort(owner, kind="stable"), np.cumsum(totals) - totals

    def take(chosen, plan, index, key):
        del plan, index
        shape = (count, size // count)
        drawn = jax.random.randint(key, shape, 0, jnp.asarray(totals)[:, None])
        return chosen[jnp.asarray(order)[drawn + jnp.asarray(starts)[:, None]].ravel()]

    per_epoch = max(len(owner) // size, 1)
    return batching.Batches(size, per_epoch, lambda key, epoch, hyper: (), take)


def select(split: TaskSplit, rows: Int[Array, " rows"], info: TaskInfo) -> Batch:
    """Return some rows as a batch, with an image for each.

    Args:
        split: images and questions.
        rows: row r is slot `r % slots` of image `r // slots`.
        info: of the set.
    """
    slots = split.tasks.shape[1]
    images = jnp.take(split.images, rows // slots, axis=0)
    labels, tasks = (jnp.take(a.ravel(), rows) for a in (split.labels, split.tasks))
    return Batch(scaled(images, info), labels, tasks)


def every_row(split: TaskSplit, info: TaskInfo) -> Batch:
    """Return all rows of a split, or of a part of it; each image stands there once."""
    images = scaled(split.images, info)
    return Batch(images, split.labels.ravel(), split.tasks.ravel())


def scaled(images: UInt8[Array, "n h w c"], info: TaskInfo) -> Float[Array, "n h w c"]:
    """Return (pixels - mean) / std."""
    dtype = jnp.result_type(float)
    mean, std = (
        jnp.asarray(v, dtype).reshape(1, 1, 1, -1) for v in (info.mean, info.std)
    )
    return (images.astype(dtype) - mean) / std


SETS: dict[str, _Recipe] = {
    "cifar100_mtl": _Recipe("cifar100", questions.superclasses),
    "mnist_mtl": _Recipe("mnist", questions.one_versus_rest, binary=True),
    "digits_mtl": _Recipe("digits", questions.one_versus_rest, enlarge=2, binary=True),
    "digits_mtl_permuted": _Recipe("digits", questions.permuted, enlarge=2),
}
"""Sets by name, and how they are made."""


def _split(part: Any, rows: np.ndarray, asked: Questions, enlarge: int) -> TaskSplit:
    """Return the images of some rows about which something is asked."""
    classes = np.asarray(part.labels)[rows]
    kept = asked.tasks[classes, 0] >= 0
    classes, rows = classes[kept], rows[kept]
    images = np.asarray(part.images)[rows]
    images = images.repeat(enlarge, 1).repeat(enlarge, 2)
    labels, tasks = asked.labels[classes], asked.tasks[classes]
    return TaskSplit(
        jnp.asarray(images),
        jnp.asarray(labels, jnp.int32),
        jnp.asarray(tasks, jnp.int32),
    )


def _held_out(
    classes: np.ndarray, fraction: float | int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the images of training and of validation, each in the set's order."""
    random, held = np.random.RandomState(DRAW_SEED), np.zeros(len(classes), bool)
    for c in np.unique(classes):
        own = random.permutation(np.flatnonzero(classes == c))
        held[own[: round(fraction * len(own))]] = True
    if held.all():
        allowed = "a fraction that leaves a training image"
        raise UsageError("valid_fraction", fraction, allowed)
    return np.flatnonzero(~held), np.flatnonzero(held)


def _chosen(train: TaskSplit, tasks: int, balance: bool, per_task: int) -> np.ndarray:
    """Return the rows to learn from, in the set's order."""
    random = np.random.RandomState(DRAW_SEED)
    owner, labels = (np.asarray(a).ravel() for a in (train.tasks, train.labels))
    if not balance and not per_task:
        return np.arange(len(owner))
    chosen = []
    for task in range(tasks):
        own = np.flatnonzero(owner == task)
        groups = [own[labels[own] == l] for l in (0, 1)] if balance else [own]
        most = min(map(len, groups))
        count = per_task // len(groups) if per_task else most
        if not 1 <= count <= most:
            allowed = f"{len(groups)} to {most * len(groups)}, as task {task} has"
            raise UsageError("per_task", per_task, allowed)
        chosen += [random.permutation(group)[:count] for group in groups]
    return np.sort(np.concatenate(chosen))


def _info(
    name: str,
    asked: Questions,
    shape: tuple[int, ...],
    scale: str,
    counts: sources.Counts,
    source: sources.Info,
) -> TaskInfo:
    height, width, channels = shape
    mean, std = (0.0,) * channels, (1.0,) * channels
    if scale == "unit":
        std = (float(source.scale),) * channels
    elif scale == "standard":
        mean = tuple(m * source.scale for m in source.mean)
        # A channel may be constant where few images are there.
        std = tuple(s * source.scale or 1.0 for s in source.std)
    return TaskInfo(
        name=name,
        tasks=asked.names,
        classes=asked.classes,
        outputs=max(map(len, asked.classes)),
        shape=(height, width, channels),
        mean=mean,
        std=std,
        rows=counts,
        source=source,
    )
