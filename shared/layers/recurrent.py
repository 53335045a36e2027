"""Long short-term memory: one step, and a whole sequence."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from shared.layers._arrays import cast, per_channel
from shared.layers.initializers import Initializer, symmetric_uniform


class LSTMState(NamedTuple):
    """What an LSTM carries from step to step.

    Attributes:
        h: output `[*batch, hidden]`.
        c: cell `[*batch, hidden]`.
    """

    h: Array
    c: Array


def init_lstm(
    key: Array,
    inputs: int,
    hidden: int,
    *,
    bias: bool = True,
    recurrent_bias: bool = False,
    kernel_init: Initializer | None = None,
    recurrent_init: Initializer | None = None,
    bias_init: Initializer | None = None,
    dtype: DTypeLike = jnp.float32,
) -> dict[str, Array]:
    """Return `kernel` `[inputs, 4 hidden]`, `recurrent` `[hidden, 4 hidden]`, biases.

    Columns are in blocks of `hidden` for the gates i, f, g, o, each block drawn by
    itself so that initialisers see the fans of one gate.

    Args:
        key: consumed.
        inputs, hidden: widths.
        bias, recurrent_bias: whether there are `bias` and `recurrent_bias`
            `[4 hidden]`, which are simply added; PyTorch has both.
        kernel_init, recurrent_init, bias_init: by default all U(±1/√hidden).
        dtype: of the parameters.
    """
    default = symmetric_uniform(hidden**-0.5)

    def gates(draw: Initializer | None, key: Array, *rows: int) -> Array:
        block = lambda one: (draw or default)(one, (*rows, hidden), dtype)
        blocks = jax.vmap(block)(jax.random.split(key, 4))
        return jnp.moveaxis(blocks, 0, -2).reshape(*rows, 4 * hidden)

    keys = jax.random.split(key, 4)
    params = {
        "kernel": gates(kernel_init, keys[0], inputs),
        "recurrent": gates(recurrent_init, keys[1], hidden),
    }
    if bias:
        params["bias"] = gates(bias_init, keys[2])
    if recurrent_bias:
        params["recurrent_bias"] = gates(bias_init, keys[3])
    return params


def lstm_cell(
    params: dict[str, Array],
    state: LSTMState,
    x: Float[Array, "*batch inputs"],
    *,
    dtype: DTypeLike | None = None,
) -> LSTMState:
    """Take one step.

    i, f, o = σ(x W + h U + b), g = tanh(same), by blocks of columns i, f, g, o;
    c' = f c + i g; h' = o tanh(c').

    Args:
        params: from `init_lstm`.
        state: h and c, `[*batch, hidden]`.
        x: the input of this step.
        dtype: type of computation and result; that of `params` by default.

    Reference:
        Hochreiter and Schmidhuber (1997); forget gate, Gers et al. (2000).
    """
    params, x, h, c = cast(params, dtype, x, state.h, state.c)
    chex.assert_equal_shape([h, c])
    return _step(params, LSTMState(h, c), _project(params, x))


def lstm(
    params: dict[str, Array],
    x: Float[Array, "..."],
    initial: LSTMState | None = None,
    *,
    lengths: Int[Array, "*batch"] | None = None,
    time_major: bool = False,
    dtype: DTypeLike | None = None,
) -> tuple[Float[Array, "..."], LSTMState]:
    """Take a step for each position of a sequence.

    Args:
        params: from `init_lstm`.
        x: `[*batch, time, inputs]`, or `[time, *batch, inputs]` if `time_major`.
        initial: state before the first step; zeros by default.
        lengths: of each sequence, if they are padded: from its end on, its state stays
            as it is and its outputs are zero. A length of 0 keeps `initial`.
        time_major: whether time is the first axis of x and of the outputs.
        dtype: type of computation and result; that of `params` by default.

    Returns:
        The outputs h of all steps, laid out like x, and the state after each
        sequence's last position.
    """
    params, x = cast(params, dtype, x)
    x = x if time_major else jnp.moveaxis(x, -2, 0)
    hidden = params["recurrent"].shape[0]
    if initial is None:
        nothing = jnp.zeros((*x.shape[1:-1], hidden), x.dtype)
        initial = LSTMState(nothing, nothing)
    initial = LSTMState(*(value.astype(x.dtype) for value in initial))
    chex.assert_shape(list(initial), (*x.shape[1:-1], hidden))
    if lengths is not None:
        chex.assert_shape(lengths, x.shape[1:-1])

    def step(state: LSTMState, now: tuple[Array, Array]) -> tuple[LSTMState, Array]:
        projected, t = now
        new = _step(params, state, projected)
        if lengths is None:
            return new, new.h
        inside = jnp.expand_dims(t < lengths, -1)
        kept = LSTMState(
            *(jnp.where(inside, *both) for both in zip(new, state, strict=True))
        )
        return kept, jnp.where(inside, new.h, jnp.zeros_like(new.h))

    # Inputs need no recurrence: one large product, outside the loop.
    times = jnp.arange(
        x.shape[0], dtype=jnp.int32 if lengths is None else lengths.dtype
    )
    final, outputs = jax.lax.scan(step, initial, (_project(params, x), times))
    return outputs if time_major else jnp.moveaxis(outputs, 0, -2), final


def _project(params: dict[str, Array], x: Array) -> Array:
    gates = jnp.dot(x, params["kernel"])
    for name in ("bias", "recurrent_bias"):
        if name in params:
            gates = gates + per_channel(params[name], gates)
    return gates


def _step(params: dict[str, Array], state: LSTMState, projected: Array) -> LSTMState:
    gates = projected + jnp.dot(state.h, params["recurrent"])
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return LSTMState(jax.nn.sigmoid(o) * jnp.tanh(c), c)
