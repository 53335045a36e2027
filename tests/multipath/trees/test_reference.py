"""Learning on real digits: depth pays, prices are heeded, easy images leave early.

The settings of plain digits are those of a study of the published program, whose
figures, over three seeds, are the reference: actors spend 137 k operations at the price
0, 80 to 94 k at 1.6e-6 and the least possible, 18,592, at 6.4e-6.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from multipath.trees import train
from multipath.trees.config import Config
from multipath.trees.experiments import EXPERIMENTS
from shared import runs
from shared.config import to_dict

LEAST = 18_592


def study(folder, configs: Sequence[Config]) -> list[dict]:
    """Train networks; return the last record of each."""
    with runs.create(
        folder,
        "trees",
        "study",
        to_dict(configs[0]),
        {"data_dir": None, "dtype": "float32"},
        members=[to_dict(c) for c in configs],
    ) as run:
        train.train(configs, run=run, progress=False)
        return [run.records(i)[-1] for i in range(len(configs))]


def of(name: str, *, seeds=(1,), **changes) -> list[Config]:
    """Return the networks of an experiment, each once for each seed."""
    return [
        dataclasses.replace(config, seed=seed, **changes)
        for config in EXPERIMENTS[name].configs
        for seed in seeds
    ]


def mean(records: list[dict], name: str, seeds: int) -> np.ndarray:
    """Return the means over seeds, one for each network."""
    return np.reshape([r[name] for r in records], (-1, seeds)).mean(1)


def test_actors_heed_their_price(tmp_path):
    """A shorter network, fewer updates, with schedules more than twice as fast."""
    quick = {"n_iter": 250, "t_log": 250, "lr_half": 31.0, "tau_half": 62.0}
    quick |= {"arch": ("8,8", "8,8", "16")}
    configs = [c for c in of("digits-ac", **quick) if c.k_cpt in (1e-7, 6.4e-6)]
    cheap, dear = study(tmp_path, configs)
    assert cheap["test/accuracy"] > 0.955 and cheap["test/moc"] > 80_000
    assert dear["test/accuracy"] > 0.92 and dear["test/moc"] == LEAST


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_digits_follow_the_reference(tmp_path):
    seeds = (1, 2, 3)
    static = study(tmp_path / "sr", of("digits-sr", seeds=seeds))
    errors = 1 - mean(static, "test/accuracy", 3)
    assert errors[0] > 0.028 and errors[1:].min() < 0.025
    actor = study(tmp_path / "ac", of("digits-ac", seeds=seeds))
    spent = mean(actor, "test/moc", 3)
    assert np.all(np.diff(spent) < 0.02 * spent[0]) and spent[-1] == LEAST
    assert spent[0] > 130_000 and 65_000 < spent[3] < 100_000
    accuracy = mean(actor, "test/accuracy", 3)
    assert accuracy[3] > accuracy[0] - 0.01
    # Without adjusted rates the policy goes all the way or nowhere.
    raw = study(tmp_path / "notalr", of("digits-ac-notalr", seeds=seeds))
    stops = np.array([np.add(r["test/p_cor"], r["test/p_inc"]) for r in raw])
    assert np.mean(stops.max(1) > 0.9) > 0.7


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_routing_keeps_the_accuracy_of_the_best_depth_for_less(tmp_path):
    """Easy and hard digits; the depth is chosen on validation images."""
    seeds = (1, 2, 3)
    static = study(tmp_path / "sr", of("digits-hybrid-sr", seeds=seeds))
    held = 1 - mean(static, "valid/accuracy", 3)
    best = int(np.flatnonzero(held <= held.min() + 0.005)[0])
    error = 1 - mean(static, "test/accuracy", 3)
    assert np.all(np.diff(error[: best + 1]) < 0)
    assert error[0] >= 2 * error[best]
    budget = 0.7 * mean(static, "test/moc", 3)[best]
    for name in ("digits-hybrid-ac", "digits-hybrid-cr"):
        routed = study(tmp_path / name, of(name, seeds=seeds))
        spent = mean(routed, "test/moc", 3)
        errors = 1 - mean(routed, "test/accuracy", 3)
        assert np.any((spent <= budget) & (errors <= error[best] + 0.01)), name
        assert np.all(np.diff(spent) <= 0.02 * spent[0]), name
        chosen = int(np.flatnonzero(spent <= budget)[0])
        easy, hard = _depths(routed[3 * chosen : 3 * chosen + 3])
        assert easy < hard - 0.3, name


def _depths(records: list[dict]) -> tuple[float, float]:
    """Return the mean depth at which clean and cluttered digits leave."""
    shares = np.mean(
        [np.add(r["test/p_cor_by_cls"], r["test/p_inc_by_cls"]) for r in records], 0
    )
    depths = np.arange(len(shares)) @ shares / shares.sum(0)
    return depths[:5].mean(), depths[5:].mean()
