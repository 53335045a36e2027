"""What masks would have in common by chance.

Random masks that keep as many weights of each parameter have overlaps that follow from
these numbers alone: of a weights among n, those that b others hold too are
hypergeometric, with mean a b / n. Means of what is linear in an overlap are exact, the
rest comes from draws of overlaps; no mask is ever drawn.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, PyTree

from modmask import statistics
from modmask.statistics import Figures
from shared.errors import check_range

LEVEL = 0.95
"""Share of the draws that lie within the bounds."""

Counts = dict[str, float]


class Overlaps(NamedTuple):
    """How many weights a random mask shares with others, by parameter and in "total".

    Attributes:
        expected: the exact mean.
        drawn: `[draws]`.
    """

    expected: Counts
    drawn: dict[str, Float[np.ndarray, " draws"]]


def chance(
    stages: Mapping[str, PyTree],
    *,
    share: bool = True,
    pairs: Sequence[tuple[str, str]] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Figures:
    """Return the chance levels of all figures on masks, under their own names.

    Args:
        stages: masks by stage; the first is the reference of what remains, the others
            share.
        share: whether to tell about sharing.
        pairs: whose IoU and IoMin to tell about, by default those of all pairs.
        draws: random draws behind intervals, and behind means of the IoU.
        seed: of the draws.

    Returns:
        `chance/<figure>`, the mean, and `chance_low/<figure>` and
        `chance_high/<figure>`, between which 95% of random masks lie, for each IoU and
        IoMin, each `remaining` and each `shared` of `statistics`.
    """
    check_range("draws", draws, low=1)
    random = np.random.default_rng(seed)
    sizes = statistics.sizes(next(iter(stages.values())))
    kept = {stage: statistics.counts(masks) for stage, masks in stages.items()}
    levels: Figures = {}
    for a, b in itertools.combinations(kept, 2) if pairs is None else pairs:
        overlaps = _overlaps(random, sizes, [kept[a], kept[b]], draws)
        levels |= _similarity(f"{a}/{b}", kept[a], kept[b], overlaps)
    reference, *others = kept.values()
    for k, own in enumerate(others, start=1):
        overlaps = _overlaps(random, sizes, [own, reference], draws)
        levels |= _remaining(k, overlaps, reference)
    if share and len(others) > 1:
        for i, own in enumerate(others, start=1):
            rest = [*others[: i - 1], *others[i:]]
            overlaps = _overlaps(random, sizes, [own, *rest], draws)
            for name, found in _shares(overlaps, own).items():
                place = "all" if name == "total" else f"mask_{name}"
                levels |= _named(f"mask_stat/{place}/shared_{i}", *found)
    return levels


def transfer_chance(
    masks: PyTree, used: PyTree, *, draws: int = 2000, seed: int = 0
) -> Figures:
    """Return the chance levels of `statistics.transfer_sharing`, as `chance` does."""
    random = np.random.default_rng(seed)
    own = statistics.counts(masks)
    pair = [own, statistics.counts(used)]
    overlaps = _overlaps(random, statistics.sizes(masks), pair, draws)
    levels: Figures = {}
    for name, share in _shares(overlaps, own).items():
        levels |= _named(f"mask_stat/shared/{name}", *share)
    return levels


def _overlaps(
    random: np.random.Generator,
    sizes: Mapping[str, int],
    kept: Sequence[Mapping[str, int]],
    draws: int,
) -> Overlaps:
    """Draw how much the first mask shares with the union of the others."""
    expected: Counts = {"total": 0.0}
    drawn = {"total": np.zeros(draws)}
    for name in kept[0]:
        if name == "total":
            continue
        n, (own, first, *rest) = sizes[name], [counts[name] for counts in kept]
        covered, outside = np.full(draws, first), (n - first) / n
        for other in rest:
            common = random.hypergeometric(covered, n - covered, other)
            covered, outside = covered + other - common, outside * (n - other) / n
        drawn[name] = random.hypergeometric(covered, n - covered, own).astype(float)
        expected[name] = own * (1 - outside)
        expected["total"] += expected[name]
        drawn["total"] += drawn[name]
    return Overlaps(expected, drawn)


def _remaining(k: int, overlaps: Overlaps, reference: Mapping[str, int]) -> Figures:
    levels: Figures = {}
    for name, share in _shares(overlaps, reference).items():
        place = f"layers/{name}/remaining_{k}"
        place = f"masks/remaining_{k - 1}" if name == "total" else place
        levels |= _named(f"mask_remaining/{place}", *share)
    return levels


def _similarity(
    pair: str, a: Mapping[str, int], b: Mapping[str, int], overlaps: Overlaps
) -> Figures:
    levels: Figures = {}
    smaller = {name: min(a[name], b[name]) for name in a}
    smaller["total"] = sum(n for name, n in smaller.items() if name != "total")
    for name, share in _shares(overlaps, smaller).items():
        levels |= _named(f"mask_iomin/{pair}/{name}", *share)
        common = overlaps.drawn[name]
        ious = common / np.maximum(a[name] + b[name] - common, 1)
        levels |= _named(f"mask_iou/{pair}/{name}", float(ious.mean()), ious)
    return levels


def _shares(
    overlaps: Overlaps, wholes: Mapping[str, int]
) -> dict[str, tuple[float, Float[np.ndarray, " draws"]]]:
    """Return mean and draws of each overlap as a share of a whole."""
    return {
        name: (mean / max(wholes[name], 1), overlaps.drawn[name] / max(wholes[name], 1))
        for name, mean in overlaps.expected.items()
    }


def _named(name: str, mean: float, draws: Float[np.ndarray, " draws"]) -> Figures:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {
        f"chance/{name}": float(mean),
        f"chance_low/{name}": float(low),
        f"chance_high/{name}": float(high),
    }
