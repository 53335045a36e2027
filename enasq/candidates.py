"""The architectures that a search has judged, and which of them to take."""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from enasq import cell, pareto
from shared import disk
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
    """Return the numbers of candidates that no other one of the same evaluation beats.

    Accuracies of other evaluations, with other shared weights, do not compare.
    """
    kept: set[int] = set()
    for step in {own.step for own in found}:
        places = np.asarray([n for n, own in enumerate(found) if own.step == step])
        spent = np.asarray([found[n].costs[cost] for n in places])
        gained = np.asarray([found[n].accuracy for n in places])
        kept |= set(places[pareto.front(spent, gained)].tolist())
    return kept


def write(folder: Path, found: Sequence[Candidate], cost: str = "bits") -> None:
    """Write all candidates, a line each, with the front of each evaluation marked."""
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
        budget: largest cost. If no candidate keeps to it, the cheapest one is the best,
            with a warning.
    """
    last = max(own.step for own in found)
    keep = [
        own for own in found if cost == "none" or own.costs[cost] <= budget * (1 + 1e-6)
    ]
    if not keep:
        cheapest = min(found, key=lambda own: own.costs[cost])
        warnings.warn(
            f"no candidate keeps to a budget of {budget:g} {cost}: the cheapest takes "
            f"{cheapest.costs[cost]:g}",
            stacklevel=2,
        )
        return cheapest
    latest = [own for own in keep if own.step == last] or keep
    return max(latest, key=lambda own: own.accuracy)
