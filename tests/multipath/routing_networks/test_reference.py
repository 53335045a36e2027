"""Learning: opposed tasks are told apart, digits are recognised by their task's way.

The rates at which rules solve the opposed tasks are those of a study of the corrected
rules over 20 seeds.
"""

import dataclasses

import numpy as np
import pytest

from multipath.routing_networks import train
from multipath.routing_networks.conflict import SOLVED
from multipath.routing_networks.experiments import EXPERIMENTS

pytestmark = pytest.mark.usefixtures("optimised")

RATES = {
    2: {
        **dict.fromkeys(("reinforce", "reinforce-bl1", "actor-critic", "aac"), 0.95),
        **dict.fromkeys(("egreedy-reinforce", "egreedy-aac"), 1.0),
        **{"advantage": 0.75, "wpl": 0.95, "gumbel": 0.75, "gumbel-full": 0.95},
    },
    4: {
        **dict.fromkeys(("reinforce", "reinforce-bl1", "actor-critic", "aac"), 0.95),
        **dict.fromkeys(("egreedy-reinforce", "egreedy-aac"), 1.0),
        **{"advantage": 1.0, "qlearning": 1.0, "wpl": 1.0, "gumbel-full": 0.95},
    },
}
"""Shares of seeds, of 0.75 or more, by the number of modules."""


def scores(name: str, kind: str, seeds: int, **changes) -> np.ndarray:
    """Return a test score of each network of an experiment `[networks, seeds]`."""
    configs = [
        dataclasses.replace(config, seed=seed, **changes)
        for config in EXPERIMENTS[name].configs
        for seed in range(1, seeds + 1)
    ]
    summaries = train.train(configs, progress=False)
    return np.reshape([s[f"test/{kind}"] for s in summaries], (-1, seeds))


def solved(modules: int, algorithm: str, seeds: int) -> float:
    errors = scores(f"conflict-{modules}-{algorithm}", "error", seeds)
    return float(np.mean(errors < SOLVED))


@pytest.mark.parametrize("algorithm", ["aac", "wpl"])
def test_opposed_tasks_are_told_apart(algorithm):
    assert solved(2, algorithm, 20) >= RATES[2][algorithm] - 0.1


def test_digits_are_recognised_by_routes_of_their_tasks():
    """Three tasks, fewer and larger updates."""
    changes = {"tasks": 3, "epochs": 15, "eval_every": 15, "lr_epochs": (12,)}
    changes |= {"batch": 32, "lr": 3e-3, "routing_lr": 20.0}
    found = scores("digits-mtl-routed-aac", "balanced_accuracy", 1, **changes)
    assert found.min() > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("modules", RATES)
def test_every_rule_tells_opposed_tasks_apart_as_often_as_the_reference(modules):
    rates = {name: solved(modules, name, 100) for name in RATES[modules]}
    short = {k: v for k, v in rates.items() if v < RATES[modules][k] - 0.1}
    assert not short


@pytest.mark.slow
def test_routing_beats_a_shared_network_and_knows_tasks_as_well_as_separate_ones():
    """Three seeds; the shared network is as large and sees the task."""
    mean = lambda name: scores(f"digits-mtl-{name}", "balanced_accuracy", 3).mean()
    shared, separate, known = map(
        mean, ("shared-one-hot", "separate", "per-task-all-fc")
    )
    assert known > separate - 0.01
    for algorithm in ("reinforce", "actor-critic", "aac"):
        assert mean(f"routed-{algorithm}") > shared - 0.005, algorithm
