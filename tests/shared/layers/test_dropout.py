"""Dropout keeps the mean, draws from its key, or takes the draw itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shared.errors import UsageError
from shared.layers.dropout import dropout


def test_frequency_and_scale(key):
    y = dropout(jnp.ones((100, 100)), 0.3, train=True, key=key)
    np.testing.assert_allclose(jnp.mean(y == 0), 0.3, atol=0.02)
    np.testing.assert_allclose(jnp.max(y), 1 / 0.7, rtol=1e-6)
    y = dropout(jnp.ones((100, 100)), 0.3, train=True, key=key, rescale=False)
    assert jnp.max(y) == 1


def test_draw_as_argument_and_traced_rate():
    x = jnp.arange(6.0).reshape(2, 3)
    keep = jnp.array([[True, False, True], [False, True, True]])
    apply = jax.jit(lambda rate: dropout(x, rate, train=True, keep=keep))
    np.testing.assert_allclose(apply(jnp.float32(0.5)), x * keep * 2)


def test_shared_axes_drop_whole_examples(key):
    y = dropout(
        jnp.ones((200, 2, 2, 3)), 0.5, train=True, key=key, shared_axes=(1, 2, -1)
    )
    rows = y.reshape(200, -1)
    assert jnp.all((rows == 0).all(1) | (rows == 2).all(1))
    np.testing.assert_allclose(jnp.mean(rows == 0), 0.5, atol=0.12)


def test_evaluation_and_rate_zero_change_nothing(key):
    x = jnp.ones(3)
    assert dropout(x, 0.5, train=False) is x
    assert dropout(x, 0, train=True) is x


def test_wrong_arguments(key):
    with pytest.raises(UsageError, match="rate: got 1"):
        dropout(jnp.ones(3), 1.0, train=True, key=key)
    with pytest.raises(UsageError, match="key"):
        dropout(jnp.ones(3), 0.5, train=True)
