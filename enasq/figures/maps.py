"""What is chosen how often, and how weights are distributed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from enasq import cell as cells
from shared import plotting
from shared.plotting import PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Sampled(NamedTuple):
    """Architectures that a controller drew.

    Attributes:
        arcs: `[count, 2, blocks, 4]` for each time.
        choices: names of the quantisers that operations choose from.
    """

    arcs: Mapping[str, Int[np.ndarray, "count 2 blocks 4"]]
    choices: Sequence[str] = ()


def shares(
    arcs: Int[np.ndarray, "count 2 blocks 4"], ops: int
) -> Float[np.ndarray, "2 ops blocks"]:
    """Return how often each operation is chosen by the branches of each block.

    Args:
        arcs: architectures.
        ops: operation ids.
    """
    chosen = arcs[..., 1::2, None] == np.arange(ops)
    return np.moveaxis(chosen.mean((0, 3)), 1, 2)


def operations(found: Sampled) -> "Figure":
    """Draw how often each block uses each operation, a row of panels for each time."""
    kinds = len(cells.OPERATIONS)
    highest = max(int(arcs[..., 1::2].max()) for arcs in found.arcs.values())
    choices = max(len(found.choices), highest // kinds + 1)
    names = [_name(op, found.choices) for op in range(kinds * choices)]
    blocks = next(iter(found.arcs.values())).shape[2]
    width, height = 2.6 + 0.55 * blocks, 1.1 + 0.3 * len(names)
    rows = len(found.arcs)
    figure, axes = plotting.figure(rows, 2, width=width, height=height)
    values = {when: shares(arcs, len(names)) for when, arcs in found.arcs.items()}
    high = max(own.max() for own in values.values())
    for row, (when, both) in zip(axes, values.items(), strict=True):
        for axis, name, own in zip(row, cells.CELLS, both, strict=True):
            first = axis is row[0]
            plotting.heatmap(
                axis,
                own,
                rows=names,
                columns=[str(node + 2) for node in range(blocks)],
                unit="" if first else "share of a node's branches",
                low=0,
                high=high,
                show_values=blocks <= 8,
            )
            title = f"{name} cell, {when}"
            plotting.describe(axis, x="node", title=title)
    return figure


def _name(op: int, choices: Sequence[str]) -> str:
    kind, choice = cells.split_op(op)
    name = cells.OPERATIONS[kind]
    if choices:
        return f"{name}, {choices[choice]}"
    return f"{name}, choice {choice}" if choice else name


def weights(
    latents: Mapping[str, np.ndarray],
    thresholds: Mapping[str, Sequence[float | int]],
    *,
    columns: int = 4,
) -> "Figure":
    """Draw the distributions of latent weights and where their quantiser divides them.

    Args:
        latents: weights before they are quantised, for each layer.
        thresholds: values at which the quantised weight changes, for each layer.
        columns: panels beside each other.
    """
    columns = min(columns, len(latents))
    rows = -(-len(latents) // columns)
    figure, axes = plotting.figure(rows, columns, width=3.2, height=2.5)
    for axis in axes.flat[len(latents) :]:
        axis.set_axis_off()
    for index, (axis, (name, values)) in enumerate(
        zip(axes.flat, latents.items(), strict=False)
    ):
        values = np.asarray(values, float).ravel()
        heights = np.full(values.size, 100 / max(values.size, 1))
        with plotting.style():
            axis.hist(values, 60, weights=heights, color=PALETTE[0], alpha=0.75)
            for number, place in enumerate(thresholds.get(name, ())):
                label = "" if number else "threshold"
                axis.axvline(place, color=PALETTE[1], linewidth=1.2, label=label)
        plotting.describe(
            axis,
            x="latent weight",
            y="weights (%)" if index % columns == 0 else "",
            title=name,
            legend="inside" if index == 0 else "none",
        )
    return figure
