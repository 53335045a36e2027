"""The table of experiments, and the scales it is run at."""

import pytest

from multipath.routing_networks.algorithms import ALGORITHMS
from multipath.routing_networks.config import Config
from multipath.routing_networks.experiments import EXPERIMENTS, MODELS, scaled
from shared.config import from_dict, to_dict

DATA = ("cifar100-mtl", "mnist-mtl", "digits-mtl", "digits-mtl-permuted")


@pytest.mark.parametrize("data", DATA)
def test_every_model_meets_every_algorithm(data):
    configs = {
        (row.configs[0].model, row.configs[0].algorithm)
        for name, row in EXPERIMENTS.items()
        if len(row.configs) == 1 and row.data == data.replace("-", "_")
    }
    routed = [model for model, _ in MODELS.values()]
    wanted = {(model, algorithm) for model in routed for algorithm in ALGORITHMS}
    assert wanted <= configs


def test_the_published_settings_are_those_of_its_revisions():
    default = EXPERIMENTS["cifar100-mtl-upstream-default"].configs[0]
    assert (default.algorithm, default.compat, default.labels) == ("wpl", True, "mod5")
    assert (default.batch, default.epochs, default.clip) == (10, 50, 40)
    assert (default.lr, default.routing_lr, default.rho) == (3e-3, 0.3, 0.3)
    rates = [default.lr * factor for factor in default.lr_factors]
    assert default.lr_epochs == (5, 10) and rates == pytest.approx([1e-3, 3e-4])
    adam = EXPERIMENTS["cifar100-mtl-upstream-adam"].configs[0]
    assert (adam.optimizer, adam.routing_optimizer) == ("adam", "sgd")
    assert (adam.batch, adam.width, adam.rho, adam.clip) == (64, 64, 0.1, 50)
    corrected = EXPERIMENTS["cifar100-mtl-corrected"].configs[0]
    assert not corrected.compat and corrected.labels == "rank"


def test_configs_survive_their_written_form():
    for row in EXPERIMENTS.values():
        for config in row.configs:
            assert from_dict(Config, to_dict(config)) == config


def test_scales_only_shrink():
    for row in EXPERIMENTS.values():
        config = row.configs[0]
        small, smoke = scaled(config, "small"), scaled(config, "smoke")
        assert scaled(config, "paper") == config
        assert smoke.updates <= small.updates
        assert not config.updates or small.updates <= config.updates
        assert smoke.batch <= small.batch <= config.batch
