"""Where examples go, from their tasks through the modules of each decision."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from multipath.routing_networks.figures import curves, records
from shared import plotting, trained

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Place = tuple[float, float]

NODE = 0.09
"""Width of a node where columns are 1 apart."""

_FILLED = 0.7
"""Part of the height that all examples take, the rest is between nodes."""

_WIDEST = 0.1
"""Most space between nodes."""

_THINNEST = 1e-3
"""Share of the examples below which neither nodes nor ribbons are drawn."""


class Column(NamedTuple):
    """The modules of a decision, or the tasks, one below the other.

    Attributes:
        name: of the decision.
        tops: of the nodes, from 1 at the top to 0; NaN for those not used.
        heights: shares of the examples.
    """

    name: str
    tops: Float[np.ndarray, " nodes"]
    heights: Float[np.ndarray, " nodes"]


class Alluvium(NamedTuple):
    """What the picture of a network shows.

    Attributes:
        columns: tasks, then decisions.
        flows: between successive columns, shares of the examples.
    """

    columns: list[Column]
    flows: list[Float[np.ndarray, "nodes after"]]


def routes(paths: Sequence[Path]) -> "Figure":
    """Alluvial pictures: tasks, then the modules of each decision, at the end.

    A panel for each network, its first seed. The width of a ribbon is the share of the
    test examples that take it, its colour that of a module.
    """
    found = records.having(trained.read(paths), "test/[^/]+/use", "decisions")
    groups = curves.first(records.by_label(found))
    shown = {k: alluvium(records.first_end(group)) for k, group in groups.items()}
    widest = max(len(one.columns) for one in shown.values())
    figure, axes = curves.grid(len(shown), width=1.2 + 1.25 * widest, height=4.2)
    for axis, (label, one) in zip(axes, shown.items(), strict=False):
        _draw(axis, one)
        plotting.describe(axis, title=label)
    shown = "test examples at the end of training, first seed; widths are shares"
    curves.note(figure, found, len(groups), what=shown)
    return figure


def alluvium(record: records.Record, prefix: str = "test/") -> Alluvium:
    """Lay out the routes of a record.

    Tasks are taken to have equally many examples.
    """
    names = chain(record, prefix)
    use = np.asarray(record[f"{prefix}{names[0]}/use"], float)
    known = use.sum(1, keepdims=True) > 0
    flows = [np.where(known, use, 0) / max(known.sum(), 1)]
    for one, after in zip(names, names[1:], strict=False):
        flows.append(np.asarray(record[f"{prefix}{one}-{after}/flow"], float))
    heights = [flows[0].sum(1)]
    for index in range(len(names)):
        leaving = flows[index + 1].sum(1) if index + 1 < len(flows) else 0
        heights.append(np.maximum(flows[index].sum(0), leaving))
    columns = [
        Column(name, _tops(high), high)
        for name, high in zip(["task", *names], heights, strict=True)
    ]
    return Alluvium(columns, flows)


def chain(record: records.Record, prefix: str = "test/") -> list[str]:
    """Return the decisions that follow each other, as far as flows are known."""
    names = records.decisions(record, prefix)
    after = {a: b for a in names for b in names if f"{prefix}{a}-{b}/flow" in record}
    starts = [name for name in names if name not in after.values()]
    found = (starts or names)[:1]
    while (following := after.get(found[-1])) and following not in found:
        found.append(following)
    return found


def _tops(heights: np.ndarray) -> np.ndarray:
    """Return where the nodes that are used begin, in the middle of the height."""
    used = heights >= _THINNEST
    filled = _FILLED * heights[used]
    free = 1 - filled.sum()
    gap = min(free / max(len(filled) - 1, 1), _WIDEST)
    above = (free - gap * (len(filled) - 1)) / 2
    tops = np.full(heights.shape, np.nan)
    tops[used] = 1 - above - np.cumsum(filled + gap) + filled + gap
    return tops


def _draw(axis: "Axes", shown: Alluvium) -> None:
    from matplotlib.patches import Rectangle

    many = max(len(column.heights) for column in shown.columns)
    colours = records.colours(many)
    for place, flow in enumerate(shown.flows):
        # Into the first decision ribbons have the colour of where they end.
        ends = place == 0
        axis.add_collection(_ribbons(shown, place, flow, colours, by_end=ends))
    for place, column in enumerate(shown.columns):
        for node in np.flatnonzero(np.isfinite(column.tops)):
            top, high = column.tops[node], _FILLED * column.heights[node]
            corner = place - NODE / 2, top - high
            colour = colours[node] if place else "#333333"
            axis.add_patch(Rectangle(corner, NODE, high, color=colour, linewidth=0))
            axis.annotate(
                str(node),
                (place - NODE / 2, top - high / 2),
                (-2, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=9 if many <= 12 else 7,
            )
    with plotting.style():
        names = [_caption(column) for column in shown.columns]
        axis.set_xticks(range(len(names)), names)
        axis.set_yticks([])
        axis.grid(visible=False)
        axis.tick_params(length=0)
        axis.set_xlim(-0.3, len(names) - 1 + 0.2)
        axis.set_ylim(-0.02, 1.02)
        for spine in axis.spines.values():
            spine.set_visible(False)


def _caption(column: Column) -> str:
    if column.name == "task":
        return "task"
    used, every = np.isfinite(column.tops).sum(), len(column.tops)
    return f"{column.name}\n{used} of {every} used"


def _ribbons(
    shown: Alluvium,
    place: int,
    flow: np.ndarray,
    colours: Sequence[Any],
    *,
    by_end: bool,
) -> Any:
    """Return the ribbons between a column and the next."""
    from matplotlib.collections import PathCollection

    left, right = (shown.columns[place + k].tops.copy() for k in (0, 1))
    paths, filled = [], []
    for i, j in np.ndindex(*flow.shape):
        width = float(_FILLED * flow[i, j])
        if flow[i, j] >= _THINNEST:
            start, end = place + NODE / 2, place + 1 - NODE / 2
            one, other = (start, float(left[i])), (end, float(right[j]))
            paths.append(_ribbon(one, other, width))
            filled.append(colours[j if by_end else i])
        left[i] -= width
        right[j] -= width
    return PathCollection(paths, facecolors=filled, alpha=0.6, linewidths=0)


def _ribbon(start: Place, end: Place, width: float) -> Any:
    """Return a band whose upper edge runs between two points."""
    from matplotlib.path import Path as Outline

    (x0, y0), (x1, y1) = start, end
    middle = (x0 + x1) / 2
    there = [(x0, y0), (middle, y0), (middle, y1), (x1, y1)]
    back = [(x, y - width) for x, y in reversed(there)]
    codes = [Outline.MOVETO, *[Outline.CURVE4] * 3]
    codes += [Outline.LINETO, *[Outline.CURVE4] * 3, Outline.CLOSEPOLY]
    return Outline([*there, *back, there[0]], codes)
