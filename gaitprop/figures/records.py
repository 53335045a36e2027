"""Trained networks as run directories hold them, sorted into the curves of figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from shared import trained
from shared.plotting import NothingToDraw

ORDER = ("bp", "gait", "tp", "itp", "gait_adaptive", "feedback_alignment")
NAMES = {
    "bp": "BP",
    "gait": "GAIT-prop",
    "tp": "target-prop",
    "itp": "ITP",
    "gait_adaptive": "GAIT-prop, adaptive",
    "feedback_alignment": "feedback alignment",
}
# What says nothing about learning.
NOT_IN_LABELS = (
    "seed classes epochs steps eval_every eval_train_rows checkpoint_every "
    "batch_size diagnose solver valid_size"
).split()
PLACE = ("dataset", "widths", "transfer")
"""Settings that say which network learned which data."""


def by_label(
    members: Sequence[trained.Trained], shown: Sequence[str] = ()
) -> dict[str, list[trained.Trained]]:
    """Group members under short names: the rule, and what else tells them apart.

    Args:
        members: trained networks.
        shown: settings that the figure shows in another way.
    """
    if not members:
        return {}
    settings = [member.config for member in members]
    first, ignored = ["algorithm", *PLACE], [*NOT_IN_LABELS, *shown]
    fields = trained.telling_fields(settings, first=first, ignore=ignored)
    groups: dict[str, list[trained.Trained]] = {}
    for member in sorted(members, key=lambda m: ORDER.index(m.config["algorithm"])):
        more = [_named(f, member.config) for f in fields if f != "algorithm"]
        name = ", ".join([NAMES[member.config["algorithm"]], *more])
        groups.setdefault(name, []).append(member)
    return groups


def _named(field: str, config: dict[str, Any]) -> str:
    if field == "widths":
        return _shape(config)
    value = config[field]
    return value if field in PLACE else f"{field} {value}"


def series(
    members: Sequence[trained.Trained], name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return epochs, mean and standard deviation over members of one metric.

    Members that stopped early drop out where they end.
    """
    values: dict[float, list[float]] = {}
    for member in members:
        for record in member.records:
            if name in record:
                values.setdefault(record["epoch"], []).append(record[name])
    if not values:
        raise NothingToDraw(f"no record of {name}")
    epochs = sorted(values)
    columns = [np.asarray(values[e]) for e in epochs]
    mean, sd = [c.mean() for c in columns], [c.std() for c in columns]
    return np.array(epochs), np.array(mean), np.array(sd)


def network(config: dict[str, Any]) -> str:
    """Name a network by its shape and transfer function."""
    shape = _shape(config)
    return f"{shape}, linear" if is_linear(config) else shape


def _shape(config: dict[str, Any]) -> str:
    if is_tower(config):
        return f"tower {'-'.join(map(str, config['widths']))}"
    hidden = len(config["widths"]) - 2
    return f"{hidden} hidden layer{'' if hidden == 1 else 's'}"


def is_linear(config: dict[str, Any]) -> bool:
    """Tell whether a network has no transfer function."""
    return config["transfer"] == "linear"


def is_tower(config: dict[str, Any]) -> bool:
    """Tell whether the layers of a network differ in width."""
    return len(set(config["widths"])) > 1


def ends_of(
    members: Sequence[trained.Trained], name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the peak and the final value of each member, in percent."""
    found = [[r[name] for r in m.records if name in r] for m in members]
    found = [values for values in found if values]
    if not found:
        raise NothingToDraw(f"no record of {name}")
    peak, final = [max(v) for v in found], [v[-1] for v in found]
    return 100 * np.array(peak), 100 * np.array(final)
