"""Bars with their spread, chance levels and tables, and matrices with their spread."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from modmask import repetitions
from shared import plotting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Repeated = Float[np.ndarray, "_"]
Series = Mapping[str, Sequence[Repeated]]
"""Repetitions of each bar, by name of the series; empty where there is none."""


def mean(values: Repeated) -> float:
    """Return the mean of the repetitions, NaN of none."""
    return repetitions.aggregate(values.tolist()).mean if len(values) else np.nan


def deviation(values: Repeated) -> float:
    """Return the sample standard deviation, 0 for a single value, NaN for none."""
    return repetitions.aggregate(values.tolist()).sd if len(values) else np.nan


def wide(groups: int, series: int) -> float:
    """Return a width in inches at which bars and their names are readable."""
    return max(4.6, 1.2 + groups * max(0.75, 0.2 * series))


def bars(
    axes: "Axes",
    groups: Sequence[str],
    series: Series,
    *,
    y: str,
    top: float | int | None = None,
    chance: Series | None = None,
    title: str = "",
    legend: bool = True,
) -> None:
    """Draw groups of bars: means over repetitions with their standard deviations.

    Args:
        axes: the panel.
        groups: names under the groups.
        series: repetitions of each bar, one entry per group.
        y: name of the axis, with its unit.
        top: upper end of the axis, if no bar is higher.
        chance: the chance level of each bar, drawn as a line across it.
        title: of the panel.
        legend: name the series right of the panel.
    """
    heights = {k: [mean(v) for v in row] for k, row in series.items()}
    spread = {k: [deviation(v) for v in row] for k, row in series.items()}
    plotting.bars(axes, groups, heights, spread)
    if chance is not None:
        _mark(axes, series, chance)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    if _crowded(axes, groups):
        for label in axes.get_xticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor")
    ends = [a + b for k in heights for a, b in zip(heights[k], spread[k], strict=True)]
    highest = np.nanmax(ends, initial=0)
    if top is not None and highest <= top * 1.1:
        axes.set_ylim(min(0, axes.get_ylim()[0]), top if highest <= top else None)
    many = len(series) > 1 or chance is not None
    shown = "outside" if legend and many else "none"
    plotting.describe(axes, y=y, title=title, legend=shown)


def _crowded(axes: "Axes", groups: Sequence[str]) -> bool:
    place, figure = axes.get_subplotspec(), axes.get_figure(root=True)
    panels = place.get_gridspec().ncols if place else 1
    inches = figure.get_figwidth() / panels if figure else 0
    if any("\n" in name for name in groups):
        return False
    return bool((max(map(len, groups)) + 1) * len(groups) > 9 * inches)


def _mark(axes: "Axes", series: Series, chance: Series) -> None:
    """Draw a line at the chance level across each bar."""
    width, label = 0.8 / len(series), "chance"
    with plotting.style():
        for index, name in enumerate(series):
            offset = (index - (len(series) - 1) / 2) * width
            levels = np.array([mean(v) for v in chance[name]])
            middle = np.arange(len(levels)) + offset
            if np.isfinite(levels).any():
                left, right = middle - width / 2, middle + width / 2
                axes.hlines(levels, left, right, color="black", lw=1.8, label=label)
                label = "_again"


def with_table(
    rows: int, columns: int, series: int, *, width: float | int, height: float | int = 3
) -> "tuple[Figure, np.ndarray]":
    """Return a figure whose every second row of panels is made for tables.

    Args:
        rows, columns: panels that are no tables.
        series: rows of a table.
        width, height: of a panel.
    """
    below = 0.5 + 0.36 * (series + 1)
    mean_height = (height + below) / 2
    figure, axes = plotting.figure(2 * rows, columns, width=width, height=mean_height)
    axes[0, 0].get_gridspec().set_height_ratios([height, below] * rows)
    for axis in axes[1::2].flat:
        axis.set_axis_off()
    return figure, axes


def table(
    axes: "Axes",
    groups: Sequence[str],
    series: Series,
    *,
    digits: int = 1,
    room: int = 0,
) -> None:
    """Write the numbers behind bars: mean ± deviation, and the 95 % interval.

    Args:
        axes: an empty panel.
        groups: heads of the columns.
        series: a row each.
        digits: decimals.
        room: rows that the panel is made for, if they are more than there are series.
    """
    rows = [[k, *(cell(v, digits) for v in row)] for k, row in series.items()]
    many = any(len(v) > 1 for row in series.values() for v in row)
    head = "mean ± sd [95 % interval]" if many else ""
    write_table(axes, [head, *groups], rows, room=room)


def write_table(
    axes: "Axes",
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    room: int = 0,
) -> None:
    """Write rows of text under heads, as wide as the panel.

    Args:
        axes: a panel, which loses its axes.
        heads: one a column; the first column is as wide as its text.
        rows: of texts.
        room: rows that the panel is made for, if they are more.
    """
    from matplotlib.transforms import Bbox

    axes.set_axis_off()
    first = max(len(row[0]) for row in [heads, *rows])
    other = max(len(t) for row in rows for c in row[1:] for t in c.split("\n"))
    other = max(other, *(len(head) for head in heads[1:]))
    whole = first + other * (len(heads) - 1)
    height = (len(rows) + 1) / (max(room, len(rows)) + 1)
    widths = [first / whole, *[other / whole] * (len(heads) - 1)]
    with plotting.style():
        drawn = axes.table(
            [list(heads), *map(list, rows)],
            colWidths=widths,
            bbox=Bbox.from_bounds(0, 1 - height, 1, height),
            cellLoc="center",
        )
        drawn.auto_set_font_size(False)
        drawn.set_fontsize(7.5)
        for (row, column), box in drawn.get_celld().items():
            box.visible_edges = "B" if row == 0 else ""
            box.set_edgecolor("#999999")
            if column == 0:
                box.set_text_props(ha="left")


def cell(values: Repeated, digits: int = 1) -> str:
    """Write mean ± deviation and, below, the 95 % confidence interval of the mean."""
    if not len(values):
        return "–"
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    whole, low, high = repetitions.confidence_interval(values.tolist())
    interval = f"[{low:.{digits}f}, {high:.{digits}f}]"
    return f"{whole:.{digits}f} ± {deviation(values):.{digits}f}\n{interval}"


def matrix(
    axes: "Axes",
    tables: Float[np.ndarray, "repetitions rows columns"],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    low: float | int,
    high: float | int,
    x: str = "",
    y: str = "",
    title: str = "",
    colours: str = "cividis",
    digits: int = 0,
    size: float | int = 8,
) -> Any:
    """Draw the mean of some matrices as colours, with mean ± deviation in the cells.

    Args:
        axes: the panel.
        tables: a matrix per repetition.
        rows, columns: names of the ticks.
        low, high: ends of the colours.
        x, y, title: of the panel.
        colours: name of a colour map.
        digits: decimals in the cells.
        size: of the letters in the cells.

    Returns:
        The image, for a colour bar.
    """
    middle = tables.mean(axis=0)
    spread = tables.std(axis=0, ddof=1) if len(tables) > 1 else None
    with plotting.style():
        image = axes.imshow(middle, vmin=low, vmax=high, cmap=colours, aspect="auto")
        axes.grid(visible=False)
        axes.set_yticks(np.arange(len(rows)), rows)
        axes.set_xticks(np.arange(len(columns)), columns)
        if max(map(len, columns)) * len(columns) > 40:
            axes.tick_params(axis="x", rotation=90)
        for spine in axes.spines.values():
            spine.set_visible(False)
        for (row, column), value in np.ndenumerate(middle):
            if not np.isfinite(value):
                continue
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
            # Adding 0 turns a rounded -0 into 0.
            text = f"{round(value, digits) + 0:.{digits}f}"
            text += "" if spread is None else f"\n±{spread[row, column]:.{digits}f}"
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=size,
                color="white" if dark else "black",
            )
    plotting.describe(axes, x=x, y=y, title=title)
    return image


def colour_bar(figure: "Figure", image: Any, axes: np.ndarray, label: str) -> None:
    """Draw one scale of colours beside many panels."""
    with plotting.style():
        figure.colorbar(image, ax=list(axes.flat), label=label, fraction=0.03)


def hide(axes: Sequence["Axes"]) -> None:
    """Leave the panels empty that are not needed."""
    for axis in axes:
        axis.set_axis_off()
