"""Pools of windows of three: what they give, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enasq import pools
from shared.layers import pooling
from tests.quick import quick

PAIRS = {
    "max": (pools.max_pool, pooling.max_pool),
    "avg": (pools.avg_pool, pooling.avg_pool),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("stride", (1, 2))
def test_pools_and_their_gradients_equal_windowed_reductions(name, stride):
    """Of few values many are equal: the first of the largest has the gradient."""
    ours, theirs = PAIRS[name]
    rng = np.random.default_rng(stride)
    x = jnp.asarray(rng.integers(-1, 2, (2, 6, 7, 3)), jnp.float32)
    g = jnp.asarray(rng.normal(size=(2, -(-6 // stride), -(-7 // stride), 3)), x.dtype)

    @quick
    def both(x, g):
        pair = (
            lambda x: ours(x, stride=stride),
            lambda x: theirs(x, 3, stride=stride, padding="SAME"),
        )
        pulled = [jax.vjp(run, x) for run in pair]
        return [(y, back(g)[0]) for y, back in pulled]

    (y, x_g), (expected, expected_g) = both(x, g)
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    np.testing.assert_allclose(x_g, expected_g, rtol=1e-5, atol=1e-6)
