"""The small convolutional network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modmask.models.convnet import convnet
from shared import masking
from shared.errors import UsageError
from tests.quick import quick

WIDTHS = (3, 4, 4, 6)


@pytest.fixture(scope="module")
def network():
    model, random = convnet(2, 5, widths=WIDTHS), np.random.default_rng(0)
    draw = lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype)
    variables = jax.tree.map(draw, jax.eval_shape(model.init, jax.random.key(0)))
    return model, variables, jnp.asarray(random.normal(size=(4, 9, 8, 2)), "float32")


def test_the_published_size():
    params = jax.eval_shape(convnet(3, 10).init, jax.random.key(0)).params
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 390_986


def test_the_pooled_maps_of_known_kernels():
    """Kernels that pass one channel on leave the largest pixel of each block."""
    model = convnet(1, 1, widths=(1, 1, 1, 1), dropout=False)
    middle = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
    layer = {"kernel": middle, "bias": jnp.zeros(1)}
    out = {"kernel": jnp.ones((1, 1)), "bias": jnp.array([0.5])}
    params = {"features": dict.fromkeys(("0", "3", "6", "10"), layer), "out_layer": out}
    x = jax.random.normal(jax.random.key(0), (2, 16, 8, 1))
    variables = jax.eval_shape(model.init, jax.random.key(0))._replace(params=params)
    y, _ = quick(lambda x: model.apply(variables, x))(x)
    blocks = np.max(np.asarray(x).reshape(2, 2, 8, 8), axis=(2, 3))
    np.testing.assert_allclose(y[:, 0], np.mean(blocks, axis=1) + 0.5, rtol=1e-6)


def test_evaluation_draws_nothing_and_training_does(network):
    model, variables, x = network
    train = quick(lambda key: model.apply(variables, x, train=True, key=key)[0])
    plain = quick(lambda: model.apply(variables, x, key=jax.random.key(0))[0])()
    first, second = (train(jax.random.key(i)) for i in (0, 1))
    again = quick(lambda: model.apply(variables, x)[0])()
    np.testing.assert_array_equal(plain, again)
    assert not np.allclose(first, plain) and not np.allclose(first, second)


def test_without_dropout_training_is_evaluation(network):
    _, variables, x = network
    model = convnet(2, 5, widths=WIDTHS, dropout=False)
    run = quick(
        lambda x: [model.apply(variables, x, train=t)[0] for t in (False, True)]
    )
    np.testing.assert_array_equal(*run(x))


def test_training_with_dropout_needs_a_key(network):
    model, variables, x = network
    with pytest.raises(UsageError, match="key"):
        model.apply(variables, x, train=True)


def test_groups_see_the_masks_of_their_own_and_share_unmasked_biases(network):
    model, variables, x = network
    where = lambda path, leaf: not path.endswith("bias")
    logits = masking.init_logits(variables.params, where, 0.0)
    masks = masking.sample(logits, 2, key=jax.random.key(2))

    @quick
    def run(masks, x):
        together, _ = masking.batched_apply(model, variables, masks, x)
        apart = []
        for k, part in enumerate((x[:2], x[2:])):
            own = jax.tree.map(lambda m: m[k], masks)  # noqa: B023
            params = masking.apply_masks(variables.params, own)
            apart.append(model.apply(variables._replace(params=params), part)[0])
        return together, jnp.concatenate(apart)

    together, apart = run(masks, x)
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-6)


def test_wrong_sizes_are_refused():
    with pytest.raises(UsageError, match="classes"):
        convnet(3, 0)
