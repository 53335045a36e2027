"""Any Flax module becomes a Model that computes what the module computes."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from shared.errors import UsageError
from shared.model import Variables, from_linen, from_nnx


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Dense(8)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.8)(x)
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x))
        self.sow("intermediates", "hidden", x)
        return nn.Dense(3)(x)


class Nnx(nnx.Module):
    def __init__(self, *, rngs):
        self.layers = nnx.List([nnx.Linear(5, 8, rngs=rngs)])
        self.norm = nnx.BatchNorm(8, momentum=0.8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        x = self.norm(self.layers[0](x))
        return self.out(self.dropout(nnx.relu(x)))


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(1), (6, 5)) * 2 + 1


@pytest.fixture(scope="module")
def models(x):
    pairs = {"linen": from_linen(Linen(), x), "nnx": from_nnx(Nnx)}
    return {name: (m, jax.jit(m.init)(jax.random.key(2))) for name, m in pairs.items()}


def linen_outputs(variables, x, train, key):
    tree = {"params": variables.params, **variables.state}
    if not train:
        return Linen().apply(tree, x), variables.state
    rngs = {"dropout": jax.random.fold_in(key, 0)}
    return Linen().apply(tree, x, train=True, rngs=rngs, mutable=["batch_stats"])


def nnx_outputs(variables, x, train, key):
    module = Nnx(rngs=nnx.Rngs(9))
    for part, kind in ((variables.params, nnx.Param), (variables.state, nnx.BatchStat)):
        state = nnx.state(module, kind)
        nnx.replace_by_pure_dict(state, part)
        nnx.update(module, state)
    module.train() if train else module.eval()
    nnx.reseed(module, default=jax.random.fold_in(key, 0))
    outputs = module(x)
    return outputs, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", ["linen", "nnx"])
def test_apply_is_the_modules_own(models, x, name, train, key):
    model, variables = models[name]
    own = linen_outputs if name == "linen" else nnx_outputs
    expected = jax.jit(own, static_argnums=2)(variables, x, train, key)
    got = jax.jit(model.apply, static_argnames="train")(
        variables, x, train=train, key=key
    )
    chex.assert_trees_all_close(got, tuple(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["linen", "nnx"])
def test_training_moves_statistics_and_draws_from_the_key(models, x, name, key):
    model, variables = models[name]
    apply = jax.jit(model.apply, static_argnames="train")
    first, state = apply(variables, x, train=True, key=key)
    other, _ = apply(variables, x, train=True, key=jax.random.key(5))
    again, _ = apply(variables, x, train=True, key=key)
    assert jnp.array_equal(first, again) and not jnp.array_equal(first, other)
    moved = jax.tree.map(lambda a, b: jnp.any(a != b), state, variables.state)
    assert len(jax.tree.leaves(moved)) == 2 and all(jax.tree.leaves(moved))
    chex.assert_trees_all_equal_structs(state, variables.state)
    kept = model.apply(variables, x)[1]
    assert kept is variables.state


@pytest.mark.parametrize("name", ["linen", "nnx"])
def test_members_and_gradients(models, x, name, key):
    """K sets of weights under vmap, and their gradients, equal one at a time."""
    model, variables = models[name]
    keys = jax.random.split(key, 2)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 1.5 * leaf]), variables)
    drawn = jax.eval_shape(jax.vmap(model.init), keys)
    assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, many)

    @jax.jit
    def gradient(variables, key):
        def loss(params):
            own = Variables(params, variables.state)
            return jnp.sum(model.apply(own, x, train=True, key=key)[0] ** 2)

        return jax.grad(loss)(variables.params)

    together = jax.jit(jax.vmap(gradient))(many, keys)
    for i in range(2):
        one = jax.tree.map(lambda leaf: leaf[i], many)  # noqa: B023
        row = jax.tree.map(lambda leaf: leaf[i], together)  # noqa: B023
        chex.assert_trees_all_close(gradient(one, keys[i]), row, rtol=1e-4, atol=1e-4)
    kernels = [g for g in jax.tree.leaves(together) if g.ndim == 3]
    assert len(kernels) == 2 and all(jnp.any(g != 0) for g in kernels)


def test_trained_nnx_instance_keeps_its_values(x, key):
    module = Nnx(rngs=nnx.Rngs(3))
    model = from_nnx(module)
    variables = model.init(key)
    assert jnp.array_equal(variables.params["out"]["kernel"], module.out.kernel[...])
    model.apply(variables, x, train=True, key=key)
    module.eval()
    outputs, _ = model.apply(variables, x)
    np.testing.assert_allclose(outputs, module(x), rtol=1e-6)


def test_linen_takes_shapes_several_inputs_and_deterministic(x, key):
    class Two(nn.Module):
        @nn.compact
        def __call__(self, a, b, *, deterministic):
            return nn.Dropout(0.5, deterministic=deterministic)(nn.Dense(2)(a) + b)

    b = jnp.ones((6, 2))
    shapes = {"a": jax.ShapeDtypeStruct(x.shape, x.dtype), "b": b}
    model = from_linen(Two(), shapes, unpack=True)
    variables = model.init(key)
    outputs, state = model.apply(variables, {"a": x, "b": b})
    again, _ = model.apply(variables, (x, b))
    dense = variables.params["Dense_0"]
    np.testing.assert_allclose(outputs, x @ dense["kernel"] + 1, rtol=1e-6)
    np.testing.assert_array_equal(outputs, again)
    assert state == {}
    dropped, _ = model.apply(variables, (x, b), train=True, key=key)
    assert jnp.mean(dropped == 0) > 0.2


def test_errors(models, x, key):
    for model, variables in models.values():
        with pytest.raises(UsageError, match="key"):
            model.apply(variables, x, train=True)
    with pytest.raises(UsageError, match="train_argument: got 'training'.*train"):
        from_linen(Linen(), x, train_argument="training")
    with pytest.raises(UsageError, match="module"):
        from_nnx(3)
    with pytest.raises(UsageError, match="tuple or a dict"):
        from_linen(Linen(), x, unpack=True).init(key)
