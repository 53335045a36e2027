"""The data sets of the experiments, made from official files or from the digits.

Images are float32 in [0, 1], channels last. Digits count as linear light; photographs
are decoded with a gamma of 2.2. The hybrid joins coloured digits, which are easy, with
photographs, which are not.

Reference: McGill and Perona (2017), section 4, and the published program.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int, Int32, PRNGKeyArray, UInt8

from multipath.trees.recolouring import Colours, colours, recolour
from multipath.trees.synthetic import VARIANTS, digits_hybrid
from shared import data as sources
from shared import disk
from shared.data.augment import random_flip, random_shift
from shared.data.dataset import HostSplit
from shared.errors import UsageError, check_choice, check_range

DIGITS = tuple("0123456789")
PICTURES = (
    *("Airplane", "Automobile", "Bird", "Cat", "Deer"),
    *("Dog", "Frog", "Horse", "Ship", "Truck"),
)
MEMBERS = {"cifar5": (3, 4, 5, 7), "cifar2": (7,)}
"""The classes of CIFAR-10 that keep a class of their own; the others share the last."""

HYBRID_DIGITS = (0, 1, 2, 3, 4)
HYBRID_PICTURES = (0, 1, 4, 6, 7)

_OWN = {name: tuple(PICTURES[i] for i in MEMBERS[name]) for name in MEMBERS}
NAMES = {
    "mnist": DIGITS,
    "cifar10": PICTURES,
    **{name: (*own, "Other") for name, own in _OWN.items()},
    "hybrid": (
        *(DIGITS[i] for i in HYBRID_DIGITS),
        *(PICTURES[i] for i in HYBRID_PICTURES),
    ),
    "digits": DIGITS,
    "digits-hybrid": DIGITS,
}
"""Names of the classes of each set."""

GAMMA = 2.2
HELD_OUT_SEED = 0

ARCHIVES = {
    "mnist": "mnist",
    "cifar-10": "cifar10",
    "cifar-5": "cifar5",
    "cifar-2": "cifar2",
    "hybrid": "hybrid",
}
"""Sets by the names of their published archives."""


MIRRORED = {
    "mnist": (False,) * 10,
    "cifar10": (True,) * 10,
    "cifar5": (True,) * 5,
    "cifar2": (True,) * 2,
    "hybrid": (False,) * 5 + (True,) * 5,
    "digits": (False,) * 10,
    "digits-hybrid": (False,) * 10,
}
"""Which classes of each set may be mirrored: pictures, not digits."""


class Split(NamedTuple):
    """Images in [0, 1] and class numbers."""

    images: Float32[Array, "n h w c"]
    labels: Int32[Array, " n"]


class TreeData(NamedTuple):
    """A set on the device; `valid` may be empty.

    Attributes:
        train, valid, test: its parts.
        mirrored: whether images of a class may be mirrored.
        classes: number of classes.
        names: of the classes.
    """

    train: Split
    valid: Split
    test: Split
    mirrored: Bool[Array, " classes"]
    classes: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class HostData:
    """A set on the host, as its archive holds it.

    Attributes:
        train, test: images in [0, 1] `[n, h, w, c]` and class numbers.
        names: of the classes.
        mirrored: whether images of each class may be mirrored.
        variants: how many images stem from each source, all of which a validation set
            takes or leaves; sources follow each other, variants after that.
    """

    train: HostSplit
    test: HostSplit
    names: tuple[str, ...]
    mirrored: tuple[bool, ...]
    variants: int = 1


def load(
    name: str,
    data_dir: str | os.PathLike | None = None,
    *,
    valid_fraction: float | int = 0,
) -> TreeData:
    """Load a set onto the device.

    Args:
        name: mnist, cifar10, cifar5, cifar2 or hybrid, from the official files; digits
            or digits-hybrid, which need none.
        data_dir: the directory with `mnist/`, `cifar-10-batches-bin/`, ...
        valid_fraction: share of the training set held out for validation, in [0, 1):
            rows drawn once and for all. Images that stem from one digit stay together.

    Raises:
        UsageError: for an unknown set, a fraction out of range, or files that are
            missing or damaged.
    """
    check_choice("dataset", name, SETS)
    check_range("valid_fraction", valid_fraction, low=0, high=1, high_open=True)
    found = prepare(name, data_dir)
    kept, held = _held_out(len(found.train.labels), found.variants, valid_fraction)
    whole = found.train
    train = whole if not held.size else HostSplit(*(a[kept] for a in whole))
    return TreeData(
        _on_device(train),
        _on_device(HostSplit(*(a[held] for a in whole))),
        _on_device(found.test),
        jnp.array(found.mirrored),
        len(found.names),
        found.names,
    )


def prepare(name: str, data_dir: str | os.PathLike | None = None) -> HostData:
    """Make a set on the host; args as of `load`."""
    check_choice("dataset", name, SETS)
    return SETS[name](name, data_dir)


def write(name: str, data_dir: str | os.PathLike | None, path: Path) -> tuple[int, int]:
    """Write a set as one .npz: x0_tr, y_tr, x0_ts, y_ts, m_sym.

    Images `[n, h, w, c]` and one-hot labels `[n, classes]` are float32; `m_sym`
    `[classes]` is 1 where images may be mirrored.

    Returns:
        How many images of training and of test there are.

    Raises:
        UsageError: as `load`, or if the file cannot be written; nothing is left then.
    """
    found = prepare(name, data_dir)
    targets = np.eye(len(found.names), dtype=np.float32)
    arrays = {
        "x0_tr": found.train.images,
        "y_tr": targets[found.train.labels],
        "x0_ts": found.test.images,
        "y_ts": targets[found.test.labels],
        "m_sym": np.array(found.mirrored, int),
    }
    with disk.writable("archive", path), disk.replacing(path) as draft:
        with draft.open("wb") as stream:
            np.savez(stream, **arrays)
    return len(found.train.labels), len(found.test.labels)


def augment(
    mirrored: Bool[Array, " classes"], reach: int
) -> Callable[[PRNGKeyArray, Any], Any]:
    """Return `(key, batch) -> batch` that mirrors and moves images at random.

    Args:
        mirrored: classes whose images are mirrored, with probability 1/2.
        reach: largest move in pixels; what comes in has the image's mean colour.
    """
    check_range("reach", reach, low=0)
    some = bool(np.any(mirrored))

    def change(key: PRNGKeyArray, batch: Any) -> Any:
        flip_key, shift_key = jax.random.split(key)
        images = batch.images
        if some:
            images = random_flip(flip_key, images, allowed=mirrored[batch.labels])
        if reach:
            images = random_shift(shift_key, images, reach=reach)
        return batch._replace(images=images)

    return change


def resize(
    images: UInt8[np.ndarray, "n h w"], size: int = 32
) -> Float32[np.ndarray, "n {size} {size}"]:
    """Divide bytes by 255 and enlarge, bilinearly about the centres of pixels."""
    x = images.astype(np.float32) / 255
    low, high, share = _between(x.shape[1], size)
    x = x[:, low] + (x[:, high] - x[:, low]) * share[:, None]
    low, high, share = _between(x.shape[2], size)
    return x[:, :, low] + (x[:, :, high] - x[:, :, low]) * share


def _between(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the two pixels that each new one lies between, and how far it is."""
    place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    low = place.astype(int)
    high = np.minimum(low + 1, old - 1)
    return low, high, (place - low).astype(np.float32)


def gamma_decode(images: UInt8[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Return (x / 255)^2.2, computed in double precision."""
    return (np.arange(256.0) ** GAMMA / 255**GAMMA).astype(np.float32)[images]


def superclasses(labels: Int[np.ndarray, " n"], name: str) -> Int[np.ndarray, " n"]:
    """Turn classes of CIFAR-10 into those of cifar5 or cifar2."""
    members = MEMBERS[name]
    table = np.full(len(PICTURES), len(members), labels.dtype)
    table[list(members)] = np.arange(len(members))
    return table[labels]


def by_class(split: HostSplit) -> HostSplit:
    """Sort a split by class; images of a class keep their order."""
    order = np.argsort(split.labels, kind="stable")
    return HostSplit(*(a[order] for a in split))


def hybrid(digits: HostSplit, drawn: Colours, pictures: HostSplit) -> HostSplit:
    """Join coloured digits 0 to 4 and five classes of pictures, sorted by class.

    Args:
        digits: grey images `[n, 32, 32, 1]`.
        drawn: the colours of each.
        pictures: decoded images of CIFAR-10 `[m, 32, 32, 3]`.
    """
    parts = []
    for label in HYBRID_DIGITS:
        rows = digits.labels == label
        parts.append(recolour(digits.images[rows], drawn.paper[rows], drawn.ink[rows]))
    parts += [pictures.images[pictures.labels == label] for label in HYBRID_PICTURES]
    counts = [len(part) for part in parts]
    labels = np.repeat(np.arange(len(parts), dtype=np.int32), counts)
    return HostSplit(np.concatenate(parts), labels)


def _mnist(name: str, data_dir: Any) -> HostData:
    found = sources.load(name, data_dir)
    parts = []
    for split in (found.train, found.test):
        images, labels = by_class(_on_host(split))
        parts.append(HostSplit(resize(images[..., 0])[..., None], labels))
    return HostData(parts[0], parts[1], NAMES[name], MIRRORED[name])


def _cifar(name: str, data_dir: Any) -> HostData:
    found, parts = sources.load("cifar10", data_dir), []
    for split in (found.train, found.test):
        images, labels = _on_host(split)
        own = superclasses(labels, name) if name in MEMBERS else labels
        parts.append(HostSplit(gamma_decode(images), own))
    return HostData(parts[0], parts[1], NAMES[name], MIRRORED[name])


def _hybrid(name: str, data_dir: Any) -> HostData:
    digits, pictures = _mnist("mnist", data_dir), sources.load("cifar10", data_dir)
    # One stream for all digits, of which half are left out: training, then test.
    random = np.random.RandomState(0)
    parts = []
    for own, others in ((digits.train, pictures.train), (digits.test, pictures.test)):
        drawn = colours(len(own.labels), random)
        images, labels = _on_host(others)
        kept = np.isin(labels, HYBRID_PICTURES)
        decoded = HostSplit(gamma_decode(images[kept]), labels[kept])
        parts.append(hybrid(own, drawn, decoded))
    return HostData(parts[0], parts[1], NAMES[name], MIRRORED[name])


def _digits(name: str, data_dir: Any) -> HostData:
    del data_dir
    found = sources.load("digits")
    parts = [
        HostSplit(images.astype(np.float32) / found.info.scale, labels)
        for images, labels in map(_on_host, (found.train, found.test))
    ]
    variants = 1
    if name == "digits-hybrid":
        parts, variants = digits_hybrid(*parts), VARIANTS
    return HostData(parts[0], parts[1], NAMES[name], MIRRORED[name], variants)


SETS: dict[str, Callable[[str, Any], HostData]] = {
    "mnist": _mnist,
    "cifar10": _cifar,
    "cifar5": _cifar,
    "cifar2": _cifar,
    "hybrid": _hybrid,
    "digits": _digits,
    "digits-hybrid": _digits,
}
"""Sets by name, and what makes them."""


def _held_out(
    count: int, variants: int, fraction: float | int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of training and of validation, each in the set's order."""
    origins = count // variants
    held = round(fraction * origins)
    if held == origins:
        allowed = "a fraction that leaves a training image"
        raise UsageError("valid_fraction", fraction, allowed)
    order = np.random.RandomState(HELD_OUT_SEED).permutation(origins)
    chosen = np.zeros(origins, bool)
    chosen[order[:held]] = True
    chosen = np.tile(chosen, variants)
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _on_host(split: Any) -> HostSplit:
    return HostSplit(np.asarray(split.images), np.asarray(split.labels))


def _on_device(split: HostSplit) -> Split:
    return Split(jnp.asarray(split.images), jnp.asarray(split.labels, jnp.int32))
