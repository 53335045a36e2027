"""Objectives and updates: what is differentiated, scaled, scheduled."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from multipath.trees import forward, graph, kinds, learning, objectives, policy
from multipath.trees.graph import layout
from shared import training
from tests.multipath.trees import toy
from tests.quick import quick

ACTOR, CRITIC = toy.network(), toy.network("critic")


@functools.lru_cache
def _gradients(net):
    return quick(functools.partial(learning.gradients, net))


@pytest.fixture(scope="module")
def batch():
    return learning.Batch(*toy.images())


def _leaf(tree, name):
    """Return what belongs to the first router's last layer, say."""
    return {
        "router": tree["root.s0"]["r"]["c7"]["w"],
        "classifier": tree["root.s0.s0"]["c1"]["w"],
        "features": tree["root.s0"]["c0"]["w_horz_0"],
    }[name]


def test_throughput_scales_undo_the_mean_square_of_the_reach():
    rng = np.random.default_rng(0)
    plan = layout(ACTOR.root)
    p = jnp.asarray(rng.uniform(size=(len(plan.nodes), 50)), jnp.float32)
    scale, router = objectives.throughput_scales(ACTOR, policy.Reach(p, p), 0.5)
    np.testing.assert_allclose(scale**2 * jnp.mean(p**2, 1), 1, rtol=1e-5)
    np.testing.assert_allclose(router, 0.5 * scale, rtol=1e-6)
    off = dataclasses.replace(ACTOR, talr=False)
    np.testing.assert_array_equal(
        objectives.throughput_scales(off, policy.Reach(p, p), 1.0)[0], 1
    )


def test_a_node_that_nothing_reaches_has_a_finite_scale():
    p = jnp.zeros((9, 4), jnp.float32)
    scale, _ = objectives.throughput_scales(ACTOR, policy.Reach(p, p), 1.0)
    assert bool(jnp.all(jnp.isfinite(scale)))
    assert not np.any(np.asarray(scale) * 0)


def test_gradients_are_scaled_by_node_and_router(batch):
    tree, hyper = toy.variables(ACTOR), toy.hyper()
    found = _gradients(ACTOR)(*tree, batch, hyper)
    scale, router = objectives.throughput_scales(ACTOR, found.costs.reach, 0.5)
    plan = layout(ACTOR.root)
    leaf = plan.paths.index("root.s0.s0")
    root = plan.paths.index("root.s0")
    for name, factor in (
        ("classifier", scale[leaf]),
        ("router", router[root]),
        ("features", scale[root]),
    ):
        raw, scaled = (_leaf(t, name) for t in (found.raw, found.scaled))
        np.testing.assert_allclose(scaled, factor * raw, rtol=1e-5)
    assert float(scale[leaf]) > 1.1


def test_costs_of_complexity_move_the_policy_only_if_asked(batch):
    """Without errors, prices and decision costs, those of complexity are left."""
    settings = toy.hyper(k_cpt=0.0, k_dec=0.0)
    quiet = learning.Batch(batch.images, jnp.zeros_like(batch.targets))
    routers = {}
    for stop in (True, False):
        net = dataclasses.replace(ACTOR, stop_grad_p=stop)
        raw = _gradients(net)(*toy.variables(net), quiet, settings).raw
        # What is left of the router's own L2 is linear in its weights.
        own = 2 * 0.01 * toy.variables(net).params["root.s0"]["r"]["c7"]["w"]
        routers[stop] = _leaf(raw, "router"), own
    value, own = routers[True]
    # The root is always reached, so its own weight decay has the weight 1.
    np.testing.assert_allclose(value, own, rtol=1e-4, atol=1e-7)
    assert float(jnp.max(jnp.abs(routers[False][0] - own))) > 1e-6


def test_a_critic_weights_by_its_policy_and_does_not_follow_it(batch):
    """With k_cre 0 the routers get nothing but their own weight decay."""
    tree = toy.variables(CRITIC)
    raw = _gradients(CRITIC)(*tree, batch, toy.hyper(k_cre=0.0)).raw
    own = 2 * 0.01 * tree.params["root.s0"]["r"]["c7"]["w"]
    np.testing.assert_allclose(_leaf(raw, "router"), own, rtol=1e-4, atol=1e-7)
    assert np.any(_leaf(raw, "classifier"))


def test_schedules_halve():
    hyper = toy.hyper(lr_half=10.0, tau_half=20.0, lr=0.1, tau=1.0)
    now = learning.scheduled({**hyper, "step": jnp.int32(20)})
    assert float(now["lr"]) == pytest.approx(0.025)
    assert float(now["tau"]) == pytest.approx(0.5)


def test_momentum_takes_the_rate_of_each_step(batch):
    """Two steps by hand: the rate scales the trace, not what enters it."""
    tree, hyper = toy.variables(ACTOR), toy.hyper(lr_half=1.0)
    step = quick(
        training.make_train_step(
            learning.make_update(ACTOR), learning.make_optimizer, timed=True
        )
    )
    state = training.init_state(
        *tree, jax.random.key(0), hyper, learning.make_optimizer
    )
    after = step(step(state, batch)[0], batch)[0].params
    first = _gradients(ACTOR)(*tree, batch, hyper)
    params = jax.tree.map(lambda p, g: p - 0.05 * g, tree.params, first.scaled)
    second = _gradients(ACTOR)(params, first.state, batch, hyper)
    velocity = jax.tree.map(lambda v, g: 0.9 * v + g, first.scaled, second.scaled)
    expected = jax.tree.map(lambda p, v: p - 0.025 * v, params, velocity)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        after,
        expected,
    )


def test_prices_are_drawn_anew_for_each_image(batch, monkeypatch):
    net, seen = toy.network(dyn_k_cpt=True), []

    def spy(net, params, state, batch, hyper, *, key=None, axis_name=None):
        assert key is None
        seen.append(np.asarray(hyper["k_cpt"]))
        costs = objectives.Costs(jnp.zeros(()), None)
        return learning.Gradients(params, params, state, costs, None)

    monkeypatch.setattr(learning, "gradients", spy)
    update = learning.make_update(net, k_cpts=(1e-9, 3e-9))
    told = {**toy.hyper(), "step": jnp.int32(0)}
    for number in range(2):
        update({}, {}, batch, jax.random.key(number), told)
    prices = {np.float32(1e-9), np.float32(3e-9)}
    assert seen[0].shape == (6,) and set(np.concatenate(seen)) == prices
    assert np.any(seen[0] != seen[1])


def test_what_is_dropped_changes_with_the_key_alone(batch):
    dropped = kinds.Chain((kinds.ToPyramid(2),))
    classifier = (kinds.Select(-1), kinds.Dropout(0.5), kinds.LinTrans(toy.CLASSES))
    leaf = kinds.Chain((*classifier, kinds.Softmax(), kinds.CrossEntropyError()))
    root = graph.Node("ToPyramid", dropped, (graph.Node("LogReg", leaf),))
    net = dataclasses.replace(toy.network("sr"), root=root)
    told = {**toy.hyper(), "step": jnp.int32(0)}
    update, tree = quick(learning.make_update(net)), toy.variables(net)
    first, again, other = (
        update(*tree, batch, jax.random.key(seed), told)[0] for seed in (0, 0, 1)
    )
    jax.tree.map(np.testing.assert_array_equal, first, again)
    name = "root.s0"
    assert np.any(first[name]["c2"]["w"] != other[name]["c2"]["w"])


def test_a_static_net_minimises_errors_and_weights_alone(batch):
    net = toy.network("sr")
    tree = toy.variables(net)
    record, _ = quick(
        lambda tree: forward.apply(net, *tree, *batch[:1], y=batch.targets, train=True)
    )(tree)
    found = _gradients(net)(*tree, batch, toy.hyper())
    expected = jnp.mean(jnp.sum(record.c_err + record.c_mod, 0))
    assert float(found.costs.total) == pytest.approx(float(expected), rel=1e-5)
    jax.tree.map(np.testing.assert_array_equal, found.raw, found.scaled)
