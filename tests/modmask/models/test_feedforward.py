"""Feed-forward networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modmask.models.feedforward import feedforward, xavier
from shared.errors import UsageError
from shared.model import Variables
from tests.quick import quick


def test_hidden_layers_are_rectified_and_the_last_is_not():
    layers = [
        {"kernel": jnp.array([[1.0, -1.0]]), "bias": jnp.array([0.0, 1.0])},
        {"kernel": jnp.array([[2.0], [3.0]]), "bias": jnp.array([-10.0])},
    ]
    model = feedforward(1, 1, (2,))
    x = jnp.array([[3.0], [-2.0]])
    y, state = model.apply(Variables({"layers": layers}), x)
    np.testing.assert_array_equal(y, [[2 * 3 - 10], [3 * 3 - 10]])
    assert state == ()


def test_default_weights_and_biases_fill_the_interval_of_the_fan_in(key):
    params = quick(feedforward(400, 100, (25,)).init)(key).params["layers"]
    for layer, fan_in in zip(params, (400, 25), strict=True):
        bound = fan_in**-0.5
        for leaf in layer.values():
            assert np.all(np.abs(leaf) <= bound)
            assert np.max(np.abs(leaf)) > 0.8 * bound


def test_xavier_weights_have_gain_root_two_but_for_the_last_layer(key):
    params = quick(feedforward(300, 200, (100,), **xavier()).init)(key).params["layers"]
    gains = 2**0.5, 1.0
    for layer, gain in zip(params, gains, strict=True):
        deviation = gain * (2 / sum(layer["kernel"].shape)) ** 0.5
        np.testing.assert_allclose(np.std(layer["kernel"]), deviation, rtol=0.03)
        assert not np.any(layer["bias"])


def test_layers_are_drawn_apart_and_in_the_type_asked_for(key):
    with jax.enable_x64(True):
        model = feedforward(4, 4, (4,), dtype=jnp.float64)
        params = quick(model.init)(key).params["layers"]
        assert params[0]["kernel"].dtype == jnp.float64
        assert np.all(params[0]["kernel"] != params[1]["kernel"])


@pytest.mark.parametrize(
    ("arguments", "named"), (((0, 1, ()), "inputs"), ((1, 1, (3, 0)), "sizes"))
)
def test_widths_below_one_are_refused(arguments, named):
    with pytest.raises(UsageError, match=named):
        feedforward(*arguments)
