"""How training batches are drawn, as pure functions of a key and a step.

Nothing here holds a position: the batch of a step follows from the run's key and
the step's number alone, so a resumed run sees the batches it would have seen.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from shared.errors import UsageError, check_range

Augment = Callable[[Array, PyTree], PyTree]
"""`(key, batch) -> batch`, applied to each training batch on the device."""


class Batches(NamedTuple):
    """A way of drawing batches from arrays that share their leading axis.

    Attributes:
        size: rows of one batch.
        per_epoch: steps of one epoch.
        plan: `(key, epoch, hyper) -> plan`, drawn once for many steps (a permutation,
            say); `hyper` is that of the run's TrainState.
        take: `(arrays, plan, index, key) -> batch`; `index` counts the steps within
            the epoch and `key` is the step's own.
    """

    size: int
    per_epoch: int
    plan: Callable[[Array, Any, PyTree], PyTree]
    take: Callable[[PyTree, PyTree, Any, Array], PyTree]


def epochs(
    count: int, size: int, *, shuffle: bool = True, augment: Augment | None = None
) -> Batches:
    """Visit every row once an epoch; rows beyond the last whole batch are dropped.

    Args:
        count: rows of the training set.
        size: rows of a batch, 1 to `count`.
        shuffle: a new permutation each epoch; otherwise the order of the file.
        augment: applied to each batch.

    Raises:
        UsageError: if `size` is not in 1..count.
    """
    _check_size(count, size)

    def plan(key, epoch, hyper):
        del hyper
        if not shuffle:
            return ()
        return jax.random.permutation(jax.random.fold_in(key, epoch), count)

    def take(arrays, order, index, key):
        if shuffle:
            rows = jax.lax.dynamic_slice_in_dim(order, index * size, size)
            batch = jax.tree.map(lambda a: jnp.take(a, rows, axis=0), arrays)
        else:
            batch = slice_rows(arrays, index * size, size)
        return batch if augment is None else augment(key, batch)

    return Batches(size, count // size, plan, take)


def with_replacement(
    count: int, size: int, *, per_epoch: int = 1000, augment: Augment | None = None
) -> Batches:
    """Draw each row of each batch independently and uniformly.

    Args:
        count: rows of the training set.
        size: rows of a batch, 1 to `count`.
        per_epoch: steps that are called an epoch.
        augment: applied to each batch.

    Raises:
        UsageError: if `size` is not in 1..count.
    """
    _check_size(count, size)

    def take(arrays, _, index, key):
        del index
        row_key, augment_key = jax.random.split(key)
        rows = jax.random.randint(row_key, (size,), 0, count)
        batch = jax.tree.map(lambda a: jnp.take(a, rows, axis=0), arrays)
        return batch if augment is None else augment(augment_key, batch)

    return Batches(size, per_epoch, lambda key, epoch, hyper: (), take)


def from_subsets(
    size: int, *, per_epoch: int = 1000, augment: Augment | None = None
) -> Batches:
    """Draw rows with replacement from a subset that each run names for itself.

    Runs that differ in their data are thus members of one program over the same
    arrays. A run's `hyper` holds `rows` `[capacity]`, the rows of its subset followed
    by anything, and `row_count`, how many they are.

    Args:
        size: rows of a batch.
        per_epoch: steps that are called an epoch.
        augment: applied to each batch.
    """
    check_range("batch_size", size, low=1)

    def plan(key, epoch, hyper):
        del key, epoch
        return hyper["rows"], hyper["row_count"]

    def take(arrays, subset, index, key):
        del index
        table, count = subset
        row_key, augment_key = jax.random.split(key)
        chosen = table[jax.random.randint(row_key, (size,), 0, count)]
        batch = jax.tree.map(lambda a: jnp.take(a, chosen, axis=0), arrays)
        return batch if augment is None else augment(augment_key, batch)

    return Batches(size, per_epoch, plan, take)


def slice_rows(arrays: PyTree, start: Any, size: int) -> PyTree:
    """Return rows start..start+size-1 of every array; `start` may be traced."""
    return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, size), arrays)


def rows(arrays: PyTree) -> int:
    """Return the length of the leading axis that all arrays share."""
    return jax.tree.leaves(arrays)[0].shape[0]


def _check_size(count: int, size: int) -> None:
    if not 1 <= size <= count:
        allowed = f"1 to {count}, the rows of the training set"
        raise UsageError("batch_size", size, allowed)
