"""The gradient by hand of normalisation by a batch."""

import jax
import jax.numpy as jnp
import numpy as np

from enasq.batch_gradient import normalize_batch
from shared.layers import norm
from tests.quick import quick


def _automatic(params, x, axis_name=None):
    mean, var = norm.moments(x, axis_name=axis_name)
    return norm.normalize(params, x, mean, var, epsilon=1e-5)


def test_gradients_equal_automatic_ones_on_one_device_and_on_two(key):
    with jax.enable_x64(True):
        keys = jax.random.split(key, 4)
        x = 2 + jax.random.normal(keys[0], (2, 3, 4, 5), jnp.float64)
        g = jax.random.normal(keys[1], x.shape, jnp.float64)
        names = ("scale", "offset")
        params = {
            name: jax.random.normal(k, (5,), jnp.float64)
            for name, k in zip(names, keys[2:], strict=True)
        }

        def pulled(run, axis_name=None):
            def one(x, g):
                kwargs = {"axis_name": axis_name}
                y, back = jax.vjp(lambda p, x: run(p, x, **kwargs), params, x)
                return y, back(g)

            return jax.vmap(one, axis_name=axis_name)(x, g) if axis_name else one(x, g)

        ours = lambda params, x, **kwargs: normalize_batch(
            params, x, epsilon=1e-5, **kwargs
        )
        for axis_name in (None, "device"):
            both = quick(lambda n=axis_name: (pulled(ours, n), pulled(_automatic, n)))
            pairs = both()
            for mine, theirs in zip(*map(jax.tree.leaves, pairs), strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9)
