"""What changes over epochs: searches, the entropy of controllers, training."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from shared import plotting
from shared.plotting import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Curve(NamedTuple):
    """A metric over epochs.

    Attributes:
        x: epochs.
        mean: over seeds.
        spread: standard deviation over seeds; None for one seed.
    """

    x: Float[np.ndarray, " points"]
    mean: Float[np.ndarray, " points"]
    spread: Float[np.ndarray, " points"] | None = None


class Entropy(NamedTuple):
    """The entropy of a controller.

    Attributes:
        curve: in nats.
        blocks: of a cell.
        ops: operation ids.
    """

    curve: Curve
    blocks: int
    ops: int


class Line(NamedTuple):
    """How a line of a figure looks."""

    label: str
    colour: str
    dashed: bool = False


SEARCH = {
    "best": Line("validation, best candidate", PALETTE[2]),
    "mean": Line("validation, mean candidate", PALETTE[0]),
    "reward": Line("reward", PALETTE[4]),
    "baseline": Line("baseline", PALETTE[1], dashed=True),
}
"""Curves of a search by name."""

SPLITS = {"train": "batch", "valid": "validation", "test": "test"}
"""Accuracies of a training by name."""

Curves = Mapping[str, Mapping[str, Curve]]


def max_entropy(blocks: int, ops: int) -> float:
    """Return the entropy of a controller that prefers nothing, in nats.

    Args:
        blocks: of a cell.
        ops: operation ids.
    """
    nodes = np.arange(blocks) + 2
    return float(4 * np.sum(np.log(nodes) + np.log(ops)))


def search(found: Curves) -> "Figure":
    """Draw rewards, their baseline and accuracies of candidates, a panel a search.

    Args:
        found: for each search its curves, by the names of `SEARCH`.
    """
    figure, axes = _grid(len(found), legend=True)
    for axis, (label, curves) in zip(axes, found.items(), strict=False):
        for name, look in SEARCH.items():
            if name in curves:
                _draw(axis, curves[name], look, unit=100.0)
        y = "accuracy, reward (%)"
        plotting.describe(axis, x="epoch", y=y, title=label)
    _legend(figure, axes[0])
    return figure


def entropy(found: Mapping[str, Entropy]) -> "Figure":
    """Draw entropies of controllers, a line for each, with the most they can have."""
    figure, axes = _grid(1, width=5.6, legend=len(found) > 1)
    axis, highest = axes[0], set()
    for index, (label, own) in enumerate(found.items()):
        _draw(axis, own.curve, _line(label, index))
        highest.add(max_entropy(own.blocks, own.ops))
    with plotting.style():
        for level in sorted(highest):
            axis.axhline(level, color="#555555", linestyle=":")
            axis.annotate(
                f"all alike: {level:.1f}",
                (1.0, level),
                xycoords=("axes fraction", "data"),
                xytext=(0, -4),
                textcoords="offset points",
                ha="right",
                va="top",
                fontsize=9,
                color="#555555",
            )
        # Room for the words, and zero in sight only if the curves come near it.
        low = min(np.nanmin(own.curve.mean) for own in found.values())
        top = max(highest)
        axis.set_ylim(0 if low < top / 2 else low - 0.25 * (top - low), 1.02 * top)
    plotting.describe(axis, x="epoch", y="entropy of an architecture (nats)")
    _legend(figure, axis)
    return figure


def training(found: Curves) -> "Figure":
    """Draw losses, accuracies and learning rates, a line for each training.

    Args:
        found: for each training its curves: loss, train, valid, test, rate.
    """
    figure, axes = plotting.figure(1, 3, width=4.2, height=3.4)
    loss, accuracy, rate = axes[0]
    single = len(found) == 1
    for index, (label, curves) in enumerate(found.items()):
        for axis, name in ((loss, "loss"), (rate, "rate")):
            if name in curves:
                _draw(axis, curves[name], _line("" if single else label, index))
        # One training has a colour for each split, several have one each.
        for place, name in enumerate(_splits(curves, single)):
            look = _line(SPLITS[name], place) if single else _line("", index)
            dashed = not single and name == "train"
            _draw(accuracy, curves[name], look._replace(dashed=dashed), unit=100.0)
    plotting.describe(loss, x="epoch", y="loss of batches (nats)")
    plotting.describe(accuracy, x="epoch", y="accuracy (%)")
    plotting.describe(rate, x="epoch", y="learning rate")
    with plotting.style():
        rate.set_ylim(bottom=0)
        if single:
            accuracy.legend(loc="lower right")
        else:
            held_out = {_splits(curves, False)[-1] for curves in found.values()}
            names = " or ".join(SPLITS[name] for name in SPLITS if name in held_out)
            accuracy.set_title(f"batches dashed, {names} solid")
            _below(figure, loss)
    if single:
        with plotting.style():
            figure.suptitle(next(iter(found)), fontsize=12)
    return figure


def _splits(curves: Mapping[str, Curve], every: bool) -> list[str]:
    """Return the accuracies to draw: every one, or of batches and the last."""
    there = [name for name in SPLITS if name in curves]
    return there if every else list(dict.fromkeys([there[0], there[-1]]))


def _line(label: str, index: int) -> Line:
    turn, place = divmod(index, len(PALETTE))
    return Line(label, PALETTE[place], dashed=bool(turn % 2))


def _draw(axis: "Axes", curve: Curve, look: Line, *, unit: float = 1.0) -> None:
    plotting.line_with_band(
        axis,
        curve.x,
        unit * curve.mean,
        None if curve.spread is None else unit * curve.spread,
        label=look.label,
        colour=look.colour,
        dashed=look.dashed,
        # A line of one point is invisible.
        marker="o" if len(curve.x) < 8 else "",
    )


def _grid(
    count: int, *, width: float = 4.8, height: float = 3.5, legend: bool
) -> "tuple[Figure, list[Axes]]":
    """Return a figure and its panels; a legend gets room of its own below."""
    columns = min(3, count)
    rows = -(-count // columns)
    extra = 0.5 / rows if legend else 0
    figure, axes = plotting.figure(rows, columns, width=width, height=height + extra)
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    return figure, list(axes.flat)


def _legend(figure: "Figure", axis: "Axes") -> None:
    """Name the lines of a panel once, below all panels, if there are several."""
    if len(axis.get_legend_handles_labels()[1]) > 1:
        _below(figure, axis)


def _below(figure: "Figure", axis: "Axes") -> None:
    handles, labels = axis.get_legend_handles_labels()
    widest = max(map(len, labels))
    # Inches: the line before a name, and its letters.
    columns = max(1, min(4, int(figure.get_figwidth() // (0.45 + 0.07 * widest))))
    with plotting.style():
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)
