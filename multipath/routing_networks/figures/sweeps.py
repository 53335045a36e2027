"""What a setting does: scores at the end over what differs within a run."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from multipath.routing_networks.figures import curves, records
from shared import plotting, trained
from shared.plotting import PALETTE, NothingToDraw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BY_TASK = ("/task_accuracy", "/use")
"""Records with an entry for each task."""

_WIDE = 30
"""Ratio of the greatest value to the least from which an axis is logarithmic."""


class Sweep(NamedTuple):
    """The networks of a run by what they differ in.

    Attributes:
        title: the experiment.
        fields: the settings that differ.
        groups: repetitions with equal settings, in the order of the run.
    """

    title: str
    fields: list[str]
    groups: list[list[trained.Trained]]


def sweep(paths: Sequence[Path]) -> "Figure":
    """Test score at the end over the settings that differ within a run.

    A panel for each run. A run over numbers of tasks has a second one: the seconds of
    training for each task, without those before the first record.
    """
    found = [one for path in paths if (one := _read(path)) is not None]
    if not found:
        raise NothingToDraw("needs a run whose networks differ in a setting")
    panels = [
        (one, draw)
        for one in found
        for draw in (_scores, *([_seconds] if one.fields == ["tasks"] else []))
    ]
    figure, axes = curves.grid(len(panels), width=6.4, height=3.6, columns=2)
    for axis, (one, draw) in zip(axes, panels, strict=False):
        draw(axis, one)
    return figure


def _read(path: Path) -> Sweep | None:
    members = trained.read([path])
    name = f"test/{records.score(members[0].config).name}"
    members = [m for m in members if records.last(m, name) is not None]
    if not members:
        return None
    configs = [m.config for m in members]
    fields = [
        name
        for name in configs[0]
        if name != "seed" and any(c[name] != configs[0][name] for c in configs)
    ]
    groups: dict[str, list[trained.Trained]] = {}
    for member in members:
        key = repr([member.config[field] for field in fields])
        groups.setdefault(key, []).append(member)
    return (
        Sweep(members[0].experiment, fields, list(groups.values())) if fields else None
    )


def _scores(axis: "Axes", shown: Sweep) -> None:
    score = records.score(shown.groups[0][0].config)
    ends = [
        [records.last(m, f"test/{score.name}") for m in group] for group in shown.groups
    ]
    mean = score.unit * np.array([np.mean(values) for values in ends])
    spread = score.unit * np.array([np.std(values) for values in ends])
    x = _numbers(shown)
    if x is None:
        _categories(axis, shown, mean, spread)
        plotting.describe(axis, x=score.label, title=shown.title)
    else:
        _line(axis, shown, x, mean, spread, score.label)


def _seconds(axis: "Axes", shown: Sweep) -> None:
    seconds = [_training(group[0]) / len(group) for group in shown.groups]
    counts = _numbers(shown)
    assert counts is not None
    each = np.array(seconds) / counts
    _line(axis, shown, counts, each, None, "training time per task (s)")
    axis.set_ylim(bottom=0)


def _training(member: trained.Trained) -> float:
    """Return the seconds of all updates; compilation ends before the first record.

    The clock begins again where a run was resumed.
    """
    times = [(r["step"], r["seconds"]) for r in member.records if r["step"] > 0]
    steps, seconds = np.array(times, float).T
    gone = np.diff(seconds)
    counted = np.diff(steps)[gone >= 0].sum()
    return float(gone[gone >= 0].sum() * steps[-1] / counted) if counted else np.nan


def _line(
    axis: "Axes",
    shown: Sweep,
    x: np.ndarray,
    mean: np.ndarray,
    spread: np.ndarray | None,
    y: str,
) -> None:
    order = np.argsort(x)
    band = None if spread is None else spread[order]
    plotting.line_with_band(axis, x[order], mean[order], band, marker="o")
    wide = bool(x.min() > 0 and x.max() / x.min() >= _WIDE)
    x_label = records.WORDS.get(shown.fields[0], shown.fields[0])
    plotting.describe(axis, x=x_label, y=y, title=shown.title, log_x=wide)


def _numbers(shown: Sweep) -> np.ndarray | None:
    """Return the values of the only setting that differs, if they are numbers."""
    if len(shown.fields) != 1:
        return None
    values = [_value(group[0], shown.fields[0]) for group in shown.groups]
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        return None
    return np.array(values, float)


def _value(member: trained.Trained, field: str) -> Any:
    """Return a setting; 0 tasks or modules mean as many as there are."""
    value = member.config[field]
    if field in ("tasks", "modules") and value == 0:
        record = records.at_end(member)
        return next(len(v) for k, v in record.items() if k.endswith(_BY_TASK))
    return value


def _categories(
    axis: "Axes", shown: Sweep, mean: np.ndarray, spread: np.ndarray
) -> None:
    """Draw a point for each group, the first on top."""
    places = -np.arange(len(mean))
    with plotting.style():
        axis.errorbar(mean, places, xerr=spread, fmt="o", color=PALETTE[0], capsize=2.5)
        axis.set_yticks(places, [_label(shown, group[0]) for group in shown.groups])
        axis.set_ylim(places[-1] - 0.5, 0.5)


def _label(shown: Sweep, member: trained.Trained) -> str:
    """Write what differs: of many settings those other than the first network's."""
    base = shown.groups[0][0].config
    fields = shown.fields
    if len(fields) > 2:
        kept = ("algorithm", *records.PLACE)
        fields = [f for f in fields if f in kept or member.config[f] != base[f]]
    text = ", ".join(records.named(f, member.config) for f in fields) or "base"
    return textwrap.fill(text, 40)
