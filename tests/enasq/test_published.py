"""Every published architecture runs: a step of the shared weights, a fixed network."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from enasq import cell, experiments, fixed, losses, plan, policy, supernet
from tests.enasq.test_spelling import LOGGED
from tests.enasq.variables import numbers
from tests.quick import quick

ARCS = {
    "mnist": experiments.MNIST_ARC,
    "cifar": experiments.CIFAR_ARC,
    "enas": experiments.ENAS_ARC,
    "first of the log": LOGGED[0],
    "second of the log": LOGGED[1],
}
SHAPE = {
    "layers": 0,
    "filters": 2,
    "blocks": 5,
    "size": 8,
    "channels": 1,
    "pool_positions": (0,),
}
RATE = 0.01


@pytest.fixture(scope="module")
def step():
    """A training step of shared weights, compiled once, and variables to start from."""
    shape = plan.Network("search", stride_inside=True, **SHAPE)
    net = supernet.describe(shape, policy.preset("deployable"))
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
    traces = []

    def loss(params, variables, arc):
        traces.append(arc)
        found = supernet.run(net, variables._replace(params=params), arc, x, train=True)
        return losses.loss("squared_hinge", found.logits, jnp.arange(4))

    @quick
    def run(variables, arc):
        value, grads = jax.value_and_grad(loss)(variables.params, variables, arc)
        return value, jax.tree.map(lambda w, g: w - RATE * g, variables.params, grads)

    return run, numbers(lambda key: supernet.init(net, key)), traces


@pytest.mark.parametrize("name", ARCS)
def test_a_step_of_shared_weights_moves_what_the_architecture_uses(step, name):
    run, variables, traces = step
    arc = cell.parse(ARCS[name])
    value, after = run(variables, arc)
    assert np.isfinite(value)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), variables.params, after)
    for number in range(2):
        for bank, window in (("conv_3", 0), ("conv_5", 1)):
            used = (arc[int(number == 0)][:, 1::2] == window).any()
            leaves = jax.tree.leaves(moved[f"cell_{number}"]["banks"][bank])
            assert any(leaves) == used
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    assert len(traces) == 1


@pytest.mark.parametrize("name", ARCS)
def test_the_fixed_network_trains(name):
    net = fixed.describe(
        plan.Network("fixed", **SHAPE),
        policy.preset("deployable"),
        cell.parse(ARCS[name]),
    )

    def run(key, x):
        variables = fixed.init(net, key)
        found = fixed.run(net, variables, x, train=True, key=key)
        return found.logits, variables.state, found.state

    x = jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.float32)
    logits, before, after = jax.eval_shape(run, jax.random.key(0), x)
    assert logits.shape == (4, 10)
    assert jax.tree.structure(before) == jax.tree.structure(after)
