"""Usage errors name the argument, the value and what is allowed."""

import math
import pickle

import pytest

from shared import errors


def test_message_has_argument_value_and_allowed():
    text = str(errors.UsageError("gamma", -1, "a number >= 0", "Use 0 for the limit."))
    assert text == "gamma: got -1, expected a number >= 0. Use 0 for the limit."


def test_typo_is_answered_with_the_closest_choice():
    with pytest.raises(errors.UsageError, match="Did you mean 'kmnist'"):
        errors.check_choice("dataset", "kmnst", ["mnist", "fashion_mnist", "kmnist"])


def test_choice_that_exists_passes():
    errors.check_choice("dataset", "mnist", iter(["mnist", "kmnist"]))


@pytest.mark.parametrize("value", [0, 1.5, math.nan, math.inf, "1"])
def test_range_refuses_what_is_outside_or_not_a_finite_number(value):
    with pytest.raises(errors.UsageError, match="slope: got .* > 0 and <= 1"):
        errors.check_range("slope", value, low=0, high=1, low_open=True)


@pytest.mark.parametrize("value", [1, 0.1])
def test_range_takes_what_is_inside(value):
    errors.check_range("slope", value, low=0, high=1, low_open=True)


def test_survives_pickling():
    error = errors.UsageError("a", 1, "2", "hint")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
