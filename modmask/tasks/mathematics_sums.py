"""Questions about sums and differences, made where there are no files.

They are of the kind of arithmetic__add_or_sub: integers and decimal fractions in
several wordings. Difficulty is the number of digits of the operands.
"""

from random import Random

from modmask.tasks.mathematics_files import PLACES
from shared.errors import check_range

GENERATED = "arithmetic__add_or_sub"
SEED = 2019
DIGITS = {
    "train-easy": (1, 4),
    "train-medium": (4, 7),
    "train-hard": (7, 10),
    "interpolate": (1, 10),
    "extrapolate": (11, 13),
}
"""Fewest and most digits of an operand, by place."""

PLACES_BEHIND = 4
"""Most digits behind the point; numbers are whole multiples of the last one."""

SUMS = (
    "{a} + {b}",
    "Add {a} and {b}.",
    "What is {a} plus {b}?",
    "Work out {a} + {b}.",
    "Sum {a} and {b}.",
    "Add together {a} and {b}.",
)
DIFFERENCES = (
    "{a} - {b}",
    "Subtract {b} from {a}.",
    "What is {a} minus {b}?",
    "Work out {a} - {b}.",
    "What is {a} take away {b}?",
    "What is {b} less than {a}?",
)


def generate(items: int) -> dict[str, list[tuple[str, str]]]:
    """Return questions and answers by place, always the same for a number of items.

    Args:
        items: of each difficulty; a tenth as many, at most 10,000, of the others.
    """
    check_range("math_items", items, low=20)
    counts = dict.fromkeys(PLACES[:3], items)
    counts |= dict.fromkeys(PLACES[3:], min(items // 10, 10_000))
    return {place: _questions(place, count) for place, count in counts.items()}


def _questions(place: str, count: int) -> list[tuple[str, str]]:
    random = Random(f"{SEED} {place}")
    # Repeated questions would be dropped, and these are to be so many.
    found: dict[str, str] = {}
    while len(found) < count:
        question, answer = _question(random, *DIGITS[place])
        found.setdefault(question, answer)
    return list(found.items())


def _question(random: Random, fewest: int, most: int) -> tuple[str, str]:
    a, b = (_operand(random, fewest, most) for _ in range(2))
    if random.random() < 0.5:
        wording, result = random.choice(SUMS), a + b
    else:
        wording, result = random.choice(DIFFERENCES), a - b
    return wording.format(a=_decimal(a), b=_decimal(b)), _decimal(result)


def _operand(random: Random, fewest: int, most: int) -> int:
    """Draw a number of so many digits, a third of them with a fractional part."""
    digits = random.randint(fewest, most)
    number = random.randrange(10 ** (digits - 1), 10**digits) * random.choice((1, -1))
    places = (
        random.randint(1, min(digits, PLACES_BEHIND)) if random.random() < 1 / 3 else 0
    )
    return number * 10 ** (PLACES_BEHIND - places)


def _decimal(number: int) -> str:
    """Write a number of smallest units, without trailing zeros."""
    whole, part = divmod(abs(number), 10**PLACES_BEHIND)
    sign = "-" if number < 0 else ""
    return f"{sign}{whole}" + (f".{part:0{PLACES_BEHIND}d}".rstrip("0") if part else "")
