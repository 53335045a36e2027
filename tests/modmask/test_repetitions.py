"""Means, deviations and intervals over repetitions."""

import math

import numpy as np
import pytest

from modmask import repetitions
from shared.errors import UsageError

# Student's t from printed tables: degrees of freedom, level, t.
TABLE = (
    (1, 0.95, 12.7062),
    (2, 0.95, 4.3027),
    (3, 0.90, 2.3534),
    (4, 0.95, 2.7764),
    (9, 0.95, 2.2622),
    (9, 0.99, 3.2498),
    (10, 0.95, 2.2281),
    (30, 0.99, 2.7500),
    (120, 0.95, 1.9799),
)


@pytest.mark.parametrize(("freedom", "level", "t"), TABLE)
def test_student_t_against_tables(freedom, level, t):
    assert repetitions.student_t(freedom, level) == pytest.approx(t, abs=6e-5)


def test_student_t_becomes_normal():
    assert repetitions.student_t(100_000, 0.95) == pytest.approx(1.95996, abs=5e-5)


def test_interval_by_hand():
    # Mean 4, deviation 2, three values: 4.3027 * 2 / sqrt(3).
    mean, low, high = repetitions.confidence_interval([2, 4, 6])
    assert mean == 4
    assert high - mean == pytest.approx(4.9683, abs=1e-4)
    assert mean - low == pytest.approx(high - mean)
    wide = repetitions.confidence_interval([2, 4, 6], 0.99)
    assert wide.high > high


def test_interval_holds_the_expectation_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (2000, 4))
    intervals = [repetitions.confidence_interval(row, 0.9) for row in draws.tolist()]
    held = np.mean([low <= 3 <= high for _, low, high in intervals])
    assert held == pytest.approx(0.9, abs=0.027)


def test_one_value_has_no_spread():
    assert repetitions.aggregate([0.5]) == (0.5, 0.0)
    assert repetitions.aggregate([1, 3]) == (2.0, pytest.approx(math.sqrt(2)))
    assert repetitions.confidence_interval([0.5]) == (0.5, -math.inf, math.inf)


def test_refuses_what_has_no_mean():
    with pytest.raises(UsageError, match="values"):
        repetitions.aggregate([])
    with pytest.raises(UsageError, match="level"):
        repetitions.confidence_interval([0.5], 1.0)
    with pytest.raises(UsageError, match="freedom"):
        repetitions.student_t(0, 0.95)
