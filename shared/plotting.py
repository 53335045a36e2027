"""One style for every picture, drawn without a display and saved as PNG and PDF."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from shared import disk
from shared.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#555555",
    "#8C6D1F",
)
"""Colours that stay apart under colour blindness and in grey (Okabe and Ito, 2008)."""

Numbers = Float[np.ndarray, " points"] | Sequence[float | int]

STYLE: Any = {
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.7,
    "lines.markersize": 4.5,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.fontsize": 9,
    "pdf.fonttype": 42,
    "image.cmap": "cividis",
}


class NothingToDraw(UsageError):
    """The runs hold no records of what a figure shows.

    Args:
        reason: what is missing, in words.
    """

    def __init__(self, reason: str):
        super().__init__("runs", reason, "records that the figure can show")
        self.reason = reason

    def __reduce__(self):
        return type(self), (self.reason,)


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw in the style of the library inside this context, and only there."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


def colour(label: str, labels: Sequence[str]) -> str:
    """Return the colour of a label: the same in every picture that lists `labels`."""
    return PALETTE[list(labels).index(label) % len(PALETTE)]


def figure(
    rows: int = 1,
    columns: int = 1,
    *,
    width: float | int = 4.4,
    height: float | int = 3.2,
    title: str = "",
    share_x: bool = False,
    share_y: bool = False,
) -> "tuple[Figure, np.ndarray]":
    """Return a figure and its axes as an array `[rows, columns]`.

    Args:
        rows, columns: panels.
        width, height: size of one panel in inches.
        title: stands above all panels.
        share_x, share_y: give all panels the same limits.
    """
    from matplotlib.figure import Figure

    with style():
        # Not pyplot: no backend is chosen, and no global list keeps the figure alive.
        drawn = Figure(figsize=(columns * width, rows * height), layout="constrained")
        axes = drawn.subplots(
            rows, columns, squeeze=False, sharex=share_x, sharey=share_y
        )
        if title:
            drawn.suptitle(title, fontsize=12)
    return drawn, axes


def describe(
    axes: "Axes",
    *,
    x: str = "",
    y: str = "",
    title: str = "",
    legend: Literal["none", "inside", "outside"] = "none",
    log_x: bool = False,
    log_y: bool = False,
) -> None:
    """Label a panel: axes with their units, a title, a legend if asked for.

    Args:
        axes: the panel.
        x, y: names of the axes with units, such as "time (s)".
        title: what the panel shows.
        legend: where to name the things drawn; outside is right of the panel.
        log_x, log_y: use a logarithmic axis.
    """
    with style():
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.set_title(title)
        if log_x:
            axes.set_xscale("log")
        if log_y:
            axes.set_yscale("log")
        if not axes.get_legend_handles_labels()[1]:
            return
        if legend == "inside":
            axes.legend()
        elif legend == "outside":
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def line_with_band(
    axes: "Axes",
    x: Numbers,
    mean: Numbers,
    spread: Numbers | None = None,
    *,
    label: str = "",
    colour: str = PALETTE[0],
    marker: str = "",
    dashed: bool = False,
) -> None:
    """Draw a curve and, around it, mean +- spread.

    Args:
        axes: the panel.
        x, mean: the curve; NaN leaves a gap.
        spread: half the height of the band, such as a standard deviation over seeds.
        label: name in the legend.
        colour: see `colour`.
        marker: matplotlib's marker, at some fifteen points.
        dashed: draw a dashed line.
    """
    x, mean = np.asarray(x, float), np.asarray(mean, float)
    with style():
        axes.plot(
            x,
            mean,
            label=label or None,
            color=colour,
            marker=marker,
            markevery=max(1, len(x) // 15),
            linestyle="--" if dashed else "-",
        )
        if spread is not None:
            band = np.asarray(spread, float)
            axes.fill_between(
                x, mean - band, mean + band, color=colour, alpha=0.18, linewidth=0
            )


def bars(
    axes: "Axes",
    groups: Sequence[str],
    values: Mapping[str, Numbers],
    spread: Mapping[str, Numbers] | None = None,
    *,
    labels: Sequence[str] | None = None,
) -> None:
    """Draw groups of bars side by side.

    Args:
        axes: the panel.
        groups: names under the groups.
        values: for each series, one value a group.
        spread: error bars of the same shape.
        labels: all series of a set of pictures, so that colours agree between them.
    """
    labels = list(values) if labels is None else labels
    width = 0.8 / len(values)
    with style():
        for index, (label, heights) in enumerate(values.items()):
            offset = (index - (len(values) - 1) / 2) * width
            axes.bar(
                np.arange(len(groups)) + offset,
                heights,
                width * 0.94,
                yerr=None if spread is None else spread[label],
                capsize=2.5,
                label=label,
                color=colour(label, labels),
            )
        axes.set_xticks(np.arange(len(groups)), groups)
        axes.grid(axis="x", visible=False)


def heatmap(
    axes: "Axes",
    values: Float[np.ndarray, "rows columns"],
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    unit: str = "",
    low: float | int | None = None,
    high: float | int | None = None,
    show_values: bool | None = None,
    digits: int = 2,
) -> None:
    """Draw a matrix as colours with a scale beside it.

    Args:
        axes: the panel.
        values: the matrix; NaN stays blank.
        rows, columns: names of the ticks.
        unit: what the colours mean.
        low, high: ends of the scale; the extremes of the values if left out.
        show_values: write the numbers into the cells; default: if they fit.
        digits: decimals of these numbers.
    """
    values = np.asarray(values, float)
    if show_values is None:
        show_values = max(values.shape) <= 12
    with style():
        image = axes.imshow(values, vmin=low, vmax=high, aspect="auto")
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        if rows:
            axes.set_yticks(np.arange(len(rows)), rows)
        if columns:
            crowded = max(map(len, columns)) * len(columns) > 40
            axes.set_xticks(np.arange(len(columns)), columns)
            if crowded:
                axes.tick_params(axis="x", rotation=90)
        axes.figure.colorbar(image, ax=axes, label=unit)
        if show_values:
            _write_values(axes, values, image, digits)


def image_grid(
    axes: "Axes",
    images: Float[np.ndarray, "count height width"],
    *,
    columns: int = 8,
    low: float | int | None = None,
    high: float | int | None = None,
) -> None:
    """Draw small grey images as tiles of one panel, row by row."""
    count, height, width = images.shape
    tall = -(-count // columns)
    canvas = np.full((tall * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for index, image in enumerate(np.asarray(images, float)):
        top = index // columns * (height + 1)
        left = index % columns * (width + 1)
        canvas[top : top + height, left : left + width] = image
    with style():
        axes.imshow(canvas, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        axes.set_axis_off()


def save(figure: "Figure", path: str | os.PathLike) -> list[Path]:
    """Write a figure as PNG and PDF, each complete or not at all.

    Args:
        figure: from `figure`.
        path: file name without suffix; its directory is created.

    Returns:
        The two files.

    Raises:
        UsageError: if the directory cannot be written.
    """
    path = Path(path)
    written = []
    for suffix in ("png", "pdf"):
        target = path.with_name(f"{path.name}.{suffix}")
        # Without its date the same figure gives the same file.
        metadata = {"CreationDate": None} if suffix == "pdf" else None
        with disk.writable("figure file", path), disk.replacing(target) as draft:
            with style():
                figure.savefig(draft, format=suffix, metadata=metadata)
        written.append(target)
    return written


def _write_values(axes: "Axes", values: np.ndarray, image: Any, digits: int) -> None:
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
            axes.text(
                column,
                row,
                f"{value:.{digits}f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
            )
