"""Figures of accuracies: over training, learning rates, depth."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gaitprop.figures.records import (
    PLACE,
    by_label,
    ends_of,
    is_tower,
    network,
    series,
)
from shared import plotting, trained
from shared.plotting import NothingToDraw


def learning_curves(
    paths: Sequence[Path], where: Callable[[dict[str, Any]], bool] | None = None
):
    """Accuracy over epochs, training solid and test dashed, a panel per network."""
    members = [m for m in trained.read(paths) if m.records]
    members = [m for m in members if "test/accuracy" in m.records[-1]]
    if where is not None:
        members = [m for m in members if where(m.config)]
    panels = list(dict.fromkeys(_title(m.config) for m in members))
    if not panels:
        raise NothingToDraw("no run with test accuracies of such a network")
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plotting.figure(rows, columns, width=5.2, height=3.8)
    groups = by_label(members, shown=PLACE)
    for axis, title in zip(axes.flat, panels, strict=False):
        for label, everywhere in groups.items():
            group = [m for m in everywhere if _title(m.config) == title]
            if not group:
                continue
            for split, dashed in (("train", False), ("test", True)):
                x, mean, sd = series(group, f"{split}/accuracy")
                plotting.line_with_band(
                    axis,
                    x,
                    100 * mean,
                    100 * sd if len(group) > 1 else None,
                    label=f"{label}, {split}",
                    colour=plotting.colour(label, list(groups)),
                    dashed=dashed,
                )
        plotting.describe(
            axis, x="epoch", y="accuracy (%)", title=title, legend="inside"
        )
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    return figure


def _title(config: dict[str, Any]) -> str:
    return f"{config['dataset']}: {network(config)}"


def peak_and_final(paths: Sequence[Path]):
    """Peak and final test accuracy of each rule, mean and deviation over seeds."""
    groups = by_label([m for m in trained.read(paths) if len(m.records) > 1])
    if not groups:
        raise NothingToDraw("no run with accuracies")
    ends = {label: ends_of(group, "test/accuracy") for label, group in groups.items()}
    wide = max(4.5, 1.5 * len(groups))
    figure, axes = plotting.figure(width=wide, height=3.4)
    names = ("peak", "final")
    values = {n: [e[i].mean() for e in ends.values()] for i, n in enumerate(names)}
    spread = {n: [e[i].std() for e in ends.values()] for i, n in enumerate(names)}
    short = [label.replace(", ", "\n") for label in groups]
    plotting.bars(axes[0, 0], short, values, spread)
    plotting.describe(axes[0, 0], y="test accuracy (%)", legend="inside")
    return figure


def grid(paths: Sequence[Path]):
    """Training accuracy over learning rate and regulariser, peak and final."""
    members = [m for m in trained.read(paths) if len(m.records) > 1]
    rates = sorted({m.config["learning_rate"] for m in members})
    weights = sorted({m.config["ortho_weight"] for m in members})
    if len(rates) < 2 or len(weights) < 2:
        raise NothingToDraw("needs runs of several learning rates and ortho_weights")
    groups = by_label(members, shown=("learning_rate", "ortho_weight"))
    width, height = 1.4 + 0.75 * len(rates), 1.2 + 0.4 * len(weights)
    figure, axes = plotting.figure(2, len(groups), width=width, height=height)
    for column, (label, group) in enumerate(groups.items()):
        values = np.full((2, len(weights), len(rates)), np.nan)
        for i, weight in enumerate(weights):
            for j, rate in enumerate(rates):
                cell = [
                    m
                    for m in group
                    if m.config["learning_rate"] == rate
                    and m.config["ortho_weight"] == weight
                ]
                if cell:
                    peak, final = ends_of(cell, "train/accuracy")
                    values[:, i, j] = peak.mean(), final.mean()
        for row, kind in enumerate(("peak", "final")):
            axis = axes[row, column]
            plotting.heatmap(
                axis,
                values[row],
                rows=[f"{w:g}" for w in weights],
                columns=[f"{r:g}" for r in rates],
                unit="training accuracy (%)",
                low=10,
                high=100,
                digits=1,
            )
            title = f"{label}, {kind}"
            plotting.describe(axis, x="learning rate", y="ortho_weight", title=title)
    return figure


def depth(paths: Sequence[Path]):
    """Test accuracy over the number of hidden layers, final solid and peak dashed."""
    members = [m for m in trained.read(paths) if len(m.records) > 1]
    members = [m for m in members if not is_tower(m.config)]
    depths = sorted({len(m.config["widths"]) - 2 for m in members})
    if len(depths) < 2:
        raise NothingToDraw("needs runs of several depths")
    figure, axes = plotting.figure(width=5.2, height=3.8)
    groups = by_label(members, shown=("widths",))
    for label, group in groups.items():
        stacks = [
            [m for m in group if len(m.config["widths"]) - 2 == d] for d in depths
        ]
        known = [d for d, inside in zip(depths, stacks, strict=True) if inside]
        ends = [ends_of(inside, "test/accuracy") for inside in stacks if inside]
        for kind, dashed, at in (("final", False, 1), ("peak", True, 0)):
            plotting.line_with_band(
                axes[0, 0],
                known,
                [e[at].mean() for e in ends],
                [e[at].std() for e in ends],
                label=f"{label}, {kind}",
                colour=plotting.colour(label, list(groups)),
                marker="o",
                dashed=dashed,
            )
    y = "test accuracy (%)"
    plotting.describe(axes[0, 0], x="hidden layers", y=y, legend="inside")
    return figure
