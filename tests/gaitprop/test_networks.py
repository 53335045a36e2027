"""Layers and networks: forward and back again."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from jax import numpy as jnp

from gaitprop import layers, networks, transfer
from shared.errors import UsageError
from tests.gaitprop.build import batch, network, quick
from tests.gaitprop.settings import settings

SHAPES = ((12, 12, 12, 12), (14, 12, 10), (11, 11, 10, 10))


@given(
    h=st.floats(-3, 3),
    p=st.floats(-3, 3),
    s=st.floats(1e-3, 1),
    slope=st.sampled_from((0.01, 0.1, 0.5, 1.0)),
)
@hypothesis_settings(max_examples=40, deadline=None, derandomize=True)
def test_difference_quotient_is_its_definition(h, p, s, slope):
    with jax.enable_x64(True):
        h, p, s = (jnp.asarray(v, jnp.float64) for v in (h, p, s))
        ours = transfer.difference(h, p, s, slope)
        step = transfer.inverse(h, slope) - transfer.inverse(h - s * p, slope)
        np.testing.assert_allclose(ours, step / s, rtol=1e-9, atol=1e-9)


def test_difference_quotient_survives_a_scale_that_underflows():
    h, p = jnp.array([[-1.0, 0.0, 2.0]]), jnp.array([[3.0, 3.0, -3.0]])
    limit = transfer.difference(h, p, None, 0.1)
    np.testing.assert_array_equal(transfer.difference(h, p, jnp.array(0.0), 0.1), limit)
    np.testing.assert_allclose(limit, [[30.0, 3.0, -3.0]], rtol=1e-6)


@pytest.mark.parametrize("slope", (0.1, 1.0))
def test_transfer_inverts_and_its_derivative_is_the_slope(slope):
    z = jnp.array([[-2.0, -1e-3, 0.0, 1e-3, 2.0]])
    y = transfer.forward(z, slope)
    np.testing.assert_allclose(transfer.inverse(y, slope), z, rtol=1e-6)
    grads = jax.grad(lambda z: transfer.forward(z, slope).sum())(z)
    np.testing.assert_allclose(transfer.derivative(y, slope), grads, rtol=1e-6)


@pytest.mark.parametrize("widths", SHAPES)
@pytest.mark.parametrize("kind", ("leaky_relu", "linear"))
def test_inverse_pass_returns_the_activities(key, widths, kind):
    with jax.enable_x64(True):
        config, _ = settings(widths=widths, transfer=kind)
        params = network(key, config, noise=0.3)
        x, _ = batch(key, 5, config)
        h = quick(networks.forward, static_argnums=2)(params, x, config)
        inverse = quick(networks.inverse, static_argnums=3)
        for ours, golden in zip(inverse(params, h[-1], h, config), h, strict=True):
            np.testing.assert_allclose(ours, golden, rtol=0, atol=1e-10)


def test_auxiliary_units_stand_for_themselves(key):
    config, _ = settings(widths=(14, 12, 12))
    params = network(key, config)
    x, labels = batch(key, 5, config)
    h = networks.forward(params, x, config)
    target = networks.output_target(h[-1], labels, config)
    np.testing.assert_array_equal(target[:, 10:], h[-1][:, 10:])
    targets = networks.inverse(params, target, h, config)
    np.testing.assert_array_equal(targets[0][:, 12:], x[:, 12:])
    moved = x.at[:, 12:].add(1.0)
    np.testing.assert_array_equal(networks.forward(params, moved, config)[-1], h[-1])


def test_initial_kernels_are_independent_and_as_named(key):
    config, _ = settings(widths=(200, 200, 200))
    kernels = [layer["kernel"] for layer in networks.init(key, config)]
    gap = kernels[0] @ kernels[0].T - jnp.eye(200)
    assert float(jnp.abs(gap).max()) < 1e-5
    assert float(jnp.abs(kernels[0] - kernels[1]).max()) > 0.01
    glorot = dataclasses.replace(config, init="glorot_normal")
    drawn = networks.init(key, glorot)[0]["kernel"]
    assert abs(float(jnp.std(drawn)) * 200**0.5 - 1) < 0.02
    # A truncated normal has no entry beyond 2.3 standard deviations.
    assert float(jnp.abs(drawn).max()) * 200**0.5 > 3


def test_rectangular_first_layer_reads_all_inputs(key):
    config, _ = settings(widths=(20, 12, 10), first_layer="rectangular")
    params = networks.init(key, config)
    assert [layer["kernel"].shape for layer in params] == [(20, 12), (10, 10)]
    x, _ = batch(key, 3, config)
    moved = x.at[:, 15].add(1.0)
    outputs = [networks.predict(params, v, config) for v in (x, moved)]
    assert float(jnp.abs(outputs[0] - outputs[1]).max()) > 0


def test_cross_entropy_target_moves_by_half_its_gradient(key):
    config, _ = settings(loss="cross_entropy")
    output = jax.random.normal(key, (4, 12))
    labels = jnp.array([0, 3, 9, 5])

    def loss(output):
        return -jnp.sum(jax.nn.log_softmax(output[:, :10])[jnp.arange(4), labels])

    error = output - networks.output_target(output, labels, config)
    np.testing.assert_allclose(error, 0.5 * jax.grad(loss)(output), atol=1e-6)


def test_unknown_initialiser_names_the_choices(key):
    with pytest.raises(UsageError, match="glorot_normal"):
        layers.init(key, 3, 3, "glorot")
