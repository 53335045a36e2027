"""Embeddings of symbols and positions."""

import jax.numpy as jnp
import numpy as np
import pytest

from shared.errors import UsageError
from shared.layers.embedding import (
    embedding,
    init_embedding,
    sinusoidal_positions,
    unembed,
)


def test_lookup_and_tied_output(key):
    params = init_embedding(key, 5, 4)
    symbols = jnp.array([[0, 4], [2, 2]])
    vectors = embedding(params, symbols)
    np.testing.assert_array_equal(vectors[0, 1], params["table"][4])
    scores = unembed(params, vectors)
    expected = np.asarray(vectors) @ np.asarray(params["table"]).T
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)


def test_symbol_beyond_the_table_is_not_overlooked(key):
    assert jnp.all(jnp.isnan(embedding(init_embedding(key, 5, 4), jnp.array([5]))))


def test_positions_follow_their_definition():
    table = sinusoidal_positions(50, 6)
    for t, i in ((0, 0), (7, 1), (49, 2)):
        angle = t / 10000 ** (2 * i / 6)
        np.testing.assert_allclose(table[t, 2 * i], np.sin(angle), atol=1e-6)
        np.testing.assert_allclose(table[t, 2 * i + 1], np.cos(angle), atol=1e-6)
    with pytest.raises(UsageError, match="width: got 5"):
        sinusoidal_positions(3, 5)
