"""Attention against Flax, and what its masks hide."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shared.errors import UsageError
from shared.layers import attention as layer
from shared.layers.attention import causal_mask, init_attention, length_mask

attention = jax.jit(layer.attention, static_argnames=("heads", "train", "dropout_rate"))


@pytest.fixture(scope="module")
def params(draw):
    names = ("query", "key", "value", "merge")
    return {name: {"kernel": draw(6, 6) / 2, "bias": draw(6)} for name in names}


@pytest.fixture(scope="module")
def x(draw):
    return draw(3, 4, 6)


def flax_params(params):
    """Lay our projections out as Flax does, with an axis for heads."""
    split = {
        name: {"kernel": p["kernel"].reshape(6, 2, 3), "bias": p["bias"].reshape(2, 3)}
        for name, p in params.items()
        if name != "merge"
    }
    merge = params["merge"]
    return split | {
        "out": {"kernel": merge["kernel"].reshape(2, 3, 6), "bias": merge["bias"]}
    }


@pytest.mark.parametrize("masked", [False, True])
def test_equals_flax(params, x, masked, draw):
    memory = draw(3, 5, 6)
    mask = (draw(3, 4, 5) > -0.5).at[:, :, 0].set(True)
    mask = mask if masked else None
    module = nn.MultiHeadDotProductAttention(num_heads=2)
    over_heads = None if mask is None else mask[:, None]
    apply = jax.jit(module.apply)
    expected = apply({"params": flax_params(params)}, x, memory, mask=over_heads)
    y = attention(params, x, memory, heads=2, mask=mask)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_masks_hide_what_they_say(params, x):
    causal = attention(params, x, heads=2, mask=causal_mask(4))
    changed = attention(params, x.at[:, 2:].set(9.0), heads=2, mask=causal_mask(4))
    np.testing.assert_allclose(causal[:, :2], changed[:, :2], rtol=1e-6)
    assert jnp.all(jnp.any(causal[:, 2:] != changed[:, 2:], -1))
    lengths = length_mask(jnp.array([4, 2, 1]), 4)
    np.testing.assert_array_equal(lengths.sum(-1), [4, 2, 1])
    padded = attention(params, x, heads=2, mask=lengths[:, None, :])
    short = attention(params, x[1:2, :2], heads=2)
    np.testing.assert_allclose(padded[1:2, :2], short, rtol=1e-5, atol=1e-6)


def test_one_query_at_a_time_equals_all_at_once(params, x):
    """Decoding: the last of t + 1 queries sees what a cache of t + 1 inputs holds."""
    whole = attention(params, x, heads=2, mask=causal_mask(4))
    for t in (0, 2):
        inside = length_mask(jnp.full(3, t + 1), 4)[:, None, :]
        step = attention(params, x[:, t : t + 1], x, heads=2, mask=inside)
        np.testing.assert_allclose(step[:, 0], whole[:, t], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(causal_mask(2, 4), causal_mask(4)[2:])


def test_query_that_sees_nothing_gives_the_bias_and_finite_gradients(params, x):
    nothing = jnp.zeros((4, 4), bool)
    loss = lambda x: jnp.sum(attention(params, x, heads=2, mask=nothing) ** 2)
    y = attention(params, x, heads=2, mask=nothing)
    np.testing.assert_allclose(y, jnp.broadcast_to(params["merge"]["bias"], y.shape))
    assert jnp.all(jax.jit(jax.grad(loss))(x) == 0)


def test_dropout_takes_key_or_draw(params, x, key):
    apply = lambda **source: attention(
        params, x, heads=2, train=True, dropout_rate=0.5, **source
    )
    assert jnp.any(apply(key=key) != apply(key=jax.random.key(3)))
    all_kept = apply(keep=jnp.ones((3, 2, 4, 4), bool))
    plain = attention(params, x, heads=2)
    bias = params["merge"]["bias"]
    np.testing.assert_allclose(
        all_kept - bias[None, None],
        2 * (plain - bias[None, None]),
        rtol=1e-4,
        atol=1e-5,
    )


def test_parameters(key):
    shapes = jax.eval_shape(lambda: init_attention(key, 6, 2, memory_width=5))
    assert shapes["query"]["kernel"].shape == (6, 6)
    assert shapes["value"]["kernel"].shape == (5, 6)
    assert set(init_attention(key, 6, 2, bias=False)["key"]) == {"kernel"}


def test_wrong_arguments(params, x, key):
    with pytest.raises(UsageError, match="heads: got 4"):
        init_attention(key, 6, 4)
    with pytest.raises(UsageError, match="heads: got 5"):
        attention(params, x, heads=5)
