"""The one exception that a user meets, and the checks that raise it."""

import difflib
import math
from collections.abc import Iterable
from typing import Any


class UsageError(ValueError):
    """Wrong input, told in one line.

    Args:
        argument: name of the argument, option, field or file that is wrong.
        given: the value that was given.
        allowed: what would have been right, in words.
        hint: what to do next, if that is not obvious.
    """

    def __init__(self, argument: str, given: Any, allowed: str, hint: str = ""):
        self.argument, self.given, self.allowed, self.hint = (
            argument,
            given,
            allowed,
            hint,
        )
        message = f"{argument}: got {given!r}, expected {allowed}"
        super().__init__(f"{message}. {hint}" if hint else message)

    def __reduce__(self):
        return type(self), (self.argument, self.given, self.allowed, self.hint)


def closest(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice most like `name`, or None if none is near."""
    found = difflib.get_close_matches(str(name), list(choices), n=1, cutoff=0.5)
    return found[0] if found else None


def check_choice(argument: str, given: Any, choices: Iterable[str]) -> None:
    """Raise a UsageError that lists the choices unless `given` is one of them."""
    choices = list(choices)
    if given in choices:
        return
    near = closest(given, choices)
    hint = f"Did you mean {near!r}?" if near else ""
    raise UsageError(argument, given, f"one of {', '.join(choices)}", hint)


def check_range(
    argument: str,
    value: Any,
    *,
    low: float | int | None = None,
    high: float | int | None = None,
    low_open: bool = False,
    high_open: bool = False,
) -> None:
    """Raise a UsageError unless `value` is finite and inside the interval.

    Args:
        argument: name to report.
        value: the number to check; NaN and infinities are never allowed.
        low, high: bounds; None leaves that side open.
        low_open, high_open: whether the bound itself is excluded.
    """
    if isinstance(value, float | int) and math.isfinite(value):
        above = low is None or (value > low if low_open else value >= low)
        below = high is None or (value < high if high_open else value <= high)
        if above and below:
            return
    bounds = [
        f"{'>' if low_open else '>='} {low}" if low is not None else "",
        f"{'<' if high_open else '<='} {high}" if high is not None else "",
    ]
    words = " and ".join(b for b in bounds if b)
    raise UsageError(argument, value, f"a number {words}".strip())
