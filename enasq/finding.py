"""Finding the images of a set among its forms, and holding some out for validation."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from enasq import cifar, folders
from shared import data as sources
from shared.data import idx
from shared.data.catalog import SETS
from shared.data.dataset import HostSplit, assemble
from shared.errors import UsageError

_VALID = {"mnist": 5000, "fashion_mnist": 5000, "cifar10": 5000, "digits": 287}
_PNG = "train/, valid/ and test/ with PNG files in folders 0 to 9 (or their .zip)"


class Found(NamedTuple):
    """What was read from files.

    Attributes:
        name: of the set.
        parts: splits by name; "valid" may be absent.
        scale: largest pixel value.
        class_names: in label order.
        coloured: whether images come from PNG files in colour.
        summary: one line about it.
    """

    name: str
    parts: dict[str, HostSplit]
    scale: int
    class_names: tuple[str, ...]
    coloured: bool
    summary: str


def find(
    name: str,
    data_dir: str | os.PathLike | None,
    split_dirs: Mapping[str, str | os.PathLike] | None,
    channels: int,
) -> Found:
    """Read a set from the first form of it that there is.

    Args:
        name: of the set.
        data_dir: where it lies; MNIST's official files go before PNG files.
        split_dirs: of MNIST, where each split of PNG files is; nothing else is tried.
        channels: as PNG files are read.

    Raises:
        UsageError: if there is none, naming the forms, or if one is damaged.
    """
    if split_dirs is not None:
        if name != "mnist":
            raise UsageError("split_dirs", name, "mnist, the set of PNG folders")
        if not {"train", "test"} <= set(split_dirs):
            given = ", ".join(split_dirs) or "none"
            raise UsageError("split_dirs", given, "train and test at least")
        return _from_png(name, folders.places(split_dirs), channels)
    if data_dir is not None and name == "mnist":
        directory = Path(data_dir)
        if idx.missing(directory, SETS[name]):
            places = folders.locate(directory, name)
            if places is not None:
                return _from_png(name, places, channels)
    return _from_official(name, data_dir)


def divided(
    found: Found, valid: int | None, *, balanced: bool = False
) -> dict[str, HostSplit]:
    """Return training, validation and test images; validation may be empty.

    Args:
        found: what was read.
        valid: images held out at the end of the training set, None for the usual
            number; where there is a validation split, None keeps it and 0 drops it.
        balanced: hold out equally many of each class, those at its end.

    Raises:
        UsageError: for a number that leaves no training image, or one of a set that
            has its own validation images.
    """
    train, test = found.parts["train"], found.parts["test"]
    total = len(train.labels)
    if "valid" in found.parts and valid != 0:
        if valid is None:
            return {"train": train, "valid": found.parts["valid"], "test": test}
        allowed = "0 or nothing, since the set has its own validation images"
        raise UsageError("valid", valid, allowed)
    count = min(_VALID[found.name], total // 5) if valid is None else valid
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < total:
        raise UsageError("valid", valid, f"a whole number from 0 to {total - 1}")
    held = np.zeros(total, bool)
    held[_last(train.labels, count, len(found.class_names) if balanced else 1)] = True
    kept, out = (HostSplit(*(a[rows] for a in train)) for rows in (~held, held))
    return {"train": kept, "valid": out, "test": test}


def _last(labels: np.ndarray, count: int, classes: int) -> np.ndarray:
    """Return the last rows, or of each class the last of an equal share."""
    if classes == 1:
        return np.arange(len(labels) - count, len(labels))
    share = count // classes
    own = (np.flatnonzero(labels == label) for label in range(classes))
    return np.concatenate([rows[len(rows) - min(share, len(rows)) :] for rows in own])


def _from_png(name: str, places: Mapping[str, folders.Place], channels: int) -> Found:
    spec = SETS[name]
    parts = folders.read(places, spec.class_names, channels=channels)
    counts = ", ".join(f"{len(p.labels):,} {split}" for split, p in parts.items())
    summary = f"{name}: {counts} images in PNG files"
    coloured = channels == 3
    return Found(name, parts, spec.scale, spec.class_names, coloured, summary)


def _from_official(name: str, data_dir: str | os.PathLike | None) -> Found:
    folder = None
    if name == "cifar10" and data_dir is not None:
        folder = cifar.locate(Path(data_dir))
    if folder is not None:
        loaded = assemble(SETS[name], cifar.read(folder), 0)
    else:
        loaded = _load(name, data_dir)
    parts = {
        split: HostSplit(*map(np.asarray, part))
        for split, part in (("train", loaded.train), ("test", loaded.test))
    }
    info = loaded.info
    return Found(name, parts, info.scale, info.class_names, False, info.summary)


def _load(name: str, data_dir: str | os.PathLike | None) -> sources.Dataset:
    try:
        return sources.load(name, data_dir)
    except UsageError as error:
        if error.argument != "data_dir" or name not in ("mnist", "cifar10"):
            raise
        more = _PNG if name == "mnist" else "data_batch_1 to 5 and test_batch"
        allowed = f"{error.allowed}, or {more}"
        raise UsageError(error.argument, error.given, allowed, error.hint) from None
