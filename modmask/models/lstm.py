"""Stacked LSTM, read out at every step."""

import math

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PyTree

from shared.errors import check_range
from shared.layers.dropout import dropout
from shared.layers.initializers import normal, orthogonal, zeros
from shared.layers.linear import init_linear, linear
from shared.layers.recurrent import LSTMState, init_lstm
from shared.layers.recurrent import lstm as lstm_layer
from shared.model import Model, Variables

TANH_GAIN = 5 / 3


def lstm(
    inputs: int,
    outputs: int,
    hidden: int,
    layers: int,
    *,
    dtype: DTypeLike = jnp.float32,
) -> Model:
    """Return a stack of LSTM layers with a linear map of every step's output.

    Its parameters are `{"lstm": [{"kernel", "recurrent", "bias"}, ...],
    "output_projection": {"kernel", "bias"}}`; it maps `[*batch, time, inputs]` to
    `[*batch, time, outputs]`.

    Args:
        inputs, outputs: widths of its two ends.
        hidden: units of each layer.
        layers: how many.
        dtype: of the parameters.

    Raises:
        UsageError: for a number less than 1.
    """
    for name, number in (("inputs", inputs), ("outputs", outputs)):
        check_range(name, number, low=1)
    check_range("hidden", hidden, low=1)
    check_range("layers", layers, low=1)

    def init(key: Array) -> Variables:
        key, readout = jax.random.split(key)
        params = {
            "lstm": init_stack(key, inputs, hidden, layers, dtype=dtype),
            "output_projection": init_linear(readout, hidden, outputs, dtype=dtype),
        }
        return Variables(params)

    def apply(
        variables: Variables,
        x: Float[Array, "*batch time inputs"],
        *,
        train: bool = False,
        key: Array | None = None,
    ) -> tuple[Float[Array, "*batch time outputs"], PyTree]:
        del train, key
        h, _ = stack(variables.params["lstm"], x)
        return linear(variables.params["output_projection"], h), variables.state

    return Model(init, apply)


def init_stack(
    key: Array, inputs: int, hidden: int, layers: int, *, dtype: DTypeLike = jnp.float32
) -> list[dict[str, Array]]:
    """Return the parameters of LSTM layers, each fed by the one before.

    Kernels are drawn from N(0, 1 / (inputs + hidden)), recurrent ones from
    N(0, 1 / (2 hidden)). For the gate g, kernels are 5/3 times as large and recurrent
    ones orthogonal, of gain 5 / (3 √2). Biases are 0, those of forget gates 1.

    Args:
        key: consumed.
        inputs: width of the input of the first layer.
        hidden: units of each layer.
        layers: how many.
        dtype: of the parameters.
    """
    widths = (inputs, *(hidden,) * (layers - 1))
    keys = jax.random.split(key, layers)
    return [
        _init_cell(key, width, hidden, dtype)
        for key, width in zip(keys, widths, strict=True)
    ]


def _init_cell(
    key: Array, inputs: int, hidden: int, dtype: DTypeLike
) -> dict[str, Array]:
    key, block_key = jax.random.split(key)
    params = init_lstm(
        key,
        inputs,
        hidden,
        kernel_init=normal((inputs + hidden) ** -0.5),
        recurrent_init=normal((2 * hidden) ** -0.5),
        bias_init=zeros,
        dtype=dtype,
    )
    square = orthogonal(TANH_GAIN / math.sqrt(2))(block_key, (hidden, hidden), dtype)
    forget, g = slice(hidden, 2 * hidden), slice(2 * hidden, 3 * hidden)
    return {
        "kernel": params["kernel"].at[:, g].multiply(TANH_GAIN),
        "recurrent": params["recurrent"].at[:, g].set(square),
        "bias": params["bias"].at[forget].set(1),
    }


def stack(
    params: list[dict[str, Array]],
    x: Float[Array, "*batch time inputs"],
    initial: list[LSTMState] | None = None,
    *,
    lengths: Int[Array, "*batch"] | None = None,
    rate: float | int = 0.0,
    key: Array | None = None,
) -> tuple[Float[Array, "*batch time hidden"], list[LSTMState]]:
    """Run LSTM layers over a sequence.

    Args:
        params: from `init_stack`.
        x: inputs of the first layer.
        initial: state of each layer before the first step; zeros by default.
        lengths: of each sequence, see `shared.layers.recurrent.lstm`.
        rate: dropout of the input of each layer but the first.
        key: consumed; None means no dropout.

    Returns:
        The outputs of the last layer, and each layer's state after each sequence's
        last position.
    """
    finals = []
    for i, layer in enumerate(params):
        if i and key is not None:
            x = dropout(x, rate, train=True, key=jax.random.fold_in(key, i))
        start = None if initial is None else initial[i]
        x, final = lstm_layer(layer, x, start, lengths=lengths)
        finals.append(final)
    return x, finals
