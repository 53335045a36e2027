"""Further places for metrics, besides the run directory's own file.

Pictures are arrays `[3, height, width]` of red, green and blue from 0 to 1. A tracker
that has no pictures or histograms goes without them.
"""

import importlib
import os
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from shared.errors import UsageError, check_choice

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio"}
"""Names of the sinks and the packages that they need."""
BINS = 64
"""Of histograms for the trackers."""


@runtime_checkable
class Sink(Protocol):
    """A further place for metrics."""

    def log(self, step: int, metrics: dict[str, float], member: int | None) -> None:
        """Record numbers at a step."""
        ...

    def image(
        self,
        step: int,
        name: str,
        array: Float[np.ndarray, "3 height width"],
        member: int | None,
    ) -> None:
        """Record a picture at a step."""
        ...

    def histogram(
        self,
        step: int,
        name: str,
        values: Float[np.ndarray, " values"],
        member: int | None,
    ) -> None:
        """Record how values are distributed at a step."""
        ...

    def close(self) -> None:
        """Flush and release."""
        ...


class _TensorBoard:
    """Event files under `tensorboard/`, one folder a member."""

    def __init__(self, path: Path):
        self._path = path / "tensorboard"
        self._writers: dict[int | None, Any] = {}

    def log(self, step: int, metrics: dict[str, float], member: int | None) -> None:
        writer = self._writer(step, member)
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)

    def image(
        self, step: int, name: str, array: np.ndarray, member: int | None
    ) -> None:
        picture = _as_bytes(array)
        self._writer(step, member).add_image(name, picture, step, dataformats="HWC")

    def histogram(
        self, step: int, name: str, values: np.ndarray, member: int | None
    ) -> None:
        # No value, no range of bins.
        if values.size:
            self._writer(step, member).add_histogram(name, values, step)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def _writer(self, step: int, member: int | None) -> Any:
        if member not in self._writers:
            folder = self._path / ("run" if member is None else f"{member:03d}")
            writer = importlib.import_module("tensorboardX").SummaryWriter
            # What a killed run wrote at later steps is hidden; its file, which may be
            # of the same second and so of the same name, stays.
            self._writers[member] = writer(
                str(folder), purge_step=step, filename_suffix=f".{os.getpid()}"
            )
        return self._writers[member]


class _Tracker:
    """W&B, or trackio, which has the same three calls."""

    def __init__(self, module: str, path: Path, config: dict[str, Any]):
        self._tracker = importlib.import_module(module)
        identity = {"id": path.name, "dir": str(path)} if module == "wandb" else {}
        self._tracker.init(
            project=config["system"],
            name=path.name,
            config={**config["config"], "experiment": config["experiment"]},
            resume="allow",
            **identity,
        )

    def log(self, step: int, metrics: dict[str, float], member: int | None) -> None:
        prefix = _prefix(member)
        values = {prefix + name: value for name, value in metrics.items()}
        self._tracker.log(values, step=step)

    def image(
        self, step: int, name: str, array: np.ndarray, member: int | None
    ) -> None:
        if hasattr(self._tracker, "Image"):
            picture = self._tracker.Image(_as_bytes(array))
            self._tracker.log({_prefix(member) + name: picture}, step=step)

    def histogram(
        self, step: int, name: str, values: np.ndarray, member: int | None
    ) -> None:
        if hasattr(self._tracker, "Histogram") and values.size:
            # Counted here: both would keep the values otherwise, which may be millions.
            counted = np.histogram(values, bins=BINS)
            picture = self._tracker.Histogram(np_histogram=counted)
            self._tracker.log({_prefix(member) + name: picture}, step=step)

    def close(self) -> None:
        self._tracker.finish()


def _prefix(member: int | None) -> str:
    return "" if member is None else f"{member:03d}/"


def _as_bytes(array: np.ndarray) -> np.ndarray:
    """Turn a picture into bytes `[height, width, 3]`, which every sink reads alike."""
    return np.moveaxis(np.round(255 * array), 0, -1).astype(np.uint8)


def check(name: str) -> None:
    """Raise a UsageError unless a sink is known and its package is there."""
    check_choice("sinks", name, PACKAGES)
    try:
        importlib.import_module(PACKAGES[name])
    except ImportError as error:
        wanted = name if name == "trackio" else f"five-nets[{name}]"
        raise UsageError(
            "sinks",
            name,
            f"the package {PACKAGES[name]} to be installed",
            f"Run: pip install '{wanted}'",
        ) from error


def open_sink(name: str, path: Path, config: dict[str, Any]) -> Sink:
    """Open a sink.

    Args:
        name: a key of `PACKAGES`.
        path: the run directory.
        config: what its `config.json` says.
    """
    if name == "tensorboard":
        return _TensorBoard(path)
    return _Tracker(PACKAGES[name], path, config)
