"""Inputs drawn by NumPy, which compiles nothing."""

import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(scope="module")
def draw():
    """Return a function from a shape to a float32 array of N(0, 1)."""
    rng = np.random.default_rng(0)
    return lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
