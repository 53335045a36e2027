"""Figures of masks of any task: halves, histograms, faithfulness, training."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modmask import pictures
from modmask.config import TASKS
from modmask.figures import arithmetic, drawing, records
from modmask.figures.records import Groups, Member
from shared import plotting, runs
from shared.plotting import NothingToDraw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 500
UNDECIDED = 2e-4
"""Probabilities up to here would dwarf all others in a histogram."""
PUBLISHED_TOP = 1300
_NO_MATTER = ("inverse_io",)
"""Settings of tests that these figures do not show."""
FUNCTIONS = {"addmul": "+/×", "tuple": "+/+", "scan": "SCAN", "deepmind_math": "maths"}


def title(label: str, member: Member) -> str:
    """Name a network after its task too, for figures of several tasks."""
    task = member.config["task"].removeprefix("trafo_")
    if task.startswith("cifar10"):
        return f"CIFAR-10 {label}"
    names = [name for start, name in FUNCTIONS.items() if task.startswith(start)]
    return f"{names[0]} {label}" if names else label


def _titled(members: Sequence[Member]) -> Groups:
    """Group members by task and network."""
    groups: Groups = {}
    for task in TASKS:
        inside = [member for member in members if member.config["task"] == task]
        for label, group in records.by_network(inside, _NO_MATTER).items():
            groups[title(label, group[0])] = group
    return groups


def halfmask(paths: Sequence[Path]) -> "Figure":
    """Accuracy lost with masks on the early half of the layers alone, or the late one.

    Networks whose halves are drawn at random have no early and late half.
    """
    place = "half_mask_test/{}/{}/iter_{}/iid/accuracy"
    members = [
        m
        for m in records.collect(paths, ignore=_NO_MATTER)
        if place.format("normal", records.full_stage(m.config), 0) in m.results
        and m.config["task"] not in ("scan", "addmul")
    ]
    if not members:
        raise NothingToDraw("no run with a half-mask test of early and late layers")
    groups = _titled(members)
    kinds = {"early masked": "normal", "late masked": "inverse"}
    series = {
        label: [_drop(group, place.format(kind, "{}", 0)) for group in groups.values()]
        for label, kind in kinds.items()
    }
    width = drawing.wide(len(groups), 6) + 2
    figure, axes = plotting.figure(width=width, height=3.8)
    names = [label.replace(" ", "\n", 1).replace(", ", "\n") for label in groups]
    y = "accuracy drop (points)"
    drawing.bars(axes[0, 0], names, series, y=y, top=100)
    return figure


def _drop(group: Sequence[Member], place: str) -> np.ndarray:
    stage = records.full_stage(group[0].config)
    full = f"analysis_results/{stage}/iid/accuracy"
    return records.differences(group, full, place.format(stage), 100)


def mask_histogram(paths: Sequence[Path]) -> "Figure":
    """How decided the full masks are: weights by their probability to be kept.

    Left without the smallest probabilities, right all of them on a logarithmic scale;
    mean and deviation over repetitions.
    """
    tasks = (*arithmetic.ADDMUL, *arithmetic.TUPLE)
    members = records.collect(paths, tasks, ignore=_NO_MATTER)
    counts = {m.path: c for m in members if (c := _counts(m)) is not None}
    members = [m for m in members if m.path in counts]
    if not members:
        raise NothingToDraw("no exported masks of an arithmetic task")
    groups = _titled(members)
    centres = (np.arange(BINS) + 0.5) / BINS
    figure, axes = plotting.figure(1, 2, width=5.4, height=3.4)
    for label, group in groups.items():
        for axis, kind in zip(axes.flat, (0, 1), strict=True):
            found = np.stack([counts[m.path][kind] for m in group]).astype(float)
            # An empty bin has no logarithm: it counts as one weight.
            found = np.log(np.maximum(found, 1)) if kind else found
            plotting.line_with_band(
                axis,
                centres,
                found.mean(axis=0),
                found.std(axis=0, ddof=1) if len(found) > 1 else None,
                label=label,
                colour=plotting.colour(label, list(groups)),
            )
    x = "probability to be kept"
    above = f"above {UNDECIDED:g}"
    plotting.describe(axes[0, 0], x=x, y="weights", title=above)
    y, everything = "weights (natural logarithm)", "all"
    plotting.describe(axes[0, 1], x=x, y=y, title=everything, legend="outside")
    if axes[0, 0].dataLim.ymax > PUBLISHED_TOP:
        axes[0, 0].set_ylim(0, PUBLISHED_TOP)
    return figure


def _counts(member: Member) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the histograms of the full mask without and with small probabilities."""
    logits = records.final_logits(member, 0)
    if logits is None:
        return None
    kept = pictures.probabilities(logits)
    count = functools.partial(np.histogram, bins=BINS, range=(0, 1))
    return count(kept[kept > UNDECIDED])[0], count(kept)[0]


def faithfulness(paths: Sequence[Path]) -> "Figure":
    """Accuracy on every sub-function with a mask, without it, and with a random one."""
    members = records.collect(paths, ignore=_NO_MATTER)
    members = records.with_prefix(members, "faithfulness/")
    groups = _titled(members)
    tables = {label: _faithfulness(group) for label, group in groups.items()}
    rows = max(len(rows) for rows, _, _ in tables.values())
    columns = max(len(columns) for _, columns, _ in tables.values())
    across = min(3, len(groups))
    down = -(-len(groups) // across)
    width, height = 2.6 + 0.75 * columns, 1.5 + 0.3 * rows
    figure, axes = plotting.figure(down, across, width=width, height=height)
    image = None
    for axis, (label, table) in zip(axes.flat, tables.items(), strict=False):
        image = drawing.matrix(
            axis,
            table[2],
            rows=table[0],
            columns=table[1],
            low=0,
            high=100,
            title=label,
            size=7,
        )
        with plotting.style():
            for line in range(3, len(table[0]), 3):
                axis.axhline(line - 0.5, color="white", lw=2)
    drawing.hide(list(axes.flat[len(groups) :]))
    drawing.colour_bar(figure, image, axes, "accuracy (%)")
    return figure


def _faithfulness(
    group: Sequence[Member],
) -> tuple[list[str], list[str], np.ndarray]:
    """Return rows (stage and kind), columns (set) and accuracies of each repetition."""
    prefix = "faithfulness/"
    parts = [name.split("/", 2) for name in records.names_under(group, prefix)]
    stages = list(dict.fromkeys(stage for stage, _, _ in parts))
    # results.json is sorted by name, but the full mask comes first.
    stages.sort(key=lambda stage: stage != records.full_stage(group[0].config))
    metrics = list(dict.fromkeys(m for _, _, m in parts if "/accuracy" in m))
    detailed = [m for m in metrics if m.rpartition("/accuracy/")[1]]
    metrics = [m for m in detailed if not m.endswith("/total")] or metrics
    metrics.sort(key=lambda metric: not metric.startswith("iid/"))
    kinds = ("masked", "inverse", "random")
    name = lambda stage: records.stage_name(group[0].config, stage)
    places = {f"{name(s)}: {k}": f"{prefix}{s}/{k}/" for s in stages for k in kinds}
    tables = [
        [[m.results.get(p + name, np.nan) for name in metrics] for p in places.values()]
        for m in group
    ]
    columns = [_set_name(name) for name in metrics]
    return list(places), columns, 100 * np.array(tables)


def _set_name(metric: str) -> str:
    if "/accuracy/tuple/" in metric:
        return f"pair {int(metric.rpartition('/')[2]) + 1}"
    return metric.removesuffix("/accuracy").replace("_", " ")


def mask_curves(paths: Sequence[Path]) -> "Figure":
    """Share of the weights that each mask keeps, and its accuracy, over its training.

    The accuracy is that on the mask's own operation or pair, or else on the full task.
    """
    members = records.collect(paths, ignore=_NO_MATTER)
    curves = {m.path: _curves(m) for m in members}
    members = [m for m in members if curves[m.path]]
    if not members:
        raise NothingToDraw("no records of masks in training")
    groups = _titled(members)
    across = min(3, len(groups))
    down = -(-len(groups) // across)
    figure, axes = plotting.figure(2 * down, across, width=5.2, height=2.7)
    drawing.hide([*axes[-2, len(groups) % across or across :]])
    drawing.hide([*axes[-1, len(groups) % across or across :]])
    for position, (label, group) in enumerate(groups.items()):
        top, column = 2 * (position // across), position % across
        stages = list(dict.fromkeys(s for m in group for s, _ in curves[m.path]))
        for row, kind in enumerate(("density", "accuracy")):
            axis = axes[top + row, column]
            for index, stage in enumerate(stages):
                found = [curves[m.path].get((stage, kind), {}) for m in group]
                name = records.stage_name(group[0].config, stage)
                _curve(axis, found, name, index)
            plotting.describe(
                axis,
                x="update of the mask" if row else "",
                y="accuracy (%)" if row else "weights kept (%)",
                title="" if row else label,
                legend="none" if row else "outside",
            )
            axis.set_ylim(0, 103)
    return figure


def _curve(
    axis: "Axes", found: Sequence[dict[int, float]], name: str, index: int
) -> None:
    """Draw mean and deviation over repetitions; the ninth curve is dashed."""
    steps = sorted({step for curve in found for step in curve})
    if not steps:
        return
    columns = [np.array([c[s] for c in found if s in c]) for s in steps]
    plotting.line_with_band(
        axis,
        steps,
        [drawing.mean(values) for values in columns],
        [drawing.deviation(values) for values in columns] if len(found) > 1 else None,
        label=name,
        marker="o",
        colour=plotting.PALETTE[index % len(plotting.PALETTE)],
        dashed=index >= len(plotting.PALETTE),
    )


def _curves(member: Member) -> dict[tuple[str, str], dict[int, float]]:
    """Return percentages by update of the mask, for each stage and kind of curve."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    # Restored weights took no updates of this run.
    before = 0 if member.config["restore"] else member.config["steps"]
    for record in runs.read_metrics(member.path):
        # Masks may be trained in several rounds, one after the other.
        step = (record["step"] - before - 1) % member.config["mask_steps"] + 1
        for key, value in record.items():
            head, _, rest = key.partition("/")
            stage, _, name = rest.partition("/")
            kinds = {"density": "density", _own(member.config, stage): "accuracy"}
            if head == "analyzer" and name in kinds:
                found.setdefault((stage, kinds[name]), {})[step] = 100 * value
    return found


def _own(config: dict[str, Any], stage: str) -> str:
    """Return the record of a mask's accuracy on its sub-function, if that is a set."""
    if config["task"] in arithmetic.ADDMUL and stage in arithmetic.SIGNS:
        return f"validation/{stage}/accuracy"
    if config["task"] in arithmetic.TUPLE and stage in ("1", "2"):
        return f"validation/iid/accuracy/tuple/{int(stage) - 1}"
    return "validation/iid/accuracy"
