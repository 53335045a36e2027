"""Properties of Gumbel-softmax: values of samples, gradients of their relaxation."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from multipath.routing_networks import decision as decisions
from multipath.routing_networks import selection
from multipath.routing_networks.decision import Decision, decide
from multipath.routing_networks.losses import routing_loss
from multipath.routing_networks.selection import linear_modules
from multipath.routing_networks.trajectory import initialize
from shared.errors import UsageError
from shared.model import Variables
from tests.quick import quick

ACTIONS, BATCH = 3, 5


def _layer():
    return {"kernel": jnp.eye(ACTIONS)[None], "bias": jnp.zeros((1, ACTIONS))}


def _decide(x, noise=None, train=True, key=None, tasks=None, **options):
    """Let scores that are the input decide."""
    decision = Decision("d", "gumbel", ACTIONS, ACTIONS, detach=False, **options)
    params = {"policy": {"layer0": _layer()}}
    _, record, _ = initialize(x, tasks)
    return decide(
        decision, params, x, record, None, train=train, noise=noise, key=key, target=x
    )


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(BATCH, ACTIONS)), jnp.float32)
    return x, jnp.asarray(rng.uniform(size=(BATCH, ACTIONS)), jnp.float32)


def _soft(x, u, tau):
    return jax.nn.softmax((x - jnp.log(-jnp.log(u))) / tau)


def test_values_do_not_depend_on_the_temperature(drawn):
    x, u = drawn
    runs = [quick(lambda x, u: _decide(x, u, temperature=t))(x, u) for t in (0.2, 5.0)]  # noqa: B023
    for out, _, action in runs:
        np.testing.assert_array_equal(out, x)
        np.testing.assert_array_equal(action, jnp.argmax(_soft(x, u, 1.0), 1))


def test_the_gradient_of_a_sample_is_that_of_its_relaxation(drawn):
    x, u = drawn
    tau, cotangent = 0.7, jnp.asarray(np.random.default_rng(1).normal(size=x.shape))

    def through(x):
        return jnp.sum(_decide(x, u, temperature=tau)[0] * cotangent)

    # The output is x m: it moves with x, and with x through m.
    soft = _soft(x, u, tau)
    action = jnp.argmax(soft, 1)
    own = jnp.take_along_axis(soft, action[:, None], 1)
    of_factor = jnp.sum(x * cotangent, 1, keepdims=True)
    softened = own * (jax.nn.one_hot(action, ACTIONS) - soft) / tau
    expected = cotangent + of_factor * softened
    np.testing.assert_allclose(quick(jax.grad(through))(x), expected, atol=1e-5)


def test_the_full_gradient_comes_from_all_modules(drawn, key):
    x, u = drawn
    tau, modules = 0.7, linear_modules(ACTIONS, ACTIONS, 2)
    params = selection.init(key, modules).params

    def through(x, given):
        out, record, action = _decide(x, u, temperature=tau, mode="full")
        y, *_ = selection.select(modules, params, given, record, action)
        return jnp.sum(jnp.sin(y)), y

    found, y = quick(jax.grad(through, has_aux=True))(x, x)
    apart = [
        selection.apply(modules, Variables(params), x, jnp.full(BATCH, k))[0]
        for k in range(ACTIONS)
    ]
    by_weight = jnp.einsum("kbo,bo->bk", jnp.stack(apart), jnp.cos(y))
    _, pull = jax.vjp(lambda x: _soft(x, u, tau), x)
    np.testing.assert_allclose(found, pull(by_weight)[0], atol=1e-5)


def test_weights_are_of_no_account_once_tasks_choose(drawn, key):
    modules = linear_modules(ACTIONS, ACTIONS, ACTIONS)
    params = selection.init(key, modules).params
    x, u = drawn
    tasks = jnp.arange(BATCH) % ACTIONS

    @quick
    def run(params):
        out, record, action = _decide(x, u, mode="full", tasks=tasks)
        triplet = selection.select(modules, params, out, record, action)
        found, wanted = [], []
        for assign in (decisions.per_task, decisions.pass_through):
            y, after, chosen = assign(*triplet)
            found.append(selection.select(modules, params, y, after, chosen)[0])
            wanted.append(selection.apply(modules, Variables(params), y, chosen)[0])
        own = {"d": {"policy": {"layer0": _layer()}}}
        # The same decision again has its weights, the one before has not.
        y, after, _ = decide(
            record.steps[0].decision, own["d"], y, after, None, train=True, noise=u
        )
        return found, wanted, routing_loss(own, after, jnp.ones(BATCH)).routing

    found, wanted, routing = run(params)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    np.testing.assert_array_equal(routing, 0)


def test_samples_follow_the_policy_and_evaluation_the_largest_score(drawn, key):
    x, _ = drawn
    many = jnp.broadcast_to(x[:1], (20_000, ACTIONS))
    _, record, actions = quick(lambda x, key: _decide(x, key=key))(many, key)
    share = np.bincount(actions, minlength=ACTIONS) / len(actions)
    np.testing.assert_allclose(share, jax.nn.softmax(x[0]), atol=1e-2)
    out, record, action = _decide(x, train=False, mode="full")
    np.testing.assert_array_equal(action, jnp.argmax(x, 1))
    assert set(record.steps[0].statistics) == {"logits"} and out is x


def test_training_without_noise_is_one_usage_error(drawn):
    with pytest.raises(UsageError, match="key: got None"):
        _decide(drawn[0])
    with pytest.raises(
        UsageError, match=r"noise: got 'shape \(5, 2\)', expected shape"
    ):
        _decide(drawn[0], drawn[1][:, 1:])
