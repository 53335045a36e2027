"""Configs refuse what cannot be trained, and the table holds the published settings."""

import dataclasses

import pytest

from gaitprop.config import Config
from gaitprop.experiments import EXPERIMENTS, scaled, square
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


@pytest.mark.parametrize("hidden", (80, 40))
def test_rectangular_first_layer_may_grow_or_fall(hidden):
    widths = (64, hidden, hidden)
    Config(dataset="digits", widths=widths, first_layer="rectangular")
    with pytest.raises(UsageError, match="never grow"):
        Config(dataset="digits", widths=(64, 40, 41), first_layer="rectangular")


PUBLISHED = {"bp": (1e-4, 0.0), "gait": (1e-4, 0.1), "tp": (1e-5, 1000.0)}
SETS = {"": "mnist", "-kmnist": "kmnist", "-fmnist": "fashion_mnist"}
TOWER = (784, 784, 500, 200, 10)


def only(name):
    (config,) = EXPERIMENTS[name].configs
    return config


@pytest.mark.parametrize("rule", PUBLISHED)
def test_every_published_network_is_an_experiment(rule):
    rate, weight = PUBLISHED[rule]
    plain = Config(algorithm=rule, learning_rate=rate, ortho_weight=weight)
    square4 = dataclasses.replace(plain, widths=square(4))
    for suffix, data in SETS.items():
        on = dataclasses.replace(square4, dataset=data)
        assert only(f"sq4-{rule}{suffix}") == on
        linear = dataclasses.replace(on, transfer="linear")
        assert only(f"sq4-{rule}-linear{suffix}") == linear
        tower = dataclasses.replace(on, widths=TOWER)
        assert only(f"tower-{rule}{suffix}") == tower
    for hidden in (1, 2, 3, 4, 6, 8):
        deep = dataclasses.replace(plain, widths=square(hidden))
        assert only(f"depth-{hidden}-{rule}") == deep


def test_variants_change_one_thing():
    gait = only("sq4-gait")
    for name, changes in {
        "itp": {"algorithm": "itp"},
        "init-glorot": {"init": "glorot_normal"},
        "sq4-gait-noreg": {"ortho_weight": 0.0},
        "sq4-gait-identity": {"ortho_target": "identity"},
        "sq4-gait-adaptive": {"algorithm": "gait_adaptive", "gamma": 1e-7},
    }.items():
        assert only(name) == dataclasses.replace(gait, **changes)
    fa = dataclasses.replace(only("sq4-bp"), algorithm="feedback_alignment")
    assert only("sq4-fa") == fa
    assert only("default-cli") == Config() == only("depth-1-bp")
    nudges = [c.gamma for c in EXPERIMENTS["gamma-sweep"].configs]
    assert nudges == [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 0.0]
    assert {dataclasses.replace(c, gamma=1e-3) for c in sweep("gamma-sweep")} == {gait}
    learned, tp = sweep("learned-inverse")
    assert learned == dataclasses.replace(gait, inverse="learned", gamma=1e-2)
    assert tp == dataclasses.replace(only("sq4-tp"), inverse="learned")
    assert [len(c.widths) - 2 for c in sweep("roundoff")] == list(range(1, 9))
    assert EXPERIMENTS["roundoff"].kind == "analysis"


def sweep(name):
    return EXPERIMENTS[name].configs


def test_grid_crosses_rules_rates_and_weights():
    cells = {(c.algorithm, c.learning_rate, c.ortho_weight) for c in sweep("grid")}
    rates, weights = (1e-6, 1e-5, 1e-4, 1e-3), (0, 0.1, 1, 10, 100, 1000)
    rules = ("gait", "tp", "itp", "bp")
    assert cells == {(a, r, w) for a in rules for r in rates for w in weights}
    assert len(cells) == len(sweep("grid"))


def test_digits_experiments_are_those_of_the_reference_study():
    for rule, (_, weight) in PUBLISHED.items():
        rate = 1e-4 if rule == "tp" else 1e-3
        base = Config(
            dataset="digits",
            widths=square(4, 64),
            algorithm=rule,
            learning_rate=rate,
            ortho_weight=weight,
            batch_size=32,
        )
        for hidden in (1, 4, 8):
            deep = dataclasses.replace(base, widths=square(hidden, 64))
            assert only(f"digits-h{hidden}-{rule}") == deep
        linear = dataclasses.replace(base, transfer="linear")
        assert only(f"digits-h4-{rule}-linear") == linear
        tower = dataclasses.replace(base, widths=(64, 64, 40, 20, 10))
        assert only(f"digits-tower-{rule}") == tower
    free = [(c.algorithm, c.ortho_weight) for c in sweep("digits-h4-noreg")]
    assert free == [("gait", 0.0), ("tp", 0.0)]


def test_published_settings():
    gait, tp = (EXPERIMENTS[n].configs[0] for n in ("sq4-gait", "sq4-tp"))
    assert gait.widths == square(4) == (784,) * 6
    assert (gait.learning_rate, gait.ortho_weight, gait.gamma) == (1e-4, 0.1, 1e-3)
    assert (tp.learning_rate, tp.ortho_weight) == (1e-5, 1000.0)
    assert (gait.batch_size, gait.epochs, gait.beta2) == (60, 100, 0.99)


def test_scales_shorten_and_paper_changes_nothing():
    config = EXPERIMENTS["sq4-gait"].configs[0]
    assert scaled(config, "paper") == config
    assert scaled(config, "small").epochs == 3
    assert scaled(config, "smoke").steps == 100
    short = dataclasses.replace(config, epochs=2)
    assert scaled(short, "small").epochs == 2
