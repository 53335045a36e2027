"""What changes in training: accuracy, by task too, entropy, and signs of collapse."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from multipath.routing_networks.figures import records
from shared import plotting, trained
from shared.plotting import PALETTE, NothingToDraw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NETWORKS = 24
"""Panels of figures that show each network in one of its own."""

EVEN = "all modules alike"


class Look(NamedTuple):
    """How the line of one label looks."""

    colour: str
    dashed: bool = False
    marker: str = ""


class Statistic(NamedTuple):
    """What is known of a decision.

    Attributes:
        name: in records, after the decision's.
        label: with its unit.
        unit: what 1 is drawn as.
        even: its value if all of so many modules are used alike.
    """

    name: str
    label: str
    unit: float = 1.0
    even: Any = None


ENTROPY = Statistic("entropy", "entropy of policies (nats)", even=np.log)
MODULES = Statistic("modules", "effective number of modules", even=float)
AGREEMENT = Statistic("agreement", "agreement within a task (%)", 100.0)
DEPTH = Statistic("depth", "decisions of an example")


def accuracy(paths: Sequence[Path]) -> "Figure":
    """Test accuracy over epochs, a panel for each data set and routed model.

    It is the balanced one on one-versus-rest tasks, and an error on the conflict task.
    Baselines of the same data are grey.
    """
    members = [m for m in trained.read(paths) if _scored(m)]
    if not members:
        raise NothingToDraw("no record of test accuracies")
    panels = records.places(members)
    groups = records.by_label(members, shown=records.PLACE)
    figure, axes = grid(len(panels), width=4.6, height=3.6)
    for axis, (title, inside) in zip(axes, panels.items(), strict=False):
        score = records.score(inside[0].config)
        _lines(axis, groups, inside, f"test/{score.name}", score.unit)
        plotting.describe(axis, x="epoch", y=score.label, title=title)
    _legend(figure, axes)
    return figure


def _scored(member: trained.Trained) -> bool:
    score = records.score(member.config)
    return records.last(member, f"test/{score.name}") is not None


def tasks(paths: Sequence[Path]) -> "Figure":
    """Test accuracy of each task over epochs, a panel for each network, seeds' mean."""
    found = records.having(
        trained.read(paths), "test/task_accuracy", "accuracies by task"
    )
    groups = first(records.by_label(found))
    alike = len({group[0].config["dataset"] for group in groups.values()}) == 1
    figure, axes = grid(len(groups), width=4.4, height=3.2, share_y=alike)
    counts = [len(records.last(g[0], "test/task_accuracy")) for g in groups.values()]
    colours = records.colours(max(counts))
    for axis, count, (label, group) in zip(axes, counts, groups.items(), strict=False):
        score = records.score(group[0].config)
        for task, colour in enumerate(colours[:count]):
            x, mean, _ = records.series(group, f"test/task_{score.name}", task)
            plotting.line_with_band(
                axis,
                x,
                score.unit * mean,
                label=f"task {task}",
                colour=colour,
                # Pale partners of strong colours are dashed as well.
                dashed=task >= 10,
            )
        plotting.describe(axis, x="epoch", y=score.label, title=label)
    _legend(figure, axes)
    note(figure, found, len(groups))
    return figure


def entropy(paths: Sequence[Path]) -> "Figure":
    """Mean entropy of the policies over epochs, a panel for each decision."""
    return _by_decision(trained.read(paths), [ENTROPY])


def collapse(paths: Sequence[Path]) -> "Figure":
    """Effective number of modules, and agreement within tasks, over epochs.

    One module for everything is a number of 1 and an agreement of all; routes by task
    keep the agreement and have a number above 1. Recursive routers also differ in how
    many decisions an example takes.
    """
    members = trained.read(paths)
    ends = [record for member in members for record in records.at_end(member).items()]
    recursive = any(k.endswith("/depth") and abs(v - 1) > 1e-3 for k, v in ends)
    statistics = [MODULES, AGREEMENT, *([DEPTH] if recursive else [])]
    return _by_decision(members, statistics)


def first(
    groups: Mapping[str, list[trained.Trained]],
) -> dict[str, list[trained.Trained]]:
    """Return the first networks, as many as a figure takes."""
    return dict(list(groups.items())[:NETWORKS])


def note(
    figure: "Figure", members: Sequence[trained.Trained], shown: int, *, what: str = ""
) -> None:
    """Say above a figure what is shown, of which data, and how many are left out."""
    count, places = len(records.by_label(members)), records.places(members)
    parts = [next(iter(places)) if len(places) == 1 else "", what]
    if count > shown:
        parts.append(f"{shown} of {count} networks")
    with plotting.style():
        figure.suptitle("\n".join(filter(None, parts)), fontsize=12)


def _by_decision(
    members: Sequence[trained.Trained], statistics: Sequence[Statistic]
) -> "Figure":
    """Draw statistics as rows and decisions as columns, for each place."""
    members = records.having(members, f"test/[^/]+/{statistics[0].name}", "decisions")
    panels = records.places(members)
    groups = records.by_label(members, shown=records.PLACE)
    names = {title: _decisions(inside) for title, inside in panels.items()}
    columns = max(map(len, names.values()))
    rows = len(panels) * len(statistics)
    figure, axes = plotting.figure(rows, columns, width=4.0, height=3.0)
    for i, (title, inside) in enumerate(panels.items()):
        for j, statistic in enumerate(statistics):
            row = axes[i * len(statistics) + j]
            for axis, decision in zip(row, names[title], strict=False):
                head = f"{title}\n{decision}" if len(panels) > 1 else decision
                _draw_statistic(axis, groups, inside, decision, statistic)
                y = statistic.label if axis is row[0] else ""
                plotting.describe(axis, x="epoch", y=y, title="" if j else head)
            for axis in row[len(names[title]) :]:
                axis.set_axis_off()
    with plotting.style():
        if len(panels) == 1:
            figure.suptitle(next(iter(panels)), fontsize=12)
    _legend(figure, list(axes.flat))
    return figure


def _decisions(members: Sequence[trained.Trained]) -> list[str]:
    """Return the decisions of all members, those of the deepest first."""
    found = [records.decisions(records.at_end(member)) for member in members]
    deepest = max(found, key=len)
    others = [name for names in found for name in names if name not in deepest]
    return list(dict.fromkeys([*deepest, *others]))


def _draw_statistic(
    axis: "Axes",
    groups: Mapping[str, list[trained.Trained]],
    inside: Sequence[trained.Trained],
    decision: str,
    statistic: Statistic,
) -> None:
    _lines(axis, groups, inside, f"test/{decision}/{statistic.name}", statistic.unit)
    uses = [records.last(member, f"test/{decision}/use") for member in inside]
    counts = {len(use[0]) for use in uses if use}
    with plotting.style():
        # With several numbers of modules one line would be true of some only.
        if statistic.even and len(counts) == 1:
            level = statistic.even(counts.pop())
            axis.axhline(level, color="#555555", linestyle=":", label=EVEN)
            axis.set_ylim(top=1.05 * level)
        axis.set_ylim(bottom=0)


def _lines(
    axis: "Axes",
    groups: Mapping[str, list[trained.Trained]],
    inside: Sequence[trained.Trained],
    name: str,
    unit: float,
) -> None:
    """Draw mean and deviation of a metric, a line for each label."""
    here = {id(member) for member in inside}
    for (label, everywhere), look in zip(groups.items(), _looks(groups), strict=True):
        group = [m for m in everywhere if id(m) in here]
        x, mean, sd = records.series(group, name)
        if not x.size:
            continue
        plotting.line_with_band(
            axis,
            x,
            unit * mean,
            unit * sd if len(group) > 1 else None,
            label=label,
            colour=look.colour,
            marker=look.marker,
            dashed=look.dashed,
        )


def _looks(groups: Mapping[str, list[trained.Trained]]) -> list[Look]:
    """Return a look for each label: baselines grey, unless there is nothing else."""
    routed = [records.is_routed(group[0].config) for group in groups.values()]
    markers = ("", "o", "s", "^", "D", "v", "x", "+")
    found, coloured, grey = [], 0, 0
    for one in routed:
        if one or not any(routed):
            turn, place = divmod(coloured, len(PALETTE))
            marker = markers[turn // 2 % len(markers)]
            found.append(Look(PALETTE[place], bool(turn % 2), marker))
            coloured += 1
        else:
            shade = ("#000000", "#8A8A8A")[grey % 2]
            found.append(Look(shade, True, markers[grey % len(markers)]))
            grey += 1
    return found


def grid(count: int, columns: int = 3, **options: Any) -> "tuple[Figure, list[Axes]]":
    """Return a figure and its panels, row by row; those beyond the count are blank.

    Args:
        count: of panels.
        columns: at most.
        options: of `plotting.figure`.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, axes = plotting.figure(rows, columns, **options)
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    return figure, list(axes.flat)


def _legend(figure: "Figure", axes: "Sequence[Axes]") -> None:
    """Name all lines of a figure once, right of the panels."""
    found: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        found |= {k: v for k, v in zip(labels, handles, strict=True) if k not in found}
    if EVEN in found:
        found[EVEN] = found.pop(EVEN)
    columns = -(-len(found) // int(figure.get_figheight() * 4))
    # Room for the lines and letters, which otherwise the panels would give.
    width = columns * (0.6 + 0.07 * max(map(len, found)))
    figure.set_figwidth(figure.get_figwidth() + width)
    with plotting.style():
        figure.legend(
            list(found.values()),
            list(found),
            loc="outside right upper",
            ncols=columns,
        )
