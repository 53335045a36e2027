"""Node-link diagrams: where images leave a network, right or wrong, and which ones."""

import colorsys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from multipath.trees import data
from multipath.trees.figures import records
from multipath.trees.figures.geometry import NodeLink, node_link
from multipath.trees.figures.records import Point
from shared import plotting
from shared.plotting import NothingToDraw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RIGHT, WRONG = "#4C72B0", "#C44E52"
ARROWS = "#909090"
Place = tuple[float | int, float | int]

_SPREAD = 2
"""Spread of the root of a tree."""

_LEGENDS = {"accuracy": 3.2, "classes": 4.8}
"""Inches that the names of a part take side by side."""


class Shown(NamedTuple):
    """What a diagram shows.

    Attributes:
        dataset: whose images.
        points: networks by rising price of an operation.
        others: data sets whose networks are left out.
    """

    dataset: str
    points: list[Point]
    others: tuple[str, ...] = ()


def find(paths: Sequence[Path], kind: str) -> Shown:
    """Return the networks of a kind, as `records.kind` names it.

    Raises:
        NothingToDraw: if there is none.
    """
    dataset, members, others = records.mixed(paths, [kind])
    # Of several curves, the one of most updates.
    return Shown(dataset, records.curves(members, kind)[-1].points, others)


def chains(
    paths: Sequence[Path],
    *,
    kind: str = "ac",
    parts: Sequence[str] = ("accuracy", "classes"),
) -> "Figure":
    """Where images leave chains: a row for each price, a column for each layer.

    The area of a pie is the share of the test images, of the first seed.

    Args:
        paths: run directories.
        kind: of networks.
        parts: what the pies show, side by side: accuracy, classes.
    """
    shown = find(paths, kind)
    return draw_chains(_figure(), shown, parts)


def tree(paths: Sequence[Path], *, number: int = 0, part: str = "classes") -> "Figure":
    """Where images leave a tree of actors.

    Args:
        paths: run directories.
        number: of the network, by rising price.
        part: what the pies show: accuracy or classes.
    """
    shown = find(paths, "ac-tree")
    return draw_tree(_figure(), shown, number, part)


def draw_chains(
    figure: "Figure",
    shown: Shown,
    parts: Sequence[str] = ("accuracy", "classes"),
    step: int | None = None,
) -> "Figure":
    """Draw chains into an empty figure.

    Args:
        figure: the figure, which takes a new size.
        shown: the networks.
        parts: what the pies show, side by side.
        step: updates made; None means the last record.
    """
    links = [node_link(records.first_node(point, step)) for point in shown.points]
    depth = max(float(link.bounds[1]) for link in links)
    rows, axes = len(links), _axes(figure)
    end = first = min(-0.5, depth / 2 - _LEGENDS[parts[0]] / 2)
    for part in parts:
        # Chains lie in the middle of blocks that their legends fit into.
        width = max(depth + 1, _LEGENDS[part])
        left, end = end + (width - depth) / 2, end + width
        colours = _colours(part, links[0])
        for row, link in enumerate(links):
            _draw_link(axes, link, _parts(link, part), colours, (left, row))
        _arrow(axes, (left, -0.65), (left + depth, -0.65), "Layer Index")
        _legend(axes, part, colours, shown.dataset, (left + depth / 2, -0.95))
    _arrow(axes, (-0.65, 0), (-0.65, max(rows - 1, 0.8)), "Cost of Computation")
    x, y = (min(first, -1.05), end + 0.1), (-1.6, max(rows - 0.05, 1.25))
    figure.set_size_inches(x[1] - x[0], y[1] - y[0])
    _frame(axes, x, y)
    _title(figure, shown, step)
    return figure


def draw_tree(
    figure: "Figure",
    shown: Shown,
    number: int = 0,
    part: str = "classes",
    step: int | None = None,
) -> "Figure":
    """Draw a tree into an empty figure; arguments as of `tree` and `draw_chains`."""
    if number >= len(shown.points):
        raise NothingToDraw(f"no tree number {number}")
    point = shown.points[number]
    link = node_link(records.first_node(point, step), _SPREAD)
    x0, x1, y0, y1 = map(float, link.bounds)
    figure.set_size_inches(x1 - x0 + 2, y1 - y0 + 2)
    axes, colours = _axes(figure), _colours(part, link)
    _draw_link(axes, link, _parts(link, part), colours, (0, 0))
    _arrow(axes, (x0, y0 - 0.55), (x1, y0 - 0.55), "Dataflow")
    columns = 1 if part == "accuracy" else 2
    _legend(axes, part, colours, shown.dataset, (x0 - 1.1, y0 - 0.3), columns)
    _frame(axes, (x0 - 1.15, x1 + 0.85), (y0 - 1, y1 + 1))
    _title(figure, shown._replace(points=[point]), step)
    return figure


def price(point: Point) -> str:
    """Write the price of an operation, 1e-9 without its zero."""
    return f"{point.order:g}".replace("e-0", "e-")


def hues(count: int) -> list[tuple[float, float, float]]:
    """Return evenly spaced colours of equal lightness."""
    return [
        colorsys.hls_to_rgb((i / count + 0.01) % 1, 0.6, 0.65) for i in range(count)
    ]


NLDS: dict[str, Callable[[Sequence[Path]], Any]] = {"nld-0": chains, "nld-1": tree}
"""The diagrams of the paper."""


def _figure() -> "Figure":
    from matplotlib.figure import Figure

    return Figure()


def _axes(figure: "Figure") -> "Axes":
    with plotting.style():
        axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    return axes


def _parts(link: NodeLink, part: str) -> np.ndarray:
    return link.accuracy if part == "accuracy" else link.classes


def _colours(part: str, link: NodeLink) -> list[Any]:
    return [RIGHT, WRONG] if part == "accuracy" else hues(link.classes.shape[1])


def _draw_link(
    axes: "Axes",
    link: NodeLink,
    pies: np.ndarray,
    colours: Sequence[Any],
    offset: Place,
) -> None:
    from matplotlib.collections import LineCollection, PatchCollection
    from matplotlib.patches import Circle, Wedge

    ends = link.edges.reshape(-1, 2, 2) + np.array(offset)
    axes.add_collection(LineCollection(list(ends), colors="black", linewidths=2))
    wedges, filled = [], []
    for centre, radius, pie in zip(
        link.centres + offset, link.radii, pies, strict=True
    ):
        place = float(centre[0]), float(centre[1])
        if np.isnan(pie).any():
            wedges.append(Circle(place, radius))
            filled.append("black")
            continue
        turns = 90 + 360 * np.concatenate([[0], np.cumsum(pie)])
        for k, colour in enumerate(colours):
            if pie[k] > 0:
                wedges.append(Wedge(place, radius, turns[k], turns[k + 1]))
                filled.append(colour)
    # Above the edges.
    pies_drawn = PatchCollection(wedges, facecolors=filled, linewidths=0, zorder=3)
    axes.add_collection(pies_drawn)


def _arrow(axes: "Axes", start: Place, end: Place, text: str) -> None:
    """Draw a grey arrow with its name in the middle, beside it."""
    upwards = start[0] == end[0]
    axes.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": ARROWS, "lw": 1.5}
    )
    axes.annotate(
        text,
        ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2),
        (-6, 0) if upwards else (0, -4),
        textcoords="offset points",
        rotation=90 if upwards else 0,
        ha="right" if upwards else "center",
        va="center" if upwards else "top",
        color=ARROWS,
    )


def _legend(
    axes: "Axes",
    part: str,
    colours: Sequence[Any],
    dataset: str,
    top: Place,
    columns: int | None = None,
) -> None:
    """Name the colours below a block, or beside a tree if columns are given."""
    from matplotlib.legend import Legend
    from matplotlib.patches import Patch

    correct = ["Correct Labels", "Incorrect Labels"]
    names = correct if part == "accuracy" else data.NAMES[dataset]
    with plotting.style():
        # Not `axes.legend`: a panel keeps only one of these.
        legend = Legend(
            axes,
            [Patch(color=colour) for colour in colours],
            list(names),
            loc="lower left" if columns else "upper center",
            bbox_to_anchor=top,
            bbox_transform=axes.transData,
            ncols=columns or min(5, len(names)),
            frameon=False,
        )
    axes.add_artist(legend)


def _frame(axes: "Axes", x: Place, y: Place) -> None:
    axes.set_xlim(*x)
    axes.set_ylim(*y)
    axes.set_aspect("equal")


def _title(figure: "Figure", shown: Shown, step: int | None) -> None:
    texts = records.about(shown.dataset, shown.others)
    if len(shown.points) == 1:
        texts.append(f"k_cpt = {price(shown.points[0])}")
    if step is not None:
        texts.append(f"iteration {step:,}")
    text = textwrap.fill(", ".join(texts), int(12 * figure.get_figwidth()))
    with plotting.style():
        figure.suptitle(text, fontsize=11, y=0.98)
