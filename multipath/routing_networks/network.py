"""Networks for several tasks: a trunk that all rows share, and a head.

Parameters come in two groups, `routing` (what decides) and `modules` (all others).

Reference: Rosenbaum et al. (2018), section 3.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree, Shaped

from multipath.routing_networks import backbones
from multipath.routing_networks.checks import check_indices
from multipath.routing_networks.settings import Decision
from multipath.routing_networks.trajectory import Trajectory, initialize
from shared.errors import UsageError
from shared.layers import linear as layers
from shared.model import Model, Variables

Params = dict[str, PyTree]


class Network(NamedTuple):
    """A network for several tasks.

    Attributes:
        init: `(key) -> Variables`, params `{"routing", "modules"}` and state
            `{"memory", "trunk"}`.
        apply: `(variables, inputs, tasks, *, train=False, key=None, exploration=None,
            forced=None) -> (outputs [rows, outputs], trajectory, state)`. Inputs and
            tasks are as in a `data.Batch`; `forced` holds actions `[depth, rows]` in
            the order of the decisions.
        decisions: in order; none in baselines.
    """

    init: Callable[[Array], Variables]
    apply: Callable[..., tuple[Array, Trajectory, dict[str, PyTree]]]
    decisions: tuple[Decision, ...] = ()


class Head(NamedTuple):
    """What becomes of the features of a trunk.

    Attributes:
        init: `(key, features) -> Variables`, params `{"routing", "modules"}` and
            memory of the decisions.
        apply: `(params, x, trajectory, *, train, key, exploration, forced) ->
            (outputs, trajectory)`.
        decisions: `(features) -> ` them in order.
    """

    init: Callable[[Array, int], Variables]
    apply: Callable[..., tuple[Array, Trajectory]]
    decisions: Callable[[int], tuple[Decision, ...]] = lambda features: ()


def join(trunk: Model, shape: tuple[int, ...], head: Head) -> Network:
    """Put a head on a trunk.

    Args:
        trunk: any Model that gives `[batch, features]`.
        shape: of one input.
        head: what becomes of the features.
    """
    features = backbones.width(trunk, shape)

    def init(key: Array) -> Variables:
        keys = jax.random.split(key)
        below, above = trunk.init(keys[0]), head.init(keys[1], features)
        modules = {"trunk": below.params, **above.params["modules"]}
        params = {"routing": above.params["routing"], "modules": modules}
        return Variables(params, {"memory": above.state, "trunk": below.state})

    def apply(
        variables: Variables,
        inputs: Float[Array, "images ..."],
        tasks: Int[Array, " rows"],
        *,
        train: bool = False,
        key: Array | None = None,
        exploration: Float[Array, ""] | float | int | None = None,
        forced: Int[Array, "depth rows"] | None = None,
    ) -> tuple[Float[Array, "rows outputs"], Trajectory, dict[str, PyTree]]:
        params, state = variables
        keys = (None, None) if key is None else jax.random.split(key)
        own = Variables(params["modules"]["trunk"], state["trunk"])
        x, below = trunk.apply(own, inputs, train=train, key=keys[0])
        x, trajectory, _ = initialize(spread(x, tasks), tasks, state["memory"])
        options = {"key": keys[1], "exploration": exploration, "forced": forced}
        outputs, trajectory = head.apply(params, x, trajectory, train=train, **options)
        return outputs, trajectory, {"memory": trajectory.memory, "trunk": below}

    return Network(init, apply, head.decisions(features))


def spread(
    x: Shaped[Array, "images ..."], tasks: Int[Array, " rows"]
) -> Shaped[Array, "rows ..."]:
    """Repeat each image's entry for its rows.

    Raises:
        UsageError: if the rows are no multiple of the images.
    """
    images, rows = len(x), len(tasks)
    if not images or rows % images:
        allowed = f"a multiple of the {images} images"
        raise UsageError("tasks", f"{rows} rows", allowed)
    return x if rows == images else jnp.repeat(x, rows // images, axis=0)


def check_tasks(tasks: Int[Array, " rows"], count: int) -> None:
    """Raise a UsageError for a task that the network does not have."""
    check_indices("tasks", tasks, count)


def init_dense(key: Array, sizes: tuple[int, ...], copies: int = 0) -> Params:
    """Return `layer{i}` of a perceptron, or of `copies` of it, stacked.

    Args:
        key: consumed.
        sizes: of the input and of all layers.
        copies: kernels are `[copies, inputs, outputs]`; 0 leaves out that axis.
    """
    dtype = jnp.result_type(float)

    def one(key: Array) -> Params:
        keys = jax.random.split(key, len(sizes) - 1)
        return {
            f"layer{i}": layers.init_linear(keys[i], *sizes[i : i + 2], dtype=dtype)
            for i in range(len(keys))
        }

    return jax.vmap(one)(jax.random.split(key, copies)) if copies else one(key)


def dense(
    params: Params, x: Float[Array, "rows features"], depth: int
) -> Float[Array, "rows outputs"]:
    """Apply a perceptron: ReLU after all layers but the last."""
    for i in range(depth):
        x = layers.linear(params[f"layer{i}"], x)
        x = jax.nn.relu(x) if i + 1 < depth else x
    return x


def sizes(params: Params) -> dict[str, int]:
    """Return how many parameters each group has."""
    leaves = {group: jax.tree.leaves(own) for group, own in params.items()}
    return {group: sum(leaf.size for leaf in own) for group, own in leaves.items()}


def count(network: Network) -> int:
    """Return how many parameters a network has."""
    params: Any = jax.eval_shape(network.init, jax.random.key(0)).params
    return sum(sizes(params).values())
