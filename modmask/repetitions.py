"""One figure from several repetitions of an experiment."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from shared.errors import UsageError, check_range


class Spread(NamedTuple):
    """Mean of some values, and how far they lie apart.

    Attributes:
        mean: their mean.
        sd: sample standard deviation, with divisor n - 1; 0 for one value.
    """

    mean: float
    sd: float


class Interval(NamedTuple):
    """Where the expectation of some values lies, with a given confidence.

    Attributes:
        mean: their mean.
        low, high: bounds; infinite for one value, which tells nothing of the spread.
    """

    mean: float
    low: float
    high: float


def aggregate(values: Sequence[float | int]) -> Spread:
    """Return mean and sample standard deviation.

    Raises:
        UsageError: if there are no values.
    """
    found = np.asarray(values, np.float64)
    if found.size == 0:
        raise UsageError("values", "none", "at least one")
    sd = float(found.std(ddof=1)) if found.size > 1 else 0.0
    return Spread(float(found.mean()), sd)


def confidence_interval(values: Sequence[float | int], level: float = 0.95) -> Interval:
    """Return mean ± t s / √n, with Student's t at n - 1 degrees of freedom.

    Args:
        values: independent draws of a variable that is about normal.
        level: probability that such an interval holds the expectation, in (0, 1).
    """
    mean, sd = aggregate(values)
    if len(values) == 1:
        check_range("level", level, low=0, high=1, low_open=True, high_open=True)
        return Interval(mean, -math.inf, math.inf)
    half = student_t(len(values) - 1, level) * sd / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def student_t(freedom: int, level: float) -> float:
    """Return t with P(|T| <= t) = level.

    Args:
        freedom: degrees of freedom of T.
        level: in (0, 1).

    Reference:
        Abramowitz and Stegun (1964), 26.7.3 and 26.7.4: finite sums in the angle
        θ = arctan(t / √ν).
    """
    check_range("freedom", freedom, low=1)
    check_range("level", level, low=0, high=1, low_open=True, high_open=True)
    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        if _within(middle, freedom) < level:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(low)


def _within(theta: float, freedom: int) -> float:
    """Return P(|T| <= t) for t = √ν tan θ."""
    sine, square = math.sin(theta), math.cos(theta) ** 2
    odd = freedom % 2
    term = math.cos(theta) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom, 2):
        term *= square * (k - 1) / k
        total += term
    return (theta + sine * total) * 2 / math.pi if odd else sine * total
