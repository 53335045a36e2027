"""Feed-forward network."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from shared.errors import check_range
from shared.layers.initializers import (
    Initializer,
    variance_scaling,
    xavier_normal,
    zeros,
)
from shared.layers.linear import init_linear, linear
from shared.model import Model, Variables


def feedforward(
    inputs: int,
    outputs: int,
    sizes: tuple[int, ...],
    *,
    kernel_init: Initializer | None = None,
    output_init: Initializer | None = None,
    bias_init: Initializer | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Model:
    """Return a network of linear layers with ReLU between them.

    Its parameters are `{"layers": [{"kernel", "bias"}, ...]}`; it maps
    `[*batch, inputs]` to `[*batch, outputs]`.

    Args:
        inputs, outputs: widths of its two ends.
        sizes: widths of the hidden layers; none makes a linear map.
        kernel_init, bias_init: by default both U(±1/√inputs of the layer).
        output_init: of the last kernel, by default `kernel_init`.
        dtype: of the parameters.

    Raises:
        UsageError: for a width less than 1.
    """
    names = ("inputs", *["sizes"] * len(sizes), "outputs")
    widths = (inputs, *sizes, outputs)
    for name, width in zip(names, widths, strict=True):
        check_range(name, width, low=1)
    draws = [*[kernel_init] * len(sizes), output_init or kernel_init]

    def init(key: Array) -> Variables:
        keys = jax.random.split(key, len(draws))
        ends = zip(keys, widths[:-1], widths[1:], draws, strict=True)
        layers = [
            init_linear(one, n, m, kernel_init=draw, bias_init=bias_init, dtype=dtype)
            for one, n, m, draw in ends
        ]
        return Variables({"layers": layers})

    def apply(
        variables: Variables,
        x: Float[Array, "*batch inputs"],
        *,
        train: bool = False,
        key: Array | None = None,
    ) -> tuple[Float[Array, "*batch outputs"], PyTree]:
        del train, key
        *hidden, last = variables.params["layers"]
        for layer in hidden:
            x = jax.nn.relu(linear(layer, x))
        return linear(last, x), variables.state

    return Model(init, apply)


def xavier() -> dict[str, Initializer]:
    """Return initialisers for networks of ReLUs: `feedforward(..., **xavier())`.

    Kernels are drawn from N(0, 2 g² / (inputs + outputs)), g² = 2 for hidden layers and
    1 for the last; biases are 0.

    Reference:
        Glorot and Bengio (2010).
    """
    return {
        "kernel_init": variance_scaling(2.0, "fan_avg", "normal"),
        "output_init": xavier_normal(),
        "bias_init": zeros,
    }
