"""Cells as graphs: pictures, and DOT text for other programs.

A cell's inputs stand at the top, then for each block the two operations it adds and
their sum, and the concatenation of its loose ends at the bottom.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int

from enasq import cell as cells
from enasq.cell import Architecture
from shared import disk, plotting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILLS = {"input": "#FFFFFF", "op": "#FFF59D", "add": "#C5E17A", "concat": "#F8BBD0"}
"""Colours of boxes by what they stand for."""

_SIZES = {"input": (1.0, 0.36), "op": (1.14, 0.36), "add": (0.62, 0.32)}
"""Width and height of boxes in inches; the last one is as wide as the cell."""

Code = Int[np.ndarray, "blocks 4"]


class Box(NamedTuple):
    """A box of a drawing.

    Attributes:
        name: unique in a cell.
        text: what stands in it.
        kind: key of `FILLS`.
    """

    name: str
    text: str
    kind: str


def boxes(code: Code, choices: Sequence[str] = ()) -> list[Box]:
    """Return the boxes of a cell.

    Args:
        code: of the cell.
        choices: names of the quantisers that operations choose from.
    """
    found = [Box("node 0", "H[i-1]", "input"), Box("node 1", "H[i]", "input")]
    for _, target, branch, op in cells.edges(code).tolist():
        found.append(Box(f"op {target} {branch}", _op_text(op, choices), "op"))
        if branch:
            found.append(Box(f"node {target}", "Add", "add"))
    return [*found, Box("concat", "Concat", "concat")]


def arrows(code: Code) -> list[tuple[str, str]]:
    """Return the arrows of a cell as names of boxes: source, destination."""
    found = []
    for source, target, branch, _ in cells.edges(code).tolist():
        op = f"op {target} {branch}"
        found += [(f"node {source}", op), (op, f"node {target}")]
    loose = np.nonzero(cells.loose_ends(code))[0].tolist()
    return found + [(f"node {node}", "concat") for node in loose]


def _op_text(op: int, choices: Sequence[str]) -> str:
    kind, choice = cells.split_op(op)
    name = cells.OPERATIONS[kind]
    return f"{name}\n{choices[choice]}" if choices and kind < 2 else name


def dot(code: Code, *, name: str = "cell", choices: Sequence[str] = ()) -> str:
    """Write a cell in the DOT language of Graphviz.

    Args:
        code: of the cell.
        name: of the graph.
        choices: names of the quantisers that operations choose from.
    """
    drawn = {box.name: box for box in boxes(code, choices)}
    lines = [f'digraph "{name}" {{', "  rankdir=TB;"]
    lines += ["  node [shape=box, style=filled, fontname=Helvetica];"]
    clusters = [[n] for n in ("node 0", "node 1", "concat")]
    for block in range(len(code)):
        node = block + 2
        clusters.append([f"op {node} 0", f"op {node} 1", f"node {node}"])
    for number, members in enumerate(clusters):
        inside = [_dot_box(drawn[member]) for member in members]
        if len(members) == 1:
            lines += [f"  {line}" for line in inside]
            continue
        lines.append(f"  subgraph cluster_{number - 2} {{")
        lines += [f'    label="block {number - 2}";']
        lines += [f"    {line}" for line in inside]
        lines.append("  }")
    lines += [f'  "{source}" -> "{target}";' for source, target in arrows(code)]
    return "\n".join([*lines, "}"]) + "\n"


def _dot_box(box: Box) -> str:
    text = box.text.replace("\n", "\\n")
    edge = ', color="white"' if box.kind == "input" else ""
    return f'"{box.name}" [label="{text}", fillcolor="{FILLS[box.kind]}"{edge}];'


def layout(code: Code) -> dict[str, tuple[float, float]]:
    """Return where the centres of the boxes are, in inches, top-down.

    A block stands one level below the lower of the nodes that it reads, and as near
    as possible below their middle.
    """
    level = _levels(code)
    rows: dict[int, list[int]] = {}
    for node in range(2, len(code) + 2):
        rows.setdefault(level[node], []).append(node)
    widest = max(map(len, rows.values()))
    middle, step = (widest - 1) * _BLOCK / 2, _BLOCK
    x = {0: middle - step / 2, 1: middle + step / 2}
    for depth in sorted(rows):
        row = rows[depth]
        wanted = {n: (x[code[n - 2, 0]] + x[code[n - 2, 2]]) / 2 for n in row}
        row.sort(key=lambda n: (wanted[n], n))
        left = np.mean([wanted[n] for n in row]) - (len(row) - 1) * step / 2
        # On a grid, so that arrows to lower levels can pass between the columns.
        left = np.clip(round(left / step), 0, widest - len(row)) * step
        x |= {n: float(left + i * step) for i, n in enumerate(row)}
    places = {f"node {n}": (x[n], 0.0) for n in range(2)}
    for node in range(2, len(code) + 2):
        top = -_LEVEL * level[node] + 0.55
        for branch, side in enumerate((-1, 1)):
            places[f"op {node} {branch}"] = (x[node] + side * 0.62, top)
        places[f"node {node}"] = (x[node], top - 0.7)
    places["concat"] = (middle, -_LEVEL * (max(rows) + 1) + 0.45)
    return places


_BLOCK, _LEVEL = 2.85, 1.75
"""Inches between blocks side by side, and between levels."""


def _levels(code: Code) -> dict[int, int]:
    """Return how far down each node stands; inputs are at 0."""
    level = {0: 0, 1: 0}
    for block, (x, _, y, _) in enumerate(code.tolist()):
        level[block + 2] = 1 + max(level[x], level[y])
    return level


def draw(arc: Architecture, *, choices: Sequence[str] = ()) -> "Figure":
    """Draw both cells of an architecture side by side.

    Args:
        arc: the architecture.
        choices: names of the quantisers that operations choose from.
    """
    from matplotlib.figure import Figure

    extents = [_extent(code) for code in arc]
    widths = [x1 - x0 for x0, x1, _ in extents]
    height = max(-y for _, _, y in extents) + 0.9
    with plotting.style():
        figure = Figure(figsize=(sum(widths), height))
        panels = figure.subplots(
            1, 2, squeeze=False, gridspec_kw={"width_ratios": widths}
        )
    figure.subplots_adjust(0, 0, 1, 1, 0, 0)
    for axes, code, name, (x0, x1, _) in zip(
        panels[0], arc, cells.CELLS, extents, strict=True
    ):
        axes.set_axis_off()
        axes.set_xlim(x0, x1)
        axes.set_ylim(0.9 - height, 0.9)
        _draw_cell(axes, code, choices)
        axes.text((x0 + x1) / 2, 0.6, f"{name} cell", ha="center", fontsize=12)
    return figure


def _extent(code: Code) -> tuple[float, float, float]:
    """Return the left, right and lower end of a drawing."""
    places = np.array(list(layout(code).values()))
    low, high = places[:, 0].min(), places[:, 0].max()
    return float(low) - 1.0, float(high) + 1.0, float(places[:, 1].min()) - 0.4


def _draw_cell(axes: "Axes", code: Code, choices: Sequence[str]) -> None:
    from matplotlib.patches import FancyBboxPatch

    places = layout(code)
    for block in range(len(code)):
        x, y = places[f"node {block + 2}"]
        frame = FancyBboxPatch(
            (x - 1.24, y - 0.24),
            2.48,
            1.2,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor="#F4F4F4",
            edgecolor="#BDBDBD",
            linewidth=0.8,
        )
        axes.add_patch(frame)
    for source, target in arrows(code):
        _draw_arrow(axes, _route(source, target, places, _levels(code)))
    xs = [x for x, _ in places.values()]
    for box in boxes(code, choices):
        wide = _SIZES.get(box.kind, (max(xs) - min(xs) + 0.4, 0.34))
        _draw_box(axes, box, places[box.name], wide)


def _draw_box(
    axes: "Axes", box: Box, centre: tuple[float, float], size: tuple[float, float]
) -> None:
    from matplotlib.patches import FancyBboxPatch

    (x, y), (width, height) = centre, size
    # Two lines need more room, below: arrows end at the top.
    more = 0.4 * height * box.text.count("\n")
    height, y = height + more, y - more / 2
    patch = FancyBboxPatch(
        (x - width / 2, y - height / 2),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=0.06",
        facecolor=FILLS[box.kind],
        edgecolor="#FFFFFF" if box.kind == "input" else "#757575",
        linewidth=0.8,
        zorder=3,
    )
    axes.add_patch(patch)
    axes.text(x, y, box.text, ha="center", va="center", fontsize=9, zorder=4)


def _route(
    source: str,
    target: str,
    places: dict[str, tuple[float, float]],
    levels: dict[int, int],
) -> list[tuple[float, float]]:
    """Return the corners of an arrow, which passes blocks between their columns."""
    (x0, y0), (x1, y1) = places[source], places[target]
    start, end = (x0, y0 - 0.17), (x1, y1 + 0.18)
    kind, number = source.split(maxsplit=1)
    if kind == "op":
        return [start, end]
    above, column, side = levels[int(number)], x1, 1.0
    if target == "concat":
        # Straight down, or along the side that is nearer to the middle.
        column, below = x0, max(levels.values()) + 1
        side = -1.0 if x0 > x1 else 1.0
        end = (x0, end[1])
    else:
        node, branch = map(int, target.split()[1:])
        below, side = levels[node], 2.0 * branch - 1
        column = x1 - side * 0.62
    if below - above < 2:
        return [start, end]
    # Arrows of different sources stay apart.
    lane = column + side * _BLOCK / 2 + 0.05 * (int(number) % 5 - 2)
    top = -_LEVEL * (above + 1) + 1.0
    if target == "concat":
        return [start, (lane, top), (lane, end[1])]
    return [start, (lane, top), (lane, end[1] + 0.27), end]


def _draw_arrow(axes: "Axes", corners: list[tuple[float, float]]) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Line

    arrow = FancyArrowPatch(
        path=Line(corners),
        arrowstyle="-|>",
        mutation_scale=9,
        color="#616161",
        linewidth=0.9,
        joinstyle="round",
        zorder=2,
    )
    axes.add_patch(arrow)


def save(arc: Architecture, folder: Path, *, choices: Sequence[str] = ()) -> list[Path]:
    """Write a picture of both cells and the DOT text of each; return the files."""
    picture = folder / "cells.png"
    with disk.writable("folder", folder), disk.replacing(picture) as draft:
        draw(arc, choices=choices).savefig(draft, format="png")
    written = [picture]
    for name, code in zip(("ncell", "rcell"), arc, strict=True):
        path = folder / f"{name}.dot"
        disk.write_text(path, dot(code, name=name, choices=choices))
        written.append(path)
    return written
