"""Trained networks of many runs, for figures and reports that compare them."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from shared import runs


class Trained(NamedTuple):
    """One trained network: its settings and its records."""

    experiment: str
    config: dict[str, Any]
    records: list[dict[str, Any]]


def read(paths: Iterable[str | os.PathLike]) -> list[Trained]:
    """Read all members of some runs, single runs being their only one.

    Of networks with equal settings, the seed among them, one counts: that which got
    farthest, and of equal ones the last.
    """
    found: dict[str, Trained] = {}
    for path in paths:
        experiment = runs.read_config(path)["experiment"]
        for place in runs.members(path) or [path]:
            config = runs.read_config(place)["config"]
            one = Trained(experiment, config, runs.read_metrics(place))
            key = json.dumps(config, sort_keys=True)
            if key not in found or _reached(one) >= _reached(found[key]):
                found[key] = one
    return list(found.values())


def _reached(network: Trained) -> int:
    return network.records[-1]["step"] if network.records else -1


def telling_fields(
    settings: Sequence[Mapping[str, Any]],
    *,
    first: Sequence[str] = (),
    ignore: Sequence[str] = ("seed",),
) -> list[str]:
    """Return the fewest fields, in order, that tell configs apart.

    A field is left out if those before it separate the configs already: the learning
    rate of a rule, say, where every rule has its own.

    Args:
        settings: configs as dicts with the same fields.
        first: fields to try before the others.
        ignore: fields that are never named.
    """
    chosen: list[str] = []

    def parts(fields: Sequence[str]) -> int:
        return len({json.dumps([s.get(f) for f in fields]) for s in settings})

    for field in [*first, *(f for f in settings[0] if f not in first)]:
        if field not in ignore and parts([*chosen, field]) > parts(chosen):
            chosen.append(field)
    return chosen
