"""Matrix products of the last axis and their gradient."""

import jax
import numpy as np

from enasq.pointwise import pointwise
from tests.quick import quick


def test_products_and_gradients_equal_automatic_ones_alone_and_mapped(key):
    x = jax.random.normal(key, (2, 3, 4, 5))
    kernels = jax.random.normal(key, (2, 5, 6))

    @quick
    def pulled(x, kernels):
        found = []
        for run in (pointwise, lambda x, kernel: x @ kernel):

            def one(x, kernel, run=run):
                y, back = jax.vjp(run, x, kernel)
                return y, back(y)

            found.append((one(x, kernels[0]), jax.vmap(one)(x, kernels)))
        return found

    pairs = zip(*map(jax.tree.leaves, pulled(x, kernels)), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
