"""How a search judges architectures with its shared weights.

Reference: Pham et al. (2018), section 2.2.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int32, UInt8

from enasq import controller, costs, data, losses, parts, pixels, supernet
from shared import training
from shared.data import Split, batching
from shared.model import Variables


class Searching(NamedTuple):
    """What a search is made of.

    Attributes:
        static: static part of a config.
        net: the shared-weight network.
        settings: of the controller.
        tables: of costs, by name.
        info: of the data.
        per_epoch: updates of an epoch.
        steps: of the whole search.
        devices: that share batches and validation images.
    """

    static: Any
    net: supernet.Shared
    settings: controller.Settings
    tables: Mapping[str, costs.Tables]
    info: data.Info
    per_epoch: int
    steps: int
    devices: int = 1

    @property
    def epochs(self) -> int:
        """Epochs of the whole search, the last one perhaps in part."""
        return -(-self.steps // self.per_epoch)


class Judged(NamedTuple):
    """Validation images, on which drawn architectures are judged.

    Attributes:
        images: as stored.
        labels: class numbers.
        rows: their numbers.
    """

    images: UInt8[Array, "n h w c"]
    labels: Int32[Array, " n"]
    rows: Int32[Array, " n"]


class Tested(NamedTuple):
    """Test images, on which the likeliest architecture is judged; as `Judged`."""

    images: UInt8[Array, "n h w c"]
    labels: Int32[Array, " n"]
    rows: Int32[Array, " n"]


def splits(sets: data.Sets) -> dict[str, Judged | Tested]:
    """Return what a search is judged on after each epoch."""
    rows = lambda split: jnp.arange(len(split.labels), dtype=jnp.int32)
    return {
        "valid": Judged(*sets.valid, rows(sets.valid)),
        "test": Tested(*sets.test, rows(sets.test)),
    }


def candidates(own: Searching, train_state: training.TrainState) -> Array:
    """Return the architectures `[candidates, 2, blocks, 4]` drawn after an update."""
    key = training.noise_key(train_state.key, train_state.step)
    keys = jax.random.split(jax.random.fold_in(key, 2), own.static.candidates)
    params = train_state.state["controller"].params
    told = parts.controller_hyper(train_state.hyper)
    return jax.vmap(lambda key: controller.sample(params, key, own.settings, told).arc)(
        keys
    )


def judge(
    own: Searching, train_state: training.TrainState, split: Judged | Tested
) -> training.Metrics:
    """Return what a set says: all candidates, or on test images the likeliest.

    As published, accuracies are means over a new architecture for each batch, and each
    candidate is judged on one batch of training's size.
    """
    variables = Variables(train_state.params, {})
    tested = isinstance(split, Tested)
    norm = own.info.norms.test if tested else own.info.norms.valid
    place = Split(split.images, split.labels), norm
    if own.static.compat:
        # Large sets come in parts, each with architectures of its own.
        turn = -1 - split.rows[0] if tested else split.rows[0]
        arcs = _anew(own, train_state, len(split.labels), turn)
        found = _by_batch(own, variables, arcs, *place, own.static.eval_batch)
        if tested:
            return {"accuracy": jnp.mean(found)}
        listed = candidates(own, train_state)
        listed = _by_batch(own, variables, listed, *place, own.static.batch_size)
        return {"accuracy": jnp.mean(found), "accuracies": listed}
    if tested:
        params = train_state.state["controller"].params
        told = parts.controller_hyper(train_state.hyper)
        arcs = controller.greedy(params, own.settings, told).arc[None]
        return {"accuracy": accuracies(own, variables, arcs, *place)[0]}
    found = accuracies(own, variables, candidates(own, train_state), *place)
    return {"accuracy": jnp.mean(found), "accuracies": found}


def accuracies(
    own: Searching,
    variables: Variables,
    arcs: Array,
    split: Split,
    norm: pixels.Norm,
) -> Float[Array, " archs"]:
    """Return the accuracy of architectures with shared weights, on the same images.

    Images are normalised in batches of `eval_batch`, as in training. A last batch that
    is not full takes images of the one before along, which do not count again.

    Args:
        own: what the search is made of.
        variables: the shared weights.
        arcs: architectures `[archs, 2, blocks, 4]`.
        split: images as stored, and labels.
        norm: of the images.
    """
    starts, counted = windows(len(split.labels), own.static.eval_batch)
    size = counted.shape[1]

    def block(given):
        start, real = given
        images, labels = batching.slice_rows(split, start, size)
        images = pixels.scaled(images, norm)
        logits = supernet.evaluate_many(own.net, variables, arcs, images)
        right = jnp.argmax(logits, -1) == labels[None]
        return jnp.sum(right & real[None], -1)

    found = lax.map(block, (jnp.asarray(starts), jnp.asarray(counted)))
    return jnp.sum(found, 0) / len(split.labels)


def windows(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the starts of batches of one size, and which of their rows count."""
    size = min(size, count)
    whole = np.arange(0, count, size)
    starts = np.minimum(whole, count - size)
    rows = starts[:, None] + np.arange(size)
    return starts.astype(np.int32), rows >= whole[:, None]


def _anew(
    own: Searching, train_state: training.TrainState, count: int, turn: Array
) -> Int32[Array, "batches 2 blocks 4"]:
    """Draw an architecture for each batch of so many images, as published."""
    told = parts.controller_hyper(train_state.hyper)
    params = train_state.state["controller"].params
    key = training.noise_key(train_state.key, train_state.step)
    key = jax.random.fold_in(jax.random.fold_in(key, 3), turn)
    keys = jax.random.split(key, len(windows(count, own.static.eval_batch)[0]))
    return jax.vmap(lambda k: controller.sample(params, k, own.settings, told).arc)(
        keys
    )


def _by_batch(
    own: Searching,
    variables: Variables,
    arcs: Array,
    split: Split,
    norm: pixels.Norm,
    size: int,
) -> Float[Array, " archs"]:
    """Judge each architecture on one batch, one batch after the other, as published."""
    starts, counted = windows(len(split.labels), size)
    starts = jnp.asarray(starts)[jnp.arange(len(arcs)) % len(starts)]
    size = counted.shape[1]

    def one(given):
        arc, start = given
        images, labels = batching.slice_rows(split, start, size)
        logits = supernet.run(
            own.net, variables, arc, pixels.scaled(images, norm)
        ).logits
        return losses.correct(logits, labels) / size

    return lax.map(one, (arcs, starts))
