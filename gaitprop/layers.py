"""Invertible dense layers.

    forward   h = f(x W + b)            inverse   x = (g(h) - b) W^-1

A kernel's rows are input units and its columns output units. A layer reads only as
many of the units below as its kernel has rows.
"""

from collections.abc import Callable

import chex
import jax
from jax import numpy as jnp
from jaxtyping import Array, Float, Key

from gaitprop import transfer
from shared.errors import check_choice

Layer = dict[str, Array]

INITIALISERS = ("orthogonal", "glorot_normal")


def init(
    key: Key[Array, ""], inputs: int, units: int, how: str = "orthogonal"
) -> Layer:
    """Draw a layer's parameters.

    Args:
        key: consumed by the kernel.
        inputs, units: rows and columns of the kernel.
        how: `orthogonal` (Haar-distributed) or `glorot_normal` (variance
            `2 / (inputs + units)`, not truncated). Biases start at 0.

    Returns:
        `{"kernel": [inputs, units], "bias": [units]}`.
    """
    check_choice("init", how, INITIALISERS)
    if how == "orthogonal":
        draw = jax.nn.initializers.orthogonal()
    else:
        draw = jax.nn.initializers.variance_scaling(1.0, "fan_avg", "normal")
    dtype = jnp.result_type(float)
    return {
        "kernel": draw(key, (inputs, units), dtype),
        "bias": jnp.zeros((units,), dtype),
    }


def read(below: Float[Array, "batch units"], rows: int) -> Float[Array, "batch rows"]:
    """Return the units that a kernel of `rows` rows reads."""
    return below[:, :rows]


def forward(
    layer: Layer, below: Float[Array, "batch inputs"], slope: float | int
) -> Float[Array, "batch units"]:
    """Return `f(x W + b)`, with `x` the units of `below` that the layer reads."""
    chex.assert_rank([below, layer["kernel"], layer["bias"]], [2, 2, 1])
    x = read(below, layer["kernel"].shape[0])
    return transfer.forward(x @ layer["kernel"] + layer["bias"][None], slope)


def inverse(
    layer: Layer,
    h: Float[Array, "batch units"],
    slope: float | int,
    solve: Callable[[Array], Array] | None = None,
) -> Float[Array, "batch units"]:
    """Return `(g(h) - b) W^-1`.

    Args:
        layer: parameters with a square kernel.
        h: the layer's activities.
        slope: slope of the transfer function.
        solve: `q -> q W^-1`; by default a dense solve.
    """
    q = transfer.inverse(h, slope) - layer["bias"][None]
    if solve is not None:
        return solve(q)
    return jnp.linalg.solve(layer["kernel"].T, q.T).T


@jax.custom_vjp
def gait_dense(
    kernel: Float[Array, "n n"],
    bias: Float[Array, " n"],
    x: Float[Array, "batch n"],
) -> Float[Array, "batch n"]:
    """Return `x W + b`, with `W^-1` in place of `W^T` on the way back.

    A network of these layers under `jax.grad` gets the updates of GAIT in the limit of
    small gamma: it is back-propagation with that one exchange. Only first derivatives
    make sense.
    """
    return x @ kernel + bias[None]


def _gait_dense_fwd(kernel, bias, x):
    return gait_dense(kernel, bias, x), (kernel, x)


def _gait_dense_bwd(saved, delta):
    kernel, x = saved
    back = jnp.linalg.solve(kernel.T, delta.T).T
    return x.T @ delta, delta.sum(axis=0), back


gait_dense.defvjp(_gait_dense_fwd, _gait_dense_bwd)
