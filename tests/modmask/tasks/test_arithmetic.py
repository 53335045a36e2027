"""Data of the arithmetic tasks."""

import jax.numpy as jnp
import numpy as np
import pytest

from modmask.tasks import arithmetic
from shared.errors import UsageError


def test_digits_come_least_significant_first():
    found = arithmetic.digits_of(np.array([[407], [12]]), 3)
    np.testing.assert_array_equal(found, [[[7, 0, 4]], [[2, 1, 0]]])
    assert found.dtype == np.uint8


@pytest.mark.parametrize(("operation", "result"), (("add", 25), ("mul", 50)))
def test_results_wrap_at_the_number_of_digits(operation, result):
    found = arithmetic.calculate(np.array([[50, 75]]), operation, 2)
    assert found.tolist() == [result]


def test_draws_follow_the_published_generator():
    random = np.random.RandomState(0x12345678 + 2)
    drawn = arithmetic.operations("valid", 2, items=7)
    np.testing.assert_array_equal(drawn.operands, random.randint(0, 100, (7, 2)))
    np.testing.assert_array_equal(drawn.operation, random.randint(0, 2, 7))


def test_each_pair_is_drawn_from_its_range():
    found = arithmetic.pairs(
        "test", 2, items=200, count=3, ranges={1: (10, 13), 2: (99, 100)}
    )
    assert found.shape == (200, 3, 2)
    assert set(found[:, 1].ravel()) == {10, 11, 12}
    assert set(found[:, 2].ravel()) == {99}
    assert np.max(found[:, 0]) > 90 and np.min(found[:, 0]) < 10


@pytest.mark.parametrize("digits", (1, 2, 4))
def test_held_out_pairs_are_disjoint_from_training(digits):
    def known(name):
        draw = lambda make: make(name, digits, items=4000, held_out=True)
        single = draw(arithmetic.operations).operands
        both = np.concatenate([single, draw(arithmetic.pairs).reshape(-1, 2)])
        return {tuple(sorted(pair)) for pair in both.tolist()}

    train, valid = known("train"), known("valid")
    assert valid and not train & valid
    if digits == 1:
        assert len(train | valid) == 55


def test_a_fifth_of_all_pairs_is_held_out_in_either_order():
    a, b = np.meshgrid(np.arange(100), np.arange(100))
    held = arithmetic.is_held_out(np.stack([a, b], axis=-1))
    np.testing.assert_array_equal(held, held.T)
    assert 0.18 < held.mean() < 0.22
    # Neither operand alone tells, nor does their sum.
    assert np.all(held.any(axis=0)) and not np.any(held.all(axis=0))
    sums = np.bincount((a + b).ravel() % 100, held.ravel()) / 100
    assert np.min(sums) > 0.05 and np.max(sums) < 0.4


def test_sets_differ_and_draws_repeat():
    draw = lambda name: arithmetic.operations(name, 1, items=50).operands
    np.testing.assert_array_equal(draw("train"), draw("train"))
    assert np.any(draw("train") != draw("test"))


def test_an_item_is_right_with_all_its_digits():
    logits = jnp.zeros((3, 2, 10)).at[:, 0, 4].set(1.0).at[:, 1, 6].set(1.0)
    digits = jnp.array([[4, 6], [4, 5], [6, 4]], jnp.uint8)
    right = arithmetic.all_right(logits, digits)
    np.testing.assert_array_equal(right, [True, False, False])


def test_loss_of_a_number_is_the_mean_over_its_digits():
    logits = jnp.zeros((1, 2, 10)).at[0, 0, 3].set(jnp.log(11.0))
    found = arithmetic.digit_losses(logits, jnp.array([[3, 0]], jnp.uint8))
    np.testing.assert_allclose(found, [(np.log(20 / 11) + np.log(10)) / 2], rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "named"),
    (
        (lambda: arithmetic.operations("vaild", 1), "name"),
        (lambda: arithmetic.operations("valid", 0), "digits"),
        (lambda: arithmetic.pairs("valid", 5), "digits"),
        (lambda: arithmetic.pairs("valid", 1, items=0), "items"),
        (lambda: arithmetic.pairs("valid", 1, ranges={2: (0, 5)}), "ranges"),
        (lambda: arithmetic.pairs("valid", 1, ranges={0: (5, 11)}), "ranges"),
        (lambda: arithmetic.pairs("valid", 1, ranges={0: (5, 5)}), "ranges"),
        (lambda: arithmetic.calculate(np.array([1, 2]), "sub", 1), "operation"),
    ),
)
def test_bad_requests_are_refused(make, named):
    with pytest.raises(UsageError, match=named):
        make()


@pytest.mark.parametrize("name", ("train", "valid"))
def test_a_range_without_pairs_of_a_set_is_refused(name):
    single = np.array([[n, n] for n in range(10)])
    held = arithmetic.is_held_out(single)
    wrong = int(np.argmax(held if name == "train" else ~held))
    with pytest.raises(UsageError, match="ranges"):
        arithmetic.pairs(
            name, 1, items=2, ranges={0: (wrong, wrong + 1)}, held_out=True
        )
