"""Cells of the micro search space, as codes of four integers a block.

A cell of B blocks has B + 2 nodes: the outputs of the two cells before it, then its
blocks. Block b adds two operations on earlier nodes and is written
`index_x op_x index_y op_y`. An architecture is an int32 array `[2, blocks, 4]`, the
normal cell and the reduction cell; as text it is its 8 B numbers in that order.

An operation may name a quantiser too: id `op + 5 q` is operation `op` with choice q of
whatever list of quantisers a search has. Plain codes have q = 0.

Reference: Pham et al. (2018), section 2.4.
"""

import re
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from shared.errors import UsageError, check_range

OPERATIONS = ("conv 3x3", "conv 5x5", "avg pool", "max pool", "identity")
"""Operations by id; a separable convolution stands for two in a row."""

CONV_3, CONV_5, AVG_POOL, MAX_POOL, IDENTITY = range(5)

CELLS = ("normal", "reduction")
FIELDS = ("index_x", "op_x", "index_y", "op_y")

Cell = Int[Array, "blocks 4"] | Int[np.ndarray, "blocks 4"]
Architecture = Int[np.ndarray, "2 blocks 4"]


def parse(text: str, *, ops: int = 5, blocks: int | None = None) -> Architecture:
    """Read an architecture from its numbers.

    Args:
        text: 8 numbers a block, normal cell first. Blanks, commas, bars, brackets and
            new lines separate them, so a pair of logged arrays can be read too.
        ops: number of operation ids.
        blocks: how many blocks it must have; by default as many as there are numbers.

    Raises:
        UsageError: for what is no number, a wrong length, or a number out of range.
    """
    words = re.split(r"[\s,|\[\];]+", text.strip(" \t\r\n,|[];"))
    for position, word in enumerate(words, 1):
        if not re.fullmatch(r"[+-]?\d+", word):
            raise UsageError(f"architecture, position {position}", word, "an integer")
    count = len(words)
    if blocks is not None and count != 8 * blocks:
        raise _wrong_length(count, f"{8 * blocks} for {blocks} blocks")
    if count == 0 or count % 8:
        raise _wrong_length(count, "8 for each block, the normal cell's first")
    # As Python numbers first: one that no int32 holds is out of range, not an overflow.
    return check(np.array([int(word) for word in words], object), ops=ops)


def check(codes: np.ndarray | Sequence[int], *, ops: int = 5) -> Architecture:
    """Return codes as an array `[2, blocks, 4]` if they are an architecture.

    Args:
        codes: 8 integers a block, of any shape.
        ops: number of operation ids.

    Raises:
        UsageError: for a wrong length or a number out of range; positions count from 1.
    """
    flat = np.asarray(codes).reshape(-1)
    if flat.size == 0 or flat.size % 8:
        raise _wrong_length(flat.size, "8 for each block, the normal cell's first")
    blocks = flat.size // 8
    high = np.broadcast_to(_bounds(blocks, ops), (2, blocks, 4)).reshape(-1)
    for position, (value, bound) in enumerate(zip(flat, high, strict=True)):
        if isinstance(value, float | np.floating) or not 0 <= value < bound:
            raise UsageError(
                f"architecture, position {position + 1} ({_place(position, blocks)})",
                value if isinstance(value, int) else np.asarray(value).item(),
                f"an integer from 0 to {bound - 1}",
            )
    return flat.astype(np.int32).reshape(2, blocks, 4)


def render(arc: Architecture, *, bar: bool = False) -> str:
    """Write an architecture as its numbers, with a bar between its cells if asked."""
    halves = [" ".join(map(str, cell.reshape(-1).tolist())) for cell in arc]
    return (" | " if bar else " ").join(halves)


def _wrong_length(count: int, allowed: str) -> UsageError:
    return UsageError("architecture", f"{count} numbers", allowed)


def _place(position: int, blocks: int) -> str:
    half, rest = divmod(position, 4 * blocks)
    block, field = divmod(rest, 4)
    return f"{FIELDS[field]} of block {block + 1} of the {CELLS[half]} cell"


def _bounds(blocks: int, ops: int) -> Int[np.ndarray, "blocks 4"]:
    """Return what each number of a cell must stay below."""
    nodes = np.arange(blocks) + 2
    return np.stack([nodes, np.full(blocks, ops)] * 2, 1)


def random(key: Key[Array, ""], blocks: int, *, ops: int = 5) -> Int[Array, "2 b 4"]:
    """Draw an architecture, all codes equally likely."""
    check_range("blocks", blocks, low=1)
    high = jnp.asarray(_bounds(blocks, ops), jnp.int32)
    high = jnp.broadcast_to(high, (2, blocks, 4))
    return jax.random.randint(key, (2, blocks, 4), 0, high, jnp.int32)


def count(blocks: int, *, ops: int = 5, symmetric: bool = False) -> int:
    """Return how many codes a cell has; an architecture has the square of that.

    Args:
        blocks: B.
        ops: number of operation ids.
        symmetric: count codes once that differ only by exchanged branches.
    """
    total = 1
    for nodes in range(2, blocks + 2):
        single = nodes * ops
        total *= single * (single + 1) // 2 if symmetric else single**2
    return total


def split_op(op: int, *, kinds: int = 5) -> tuple[int, int]:
    """Split an operation id into the operation and the choice of its quantiser."""
    choice, kind = divmod(int(op), kinds)
    return kind, choice


def plain(arc: Architecture) -> Architecture:
    """Return an architecture without its choices of quantisers."""
    found = arc.copy()
    found[..., 1::2] %= len(OPERATIONS)
    return found


def use_counts(cell: Cell) -> Int[Array, " nodes"] | Int[np.ndarray, " nodes"]:
    """Return how many branches read each node.

    NumPy in, NumPy out; a jax array may be traced.
    """
    xp = np if isinstance(cell, np.ndarray) else jnp
    nodes = xp.arange(cell.shape[0] + 2, dtype=cell.dtype)
    read = cell[:, ::2].reshape(-1, 1) == nodes[None]
    return xp.sum(read, 0, dtype=cell.dtype)


def loose_ends(cell: Cell) -> Bool[Array, " nodes"] | Bool[np.ndarray, " nodes"]:
    """Tell which nodes no branch reads; the cell's output is made of them."""
    return use_counts(cell) == 0


def edges(cell: Int[np.ndarray, "blocks 4"]) -> Int[np.ndarray, "edges 4"]:
    """Return source, destination, branch (x 0, y 1) and operation of all branches."""
    blocks = cell.shape[0]
    destination = np.repeat(np.arange(blocks) + 2, 2)
    branch = np.tile([0, 1], blocks)
    index, op = cell[:, ::2].reshape(-1), cell[:, 1::2].reshape(-1)
    return np.stack([index, destination, branch, op], 1).astype(np.int32)


def reaching(cell: Int[np.ndarray, "blocks 4"]) -> Bool[np.ndarray, " nodes"]:
    """Tell which nodes the cell's output depends on."""
    reach = np.array(loose_ends(cell))
    for block in reversed(range(cell.shape[0])):
        if reach[block + 2]:
            reach[cell[block, ::2]] = True
    return reach


def canonical(arc: Architecture) -> Architecture:
    """Return the least code of all that mean the same architecture.

    Branches of a block may be exchanged, and blocks may be put in any order in which
    they follow what they read. Shared weights depend on the code, so equality is that
    of networks which are trained on their own.
    """
    return np.array([_least(cell) for cell in arc], np.int32)


def _least(cell: Int[np.ndarray, "blocks 4"]) -> list[list[int]]:
    """Return the least code of a cell, built block by block over all ties."""
    unread = loose_ends(cell)
    start: tuple[list[list[int]], dict[int, int]] = ([], {0: 0, 1: 1})
    pending = [start]
    for _ in range(cell.shape[0]):
        options = []
        for codes, names in pending:
            ready = list(_ready(cell, names))
            # Of equal blocks that nothing reads, any one may come first.
            same = {
                (tuple(code), -1 if unread[b + 2] else b): (b, code)
                for b, code in ready
            }
            for block, code in same.values():
                options.append((code, codes, {**names, block + 2: len(names)}))
        least = min(code for code, _, _ in options)
        pending = [
            ([*codes, code], names) for code, codes, names in options if code == least
        ]
    return pending[0][0]


def _ready(
    cell: Int[np.ndarray, "blocks 4"], names: dict[int, int]
) -> Iterator[tuple[int, list[int]]]:
    """Yield the blocks that can come next, and their codes by the nodes' new names."""
    for block, (x, op_x, y, op_y) in enumerate(cell.tolist()):
        if block + 2 not in names and x in names and y in names:
            one, other = sorted([[names[x], op_x], [names[y], op_y]])
            yield block, [*one, *other]
