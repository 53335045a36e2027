"""What can be learnt: images, opposed linear tasks, commands; one record for each."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from multipath.routing_networks import (
    commands,
    conflict,
    data,
    diagnostics,
    language,
    losses,
    networks,
)
from multipath.routing_networks.network import Network
from multipath.routing_networks.settings import Decision
from multipath.routing_networks.trajectory import Trajectory
from shared.data import batching

CONFLICT_ROWS = 2000
"""Rows of the test set of the opposed tasks."""


class Task(NamedTuple):
    """What is to be learnt, whatever the data set.

    Attributes:
        train: what batches are drawn from.
        batches: how.
        splits: arrays to evaluate on, by name.
        names: of the tasks.
        network: what learns it.
        read: `arrays of a split -> (inputs, targets, tasks)`.
        losses: `(params, trajectory, outputs, targets, objective=) -> Losses`.
        answers: `(outputs, what was read, trajectory) -> means over a batch` of what
            was asked and answered; `finish` makes figures of them.
    """

    train: PyTree
    batches: batching.Batches
    splits: dict[str, PyTree]
    names: tuple[str, ...]
    network: Network
    read: Callable[[PyTree], tuple[Any, Array, Array]]
    losses: Callable[..., losses.Losses]
    answers: Callable[[Array, Any, Trajectory], dict[str, Array]]


def finish(record: Mapping[str, Any]) -> dict[str, Any]:
    """Turn averages of `answers` and of the routes into what is reported."""
    return language.finish(diagnostics.finish(record))


def prepare(settings: Any, data_dir: str | Path | None = None) -> Task:
    """Load the data set of a config and build its network.

    Args:
        settings: a `config.Config`, or its static part.
        data_dir: where the data sets lie.

    Raises:
        UsageError: for data that is missing or does not fit.
    """
    kinds = {"conflict": _opposed, "scan": _commands}
    return kinds.get(settings.dataset, _images)(settings, data_dir)


def _images(settings: Any, data_dir: str | Path | None) -> Task:
    sets = data.load(
        settings.dataset,
        data_dir,
        labels=settings.labels,
        scale="standard" if settings.standardise else "raw",
        valid_fraction=settings.valid_fraction,
        balance=settings.balance,
        per_task=settings.per_task,
        tasks=settings.tasks,
    )
    info, count = sets.info, len(sets.info.tasks)

    def answers(outputs, asked, trajectory):
        _, labels, tasks = asked
        right = jnp.argmax(outputs, -1) == labels
        return diagnostics.answers(
            right, labels, tasks, classes=info.outputs, task_count=count
        )

    return Task(
        train=(sets.train, sets.chosen),
        batches=data.batches(
            sets,
            settings.batch,
            stratify=settings.model == "separate" and settings.batch % count == 0,
        ),
        splits=_splits(sets, settings.eval_rows),
        names=info.tasks,
        network=networks.build(settings, info.shape, info.outputs, count),
        read=lambda split: data.every_row(split, info),
        losses=losses.total,
        answers=answers,
    )


def _opposed(settings: Any, data_dir: str | Path | None) -> Task:
    del data_dir
    problem = conflict.problem(jax.random.key(0), tasks=settings.tasks or 4)
    count = len(problem.signs)

    def answers(outputs, asked, trajectory):
        square = {"error": (outputs - asked.y) ** 2, "power": asked.y**2}
        return {name: jnp.mean(values) for name, values in square.items()}

    return Task(
        train=problem,
        batches=conflict.batches(settings.batch),
        splits={"test": conflict.draw(jax.random.key(1), problem, CONFLICT_ROWS)},
        names=tuple("+" if sign > 0 else "-" for sign in problem.signs),
        network=networks.build(settings, problem.weights.shape, 1, count),
        read=lambda batch: batch,
        losses=losses.total,
        answers=answers,
    )


def _commands(settings: Any, data_dir: str | Path | None) -> Task:
    sets = commands.load(
        "simple",
        data_dir,
        valid_fraction=settings.valid_fraction,
        longest=settings.longest,
    )
    router = Decision("router", "reinforce", settings.modules or 4, 1, agents=3)
    if settings.algorithm:
        router = networks.router(settings, router.actions, router.agents)
    translator = language.Translator(router, width=settings.width, depth=settings.depth)
    if settings.model == "fixed":
        translator = language.unrouted(translator)
    return Task(
        train=sets.train,
        batches=batching.epochs(batching.rows(sets.train), settings.batch),
        splits=_splits(sets, settings.eval_rows),
        names=commands.TASKS,
        network=language.network(translator),
        read=lambda batch: batch,
        losses=language.total,
        answers=language.measure,
    )


def _splits(sets: Any, rows: int) -> dict[str, PyTree]:
    """Return the sets that are not empty, or so many of their rows, evenly spread."""
    found = {name: getattr(sets, name) for name in ("train", "valid", "test")}
    return {k: _some(v, rows) for k, v in found.items() if batching.rows(v)}


def _some(split: PyTree, rows: int) -> PyTree:
    count = batching.rows(split)
    if not 0 < rows < count:
        return split
    chosen = np.linspace(0, count, rows, endpoint=False).astype(int)
    return jax.tree.map(lambda a: a[chosen], split)
