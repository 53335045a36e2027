"""Test error against the mean operation count of networks."""

import functools
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from multipath.trees.figures import records
from multipath.trees.figures.records import Chosen, Curve, Member, Point
from shared import plotting
from shared.plotting import NothingToDraw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

X, Y = "mean operation count", "error rate"


class Look(NamedTuple):
    """How the curves of one kind look."""

    label: str
    colour: str
    line: str = "-"


LOOKS = {
    "sr": Look("Statically-Routed Nets", "#1F4FD8"),
    "cr": Look("Pragmatic Critic Nets", "#D62728"),
    "cr-opt": Look("Optimistic Critic Nets", "#EEA000"),
    "cr-clserr": Look("Pragmatic Critic Nets, Classification Error", "#BFBF00"),
    "cr-notalr": Look("Pragmatic Critic Nets, no TALR", "#D62728", "--"),
    "ac": Look("Actor Nets", "#008000"),
    "ac-notalr": Look("Actor Nets, no TALR", "#008000", "--"),
    "ac-nokdec": Look("Actor Nets, k_dec = 0", "#008000", ":"),
    "ac-globopt": Look("Actor Nets, Regularized Policy", "#D000D0"),
    "ac-tree": Look("Actor Net, Branching", "#00B8C8"),
    "ac-dynkcpt": Look("Actor Net, Dynamic k_cpt", "#8B4513"),
}
"""Kinds of networks in the order of legends."""

PANELS = (
    ("sr", "ac", "cr"),
    ("sr", "cr", "cr-opt"),
    ("sr", "cr", "cr-clserr"),
    ("sr", "cr", "cr-notalr"),
    ("sr", "ac", "ac-notalr"),
    ("sr", "ac", "ac-nokdec"),
    ("sr", "ac", "ac-globopt"),
    ("sr", "ac", "ac-tree"),
    ("sr", "ac", "ac-dynkcpt"),
)

# Places in matplotlib's palette of pairs: dark for static nets, light for actors.
COMPLEXITIES = {"cifar10": ("CIFAR-10", 1), "cifar5": ("CIFAR-5", 3)}
COMPLEXITIES["cifar2"] = ("CIFAR-2", 5)


class Window(NamedTuple):
    """Limits and ticks of a panel of the paper."""

    x: tuple[float | int, float | int]
    y: tuple[float | int, float | int]
    x_ticks: tuple[float | int, ...]
    y_ticks: tuple[float | int, ...]


MIXED = Window((0, 2.25e7), (0.015, 0.065), (0, 1e7, 2e7), (0.02, 0.04, 0.06))
COMPLEX = Window((0, 2.25e7), (0, 0.3), (0, 1e7, 2e7), (0, 0.1, 0.2, 0.3))


def learning_rules(paths: Sequence[Path]) -> "Figure":
    """All kinds of networks of one data set, in nine panels."""
    dataset, members, others = _known(paths)
    absent = [kind for kind in LOOKS if not records.curves(members, kind)]
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with plotting.style():
        # Room for the last tick of a panel beside the first of the next.
        figure = Figure(figsize=(11, 4.6), layout=ConstrainedLayoutEngine(wspace=0.08))
        grid = figure.add_gridspec(1, 2, width_ratios=(1, 2))
        large, small = (figure.add_subfigure(grid[i]) for i in range(2))
        panels = [large.subplots(), *small.subplots(2, 4).flat]
        small.supxlabel(X, fontsize=10)
        small.supylabel(Y, fontsize=10)
    plotting.describe(panels[0], x=X, y=Y)
    for index, (axes, kinds) in enumerate(zip(panels, PANELS, strict=True)):
        _draw_kinds(axes, members, kinds)
        if index and index % 4 != 1:
            axes.tick_params(labelleft=False)
        if 0 < index < 5:
            axes.tick_params(labelbottom=False)
    _limit(panels, members, MIXED)
    _legend(figure, panels, columns=4)
    _note(figure, absent, dataset, others)
    return figure


def kinds(paths: Sequence[Path], *, wanted: Sequence[str]) -> "Figure":
    """Some kinds of networks of one data set, in one panel.

    Raises:
        NothingToDraw: if there is no run of the last kind.
    """
    dataset, members, others = _known(paths)
    if not records.curves(members, wanted[-1]):
        raise NothingToDraw(f"no run of {LOOKS[wanted[-1]].label} on {dataset}")
    figure, grid = plotting.figure(width=5, height=3.5)
    axes = grid[0, 0]
    _draw_kinds(axes, members, wanted)
    plotting.describe(axes, x=X, y=Y, legend="inside")
    _limit([axes], members, MIXED)
    absent = [kind for kind in wanted if not records.curves(members, kind)]
    _note(figure, absent, dataset, others)
    return figure


def complexity(paths: Sequence[Path], *, logarithmic: bool = False) -> "Figure":
    """Static nets and actors on 10, 5 and 2 classes of CIFAR-10."""
    from matplotlib import colormaps, colors

    where = lambda c: c.width == 1 and c.dataset in COMPLEXITIES
    members = [m for m in records.collect(paths, where) if _plain(m)]
    if not members:
        raise NothingToDraw(
            f"no run of static nets or actors on {', '.join(COMPLEXITIES)}"
        )
    figure, grid = plotting.figure(width=5, height=3.5)
    axes, absent = grid[0, 0], []
    for kind, place in (("sr", 0), ("ac", -1)):
        for dataset, (name, index) in COMPLEXITIES.items():
            own = [m for m in members if m.config.dataset == dataset]
            label = f"{LOOKS[kind].label}, {name}"
            colour = colormaps["Paired"](index + place)
            found = records.curves(own, kind)
            _draw(axes, found, Look(label, colors.to_hex(colour)))
            absent += [] if found else [label]
    log = logarithmic
    plotting.describe(axes, x=X, y=Y, legend="inside", log_x=log, log_y=log)
    if log:
        _few_powers(axes)
    else:
        _limit([axes], members, COMPLEX)
    _note(figure, absent)
    return figure


def widths(paths: Sequence[Path]) -> "Figure":
    """Static nets and actors with 1, 2 and 3 times the channels, on CIFAR-10."""
    members = records.collect(paths, lambda c: c.dataset == "cifar10")
    members = [member for member in members if _plain(member)]
    found = sorted({member.config.width for member in members})
    if found in ([], [1]):
        raise NothingToDraw("no run with 2 or 3 times the channels on cifar10")
    figure, grid = plotting.figure(1, len(found), width=2.4, height=2.4)
    for axes, width in zip(grid.flat, found, strict=True):
        own = [member for member in members if member.config.width == width]
        _draw_kinds(axes, own, ("sr", "ac"))
        counts = _channels(own[0])
        title = f"{min(counts)} ≤ channels ≤ {max(counts)}"
        plotting.describe(axes, x=X, y=Y if axes is grid[0, 0] else "", title=title)
        _count(axes)
    _legend(figure, list(grid.flat), columns=2)
    pairs = {(records.kind(m.config), m.config.width) for m in members}
    absent = [
        f"{LOOKS[kind].label}, width {width}"
        for kind in ("sr", "ac")
        for width in (1, 2, 3)
        if (kind, width) not in pairs
    ]
    _note(figure, absent)
    return figure


ACC_EFF: dict[str, Callable[[Sequence[Path]], Any]] = {
    "acc-eff-0": learning_rules,
    "acc-eff-1": complexity,
    "acc-eff-2": widths,
}
"""The figures of the paper."""

PRESENTATION: dict[str, Callable[[Sequence[Path]], Any]] = {
    "pres-00": functools.partial(kinds, wanted=("sr", "ac")),
    "pres-01": complexity,
    "pres-02": functools.partial(complexity, logarithmic=True),
    "pres-03": functools.partial(kinds, wanted=("sr", "ac", "cr")),
    "pres-04": functools.partial(kinds, wanted=("sr", "ac", "ac-globopt")),
    "pres-05": functools.partial(kinds, wanted=("sr", "ac", "ac-nokdec")),
    "pres-06": functools.partial(kinds, wanted=("sr", "ac", "ac-notalr")),
    "pres-07": functools.partial(kinds, wanted=("sr", "cr", "cr-notalr")),
    "pres-08": functools.partial(kinds, wanted=("sr", "ac", "ac-tree")),
    "pres-09": functools.partial(kinds, wanted=("sr", "ac", "ac-dynkcpt")),
    "pres-10": widths,
}
"""One panel a picture, for talks."""


def _known(paths: Sequence[Path]) -> Chosen:
    return records.mixed(paths, LOOKS)


def _plain(member: Member) -> bool:
    return records.kind(member.config) in ("sr", "ac")


def _channels(member: Member) -> list[int]:
    return [n for scales in records.channels(member.config) for n in scales]


def _draw_kinds(axes: "Axes", members: Sequence[Member], wanted: Sequence[str]) -> None:
    for kind in wanted:
        _draw(axes, records.curves(members, kind), LOOKS[kind])


def _draw(axes: "Axes", curves: Sequence[Curve], look: Look) -> None:
    """Draw mean and sample standard deviation over seeds, of both numbers."""
    for curve, marker in zip(curves, "osD^v<>P" * len(curves), strict=False):
        found = [records.efficiency(point) for point in curve.points]
        mean = np.array([seeds.mean(axis=0) for seeds in found])
        spread = None
        if any(len(seeds) > 1 for seeds in found):
            # One seed among several has no spread: no bar.
            single = np.full(2, np.nan)
            sd = lambda s: s.std(axis=0, ddof=1) if len(s) > 1 else single  # noqa: B023
            spread = np.array([sd(seeds) for seeds in found])
        with plotting.style():
            axes.errorbar(
                mean[:, 0],
                mean[:, 1],
                xerr=None if spread is None else spread[:, 0],
                yerr=None if spread is None else spread[:, 1],
                label=", ".join(filter(None, [look.label, curve.more])),
                color=look.colour,
                linestyle=look.line,
                linewidth=1.3,
                elinewidth=0.8,
                capsize=1.5,
                marker=marker,
                markersize=3,
            )


def _limit(panels: Sequence["Axes"], members: Sequence[Member], window: Window) -> None:
    """Give panels the paper's limits, or those of the points if they do not fit."""
    shown = [c for kind in LOOKS for c in records.curves(members, kind)]
    points = _all_points([p for curve in shown for p in curve.points])
    x, y = points.T
    inside = (window.x[0] <= x) & (x <= window.x[1])
    inside &= (window.y[0] <= y) & (y <= window.y[1])
    published = inside.mean() >= 0.5 and x.max() >= 0.25 * window.x[1]
    limits = window.x, window.y
    if not published:
        limits = (0, 1.06 * x.max()), (0, 1.06 * max(y.max(), 1e-3))
    for axes in panels:
        axes.set_xlim(*limits[0])
        axes.set_ylim(*limits[1])
        if published:
            axes.set_xticks(window.x_ticks)
            axes.set_yticks(window.y_ticks)
        _count(axes)


def _count(axes: "Axes") -> None:
    """Write operations as 500k, 10M: a common power of ten would hide behind others."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if len(axes.get_xticks()) > 5:
        axes.xaxis.set_major_locator(MaxNLocator(4))


def _few_powers(axes: "Axes") -> None:
    """Name 1, 2 and 5 of a decade: names of all minor ticks would overlap."""
    from matplotlib.ticker import (
        EngFormatter,
        LogLocator,
        NullFormatter,
        StrMethodFormatter,
    )

    for axis, named in (
        (axes.xaxis, EngFormatter(sep="")),
        (axes.yaxis, StrMethodFormatter("{x:g}")),
    ):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(named)
        axis.set_minor_formatter(NullFormatter())


def _all_points(points: Sequence[Point]) -> np.ndarray:
    return np.concatenate([records.efficiency(point) for point in points])


def _legend(figure: "Figure", panels: Sequence["Axes"], columns: int) -> None:
    """Name the curves of all panels below them, in the order of `LOOKS`."""
    handles = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    order = [look.label for look in LOOKS.values()]
    known = lambda label: max(i for i, o in enumerate(order) if label.startswith(o))
    labels = sorted(handles, key=known)
    with plotting.style():
        figure.legend(
            [handles[label] for label in labels],
            labels,
            loc="outside lower center",
            ncols=columns,
            fontsize=8,
        )


def _note(
    figure: "Figure",
    absent: Sequence[str],
    dataset: str = "",
    others: Sequence[str] = (),
) -> None:
    """Say what is shown and left out, and what there are no runs of."""
    texts = records.about(dataset, others)
    if absent:
        names = [LOOKS[name].label if name in LOOKS else name for name in absent]
        texts.append(f"no runs of: {'; '.join(names)}")
    if texts:
        text = textwrap.fill(". ".join(texts), int(13 * figure.get_figwidth()))
        with plotting.style():
            figure.suptitle(text, fontsize=8, color="#777777").set_gid("note")
