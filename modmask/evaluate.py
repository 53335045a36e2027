"""Evaluating a masked network, on as many rows as there are."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import PyTree

from modmask.task import Evaluate, Task
from shared import masking
from shared.data import batching
from shared.model import Model, Variables


def masked_forward(
    model: Model, variables: Variables, masks: PyTree | None
) -> Callable[[PyTree], PyTree]:
    """Return the forward function of a network with fixed masks, in evaluation."""
    if masks is not None:
        params = masking.apply_masks(variables.params, masks)
        variables = variables._replace(params=params)
    return lambda x: model.apply(variables, x)[0]


def assess(
    task: Task,
    variables: Variables,
    masks: PyTree | None,
    arrays: PyTree,
    *,
    batch: int = 2000,
) -> dict[str, np.ndarray]:
    """Evaluate a network with fixed masks on all rows of some arrays.

    Args:
        task: network and its `evaluate`.
        variables: of the network.
        masks: tree of masks, None where a parameter has none; or None for no masks.
        arrays: `[rows, ...]`.
        batch: rows evaluated at once.

    Returns:
        The metrics of `task.evaluate`, means over all rows.
    """
    count, totals = batching.rows(arrays), {}
    for start in range(0, count, batch):
        size = min(batch, count - start)
        part = batching.slice_rows(arrays, start, size)
        found = _evaluate(task.model, task.evaluate, variables, masks, part)
        for name, value in jax.device_get(found).items():
            share = np.asarray(value) * (size / count)
            totals[name] = np.asarray(totals.get(name, 0.0) + share)
    return totals


@functools.partial(jax.jit, static_argnums=(0, 1))
def _evaluate(
    model: Model,
    evaluate: Evaluate,
    variables: Variables,
    masks: PyTree | None,
    part: PyTree,
) -> dict[str, jax.Array]:
    return evaluate(masked_forward(model, variables, masks), part)
