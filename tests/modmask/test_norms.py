"""Running means of gradient norms, and what they scale."""

import jax.numpy as jnp
import numpy as np

from modmask import norms

LOGITS = {"a": jnp.zeros((2, 2)), "b": jnp.zeros(3), "c": None}


def gradient(size):
    return {"a": jnp.full((2, 2), size / 2), "b": jnp.array([0, 3.0, 4.0]), "c": None}


def test_mean_goes_over_the_norms_there_are_and_forgets_the_oldest():
    record = norms.start(LOGITS)
    for i in range(norms.WINDOW):
        record = norms.push(record, gradient(i + 1.0))
        np.testing.assert_allclose(norms.means(record), [(i + 2) / 2, 5.0], rtol=1e-6)
    record = norms.push(record, gradient(norms.WINDOW + 1.0))
    np.testing.assert_allclose(norms.means(record)[0], (norms.WINDOW + 3) / 2)


def test_scales_are_shares_of_the_mean_norm_and_never_vanish():
    record = norms.push(norms.start(LOGITS), gradient(15.0))
    np.testing.assert_allclose(norms.scales(record), [1.5, 0.5])
    record = norms.push(norms.start(LOGITS), gradient(0.0))
    np.testing.assert_allclose(norms.scales(record), [1e-4, 2.0])
