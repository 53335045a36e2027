"""Properties of the weighted policy learner: projections, tables, weights."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from multipath.routing_networks import losses, trajectory
from multipath.routing_networks.algorithms import ALGORITHMS, wpl
from multipath.routing_networks.decision import Decision, decide, init
from shared.errors import UsageError
from tests.quick import quick

ACTIONS = 4
FLOOR = 0.05


def test_projections_are_the_nearest_points_above_the_floor():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        vectors = jnp.asarray(rng.normal(size=(50, ACTIONS)))
        project = quick(lambda v: wpl.project(v, FLOOR))
        found = np.asarray(project(vectors))
        np.testing.assert_allclose(found.sum(1), 1, rtol=1e-12)
        assert found.min() >= FLOOR
        np.testing.assert_allclose(project(jnp.asarray(found)), found, atol=1e-12)
        # Larger entries stay larger.
        order = np.argsort(vectors, 1)
        assert (np.diff(np.take_along_axis(found, order, 1), axis=1) >= 0).all()
        # No other point of the simplex is nearer.
        others = FLOOR + (1 - ACTIONS * FLOOR) * rng.dirichlet(np.ones(ACTIONS), 500)
        gap = lambda points: np.sum((points - np.asarray(vectors)[:, None]) ** 2, -1)
        assert (gap(others[None]).min(1) >= gap(found[:, None])[:, 0] - 1e-12).all()


def _tables(agents=3):
    policy = jnp.full((agents, ACTIONS), 1 / ACTIONS)
    return {"policy": policy, "baseline": jnp.zeros(agents)}


def test_tables_learn_the_better_action_and_stay_probabilities():
    worth = jnp.array([0.0, 1.0, 0.3, -1.0])

    def round_(tables, key):
        agent = jnp.arange(30) % 2
        action = jax.random.categorical(key, jnp.log(tables["policy"])[agent])
        # What is good for one agent is bad for the other.
        returns = jnp.where(agent == 0, worth[action], -worth[action])
        tables = wpl.wpl_update(tables, agent, action, returns, floor=FLOOR)
        return tables, tables["policy"]

    keys = jax.random.split(jax.random.key(0), 400)
    tables, history = quick(lambda keys: jax.lax.scan(round_, _tables(), keys))(keys)
    np.testing.assert_allclose(history.sum(-1), 1, rtol=1e-5)
    assert float(history.min()) >= FLOOR - 1e-6
    best = 1 - (ACTIONS - 1) * FLOOR
    np.testing.assert_allclose(tables["policy"][0, 1], best, atol=0.05)
    np.testing.assert_allclose(tables["policy"][1, 3], best, atol=0.05)
    assert tables["baseline"][0] > 0.6 and tables["baseline"][1] > 0.6
    # Nobody asked the third one.
    np.testing.assert_array_equal(tables["policy"][2], 1 / ACTIONS)


def test_steps_that_were_not_executed_teach_nothing():
    agent, action = jnp.array([0, 0, 1, 1]), jnp.array([1, 3, 2, 0])
    returns, mask = jnp.array([1.0, 9.0, -1.0, 9.0]), jnp.array([1, 0, 1, 0]) > 0

    @quick
    def run(tables):
        some = wpl.wpl_update(tables, agent, action, returns, mask)
        few = wpl.wpl_update(tables, agent[::2], action[::2], returns[::2])
        return some, few

    some, few = run(_tables())
    jax.tree.map(np.testing.assert_array_equal, some, few)
    # Δ = 1, w = 3 / 4, shared out by the projection.
    step = 0.05 * 0.75
    expected = 0.25 + step * np.array([-1 / 4, 3 / 4, -1 / 4, -1 / 4])
    np.testing.assert_allclose(some["policy"][0], expected, rtol=1e-5)
    np.testing.assert_allclose(some["baseline"], [0.05, -0.05, 0], rtol=1e-5)


def test_tables_lie_in_the_memory_and_move_with_the_loss(key):
    decision = Decision("d", "wpl", ACTIONS, 2, agents=2, storage="tabular")
    params, memory = init(key, decision)
    assert not jax.tree.leaves(params)
    x, agents, actions = jnp.ones((4, 2)), jnp.array([0, 0, 1, 1]), jnp.arange(4)

    @quick
    def run(memory):
        _, record, _ = trajectory.initialize(x, None, memory)
        _, record, _ = decide(
            decision, params, x, record, agents, train=True, forced=actions
        )
        final = jnp.array([1.0, -1.0, 0.5, 0.5])
        found = losses.routing_loss({"d": params}, record, final)
        return found.routing, found.memory["d"], record.steps[0].statistics["logp"]

    routing, learnt, logp = run({"d": memory})
    np.testing.assert_array_equal(routing, 0)
    np.testing.assert_allclose(logp, np.log(1 / ACTIONS), rtol=1e-6)
    # Steps of 0.05 · 3 / 4 and of -0.05 / 4, averaged, then projected.
    expected = 0.25 + np.array([0.015625, -0.009375, -0.003125, -0.003125])
    np.testing.assert_allclose(learnt["policy"][0], expected, rtol=1e-5)
    np.testing.assert_allclose(learnt["policy"].sum(1), 1, rtol=1e-6)
    # A pass that begins without memory begins with even tables.
    again = run({})[1]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), again, learnt
    )


def _gradient(logits, returns, action, compat=False):
    """Return the gradient of one step's loss by its scores, Q = 0."""
    decision = Decision("d", "wpl", ACTIONS, ACTIONS, compat=compat, detach=False)
    identity = {"kernel": jnp.eye(ACTIONS)[None], "bias": jnp.zeros((1, ACTIONS))}
    zeros = jax.tree.map(jnp.zeros_like, identity)
    params = {"policy": {"layer0": identity}, "value": {"layer0": zeros}}

    def loss(x):
        _, record, _ = trajectory.initialize(x)
        _, record, _ = decide(decision, params, x, record, None, forced=action)
        return jnp.sum(losses.routing_loss({"d": params}, record, returns).routing)

    return quick(jax.grad(loss))(logits)


def test_gradients_are_weighted_by_the_way_that_is_left():
    logits = jnp.array([[1.0, 0.0, -1.0, 0.5]] * 2)
    action, returns = jnp.array([0, 0]), jnp.array([2.0, -2.0])
    found = _gradient(logits, returns, action)
    policy = jax.nn.softmax(logits[0])
    direction = jax.nn.one_hot(0, ACTIONS) - policy
    np.testing.assert_allclose(found[0], -2 * (1 - policy[0]) * direction, rtol=1e-4)
    np.testing.assert_allclose(found[1], 2 * policy[0] * direction, rtol=1e-4)


def test_the_published_gradient_explodes_where_all_scores_are_equal():
    logits = jnp.full((1, ACTIONS), 0.25)
    found = _gradient(logits, jnp.full(1, 2.0), jnp.array([2]), compat=True)
    assert float(jnp.max(jnp.abs(found))) > 1e5
    np.testing.assert_allclose(
        jnp.exp(wpl.published_policy(jnp.array([0.0, 1.0, 3.0]))),
        [np.finfo(np.float32).eps * 2, 0.25, 0.75],
        rtol=0.01,
        atol=1e-6,
    )


def test_a_floor_that_leaves_no_room_is_one_usage_error(key):
    decision = Decision("d", "wpl", ACTIONS, 1, storage="tabular", floor=0.25)
    with pytest.raises(UsageError, match="floor: got 0.25, expected less than 1 / 4"):
        ALGORITHMS["wpl"].init(key, decision)
