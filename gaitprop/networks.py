"""Square and tower networks of invertible layers, as one list of widths.

`h_0 = x`, and `h_l = f(h_{l-1}[:, :n_l] W_l + b_l)` for layers l = 1..L. Units that the
next layer does not read, and output units beyond the number of classes, are auxiliary:
they keep the map invertible, receive no error, and stand for themselves on the way
back. The square network has all widths equal.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int, Key

from gaitprop import layers
from shared.errors import check_choice

Params = tuple[layers.Layer, ...]
Activities = tuple[Array, ...]

LOSSES = ("squared", "cross_entropy")
REDUCTIONS = ("mean", "sum")
FIRST_LAYERS = ("square", "rectangular")


def slopes(config: Any) -> tuple[float, ...]:
    """Return the slope of each layer's transfer function; 1 is linear."""
    depth = len(config.widths) - 1
    slope = 1.0 if config.transfer == "linear" else config.leaky_slope
    last = 1.0 if config.linear_output else slope
    return (slope,) * (depth - 1) + (last,)


def init(key: Key[Array, ""], config: Any) -> Params:
    """Draw the parameters of all layers, each from a key of its own.

    Args:
        key: split over the layers.
        config: `widths`, `init` and `first_layer`: `square` (layer 1 reads
            the first n_1 inputs) or `rectangular` (it reads all n_0; layer 1 is never
            inverted, so its kernel needs not be square).
    """
    keys = jax.random.split(key, len(config.widths) - 1)
    rows = list(config.widths[1:])
    check_choice("first_layer", config.first_layer, FIRST_LAYERS)
    if config.first_layer == "rectangular":
        rows[0] = config.widths[0]
    return tuple(
        layers.init(k, n, m, config.init)
        for k, n, m in zip(keys, rows, config.widths[1:], strict=True)
    )


def forward(params: Params, x: Float[Array, "batch inputs"], config: Any) -> Activities:
    """Return the activities h_0..h_L, `[batch, n_l]` each."""
    activities = [x]
    for layer, slope in zip(params, slopes(config), strict=True):
        activities.append(layers.forward(layer, activities[-1], slope))
    return tuple(activities)


def predict(
    params: Params, x: Float[Array, "batch inputs"], config: Any
) -> Float[Array, "batch classes"]:
    """Return the class scores, the first units of the output layer."""
    return forward(params, x, config)[-1][:, : config.classes]


def onehot(
    labels: Int[Array, " batch"], classes: int, dtype: Any = None
) -> Float[Array, "batch classes"]:
    """Return the labels as one-hot rows."""
    dtype = jnp.result_type(float) if dtype is None else dtype
    return jax.nn.one_hot(labels, classes, dtype=dtype)


def output_target(
    output: Float[Array, "batch units"], labels: Int[Array, " batch"], config: Any
) -> Float[Array, "batch units"]:
    """Return t_L: the wanted class scores, and the auxiliary units as they are.

    With `loss="cross_entropy"` the scores are moved by half the gradient of the
    cross-entropy of their softmax (Dalm et al. 2021, arXiv 2102.11598).
    """
    scores, auxiliary = output[:, : config.classes], output[:, config.classes :]
    wanted = onehot(labels, config.classes, output.dtype)
    check_choice("loss", config.loss, LOSSES)
    if config.loss == "cross_entropy":
        wanted = scores - 0.5 * (jax.nn.softmax(scores) - wanted)
    return jnp.concatenate([wanted, auxiliary], axis=1)


def extend(
    block: Float[Array, "batch rows"], auxiliary: Float[Array, "batch rest"]
) -> Float[Array, "batch units"]:
    """Append the units that the layer above does not read."""
    return jnp.concatenate([block, auxiliary], axis=1) if auxiliary.shape[1] else block


def inverse(
    params: Params,
    target: Float[Array, "batch units"],
    activities: Activities,
    config: Any,
    solves: Sequence[Callable[[Array], Array]] | None = None,
) -> Activities:
    """Pass an output target down to targets t_0..t_L.

        t_{l-1} = [(g(t_l) - b_l) W_l^-1, h_{l-1}[:, n_l:]]

    Args:
        params: square kernels all through.
        target: t_L.
        activities: h_0..h_L, the source of auxiliary units.
        config: for the transfer function.
        solves: `q -> q W_l^-1` for each layer; dense solves by default.
    """
    targets = [target]
    for i in reversed(range(len(params))):
        solve = None if solves is None else solves[i]
        x = layers.inverse(params[i], targets[0], slopes(config)[i], solve)
        targets.insert(0, extend(x, activities[i][:, x.shape[1] :]))
    return tuple(targets)
