"""Networks of one architecture."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enasq import accounting, cell, child, fixed, layers, plan
from enasq import policy as policies
from enasq.behaviour import Behaviour, clean, compat
from shared.errors import UsageError
from shared.model import Variables
from tests.enasq.variables import numbers
from tests.quick import quick

NETWORK = plan.Network("fixed", 0, 2, 2, 4, 1, 3, pool_positions=(0,), aux_head=True)
ARC = cell.parse("0 0 1 1 2 2 0 4 1 3 0 4 2 0 1 4")
CIFAR = (
    "1 2 1 3 0 1 0 4 1 1 1 1 0 1 0 1 1 0 0 1 0 1 0 4 1 0 2 0 0 3 1 1 0 0 0 0 4 1 1 0"
)
MNIST = (
    "1 2 0 0 1 1 0 1 1 1 0 0 1 1 1 3 0 1 1 0 1 4 1 1 2 0 1 3 1 3 1 2 1 0 1 0 3 1 1 0"
)


@pytest.fixture(scope="module")
def deployable():
    """A deployable network, its variables before and after training, images, a pass."""
    net = fixed.build(NETWORK, policies.preset("deployable"), ARC)
    variables = numbers(net.init)
    x = jax.random.uniform(jax.random.key(1), (6, 4, 4, 1), minval=-1, maxval=1)
    run = quick(lambda v, x: net.apply(v, x, train=True))
    (_, aux), state = run(variables, x)
    assert aux.shape == (6, 3)
    evaluate = quick(lambda v, x: net.apply(v, x))
    return variables, Variables(variables.params, state), x, evaluate


def test_evaluation_takes_each_image_by_itself_and_leaves_the_state(deployable):
    _, variables, x, evaluate = deployable
    (logits, aux), state = evaluate(variables, x)
    assert aux is None
    (alone, _), _ = evaluate(variables, jnp.repeat(x[:1], 6, 0))
    np.testing.assert_allclose(alone[0], logits[0], rtol=1e-4, atol=1e-4)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), state, variables.state)
    assert all(jax.tree.leaves(same))


def test_training_updates_every_running_statistic_once(deployable):
    before, after, _, _ = deployable
    counts = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(after.state)
        if path[-1].key == "count"
    ]
    assert counts and all(int(count) == 1 for count in counts)
    assert jax.tree.structure(before.state) == jax.tree.structure(after.state)


def test_a_deployable_network_reads_images_of_eight_bits(deployable):
    _, variables, x, evaluate = deployable
    run = lambda x: evaluate(variables, x)[0][0]
    pixels = jnp.round(x * 100) / 128
    near = pixels + jax.random.uniform(jax.random.key(2), x.shape) * 0.9 / 256
    np.testing.assert_array_equal(run(pixels), run(near))


def test_the_stem_is_the_same_by_convolution_and_by_matrix_product(key):
    quantizer = policies.Quantizer("float")
    params = layers.init_conv(key, 3, 2, 4, quantizer)
    x = jax.random.normal(key, (3, 5, 6, 2))

    @quick
    def pulled(params, x):
        found = []
        for how in ("conv", "patches"):
            run = lambda p, how=how: child.image_conv(p, x, quantizer, how=how)
            y, back = jax.vjp(run, params)
            found.append((y, back(y)))
        return found

    pair = pulled(params, x)
    for ours, theirs in zip(*map(jax.tree.leaves, pair), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("behaviour", (clean(), compat()))
def test_an_auxiliary_head_that_is_not_trained_only_passes_gradients_on(behaviour):
    network = dataclasses.replace(NETWORK, blocks=1, layers=0, pool_positions=(0,))
    arc = cell.parse("0 2 1 4 1 3 0 2")
    net = fixed.build(network, policies.preset("float"), arc, behaviour)
    variables = numbers(net.init)
    x = jax.random.normal(jax.random.key(1), (4, 4, 4, 1))

    @quick
    def gradient(params):
        def aux_loss(params):
            given = variables._replace(params=params)
            (_, aux), _ = net.apply(given, x, train=True)
            return jnp.sum(aux**2)

        return jax.grad(aux_loss)(params)

    grads = gradient(variables.params)
    own = sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(grads["aux_head"]))
    assert (own > 0) == behaviour.train_aux_head
    assert float(jnp.abs(grads["stem"]["conv"]["kernel"]).sum()) > 0


def test_dropped_paths_need_a_key_and_grow_with_the_steps():
    behaviour = Behaviour(drop_path_keep=0.5, drop_path_steps=100)
    network = dataclasses.replace(NETWORK, aux_head=False, layers=0, pool_positions=())
    network = dataclasses.replace(network, blocks=1)
    arc = cell.parse("0 2 1 3 0 2 1 3")
    net = fixed.build(network, policies.preset("float"), arc, behaviour)
    variables = numbers(net.init)
    x = jax.random.normal(jax.random.key(1), (64, 4, 4, 1))
    with pytest.raises(UsageError, match="dropping paths"):
        net.apply(variables, x, train=True)
    described = fixed.describe(network, policies.preset("float"), arc, behaviour)

    @quick
    def dropped(step):
        """Return how many examples lost both branches of the last cell."""
        key = jax.random.key(2)
        trace = fixed.run(described, variables, x, train=True, key=key, step=step)
        return jnp.sum(jnp.all(trace.outputs[-1] == 0, (1, 2, 3)))

    assert int(dropped(jnp.int32(0))) == 0
    assert 6 < int(dropped(jnp.int32(99))) < 28


@pytest.mark.parametrize(
    ("layers", "channels", "arc", "count"),
    ((15, 3, CIFAR, 1_932_400), (6, 1, MNIST, 1_201_776)),
)
def test_published_networks_have_their_published_sizes(layers, channels, arc, count):
    network = plan.Network("fixed", layers, 16, 5, 32, channels)
    policy, arc = policies.preset("published"), cell.parse(arc)
    net = fixed.build(network, policy, arc, compat())
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes.params)) == count
    found = accounting.totals(accounting.records(network, policy, arc))
    assert found.parameters == count


def test_inputs_are_checked():
    policy = policies.preset("all_binary")
    with pytest.raises(UsageError, match="kind: got 'search'"):
        fixed.build(dataclasses.replace(NETWORK, kind="search"), policy, ARC)
    with pytest.raises(UsageError, match="expected 2 blocks"):
        fixed.build(NETWORK, policy, cell.parse(CIFAR))
    with pytest.raises(UsageError, match="position 8"):
        fixed.build(NETWORK, policy, np.where(ARC == 4, 9, ARC))
    with pytest.raises(UsageError, match="drop_path_keep"):
        Behaviour(drop_path_keep=0)
