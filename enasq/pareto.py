"""Architectures that no other one beats, and fair company for one of them.

The front holds what is at most as costly and more accurate than all others. A searched
architecture is compared with random ones of equal cost, and accuracies under shared
weights with those after training alone by the ranking they give.
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from enasq import cell as cells
from enasq import costs
from enasq.costs import Tables
from shared.errors import UsageError, check_range

BATCH, BATCHES = 8192, 128
"""Architectures drawn at once, and how often, until enough cost what they should."""


def front(
    costs: Float[np.ndarray, "count kinds"] | Float[np.ndarray, " count"],
    accuracies: Float[np.ndarray, " count"],
) -> Int[np.ndarray, " front"]:
    """Return which candidates no other one beats, by rising cost.

    One beats another if it is nowhere worse and somewhere better. Of equal ones the
    first is kept, and one whose accuracy is not a number never is.

    Args:
        costs: of one kind or of several; lower is better.
        accuracies: higher is better.
    """
    losses = np.concatenate([costs.reshape(len(costs), -1), -accuracies[:, None]], 1)
    order = np.lexsort(losses.T[::-1])
    kept: list[int] = []
    # What beats a candidate comes before it in this order.
    for index in order[np.isfinite(losses[order]).all(1)].tolist():
        if not (losses[kept] <= losses[index]).all(1).any():
            kept.append(index)
    return np.array(kept, int)


def matched(
    key: Key[Array, ""],
    tables: Tables,
    target: float | int,
    tolerance: float | int,
    count: int,
    blocks: int,
) -> Int[np.ndarray, "count 2 blocks 4"]:
    """Draw different random architectures that cost about the same.

    All codes are equally likely among those whose cost is near enough.

    Args:
        key: consumed.
        tables: what architectures cost.
        target: what they shall cost.
        tolerance: the part of the target by which they may differ from it.
        count: how many.
        blocks: of a cell.

    Returns:
        The architectures; fewer, or none, if so many were not found.
    """
    check_range("count", count, low=1)
    check_range("tolerance", tolerance, low=0)
    # Compiled costs are rounded to 24 bits.
    room = (tolerance + 1e-6) * abs(target)
    found: dict[bytes, np.ndarray] = {}
    for own in jax.random.split(key, BATCHES):
        arcs, prices = map(np.asarray, _draw(own, tables, blocks))
        near = np.abs(prices - target) <= room
        found |= {arc.tobytes(): arc for arc in arcs[near]}
        if len(found) >= count:
            break
    kept = list(found.values())[:count]
    return np.stack(kept) if kept else np.zeros((0, 2, blocks, 4), np.int32)


@functools.partial(jax.jit, static_argnums=2)
def _draw(
    key: Key[Array, ""], tables: Tables, blocks: int
) -> tuple[Int[Array, "batch 2 blocks 4"], Float[Array, " batch"]]:
    keys = jax.random.split(key, BATCH)
    arcs = jax.vmap(lambda k: cells.random(k, blocks, ops=tables.ops))(keys)
    return arcs, jax.vmap(lambda arc: costs.cost(tables, arc))(arcs)


class Agreement(NamedTuple):
    """How far two rankings agree.

    Attributes:
        tau: Kendall's, from -1 to 1; NaN if one ranks nothing.
        p: probability of one as far from 0 if they had nothing in common.
        count: of things that were ranked.
    """

    tau: float
    p: float
    count: int


def agreement(
    first: Float[np.ndarray, " count"], second: Float[np.ndarray, " count"]
) -> Agreement:
    """Compare two rankings of the same things by Kendall's tau-b.

    Args:
        first, second: values that rank them, such as accuracies under shared weights
            and after training alone.
    """
    from scipy import stats

    if len(first) < 2:
        raise UsageError("rankings", f"{len(first)} architectures", "two or more")
    found: Any = stats.kendalltau(first, second)
    return Agreement(float(found.statistic), float(found.pvalue), len(first))
