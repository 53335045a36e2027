"""Search for thresholds that classify best within a budget.

Which thresholds are best for a mean cost is found in two steps: for each of many prices
of a unit of cost, thresholds that maximise correct - price x cost, one switch after the
other from the last to the first until none moves; then the best of them within the
budget are improved, switch by switch, with what is left of it, and so are those that
differ from them at one switch.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from multipath.trees.graph import Layout
from multipath.trees.stages import Thresholds, stop_of
from shared.errors import UsageError

PRICES = 60
"""Prices, and thresholds that are common to all switches, which are tried."""

IMPROVED = 8
"""Thresholds that are improved, the best of them first."""

MOVES = 84
"""Thresholds that are improved after one of them was moved."""

SWEEPS = 10
"""Times that thresholds are set in turn at most."""

NEVER = float(np.finfo(np.float32).max)
"""A threshold that no image reaches."""


Choose = Callable[[np.ndarray, np.ndarray], int]
"""Picks one of several totals over images: of correct answers, and of costs."""


class Calibration(NamedTuple):
    """Thresholds, and what they give on the images they were chosen on.

    Attributes:
        thresholds: for `inference`.
        accuracy: share of correct answers.
        cost: mean over images, in the unit of the budget.
    """

    thresholds: Thresholds
    accuracy: float
    cost: float


class Evidence(NamedTuple):
    """What decides about images, for every node whether they reach it or not.

    Attributes:
        correct: whether each leaf is right `[leaves, images]`.
        sure: what is compared to the threshold of each switch `[switches, images]`.
        onward: the node that follows if an image does not stop `[switches, images]`.
        costs: of the way to each leaf `[leaves]`.
    """

    correct: np.ndarray
    sure: np.ndarray
    onward: np.ndarray
    costs: np.ndarray


def best(plan: Layout, found: Evidence, rule: str, budget: float | int) -> Calibration:
    """Return the thresholds with the best accuracy within a budget.

    Args:
        plan: of the network.
        found: about the images.
        rule: what was compared.
        budget: largest mean cost.

    Raises:
        UsageError: if routers leave no way to stay within the budget.
    """
    stops = [stop_of(plan.nodes[i]) is not None for i in plan.switches]
    spread = max(float(np.ptp(found.costs)), 1e-9 * float(found.costs.max()))
    prices = [0.0, *np.geomspace(1e-3, 10, PRICES) / spread]
    cheapest = _cheapest(plan, found)
    candidates = [cheapest, *(_priced(plan, found, price) for price in prices)]
    for level in np.quantile(found.sure[stops], np.linspace(0, 1, PRICES)):
        candidates.append(np.where(stops, float(level), NEVER))
    different = np.unique(np.stack(candidates), axis=0)
    kept = [one for one in different if outcome(plan, found, one)[1] <= budget]
    if not kept:
        least = outcome(plan, found, cheapest)[1]
        raise UsageError("budget", budget, f"at least {least:.6g} with these routers")
    merit = lambda levels: _merit(outcome(plan, found, levels), budget)
    leading = sorted(kept, key=merit)[-IMPROVED:]
    chosen = max((_improved(plan, found, one, budget) for one in leading), key=merit)
    around = [_improved(plan, found, one, budget) for one in _moved(found, chosen)]
    chosen = max([chosen, *around], key=merit)
    thresholds = Thresholds(rule, tuple(float(level) for level in chosen))
    return Calibration(thresholds, *outcome(plan, found, chosen))


def outcome(
    plan: Layout, found: Evidence, levels: Float[np.ndarray, " switches"]
) -> tuple[float, float]:
    """Return accuracy and mean cost under thresholds."""
    correct, cost = _downward(plan, found, levels)
    return float(correct[0].mean()), float(cost[0].mean())


def _merit(
    result: tuple[float, float], budget: float | int
) -> tuple[bool, float, float]:
    accuracy, cost = result
    return cost <= budget, accuracy, -cost


def _moved(found: Evidence, levels: np.ndarray) -> list[np.ndarray]:
    """Return thresholds of which one is elsewhere, so that others have to give way."""
    stops = np.flatnonzero(np.isfinite(found.sure).all(1))
    others = []
    for place in stops:
        shares = np.linspace(0, 1, max(MOVES // len(stops), 2))
        for level in (*np.quantile(found.sure[place], shares), NEVER):
            others.append(levels.copy())
            others[-1][place] = level
    return others


def _cheapest(plan: Layout, found: Evidence) -> np.ndarray:
    indifferent = found._replace(correct=np.zeros_like(found.correct))
    return _priced(plan, indifferent, 1.0)


def _priced(plan: Layout, found: Evidence, price: float) -> np.ndarray:
    """Return thresholds that maximise the mean of correct - price x cost."""
    start = np.full(len(plan.switches), -NEVER)
    return _settled(plan, found, start, lambda c, k: int(np.argmax(c - price * k)))


def _improved(
    plan: Layout, found: Evidence, levels: np.ndarray, budget: float | int
) -> np.ndarray:
    """Return thresholds that are best switch by switch, with the cost in the budget."""
    most = budget * found.sure.shape[1]

    def choose(correct: np.ndarray, cost: np.ndarray) -> int:
        allowed = np.flatnonzero(cost <= most)
        if not allowed.size:
            return int(np.argmin(cost))
        order = np.lexsort((-cost[allowed], correct[allowed]))
        return int(allowed[order[-1]])

    return _settled(plan, found, levels, choose)


def _settled(
    plan: Layout, found: Evidence, levels: np.ndarray, choose: Choose
) -> np.ndarray:
    """Set one threshold after the other, from the leaves up, until none moves."""
    for _ in range(SWEEPS):
        new = _swept(plan, found, levels, choose)
        if np.array_equal(new, levels):
            break
        levels = new
    return levels


def _swept(
    plan: Layout, found: Evidence, levels: np.ndarray, choose: Choose
) -> np.ndarray:
    levels = levels.copy()
    # Whether an image gets to a switch depends on those above, which are set later.
    reached = _reached(plan, found, levels)
    values = _downward(plan, found, levels)
    totals = values[:, 0].sum(1)
    for node in reversed(range(len(plan.nodes))):
        sinks = plan.sinks[node]
        if len(sinks) == 1:
            values[:, node] = values[:, sinks[0]]
        if len(sinks) < 2:
            continue
        place, stop = plan.switches.index(node), stop_of(plan.nodes[node])
        onward = np.take_along_axis(values, found.onward[place][None, None], 1)[:, 0]
        if stop is None:
            values[:, node] = onward
            continue
        stopped = values[:, sinks[stop]]
        here = np.flatnonzero(reached[node])
        here = here[np.argsort(-found.sure[place, here], kind="stable")]
        sure = found.sure[place, here]
        gains = np.cumsum((stopped - onward)[:, here], 1)
        gains = np.concatenate([np.zeros((2, 1)), gains], 1)
        now = int(np.sum(sure >= levels[place]))
        # Images that are equally sure go the same way.
        apart = np.concatenate([[True], sure[:-1] > sure[1:], [True]])
        cuts = np.flatnonzero(apart[: len(sure) + 1])
        totals = totals[:, None] + gains[:, cuts] - gains[:, now, None]
        pick = choose(*totals)
        totals = totals[:, pick]
        levels[place] = _level(sure, int(cuts[pick]))
        stops = found.sure[place] >= levels[place]
        values[:, node] = np.where(stops, stopped, onward)
    return levels


def _level(sure: np.ndarray, stopping: int) -> float:
    """Return a threshold that the first so many of falling values reach."""
    if stopping == 0:
        return NEVER
    if stopping == len(sure):
        return -NEVER
    low, high = sure[stopping], sure[stopping - 1]
    middle = np.asarray((float(low) + float(high)) / 2, sure.dtype)
    return float(middle if middle > low else high)


def _downward(
    plan: Layout, found: Evidence, levels: Float[np.ndarray, " switches"]
) -> Float[np.ndarray, "two nodes images"]:
    """Return whether images get right from each node on, and what their way costs."""
    values = np.zeros((2, len(plan.nodes), found.sure.shape[1]))
    values[0, list(plan.leaves)] = found.correct
    values[1, list(plan.leaves)] = found.costs[:, None]
    for node in reversed(range(len(plan.nodes))):
        sinks = plan.sinks[node]
        if len(sinks) == 1:
            values[:, node] = values[:, sinks[0]]
        elif sinks:
            taken = _taken(plan, found, levels, node)
            values[:, node] = np.take_along_axis(values, taken[None, None], 1)[:, 0]
    return values


def _reached(plan: Layout, found: Evidence, levels: np.ndarray) -> np.ndarray:
    """Return which images get to each node `[nodes, images]`."""
    reached = np.ones((len(plan.nodes), found.sure.shape[1]), bool)
    for node, sinks in enumerate(plan.sinks):
        taken = _taken(plan, found, levels, node) if len(sinks) > 1 else None
        for sink in sinks:
            reached[sink] = reached[node] & (True if taken is None else taken == sink)
    return reached


def _taken(
    plan: Layout, found: Evidence, levels: np.ndarray, switch: int
) -> np.ndarray:
    """Return the node that each image is sent to at a switch."""
    place, stop = plan.switches.index(switch), stop_of(plan.nodes[switch])
    onward = found.onward[place]
    if stop is None:
        return onward
    stops = found.sure[place] >= levels[place]
    return np.where(stops, plan.sinks[switch][stop], onward)
