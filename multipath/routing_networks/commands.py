"""Commands of SCAN, the actions they mean, and the tasks they belong to.

Reference: Lake and Baroni (2018).
"""

import os
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int8, Int32

from shared.data import scan
from shared.errors import check_range

TASKS = ("none", "and", "after")
"""The conjunction of a command."""

MARKS = ("and", "after", "twice", "thrice", "opposite", "around")
"""Words that say how the others go together."""

AND, AFTER = scan.WORDS.index("and"), scan.WORDS.index("after")
END, SYMBOLS = len(scan.ACTIONS), len(scan.ACTIONS) + 1
LENGTHS = (4, 8, 16, 48)
"""Most actions of each group of commands by length."""

NOTHING = -1
"""The target beyond the end symbol."""


class Commands(NamedTuple):
    """What a network is given.

    Attributes:
        words: of each command, by `scan.WORDS`; 0 beyond its end.
        length: number of words.
        before: the symbol before each step; an end symbol before the first.
    """

    words: Int8[Array, "n words"]
    length: Int32[Array, " n"]
    before: Int8[Array, "n steps"]


class Batch(NamedTuple):
    """Commands, what they mean, and their tasks.

    Attributes:
        inputs: the commands.
        targets: actions and an end symbol, then -1.
        tasks: see `TASKS`.
    """

    inputs: Commands
    targets: Int8[Array, "n steps"]
    tasks: Int32[Array, " n"]


class Sets(NamedTuple):
    """The three sets of a split, and where they come from."""

    train: Batch
    valid: Batch
    test: Batch
    source: str


def load(
    split: str = "simple",
    data_dir: str | os.PathLike | None = None,
    *,
    valid_fraction: float | int = 0.1,
    longest: int = scan.MOST_ACTIONS,
) -> Sets:
    """Return the sets of a split of SCAN; the grammar makes them without files.

    Args:
        split: simple, length, jump or turn_left.
        data_dir: see `shared.data.scan.split`.
        valid_fraction: part of the training commands that is held out.
        longest: leave out commands that mean more actions.

    Raises:
        UsageError: for an unknown split, numbers out of range, or files that are
            missing or damaged.
    """
    check_range("valid_fraction", valid_fraction, low=0, high=0.9)
    check_range("longest", longest, low=1, high=scan.MOST_ACTIONS)
    chosen = scan.split(split, data_dir)
    # What is repeated in training must not be held out and trained on.
    order = np.random.default_rng(0).permutation(np.unique(chosen.train))
    held = order[: round(valid_fraction * len(order))]
    kept = chosen.train[~np.isin(chosen.train, held)]
    table = scan.table()
    short = lambda rows: rows[table.target_length[rows] <= longest]
    train, valid, test = (
        batch(table, short(rows), longest) for rows in (kept, held, chosen.test)
    )
    return Sets(train, valid, test, chosen.source)


def batch(
    table: scan.Sequences,
    rows: Int[np.ndarray, " n"],
    longest: int = scan.MOST_ACTIONS,
) -> Batch:
    """Return rows of a table of commands as arrays of `longest` + 1 steps."""
    words, length = table.source[rows], table.source_length[rows]
    actions, count = table.target[rows, :longest], table.target_length[rows, None]
    steps = np.arange(longest + 1)[None]
    targets = np.pad(actions, ((0, 0), (0, 1)))
    targets = np.where(steps < count, targets, np.where(steps == count, END, NOTHING))
    before = np.pad(actions, ((0, 0), (1, 0)), constant_values=END)
    real = np.arange(words.shape[1])[None] < length[:, None]
    tasks = np.zeros(len(rows), np.int32)
    for number, word in enumerate(TASKS[1:], 1):
        tasks[np.any(real & (words == scan.WORDS.index(word)), 1)] = number
    inputs = Commands(*map(jnp.asarray, (words, length, before.astype(np.int8))))
    return Batch(inputs, jnp.asarray(targets.astype(np.int8)), jnp.asarray(tasks))
