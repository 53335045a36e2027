"""The architectures that a search has judged, and which of them to take."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from enasq import cell, pareto
from shared import disk
from shared.errors import UsageError
from shared.training import Record

FILE = "candidates.jsonl"


class Candidate(NamedTuple):
    """An architecture that was judged with shared weights.

    Attributes:
        step, epoch: when.
        architecture: its integers.
        accuracy: on the validation images.
        costs: of its network, by name.
    """

    step: int
    epoch: float
    architecture: str
    accuracy: float
    costs: Mapping[str, float]


def of_records(records: Sequence[Record]) -> list[Candidate]:
    """Return all candidates of a search, in order."""
    found = []
    for record in records:
        names = [name for name in record if name.startswith("costs/")]
        for place, arc in enumerate(record.get("arcs", ())):
            text = cell.render(np.asarray(arc, np.int32))
            costs = {name.removeprefix("costs/"): record[name][place] for name in names}
            accuracy = record["valid/accuracies"][place]
            place_in_time = record["step"], record["epoch"]
            found.append(Candidate(*place_in_time, text, accuracy, costs))
    return found


def front(found: Sequence[Candidate], cost: str = "bits") -> set[int]:
    """Return the numbers of the candidates that no other one beats in both."""
    spent = np.asarray([own.costs[cost] for own in found])
    gained = np.asarray([own.accuracy for own in found])
    return {int(place) for place in pareto.front(spent, gained)}


def write(folder: Path, found: Sequence[Candidate], cost: str = "bits") -> None:
    """Write all candidates, a line each, with those of the front marked."""
    ahead = front(found, cost) if found else set()
    lines = [
        json.dumps({**own._asdict(), "front": place in ahead})
        for place, own in enumerate(found)
    ]
    disk.write_text(folder / FILE, "\n".join([*lines, ""]))


def best(
    found: Sequence[Candidate], *, cost: str = "none", budget: float | int = 0
) -> Candidate:
    """Return the best candidate of the last evaluation that keeps to a budget.

    Weights of earlier evaluations were others, so their accuracies do not compare.

    Args:
        found: of a search.
        cost: what the budget is of, or none.
        budget: largest cost.

    Raises:
        UsageError: if no candidate keeps to it.
    """
    last = max(own.step for own in found)
    keep = [
        own for own in found if cost == "none" or own.costs[cost] <= budget * (1 + 1e-6)
    ]
    if not keep:
        least = min(own.costs[cost] for own in found)
        allowed = f"at least {least:g}, the cheapest architecture that was drawn"
        raise UsageError("budget", f"{budget:g} {cost}", allowed)
    latest = [own for own in keep if own.step == last] or keep
    return max(latest, key=lambda own: own.accuracy)
