"""Optimisers and the regulariser."""

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

from gaitprop import regulariser
from gaitprop.optimizer import OPTIMIZERS, adam_nodebias, make_optimizer
from shared.errors import UsageError
from tests.gaitprop.settings import settings


def test_first_step_has_the_size_of_the_learning_rate(key):
    params = jax.random.normal(key, (30,))
    grads = jax.random.normal(jax.random.fold_in(key, 1), (30,)).at[3].set(0)
    optimizer = adam_nodebias(0.01)
    steps, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(steps, -0.01 * jnp.sign(grads), rtol=1e-4)


def test_step_of_a_constant_gradient_peaks_and_settles():
    optimizer, params = adam_nodebias(1.0), jnp.zeros(1)
    state, sizes = optimizer.init(params), []
    for _ in range(1000):
        step, state = optimizer.update(jnp.ones(1), state, params)
        sizes.append(-float(step[0]))
    assert int(np.argmax(sizes)) + 1 == 13
    assert max(sizes) == pytest.approx(2.1, abs=0.05)
    assert sizes[-1] == pytest.approx(1, abs=1e-3)


def test_nodebias_is_adam_after_its_correction_has_faded(key):
    grads = jax.random.normal(key, (20,))
    states, steps = [], []
    for make in (adam_nodebias, optax.adam):
        optimizer = make(0.1, b1=0.9, b2=0.99, eps=1e-8)
        state = optimizer.init(grads)
        for _ in range(2000):
            step, state = jax.jit(optimizer.update)(grads, state)
        states.append(state)
        steps.append(step)
    np.testing.assert_allclose(steps[0], steps[1], rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_coefficients_are_traced(key, name):
    _, hyper = settings(learning_rate=0.5)
    grads = jax.random.normal(key, (4,))

    def step(hyper):
        optimizer = make_optimizer(name)(hyper)
        return optimizer.update(grads, optimizer.init(grads), grads)[0]

    double = {**hyper, "learning_rate": 2 * hyper["learning_rate"]}
    np.testing.assert_allclose(jax.jit(step)(double), 2 * jax.jit(step)(hyper))


def test_unknown_optimizer_names_the_choices():
    with pytest.raises(UsageError, match="adam_nodebias"):
        make_optimizer("adma")


@pytest.mark.parametrize("target", regulariser.ORTHO_TARGETS)
@pytest.mark.parametrize("shape", ((9, 9), (7, 12)))
def test_regulariser_gradient_is_that_of_its_penalty(key, target, shape):
    with jax.enable_x64(True):
        kernel = jax.random.normal(key, shape)
        ours = regulariser.gradient(kernel, target)
        golden = jax.grad(regulariser.penalty)(kernel, target)
        np.testing.assert_allclose(ours, golden, rtol=1e-10)


def test_regulariser_leaves_what_it_wants_alone(key):
    with jax.enable_x64(True):
        kernel = jax.nn.initializers.orthogonal()(key, (8, 8))
        scaled = jnp.arange(1.0, 9.0)[:, None] * kernel
        assert float(regulariser.penalty(scaled)) < 1e-20
        assert float(regulariser.penalty(kernel, "identity")) < 1e-20
        assert float(regulariser.penalty(scaled, "identity")) > 1
