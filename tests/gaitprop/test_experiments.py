"""Configs refuse what cannot be trained, and the table holds the published settings."""

import dataclasses

import pytest

from gaitprop.experiments import EXPERIMENTS, Config, scaled, square
from shared.errors import UsageError


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("dataset", "mnst", "mnist"),
        ("algorithm", "gate", "Did you mean 'gait'"),
        ("solver", "lru", "Did you mean 'lu'"),
        ("transfer", "relu", "leaky_relu, linear"),
        ("optimizer", "adamw", "Did you mean 'adam'"),
        ("widths", (784, 784, 800), "never grow"),
        ("widths", (784, 500, 9), "classes"),
        ("widths", (784,), "two or more"),
        ("widths", (64, 64), "784 first"),
        ("learning_rate", 0.0, "> 0"),
        ("gamma", -0.1, ">= 0"),
        ("gamma", 1.5, "<= 1"),
        ("leaky_slope", 0.0, "> 0"),
        ("leaky_slope", 1.1, "<= 1"),
        ("batch_size", 0, ">= 1"),
        ("ortho_weight", float("nan"), ">= 0"),
        ("beta2", 1.0, "< 1"),
        ("seed", -1, ">= 0"),
    ],
)
def test_bad_field_is_named_with_its_value_and_what_is_allowed(field, value, words):
    with pytest.raises(UsageError) as caught:
        Config(**{field: value})
    assert str(caught.value).startswith(f"{field}: got ") and words in str(caught.value)


def test_published_arithmetic_has_no_limit_form():
    with pytest.raises(UsageError, match="gamma: got 0"):
        Config(algorithm="gait", form="subtract", gamma=0.0)


def test_published_settings():
    gait, tp = (EXPERIMENTS[n].configs[0] for n in ("sq4-gait", "sq4-tp"))
    assert gait.widths == square(4) == (784,) * 6
    assert (gait.learning_rate, gait.ortho_weight, gait.gamma) == (1e-4, 0.1, 1e-3)
    assert (tp.learning_rate, tp.ortho_weight) == (1e-5, 1000.0)
    assert (gait.batch_size, gait.epochs, gait.beta2) == (60, 100, 0.99)
    assert EXPERIMENTS["tower-gait"].configs[0].widths == (784, 784, 500, 200, 10)
    assert len(EXPERIMENTS["grid"].configs) == 4 * 6 * 4
    assert EXPERIMENTS["sq4-tp-linear-kmnist"].configs[0].dataset == "kmnist"


def test_scales_shorten_and_paper_changes_nothing():
    config = EXPERIMENTS["sq4-gait"].configs[0]
    assert scaled(config, "paper") == config
    assert scaled(config, "small").epochs == 3
    assert scaled(config, "smoke").steps == 100
    short = dataclasses.replace(config, epochs=2)
    assert scaled(short, "small").epochs == 2
