"""Figures of CIFAR-10 without one class, of stable masks, and of transfer."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modmask.figures import drawing, records
from modmask.figures.records import CLASSES, Groups, Member
from shared import plotting
from shared.plotting import NothingToDraw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REMOVAL = ("cifar10_class_removal", "cifar10_resnet_class_removal")
_DROP = "class_removal/drop/{}/{}"


def cifar10_confusion_diff(paths: Sequence[Path]) -> "Figure":
    """How removing each class changes the confusions, after the reference."""
    reference = "class_removal/confusion_reference"
    members = records.collect(paths, REMOVAL)
    members = [m for m in members if records.export(m, reference) is not None]
    if not members:
        raise NothingToDraw("no run of class removal with confusions")
    groups = records.by_network(members)
    change = "class_removal/confusion_difference/{}".format
    removed = [
        number
        for number in range(len(CLASSES))
        if any(records.export(m, change(number)) is not None for m in members)
    ]
    columns = min(4, 1 + len(removed))
    block = math.ceil((1 + len(removed)) / columns)
    figure, axes = plotting.figure(block * len(groups), columns, width=4.4, height=4.2)
    for index, (label, group) in enumerate(groups.items()):
        panels = list(axes[block * index : block * (index + 1)].flat)
        image = None
        for position, axis in enumerate(panels):
            if position > len(removed):
                axis.set_axis_off()
                continue
            number = removed[position - 1] if position else None
            name = reference if number is None else change(number)
            found = [records.export(m, name) for m in group]
            tables = [100 * table for table in found if table is not None]
            if not tables:
                axis.set_axis_off()
                continue
            what = "full (%)" if number is None else f"without {CLASSES[number]}"
            image = drawing.matrix(
                axis,
                np.stack(tables),
                rows=CLASSES,
                columns=CLASSES,
                low=0 if number is None else -100,
                high=100,
                x="predicted",
                y="true",
                title=f"{label}: {what}",
                colours="cividis" if number is None else "RdBu",
                size=6.5,
            )
        unit = "change (percentage points)"
        drawing.colour_bar(figure, image, np.array(panels), unit)
    return figure


def _removals(paths: Sequence[Path]) -> Groups:
    members = records.collect(paths, REMOVAL)
    members = records.with_prefix(members, "class_removal/drop/")
    return records.by_network(members)


def cifar10_drop_per_class(paths: Sequence[Path]) -> "Figure":
    """What a removed class loses, and the most that another loses for it."""
    groups = _removals(paths)
    width = drawing.wide(len(CLASSES), len(groups)) + 1.5
    figure, axes = plotting.figure(2, 1, width=width, height=3)
    panels = (
        ("ratio", "largest other / target (%)", 10),
        ("target", "drop of the target (%)", 100),
    )
    for axis, (kind, y, top) in zip(axes.flat, panels, strict=True):
        series = {
            label: [_finite(group, _DROP.format(c, kind)) for c in range(len(CLASSES))]
            for label, group in groups.items()
        }
        drawing.bars(axis, CLASSES, series, y=y, top=top)
    return figure


def _finite(group: Sequence[Member], key: str) -> np.ndarray:
    """Leave out ratios to a class that had nothing to lose."""
    found = records.values(group, key)
    return found[np.isfinite(found)]


def cifar10_drop_statistics(paths: Sequence[Path]) -> "Figure":
    """A table of each run: what removed classes lose, and what others lose for it."""
    heads = ["network", "seed", "target drop (%)", "worst other (%)", "ratio (%)"]
    rows = []
    for label, group in _removals(paths).items():
        for member in sorted(group, key=lambda m: m.config["seed"]):
            target, other, ratio = (
                np.concatenate(
                    [_finite([member], _DROP.format(c, k)) for c in range(10)]
                )
                for k in ("target", "largest_other", "ratio")
            )
            rows.append(
                [
                    label,
                    str(member.config["seed"]),
                    f"{target.mean():.1f} (least {target.min():.1f})",
                    f"{other.mean():.1f} (most {other.max():.1f})",
                    f"{ratio.mean():.1f} (most {ratio.max():.1f})",
                ]
            )
    height = 0.6 + 0.3 * (len(rows) + 1)
    figure, axes = plotting.figure(width=8, height=height)
    title = "relative drops of accuracy: mean over the removed classes"
    plotting.describe(axes[0, 0], title=title)
    drawing.write_table(axes[0, 0], heads, rows)
    return figure


def mask_iou(paths: Sequence[Path]) -> "Figure":
    """How alike two masks of one sub-task are, with mean, deviation and count."""
    members = records.collect(paths, ("cifar10_mask_stability",))
    members = records.with_key(members, "masks_stability/average_iou")
    groups = records.by_network(members)
    figure, axes = plotting.figure(len(groups), 1, width=9, height=3)
    prefix = "masks_stability/"
    for axis, (label, group) in zip(axes.flat, groups.items(), strict=True):
        found = records.names_under(group, prefix)
        names = sorted(n.removesuffix("/iou") for n in found if n.endswith("/iou"))
        read = lambda before, group=group, names=names: {
            "IoU": [records.values(group, f"{before}{prefix}{n}/iou") for n in names]
        }
        everything = np.concatenate(read("")["IoU"])
        middle, spread = drawing.mean(everything), drawing.deviation(everything)
        numbers = f"mean {middle:.3f}, sd {spread:.3f}, n = {everything.size}"
        drawing.bars(
            axis,
            [_subtask(name) for name in names],
            read(""),
            y="IoU of two masks",
            top=1,
            chance=read("chance/"),
            title=f"{label}: {numbers}",
        )
    return figure


def _subtask(name: str) -> str:
    """Name a sub-task by its classes: "pair_3_5" has two, "3" leaves one out."""
    numbers = [part for part in name.split("_") if part.isdigit()]
    if not name.startswith("pair_"):
        return f"no {CLASSES[int(numbers[0])]}" if numbers else name
    return "\n".join(CLASSES[int(number)] for number in numbers)


def transfer_sharing(paths: Sequence[Path]) -> "Figure":
    """How much of each permutation's mask earlier ones use already, by layer."""
    members = records.collect(paths, ("permuted_mnist",))
    members = records.with_prefix(members, "permuted_mnist/perm_1/mask_stat/shared/")
    inits = ("transfer_new_init", "transfer_used_init")
    kinds = sorted({tuple(m.config[name] for name in inits) for m in members})[::-1]
    split = {
        kind: [m for m in members if tuple(m.config[n] for n in inits) == kind]
        for kind in kinds
    }
    panels = {
        f"{label}: new logits from {kind[0]:g}, used from {kind[1]:g}": group
        for kind, inside in split.items()
        for label, group in records.by_network(inside).items()
    }
    figure, axes = plotting.figure(1, len(panels), width=5.2, height=3.3, share_y=True)
    place = "permuted_mnist/perm_{}/mask_stat/shared/{}"
    for axis, (title, group) in zip(axes.flat, panels.items(), strict=True):
        # The first layer is new for each permutation.
        names = records.weight_names(group, place.format(1, ""))[1:]
        shown = [p for p in range(1, 11, 2) if _has(group, place.format(p, names[0]))]
        read = lambda before, group=group, names=names, shown=shown: {
            f"T{p + 1}": [
                records.values(group, before + place.format(p, n)) for n in names
            ]
            for p in shown
        }
        drawing.bars(
            axis,
            [f"layer {i + 2}" for i in range(len(names))],
            read(""),
            y="kept weights in use before" if axis is axes[0, 0] else "",
            top=1,
            chance=read("chance/"),
            title=title,
            legend=axis is axes[0, -1],
        )
    return figure


def _has(group: Sequence[Member], key: str) -> bool:
    return any(key in member.results for member in group)
