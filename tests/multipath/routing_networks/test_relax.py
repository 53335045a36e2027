"""Properties of RELAX: the mean gradient is the exact one, whatever the variate."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from multipath.routing_networks import losses, storage
from multipath.routing_networks.algorithms import relax
from multipath.routing_networks.decision import Decision, decide, init
from multipath.routing_networks.trajectory import initialize
from shared.errors import UsageError
from tests.quick import quick

ACTIONS, FEATURES = 3, 2
RETURNS = jnp.array([1.0, -0.5, 2.0])
DECISION = Decision("d", "relax", ACTIONS, FEATURES, hidden=(4,))


@pytest.fixture(scope="module")
def params():
    made = init(jax.random.key(3), DECISION).params
    # A variate that says much, for it to matter.
    return {**made, "value": jax.tree.map(lambda a: 3 * a, made["value"])}


def _drawing(params, key, size):
    """Draw for one and the same input; return what was drawn, and the returns."""
    keys = jax.random.split(key)
    x = jnp.broadcast_to(jnp.array([0.5, -1.0]), (size, FEATURES))
    agent = jnp.zeros(size, jnp.int32)
    u, v = (jax.random.uniform(k, (size, ACTIONS), minval=1e-6) for k in keys)
    scores = storage.evaluate(params["policy"], x, agent)
    action = jnp.argmax(jax.nn.log_softmax(scores) - jnp.log(-jnp.log(u)), -1)
    drawing = relax.Drawing(x, agent, action, u, v, jnp.full(size, 0.5))
    return drawing, RETURNS[action]


def test_the_mean_gradient_is_that_of_the_expected_return(params):
    groups, size = 20, 2000

    @quick
    def run(params, keys):
        def one(key):
            drawing, returns = _drawing(params, key, size)

            def mean(policy):
                own = {**params, "policy": policy}
                return jnp.mean(relax.estimate(DECISION, own, drawing, returns))

            return jax.grad(mean)(params["policy"])

        x, agent = jnp.array([[0.5, -1.0]]), jnp.zeros(1, jnp.int32)
        loss = lambda policy: (
            -jnp.sum(jax.nn.softmax(storage.evaluate(policy, x, agent)) * RETURNS[None])
        )
        return jax.lax.map(one, keys), jax.grad(loss)(params["policy"])

    found, exact = run(params, jax.random.split(jax.random.key(0), groups))
    flat = lambda tree: np.concatenate([np.ravel(a) for a in jax.tree.leaves(tree)])
    found = np.stack([flat(jax.tree.map(lambda a: a[i], found)) for i in range(groups)])  # noqa: B023
    error = found.std(0, ddof=1) / np.sqrt(groups)
    gap = np.abs(found.mean(0) - flat(exact))
    assert np.abs(flat(exact)).max() > 0.1 and error.max() < 0.02
    assert (gap <= 4.5 * error + 1e-6).all()


def test_without_a_variate_it_is_reinforce(params):
    none = {**params, "value": jax.tree.map(jnp.zeros_like, params["value"])}

    @quick
    def run(params, key):
        drawing, returns = _drawing(params, key, 6)
        logp = relax.relax(DECISION, params, drawing).logp
        logp = jnp.take_along_axis(logp, drawing.action[:, None], 1)[:, 0]
        return relax.estimate(DECISION, params, drawing, returns), -logp * returns

    found, expected = run(none, jax.random.key(1))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_samples_given_an_action_agree_with_it(params):
    @quick
    def run(params, key):
        drawing, _ = _drawing(params, key, 500)
        return drawing.action, relax.relax(DECISION, params, drawing)

    action, relaxed = run(params, jax.random.key(2))
    np.testing.assert_array_equal(jnp.argmax(relaxed.z_tilde, 1), action)
    np.testing.assert_array_equal(jnp.argmax(relaxed.z, 1), action)
    # Both are drawn from one distribution; the spread of a mean is about 0.06.
    np.testing.assert_allclose(relaxed.z.mean(0), relaxed.z_tilde.mean(0), atol=0.35)


def _loss(params, x, noise, mask=None, train=True, decision=DECISION):
    _, record, _ = initialize(x)
    _, record, action = decide(
        decision, params, x, record, None, train=train, noise=noise, mask=mask
    )
    return losses.routing_loss({"d": params}, record, RETURNS[action]).routing


def test_policy_and_variate_learn_apart_and_from_executed_steps(params):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(6, FEATURES)), jnp.float32)
    u, v = (jnp.asarray(rng.uniform(size=(6, ACTIONS)), jnp.float32) for _ in "uv")
    mask = jnp.arange(6) % 2 == 0

    @quick
    def run(params, mask):
        mean = lambda params, *given: jnp.sum(_loss(params, *given)) / 6
        some = jax.grad(mean)(params, x, (u, v), mask)
        few = jax.grad(mean)(params, x[::2], (u[::2], v[::2]))

        def variance(params):
            agent, tau = jnp.zeros(3, jnp.int32), jnp.full(3, 0.5)
            drawing = relax.Drawing(x[::2], agent, agent, u[::2], v[::2], tau)
            z = relax.relax(DECISION, params, drawing).z
            drawing = drawing._replace(action=jnp.argmax(z, -1))
            returns = RETURNS[drawing.action]

            def mean(policy):
                own = {**params, "policy": policy}
                return jnp.sum(relax.estimate(DECISION, own, drawing, returns)) / 6

            squares = jax.tree.map(
                lambda g: jnp.sum(g**2), jax.grad(mean)(params["policy"])
            )
            return 0.5 * sum(jax.tree.leaves(squares))

        return some, few, jax.grad(variance)(params)

    some, few, variance = run(params, mask)
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    jax.tree.map(same, some["policy"], few["policy"])
    jax.tree.map(same, some["value"], variance["value"])
    assert float(jnp.max(jnp.abs(some["value"]["layer0"]["kernel"]))) > 1e-4


def test_evaluation_teaches_nothing(params):
    x = jnp.ones((2, FEATURES))
    np.testing.assert_array_equal(_loss(params, x, None, train=False), 0)
    for noise, message in (
        ((jnp.ones((2, ACTIONS)), jnp.ones((1, ACTIONS))), r"noise: got 'shape \(1, 3"),
        ((jnp.ones((2, ACTIONS)),), "noise: got '1 arrays', expected two"),
    ):
        with pytest.raises(UsageError, match=message):
            decide(DECISION, params, *initialize(x), train=True, noise=noise)
    with pytest.raises(UsageError, match="key: got None"):
        _loss(params, x, None)


def test_the_published_loss_is_nothing_but_a_gradient(params):
    decision = Decision("d", "relax", ACTIONS, FEATURES, hidden=(4,), compat=True)
    x, noise = jnp.ones((2, FEATURES)), (jnp.full((2, ACTIONS), 0.3),) * 2

    @quick
    def run(params):
        loss = lambda p: jnp.sum(_loss(p, x, noise, decision=decision))
        return jax.value_and_grad(loss)(params)

    value, gradient = run(params)
    assert float(value) == 0
    assert float(jnp.max(jnp.abs(gradient["policy"]["layer0"]["kernel"]))) > 1e-4
