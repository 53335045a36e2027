"""Latent weights are found with the thresholds of their quantisers."""

import numpy as np
import pytest
from jax import numpy as jnp

from enasq import policy
from enasq.figures import latent
from enasq.quantization import Quantizer, quantize


def test_kernels_are_gathered_by_part_and_floats_are_left_out():
    kernel = np.zeros((1, 1, 2, 3))
    params = {
        "stem": {"conv": {"kernel": kernel}, "norm": {"scale": np.ones(3)}},
        "cell_0": {
            "base": {"conv": {"kernel": kernel + 1}},
            "input_0": {"conv": {"kernel": kernel + 2}},
        },
        "head": {"dense": {"kernel": kernel}},
    }
    found = latent.of_params(params, policy.preset("deployable"))
    assert set(found.weights) == {"stem", "cell_0"}
    assert sorted(found.weights["cell_0"]) == [1] * 6 + [2] * 6
    assert found.thresholds["cell_0"] == [0]


@pytest.mark.parametrize(
    "quantizer",
    (Quantizer("binary"), Quantizer("ternary", high=0.8), Quantizer("kbit", bits=3)),
)
def test_quantised_weights_change_at_thresholds_alone(quantizer):
    places = latent.thresholds(quantizer)
    assert places
    grid = np.linspace(-1, 1, 4001, dtype=np.float32)
    values = np.asarray(quantize(quantizer, {}, jnp.asarray(grid)))
    jumps = (grid[1:] + grid[:-1])[np.diff(values) != 0] / 2
    np.testing.assert_allclose(jumps, places, atol=1e-3)
