"""Loading a set by name from the first source that has it."""

import os
import shlex
from importlib.resources import files
from pathlib import Path

import numpy as np

from shared.data import cifar, idx, tfds
from shared.data.catalog import CIFAR, DOWNLOADS, SETS, ImageSet
from shared.data.dataset import Dataset, Found, HostSplit, assemble
from shared.errors import UsageError, check_choice


def load(
    name: str, data_dir: str | os.PathLike | None = None, *, valid_size: int = 0
) -> Dataset:
    """Load an image set onto the device.

    Sources, in order: the official files below `data_dir`, a TFDS copy prepared there,
    and for `digits` the file that ships with the package. Nothing is downloaded. The
    training and test splits keep the official order; the validation split is the last
    `valid_size` images of the training set, so it is the same in every run.

    Args:
        name: `digits`, `mnist`, `fashion_mnist`, `kmnist`, `cifar10` or `cifar100`.
        data_dir: the directory that holds `mnist/`, `cifar-10-batches-bin/`, ...;
            `digits` needs none.
        valid_size: images taken from the end of the training set for validation.

    Returns:
        uint8 images `[n, h, w, c]` and int32 labels `[n]` of each split, and `Info`.
        Warns once if images are absent or a checksum is not the published one.

    Raises:
        UsageError: for an unknown name, a missing set (naming files, directory and
            the command that fetches them) or a damaged file (naming it).
    """
    check_choice("data set", name, SETS)
    spec = SETS[name]
    if name == "digits":
        return assemble(spec, _read_digits(), valid_size)
    if data_dir is None:
        needed = f"a directory with {', '.join(_expected(spec))}"
        hint = f"Pass --data-dir DIR. {_how_to_fetch(name, 'DIR')}"
        raise UsageError("data_dir", None, needed, hint)
    directory = Path(data_dir)
    reader = cifar if name in CIFAR else idx
    found = reader.read(directory, spec) or tfds.read(directory, spec)
    if found is None:
        raise _missing(directory, spec)
    return assemble(spec, found, valid_size)


def _read_digits() -> Found:
    with (files("shared.data") / "digits.npz").open("rb") as stream:
        with np.load(stream, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
    cut = SETS["digits"].rows[0]
    return Found(
        HostSplit(images[:cut, ..., None], labels[:cut]),
        HostSplit(images[cut:, ..., None], labels[cut:]),
        source="the package",
        checks={"digits.npz": True},
    )


def _expected(spec: ImageSet) -> list[str]:
    return (cifar if spec.name in CIFAR else idx).expected(spec)


def _how_to_fetch(name: str, directory: str) -> str:
    return (
        f"To fetch them: python -m scripts.prepare_data {name} --data-dir {directory}"
    )


def _missing(directory: Path, spec: ImageSet) -> UsageError:
    """Return the error that says which files, where, and the command."""
    wanted = _expected(spec)
    reader = cifar if spec.name in CIFAR else idx
    absent = reader.missing(directory, spec)
    given = str(directory) if directory.is_dir() else f"{directory} (no directory)"
    if len(absent) < len(wanted):
        given = f"{directory} (without {', '.join(absent)})"
    archive = f", or {DOWNLOADS[spec.name][0].path}" if spec.name in CIFAR else ""
    needed = (
        f"a directory with {', '.join(wanted)}{archive}, "
        f"or a TFDS copy in {spec.name}/VERSION"
    )
    hint = _how_to_fetch(spec.name, shlex.quote(str(directory)))
    return UsageError("data_dir", given, needed, hint)
