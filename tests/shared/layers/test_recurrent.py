"""The LSTM against NumPy, and padded sequences against their unpadded parts."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shared.layers import recurrent
from shared.layers.recurrent import LSTMState, init_lstm

lstm = jax.jit(recurrent.lstm, static_argnames="time_major")
lstm_cell = jax.jit(recurrent.lstm_cell)


@pytest.fixture(scope="module")
def params(draw):
    return {
        "kernel": draw(3, 16),
        "recurrent": draw(4, 16),
        "bias": draw(16),
        "recurrent_bias": draw(16),
    }


@pytest.fixture(scope="module")
def x(draw):
    return draw(3, 5, 3)


def written_out(params, h, c, x):
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    gates = x @ p["kernel"] + h @ p["recurrent"] + p["bias"] + p["recurrent_bias"]
    i, f, g, o = np.split(gates, 4, axis=-1)
    sigmoid = lambda z: 1 / (1 + np.exp(-z))
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def test_steps_and_sequence_against_numpy(params, x):
    h = c = np.full((3, 4), 0.3)
    initial = LSTMState(jnp.asarray(h, jnp.float32), jnp.asarray(c, jnp.float32))
    state, expected = initial, []
    for t in range(5):
        h, c = written_out(params, h, c, np.asarray(x[:, t], np.float64))
        state = lstm_cell(params, state, x[:, t])
        expected.append(h)
    np.testing.assert_allclose(state.h, h, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.c, c, rtol=1e-5, atol=1e-6)
    outputs, final = lstm(params, x, initial)
    np.testing.assert_allclose(outputs, np.stack(expected, 1), rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(final, state, rtol=1e-5, atol=1e-6)
    by_time, final = lstm(params, jnp.moveaxis(x, 1, 0), initial, time_major=True)
    np.testing.assert_allclose(jnp.moveaxis(by_time, 0, 1), outputs, rtol=1e-5)
    chex.assert_trees_all_close(final, state, rtol=1e-5, atol=1e-6)


def test_lengths_freeze_the_state_after_the_last_position(params, x):
    lengths = jnp.array([5, 2, 0])
    outputs, final = lstm(params, x, lengths=lengths)
    for row, length in enumerate((5, 2)):
        alone, state = lstm(params, x[row, :length])
        np.testing.assert_allclose(outputs[row, :length], alone, rtol=1e-5, atol=1e-6)
        assert jnp.all(outputs[row, length:] == 0)
        np.testing.assert_allclose(final.h[row], state.h, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(final.c[row], state.c, rtol=1e-5, atol=1e-6)
    assert jnp.all(outputs[2] == 0) and jnp.all(final.c[2] == 0)


def test_padding_has_no_gradient(params, x):
    loss = lambda x: jnp.sum(jnp.sin(lstm(params, x, lengths=jnp.array([5, 2, 1]))[0]))
    gradient = jax.jit(jax.grad(loss))(x)
    assert jnp.all(gradient[1, 2:] == 0) and jnp.all(gradient[2, 1:] == 0)
    assert jnp.all(gradient[1, 1] != 0)


def test_default_draw_and_initialisers_of_single_gates(key):
    eye = lambda key, shape, dtype: jnp.eye(*shape, dtype=dtype)
    params = jax.jit(
        lambda: init_lstm(key, 3, 4, recurrent_bias=True, recurrent_init=eye)
    )()
    shapes = {"kernel": (3, 16), "bias": (16,), "recurrent_bias": (16,)}
    for name, shape in shapes.items():
        assert params[name].shape == shape
        assert 0.3 < jnp.max(jnp.abs(params[name])) <= 0.5
    np.testing.assert_array_equal(params["recurrent"], np.tile(np.eye(4), 4))
    bare = jax.eval_shape(lambda: init_lstm(key, 3, 4, bias=False))
    assert set(bare) == {"kernel", "recurrent"}
