"""Sets of images for a search: training, validation and test, ready for a network.

Images lie on the device as bytes, resized once; batches are pure functions of a key and
a step, which turn bytes into numbers and change them at random. The default is what
one should do; `compat` is what the published program does:

    statistics     of grey images: for each split its own, and the mean of the images'
                   own deviations; otherwise of the training images for all splits
    copies         in the order of its passes, see `augmentation.passes`
    validation     of MNIST's official files: the last images of each class, equally
                   many, as in its folders; otherwise the last training images
    colours        of PNG files: blue, green and red

Reference: Pham et al. (2018).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, UInt8

from enasq import augmentation, finding, pixels
from enasq.augmentation import Photographs
from enasq.pixels import Norm
from shared.data import Counts, Split, batching
from shared.errors import UsageError, check_choice

SETS = ("mnist", "cifar10", "digits", "fashion_mnist")
"""Names of the sets."""

SIZES = {"mnist": 32, "cifar10": 32, "digits": 8, "fashion_mnist": 32}
"""Sides of their images, if nobody asks for another."""

CHANNELS = {"mnist": 1, "cifar10": 3, "digits": 1, "fashion_mnist": 1}
"""Their channels, likewise."""

CLASSES = 10
"""Classes of each of them."""

INPUTS = ("standard", "centred", "fixed")
"""Ways to turn bytes into numbers."""


class Batch(NamedTuple):
    """Images as a network takes them, and class numbers."""

    images: Float[Array, "n h w c"]
    labels: Int32[Array, " n"]


class Norms(NamedTuple):
    """How the bytes of each split become numbers; all the same unless `compat`."""

    train: Norm
    valid: Norm
    test: Norm


@jax.tree_util.register_static
@dataclass(frozen=True)
class Info:
    """Facts about a loaded set.

    Attributes:
        name: what the user typed.
        class_names: in label order.
        scale: largest pixel value.
        shape: height, width and channels of an image.
        inputs: one of INPUTS.
        norms: how bytes become numbers.
        counts: images of each split, copies included.
        summary: one line on what was found, to stand beside every figure.
    """

    name: str
    class_names: tuple[str, ...]
    scale: int
    shape: tuple[int, int, int]
    inputs: str
    norms: Norms
    counts: Counts
    summary: str

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


class Sets(NamedTuple):
    """A set on the device; `valid` may be empty."""

    train: Split
    valid: Split
    test: Split
    info: Info


def load(
    name: str,
    data_dir: str | os.PathLike | None = None,
    *,
    image_size: int | None = None,
    channels: int | None = None,
    valid: int | None = None,
    inputs: str = "standard",
    copies: int = 1,
    change: str = "digits",
    seed: int = 0,
    split_dirs: Mapping[str, str | os.PathLike] | None = None,
    compat: bool = False,
) -> Sets:
    """Load a set onto the device.

    Args:
        name: `mnist` (official files, folders or zip archives of PNG files), `cifar10`
            (binary or pickled batches), `fashion_mnist`, or `digits`, which needs none.
        data_dir: the directory with `mnist/`, `cifar-10-batches-bin/`, ...
        image_size: side that images are resized to, 4 to 256; by default 32, and 8 for
            the digits.
        channels: 1 or 3; by default as stored.
        valid: training images held out for validation, the last ones; by default 5,000
            and 287 of the digits, but at most a fifth. Folders have their own: 0 leaves
            it out, another number is refused.
        inputs: `standard` (mean 0, deviation 1), `centred` ([-1/2, 1/2]) or `fixed`
            (8-bit fixed point, see `pixels.fixed_point`).
        copies: of each training image, itself and `copies - 1` changed ones.
        change: how they are changed, one of `augmentation.CHANGES`.
        seed: of the changes.
        split_dirs: of MNIST, the folder or zip archive of train, test and perhaps
            valid, in place of `data_dir`.
        compat: what the published program does, see above.

    Raises:
        UsageError: for an unknown name or option, sizes out of range, and files that
            are missing or damaged.
    """
    check_choice("dataset", name, SETS)
    check_choice("inputs", inputs, INPUTS)
    check_choice("change", change, augmentation.CHANGES)
    side = _whole("image_size", SIZES[name] if image_size is None else image_size, 4)
    _whole("copies", copies, 1, 64)
    if channels not in (None, 1, 3):
        raise UsageError("channels", channels, "1 or 3")
    balanced = compat and name == "mnist"
    found = finding.find(name, data_dir, split_dirs, channels or 1)
    parts = finding.divided(found, valid, balanced=balanced)
    parts = {k: _prepared(part, side, channels) for k, part in parts.items()}
    if compat and found.coloured:
        parts = {k: p._replace(images=p.images[..., ::-1]) for k, p in parts.items()}
    mirror = compat and parts["train"].images.shape[-1] == 3
    alter = augmentation.change(change, scale=found.scale, mirror=mirror)
    parts["train"] = _copied(parts["train"], copies, alter, seed, found, compat)
    shape = parts["train"].images.shape[1:]
    info = Info(
        name=name,
        class_names=found.class_names,
        scale=found.scale,
        shape=(shape[0], shape[1], shape[2]),
        inputs=inputs,
        norms=_norms(parts, inputs, found.scale, compat and name != "cifar10"),
        counts=Counts(**{k: len(part.labels) for k, part in parts.items()}),
        summary=found.summary,
    )
    return Sets(**parts, info=info)


def check_search(sets: Sets) -> None:
    """Raise a UsageError if there is nothing to judge architectures on."""
    if not sets.info.counts.valid:
        allowed = "at least 1 validation image to search on"
        raise UsageError("valid", 0, allowed, "Leave `valid` out to hold out the usual")


def batches(
    sets: Sets,
    size: int,
    *,
    split: str = "train",
    change: str = "none",
    photographs: Photographs | None = None,
    shuffle: bool = True,
) -> batching.Batches:
    """Draw batches from `sets.train`, or from another split.

    Every image comes once an epoch, in an order of the key and the epoch; images beyond
    the last whole batch wait for another epoch.

    Args:
        sets: from `load`; its info and numbers of images are read.
        size: images of a batch.
        split: `train` or `valid`, whose images the batches are drawn from.
        change: change each image anew, one of `augmentation.CHANGES`, or `none`.
        photographs: crops, mirrored images and squares cut out, none by default; 0,
            the mean of standard inputs, is around an image and in the square.
        shuffle: whether there is a new order each epoch.

    Raises:
        UsageError: for an unknown name, too large a batch or settings out of range.
    """
    check_choice("split", split, ("train", "valid"))
    check_choice("change", change, ("none", *augmentation.CHANGES))
    settings = photographs or Photographs()
    augmentation.check_photographs(settings, min(sets.info.shape[:2]))
    norm = getattr(sets.info.norms, split)
    inner = batching.epochs(getattr(sets.info.counts, split), size, shuffle=shuffle)
    alter = None
    if change != "none":
        alter = augmentation.change(change, scale=sets.info.scale)

    def take(arrays, plan, index, key):
        row_key, change_key, photo_key = jax.random.split(key, 3)
        images, labels = inner.take(arrays, plan, index, row_key)
        if alter is not None:
            images = augmentation.change_all(change_key, images, alter)
        images = pixels.scaled(images, norm)
        images = augmentation.change_photographs(photo_key, images, settings)
        return Batch(images, labels)

    return inner._replace(take=take)


def whole(sets: Sets, split: str) -> Batch:
    """Return all images of a split as a network takes them."""
    images, labels = getattr(sets, split)
    return Batch(pixels.scaled(images, getattr(sets.info.norms, split)), labels)


class Blocks(NamedTuple):
    """A split in blocks of one size, for programs that evaluate it block by block.

    Attributes:
        images: as stored.
        labels: class numbers.
        real: False for the rows that fill up the last block, which must not count.
    """

    images: UInt8[Array, "blocks size h w c"]
    labels: Int32[Array, "blocks size"]
    real: Bool[Array, "blocks size"]


def blocks(split: Split, size: int) -> Blocks:
    """Divide a split into blocks, in which each image is real exactly once."""
    count = split.labels.shape[0]
    if size < 1 or not count:
        given = f"{size} of {count} images"
        raise UsageError("evaluation batch", given, "at least 1 of at least 1 image")
    number = -(-count // size)
    fill = number * size - count

    def divide(array):
        border = ((0, fill), *((0, 0),) * (array.ndim - 1))
        return jnp.pad(array, border).reshape(number, size, *array.shape[1:])

    return Blocks(*map(divide, (*split, jnp.ones(count, bool))))


def _prepared(part: Any, side: int, channels: int | None) -> Split:
    images, labels = part
    images = pixels.with_channels(images, channels or images.shape[-1])
    images, labels = jnp.asarray(images), jnp.asarray(labels, jnp.int32)
    if images.shape[0] and images.shape[1:3] != (side, side):
        images = pixels.resize(images, side)
    elif not images.shape[0]:
        images = jnp.zeros((0, side, side, images.shape[-1]), images.dtype)
    return Split(images, labels)


def _copied(
    train: Split, copies: int, alter: Any, seed: int, found: Any, compat: bool
) -> Split:
    """Add changed copies of the training images."""
    if copies == 1:
        return train
    images, labels = train
    if compat:
        order = jnp.argsort(labels, stable=True)
        images, labels = images[order], labels[order]
    images = augmentation.with_copies(jax.random.key(seed), images, copies, alter)
    labels = jnp.repeat(labels, copies)
    if compat:
        classes, count = len(found.class_names), len(train.labels)
        random = np.random.default_rng(seed)
        order = jnp.asarray(augmentation.passes(random, count, classes, copies))
        images, labels = images[order], labels[order]
    return Split(images, labels)


def _norms(
    parts: Mapping[str, Split], inputs: str, scale: int, per_split: bool
) -> Norms:
    channels = parts["train"].images.shape[-1]
    if inputs != "standard":
        make = pixels.centred if inputs == "centred" else pixels.fixed_point
        return Norms(*(make(scale, channels),) * 3)
    train = np.asarray(parts["train"].images)
    if not per_split:
        return Norms(*(pixels.standard(train),) * 3)
    own = {k: np.asarray(part.images) for k, part in parts.items()}
    # An empty split has no statistics, and no image that they could change.
    filled = {k: images if len(images) else train for k, images in own.items()}
    return Norms(**{k: pixels.per_image(images) for k, images in filled.items()})


def _whole(argument: str, value: Any, low: int, high: int = 256) -> int:
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or not low <= value <= high
    ):
        raise UsageError(argument, value, f"a whole number from {low} to {high}")
    return value
