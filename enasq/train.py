"""Searches and trainings: from configs to a run directory."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from enasq import judging, packed, parts, retrain, search, sessions, study
from enasq.config import Config
from shared import groups, runs, training
from shared.errors import UsageError
from shared.model import Variables

DTYPES = ("float32", "float64")


def train(
    configs: Sequence[Config],
    *,
    data_dir: str | Path | None = None,
    devices: int = 1,
    run: runs.Run | None = None,
    progress: bool | None = None,
) -> list[dict[str, Any]]:
    """Search or train once per config; equal static parts are one program.

    Args:
        configs: one per member.
        data_dir: where the data sets lie; digits need none.
        devices: how many devices share the members, or the batch of a single one.
        run: run directory to write to, and to go on from if it holds a checkpoint.
        progress: show a progress bar; None shows it on a terminal only.

    Returns:
        One summary per config: `status`, `steps`, `seconds` and accuracies; of a
        search also its best architecture.

    Raises:
        UsageError: for settings or data that do not fit together.
        FloatingPointError: if a single run becomes non-finite.
    """
    work = {
        "search": sessions.run_search,
        "fixed": sessions.run_fixed,
        "study": study.run,
    }

    def train_group(static, hyper, place):
        sets = parts.load(static, data_dir)
        return work[static.task](static, hyper, place, sets)

    return groups.train(
        configs, train_group, run=run, devices=devices, progress=progress
    )


def evaluate(
    path: str | Path, *, data_dir: str | Path | None = None
) -> list[training.Record]:
    """Evaluate the last checkpoint of a search or a training, one record per member.

    Raises:
        UsageError: if a group has no whole checkpoint, or its data are missing.
    """
    data_dir = data_dir or runs.read_config(path)["options"]["data_dir"]

    def prepare(static):
        _refuse_study(static, path)
        sets = parts.load(static, data_dir)
        if static.task == "fixed":
            arc = parts.architecture(static)
            own = sessions.training_of(static, sets, arc)
            return retrain.build(own), retrain.splits(sets)
        return search.build(
            sessions.searching(static, sets, Path(path))
        ), judging.splits(sets)

    return groups.evaluate(path, Config, prepare)


def _refuse_study(static: Any, path: str | Path) -> None:
    if static.task == "study":
        hint = "Its report.md says what its networks reach; their files lie beside it."
        raise UsageError("run", str(path), "a search or a training", hint)


def export(
    path: str | Path, folder: str | Path, *, data_dir: str | Path | None = None
) -> Iterator[str]:
    """Write the networks of a run's last checkpoints as packed files.

    Args:
        path: a run of task fixed.
        folder: where `0000.enasq` and so on go.
        data_dir: where the data sets lie (default: as in training).

    Yields:
        What each file holds, in words: its name, its size, the part of the test images
        that it gets right, and that to which it gives the label of the network.

    Raises:
        UsageError: for a search, whose networks have many architectures.
    """
    data_dir = data_dir or runs.read_config(path)["options"]["data_dir"]
    for static, hyper, indices, checkpoints in groups.stored(path, Config):
        if static.task != "fixed":
            hint = "Train its best architecture, or make a study, which exports it."
            raise UsageError("--export", str(path), "a run of task fixed", hint)
        sets = parts.load(static, data_dir)
        own = sessions.training_of(static, sets, parts.architecture(static))
        _, states = groups.restore(retrain.build(own), hyper, checkpoints)
        for index, state in zip(indices, states, strict=True):
            file = Path(folder) / f"{index:04d}{packed.SUFFIX}"
            file.parent.mkdir(parents=True, exist_ok=True)
            done = packed.write(own, Variables(state.params, state.state), file, sets)
            yield packed.words(done | {"file": str(file)})
