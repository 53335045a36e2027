"""Small networks with random norms, as after training."""

import jax
import numpy as np

from enasq import cell, fixed, plan
from enasq import policy as policies

EVERY = cell.parse("0 0 1 1 1 2 0 4 1 3 1 4 2 0 1 4")
"""Two blocks with both kernels, both pools, identities with and without a stride, and
an input that no block of the reduction cell reads."""


def network(policy, filters=6, *, size=8, blocks=2, arc=EVERY, channels=1, layers=0):
    """Describe a network of a reduction cell and normal ones."""
    if isinstance(policy, str):
        policy = policies.preset(policy, bits=2)
    places = (layers + 1,)
    shape = plan.Network("fixed", layers, filters, blocks, size, channels, 3, places)
    return fixed.describe(shape, policy, arc)


def variables(net, seed=0):
    """Return variables with norms of random signs, and one of factor 0."""
    shapes = jax.eval_shape(lambda key: fixed.init(net, key), jax.random.key(0))
    rng = np.random.default_rng(seed)
    floats = net.policy.stem.name == "float"

    def drawn(path, leaf):
        name, shape = path[-1].key, leaf.shape
        if name == "kernel":
            size = np.prod(shape[:-1]) ** -0.5 if floats else 1
            return np.float32(rng.uniform(-1, 1, shape) * size)
        if name == "var":
            return np.float32(rng.uniform(0.5, 20, shape))
        value = np.float32(rng.normal(size=shape))
        if name == "scale":
            value[0] = 0
        return value

    return jax.tree_util.tree_map_with_path(drawn, shapes)


def images(net, count=5, seed=0):
    """Return random bytes."""
    shape = net.plan.network
    rng = np.random.default_rng(seed)
    return rng.integers(
        0, 256, (count, shape.size, shape.size, shape.channels), np.uint8
    )
