"""What recursive routers do at each step with which commands."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from multipath.routing_networks import commands
from multipath.routing_networks.figures import curves, records
from shared import plotting, trained

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STOP = "#bbbbbb"
"""Colour of the action that ends a route."""

_LEAST = (0, *commands.LENGTHS)
GROUPS = {
    "tasks": ("conjunction", commands.TASKS),
    "marks": ("with the word", commands.MARKS),
    "lengths": (
        "actions meant",
        tuple(
            f"{a + 1} to {b}" for a, b in zip(_LEAST, commands.LENGTHS, strict=False)
        ),
    ),
}
"""Groups of commands: what tells them apart, and their names."""


def steps(paths: Sequence[Path]) -> "Figure":
    """Shares of the actions at each step of a recursive router, at the end of training.

    A row of panels for each network, its first seed, and a column for each way to group
    the test commands. Bars are shares of the commands of a group that still go on.
    """
    found = records.having(trained.read(paths), "test/tasks/routes", "recursive routes")
    shown = curves.first(records.by_label(found))
    figure, axes = plotting.figure(len(shown), len(GROUPS), width=4.2, height=3.4)
    for row, (label, group) in zip(axes, shown.items(), strict=True):
        record = records.first_end(group)
        for axis, (key, (what, names)) in zip(row, GROUPS.items(), strict=True):
            routes = np.asarray(record[f"test/{key}/routes"], float)
            _draw(axis, routes, names)
            place = "outside" if axis is row[-1] else "none"
            plotting.describe(axis, x="step", y=what, title=label, legend=place)
    what = "actions at each step, test commands at the end of training, first seed"
    curves.note(figure, found, len(shown), what=what)
    return figure


def _draw(axis: "Axes", routes: np.ndarray, names: Sequence[str]) -> None:
    """Draw `[groups, steps, actions]`, a row of stacked bars for each group."""
    groups, depth, actions = routes.shape
    colours = [STOP, *records.colours(actions - 1)]
    bottom = np.arange(groups)[:, None] - 0.4 + np.zeros(depth)
    for action in range(actions):
        height = 0.8 * routes[:, :, action]
        label = f"module {action - 1}" if action else "stop"
        axis.bar(
            np.tile(np.arange(1, depth + 1), groups),
            height.ravel(),
            bottom=bottom.ravel(),
            width=0.8,
            color=colours[action],
            label=label,
        )
        bottom = bottom + height
    with plotting.style():
        axis.set_xticks(range(1, depth + 1))
        axis.set_yticks(range(groups), names)
        axis.set_ylim(groups - 0.5, -0.5)
        axis.grid(visible=False)
