"""Figures of runs; each function reads run directories and returns a figure."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shared import plotting, runs
from shared.plotting import NothingToDraw

ORDER = ("bp", "gait", "tp", "itp", "gait_adaptive", "feedback_alignment")
NAMES = {
    "bp": "BP",
    "gait": "GAIT-prop",
    "tp": "target-prop",
    "itp": "ITP",
    "gait_adaptive": "GAIT-prop, adaptive",
    "feedback_alignment": "feedback alignment",
}
# What says nothing about learning.
NOT_IN_LABELS = (
    "seed classes epochs steps eval_every eval_train_rows checkpoint_every "
    "batch_size diagnose solver valid_size"
).split()
PLACE = ("dataset", "widths", "transfer")
"""Settings that say which network learned which data."""


class Member(NamedTuple):
    """One trained network: its settings and its records."""

    experiment: str
    config: dict[str, Any]
    records: list[dict[str, float | int]]


def collect(paths: Sequence[Path]) -> list[Member]:
    """Read all members of some runs."""
    found = []
    for path in paths:
        experiment = runs.read_config(path)["experiment"]
        for place in runs.members(path) or [path]:
            config = runs.read_config(place)["config"]
            found.append(Member(experiment, config, runs.read_metrics(place)))
    return found


def by_label(
    members: Sequence[Member], shown: Sequence[str] = ()
) -> dict[str, list[Member]]:
    """Group members under short names: the rule, and what else tells them apart.

    Args:
        members: trained networks.
        shown: settings that the figure shows in another way.
    """
    if not members:
        return {}
    settings = [member.config for member in members]
    first, ignored = ["algorithm", *PLACE], [*NOT_IN_LABELS, *shown]
    fields = runs.telling_fields(settings, first=first, ignore=ignored)
    groups: dict[str, list[Member]] = {}
    for member in sorted(members, key=lambda m: ORDER.index(m.config["algorithm"])):
        more = [_named(f, member.config) for f in fields if f != "algorithm"]
        name = ", ".join([NAMES[member.config["algorithm"]], *more])
        groups.setdefault(name, []).append(member)
    return groups


def _named(field: str, config: dict[str, Any]) -> str:
    if field == "widths":
        return _shape(config)
    value = config[field]
    return value if field in PLACE else f"{field} {value}"


def series(
    members: Sequence[Member], name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return epochs, mean and standard deviation over members of one metric.

    Members that stopped early drop out where they end.
    """
    values: dict[float, list[float]] = {}
    for member in members:
        for record in member.records:
            if name in record:
                values.setdefault(record["epoch"], []).append(record[name])
    if not values:
        raise NothingToDraw(f"no record of {name}")
    epochs = sorted(values)
    columns = [np.asarray(values[e]) for e in epochs]
    mean, sd = [c.mean() for c in columns], [c.std() for c in columns]
    return np.array(epochs), np.array(mean), np.array(sd)


def network(config: dict[str, Any]) -> str:
    """Name a network by its shape and transfer function."""
    shape = _shape(config)
    return f"{shape}, linear" if _is_linear(config) else shape


def _shape(config: dict[str, Any]) -> str:
    if _is_tower(config):
        return f"tower {'-'.join(map(str, config['widths']))}"
    hidden = len(config["widths"]) - 2
    return f"{hidden} hidden layer{'' if hidden == 1 else 's'}"


def _is_linear(config: dict[str, Any]) -> bool:
    return config["transfer"] == "linear"


def _is_tower(config: dict[str, Any]) -> bool:
    return len(set(config["widths"])) > 1


def learning_curves(
    paths: Sequence[Path], where: Callable[[dict[str, Any]], bool] | None = None
):
    """Accuracy over epochs, training solid and test dashed, a panel per network."""
    members = [m for m in collect(paths) if m.records]
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


def _ends(members: Sequence[Member], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the peak and the final value of each member, in percent."""
    found = [[r[name] for r in m.records if name in r] for m in members]
    found = [values for values in found if values]
    if not found:
        raise NothingToDraw(f"no record of {name}")
    peak, final = [max(v) for v in found], [v[-1] for v in found]
    return 100 * np.array(peak), 100 * np.array(final)


def peak_and_final(paths: Sequence[Path]):
    """Peak and final test accuracy of each rule, mean and deviation over seeds."""
    groups = by_label([m for m in collect(paths) if len(m.records) > 1])
    if not groups:
        raise NothingToDraw("no run with accuracies")
    ends = {label: _ends(group, "test/accuracy") for label, group in groups.items()}
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
    members = [m for m in collect(paths) if len(m.records) > 1]
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
                    peak, final = _ends(cell, "train/accuracy")
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
    members = [m for m in collect(paths) if len(m.records) > 1]
    members = [m for m in members if not _is_tower(m.config)]
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
        ends = [_ends(inside, "test/accuracy") for inside in stacks if inside]
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


def _layers(members: Sequence[Member], statistic: str) -> list[str]:
    names = {n for m in members for r in m.records for n in r}
    found = [n for n in names if n.startswith("layer") and n.endswith(f"/{statistic}")]
    if not found:
        raise NothingToDraw(f"no record of the layers' {statistic} (--diagnose)")
    return sorted(found, key=lambda n: int(n.split("/")[0][5:]))


def angle(paths: Sequence[Path]):
    """Angle of each layer's update to that of BP: by layer, and over training."""
    members = [m for m in collect(paths) if m.config["algorithm"] != "bp"]
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


def _per_layer(axis: Any, group: Sequence[Member], statistic: str) -> None:
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
    members = collect(paths)
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
    rows = [r for m in collect(paths) for r in m.records if "subtract64" in r]
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


FIGURES = {
    "learning-curves": learning_curves,
    "linear-networks": functools.partial(learning_curves, where=_is_linear),
    "tower-networks": functools.partial(learning_curves, where=_is_tower),
    "peak-final": peak_and_final,
    "grid": grid,
    "depth": depth,
    "angle": angle,
    "orthogonality": orthogonality,
    "roundoff": roundoff,
    "scatter": scatter,
}
"""Figures by name; each takes run directories."""
