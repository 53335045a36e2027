"""Runs with made-up results, for figures to be drawn from."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modmask import results
from modmask.config import Config
from shared import config as configs
from shared import runs

Numbers = Mapping[str, float]
Fill = Callable[[Config], tuple[Numbers, Mapping[str, Any]]]
"""Results and exports of a network."""


def written(
    tmp_path: Path,
    members: Sequence[Config],
    fill: Fill | None = None,
    records: Callable[[Config], Sequence[dict[str, Any]]] = lambda config: (),
) -> Path:
    """Write a finished run; one of several members if there are several configs."""
    listed = [configs.to_dict(member) for member in members]
    many = listed if len(listed) > 1 else None
    run = runs.create(tmp_path, "modmask", "test", listed[0], {}, members=many)
    with run:
        for index, (config, place) in enumerate(
            zip(members, run.members or [run.path], strict=True)
        ):
            for record in records(config):
                run.log(record.pop("step"), record, index)
            if fill is not None:
                numbers, exports = fill(config)
                results.write(place, numbers)
                results.export(place, exports)
    return run.path


def repeated(config: Config, count: int = 3) -> list[Config]:
    """Return repetitions of a config: seeds 0, 1, ..."""
    return [dataclasses.replace(config, seed=seed) for seed in range(count)]


def shifted(config: Config) -> float:
    """Return a number that differs between seeds by 0.01, with mean 0 over three."""
    return 0.01 * (config.seed - 1)


FNN = Config(task="addmul_ff", layer_sizes=(2000,) * 4)
RNN = Config(task="addmul", state_size=256)
FF_WEIGHTS = [f"layers_{i}_weight" for i in range(5)]
LSTM_WEIGHTS = [f"lstm_cells_{i}_weight_{k}" for i in range(2) for k in ("hh", "ih")]
LSTM_WEIGHTS.append("output_projection_weight")


def weights(config: Config) -> list[str]:
    """Return names of weights and, to be left out by figures, of a bias."""
    forward = "_ff" in config.task
    names = [f"layers_{i}_weight" for i in range(len(config.layer_sizes) + 1)]
    return [*(names if forward else LSTM_WEIGHTS), "layers_0_bias", "total"]


def with_chance(numbers: Numbers, level: float) -> dict[str, float]:
    """Add a chance level for each number."""
    return {**numbers, **{f"chance/{name}": level for name in numbers}}


def overlaps(config: Config, first: str, second: str) -> dict[str, float]:
    """Return IoU .5, .6, ... and IoMin .1 more, chance .25, by layer."""
    found = {}
    for i, name in enumerate(weights(config)):
        share = 0.4 + 0.05 * i + shifted(config)
        found[f"mask_iou/{first}/{second}/{name}"] = share
        found[f"mask_iomin/{first}/{second}/{name}"] = share + 0.1
    return with_chance(found, 0.25)


def addmul(config: Config) -> tuple[Numbers, Mapping[str, Any]]:
    """Return what a run of addition and multiplication finds."""
    shift = shifted(config)
    numbers: dict[str, float] = overlaps(config, "add", "mul")
    accuracies = {"verify": (0.98, 0.97), "add": (0.96, 0.04), "mul": (0.03, 0.95)}
    for stage, pair in accuracies.items():
        for name, value in zip(("add", "mul"), pair, strict=True):
            numbers[f"analysis_results/{stage}/{name}/accuracy"] = value + shift
            numbers[f"inverse_mask_test/{stage}/{name}/accuracy"] = 0.1 + shift
            for kind, level in (("masked", value), ("inverse", 0.1), ("random", 0.05)):
                place = f"faithfulness/{stage}/{kind}"
                numbers[f"{place}/{name}/accuracy"] = level
                numbers[f"{place}/{name}/loss"] = 9.0
        numbers[f"analysis_results/{stage}/iid/accuracy"] = sum(pair) / 2 + shift
    for kind, left in (("normal", 0.9), ("inverse", 0.5)):
        numbers[f"half_mask_test/{kind}/verify/iter_0/iid/accuracy"] = left + shift
    for i, name in enumerate(weights(config)):
        numbers[f"count/add/{name}"] = 1000 * (i + 1) + 100 * config.seed
        numbers[f"count/mul/{name}"] = 2000 * (i + 1) + 200 * config.seed
    share = 0.4 - 1e-5 * sum(config.layer_sizes) + shift
    numbers |= with_chance({"mask_stat/all/shared_1": share}, 0.2)
    counts = np.array([[60, 20], [20, 70], [20 + config.seed, 10]])
    exports: dict[str, Any] = {}
    for stage in accuracies:
        exports[f"confusion/{stage}"] = counts
        exports[f"inverse_mask_test/{stage}/confusion"] = counts[::-1]
    return numbers, {**exports, **masks(config, ["verify", "add", "mul"])}


def pairs(config: Config) -> tuple[Numbers, Mapping[str, Any]]:
    """Return what a run of double addition finds."""
    shift = shifted(config)
    numbers: dict[str, float] = overlaps(config, "1", "2")
    accuracies = {"0": (0.98, 0.97), "1": (0.96, 0.04), "2": (0.03, 0.95)}
    for stage, values in accuracies.items():
        for i, value in enumerate(values):
            place = f"iid/accuracy/tuple/{i}"
            numbers[f"analysis_results/{stage}/{place}"] = value + shift
            inverse = 0.1 if config.inverse_io == "none" else 0.7
            numbers[f"inverse_mask_test/{stage}/{place}"] = inverse + shift
            for kind, level in (("masked", value), ("inverse", 0.1), ("random", 0.05)):
                numbers[f"faithfulness/{stage}/{kind}/{place}"] = level
        numbers[f"analysis_results/{stage}/iid/accuracy"] = min(values) + shift
        for kind in ("masked", "inverse", "random"):
            numbers[f"faithfulness/{stage}/{kind}/iid/accuracy"] = 0.5
            numbers[f"faithfulness/{stage}/{kind}/iid/accuracy/total"] = 0.5
    for kind, left in (("normal", 0.9), ("inverse", 0.5)):
        numbers[f"half_mask_test/{kind}/0/iter_0/iid/accuracy"] = left + shift
    return numbers, masks(config, ["0", "1", "2"])


def masks(config: Config, stages: Sequence[str]) -> dict[str, Any]:
    """Return logits: 90 weights that are out, 5 undecided, 5 + seed that are in."""
    logits = [-20.0] * 90 + [0.0] * 5 + [2.0] * (5 + config.seed)
    return {
        f"stage_final_masks/stage_{i}": {
            "stage": np.array(stage),
            "layers_0_weight": np.array(logits)[None],
        }
        for i, stage in enumerate(stages)
    }


def scan(config: Config) -> tuple[Numbers, Mapping[str, Any]]:
    """Return what a run on SCAN finds; a mask of jump removes half of JUMP."""
    shift, splits = shifted(config), ("turn_left", "jump", "length")
    if not config.analysis:
        split = config.scan_train_split
        return {f"analysis_results/network/{split}/accuracy": 0.4 + shift}, {}
    numbers = {}
    for i, split in enumerate(splits):
        numbers[f"analysis_results/simple/{split}/accuracy"] = 0.97 + shift
        numbers[f"analysis_results/{split}/{split}/accuracy"] = 0.1 * (i + 1) + shift
    for kind in ("normal", "inverse"):
        numbers[f"half_mask_test/{kind}/simple/iter_0/iid/accuracy"] = 0.5
    numbers["analysis_results/simple/iid/accuracy"] = 0.97
    output = (
        "output_map" if config.task == "trafo_scan" else "decoder_output_projection"
    )
    control = np.ones((4, 7))
    control[0] = -1
    jump = control.copy()
    jump[1:3, 2] = -1
    arrays = {"simple": control, "jump": jump}
    return numbers, {
        f"stage_final_masks/stage_{i}": {
            "stage": np.array(stage),
            f"{output}_weight": logits,
        }
        for i, (stage, logits) in enumerate(arrays.items())
    }


def mathematics(config: Config) -> tuple[Numbers, Mapping[str, Any]]:
    """Return what a run on the Mathematics Dataset finds."""
    levels = {"network": 0.9, "verify": 0.85, "easy": 0.3}
    return {
        f"analysis_results/{stage}/test_hard/accuracy": level + shifted(config)
        for stage, level in levels.items()
    }, {}


def removal(config: Config) -> tuple[Numbers, Mapping[str, Any]]:
    """Return what class removal finds: class c loses 50 + c percent, others 2."""
    reference = 0.02 * np.ones((10, 10)) + 0.8 * np.eye(10)
    exports: dict[str, Any] = {"class_removal/confusion_reference": reference}
    numbers = {}
    for c in range(10):
        lost = 50.0 + c + 100 * shifted(config)
        change = np.zeros((10, 10))
        change[c, c], change[c, (c + 1) % 10] = -lost / 100, lost / 100
        exports[f"class_removal/confusion_difference/{c}"] = change
        drops = {"target": lost, "largest_other": 2.0, "ratio": 200 / lost}
        for name, value in drops.items():
            numbers[f"class_removal/drop/{c}/{name}"] = value
    numbers["class_removal/drop/9/ratio"] = np.nan
    return numbers, exports


def stability(config: Config) -> tuple[Numbers, Mapping[str, Any]]:
    """Return what mask stability finds: IoU .80 to .89."""
    names = [f"pair_{i}_{(i + 3) % 10}" for i in range(10)]
    ious = {f"masks_stability/{n}/iou": 0.8 + 0.01 * i for i, n in enumerate(names)}
    ious["masks_stability/average_iou"] = float(np.mean(list(ious.values())))
    return with_chance(ious, 0.3), {}


def transfer(config: Config) -> tuple[Numbers, Mapping[str, Any]]:
    """Return what transfer finds: sharing grows with the permutation and the layer."""
    numbers = {}
    for p in range(11):
        place = f"permuted_mnist/perm_{p}/mask_stat/shared"
        for layer in range(4):
            for kind in ("weight", "bias"):
                share = 0.05 * p + 0.1 * layer + shifted(config)
                numbers[f"{place}/layers_{layer}_{kind}"] = share
        numbers[f"{place}/total"] = 0.5
    return with_chance(numbers, 0.33), {}
