"""Stacked LSTMs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modmask.models.lstm import init_stack, lstm, stack
from shared.errors import UsageError
from shared.layers.linear import linear
from shared.layers.recurrent import LSTMState, lstm_cell
from tests.quick import quick

HIDDEN = 3


@pytest.fixture
def x(key):
    return jax.random.normal(key, (2, 5, 4))


@quick
def step_by_step(params, x):
    nothing = jnp.zeros((len(x), HIDDEN))
    states, outputs = [LSTMState(nothing, nothing)] * len(params["lstm"]), []
    for t in range(x.shape[1]):
        below = x[:, t]
        for i, cell in enumerate(params["lstm"]):
            states[i] = lstm_cell(cell, states[i], below)
            below = states[i].h
        outputs.append(linear(params["output_projection"], below))
    return jnp.stack(outputs, axis=1)


def test_outputs_are_those_of_cells_advanced_together(key, x):
    model = lstm(4, 6, HIDDEN, 2)
    variables = quick(model.init)(key)
    y, _ = quick(model.apply)(variables, x)
    assert y.shape == (2, 5, 6)
    expected = step_by_step(variables.params, x)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-6)


def test_initial_weights_have_the_published_distribution(key):
    inputs, hidden = 300, 100
    draw = quick(lambda key: init_stack(key, inputs, hidden, 2))
    first, second = draw(key)
    assert second["kernel"].shape == (hidden, 4 * hidden)
    gate = np.split(np.asarray(first["kernel"]), 4, axis=1)
    deviation = (inputs + hidden) ** -0.5
    for block, gain in zip(gate, (1, 1, 5 / 3, 1), strict=True):
        np.testing.assert_allclose(np.std(block), gain * deviation, rtol=0.03)
    i, _, g, _ = np.split(np.asarray(first["recurrent"]), 4, axis=1)
    np.testing.assert_allclose(np.std(i), (2 * hidden) ** -0.5, rtol=0.05)
    square = (5 / 3) ** 2 / 2 * np.eye(hidden)
    np.testing.assert_allclose(g.T @ g, square, atol=1e-4)
    blocks = np.repeat([0.0, 1.0, 0.0, 0.0], hidden)
    np.testing.assert_array_equal(first["bias"], blocks)


def layers(key, count):
    return quick(lambda key: init_stack(key, 4, HIDDEN, count))(key)


def test_state_of_a_padded_sequence_is_that_of_the_sequence(key, x):
    params = layers(key, 2)
    lengths = jnp.array([5, 1])
    h, finals = quick(lambda *a: stack(*a, lengths=lengths))(params, x)
    for row, length in enumerate(lengths.tolist()):
        alone, expected = quick(stack)(params, x[row : row + 1, :length])
        for got, own in zip(finals, expected, strict=True):
            np.testing.assert_allclose(got.h[row], own.h[0], atol=1e-6)
            np.testing.assert_allclose(got.c[row], own.c[0], atol=1e-6)
        np.testing.assert_allclose(h[row, :length], alone[0], atol=1e-6)
    assert not np.any(h[1, 1:])


def test_a_sequence_goes_on_from_the_states_it_is_given(key, x):
    params = layers(key, 2)
    run = quick(stack)
    whole, _ = run(params, x)
    _, states = run(params, x[:, :2])
    rest, _ = run(params, x[:, 2:], states)
    np.testing.assert_allclose(rest, whole[:, 2:], atol=1e-6)


def test_dropout_spares_the_input_of_the_first_layer(key, x):
    one, two = (layers(key, count) for count in (1, 2))
    dropped = quick(lambda params: stack(params, x, rate=0.5, key=key)[0])
    np.testing.assert_allclose(dropped(one), quick(stack)(one, x)[0], atol=1e-6)
    assert np.any(np.abs(dropped(two) - quick(stack)(two, x)[0]) > 1e-3)


@pytest.mark.parametrize("named", ("inputs", "outputs", "hidden", "layers"))
def test_numbers_below_one_are_refused(named):
    sizes = {"inputs": 1, "outputs": 1, "hidden": 1, "layers": 1}
    with pytest.raises(UsageError, match=named):
        lstm(**(sizes | {named: 0}))
