"""Measures on values known by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shared.metrics import accuracy, angle


def test_accuracy_is_the_share_of_right_answers():
    logits = jnp.array([[[0.0, 1.0], [2.0, 1.0]], [[0.0, 3.0], [0.0, 1.0]]])
    labels = jnp.array([[1, 0], [0, 1]])
    np.testing.assert_allclose(accuracy(logits, labels), 0.75)


@pytest.mark.parametrize("degrees", [0.0, 0.001, 45.0, 90.0, 179.0, 180.0])
def test_angle_keeps_small_angles_and_ignores_lengths(degrees):
    radians = np.deg2rad(degrees)
    a = {"x": jnp.array([[3.0]]), "y": jnp.array([0.0])}
    b = {"x": jnp.array([[np.cos(radians)]]), "y": jnp.array([np.sin(radians)])}
    np.testing.assert_allclose(jax.jit(angle)(a, b), degrees, rtol=1e-3, atol=1e-4)


def test_angle_to_nothing_is_zero():
    a, zero = jnp.array([1.0, 2.0]), jnp.zeros(2)
    assert angle(a, zero) == 0
