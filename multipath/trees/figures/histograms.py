"""Where images left networks in the course of training."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from multipath.trees.figures import diagrams, records
from multipath.trees.figures.geometry import routing_histogram
from shared import plotting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NETWORKS = 4


def routing_histograms(paths: Sequence[Path]) -> "Figure":
    """Share of the test images that leave after each layer, the latest log on top.

    Actor chains of the four lowest prices of an operation, first seeds.
    """
    shown = diagrams.find(paths, "ac")
    points = shown.points[:NETWORKS]
    width = 1.1 + 1.15 * len(points)
    figure, grid = plotting.figure(1, len(points), width=width / len(points), height=3)
    for axes, point in zip(grid.flat, points, strict=True):
        steps = records.steps([point])
        values = routing_histogram([records.first_node(point, step) for step in steps])
        with plotting.style():
            image = axes.imshow(
                values,
                vmin=0,
                vmax=1,
                cmap="hot",
                aspect="auto",
                interpolation="nearest",
            )
            axes.grid(visible=False)
            layers = values.shape[1]
            ticks = sorted({layers // 2, layers})
            axes.set_xticks([tick - 1 for tick in ticks], [str(t) for t in ticks])
            rows = sorted({0, len(steps) // 2})
            names = [_short(steps[::-1][row]) for row in rows]
            axes.set_yticks(rows, names if axes is grid[0, 0] else [""] * len(rows))
        left = axes is grid[0, 0]
        title = f"k_cpt = {diagrams.price(point)}"
        plotting.describe(axes, x="layer index", y="iteration" * left, title=title)
        axes.title.set_fontsize(8)
    with plotting.style():
        figure.colorbar(image, ax=list(grid.flat), label="share of images")
        if texts := records.about(shown.dataset, shown.others):
            figure.suptitle(", ".join(texts), fontsize=9)
    return figure


def _short(step: int) -> str:
    """Write thousands as 80k."""
    return f"{step // 1000}k" if step and not step % 1000 else str(step)
