"""Initialisers that JAX lacks."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shared.errors import UsageError
from shared.layers import initializers


def test_fan_in_uniform_counts_the_window(key):
    values = initializers.fan_in_uniform()(key, (3, 3, 4, 300), jnp.float32)
    bound = 1 / 6
    assert 0.99 * bound < jnp.max(jnp.abs(values)) <= bound


def test_embedding_normal_has_unit_variance(key):
    table = initializers.embedding_normal()(key, (100, 50), jnp.float32)
    np.testing.assert_allclose(np.std(table), 1, rtol=0.05)


def test_all_names_make_initialisers(key):
    given = {"value": 0.1, "scale": 1.0, "mode": "fan_in", "distribution": "normal"}
    for name in set(initializers.__all__) - {"Initializer", "zeros", "ones"}:
        maker = getattr(initializers, name)
        needed = inspect.signature(maker).parameters.values()
        draw = maker(*(given.get(p.name, 0.1) for p in needed if p.default is p.empty))
        values = jax.eval_shape(lambda: draw(key, (4, 3), jnp.float32))  # noqa: B023
        assert values.shape == (4, 3), name


def test_negative_bound_is_refused():
    with pytest.raises(UsageError, match="bound"):
        initializers.symmetric_uniform(-1)
