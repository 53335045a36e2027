"""Optimisers and schedules."""

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

from enasq import optimizer
from shared.errors import UsageError
from tests.quick import quick

COSINE = {"lr_max": 0.05, "lr_min": 0.001, "period": 2, "multiplier": 2}


def test_cosine_restarts_where_it_should():
    hyper = COSINE | {"steps_per_epoch": 3}
    rates = {
        compat: np.asarray(
            quick(jax.vmap(lambda s, c=compat: optimizer.cosine(s, hyper, compat=c)))(
                jnp.arange(90)
            )
        )
        for compat in (False, True)
    }
    clean, compat = rates[False], rates[True]
    # Periods of 2, 4, 8, 16 epochs.
    starts = [0, 6, 18, 42]
    np.testing.assert_allclose(clean[starts], 0.05, rtol=1e-6)
    assert (np.diff(clean)[[s - 1 for s in starts[1:]]] > 0.02).all()
    assert np.nonzero(np.diff(clean) > 1e-6)[0].tolist() == [5, 17, 41]
    # Constant within an epoch, and the published glitch only at restarts.
    assert (clean.reshape(-1, 3) == clean[::3, None]).all()
    different = np.nonzero(np.abs(clean - compat) > 1e-6)[0]
    assert different.tolist() == starts[1:]
    np.testing.assert_allclose(compat[starts[1:]], (0.05 + 0.001) / 2, rtol=1e-5)


def test_half_a_cosine_falls_at_each_update():
    hyper = {"lr_max": 0.05, "lr_min": 0.001, "steps": 40}
    found = quick(jax.vmap(lambda s: optimizer.half_cosine(s, hyper)))(jnp.arange(41))
    expected = optax.cosine_decay_schedule(0.05, 40, alpha=0.001 / 0.05)
    np.testing.assert_allclose(found, jax.vmap(expected)(jnp.arange(41)), rtol=1e-5)


def test_exponential_has_a_floor_and_a_warm_up():
    hyper = {"lr": 0.1, "start": 4, "every": 2, "rate": 0.1}
    more = hyper | {"lr_min": 0.005, "warmup_steps": 2, "warmup_value": 0.7}
    steps = jnp.arange(9)
    plain = quick(jax.vmap(lambda s: optimizer.exponential(s, hyper)))(steps)
    expected = [0.1] * 6 + [0.01] * 2 + [0.001]
    np.testing.assert_allclose(plain, expected, rtol=1e-5)
    rates = quick(jax.vmap(lambda s: optimizer.exponential(s, more)))(steps)
    np.testing.assert_allclose(rates, [0.7, 0.7, *expected[2:8], 0.005], rtol=1e-5)


GRADS = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([[0.1]])}


def _step(name, clip="none", beta1=0.0, **hyper):
    make = optimizer.make_optimizer(name, clip=clip, beta1=beta1)

    @quick
    def run(grads, hyper):
        rule = make(hyper)
        return rule.update(grads, rule.init(grads), grads)[0]

    return run(GRADS, hyper)


def test_clipping():
    rate = {"learning_rate": 1.0, "clip_bound": 1.0}
    whole = _step("sgd", "global", **rate)
    assert float(optax.tree.norm(whole)) == pytest.approx(1, 1e-6)
    own = _step("sgd", "norm", **rate)
    np.testing.assert_allclose(own["a"], [-0.6, -0.8], rtol=1e-6)
    np.testing.assert_allclose(own["b"], [[-0.1]], rtol=1e-6)
    untouched = _step("sgd", "published_norm", **rate)
    np.testing.assert_allclose(untouched["a"], [-3, -4])


def test_penalty_enters_the_gradient_before_it_is_clipped():
    rate = {"learning_rate": 1.0, "clip_bound": 5.0}
    step = _step("sgd", "norm", l2=0.5, **rate)
    # g + 2 l2 v is 2 g here, then clipped to 5.
    np.testing.assert_allclose(step["a"], [-3, -4], rtol=1e-6)
    np.testing.assert_allclose(step["b"], [[-0.2]], rtol=1e-6)
    norm = optimizer.gradient_norm(GRADS, GRADS, 0.5)
    assert float(norm) == pytest.approx(2 * float(optax.tree.norm(GRADS)), 1e-6)


def test_adam_is_that_of_optax_but_for_the_place_of_epsilon():
    rules = optimizer.scale_by_adam(0.9, eps=1e-12), optax.scale_by_adam(eps=1e-12)
    states = [rule.init(GRADS) for rule in rules]
    steps = [quick(rule.update) for rule in rules]
    for scale in (1.0, -0.3, 2.0):
        grads = jax.tree.map(lambda g, s=scale: s * g, GRADS)
        found = [step(grads, s) for step, s in zip(steps, states, strict=True)]
        states = [state for _, state in found]
    ours, theirs = (moved for moved, _ in found)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), ours, theirs)
    # A first moment that is not used is not kept.
    assert optimizer.scale_by_adam().init(GRADS).mu is None


def test_steps_are_proportional_to_the_rate():
    one, two = (_step("adam", learning_rate=rate)["a"] for rate in (0.1, 0.2))
    np.testing.assert_allclose(two, 2 * one, rtol=1e-6)


def test_averages_and_unknown_names():
    moved = optimizer.moving_average(GRADS, jax.tree.map(jnp.zeros_like, GRADS), 0.75)
    np.testing.assert_allclose(moved["a"], [2.25, 3.0])
    with pytest.raises(UsageError, match="momentum"):
        optimizer.make_optimizer("momentun")
