"""Batch norm's statistics and pooling; layer norm's two forms."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shared.errors import UsageError
from shared.layers.norm import (
    batch_norm,
    init_batch_norm,
    init_layer_norm,
    layer_norm,
    moments,
    normalize,
)

norm_jitted = jax.jit(
    batch_norm,
    static_argnames=("train", "decay", "epsilon", "unbiased", "average", "axis_name"),
)


@pytest.fixture(scope="module")
def x(draw):
    return draw(8, 4, 3) * jnp.array([[[1.0, 2.0, 0.5]]]) + 2


@pytest.fixture(scope="module")
def params():
    return {"scale": jnp.array([1.0, 2.0, -1.0]), "offset": jnp.array([0.5, 0.0, 1.0])}


def test_batch_norm_equals_flax(x, params):
    module = nn.BatchNorm(use_running_average=False, momentum=0.7, epsilon=1e-3)
    state = init_batch_norm(3).state
    stats = {"mean": state["mean"], "var": state["var"]}
    flax_params = {"scale": params["scale"], "bias": params["offset"]}
    tree = {"params": flax_params, "batch_stats": stats}
    expected, moved = module.apply(tree, x, mutable=["batch_stats"])
    options = {"decay": 0.7, "epsilon": 1e-3, "unbiased": False}
    y, state = norm_jitted(params, state, x, train=True, **options)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    for name in ("mean", "var"):
        np.testing.assert_allclose(state[name], moved["batch_stats"][name], rtol=1e-5)
    y, same = batch_norm(params, state, x, train=False, epsilon=1e-3)
    assert same is state
    expected = normalize(params, x, state["mean"], state["var"], epsilon=1e-3)
    np.testing.assert_allclose(y, expected)
    rows = (x[0, 0] - state["mean"]) / jnp.sqrt(state["var"] + 1e-3)
    rows = rows * params["scale"] + params["offset"]
    np.testing.assert_allclose(y[0, 0], rows, rtol=1e-5)


@pytest.mark.parametrize("average", ["exponential", "debiased", "cumulative"])
def test_running_averages(x, average):
    """Against the definitions, after three batches."""
    batches = np.split(np.asarray(x[:6]), 3)
    decay, state = 0.8, init_batch_norm(3, affine=False).state
    raw = np.zeros(3) if average == "debiased" else np.ones(3)
    variances = []
    for batch in batches:
        _, state = norm_jitted(
            {}, state, jnp.asarray(batch), train=True, decay=decay, average=average
        )
        variances.append(np.var(batch.reshape(-1, 3), axis=0, ddof=1))
        raw = decay * raw + (1 - decay) * variances[-1]
    expected = {
        "exponential": raw,
        "debiased": raw / (1 - decay**3),
        "cumulative": np.mean(variances, axis=0),
    }[average]
    np.testing.assert_allclose(state["var"], expected, rtol=1e-5)
    assert state["count"] == 3


def test_pooled_moments_are_those_of_the_whole_batch(x, params):
    state = init_batch_norm(3).state
    whole, whole_state = norm_jitted(params, state, x, train=True)
    one = lambda part: batch_norm(params, state, part, train=True, axis_name="group")
    parts, states = jax.jit(jax.vmap(one, axis_name="group"))(x.reshape(4, 2, 4, 3))
    np.testing.assert_allclose(parts.reshape(x.shape), whole, rtol=1e-5, atol=1e-5)
    first = jax.tree.map(lambda leaf: leaf[0], states)
    chex.assert_trees_all_close(first, whole_state, rtol=1e-6)

    both = lambda part: moments(part, axis_name=("a", "b"))
    inner = jax.vmap(jax.vmap(both, axis_name="b"), axis_name="a")
    mean, var = jax.jit(inner)(x.reshape(2, 2, 2, 4, 3))
    np.testing.assert_allclose(mean[1, 0], jnp.mean(x, (0, 1)), rtol=1e-5)
    np.testing.assert_allclose(var[0, 1], jnp.var(x, (0, 1)), rtol=1e-5)


def test_gradient_flows_through_pooled_moments(x, params):
    state = init_batch_norm(3).state

    def loss(x, groups, axis):
        one = lambda part: batch_norm(params, state, part, train=True, axis_name=axis)[
            0
        ]
        y = jax.vmap(one, axis_name="group")(x.reshape(groups, -1, 4, 3))
        return jnp.sum(jnp.sin(y) ** 2)

    gradient = jax.jit(jax.grad(loss), static_argnums=(1, 2))
    pooled, whole = gradient(x, 4, "group"), gradient(x, 1, None)
    np.testing.assert_allclose(pooled, whole, rtol=1e-3, atol=1e-5)


def test_variance_keeps_its_digits_far_from_zero():
    x = jnp.tile(jnp.array([-1.0, 1.0]), 50)[:, None] + 4096.0
    _, var = moments(x)
    np.testing.assert_allclose(var, 1.0, rtol=1e-6)
    _, var = moments((x - 4096.0 + 64.0).astype(jnp.bfloat16))
    assert var.dtype == jnp.float32
    np.testing.assert_allclose(var, 1.0, rtol=1e-6)


def test_layer_norm_forms(x):
    params = init_layer_norm(3)
    params = {"scale": params["scale"] * 2, "offset": params["offset"] + 1}
    module = nn.LayerNorm(epsilon=1e-5)
    flax_params = {"scale": params["scale"], "bias": params["offset"]}
    expected = module.apply({"params": flax_params}, x)
    np.testing.assert_allclose(layer_norm(params, x), expected, rtol=1e-4, atol=1e-4)
    wide = np.asarray(x, np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    expected = 2 * centred / (wide.std(-1, ddof=1, keepdims=True) + 0.1) + 1
    y = layer_norm(params, x, epsilon=0.1, form="deviation")
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    both = layer_norm(init_layer_norm((4, 3)), x)
    np.testing.assert_allclose(jnp.mean(both, (1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(jnp.var(both, (1, 2)), 1, rtol=1e-3)


def test_layer_norm_of_equal_values_has_a_gradient():
    loss = lambda x: jnp.sum(layer_norm(init_layer_norm(3), x, form="deviation") ** 2)
    assert jnp.all(jnp.isfinite(jax.jit(jax.grad(loss))(jnp.ones((2, 3)))))


def test_wrong_arguments(x):
    params, state = init_batch_norm(3)
    with pytest.raises(UsageError, match="average"):
        batch_norm(params, state, x, train=True, average="mean")
    with pytest.raises(UsageError, match="decay"):
        batch_norm(params, state, x, train=True, decay=1.5)
    with pytest.raises(UsageError, match="form"):
        layer_norm(init_layer_norm(3), x, form="rms")
