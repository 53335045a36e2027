"""Training networks, then masks over them: from configs to a run directory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from modmask import analyses, phases, results, tasks, weights
from modmask.config import Config
from modmask.evaluate import assess
from modmask.names import original_name
from modmask.task import Problem
from shared import groups, masking, runs, training
from shared.groups import Place
from shared.model import Variables

DTYPES = ("float32", "float64")
"""Types of numbers that masks are trained in."""


def build(
    static: Any, problem: Problem, *, axis_name: str | None = None
) -> training.Program:
    """Return the program that trains the weights of a config's network.

    Args:
        static: static part of a `Config`.
        problem: its network and data, from `tasks.load`.
        axis_name: mesh axis over which batches are shared out.
    """
    return weights.build(problem.task, static, axis_name=axis_name)


def train(
    configs: Sequence[Config],
    *,
    data_dir: str | Path | None = None,
    devices: int = 1,
    run: runs.Run | None = None,
    progress: bool | None = None,
) -> list[dict[str, Any]]:
    """Train one network per config, then its masks, and analyse them.

    Configs with equal static parts are one program; those that differ in settings of
    masks alone share their network.

    Args:
        configs: one per member.
        data_dir: where the data sets lie; arithmetic and grammars need none.
        devices: how many devices share the members, or the batch of a single one.
        run: run directory to write to, and to go on from if it holds checkpoints.
        progress: show a progress bar; None shows it on a terminal only.

    Returns:
        One summary per config: `status`, `steps`, `seconds` and headline figures.

    Raises:
        UsageError: for settings or data that do not fit together.
        FloatingPointError: if the training of weights, or of all masks, diverges.
    """

    def train_group(static, hyper, place):
        del static, hyper
        return _train_group([configs[i] for i in place.indices], data_dir, place)

    return groups.train(
        configs, train_group, run=run, devices=devices, progress=progress
    )


def _train_group(
    configs: Sequence[Config], data_dir: str | Path | None, place: Place
) -> list[dict[str, Any]]:
    config = configs[0]
    problem = tasks.load(config, data_dir)
    if config.task == "permuted_mnist":
        outcomes = analyses.transfer.run(problem, configs, place)
    else:
        outcomes = _weights_and_masks(problem, configs, place)
    for index, outcome in zip(place.indices, outcomes, strict=True):
        if place.run is not None:
            write_outcome(place.run.directory(index), outcome)
    return [
        {"status": "done", **headline(outcome.results), "steps": outcome.steps}
        for outcome in outcomes
    ]


def _weights_and_masks(
    problem: Problem, configs: Sequence[Config], place: Place
) -> list[analyses.Outcome]:
    config = configs[0]
    if config.restore:
        networks, offset = phases.restored_weights(config.restore, problem, configs), 0
    else:
        networks = phases.train_weights(problem, configs, place)
        offset = config.steps
    before = [
        {
            f"analysis_results/network/{name}": value
            for name, value in validation(problem, network, None).items()
        }
        for network in networks
    ]
    if not config.analysis or config.train_baseline:
        return [analyses.Outcome(found, {}, offset) for found in before]
    analyse = analyses.ANALYSES[config.task]
    outcomes = analyse(problem, configs, networks, place, offset)
    return [
        outcome._replace(results={**found, **outcome.results})
        for found, outcome in zip(before, outcomes, strict=True)
    ]


def headline(found: Mapping[str, float]) -> dict[str, float]:
    """Return the few figures of a run that its summary shows."""
    shown = {}
    for name, value in found.items():
        head, *rest = name.split("/")
        if head == "analysis_results" and rest[1:] == ["iid", "accuracy"]:
            shown[f"{rest[0]}/accuracy"] = value
        elif head == "density" and rest[1:] == ["total"]:
            shown[f"{rest[0]}/density"] = value
        elif head == "permuted_mnist" and rest == [rest[0], rest[0], "accuracy"]:
            shown[f"{rest[0]}/accuracy"] = value
        elif name in ("masks_stability/average_iou", "cos_distance/0/total"):
            shown[name] = value
    return shown


def write_outcome(path: Path, outcome: analyses.Outcome) -> None:
    """Write `export/` and `results.json` of one network."""
    results.export(path, outcome.exports)
    results.write(path, outcome.results)


def stored_masks(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Read the logits that a finished run or member exported, by stage and name."""
    found = {}
    for file in sorted((Path(path) / "export" / "stage_final_masks").glob("*.npz")):
        with np.load(file) as archive:
            arrays = {name: archive[name] for name in archive.files}
        found[str(arrays.pop("stage"))] = arrays
    return found


def evaluate(
    path: str | Path, *, data_dir: str | Path | None = None
) -> list[training.Record]:
    """Evaluate the networks of a run, whole and with each of their masks.

    Returns:
        A record per member: `network/<set>/<metric>` and `<stage>/<set>/<metric>`.

    Raises:
        UsageError: if the run has no trained weights, or the data set is missing.
    """
    path = Path(path)
    places = runs.members(path) or [path]
    data_dir = data_dir or runs.read_config(path)["options"]["data_dir"]
    networks = phases.trained_weights(path, data_dir)
    records = []
    configs = runs.read_configs(path, Config)
    found = zip(places, configs, networks, strict=True)
    for member, (place, config, network) in enumerate(found):
        problem = tasks.load(config, data_dir)
        chosen: dict[str, Any] = {"network": None}
        for stage, logits in stored_masks(place).items():
            chosen[stage] = masking.threshold(_as_tree(logits, network.params))
        record: dict[str, Any] = {"member": member, "step": config.steps}
        for name, masks in chosen.items():
            found = validation(problem, network, masks)
            record |= {f"{name}/{key}": value for key, value in found.items()}
        records.append(record)
    return records


def _as_tree(logits: Mapping[str, np.ndarray], params: Any) -> Any:
    """Give logits by name the structure of the parameters."""
    spell = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
    return jax.tree_util.tree_map_with_path(
        lambda path, _: logits.get(original_name(spell(path))), params
    )


def validation(problem: Problem, network: Variables, masks: Any) -> dict[str, float]:
    """Return `<set>/<metric>` of a network with fixed masks on all validation sets."""
    return {
        f"{name}/{metric}": float(value)
        for name, arrays in problem.valid.items()
        for metric, value in assess(problem.task, network, masks, arrays).items()
        if value.ndim == 0
    }
