"""The fast kernel gradient is the gradient."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from multipath.trees import convolution
from shared.layers.conv import conv


# Windows that are odd, cut to the image, or not square; batches in one part and many.
@pytest.mark.parametrize(
    ("window", "batch", "chunk"),
    [((3, 3), 4, 2**22), ((3, 3), 6, 2000), ((2, 2), 5, 2000), ((3, 5), 2, 1)],
)
def test_gradients_are_those_of_the_plain_convolution(
    window, batch, chunk, monkeypatch
):
    monkeypatch.setattr(convolution, "CHUNK", chunk)
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=(*window, 3, 4)), jnp.float32)
    x = jnp.asarray(rng.normal(size=(batch, 6, 8, 3)), jnp.float32)
    g = jnp.asarray(rng.normal(size=(batch, 6, 8, 4)), jnp.float32)
    ours = jax.vjp(convolution.convolve, kernel, x)
    plain = jax.vjp(lambda kernel, x: conv({"kernel": kernel}, x), kernel, x)
    np.testing.assert_allclose(ours[0], plain[0], rtol=1e-5)
    for found, expected in zip(ours[1](g), plain[1](g), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_mapped_gradient_is_each_members_own():
    rng = np.random.default_rng(0)
    kernels = jnp.asarray(rng.normal(size=(2, 3, 3, 2, 2)), jnp.float32)
    x = jnp.asarray(rng.normal(size=(2, 3, 4, 4, 2)), jnp.float32)
    loss = lambda kernel, x: jnp.sum(convolution.convolve(kernel, x) ** 2)
    both = jax.vmap(jax.grad(loss))(kernels, x)
    for i in range(2):
        own = jax.grad(loss)(kernels[i], x[i])
        np.testing.assert_allclose(both[i], own, rtol=1e-4)
