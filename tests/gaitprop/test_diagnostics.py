"""Statistics."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from gaitprop import diagnostics
from shared import metrics
from shared.errors import UsageError
from tests.gaitprop.build import network
from tests.gaitprop.settings import settings


def test_metrics_and_published_losses_of_a_small_batch():
    output = jnp.array([[2.0, 2.0, 9.0], [0.0, 1.0, 9.0], [3.0, 1.0, 9.0]])
    labels = jnp.array([0, 1, 1])
    found = diagnostics.metrics(output, labels, 2)
    assert float(found["accuracy"]) == pytest.approx(2 / 3)
    assert float(found["mse"]) == pytest.approx((1 + 4 + 0 + 0 + 9 + 0) / 3)
    losses = diagnostics.upstream_losses(output, labels, 2)
    assert float(losses["loss_upstream_cpu"]) == pytest.approx(1.0)
    # The mean score is 1.5: three entries away by 0.5 and three by 1.5.
    assert float(losses["loss_upstream_gpu"]) == pytest.approx(3 * 0.25 + 3 * 2.25)


def test_angles_are_precise_from_tiny_to_opposite(key):
    u = jax.random.normal(key, (6, 6))
    v = jnp.roll(u, 1, axis=0)
    v = v - u * jnp.sum(u * v) / jnp.sum(u * u)
    v = v * jnp.linalg.norm(u) / jnp.linalg.norm(v)
    for degrees in (0.01, 1.0, 45.0, 90.0, 179.0):
        turn = np.radians(degrees)
        found = metrics.angle(u, 7 * (np.cos(turn) * u + np.sin(turn) * v))
        assert float(found) == pytest.approx(degrees, rel=1e-3)
    assert float(metrics.angle(u, 0 * u)) == 0
    assert float(metrics.angle(u, u * jnp.nan)) == 0


def test_orthogonality_of_scaled_rows(key):
    config, _ = settings(widths=(6, 6, 6), classes=2)
    params = network(key, config)
    params[1]["kernel"] = jnp.array([1.0, 1, 1, 1, 1, 3])[:, None] * params[1]["kernel"]
    found = diagnostics.orthogonality(params)
    np.testing.assert_allclose(found["off_norm"], [0, 0], atol=1e-5)
    np.testing.assert_allclose(found["condition"], [1, 3], rtol=1e-4)
    np.testing.assert_allclose(found["row_norm_mean"], [1, 8 / 6], rtol=1e-5)
    np.testing.assert_allclose(
        found["row_norm_sd"][1], np.std([1] * 5 + [3]), rtol=1e-5
    )


def test_peak_and_final():
    assert diagnostics.peak_final([0.1, 0.9, 0.4]) == (0.9, 0.4)
    with pytest.raises(UsageError, match="series"):
        diagnostics.peak_final([])


def test_singular_kernels_are_named(key):
    config, _ = settings(algorithm="gait")
    params = network(key, config)
    assert diagnostics.find_singular(params) is None
    params[0]["kernel"] = 0 * params[0]["kernel"]
    assert diagnostics.find_singular(params) is None
    params[1]["kernel"] = params[1]["kernel"].at[0].set(params[1]["kernel"][1])
    assert "layer 2 (condition" in str(diagnostics.find_singular(params))
    params[1]["kernel"] = params[1]["kernel"].at[0, 0].set(jnp.nan)
    assert "layer 2 (not finite)" in str(diagnostics.find_singular(params))
