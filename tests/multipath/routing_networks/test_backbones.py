"""Trunks: sizes, what pooling leaves out, order of the features, running statistics."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from multipath.routing_networks import backbones
from shared.errors import UsageError
from shared.layers import conv, pooling
from shared.model import Model, Variables
from tests.quick import quick


def size(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("shape", "features"), [((32, 32, 3), 128), ((28, 28, 1), 32), ((16, 16, 1), 32)]
)
def test_published_trunk_has_its_sizes(shape, features):
    trunk = backbones.convnet(shape)
    assert backbones.width(trunk, shape) == features
    params = jax.eval_shape(trunk.init, jax.random.key(0)).params
    inputs = 9 * shape[-1] * 32 + 32
    assert size(params) == inputs + 3 * (9 * 32 * 32 + 32) + 2 * 32
    if shape[-1] == 3:
        assert size(params) == 28_704


def test_large_trunk_has_three_blocks_of_160():
    trunk = backbones.paper_large((32, 32, 3))
    assert backbones.width(trunk, (32, 32, 3)) == 4 * 4 * 160
    params = jax.eval_shape(trunk.init, jax.random.key(0)).params
    assert [params[f"conv{i}"]["kernel"].shape[2:] for i in range(3)] == [
        (3, 160),
        (160, 160),
        (160, 160),
    ]


@pytest.fixture(scope="module")
def small():
    """A trunk of two blocks, images of odd sizes, and passes through both."""
    trunk = backbones.convnet((7, 10, 2), channels=3, blocks=2)
    x = jax.random.normal(jax.random.key(1), (5, 7, 10, 2)) + 1

    @quick
    def run(x):
        variables = trunk.init(jax.random.key(0))
        out, state = trunk.apply(variables, x, train=True)
        after = Variables(variables.params, state)
        evaluated, same = trunk.apply(after, x)
        plain = x
        for i in range(2):
            plain = jax.nn.relu(conv.conv(variables.params[f"conv{i}"], plain))
            plain = pooling.max_pool(plain, 2)
        return variables, out, state, evaluated, same, plain

    return jax.tree.map(np.asarray, run(x))


def test_features_are_normalised_and_come_channel_by_channel(small):
    _, out, _, _, _, plain = small
    assert out.shape == (5, 3 * 1 * 2)
    mean, var = plain.mean((0, 1, 2)), plain.var((0, 1, 2))
    wanted = (plain - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(
        out.reshape(5, 3, 1, 2), wanted.transpose(0, 3, 1, 2), rtol=1e-4, atol=1e-5
    )


def test_running_statistics_take_a_tenth_of_the_unbiased_ones(small):
    _, _, state, evaluated, same, plain = small
    flat = plain.reshape(-1, 3)
    mean, var = 0.1 * flat.mean(0), 0.9 + 0.1 * flat.var(0, ddof=1)
    np.testing.assert_allclose(state["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(state["var"], var, rtol=1e-5)
    wanted = (plain - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(
        evaluated, wanted.transpose(0, 3, 1, 2).reshape(5, -1), rtol=1e-4, atol=1e-5
    )
    jax.tree.map(np.testing.assert_array_equal, same, state)


def test_kernels_begin_within_the_root_of_their_inputs(small):
    kernel = small[0].params["conv1"]["kernel"]
    bound = 1 / np.sqrt(9 * 3)
    assert 0.9 * bound < np.abs(kernel).max() <= bound


def test_features_may_be_given():
    trunk = backbones.identity()
    x = jnp.ones((2, 4))
    out, state = trunk.apply(trunk.init(jax.random.key(0)), x)
    assert out is x and state == {} and backbones.width(trunk, (4,)) == 4


def test_bad_trunks():
    with pytest.raises(UsageError, match="at least 16 x 16 pixels"):
        backbones.convnet((15, 32, 3))
    with pytest.raises(UsageError, match="blocks: got 0"):
        backbones.convnet((32, 32, 3), blocks=0)
    images = Model(lambda key: Variables({}), lambda variables, x: (x, ()))
    with pytest.raises(UsageError, match=r"\[batch, features\]"):
        backbones.width(images, (4, 4, 1))
