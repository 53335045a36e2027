"""Classification that runs only the layers that images reach.

One image takes one way through the network, by `lax.switch` in one program. Of a
batch, the images that take the same way at a switch are moved together, so that each
stage runs on them alone: in pieces of a few sizes, each compiled once. What comes out
equals what `forward.apply` and the greedy policy say.

Reference: McGill and Perona (2017), section 3; conditional execution is not part of the
published program, which runs every layer for every image.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from multipath.trees.compaction import default_how, make_tasks, run_tasks
from multipath.trees.graph import layout
from multipath.trees.net import Net, check_images, price_input
from multipath.trees.stages import (
    Outcome,
    Stage,
    Thresholds,
    check,
    path_operations,
    run_stage,
    stages,
    stop_of,
    variables_of,
)
from shared.errors import check_choice, check_range
from shared.model import Variables

BLOCK = 512
"""Images whose signals are held at once."""


class Answer(NamedTuple):
    """What a network says of images; of one image without the batch axis.

    Attributes:
        probabilities: of the classes `[batch, classes]`.
        leaves: which leaf said so, by its place among the leaves `[batch]`.
        operations: what the image's way cost `[batch]`.
    """

    probabilities: Any
    leaves: Any
    operations: Any

    @property
    def labels(self) -> Any:
        """The most probable class."""
        return self.probabilities.argmax(-1)


def predict_one(
    net: Net,
    variables: Variables,
    image: Num[Array, "height width channels"],
    *,
    k_cpt: Float[Array, ""] | float | None = None,
    alpha_cpt: Float[Array, ""] | float = 1e7,
    thresholds: Thresholds | None = None,
) -> Answer:
    """Classify one image along the way it takes; to be compiled by the caller.

    Under `vmap` every way would run: for batches there is `make_predict`.

    Args:
        net: which network.
        variables: from `net.init`.
        image: in [0, 1].
        k_cpt: price of an operation, needed with `dyn_k_cpt`.
        alpha_cpt: scale of the price as an input.
        thresholds: when to stop; None follows the routers.

    Raises:
        UsageError: for thresholds of another network, an image of another size or
            kind, and missing or wrong prices.
    """
    check(net, thresholds)
    check_images(net, image, one=True)
    image = jnp.asarray(image)
    rule = thresholds.rule if thresholds else None
    price = price_input(net, k_cpt, alpha_cpt, 1, image.dtype)
    levels = jnp.asarray(_levels(net, thresholds), image.dtype)
    walk = _Walk(net, variables, rule, levels, price)
    probabilities, leaf = _visit(walk, 0, 0, image[None])
    return Answer(probabilities, leaf, jnp.asarray(path_operations(net, rule))[leaf])


class _Walk(NamedTuple):
    """What all stages of one image share."""

    net: Net
    variables: Variables
    rule: str | None
    levels: Array
    price: Array | None


def _visit(
    walk: _Walk, number: int, member: Array | int, x: Any
) -> tuple[Array, Array]:
    """Run a stage and all after it; return probabilities and the place of the leaf."""
    net, rule = walk.net, walk.rule
    stage = stages(net.root)[number]
    own = variables_of(net, walk.variables, stage, member, rule)
    threshold = _lookup(walk.levels[np.array(stage.members[-1])], member)
    out = run_stage(net, stage, rule, own, x, walk.price, threshold)
    if out.choice is None:
        return out.probabilities[0], _leaf(net, stage, member)
    choice, places = out.choice[0], _lookup(np.array(stage.places), member)
    targets = sorted(set(stage.sinks))

    def go(target: int, out: Outcome, places: Array) -> tuple[Array, Array]:
        after = stages(net.root)[target]
        place = places[choice] if len(after.members[0]) > 1 else 0
        if out.probabilities is not None and target == _stopped(stage):
            return out.probabilities[0], _leaf(net, after, place)
        return _visit(walk, target, place, out.signal)

    branches = [functools.partial(go, target) for target in targets]
    way = jnp.array([targets.index(sink) for sink in stage.sinks])[choice]
    return jax.lax.switch(way, branches, out, places)


def _stopped(stage: Stage) -> int | None:
    """Return the stage of the classifier that a switch may stop at."""
    stop = stop_of(stage.nodes[-1])
    return None if stop is None else stage.sinks[stop]


def _leaf(net: Net, stage: Stage, member: Array | int) -> Array:
    leaves = layout(net.root).leaves
    places = np.array([leaves.index(i) for i in stage.members[-1]])
    return jnp.asarray(_lookup(places, member), jnp.int32)


def _lookup(table: Any, member: Array | int) -> Array:
    return jnp.asarray(table)[member]


def _levels(net: Net, thresholds: Thresholds | None) -> np.ndarray:
    """Return the thresholds by node, 0 where there are none `[nodes]`."""
    plan = layout(net.root)
    levels = np.zeros(len(plan.nodes))
    if thresholds is not None:
        levels[list(plan.switches)] = thresholds.values
    return levels


def make_predict(
    net: Net,
    variables: Variables,
    *,
    thresholds: Thresholds | None = None,
    alpha_cpt: float | int = 1e7,
    block: int = BLOCK,
    how: str = "auto",
) -> Callable[..., Answer]:
    """Return `(images, k_cpt=None) -> Answer` for batches of any size.

    Args:
        net: which network.
        variables: from `net.init`.
        thresholds: when to stop; None follows the routers.
        alpha_cpt: scale of the price as an input, with `dyn_k_cpt`.
        block: images whose signals are held at once.
        how: whether images are moved on the `host`, which shares its memory with a
            CPU's arrays, or on the `device`; auto takes what suits the backend.

    Raises:
        UsageError: for thresholds of another network, and in use for images of
            another size or kind, and missing or wrong prices.
    """
    check_choice("how", how, ("auto", "host", "device"))
    check_range("block", block, low=1)
    check(net, thresholds)
    how = default_how() if how == "auto" else how
    rule = thresholds.rule if thresholds else None
    tasks = make_tasks(net, variables, rule, _levels(net, thresholds), how)
    leaves = np.array(layout(net.root).leaves)

    def predict(images: Any, k_cpt: Any = None) -> Answer:
        check_images(net, images)
        x = images, price_input(net, k_cpt, alpha_cpt, len(images), images.dtype)
        if how == "host":
            x = jax.tree.map(np.asarray, x)
        parts = [
            run_tasks(net, tasks, jax.tree.map(lambda a: a[i : i + block], x), how)  # noqa: B023
            for i in range(0, max(len(images), 1), block)
        ]
        probabilities, ends = (
            np.concatenate(part) for part in zip(*parts, strict=True)
        )
        places = np.searchsorted(leaves, ends)
        return Answer(probabilities, places, path_operations(net, rule)[places])

    return predict
