"""What an architecture costs, as a function of its code that may be traced.

    cost = widths[loose ends of both cells]
           + sum over branches   branches[cell, branch, operation, reads an input]
           + sum over cells      inputs[cell] x inputs that are loose ends

The first term stands for all that lies between cells: projections depend on how many
loose ends the cells before them have, and not linearly, since one whose width fits
already needs none. Inputs matter in reduction cells, where they are twice as large as
the blocks. Tables come from any measure of whole architectures, by differences.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from enasq import accounting
from enasq import cell as cells
from enasq.cell import Architecture
from enasq.plan import Network
from enasq.policy import QuantPolicy
from enasq.records import records
from shared.errors import UsageError, check_choice

MEASURES = {
    "bits": "model_bits",
    "bit_operations": "bit_operations",
    "macs": "macs",
}
"""Exact measures: names and what they are in `accounting.Totals`."""

Measure = Callable[[Architecture], Any]
Arc = Int[Array, "2 blocks 4"] | Int[np.ndarray, "2 blocks 4"]
Entries = np.ndarray | Array


class Tables(NamedTuple):
    """What the parts of an architecture cost; only the sums mean something.

    On the host these are numbers of 64 bits, so that integers up to 2^53 are exact;
    compiled programs take them in their own precision.

    Attributes:
        widths: `[B + 2, B + 2]`, by the loose ends of the normal and the reduction
            cell; the least is 1, the most B + 1.
        branches: `[2 cells, 2 branches, operation ids, 2]`; the last axis tells
            whether the branch reads an input of the cell.
        inputs: `[2 cells]`, of an input that is a loose end.
    """

    widths: Entries
    branches: Entries
    inputs: Entries

    @property
    def blocks(self) -> int:
        """Blocks of a cell."""
        return self.widths.shape[0] - 2

    @property
    def ops(self) -> int:
        """Operation ids: each operation with each choice of a quantiser."""
        return self.branches.shape[2]


def accounted(network: Network, policy: QuantPolicy, name: str) -> Measure:
    """Return an exact measure of architectures, by a name in `MEASURES`."""
    check_choice("cost", name, MEASURES)

    def measure(arc: Architecture) -> int:
        sums = accounting.totals(records(network, policy, arc))
        return getattr(sums, MEASURES[name])

    return measure


def cost(tables: Tables, arc: Arc) -> Any:
    """Return what one architecture costs.

    Args:
        tables: of the network.
        arc: the architecture. NumPy in, an exact float out; a jax array may be traced
            or mapped over.
    """
    on_host = isinstance(arc, np.ndarray)
    xp: Any = np if on_host else jnp
    # A tracer cannot index what is not a jax array.
    widths, branches, inputs = map(xp.asarray, tables)
    normal, reduction = (cells.loose_ends(arc[half]) for half in (0, 1))
    between = widths[normal.sum(), reduction.sum()]
    loose = xp.stack([normal[:2].sum(), reduction[:2].sum()])
    cell, branch = xp.arange(2)[:, None, None], xp.arange(2)[None, None]
    reads = (arc[..., ::2] < 2).astype(arc.dtype)
    inside = branches[cell, branch, arc[..., 1::2], reads]
    total = between + inside.sum() + (inputs * loose).sum()
    return float(total) if on_host else total


def tables(network: Network, policy: QuantPolicy, measure: Measure) -> Tables:
    """Take an exact measure apart.

    Args:
        network: what is measured; fixed, or what one architecture runs of a search
            network.
        policy: its quantisers, whose choices say how many operation ids there are.
        measure: what an architecture costs, the same number whenever it is asked.
    """
    found = _blank(network, policy)
    blocks = network.blocks
    base = measure(_pair(_ends(1, blocks), _ends(1, blocks)))

    def more(half: int, code: np.ndarray) -> Any:
        """Return the cost of one cell's code beyond that of a chain."""
        other = _ends(1, blocks)
        return measure(_pair(*((code, other) if half == 0 else (other, code)))) - base

    for half, branch in itertools.product(range(2), range(2)):
        costs = found.branches[half, branch]
        # The first block reads inputs, the last one another block if there is any.
        for block, reads in ((0, 1), (blocks - 1, 0)):
            moved = _ends(1, blocks)
            moved[-1, 2 * branch] = 0
            start = more(half, moved) if reads and blocks > 1 else 0
            for op in range(found.ops):
                code = _ends(1, blocks)
                code[block, 2 * branch + 1] = op
                costs[op, reads] = start + more(half, code)
    for half in range(2) if blocks > 1 else ():
        # One input and one block are loose ends, or two blocks are.
        one, two = _ends(1, blocks), _ends(2, blocks)
        one[0, 2] = 0
        reading = found.branches[half, :, 0, 1].sum()
        found.inputs[half] = more(half, one) - (more(half, two) - reading)
    for loose in itertools.product(range(1, blocks + 2), repeat=2):
        arc = _pair(*(_ends(count, blocks) for count in loose))
        found.widths[loose] = measure(arc) - cost(found, arc)
    return found


def _blank(network: Network, policy: QuantPolicy) -> Tables:
    ops = len(cells.OPERATIONS) * max(len(policy.choices), 1)
    side = network.blocks + 2
    return Tables(np.zeros((side, side)), np.zeros((2, 2, ops, 2)), np.zeros(2))


def _pair(normal: np.ndarray, reduction: np.ndarray) -> Architecture:
    return np.stack([normal, reduction])


def _ends(count: int, blocks: int) -> Int[np.ndarray, "blocks 4"]:
    """Return a cell with so many loose ends, all operations the first.

    The first blocks, as many, read both inputs; each further one reads the one before
    it. With one loose end more than blocks, all read the same input.
    """
    code = np.zeros((blocks, 4), np.int32)
    for block in range(blocks):
        chained = block >= count
        code[block, ::2] = block + 1 if chained else (0, int(count <= blocks))
    return code


def cheapest(tables: Tables) -> float:
    """Return the least that any architecture costs."""
    blocks = tables.blocks
    best = np.array([_least(tables, half) for half in range(2)])
    whole = np.asarray(tables.widths) + best[0][:, None] + best[1][None]
    return float(whole[1 : blocks + 2, 1 : blocks + 2].min())


def _least(tables: Tables, half: int) -> Float[np.ndarray, " ends"]:
    """Return the least cost inside a cell for each number of its loose ends.

    A branch costs its cheapest operation. The first block reads inputs only. Readers
    of blocks can have anything from one to as many different sources as they are, but
    never the last block; one input may stay unread.
    """
    blocks, least = tables.blocks, np.full(tables.blocks + 2, np.inf)
    # Cheapest operation, for branch x and y, from a block or from an input.
    cheap = np.asarray(tables.branches)[half].min(1)
    own = np.asarray(tables.inputs)[half]
    for x, y in itertools.product(range(1, blocks + 1), repeat=2):
        reading = cheap[:, 1] @ (x, y) + cheap[:, 0] @ (blocks - x, blocks - y)
        readers = 2 * blocks - x - y
        most = min(readers, blocks - 1)
        for sources in range(min(readers, 1), most + 1):
            for unread in range(2):
                ends = blocks - sources + unread
                least[ends] = min(least[ends], reading + unread * own)
    return least


def check_budget(tables: Tables, budget: float | int) -> None:
    """Raise a UsageError for a budget that no architecture can meet."""
    least = cheapest(tables)
    if not budget >= least:
        hint = "Take fewer layers or filters, or lower precisions, for less."
        allowed = f"at least {least:.10g}, which the cheapest architecture costs"
        raise UsageError("budget", budget, allowed, hint)


def reward(accuracy: Any, cost: Any, budget: Any, weight: Any) -> Any:
    """Return an accuracy less what its cost exceeds a budget by.

        accuracy - weight x max(0, cost / budget - 1)

    Within the budget it is the accuracy itself, so a looser budget changes nothing and
    unused budget earns nothing. Beyond it the slope is constant: unlike a power of the
    cost it does not fade for architectures that are far off, and unlike a hard limit it
    says which of two expensive ones is nearer. Being a difference it keeps its meaning
    where accuracies are small, at the start.

    Args:
        accuracy: of an architecture, 0 to 1.
        cost: of the same.
        budget: what it may cost, positive.
        weight: accuracy that a cost of twice the budget takes away.

    Reference: Tan et al. (2019), MnasNet, a soft limit as a factor; Bender et al.
        (2020), TuNAS, the two-sided difference.
    """
    return accuracy - weight * jnp.maximum(0, cost / budget - 1)
