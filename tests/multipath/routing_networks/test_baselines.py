"""Baselines: their formulas, whose rows and parameters meet, and bad tasks."""

import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from multipath.routing_networks import backbones, baselines, network
from multipath.routing_networks.trajectory import depth
from shared.errors import UsageError
from shared.layers import norm
from shared.model import Model, Variables
from tests.multipath.routing_networks.drawing import drawn
from tests.quick import quick

TASKS, WIDTHS = 3, (5, 4, 2)
TASK = np.array([2, 0, 1, 0, 2, 0], np.int32)


@functools.cache
def build(make, *args, width=6, **options):
    """Return the network of a head on given features."""
    head = make(*args, **options)
    return network.join(backbones.identity(), (width,), head)


def close(a, b, **options):
    options = {"rtol": 2e-5, "atol": 2e-6, **options}
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **options), a, b)


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(5)
    x, y = (random.normal(size=(6, n)).astype(np.float32) for n in (6, 2))
    return x, TASK, y


@functools.cache
def program(net, train):
    def loss(params, state, x, tasks, y):
        variables = Variables(params, state)
        out, trajectory, state = net.apply(variables, x, tasks, train=train)
        assert depth(trajectory) == 0
        return jnp.sum((out - y) ** 2), (out, state)

    return quick(jax.grad(loss, has_aux=True))


def run(net, variables, x, tasks, y, *, train=False):
    """Return outputs, the new state and gradients of a pass."""
    grads, (out, state) = program(net, train)(*variables, x, tasks, y)
    return jax.tree.map(np.asarray, (out, state, grads))


def shape(net, x, tasks, **options):
    """Go through a pass without computing it; the tasks are known."""
    x, tasks = jnp.asarray(x), jnp.asarray(tasks)
    found = jax.eval_shape(lambda v: net.apply(v, x, tasks, **options)[0], drawn(net))
    return found.shape


def relu(x):
    return np.maximum(x, 0)


def linear(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def test_the_shared_network_sees_the_task(batch):
    net = build(baselines.perceptron, WIDTHS, tasks=TASKS)
    variables = drawn(net)
    out, _, _ = run(net, variables, *batch)
    h = np.concatenate([batch[0], np.eye(TASKS)[TASK]], 1)
    modules = variables.params["modules"]
    for i in range(3):
        h = linear(modules[f"layer{i}"], h)
        h = relu(h) if i < 2 else h
    close(out, h)


def test_a_mixture_weighs_its_modules_by_its_gates(batch):
    net = build(baselines.soft_mixture, WIDTHS, modules=4, tasks=TASKS)
    variables = drawn(net)
    out, _, grads = run(net, variables, *batch)
    params, h = variables.params, np.asarray(batch[0])
    for i in range(3):
        seen = np.concatenate([h, np.eye(TASKS)[TASK]], 1)
        scores = np.exp(linear(params["routing"][f"gate{i}"], seen))
        weights, mixed = scores / scores.sum(1, keepdims=True), 0
        for k in range(4):
            own = jax.tree.map(lambda a: a[k], params["modules"][f"selection{i}"])  # noqa: B023
            y = linear(own, h)
            mixed = mixed + weights[:, k : k + 1] * (relu(y) if i < 2 else y)
        h = mixed
    close(out, h)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(grads["routing"]))


def test_a_mixture_of_one_is_the_plain_network(batch):
    plain = build(baselines.perceptron, WIDTHS)
    net = build(baselines.soft_mixture, WIDTHS, modules=1)
    single, mixed = drawn(plain), drawn(net)
    stacked = jax.tree.map(lambda a: a[None], single.params["modules"])
    for i in range(3):
        mixed.params["modules"][f"selection{i}"] = stacked[f"layer{i}"]
    out, _, grads = run(net, mixed, *batch)
    wanted, _, plain_grads = run(plain, single, *batch)
    close(out, wanted)
    for i in range(3):
        found = jax.tree.map(lambda a: a[0], grads["modules"][f"selection{i}"])
        close(found, plain_grads["modules"][f"layer{i}"])


def test_stitches_mix_the_hidden_layers_of_all_tasks(batch):
    net = build(baselines.cross_stitch, WIDTHS, tasks=TASKS)
    variables = drawn(net)
    out, _, grads = run(net, variables, *batch)
    modules = variables.params["modules"]
    h = [np.asarray(batch[0])] * TASKS
    for i in range(3):
        own = [jax.tree.map(lambda a: a[t], modules[f"layer{i}"]) for t in range(TASKS)]  # noqa: B023
        h = [linear(layer, x) for layer, x in zip(own, h, strict=True)]
        if i < 2:
            mixing = modules[f"stitch{i}"]
            h = [
                sum(mixing[t, s] * relu(h[s]) for s in range(TASKS))
                for t in range(TASKS)
            ]
    close(out, np.stack([h[t][b] for b, t in enumerate(TASK)]))
    assert np.any(grads["modules"]["stitch0"])


def test_stitches_begin_with_nine_tenths_of_the_own():
    net = build(baselines.cross_stitch, WIDTHS, tasks=TASKS)
    first = quick(lambda: net.init(jax.random.key(0)).params["modules"])()
    for i in range(2):
        close(first[f"stitch{i}"], np.where(np.eye(TASKS), 0.9, 0.05))


def test_without_stitches_tasks_do_not_touch_each_other(batch):
    net = build(baselines.cross_stitch, WIDTHS, tasks=TASKS)
    variables = drawn(net)
    for i in range(2):
        variables.params["modules"][f"stitch{i}"] = np.eye(TASKS, dtype=np.float32)
    x, tasks, y = batch
    grads = run(net, variables, x, 0 * tasks, y)[2]["modules"]
    for i in range(3):
        assert np.any(grads[f"layer{i}"]["kernel"][0])
        assert not np.any(grads[f"layer{i}"]["kernel"][1:])


@functools.cache
def separate(even=False, how="vmap"):
    """Return a network whose trunk normalises the batch, and one for each task."""

    def apply(variables, x, *, train=False, key=None):
        return norm.batch_norm(*variables, x, train=train)

    trunk = Model(lambda key: norm.init_batch_norm(6), apply)
    one = network.join(trunk, (6,), baselines.perceptron((3, 2)))
    return one, baselines.separate(one, TASKS, even=even, how=how)


def alone(one, variables, x, y, task):
    """Return what the network of a task does with its rows only."""
    own = jax.tree.map(lambda a: a[task], tuple(variables))
    return run(one, Variables(*own), x, np.zeros(len(x), np.int32), y, train=True)


@pytest.mark.parametrize(
    ("tasks", "options"),
    # As many rows of each task; then repeated ones, and a task without any.
    [((2, 0, 1, 0, 2, 1), {"even": True}), ((2, 0, 2, 0, 2, 0), {"how": "loop"})],
)
def test_each_network_learns_from_its_own_rows(batch, tasks, options):
    (x, _, y), (one, net) = batch, separate(**options)
    tasks, variables = np.array(tasks, np.int32), drawn(net)
    out, state, grads = run(net, variables, x, tasks, y, train=True)
    for t in range(TASKS):
        rows = np.flatnonzero(tasks == t)
        pick = lambda tree: jax.tree.map(lambda a: a[t], tree)  # noqa: B023
        own = pick(grads["modules"])
        if not rows.size:
            assert not any(map(np.any, jax.tree.leaves(own)))
            close(pick(state["trunk"]), pick(variables.state["trunk"]))
            continue
        wanted, after, single = alone(one, variables, x[rows], y[rows], t)
        close(out[rows], wanted)
        close(own, single["modules"], rtol=1e-4, atol=1e-5)
        close(state["trunk"]["mean"][t], after["trunk"]["mean"])


def test_rows_of_one_image_go_to_all_networks(batch):
    (x, _, _), (one, net) = batch, separate()
    x, y, variables = x[:2], np.ones((6, 2), np.float32), drawn(net)
    tasks = np.tile(np.arange(TASKS, dtype=np.int32), 2)
    out, _, _ = run(net, variables, x, tasks, y, train=True)
    for t in range(TASKS):
        close(out[t::TASKS], alone(one, variables, x, y[:2], t)[0])


def test_rows_that_do_not_fit_are_no_numbers(batch):
    (x, _, y), (_, net) = batch, separate(even=True)
    variables, tasks = drawn(net), np.array([0, 0, 0, 1, 1, 2], np.int32)
    out, _, _ = run(net, variables, x, tasks, y, train=True)
    assert np.isnan(out).any(1).tolist() == [False, False, True, False, False, False]
    # In evaluation there is no such promise.
    assert np.isfinite(run(net, variables, x, 0 * tasks, y)[0]).all()
    with pytest.raises(UsageError, match="multiple of 3"):
        shape(net, x[:4], tasks[:4], train=True)


def test_images_may_have_several_rows(batch):
    x, _, y = batch
    net = build(baselines.perceptron, WIDTHS, tasks=TASKS)
    tasks, variables = np.array([0, 1, 2, 1, 0, 2], np.int32), drawn(net)
    repeated = run(net, variables, x[:3].repeat(2, 0), tasks, y)[0]
    close(run(net, variables, x[:3], tasks, y)[0], repeated)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_matching_widths_come_near(depth):
    width = baselines.matching_width(20_000, 40, 3, depth)
    widths = (width,) * (depth - 1) + (3,)
    net = build(baselines.perceptron, widths, width=40)
    assert network.count(net) == pytest.approx(20_000, rel=0.01)


def test_bad_tasks(batch):
    x, tasks, _ = batch
    for net in (
        build(baselines.perceptron, WIDTHS, tasks=2),
        build(baselines.cross_stitch, WIDTHS, tasks=2),
        build(baselines.soft_mixture, WIDTHS, modules=2, tasks=2),
    ):
        with pytest.raises(UsageError, match="tasks: got 2, expected integers from 0"):
            shape(net, x, tasks)
        assert shape(net, x, tasks % 2) == (6, 2)
    with pytest.raises(UsageError, match="a multiple of the 6 images"):
        shape(build(baselines.perceptron, WIDTHS), x, tasks[:4])
