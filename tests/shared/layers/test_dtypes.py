"""The type of computation: never promoted silently, and chosen by an argument."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shared.layers import attention as at
from shared.layers import conv as cv
from shared.layers import embedding as em
from shared.layers import norm, pooling
from shared.layers import recurrent as rc
from shared.layers.dropout import dropout
from shared.layers.linear import init_linear, linear


def network(key, dtype, train):
    """Compute a loss with every layer that there is."""
    keys = jax.random.split(key, 8)
    images = jax.random.randint(keys[0], (2, 8, 8, 3), 0, 255).astype(jnp.uint8)
    x = cv.conv(cv.init_conv(keys[0], 3, 3, 4), images, stride=2, dtype=dtype)
    x = cv.depthwise_conv(cv.init_depthwise_conv(keys[1], 3, 4), x, dtype=dtype)
    grouped = cv.init_depthwise_conv(keys[1], 3, 4)
    x = cv.depthwise_conv(grouped, x, how="grouped", dtype=dtype)
    for average in ("exponential", "debiased", "cumulative"):
        params, state = norm.init_batch_norm(4)
        x, _ = norm.batch_norm(params, state, x, train=train, average=average)
    x = pooling.max_pool(x, 2) + pooling.avg_pool(x, 3, stride=2, padding="SAME")
    x = x + pooling.avg_pool(x, 2, stride=1, padding="SAME", count_padding=True)
    x = dropout(x, 0.5, train=train, key=keys[2])
    pooled = pooling.global_avg_pool(x) + pooling.global_max_pool(x)
    words = em.init_embedding(keys[3], 5, 4)
    z = em.embedding(words, jnp.array([[0, 1, 2], [3, 4, 0]]), dtype=dtype)
    z = z + jnp.broadcast_to(em.sinusoidal_positions(3, 4, dtype=dtype), z.shape)
    z = z + jnp.expand_dims(pooled, 1)
    z = norm.layer_norm(norm.init_layer_norm(4), z)
    z = norm.layer_norm(norm.init_layer_norm(4), z, form="deviation")
    z, state = rc.lstm(
        rc.init_lstm(keys[4], 4, 4), z, lengths=jnp.array([3, 2]), dtype=dtype
    )
    state = rc.lstm_cell(rc.init_lstm(keys[4], 4, 4), state, z[:, 0], dtype=dtype)
    heads = at.init_attention(keys[5], 4, 2)
    options = {"train": train, "dropout_rate": 0.1, "key": keys[6], "dtype": dtype}
    z = at.attention(heads, z, heads=2, mask=at.causal_mask(3), **options)
    z = linear(init_linear(keys[7], 4, 4), z + jnp.expand_dims(state.h, 1), dtype=dtype)
    return em.unembed(words, z, dtype=dtype)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_layers_under_strict_promotion(key, dtype, train):
    with jax.numpy_dtype_promotion("strict"):
        y = jax.eval_shape(lambda key: network(key, dtype, train), key)
        assert y.dtype == dtype
        loss = lambda p: jnp.sum(linear(p, jnp.ones((2, 3), jnp.float32)))
        jax.eval_shape(jax.grad(loss), init_linear(key, 3, 2))


def test_type_follows_the_parameters(key):
    def result(dtype):
        params = init_linear(key, 3, 2, dtype=dtype)
        return linear(params, jnp.ones((1, 3), jnp.float32))

    assert jax.eval_shape(lambda: result(jnp.bfloat16)).dtype == jnp.bfloat16
    with jax.enable_x64(True):
        assert jax.eval_shape(lambda: result(jnp.float64)).dtype == jnp.float64


def test_bfloat16_computes_the_same_roughly_with_float32_gradients(draw):
    params = {"kernel": draw(64, 8) / 8}
    x = draw(4, 64)
    low = linear(params, x, dtype=jnp.bfloat16)
    np.testing.assert_allclose(low.astype(jnp.float32), linear(params, x), atol=0.03)
    gradient = jax.grad(lambda p: jnp.sum(linear(p, x, dtype=jnp.bfloat16)))(params)
    assert gradient["kernel"].dtype == jnp.float32
