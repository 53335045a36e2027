"""Classification at any budget: thresholds chosen on validation data.

An image stops at the first switch whose classifier is sure enough of it; `calibrate`
finds how sure that should be for a mean cost, `inference` does it.

Reference: budgeted batch classification as in Huang et al., "Multi-Scale Dense
Networks for Resource Efficient Image Classification" (2018), section 3.
"""

import functools
import numbers
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num

from multipath.trees import forward
from multipath.trees.budgets import Calibration, Evidence, best
from multipath.trees.compaction import Pieces, default_how, gather, make_tasks, read_by
from multipath.trees.graph import Layout, layout
from multipath.trees.net import Net, check_images, price_input
from multipath.trees.stages import (
    RULES,
    classifier_of,
    path_operations,
    stages,
    stop_of,
)
from shared.errors import UsageError, check_choice, check_range
from shared.model import Variables

UNITS = ("operations", "milliseconds")


def calibrate(
    net: Net,
    variables: Variables,
    images: Num[np.ndarray | Array, "images height width channels"],
    labels: Num[np.ndarray | Array, "..."],
    *,
    budget: Any,
    unit: str = "operations",
    rule: str = "confidence",
    batch: int = 256,
    k_cpt: Num[np.ndarray | Array, "..."] | float | None = None,
    alpha_cpt: float | int = 1e7,
) -> Calibration:
    """Return the thresholds with the best accuracy within a budget.

    Args:
        net: which network; with switches.
        variables: from `net.init`.
        images, labels: of a validation set; labels are class numbers.
        budget: largest mean cost of an image, a number.
        unit: operations, or milliseconds as measured on this machine.
        rule: what is compared to thresholds; see `Thresholds`.
        batch: at which milliseconds are measured.
        k_cpt: price of an operation as an input, needed with `dyn_k_cpt`.
        alpha_cpt: scale of that input.

    Raises:
        UsageError: for a network without a switch that may stop at a classifier, no
            images, labels that are no class numbers, and a budget that is no number
            or below the cheapest way through the network.
    """
    check_choice("unit", unit, UNITS)
    check_choice("rule", rule, RULES)
    check_range("batch", batch, low=1)
    if not isinstance(budget, numbers.Real):
        raise UsageError("budget", budget, f"a number of {unit} an image")
    plan = layout(net.root)
    if all(stop_of(plan.nodes[i]) is None for i in plan.switches):
        allowed = "a network with a switch that has a classifier as sink"
        raise UsageError("net", net.family, allowed)
    _check_examples(net, images, labels)
    # Wrong prices are told before anything runs.
    price_input(net, k_cpt, alpha_cpt, len(images), images.dtype)
    if unit == "operations":
        costs = path_operations(net, rule).astype(float)
        check_budget(budget, costs, unit)
    prices = None
    if net.dyn_k_cpt:
        prices = np.broadcast_to(np.asarray(k_cpt).ravel(), (len(images),))
    if unit == "milliseconds":
        first = None if prices is None else prices[:batch]
        costs = path_milliseconds(
            net, variables, images[:batch], rule, k_cpt=first, alpha_cpt=alpha_cpt
        )
        check_budget(budget, costs, unit)
    price: dict[str, Any] = {"k_cpt": prices, "alpha_cpt": alpha_cpt}
    found = evidence(net, variables, images, labels, rule, costs, **price)
    return best(plan, found, rule, float(budget))


def _check_examples(net: Net, images: Any, labels: Any) -> None:
    """Refuse images that do not fit a network, or labels that do not fit them."""
    check_images(net, images)
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        given = f"{labels.dtype} {labels.shape}"
        raise UsageError("labels", given, "class numbers, one for each image")
    if not len(images) or len(images) != len(labels):
        given = f"{len(images)} images, {len(labels)} labels"
        raise UsageError("images", given, "at least one, each with its label")
    if labels.min() < 0 or labels.max() >= net.classes:
        given = f"{labels.min()} to {labels.max()}"
        raise UsageError("labels", given, f"class numbers from 0 to {net.classes - 1}")


def check_budget(budget: Any, costs: np.ndarray, unit: str) -> None:
    """Refuse a budget that no policy keeps to."""
    least = costs.min()
    if not budget >= least:
        allowed = f"at least {least:.6g} {unit} an image, the cheapest way"
        raise UsageError("budget", budget, allowed)


def evidence(
    net: Net,
    variables: Variables,
    images: Any,
    labels: Any,
    rule: str,
    costs: np.ndarray,
    *,
    k_cpt: Any = None,
    alpha_cpt: float | int = 1e7,
    batch: int = 256,
) -> Evidence:
    """Run every node on all images, and keep what decisions need.

    Args:
        net, variables: the network.
        images, labels: of a validation set.
        rule: what is compared to thresholds.
        costs: of the way to each leaf.
        k_cpt, alpha_cpt: as of `forward.apply`.
        batch: images at once.
    """
    plan, run = layout(net.root), _record(net)
    labels = np.asarray(labels)
    prices = None if k_cpt is None else np.broadcast_to(k_cpt, (len(images),))
    correct, sure, onward = [], [], []
    for start in range(0, len(images), batch):
        rows = slice(start, start + batch)
        own = None if prices is None else jnp.asarray(prices[rows])
        found = run(variables, images[rows], own, alpha_cpt)
        probabilities, scores = (np.asarray(value) for value in found)
        correct.append(probabilities.argmax(-1) == labels[rows])
        decisions = [
            _decision(plan, rule, switch, probabilities, scores[place])
            for place, switch in enumerate(plan.switches)
        ]
        sure.append(np.stack([each[0] for each in decisions]))
        onward.append(np.stack([each[1] for each in decisions]))
    right, level, after = (np.concatenate(x, 1) for x in (correct, sure, onward))
    return Evidence(right, level, after, costs)


@functools.lru_cache(maxsize=16)
def _record(net: Net) -> Any:
    def run(variables, x, k_cpt, alpha_cpt):
        params, state = variables
        record, _ = forward.apply(
            net, params, state, x, k_cpt=k_cpt, alpha_cpt=alpha_cpt
        )
        return record.probabilities, record.scores

    return jax.jit(run)


def _decision(
    plan: Layout, rule: str, switch: int, probabilities: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return how sure a switch is of each image, and the node that else follows."""
    sinks, stop = plan.sinks[switch], stop_of(plan.nodes[switch])
    scores = scores[:, : len(sinks)].copy()
    if stop is None:
        return np.full(len(scores), -np.inf), np.array(sinks)[scores.argmax(-1)]
    own = scores[:, stop].copy()
    scores[:, stop] = -np.inf
    onward = np.array(sinks)[scores.argmax(-1)]
    if rule == "confidence":
        return probabilities[plan.leaves.index(sinks[stop])].max(-1), onward
    return own - scores.max(-1), onward


def path_milliseconds(
    net: Net,
    variables: Variables,
    images: Any,
    rule: str | None = None,
    *,
    k_cpt: Any = None,
    alpha_cpt: float | int = 1e7,
    repeats: int = 5,
) -> np.ndarray:
    """Measure the time that an image takes which ends at each leaf `[leaves]`.

    Every stage runs on the whole batch; the least time counts.

    Args:
        net, variables: the network.
        images: one batch.
        rule: of the thresholds, None for the routers' own choice.
        k_cpt, alpha_cpt: as of `forward.apply`.
        repeats: runs of each stage.
    """
    plan, every, how = layout(net.root), stages(net.root), default_how()
    tasks = make_tasks(net, variables, rule, np.zeros(len(plan.nodes)), how)
    rows = np.arange(len(images))
    price = price_input(net, k_cpt, alpha_cpt, len(rows), images.dtype)
    x = jax.tree.map(np.asarray if how == "host" else jnp.asarray, (images, price))
    sources, spent = {(0, 0): (Pieces([x], [len(rows)]), 0.0)}, {}
    for (number, member), task in tasks.items():
        stage, (source, before) = every[number], sources[number, member]
        last, least = stage.members[-1][member], np.inf
        for _ in range(repeats):
            start = time.perf_counter()
            pieces = gather(source, rows, task.limit, how)
            outs = jax.block_until_ready(task.run(pieces))
            least = min(least, time.perf_counter() - start)
        if last not in spent:
            spent[last] = before + least
        after = Pieces([out.signal for out in outs], pieces.counts)
        for position, target in enumerate(stage.sinks):
            key = target, stage.places[member][position]
            sources[key] = read_by(every[target], after), spent[last]
        position = classifier_of(stage.nodes[-1], rule)
        if position is not None:
            # The time of the stage holds that of the classifier.
            spent[plan.sinks[last][position]] = spent[last]
    return 1e3 * np.array([spent[leaf] for leaf in plan.leaves]) / len(rows)
