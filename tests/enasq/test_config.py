"""Settings of a run: what is said of them, and what is refused."""

import dataclasses
import re

import pytest

from enasq import (
    augmentation,
    config,
    controller,
    data,
    optimizer,
    parts,
    plan,
    policy,
)
from enasq.experiments import EXPERIMENTS
from enasq.losses import LOSSES
from shared.errors import UsageError

NAMES = {
    "dataset": data.SETS,
    "augment": augmentation.CHANGES,
    "pool_positions": plan.RULES,
    "policy": policy.PRESETS,
    "loss": LOSSES,
    "optimizer": optimizer.OPTIMIZERS,
    "schedule": optimizer.SCHEDULES,
    "clip": optimizer.CLIPS,
    "entropy": controller.ENTROPIES,
    "baseline": controller.BASELINES,
    "budget_of": config.COSTS,
}


@pytest.fixture(scope="module")
def entries():
    """What is said of each setting; the command line shows it."""
    text = config.Config.__doc__ or ""
    return dict(re.findall(r"^ {8}(\w+): (.+(?:\n {12}.+)*)", text, re.MULTILINE))


def test_every_setting_has_a_line_of_its_own(entries):
    # The command line leaves out what is said of several settings at once.
    assert [*entries] == [field.name for field in dataclasses.fields(config.Config)]


@pytest.mark.parametrize("name", NAMES)
def test_the_names_that_a_setting_takes_are_listed(name, entries):
    words = re.findall(r"\w+", entries[name])
    assert set(NAMES[name]) <= set(words)


def test_a_search_drops_no_paths():
    with pytest.raises(UsageError, match="drop_path_keep: got 0.5, expected 1 in a"):
        config.Config(drop_path_keep=0.5)
    # A study trains what it has found.
    assert config.Config(task="study", drop_path_keep=0.5).drop_path_keep == 0.5
    assert EXPERIMENTS["enas_final"].configs[0].drop_path_keep == 0.6


def test_the_range_of_weights_may_be_that_of_each_kernel():
    ranged = parts.quant_policy(config.Config(high="Glorot"))
    assert ranged.of_cell(0).weights.high == "Glorot"
    for wrong in ("glorot", 0.0):
        with pytest.raises(UsageError, match="high: got"):
            config.Config(high=wrong)
