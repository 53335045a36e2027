"""The fully connected layer."""

import jax.numpy as jnp
import numpy as np
import pytest

from shared.layers.linear import init_linear, linear


def test_linear_maps_the_last_axis(draw):
    params = {"kernel": draw(4, 3), "bias": draw(3)}
    x = draw(2, 5, 4)
    expected = (
        np.einsum("bti,io->bto", x, params["kernel"]) + params["bias"][None, None]
    )
    np.testing.assert_allclose(linear(params, x), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(linear(params, x[0, 0]), expected[0, 0], rtol=1e-5)


def test_default_draw_fills_the_range_of_the_fan_in(key):
    params = init_linear(key, 25, 400)
    for values in (params["kernel"], params["bias"]):
        assert 0.19 < jnp.max(values) <= 0.2 and -0.2 <= jnp.min(values) < -0.19
        np.testing.assert_allclose(jnp.var(values), 0.04 / 3, rtol=0.15)


def test_without_bias_and_wrong_width(key):
    params = init_linear(key, 4, 3, bias=False)
    assert set(params) == {"kernel"}
    with pytest.raises(AssertionError):
        linear(params, jnp.ones((2, 5)))
