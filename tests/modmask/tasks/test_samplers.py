"""Sequences and splits of the published program."""

import numpy as np
import pytest

from modmask.tasks import samplers
from shared.errors import UsageError


def test_rows_come_as_if_drawn_one_at_a_time():
    random = np.random.RandomState(5)
    single = [random.randint(0, 17) for _ in range(40)]
    np.testing.assert_array_equal(samplers.infinite(17, 40, seed=5), single)


def test_each_epoch_without_replacement_has_every_row():
    rows = samplers.without_replacement(6, 15, seed=1)
    assert len(rows) == 15
    for start in (0, 6):
        assert sorted(rows[start : start + 6]) == list(range(6))
    assert list(rows[:6]) != list(rows[6:12])
    assert len(samplers.without_replacement(6, 0, seed=1)) == 0


def test_a_subset_has_no_row_twice_and_no_more_than_there_are():
    rows = samplers.subset(100, 30)
    assert len(set(rows)) == 30 and max(rows) < 100
    assert sorted(samplers.subset(7, 30)) == list(range(7))
    np.testing.assert_array_equal(rows, samplers.subset(100, 30))


def test_a_fixed_order_has_every_row_and_never_changes():
    order = samplers.fixed_order(20)
    assert sorted(order) == list(range(20)) and list(order) != list(range(20))
    np.testing.assert_array_equal(order, samplers.fixed_order(20))


@pytest.mark.parametrize(("rows", "train"), ((50_000, 40_053), (60_000, 48_017)))
def test_a_fifth_of_an_archive_is_for_validation(rows, train):
    chosen = samplers.training_rows(rows)
    assert chosen.sum() == train
    np.testing.assert_array_equal(chosen[:100], samplers.training_rows(100))


def test_held_out_rows_rise():
    rows = samplers.held_out(50, 10, seed=3)
    assert np.all(np.diff(rows) > 0) and rows[-1] < 50
    assert list(rows) != list(samplers.held_out(50, 10, seed=4))


def test_permutations_move_all_pixels_but_the_first_moves_none():
    np.testing.assert_array_equal(samplers.pixel_permutation(0, 9), np.arange(9))
    moved = samplers.pixel_permutation(1)
    assert sorted(moved) == list(range(784)) and np.any(moved != np.arange(784))
    assert np.any(moved != samplers.pixel_permutation(2))


def test_every_number_is_another_ordered_pair():
    pairs = [samplers.class_pair(number, 4) for number in range(12)]
    assert len(set(pairs)) == 12
    assert all(i != j and {i, j} <= set(range(4)) for i, j in pairs)
    assert samplers.class_pair(1) == (0, 1) and samplers.class_pair(0) == (1, 0)


def test_pairs_differ_and_follow_from_the_seed():
    pairs = samplers.stability_pairs(2)
    assert len(set(pairs)) == 10
    assert pairs == samplers.stability_pairs(2) != samplers.stability_pairs(3)


@pytest.mark.parametrize(
    "wrong",
    (
        lambda: samplers.infinite(0, 3, seed=1),
        lambda: samplers.held_out(3, 4, seed=1),
        lambda: samplers.class_pair(90),
        lambda: samplers.pair_numbers(1, count=91),
        lambda: samplers.pixel_permutation(-1),
    ),
)
def test_impossible_draws_are_refused(wrong):
    with pytest.raises(UsageError, match="a number"):
        wrong()
