"""Which tasks use which modules, as heat maps."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from multipath.routing_networks.figures import curves, records
from shared import plotting, trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def use(paths: Sequence[Path]) -> "Figure":
    """Share of each task's examples that go to each module, at the end of training.

    A row of panels for each network, its first seed, and a column for each decision.
    """
    return _maps(paths, "use", "share of a task's examples")


def policies(paths: Sequence[Path]) -> "Figure":
    """Mean probability of each module for a task's examples, as `use`."""
    return _maps(paths, "policy", "mean probability")


def _maps(paths: Sequence[Path], kind: str, unit: str) -> "Figure":
    what = "policies" if kind == "policy" else "decisions"
    found = records.having(trained.read(paths), f"test/[^/]+/{kind}", what)
    groups = curves.first(records.by_label(found))
    ends = {label: records.first_end(group) for label, group in groups.items()}
    names = {label: records.decisions(record) for label, record in ends.items()}
    columns = max(map(len, names.values()))
    figure, axes = plotting.figure(len(groups), columns, width=3.3, height=2.9)
    for row, (label, record) in zip(axes, ends.items(), strict=True):
        for axis, name in zip(row, names[label], strict=False):
            shares = np.asarray(record[f"test/{name}/{kind}"], float)
            plotting.heatmap(
                axis,
                shares,
                rows=_ticks(shares.shape[0]),
                columns=_ticks(shares.shape[1]),
                unit=unit if name == names[label][-1] else "",
                low=0,
                high=1,
                show_values=False,
            )
            x = "agent" if name == "dispatcher" else "module"
            y = "task" if axis is row[0] else ""
            plotting.describe(axis, x=x, y=y, title=f"{label}\n{name}")
        for axis in row[len(names[label]) :]:
            axis.set_axis_off()
    shown = "test examples at the end of training, first seed"
    curves.note(figure, found, len(groups), what=shown)
    return figure


def _ticks(count: int) -> list[str]:
    """Return the numbers of rows or columns, every second one if they are many."""
    step = 1 if count <= 10 else 2
    return [str(i) if i % step == 0 else "" for i in range(count)]
