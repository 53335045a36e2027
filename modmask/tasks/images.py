"""Classification of images: CIFAR-10 without some class, and permuted MNIST.

Images stay bytes until a loss or an evaluation normalises them, on the device.

Reference:
    Csordás et al. (2021), CIFAR-10 and permuted MNIST.
"""

import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree, Shaped

from modmask.config import Config
from modmask.models.convnet import convnet
from modmask.models.feedforward import feedforward, xavier
from modmask.models.resnet import resnet
from modmask.task import Evaluate, Forward, Loss, Problem, Stage, Task
from modmask.tasks import samplers
from shared import data
from shared.data import augment
from shared.errors import UsageError, check_choice
from shared.model import Model

RESNET = "cifar10_resnet_class_removal"
PERMUTED = "permuted_mnist"
TASKS = (
    "cifar10_class_removal",
    RESNET,
    "cifar10_mask_stability",
    "cifar10_grad_cosine",
    PERMUTED,
)
CHANNELS = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
"""Of CIFAR-10 in units of the largest pixel, as residual networks are trained with."""


class Inputs(NamedTuple):
    """How bytes become the inputs of a network.

    Attributes:
        mean, std: per channel, in units of pixels.
        permutations: where each pixel is taken from, `[number, pixels]`; the network is
            then shown flat images. Empty leaves images as they are.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    permutations: np.ndarray = np.empty((0, 0), np.int32)


def load(config: Config, data_dir: str | os.PathLike | None = None) -> Problem:
    """Return an image task, with the masks that its analysis needs.

    Arrays are `image` `[rows, height, width, channels]` uint8 and `label` `[rows]`
    int32. Four fifths of the official training images are for training, the others are
    the set "iid"; the residual network is trained on all of them, with random crops and
    flips, and tested on the official test images. Permuted MNIST has a set "perm_p" for
    each permutation, with its number as `permutation` `[rows]`; in training it is the
    setting of the stage.

    Args:
        config: `task`, and for the network `cnn_dropout`, `resnet_depth` or
            `layer_sizes`; `data_limit` takes the first so many images of each archive;
            `stability_on` and `seed`, or `transfer_tasks`, for the masks.
        data_dir: where the data lie, see `shared.data.load`.

    Raises:
        UsageError: for another task, and for data that are missing or damaged.
    """
    check_choice("task", config.task, TASKS)
    if config.task == PERMUTED:
        return _permuted(config, data.load("mnist", data_dir))
    loaded = data.load("cifar10", data_dir)
    if config.task == RESNET:
        train, valid = (_arrays(s, config) for s in (loaded.train, loaded.test))
        inputs, change = _pixels(loaded.info, **CHANNELS), augmented
        model = resnet(config.resnet_depth, loaded.info.shape[-1], loaded.info.classes)
    else:
        train, valid = _divided(_arrays(loaded.train, config))
        inputs, change = _pixels(loaded.info), None
        channels, classes = loaded.info.shape[-1], loaded.info.classes
        model = convnet(channels, classes, dropout=config.cnn_dropout)
    return Problem(
        task=make_task(model, inputs, loaded.info.classes),
        train=train,
        weights=Stage("weights"),
        stages=stages(config, np.asarray(train["label"]), loaded.info.classes),
        valid={"iid": valid},
        augment=change,
        info=_facts(loaded.info),
    )


def _permuted(config: Config, loaded: data.Dataset) -> Problem:
    train, valid = _divided(_arrays(loaded.train, config))
    pixels = int(np.prod(loaded.info.shape))
    numbers = range(config.transfer_tasks)
    table = np.stack([samplers.pixel_permutation(p, pixels) for p in numbers])
    inputs = _pixels(loaded.info)._replace(permutations=table.astype(np.int32))
    classes, rows = loaded.info.classes, len(valid["label"])
    draws: dict[str, Any] = xavier()
    model = feedforward(pixels, classes, config.layer_sizes, **draws)
    return Problem(
        task=make_task(model, inputs, classes),
        train=train,
        weights=Stage("weights", setting=np.int32(0)),
        stages=tuple(Stage(f"perm_{p}", setting=np.int32(p)) for p in numbers),
        valid={
            f"perm_{p}": {**valid, "permutation": jnp.full(rows, p, jnp.int32)}
            for p in numbers
        },
        info={**_facts(loaded.info), "permutations": table},
    )


def stages(config: Config, labels: np.ndarray, classes: int) -> tuple[Stage, ...]:
    """Return the masks of a CIFAR-10 task, whose sub-functions are sets of classes.

    Class removal has "baseline" and, under the number of each class, all others;
    stability has "baseline" and either those or "pair_i_j" of random pairs; the
    gradient cosine has "0" alone, all classes but that.

    Args:
        config: `task`, `removed_classes`, and for stability `stability_on` and `seed`.
        labels: of the training images.
        classes: number of classes.
    """
    without = [
        Stage(str(c), np.flatnonzero(labels != c).astype(np.int32))
        for c in config.removed_classes or range(classes)
    ]
    if config.task == "cifar10_grad_cosine":
        return (without[0],)
    if config.task == "cifar10_mask_stability" and config.stability_on == "minimal":
        pairs = samplers.stability_pairs(config.seed, classes=classes)
        rows = [np.flatnonzero(np.isin(labels, pair)) for pair in pairs]
        names = [f"pair_{i}_{j}" for i, j in pairs]
        without = [
            Stage(name, row.astype(np.int32))
            for name, row in zip(names, rows, strict=True)
        ]
    return (Stage("baseline"), *without)


def augmented(key: Array, batch: dict[str, Array]) -> dict[str, Array]:
    """Cut a window at random from each image with a black border, and mirror half.

    Reference:
        He et al. (2016), section 4.2.
    """
    crop_key, flip_key = jax.random.split(key)
    images = augment.random_crop(crop_key, batch["image"], pad=4)
    return {**batch, "image": augment.random_flip(flip_key, images)}


def make_task(model: Model, inputs: Inputs, classes: int) -> Task:
    """Return a classifier of images, trained on the mean cross-entropy.

    Args:
        model: maps images, or flat ones where there are permutations, to classes.
        inputs: how bytes become its inputs.
        classes: number of classes.
    """
    return Task(model, _make_loss(inputs), _make_evaluate(inputs, classes))


def encode(
    images: Shaped[Array, "batch height width channels"],
    inputs: Inputs,
    permutation: Int[Array, "..."] | np.int32 | int | tuple[()] = (),
) -> Float[Array, "batch ..."]:
    """Return what a network is shown: normalised images, or permuted flat ones.

    Args:
        images: bytes.
        inputs: see `Inputs`.
        permutation: number of one for all rows, or of each row's; unused without
            permutations.
    """
    kind = jnp.result_type(float)
    mean, std = (jnp.asarray(value, kind) for value in (inputs.mean, inputs.std))
    spread = lambda value: jnp.broadcast_to(value, images.shape)
    x = (images.astype(kind) - spread(mean)) / spread(std)
    if not len(inputs.permutations):
        return x
    flat = x.reshape(len(x), -1)
    table = jnp.asarray(inputs.permutations)[jnp.asarray(permutation)]
    return jnp.take_along_axis(flat, jnp.broadcast_to(table, flat.shape), axis=1)


def confusion(
    predicted: Int[Array, " batch"], labels: Int[Array, " batch"], classes: int
) -> Float[Array, "classes classes"]:
    """Return the share of all rows with each `[predicted, true]` class."""
    said, true = (jax.nn.one_hot(numbers, classes) for numbers in (predicted, labels))
    return said.T @ true / len(labels)


def cross_entropy(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]
) -> dict[str, Array]:
    """Return the mean cross-entropy `loss`, and the `accuracy`."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    right = jnp.argmax(logits, axis=1) == labels
    return {"loss": jnp.mean(losses), "accuracy": jnp.mean(right.astype(losses.dtype))}


def _make_loss(inputs: Inputs) -> Loss:
    def loss(
        forward: Forward, batch: PyTree, key: Array, setting: PyTree
    ) -> tuple[Array, dict[str, Array]]:
        del key
        x = encode(batch["image"], inputs, setting)
        found = cross_entropy(forward(x), batch["label"])
        return found["loss"], found

    return loss


def _make_evaluate(inputs: Inputs, classes: int) -> Evaluate:
    def evaluate(forward: Forward, batch: PyTree) -> dict[str, Array]:
        # Rows of the training set have no number of their own: they are as stored.
        x = encode(batch["image"], inputs, batch.get("permutation", 0))
        logits, labels = forward(x), batch["label"]
        table = confusion(jnp.argmax(logits, axis=1), labels, classes)
        return {**cross_entropy(logits, labels), "confusion": table}

    return evaluate


def _pixels(
    info: data.Info, *, mean: tuple[float, ...] = (), std: tuple[float, ...] = ()
) -> Inputs:
    scaled = lambda values: tuple(value * info.scale for value in values)
    return Inputs(scaled(mean or info.mean), scaled(std or info.std))


def _arrays(split: data.Split, config: Config) -> dict[str, Array]:
    limit = config.data_limit or len(split.labels)
    if not len(split.labels):
        hint = "Other tasks take their validation images from the training set."
        raise UsageError("data_dir", "no test images", "at least one", hint)
    return {"image": split.images[:limit], "label": split.labels[:limit]}


def _divided(arrays: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Cut the training archive into training and validation rows."""
    count = len(arrays["label"])
    chosen = samplers.training_rows(count)
    if chosen.all() or not chosen.any():
        allowed = "images enough for training and for validation"
        raise UsageError("data_limit", count, allowed)
    take = lambda rows: {name: array[rows] for name, array in arrays.items()}
    return take(np.flatnonzero(chosen)), take(np.flatnonzero(~chosen))


def _facts(info: data.Info) -> dict[str, Any]:
    return {"class_names": info.class_names, "data": info.summary}
