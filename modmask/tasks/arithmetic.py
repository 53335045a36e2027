"""Sums and products of random numbers, drawn as the published program draws them.

A number of d digits is kept as its digits, least significant first.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt8

from shared.errors import UsageError, check_choice, check_range

SETS = ("train", "test", "valid")
OPERATIONS = ("add", "mul")
SIZES = {"train": 1_000_000, "test": 10_000, "valid": 10_000}
SEED = 0x12345678
HELD_OUT = 5
"""One of so many pairs of operands is held out."""


class Operations(NamedTuple):
    """Single additions and multiplications.

    Attributes:
        operands: `[items, 2]`.
        operation: 0 to add, 1 to multiply, `[items]`.
    """

    operands: Int[np.ndarray, "items 2"]
    operation: Int[np.ndarray, " items"]


def operations(
    name: str, digits: int, *, items: int | None = None, held_out: bool = False
) -> Operations:
    """Draw operands from 0..10^digits - 1, and what to do with them.

    Args:
        name: which set: "train", "test" or "valid".
        digits: of an operand.
        items: how many, by default the size of the set in the published program.
        held_out: whether "train" and the other sets share no pair of operands; if not,
            they may.

    Raises:
        UsageError: for an unknown set, and for numbers of digits or items below 1.
    """
    random, items = _start(name, digits, items)
    operands = random.randint(0, 10**digits, (items, 2))
    operation = random.randint(0, 2, items)
    if held_out:
        operands = _redraw(random, operands, (0, 10**digits), name)
    return Operations(operands, operation)


def pairs(
    name: str,
    digits: int,
    *,
    items: int | None = None,
    count: int = 2,
    ranges: dict[int, tuple[int, int]] | None = None,
    held_out: bool = False,
) -> Int[np.ndarray, "items count 2"]:
    """Draw pairs of operands.

    Args:
        name, digits, items, held_out: see `operations`.
        count: pairs of one item.
        ranges: least operand, and one more than the largest, of single pairs; by
            default 0 and 10^digits.

    Raises:
        UsageError: see `operations`; also for a range of a pair that there is not, or
            that is empty or holds numbers of more digits.
    """
    random, items = _start(name, digits, items)
    check_range("count", count, low=1)
    ranges = ranges or {}
    for pair, (low, high) in ranges.items():
        if not (0 <= pair < count and 0 <= low < high <= 10**digits):
            allowed = f"pairs below {count}, 0 <= low < high <= {10**digits}"
            raise UsageError("ranges", ranges, allowed)
    drawn = []
    for pair in range(count):
        bounds = ranges.get(pair, (0, 10**digits))
        operands = random.randint(*bounds, (items, 1, 2))
        if held_out:
            operands = _redraw(random, operands, bounds, name)
        drawn.append(operands)
    return np.concatenate(drawn, axis=1)


def calculate(
    operands: Int[np.ndarray, "*items 2"], operation: str, digits: int
) -> Int[np.ndarray, "*items"]:
    """Add or multiply the two operands, modulo 10^digits."""
    check_choice("operation", operation, OPERATIONS)
    a, b = operands[..., 0], operands[..., 1]
    return (a + b if operation == "add" else a * b) % 10**digits


def digits_of(
    numbers: Int[np.ndarray, "*shape"], digits: int
) -> UInt8[np.ndarray, "*shape digits"]:
    """Return the digits of numbers, least significant first."""
    powers = (numbers // 10**place % 10 for place in range(digits))
    return np.stack([place.astype(np.uint8) for place in powers], axis=-1)


def is_held_out(
    operands: Int[np.ndarray, "items ... 2"],
) -> Bool[np.ndarray, "items ..."]:
    """Return whether a pair of operands, in either order, is kept from training.

    The bits of both numbers are mixed so that no rule of arithmetic tells the pairs.
    """
    mixed = operands.min(-1).astype(np.uint64) << np.uint64(16)
    mixed ^= operands.max(-1).astype(np.uint64)
    for factor in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9):
        mixed = mixed * np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
    return mixed % np.uint64(HELD_OUT) == 0


def one_hot_digits(
    digits: Shaped[Array | np.ndarray, "batch ..."], *, lead: int = 1
) -> Float[Array, "batch ..."]:
    """Give each digit ten inputs, one of them 1, in the order of the digits.

    Args:
        digits: any shape.
        lead: how many axes to keep; all others become one.
    """
    return jax.nn.one_hot(digits, 10).reshape(*digits.shape[:lead], -1)


def digit_losses(
    logits: Float[Array, "*number digits 10"],
    digits: Shaped[Array | np.ndarray, "*number digits"],
) -> Float[Array, "*number"]:
    """Return the cross-entropy of each number, the mean over its digits."""
    targets = jax.nn.one_hot(digits, 10, dtype=logits.dtype)
    return -jnp.sum(jax.nn.log_softmax(logits) * targets, axis=-1).mean(-1)


def all_right(
    logits: Float[Array, "*number digits 10"],
    digits: Shaped[Array | np.ndarray, "*number digits"],
) -> Bool[Array, "*number"]:
    """Return for each number whether all digits are the likeliest ones."""
    return jnp.all(jnp.argmax(logits, axis=-1) == digits, axis=-1)


def _start(
    name: str, digits: int, items: int | None
) -> tuple[np.random.RandomState, int]:
    check_choice("name", name, SETS)
    check_range("digits", digits, low=1, high=4)
    items = SIZES[name] if items is None else items
    check_range("items", items, low=1)
    return np.random.RandomState(SEED + SETS.index(name)), items


def _redraw(
    random: np.random.RandomState,
    operands: np.ndarray,
    bounds: tuple[int, int],
    name: str,
) -> np.ndarray:
    """Draw anew what does not belong to a set, until everything does."""
    low, high = bounds
    # A hundred numbers have pairs of both kinds: more need no looking through.
    grid = np.stack(np.meshgrid(*(np.arange(low, min(high, low + 100)),) * 2), axis=-1)
    if (is_held_out(grid) != (name != "train")).all():
        allowed = "ranges that hold pairs of both kinds, with held_out"
        raise UsageError("ranges", bounds, allowed)
    wrong = is_held_out(operands) != (name != "train")
    while wrong.any():
        operands[wrong] = random.randint(low, high, (int(wrong.sum()), 2))
        wrong = is_held_out(operands) != (name != "train")
    return operands
