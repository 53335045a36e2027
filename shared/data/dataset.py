"""What loading a set returns, and how host arrays become it."""

import warnings
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, UInt8

from shared.data.catalog import ImageSet
from shared.errors import UsageError, check_range


class Split(NamedTuple):
    """Images and labels that share their leading axis.

    Attributes:
        images: pixels as stored, 0 to `Info.scale`.
        labels: class numbers, 0 to `Info.classes - 1`.
    """

    images: UInt8[Array, "n h w c"]
    labels: Int32[Array, " n"]


class Counts(NamedTuple):
    """Images in each split."""

    train: int
    valid: int
    test: int


@jax.tree_util.register_static
@dataclass(frozen=True)
class Info:
    """Facts about a loaded set.

    Attributes:
        name: what the user typed.
        classes: number of classes.
        scale: largest pixel value, 16 for `digits` and 255 for the others.
        shape: height, width, channels of one image.
        mean, std: per channel, of `images / scale` over all training images found,
            before a validation split is taken; population standard deviation.
        counts: images in each split as loaded.
        official: numbers of training and test images in the official set.
        complete: whether nothing of the official set is absent.
        verified: `official` if every file has its published checksum, `modified` if
            one has the right size and another checksum, `partial` if images are
            absent, `unknown` where there is no checksum to compare with.
        source: where the arrays came from.
        class_names: names in label order.
        coarse: superclass of each class (CIFAR-100), otherwise empty.
    """

    name: str
    classes: int
    scale: int
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    counts: Counts
    official: tuple[int, int]
    complete: bool
    verified: Literal["official", "modified", "partial", "unknown"]
    source: str
    class_names: tuple[str, ...] = ()
    coarse: tuple[int, ...] = ()

    @property
    def summary(self) -> str:
        """One line to stand beside every figure that used the set."""
        found = (self.counts.train + self.counts.valid, self.counts.test)
        return f"{self.name}: {_counted(found, self.official)}"


class Dataset(NamedTuple):
    """The splits of a set on the device; `valid` may be empty."""

    train: Split
    valid: Split
    test: Split
    info: Info


class HostSplit(NamedTuple):
    """A split as read from files: uint8 `[n, h, w, c]` and int32 `[n]`."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Found:
    """What a reader found.

    Attributes:
        train, test: the splits in stored order.
        source: where they were read from.
        checks: for each file, whether its checksum is the published one; None where
            none is published.
    """

    train: HostSplit
    test: HostSplit
    source: str
    checks: dict[str, bool | None] = field(default_factory=dict)


def assemble(spec: ImageSet, found: Found, valid_size: int) -> Dataset:
    """Take the validation split, compute the statistics, put all on the device.

    Args:
        spec: the official set.
        found: what was read; warns once if it is partial or modified.
        valid_size: images at the END of the training set that become the validation
            split, in stored order; 0 for none.

    Raises:
        UsageError: if `valid_size` leaves no training image.
    """
    total = len(found.train.labels)
    if not isinstance(valid_size, int):
        allowed = f"a whole number from 0 to {total - 1}"
        raise UsageError("valid_size", valid_size, allowed)
    check_range("valid_size", valid_size, low=0, high=total - 1)
    mean, std = channel_statistics(found.train.images, spec.scale)
    cut = total - valid_size
    train, test = found.train, found.test
    info = Info(
        name=spec.name,
        classes=len(spec.class_names),
        scale=spec.scale,
        shape=spec.shape,
        mean=mean,
        std=std,
        counts=Counts(cut, valid_size, len(test.labels)),
        official=spec.rows,
        complete=(total, len(test.labels)) == spec.rows,
        verified=_verified(spec, found),
        source=found.source,
        class_names=spec.class_names,
        coarse=spec.coarse,
    )
    _warn(spec, found, info)
    return Dataset(
        train=_on_device(train.images[:cut], train.labels[:cut]),
        valid=_on_device(train.images[cut:], train.labels[cut:]),
        test=_on_device(test.images, test.labels),
        info=info,
    )


def channel_statistics(
    images: np.ndarray, scale: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and population standard deviation of `images / scale` per channel.

    Args:
        images: uint8 `[n, h, w, c]`, n at least 1.
        scale: largest pixel value.
    """
    channels = images.shape[-1]
    rows = images.reshape(len(images), -1)
    total, squares = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    # 256 squares of a byte stay below 2^24, so each float32 sum is exact.
    for start in range(0, len(rows), 256):
        block = rows[start : start + 256].astype(np.float32)
        total += block.sum(0)
        squares += np.einsum("ij,ij->j", block, block)
    count = rows.size // channels
    mean = total.reshape(-1, channels).sum(0) / count
    variance = squares.reshape(-1, channels).sum(0) / count - mean**2
    std = np.sqrt(np.maximum(variance, 0.0))
    return tuple((mean / scale).tolist()), tuple((std / scale).tolist())


def check_labels(
    where: str, labels: np.ndarray, classes: int, *, what: str = "label"
) -> None:
    """Raise a UsageError that names the file if a label is not a class number."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        given = f"{what} {labels[wrong[0]]} at row {wrong[0]}"
        raise UsageError(where, given, f"{what}s from 0 to {classes - 1}")


def _on_device(images: np.ndarray, labels: np.ndarray) -> Split:
    return Split(jnp.asarray(images, jnp.uint8), jnp.asarray(labels, jnp.int32))


def _verified(
    spec: ImageSet, found: Found
) -> Literal["official", "modified", "partial", "unknown"]:
    if (len(found.train.labels), len(found.test.labels)) != spec.rows:
        return "partial"
    states = found.checks.values()
    if False in states:
        return "modified"
    return "unknown" if None in states or not states else "official"


def _warn(spec: ImageSet, found: Found, info: Info) -> None:
    if info.verified == "partial":
        counted = _counted((len(found.train.labels), info.counts.test), spec.rows)
        message = f"{spec.name} in {found.source} is partial: {counted}"
    elif info.verified == "modified":
        names = ", ".join(name for name, same in found.checks.items() if same is False)
        message = (
            f"{spec.name} in {found.source} has the official counts but another "
            f"checksum than the official files: {names}"
        )
    else:
        return
    warnings.warn(message, UserWarning, stacklevel=4)


def _counted(found: tuple[int, int], official: tuple[int, int]) -> str:
    parts = []
    for kind, here, full in zip(("training", "test"), found, official, strict=True):
        part = f"{here:,}" if here == full else f"{here:,} of {full:,}"
        parts.append(f"{part} {kind} images")
    return ", ".join(parts)
