"""What a network is made of: cells, sizes, channels, and how inputs are fitted.

A network has L + 2 cells of F filters, doubled at each reduction. In a `search` network
every cell ends in a 1x1 convolution over its loose ends, with shared weights, and a
factorised reduction stands before each reduction cell. In a `fixed` network cells
concatenate their loose ends, start with a 1x1 convolution, and reduction cells have
strides inside.

Reference: Pham et al. (2018), section 2.4, with the published program's shapes.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from enasq import cell as cells
from enasq.cell import Architecture
from shared.config import check_choices, check_ranges
from shared.errors import UsageError, check_choice

KINDS = ("search", "fixed")
RULES = ("quarter", "third")


@dataclass(frozen=True)
class Network:
    """The shape of a network.

    Attributes:
        kind: search (shared weights) or fixed.
        layers: L; there are L + 2 cells.
        filters: F, of the first normal cells.
        blocks: of a cell.
        size: height and width of an image.
        channels: of an image.
        classes: number of classes.
        pool_positions: cells that reduce: quarter (L//4, 2 (L//4) + 1, L), third
            (L//3, 2 (L//3) + 1, as Pham et al.), or their numbers.
        stride_inside: reduction cells of a search network have strides inside, like
            those of a fixed one.
        aux_head: add an auxiliary head after the cell that follows the second
            reduction.
    """

    kind: str = "search"
    layers: int = 6
    filters: int = 20
    blocks: int = 5
    size: int = 32
    channels: int = 3
    classes: int = 10
    pool_positions: str | tuple[int, ...] = "quarter"
    stride_inside: bool = False
    aux_head: bool = False

    def __post_init__(self):
        check_choices(self, kind=KINDS)
        check_ranges(self, "filters", "blocks", "size", "channels", low=1)
        check_ranges(self, "layers", low=0)
        check_ranges(self, "classes", low=2)
        places = self.reductions
        if not all(0 <= place <= self.layers + 1 for place in places):
            allowed = f"numbers of cells, 0 to {self.layers + 1}"
            raise UsageError("pool_positions", self.pool_positions, allowed)
        if self.size % 2 ** len(places):
            allowed = f"a multiple of {2 ** len(places)} for {len(places)} reductions"
            hint = "Set pool_positions for fewer of them."
            raise UsageError("size", self.size, allowed, hint)
        if self.aux_head and not places:
            raise UsageError("aux_head", True, "False without a reduction")

    @property
    def reductions(self) -> tuple[int, ...]:
        """Numbers of the reduction cells."""
        rule = self.pool_positions
        if not isinstance(rule, str):
            return tuple(sorted(set(rule)))
        check_choice("pool_positions", rule, RULES)
        part = self.layers // (4 if rule == "quarter" else 3)
        last = {self.layers} if rule == "quarter" else set()
        return tuple(sorted({part, 2 * part + 1} | last))


class Source(NamedTuple):
    """An input of a cell.

    Attributes:
        channels, size: as it comes.
        fit: how it becomes the cell's: keep, project (activation, 1x1 convolution,
            normalisation) or reduce (activation, factorised reduction).
    """

    channels: int
    size: int
    fit: Literal["keep", "project", "reduce"]


class Cell(NamedTuple):
    """One cell.

    Attributes:
        number: from 0 on.
        reduction: whether it runs the reduction code.
        entry: channels and size that a factorised reduction before the cell reads; None
            if there is none.
        sources: what nodes 0 and 1 are made of.
        filters: of every node.
        size: of its inputs, fitted.
        stride: of operations on nodes 0 and 1.
        base: whether node 1 passes a 1x1 convolution first.
        channels: of the output.
    """

    number: int
    reduction: bool
    entry: tuple[int, int] | None
    sources: tuple[Source, Source]
    filters: int
    size: int
    stride: int
    base: bool
    channels: int

    @property
    def output_size(self) -> int:
        """Height and width of the output."""
        return self.size // self.stride

    def node_size(self, node: int) -> int:
        """Return the height and width of a node."""
        return self.size if node < 2 else self.output_size


class Aux(NamedTuple):
    """The auxiliary head.

    Attributes:
        cell: whose output it reads.
        channels: of that.
        size: after its average pool of 5x5 with stride 3.
        padding: of that pool.
    """

    cell: int
    channels: int
    size: int
    padding: Literal["same", "valid"]


class Plan(NamedTuple):
    """A network's cells and heads.

    Attributes:
        network: the settings.
        stem: channels of the stem.
        cells: in order.
        aux: None without an auxiliary head.
    """

    network: Network
    stem: int
    cells: tuple[Cell, ...]
    aux: Aux | None


def plan(network: Network, arc: Architecture | None = None) -> Plan:
    """Return what a network is made of.

    Args:
        network: its settings.
        arc: the architecture, whose loose ends decide the widths of a fixed network.

    Raises:
        UsageError: for a fixed network without an architecture, or one that does not
            have the network's blocks.
    """
    widths = _widths(network, arc)
    stem, filters = 3 * network.filters, network.filters
    before = last = (stem, network.size)
    found: list[Cell] = []
    for number in range(network.layers + 2):
        reduction = number in network.reductions
        filters *= 1 + reduction
        inside = network.kind == "fixed" or network.stride_inside
        entry = None
        if reduction and not inside:
            entry = last
            before, last = last, (filters, last[1] // 2)
        cell = Cell(
            number=number,
            reduction=reduction,
            entry=entry,
            sources=_sources(before, last, filters),
            filters=filters,
            size=last[1],
            stride=2 if reduction and inside else 1,
            base=network.kind == "fixed",
            channels=filters * widths[int(reduction)],
        )
        before, last = last, (cell.channels, cell.output_size)
        found.append(cell)
    return Plan(network, stem, tuple(found), _aux(network, found))


def _widths(network: Network, arc: Architecture | None) -> tuple[int, int]:
    """Return the outputs of normal and reduction cells in units of their filters."""
    if arc is not None and arc.shape[1] != network.blocks:
        blocks = f"{arc.shape[1]} blocks"
        raise UsageError("architecture", blocks, f"{network.blocks} blocks")
    if network.kind == "search":
        return 1, 1
    if arc is None:
        raise UsageError("architecture", None, "one, for a fixed network")
    normal, reduction = (int(np.sum(cells.loose_ends(cell))) for cell in arc)
    return normal, reduction


def _sources(
    before: tuple[int, int], last: tuple[int, int], filters: int
) -> tuple[Source, Source]:
    fit = lambda channels: "keep" if channels == filters else "project"
    first = "reduce" if before[1] != last[1] else fit(before[0])
    return Source(*before, first), Source(*last, fit(last[0]))


def _aux(network: Network, found: list[Cell]) -> Aux | None:
    if not network.aux_head:
        return None
    place = network.reductions[:2][-1] + 1
    cell = found[min(place, len(found) - 1)]
    size = cell.output_size
    if size >= 5 and (size - 3) % 5 == 0:
        return Aux(cell.number, cell.channels, (size - 5) // 3 + 1, "valid")
    return Aux(cell.number, cell.channels, -(-size // 3), "same")
