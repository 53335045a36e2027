"""The rules learn real digits to the accuracies of the reference study."""

import dataclasses

import pytest

from gaitprop import train
from gaitprop.experiments import EXPERIMENTS

pytestmark = pytest.mark.usefixtures("optimised")


def final_accuracy(name: str, **changes) -> float:
    """Train a digits experiment for 100 epochs; mean over three seeds, at the end.

    A single seed's last epoch may fall on one of the dips that the constant step
    size leaves in deep networks.
    """
    (config,) = EXPERIMENTS[name].configs
    quick = {"diagnose": False, "eval_every": 10**6, **changes}
    members = [dataclasses.replace(config, seed=seed, **quick) for seed in (1, 2, 3)]
    summaries = train.train(members, progress=False)
    return sum(summary["test/accuracy/final"] for summary in summaries) / 3


@pytest.mark.parametrize("hidden", [1, 4, 8])
@pytest.mark.parametrize("rule", ["bp", "gait"])
def test_bp_and_gait_reach_98_percent_at_any_depth(rule, hidden):
    assert final_accuracy(f"digits-h{hidden}-{rule}") >= 0.98


def test_target_propagation_lags_behind_in_a_deep_nonlinear_network():
    assert 0.65 <= final_accuracy("digits-h4-tp") <= 0.88


@pytest.mark.parametrize("rule", ["bp", "gait"])
def test_linear_networks_stay_between_92_and_96_percent(rule):
    assert 0.92 <= final_accuracy(f"digits-h4-{rule}-linear") <= 0.96


@pytest.mark.slow
def test_tower_learns_like_the_square_network():
    assert final_accuracy("digits-tower-gait") >= 0.975
    assert final_accuracy("digits-tower-bp") >= 0.975


@pytest.mark.slow
def test_published_arithmetic_does_not_train_eight_hidden_layers():
    assert final_accuracy("digits-h8-gait", form="subtract", solver="lu") < 0.9
