"""Parameters of any network, drawn without compiling what it begins with."""

import jax
import numpy as np

from shared.model import Variables
from tests.quick import quick


def drawn(network, seed=0):
    """Return host arrays: normal parameters, and the state to begin with."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(network.init, jax.random.key(0)).params
    params = jax.tree.map(
        lambda s: random.normal(size=s.shape).astype(np.float32), shapes
    )
    state = quick(lambda: network.init(jax.random.key(0)).state)()
    return Variables(params, jax.tree.map(np.asarray, state))
