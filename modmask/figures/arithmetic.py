"""Figures of addition and multiplication, and of double addition."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modmask.figures import drawing, records
from modmask.figures.records import Groups, Member
from shared import plotting
from shared.plotting import NothingToDraw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ADDMUL = ("addmul_ff", "addmul")
TUPLE = ("tuple_ff", "tuple_ff_copyweight", "tuple")
SIGNS = {"add": "+", "mul": "×"}
CHANCE = "chance/"
MOST = 4
"""Networks in one panel of bars: each has two colours of the eight."""

Places = Mapping[str, str]
"""Where the accuracies under a group's name stand in the results."""


def addmul_confusion(paths: Sequence[Path]) -> "Figure":
    """Which operation each mask and each inverse mask performs, a row per network."""
    stages = {"full": "verify", **{sign: stage for stage, sign in SIGNS.items()}}
    kinds = {f"mask {name}": f"confusion/{s}" for name, s in stages.items()}
    for name, stage in stages.items():
        kinds[f"not {name}"] = f"inverse_mask_test/{stage}/confusion"
    members = records.collect(paths, ADDMUL)
    chosen = [m for m in members if records.export(m, "confusion/verify") is not None]
    if not chosen:
        raise NothingToDraw("no run of addition and multiplication with confusions")
    groups = records.by_network(chosen)
    rows, columns = len(groups), len(kinds)
    figure, axes = plotting.figure(rows, columns, width=2.1, height=2.3)
    image = None
    for row, (label, group) in enumerate(groups.items()):
        for column, (title, name) in enumerate(kinds.items()):
            found = [records.export(member, name) for member in group]
            tables = [_percent_of_true(table) for table in found if table is not None]
            axis = axes[row, column]
            if not tables:
                axis.set_axis_off()
                continue
            image = drawing.matrix(
                axis,
                np.stack(tables),
                rows=list(SIGNS.values()),
                columns=[*SIGNS.values(), "none"],
                low=0,
                high=100,
                x="predicted" if row == rows - 1 else "",
                y=f"{label}\ntrue" if column == 0 else "",
                title=title if row == 0 else "",
            )
    drawing.colour_bar(figure, image, axes, "share of the operation (%)")
    return figure


def _percent_of_true(confusion: np.ndarray) -> np.ndarray:
    """Turn counts `[3 predicted, 2 true]` into percent of each true operation."""
    rows = confusion.T.astype(float)
    # An item whose two results coincide is in both columns, so that the shares of a
    # row are those of its entries, not of its items.
    return 100 * rows / np.maximum(rows.sum(axis=1, keepdims=True), 1e-12)


def addmul_iou(paths: Sequence[Path]) -> "Figure":
    """How alike the masks of addition and of multiplication are, layer by layer."""
    return _similarity(paths, ADDMUL, "add", "mul")


def tuple_iou(paths: Sequence[Path]) -> "Figure":
    """How alike the masks of the two additions are, layer by layer."""
    return _similarity(paths, TUPLE, "1", "2")


def _similarity(
    paths: Sequence[Path], tasks: Sequence[str], first: str, second: str
) -> "Figure":
    pair = f"{first}/{second}"
    kinds = {"IoU": f"mask_iou/{pair}/", "IoMin": f"mask_iomin/{pair}/"}
    # The masks do not depend on what the inverse test does.
    members = records.collect(paths, tasks, ignore=("inverse_io",))
    members = records.with_prefix(members, kinds["IoU"])
    groups = records.by_network(members, shown=("inverse_io",))
    axes, figure = _panels(groups, width=5.0)
    for axis, (label, group) in zip(axes, groups.items(), strict=False):
        names = records.weight_names(group, kinds["IoU"])
        read = lambda before, group=group, names=names: {
            kind: [records.values(group, f"{before}{key}{n}") for n in names]
            for kind, key in kinds.items()
        }
        drawing.bars(
            axis,
            records.layer_names(names),
            read(""),
            y="similarity of the masks",
            top=1,
            chance=read(CHANCE),
            title=label,
        )
    return figure


def _panels(groups: Groups, *, width: float | int) -> "tuple[list[Axes], Figure]":
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    figure, axes = plotting.figure(rows, columns, width=width, height=3.2)
    drawing.hide(list(axes.flat[len(groups) :]))
    return list(axes.flat), figure


def addmul_performance(paths: Sequence[Path]) -> "Figure":
    """Accuracy on each operation under each mask and each inverse mask."""
    members = records.collect(paths, ADDMUL)
    members = records.with_key(members, "analysis_results/verify/add/accuracy")
    parts = {sign: f"{name}/accuracy" for name, sign in SIGNS.items()}
    places = _places("verify", {sign: name for name, sign in SIGNS.items()})
    return _performance({"": records.by_network(members)}, places, parts)


def tuple_performance(paths: Sequence[Path]) -> "Figure":
    """Accuracy on each pair under each mask and each inverse mask.

    Runs whose inverse test spares inputs and outputs have a panel of their own.
    """
    return _performance(_by_inverse_test(paths), *_pairs())


def tuple_performance_each(paths: Sequence[Path]) -> "Figure":
    """`tuple_performance` with a panel per network."""
    split = {
        f"{label}{', ' if title else ''}{title}": {"": group}
        for title, groups in _by_inverse_test(paths).items()
        for label, group in groups.items()
    }
    return _performance(split, *_pairs())


def _pairs() -> tuple[Places, Places]:
    parts = {f"pair {i + 1}": f"iid/accuracy/tuple/{i}" for i in range(2)}
    return _places("0", {"pair 1": "1", "pair 2": "2"}), parts


def _places(control: str, stages: Mapping[str, str]) -> Places:
    places = {"Full": f"analysis_results/{control}"}
    for name, stage in stages.items():
        places[name] = f"analysis_results/{stage}"
        places[f"not {name}"] = f"inverse_mask_test/{stage}"
    return places


def _by_inverse_test(paths: Sequence[Path]) -> dict[str, Groups]:
    members = records.collect(paths, TUPLE)
    members = records.with_key(members, "analysis_results/0/iid/accuracy/tuple/0")
    titles = {
        "none": "",
        "fullmask": "inverse test with the control's mask at inputs and outputs",
        "ones": "inverse test without masks at inputs and outputs",
    }
    split = {
        title: [m for m in members if m.config["inverse_io"] == kind]
        for kind, title in titles.items()
    }
    return {t: records.by_network(inside) for t, inside in split.items() if inside}


def _performance(
    panels: Mapping[str, Groups], places: Places, parts: Mapping[str, str]
) -> "Figure":
    split = [
        (title, dict(list(groups.items())[start : start + MOST]))
        for title, groups in panels.items()
        for start in range(0, len(groups), MOST)
    ]
    most = max(len(groups) for _, groups in split) * len(parts)
    width = max(8.5, drawing.wide(len(places), most) + 3)
    figure, axes = drawing.with_table(len(split), 1, most, width=width)
    for row, (title, groups) in enumerate(split):
        series = {
            f"{label} {part}".strip(): [
                records.values(group, f"{place}/{key}", 100)
                for place in places.values()
            ]
            for label, group in groups.items()
            for part, key in parts.items()
        }
        upper, lower = axes[2 * row, 0], axes[2 * row + 1, 0]
        drawing.bars(
            upper, list(places), series, y="accuracy (%)", top=100, title=title
        )
        drawing.table(lower, list(places), series, room=most)
    return figure


def addmul_weight_proportion(paths: Sequence[Path]) -> "Figure":
    """How many weights of each layer the two masks keep, and how many in all."""
    members = records.collect(paths, ADDMUL)
    members = records.with_key(members, "count/add/total", "count/mul/total")
    groups = records.by_network(members)
    axes, figure = _panels(groups, width=4.8)
    for axis, (label, group) in zip(axes, groups.items(), strict=False):
        names = records.weight_names(group, "count/add/")
        series = {
            sign: [records.values(group, f"count/{stage}/{n}") for n in names]
            for stage, sign in SIGNS.items()
        }
        drawing.bars(
            axis,
            records.layer_names(names),
            series,
            y="weights kept",
            top=_published_top(series),
            title=_totals(label, group),
        )
    return figure


def _published_top(series: drawing.Series) -> float | None:
    """Return the end of the published axis where it suits what is drawn."""
    highest = max(drawing.mean(v) for row in series.values() for v in row)
    return 2.2e4 if 0.25 * 2.2e4 < highest <= 2.2e4 else None


def _totals(label: str, group: Sequence[Member]) -> str:
    add, mul = (records.values(group, f"count/{stage}/total") for stage in SIGNS)
    ratio = drawing.mean(add / np.maximum(mul, 1))
    totals = f"+ {drawing.mean(add):,.0f}, × {drawing.mean(mul):,.0f}"
    return f"{label}\n{totals} in all, ratio {ratio:.2f}"


def weight_sharing_vs_size(paths: Sequence[Path]) -> "Figure":
    """How much of the mask of addition multiplication uses too, by network size."""
    key = "mask_stat/all/shared_1"
    members = records.collect(paths, ("addmul_ff",))
    groups = records.by_network(records.with_key(members, key))
    names = [_with_nickname(label, group[0]) for label, group in groups.items()]
    figure, axes = plotting.figure(width=drawing.wide(len(groups), 4) + 1, height=3.4)
    read = lambda name: {
        "shared": [records.values(group, name, 100) for group in groups.values()]
    }
    drawing.bars(
        axes[0, 0],
        names,
        read(key),
        y="weights of + that × keeps too (%)",
        chance=read(f"{CHANCE}{key}"),
    )
    return figure


def _with_nickname(label: str, member: Member) -> str:
    sizes = member.config["layer_sizes"]
    short = label.removeprefix("FNN ").replace(", ", "\n")
    return short.replace(records.shape(sizes), records.shape(sizes, nickname=True), 1)


def mask_weight_sensitivity(paths: Sequence[Path]) -> "Figure":
    """Accuracy and sharing over the mask loss weight, a panel per feed-forward size."""
    keys = "analysis_results/verify/iid/accuracy", "mask_stat/all/shared_1"
    members = records.collect(paths, ("addmul_ff",))
    members = records.with_key(members, *keys)
    groups = records.by_network(members, shown=("mask_loss_weight",))
    weight = lambda member: member.config["mask_loss_weight"]
    groups = {k: v for k, v in groups.items() if len(set(map(weight, v))) > 1}
    if not groups:
        raise NothingToDraw("needs runs of several mask loss weights")
    shares = [100 * m.results[keys[1]] for group in groups.values() for m in group]
    ends = min(25, *shares), max(55, *shares)
    figure, axes = plotting.figure(1, len(groups), width=5, height=3.6)
    points: Any = None
    for axis, (label, group) in zip(axes.flat, groups.items(), strict=True):
        weights = sorted(set(map(weight, group)))
        inside = [[m for m in group if weight(m) == w] for w in weights]
        values = [[records.values(m, key, 100) for m in inside] for key in keys]
        points = _scatter(axis, weights, values[0], values[1], ends)
        x = "mask loss weight β = bα"
        plotting.describe(axis, x=x, y="accuracy (%)", title=label, log_x=True)
    with plotting.style():
        figure.colorbar(points, ax=list(axes.flat), label="shared weights (%)")
    return figure


def _scatter(
    axis: "Axes",
    weights: Sequence[float],
    accuracies: Sequence[np.ndarray],
    shares: Sequence[np.ndarray],
    ends: tuple[float | int, float | int],
):
    """Draw a point per weight, the usual one as a star on a red line."""
    middle = [drawing.mean(v) for v in accuracies]
    spread = [drawing.deviation(v) for v in accuracies]
    shared = [drawing.mean(v) for v in shares]
    usual = [w == records.USUAL_WEIGHT for w in weights]
    points = None
    with plotting.style():
        axis.axvline(records.USUAL_WEIGHT, color="#E03030", lw=2.5, alpha=0.5)
        axis.errorbar(weights, middle, spread, fmt="none", ecolor="#999999", lw=1)
        for chosen, marker, size in ((False, "o", 36), (True, "*", 150)):
            at = [i for i, star in enumerate(usual) if star == chosen]
            points = axis.scatter(
                [weights[i] for i in at],
                [middle[i] for i in at],
                c=[shared[i] for i in at],
                vmin=ends[0],
                vmax=ends[1],
                marker=marker,
                s=size,
                edgecolors="black",
                linewidths=0.4,
                zorder=3,
            )
    return points
