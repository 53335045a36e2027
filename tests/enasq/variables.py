"""Numbers in place of a network's initial variables."""

import jax
import jax.numpy as jnp
import numpy as np


def numbers(init):
    """Return variables of the shapes that `init(key)` gives, without compiling it.

    Counts are 0, running variances in [0.5, 1.5), others in [-1, 1).
    """
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        if path[-1].key == "count":
            return jnp.zeros(leaf.shape, leaf.dtype)
        low = 0.5 if path[-1].key == "var" else -1
        high = 1.5 if path[-1].key == "var" else 1
        return jnp.asarray(rng.uniform(low, high, leaf.shape), leaf.dtype)

    return jax.tree.map_with_path(fill, jax.eval_shape(init, jax.random.key(0)))
