"""Figures of the layers: their updates beside those of BP, and their kernels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gaitprop.figures.records import NAMES, ORDER, by_label, series
from shared import plotting, runs, trained
from shared.plotting import NothingToDraw


def _layers(members: Sequence[trained.Trained], statistic: str) -> list[str]:
    names = {n for m in members for r in m.records for n in r}
    found = [n for n in names if n.startswith("layer") and n.endswith(f"/{statistic}")]
    if not found:
        raise NothingToDraw(f"no record of the layers' {statistic} (--diagnose)")
    return sorted(found, key=lambda n: int(n.split("/")[0][5:]))


def angle(paths: Sequence[Path]):
    """Angle of each layer's update to that of BP: by layer, and over training."""
    members = [m for m in trained.read(paths) if m.config["algorithm"] != "bp"]
    names = _layers(members, "angle")
    groups = {k: v for k, v in by_label(members).items() if v[0].records}
    figure, axes = plotting.figure(1, 1 + len(groups), width=4.6, height=3.6)
    for label, group in groups.items():
        own = _layers(group, "angle")
        curves = [series(group, name) for name in own]
        numbers = [int(name.split("/")[0][5:]) for name in own]
        for at, when, dashed in ((0, "start", True), (-1, "end", False)):
            plotting.line_with_band(
                axes[0, 0],
                numbers,
                [mean[at] for _, mean, _ in curves],
                [sd[at] for _, _, sd in curves],
                label=f"{label}, {when}",
                colour=plotting.colour(label, list(groups)),
                marker="o",
                dashed=dashed,
            )
    layers = range(1, len(names) + 1)
    axes[0, 0].set_xticks(list(layers))
    y = "angle to BP (degrees)"
    plotting.describe(axes[0, 0], x="layer", y=y, title="by layer", legend="inside")
    for axis, (label, group) in zip(axes[0, 1:], groups.items(), strict=True):
        _per_layer(axis, group, "angle")
        plotting.describe(axis, x="epoch", y=y, title=label, legend="inside")
    return figure


def _per_layer(axis: Any, group: Sequence[trained.Trained], statistic: str) -> None:
    names = _layers(group, statistic)
    for index, name in enumerate(names):
        x, mean, sd = series(group, name)
        plotting.line_with_band(
            axis,
            x,
            mean,
            sd if len(group) > 1 else None,
            label=f"layer {name.split('/')[0][5:]}",
            colour=plotting.PALETTE[index % len(plotting.PALETTE)],
        )


def orthogonality(paths: Sequence[Path]):
    """Off-diagonal norm of W W^T and condition number of each layer over training."""
    members = trained.read(paths)
    _layers(members, "off_norm")
    groups = by_label([m for m in members if m.records])
    figure, axes = plotting.figure(2, len(groups), width=4.4, height=3.2, share_x=True)
    rows = (("off_norm", "‖off(W Wᵀ)‖"), ("condition", "condition number"))
    for column, (label, group) in enumerate(groups.items()):
        for row, (statistic, name) in enumerate(rows):
            axis = axes[row, column]
            _per_layer(axis, group, statistic)
            plotting.describe(
                axis,
                x="epoch" if row else "",
                y=name,
                title="" if row else label,
                legend="inside" if column == 0 and row == 0 else "none",
                # Condition numbers near 1 are unreadable on a logarithmic axis.
                log_y=bool(axis.dataLim.ymax > 20 * axis.dataLim.ymin),
            )
    return figure


def roundoff(paths: Sequence[Path]):
    """Relative error of the first layer's GAIT update over depth, both forms."""
    rows = [r for m in trained.read(paths) for r in m.records if "subtract64" in r]
    if not rows:
        raise NothingToDraw("no record of the roundoff experiment")
    rows = sorted(rows, key=lambda row: row["hidden"])
    figure, axes = plotting.figure(width=5.2, height=3.8)
    curves = {
        "subtract32": "published form, float32",
        "subtract64": "published form, float64",
        "difference32": "difference form, float32",
    }
    for index, (name, label) in enumerate(curves.items()):
        plotting.line_with_band(
            axes[0, 0],
            [row["hidden"] for row in rows],
            [row[name] for row in rows],
            label=label,
            colour=plotting.PALETTE[index],
            marker="o",
        )
    y = "relative error of layer 1's update"
    plotting.describe(axes[0, 0], x="hidden layers", y=y, legend="inside", log_y=True)
    return figure


def scatter(paths: Sequence[Path]):
    """Entries of each layer's update against those of BP, after training."""
    from gaitprop.train import updates

    chosen = [p for p in paths if runs.read_summary(p)]
    pairs = [pair for path in chosen for pair in updates(path) if pair.rule != "bp"]
    if not pairs:
        raise NothingToDraw("no finished run of a rule other than BP")
    pairs = sorted(pairs, key=lambda pair: ORDER.index(pair.rule))
    first = {pair.rule: pair for pair in reversed(pairs)}
    first = {rule: first[rule] for rule in reversed(first)}
    columns = max(len(pair.own) for pair in first.values())
    figure, axes = plotting.figure(len(first), columns, width=2.6, height=2.6)
    for row, (rule, pair) in enumerate(first.items()):
        for column, (own, bp) in enumerate(zip(pair.own, pair.bp, strict=True)):
            axis = axes[row, column]
            # A fixed sample: a full kernel has too many entries to draw.
            pick = np.random.default_rng(0).permutation(own.size)[:4000]
            axis.plot(bp.ravel()[pick], own.ravel()[pick], ".", ms=1.5, alpha=0.5)
            title = f"layer {column + 1}" if row == 0 else ""
            y = f"{NAMES[rule]} update" if column == 0 else ""
            plotting.describe(axis, x="BP update", y=y, title=title)
            axis.ticklabel_format(style="sci", scilimits=(0, 0))
    return figure
