"""Small networks and images for tests."""

import jax
import numpy as np
from jax import numpy as jnp

from multipath.trees import graph
from multipath.trees import net as networks
from shared.model import Variables

CHAIN = ((2, 2), (2, 2), (3,))
IMAGE, CLASSES = (8, 8, 3), 3


def network(family="actor", topology="chain", *, arch=CHAIN, depth=2, **options):
    """Build a small network."""
    blocks = graph.Blocks(classes=CLASSES, arch=arch, router_n_chan=3, k_l2=0.01)
    roots = {
        "sr": lambda: graph.sr_chain(blocks, depth),
        "chain": lambda: graph.dr_chain(blocks),
        "tree": lambda: graph.dr_tree(blocks, splits=1),
    }
    root = roots["sr" if family == "sr" else topology]()
    return networks.Net(family, root, IMAGE, CLASSES, **options)


def variables(net, seed=0):
    """Return random variables, those included that begin at 0 or 1."""
    tree = jax.eval_shape(lambda: networks.init(jax.random.key(0), net))
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        values = rng.normal(size=leaf.shape) * 0.5
        if path[-1].key in ("gamma", "v_avg"):
            values = 1 + 0.2 * np.abs(values)
        return jnp.asarray(values, leaf.dtype)

    return Variables(*jax.tree_util.tree_map_with_path(draw, tuple(tree)))


def images(count=6, seed=1):
    """Return images and one-hot targets."""
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.uniform(size=(count, *IMAGE)), jnp.result_type(float))
    return x, jax.nn.one_hot(rng.integers(0, CLASSES, count), CLASSES, dtype=x.dtype)


def hyper(**changes):
    """Return settings of a step."""
    settings = {
        "k_cpt": 1e-4,
        "k_dec": 0.01,
        "k_cre": 0.05,
        "tau": 0.7,
        "eps": 0.05,
        "alpha_cpt": 1e4,
        "alpha_rtr": 0.5,
        "lr": 0.05,
        "lr_half": np.inf,
        "tau_half": np.inf,
        "mu": 0.9,
    }
    dtype = jnp.result_type(float)
    return {k: jnp.asarray(v, dtype) for k, v in {**settings, **changes}.items()}
