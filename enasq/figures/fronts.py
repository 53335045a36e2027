"""Accuracy against cost, and against accuracy with shared weights."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from enasq import pareto as fronts
from shared import plotting
from shared.plotting import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXES = {
    "bits": ("stored size (kB)", 1 / 8000),
    "bit_operations": ("bit-operations of an image (millions)", 1e-6),
}
"""Labels of costs, and what one is drawn as."""

MARKERS = {"random": "o", "searched": "*", "float": "D"}
"""Markers of what networks are in a study; others are squares."""

_WIDE = 8
"""Ratio of the greatest cost to the least from which an axis is logarithmic."""


class Found(NamedTuple):
    """The candidates of a search.

    Attributes:
        costs: by the names of `AXES`.
        accuracies: under shared weights, of the validation set.
        epochs: when they were drawn.
    """

    costs: Mapping[str, Float[np.ndarray, " count"]]
    accuracies: Float[np.ndarray, " count"]
    epochs: Float[np.ndarray, " count"]


class Entry(NamedTuple):
    """A network of a study.

    Attributes:
        name: searched, random and a number, float, or another.
        policy: name of its quantisers.
        bits: stored.
        scores: test accuracies, one for each seed.
    """

    name: str
    policy: str
    bits: int
    scores: tuple[float, ...]


class Ranking(NamedTuple):
    """Architectures judged twice.

    Attributes:
        shared: accuracies with shared weights.
        alone: after training alone, of the same images.
        names: of the architectures.
        agreement: tau, p and count; None if not known.
    """

    shared: Float[np.ndarray, " count"]
    alone: Float[np.ndarray, " count"]
    names: Sequence[str]
    agreement: Mapping[str, Any] | None = None


def pareto(found: Mapping[str, Found]) -> "Figure":
    """Draw candidates against what they cost, with the front of each kind of cost.

    A row of panels for each search. The front is that of the last evaluation, since
    shared weights were others before.
    """
    figure, axes = plotting.figure(len(found), len(AXES), width=4.9, height=4.0)
    for row, (label, own) in zip(axes, found.items(), strict=True):
        for axis, (kind, (name, unit)) in zip(row, AXES.items(), strict=True):
            points = _draw_front(axis, own.costs[kind] * unit, own)
            first = axis is row[0]
            plotting.describe(
                axis,
                x=name,
                y="validation accuracy (%)" if first else "",
                title=label,
                log_x=_is_wide(own.costs[kind]),
            )
            _plain_ticks(axis)
        with plotting.style():
            figure.colorbar(points, ax=list(row), label="epoch", pad=0.01)
    with plotting.style():
        labels = axes[0][0].get_legend_handles_labels()
        figure.legend(*labels, loc="outside lower center")
    return figure


def _draw_front(axis: "Axes", costs: Float[np.ndarray, " count"], own: Found) -> Any:
    scores = 100 * own.accuracies
    last = np.flatnonzero(own.epochs == own.epochs.max())
    kept = last[fronts.front(costs[last], scores[last])]
    with plotting.style():
        points = axis.scatter(costs, scores, c=own.epochs, s=12, alpha=0.7, lw=0)
        axis.plot(
            costs[kept],
            scores[kept],
            color=PALETTE[1],
            drawstyle="steps-post",
            marker="o",
            markerfacecolor="none",
            markersize=6,
            label="front of the last evaluation",
        )
    return points


def _is_wide(costs: Float[np.ndarray, " count"]) -> bool:
    return bool(costs.min() > 0 and costs.max() > _WIDE * costs.min())


def _plain_ticks(axis: "Axes") -> None:
    """Write 20 and 50 on a logarithmic axis, not powers of ten alone."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    if axis.get_xscale() == "log":
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())


def bits(entries: Sequence[Entry]) -> "Figure":
    """Draw test accuracies against stored bits, mean and deviation over seeds.

    A colour for each policy, a marker for each role: random ones are alike.
    """
    figure, axes = plotting.figure(width=6.6, height=4.0)
    axis = axes[0, 0]
    policies = list(dict.fromkeys(entry.policy for entry in entries))
    named: set[str] = set()
    with plotting.style():
        for entry in sorted(entries, key=lambda e: _role(e.name) != "random"):
            role = _role(entry.name)
            scores = 100 * np.array(entry.scores)
            pale = role == "random"
            name = role if role == entry.policy else f"{role}, {entry.policy}"
            colour = plotting.colour(entry.policy, policies)
            axis.errorbar(
                entry.bits * AXES["bits"][1],
                scores.mean(),
                scores.std() if len(scores) > 1 else None,
                fmt=MARKERS.get(role, "s"),
                markersize=5 if pale else 9,
                markerfacecolor="none" if pale else colour,
                color=colour,
                alpha=0.7 if pale else 1.0,
                elinewidth=1,
                capsize=2.5,
                label="" if name in named else name,
            )
            named.add(name)
    wide = _is_wide(np.array([entry.bits for entry in entries], float))
    plotting.describe(
        axis,
        x="stored size (kB)",
        y="test accuracy (%)",
        legend="outside",
        log_x=wide,
    )
    _plain_ticks(axis)
    return figure


def _role(name: str) -> str:
    return "random" if name.startswith("random") else name


def ranking(found: Ranking) -> "Figure":
    """Draw accuracies after training alone against those with shared weights."""
    figure, axes = plotting.figure(width=4.8, height=3.8)
    axis = axes[0, 0]
    roles = [_role(name) for name in found.names]
    with plotting.style():
        for index, role in enumerate(dict.fromkeys(roles)):
            own = np.array([other == role for other in roles])
            axis.plot(
                100 * found.shared[own],
                100 * found.alone[own],
                MARKERS.get(role, "s"),
                markersize=11 if role == "searched" else 6,
                label=role,
                color=PALETTE[index % len(PALETTE)],
            )
    title = ""
    if found.agreement is not None:
        tau, p, count = (found.agreement[name] for name in ("tau", "p", "count"))
        title = f"Kendall's τ {tau:.2f} (p = {p:.2g}, {count} architectures)"
    plotting.describe(
        axis,
        x="accuracy with shared weights (%)",
        y="validation accuracy, trained alone (%)",
        title=title,
        legend="inside",
    )
    return figure
