"""Figures of SCAN and of the Mathematics Dataset."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modmask.figures import drawing, records
from modmask.figures.records import Groups, Member
from shared import plotting
from shared.plotting import NothingToDraw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCAN = ("scan", "trafo_scan")
SPLITS = {"turn_left": "Turn Left", "jump": "Jump", "length": "Length"}
CONTROL = "simple"
TOKENS = "TURN\nLEFT TURN\nRIGHT JUMP WALK RUN LOOK EOS".split(" ")
"""Actions in the order of their numbers, then the end of a sequence."""
_OUTPUT = ("decoder_output_projection_weight", "output_map_weight")


def _masked(config: dict[str, Any]) -> bool:
    return config["scan_train_split"] == CONTROL


def _groups(paths: Sequence[Path]) -> Groups:
    members = records.collect(paths, SCAN, _masked)
    return records.by_network(
        records.with_prefix(members, f"analysis_results/{CONTROL}/")
    )


def scan_accuracies(paths: Sequence[Path]) -> "Figure":
    """Test accuracy of each split under the full mask and under that of the split."""
    groups = _groups(paths)
    series, losses = {}, {}
    for label, group in groups.items():
        key = "analysis_results/{}/{}/accuracy"
        full = [key.format(CONTROL, split) for split in SPLITS]
        own = [key.format(split, split) for split in SPLITS]
        series[f"{label}, full mask"] = [records.values(group, k, 100) for k in full]
        series[f"{label}, mask of the split"] = [
            records.values(group, k, 100) for k in own
        ]
        losses[f"{label}, difference"] = [
            records.differences(group, a, b, 100)
            for a, b in zip(full, own, strict=True)
        ]
    rows = {**series, **losses}
    width = drawing.wide(len(SPLITS), len(series)) + 3.5
    figure, axes = drawing.with_table(1, 1, len(rows), width=width)
    names = list(SPLITS.values())
    drawing.bars(axes[0, 0], names, series, y="test accuracy (%)", top=100)
    drawing.table(axes[1, 0], names, rows)
    return figure


def scan_removed_vs_baseline(paths: Sequence[Path]) -> "Figure":
    """Test accuracy of each split without the weights of the rest, and never learned.

    A network trained on everything and masked for a split, beside one trained on that
    split alone.
    """
    trained = records.collect(paths, SCAN, lambda config: not _masked(config))
    groups = _groups(paths)
    figure, axes = plotting.figure(1, len(groups), width=5.4, height=3.2, share_y=True)
    drawn = False
    for axis, (label, group) in zip(axes.flat, groups.items(), strict=True):
        task = group[0].config["task"]
        key = "analysis_results/{}/{}/accuracy"
        baseline = [
            records.values(_of(trained, task, s), key.format("network", s), 100)
            for s in SPLITS
        ]
        masked = [records.values(group, key.format(s, s), 100) for s in SPLITS]
        drawn |= any(map(len, baseline))
        series = {"trained on the split": baseline, "masked for the split": masked}
        last = axis is axes[0, -1]
        y = "test accuracy (%)" if axis is axes[0, 0] else ""
        names = list(SPLITS.values())
        drawing.bars(axis, names, series, y=y, top=100, title=label, legend=last)
    if not drawn:
        raise NothingToDraw("no run trained on one of the splits of SCAN")
    return figure


def _of(members: Sequence[Member], task: str, split: str) -> list[Member]:
    own = lambda config: (config["task"], config["scan_train_split"]) == (task, split)
    return [member for member in members if own(member.config)]


def scan_output_token_removed_percentage(paths: Sequence[Path]) -> "Figure":
    """How many of each token's output weights the mask without "jump" removes."""
    series = {}
    for label, group in _groups(paths).items():
        shares = [share for m in group if (share := _removed(m)) is not None]
        if shares:
            series[label] = list(np.stack(shares).T)
    if not series:
        raise NothingToDraw("no exported masks of the full data and of the jump split")
    width = drawing.wide(len(TOKENS), len(series)) + 1.5
    figure, axes = plotting.figure(width=width, height=3.4)
    drawing.bars(axes[0, 0], TOKENS, series, y="output weights removed (%)")
    return figure


def _removed(member: Member) -> np.ndarray | None:
    """Return the percentage of each token's weights in mask 0 that "jump" removes."""
    control = records.final_logits(member, CONTROL)
    jump = records.final_logits(member, "jump")
    if control is None or jump is None:
        return None
    name = next((name for name in _OUTPUT if name in control), None)
    if name is None:
        return None
    before, after = control[name] > 0, jump[name] > 0
    kept = np.sum(before & after, axis=0) / np.maximum(np.sum(before, axis=0), 1)
    return 100 * (1 - kept)


def dm_math(paths: Sequence[Path]) -> "Figure":
    """Accuracy on hard problems of the network, of its mask, and of the easy mask."""
    kinds = {"network": "network", "full mask": "verify", "mask of easy": "easy"}
    key = "analysis_results/{}/test_hard/accuracy"
    members = records.collect(paths, ("deepmind_math",))
    members = records.with_key(members, key.format("verify"))
    tasks = sorted({m.config["math_task"] for m in members})
    inside = [[m for m in members if m.config["math_task"] == task] for task in tasks]
    series = {
        label: [records.values(group, key.format(stage), 100) for group in inside]
        for label, stage in kinds.items()
    }
    names = [task.partition("__")[2].replace("_", " ") for task in tasks]
    width = drawing.wide(len(tasks), len(series)) + 2
    figure, axes = drawing.with_table(1, 1, len(series), width=width)
    y = "accuracy on hard problems (%)"
    drawing.bars(axes[0, 0], names, series, y=y, top=100)
    drawing.table(axes[1, 0], names, series)
    return figure
