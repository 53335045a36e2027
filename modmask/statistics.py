"""Figures of masks: how many weights they keep, and how much they have in common.

All functions take trees of boolean masks and return flat dicts of numbers under the
names that the published program gives parameters.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, PyTree

from modmask.names import named
from shared import masking
from shared.errors import UsageError

Figures = dict[str, float]


def counts(masks: PyTree) -> dict[str, int]:
    """Return how many weights each mask keeps, by parameter, and their "total"."""
    return _with_total(jax.device_get(named(masking.count(masks))))


def sizes(masks: PyTree) -> dict[str, int]:
    """Return how many weights each mask decides on, by parameter, and their "total"."""
    return _with_total({name: mask.size for name, mask in named(masks).items()})


def _with_total(found: Mapping[str, Any]) -> dict[str, int]:
    numbers = {name: int(n) for name, n in found.items()}
    return {**numbers, "total": sum(numbers.values())}


def densities(masks: PyTree) -> Figures:
    """Return the share of weights that are kept, by parameter, and in "total"."""
    whole = sizes(masks)
    return {name: n / max(whole[name], 1) for name, n in counts(masks).items()}


def iou(a: PyTree, b: PyTree) -> Figures:
    """Return |a ∩ b| / |a ∪ b| by parameter, and in "total"."""
    both, first, second = _pair(a, b)
    either = {name: first[name] + second[name] - n for name, n in both.items()}
    return {name: n / max(either[name], 1) for name, n in both.items()}


def iomin(a: PyTree, b: PyTree) -> Figures:
    """Return |a ∩ b| / min(|a|, |b|), how far one is part of the other, as `iou` does.

    For the "total" the smaller counts of all parameters are added up.
    """
    both, first, second = _pair(a, b)
    del first["total"], second["total"]
    smaller = _with_total({name: min(n, second[name]) for name, n in first.items()})
    return {name: n / max(smaller[name], 1) for name, n in both.items()}


def _pair(a: PyTree, b: PyTree) -> tuple[dict[str, int], ...]:
    """Count what two masks keep in common, and each, where both have a mask."""
    both, *each = map(counts, (masking.intersection(a, b), a, b))
    common = [name for name in both if name != "total"]
    return both, *(_with_total({name: n[name] for name in common}) for n in each)


def total_iou(masks: Sequence[PyTree]) -> float:
    """Return |∩ masks| / |∪ masks| over all parameters together.

    Raises:
        UsageError: for fewer than two masks.
    """
    if len(masks) < 2:
        raise UsageError("masks", len(masks), "at least two")
    common, either = masks[0], masks[0]
    for mask in masks[1:]:
        common = masking.intersection(common, mask)
        either = masking.union(either, mask)
    return counts(common)["total"] / max(counts(either)["total"], 1)


def kept(stages: Mapping[str, PyTree]) -> Figures:
    """Return `count/<stage>/<parameter>` and `density/<stage>/<parameter>`."""
    figures: Figures = {}
    for stage, masks in stages.items():
        figures |= {f"count/{stage}/{k}": float(v) for k, v in counts(masks).items()}
        figures |= {f"density/{stage}/{k}": v for k, v in densities(masks).items()}
    return figures


def similarity(
    stages: Mapping[str, PyTree], pairs: Sequence[tuple[str, str]] | None = None
) -> Figures:
    """Return `mask_iou/<a>/<b>/<parameter>` and `mask_iomin/...` of pairs of stages.

    Args:
        stages: masks by stage.
        pairs: which pairs; all by default.
    """
    figures: Figures = {}
    for a, b in itertools.combinations(stages, 2) if pairs is None else pairs:
        pair = stages[a], stages[b]
        figures |= {f"mask_iou/{a}/{b}/{k}": v for k, v in iou(*pair).items()}
        figures |= {f"mask_iomin/{a}/{b}/{k}": v for k, v in iomin(*pair).items()}
    return figures


def remaining(masks: Sequence[PyTree]) -> Figures:
    """Return what masks 1, 2, ... keep of the weights that the first one keeps.

    Under `mask_remaining/`: `layers/<parameter>/n_ref`, the weights of the first,
    `n_k` of them in mask k and the share `remaining_k`; over all parameters
    `all/n_total`, and `masks/n_i` and `masks/remaining_i`, which count from 0.
    """
    reference = counts(masks[0])
    total = reference.pop("total")
    figures: Figures = {"mask_remaining/all/n_total": float(total)}
    for name, n in reference.items():
        figures[f"mask_remaining/layers/{name}/n_ref"] = float(n)
    for k, mask in enumerate(masks[1:], start=1):
        common = counts(masking.intersection(mask, masks[0]))
        both = common.pop("total")
        figures[f"mask_remaining/masks/n_{k - 1}"] = float(both)
        figures[f"mask_remaining/masks/remaining_{k - 1}"] = both / max(total, 1)
        for name, n in common.items():
            place = f"mask_remaining/layers/{name}"
            figures[f"{place}/n_{k}"] = float(n)
            figures[f"{place}/remaining_{k}"] = n / max(reference[name], 1)
    return figures


def sharing(masks: Sequence[PyTree]) -> Figures:
    """Return how much of each mask any of the others keeps too, counted from 1.

    Under `mask_stat/`: `mask_<parameter>/n_total`, the weights in any mask, `n_i` those
    in mask i, and `shared_i` the share of them that another mask keeps; the same over
    all parameters as `all/...`, with the number of shared weights as `n_shared_i`.

    Raises:
        UsageError: for fewer than two masks.
    """
    if len(masks) < 2:
        raise UsageError("masks", len(masks), "at least two")
    figures: Figures = {}
    for name, n in counts(_union(masks)).items():
        figures[f"{_place(name)}/n_total"] = float(n)
    for i, mask in enumerate(masks, start=1):
        others = _union([*masks[: i - 1], *masks[i:]])
        shared = counts(masking.intersection(mask, others))
        for name, n in counts(mask).items():
            figures[f"{_place(name)}/n_{i}"] = float(n)
            figures[f"{_place(name)}/shared_{i}"] = shared[name] / max(n, 1)
        figures[f"mask_stat/all/n_shared_{i}"] = float(shared["total"])
    return figures


def _place(name: str) -> str:
    return "mask_stat/all" if name == "total" else f"mask_stat/mask_{name}"


def _union(masks: Sequence[PyTree]) -> PyTree:
    either = masks[0]
    for mask in masks[1:]:
        either = masking.union(either, mask)
    return either


def used_before(masks: Sequence[PyTree]) -> PyTree:
    """Return the weights that any of the masks keeps, a tree of boolean arrays.

    Raises:
        UsageError: for no mask.
    """
    if not masks:
        raise UsageError("masks", 0, "at least one")
    return _union(masks)


def transfer_sharing(masks: PyTree, used: PyTree) -> Figures:
    """Return how much of a mask earlier tasks use already.

    Under `mask_stat/`: `counts/<parameter>`, the weights it keeps, `shared/<parameter>`
    the share of them that is in `used`, and `shared/total`.
    """
    own = counts(masks)
    both = counts(masking.intersection(masks, used))
    figures: Figures = {}
    for name, n in own.items():
        figures[f"mask_stat/shared/{name}"] = both[name] / max(n, 1)
        if name != "total":
            figures[f"mask_stat/counts/{name}"] = float(n)
    return figures


def random_masks(key: Array, masks: PyTree) -> PyTree:
    """Draw masks that keep as many weights of each parameter, anywhere.

    Args:
        key: consumed.
        masks: tree of boolean arrays.

    Returns:
        A tree like `masks`, each set of that many places being equally likely.
    """

    leaves, structure = jax.tree.flatten(masks)
    keys = [jax.random.fold_in(key, i) for i in range(len(leaves))]
    drawn = [_random_like(k, mask) for k, mask in zip(keys, leaves, strict=True)]
    return structure.unflatten(drawn)


def _random_like(key: Array, mask: Array) -> Array:
    """Keep the places of the k smallest of as many random words."""
    words, k = jax.random.bits(key, mask.shape), jnp.sum(mask)

    def bit(i: Array, limit: Array) -> Array:
        raised = limit | (jnp.uint32(1) << (31 - i).astype(jnp.uint32))
        return jnp.where(jnp.sum(words < raised) < k, raised, limit)

    # The k-th smallest word, bit by bit: far cheaper than a sort of millions.
    limit = jax.lax.fori_loop(0, 32, bit, jnp.uint32(0))
    below, ties = words < limit, words == limit
    rank = jnp.cumsum(ties.reshape(-1)).reshape(mask.shape)
    return below | (ties & (rank <= k - jnp.sum(below)))


def cosines(
    first: PyTree, second: PyTree, masks: PyTree | None
) -> dict[str, Float[Array, ""]]:
    """Return the cosine of two gradients where a mask keeps weights.

    Args:
        first, second: trees of one structure.
        masks: tree like them; all entries count where it is None.

    Returns:
        The cosine by original parameter name, and in "total" that of all entries
        together. It is 0 where one of them vanishes.
    """
    none = lambda leaf: leaf is None
    if masks is not None:
        select = lambda m, g: g if m is None else g * m.astype(g.dtype)
        first = jax.tree.map(select, masks, first, is_leaf=none)
        second = jax.tree.map(select, masks, second, is_leaf=none)
    dots = jax.tree.map(lambda a, b: jnp.sum(a * b), first, second)
    squares = [jax.tree.map(lambda g: jnp.sum(g * g), g) for g in (first, second)]

    def cosine(dot: Any, a: Any, b: Any) -> Array:
        product = jnp.sqrt(a) * jnp.sqrt(b)
        return jnp.where(product > 0, dot / jnp.where(product > 0, product, 1), 0)

    found = named(jax.tree.map(cosine, dots, *squares))
    totals = [jax.tree.reduce(jnp.add, tree) for tree in (dots, *squares)]
    return {**found, "total": cosine(*totals)}


def normalise_confusion(
    confusion: Num[np.ndarray, "predicted true"],
) -> Float[np.ndarray, "true predicted"]:
    """Return the share of each true class that is predicted as each class.

    Args:
        confusion: numbers of rows, or shares of all rows; a true class without any has
            zeros in the result.
    """
    rows = np.asarray(confusion, np.float64).T
    totals = rows.sum(axis=1, keepdims=True)
    return np.divide(rows, totals, out=np.zeros_like(rows), where=totals > 0)


def drops(
    reference: Float[np.ndarray, "true predicted"],
    difference: Float[np.ndarray, "true predicted"],
    target: int,
) -> Figures:
    """Return what removing a class does to the accuracy of each, in percent.

    Args:
        reference: normalised confusion before.
        difference: the change of it.
        target: the class that was removed.

    Returns:
        `target`, -d_cc / r_cc: how much of its accuracy the class loses;
        `largest_other`, the largest such loss of another class, at least 0; and
        `ratio`, the second in percent of the first. NaN where there is nothing to lose.

    Reference:
        Csordás et al. (2021), class removal on CIFAR-10.
    """
    before, change = np.diagonal(reference), np.diagonal(difference)
    lost = np.full(len(before), np.nan)
    np.divide(-change, before, out=lost, where=before > 0)
    others = np.delete(lost, target)
    largest = max(0.0, np.max(others, initial=0.0, where=~np.isnan(others)))
    ratio = largest / lost[target] if lost[target] else np.nan
    return {
        "target": 100 * float(lost[target]),
        "largest_other": 100 * float(largest),
        "ratio": 100 * float(ratio),
    }
