"""Tasks that contradict each other: the smallest problem that needs routing.

y = s_t (w x) with x normal and a sign s_t for each task, + for the first half of the
tasks and - for the others. One linear module cannot serve both halves; two can, if and
only if each half has its own.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, PRNGKeyArray

from shared.data import batching
from shared.errors import UsageError, check_range

SOLVED = 0.05
"""Relative error below which the problem counts as solved."""


class Conflict(NamedTuple):
    """One such problem.

    Attributes:
        weights: w.
        signs: s, of each task.
    """

    weights: Float[Array, " features"]
    signs: Float[Array, " tasks"]


class Batch(NamedTuple):
    """Inputs, targets and tasks."""

    x: Float[Array, "batch features"]
    y: Float[Array, "batch 1"]
    tasks: Int32[Array, " batch"]


def problem(key: PRNGKeyArray, *, tasks: int = 4, features: int = 4) -> Conflict:
    """Draw w from a standard normal.

    Args:
        key: consumed.
        tasks: an even number.
        features: width of x.
    """
    check_range("features", features, low=1)
    if tasks < 2 or tasks % 2:
        raise UsageError("tasks", tasks, "an even number >= 2")
    weights = jax.random.normal(key, (features,))
    signs = jnp.where(jnp.arange(tasks) < tasks // 2, 1, -1).astype(weights.dtype)
    return Conflict(weights, signs)


def draw(key: PRNGKeyArray, conflict: Conflict, size: int) -> Batch:
    """Draw inputs and tasks, each independently.

    Args:
        key: consumed.
        conflict: the problem.
        size: rows.
    """
    x_key, task_key = jax.random.split(key)
    weights, signs = conflict
    x = jax.random.normal(x_key, (size, len(weights)), weights.dtype)
    tasks = jax.random.randint(task_key, (size,), 0, len(signs), jnp.int32)
    return Batch(x, (signs[tasks] * (x @ weights))[:, None], tasks)


def batches(size: int, *, per_epoch: int = 100) -> batching.Batches:
    """Draw new rows of a `Conflict`, which takes the place of training arrays.

    Args:
        size: rows of a batch.
        per_epoch: steps that are called an epoch.
    """
    check_range("batch_size", size, low=1)

    def take(conflict, plan, index, key):
        del plan, index
        return draw(key, conflict, size)

    return batching.Batches(size, per_epoch, lambda key, epoch, hyper: (), take)


def relative_error(
    outputs: Float[Array, "batch 1"], y: Float[Array, "batch 1"]
) -> Float[Array, ""]:
    """Return the mean square of the error over that of the targets: 1 for zeros."""
    return jnp.mean((outputs - y) ** 2) / jnp.mean(y**2)
