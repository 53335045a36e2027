"""The recursive router: where vectors go, when they stop, what is learnt from it."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

from multipath.routing_networks import decision as decisions
from multipath.routing_networks import losses, recursive, trajectory
from multipath.routing_networks.algorithms import ALGORITHMS
from multipath.routing_networks.decision import Decision
from multipath.routing_networks.recursive import Recursive
from multipath.routing_networks.rewards import Reward
from multipath.routing_networks.selection import linear_modules
from shared.errors import UsageError
from tests.quick import quick

BATCH, WIDTH, K, DEPTH = 5, 3, 2, 3
DECISION = Decision("stop", "reinforce", K + 1, WIDTH)
ROUTER = Recursive(DECISION, linear_modules(K, WIDTH, WIDTH), DEPTH)
FORCED = np.array([[0, 1, 2, 1, 1], [2, 0, 2, 0, 1], [1, 1, 1, 2, 2]])


def other(**changes):
    return dataclasses.replace(
        ROUTER, decision=dataclasses.replace(DECISION, **changes)
    )


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def recursed(router, params, x, agents=None, memory=None, **options):
    begun = trajectory.initialize(x, None, memory)[1]
    return recursive.recurse(router, params, x, begun, agents, **options)[:2]


def loop(router, params, x, agents, forced, memory):
    """Do the same by hand, without the activation's rule for masked samples."""
    taken = trajectory.initialize(x, None, memory)[1]
    active, value, own = np.ones(len(x), bool), x, params["modules"]
    for number, row in enumerate(forced):
        _, taken, action = decisions.decide(
            router.decision,
            params["routing"]["stop"],
            value,
            taken,
            agents,
            mask=jnp.asarray(active),
            forced=jnp.asarray(row),
        )
        active = active & (row > 0)
        given = jax.nn.relu(value) if number else value
        moved = jnp.einsum("bi,bio->bo", given, own["kernel"][row - 1])
        moved = moved + own["bias"][row - 1]
        value = jnp.where(active[:, None], moved, value)
    return value, taken


def fields(taken):
    names = ("mask", "action", "agent", "exploratory")
    return {name: trajectory.gathered(taken, name) for name in names}


def test_it_is_a_loop_of_decisions_and_modules():
    router = other(agents=2, reward=Reward("running_average", window=5))
    agents, x = jnp.array([0, 1, 1, 0, 1]), draw(BATCH, WIDTH)

    @quick
    def run():
        params, memory = recursive.init(jax.random.key(0), router)
        found = recursed(router, params, x, agents, memory, forced=jnp.asarray(FORCED))
        return found, loop(router, params, x, agents, FORCED, memory)

    (found, taken), (expected, looped) = run()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(found[0], x[0])
    for ours, theirs in (
        (fields(taken), fields(looped)),
        (taken.memory, looped.memory),
        (
            taken.steps[0].statistics["logp"],
            jnp.concatenate([s.statistics["logp"] for s in looped.steps]),
        ),
    ):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, theirs
        )
    np.testing.assert_array_equal(np.sum(trajectory.masks(taken), 0), [1, 2, 3, 2, 3])
    assert taken.steps[0].positions == (0, 1, 2)


def test_samples_left_out_stay_and_cost_nothing():
    x, mask = draw(BATCH, WIDTH), jnp.array([1, 0, 1, 0, 1], bool)

    @quick
    def run():
        params = recursive.init(jax.random.key(0), ROUTER).params
        found, taken = recursed(
            ROUTER, params, x, mask=mask, train=True, key=jax.random.key(3)
        )
        return found, losses.routing_loss(params["routing"], taken, -jnp.ones(BATCH))

    found, cost = run()
    np.testing.assert_array_equal(found[~mask], x[~mask])
    np.testing.assert_array_equal(cost.routing != 0, mask)


# One that looks ahead and one that does not; each takes a second to compile.
FAST = ("sarsa", "egreedy_aac")


@pytest.mark.parametrize(
    "name",
    [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in ALGORITHMS],
)
def test_every_algorithm_learns_and_knows_where_a_sample_stopped(name):
    x, target = draw(BATCH, WIDTH), draw(BATCH, WIDTH, seed=1)
    made = other(algorithm=name)

    def cost(params, memory, depth):
        router = dataclasses.replace(made, depth=depth)
        options = {"train": True, "key": jax.random.key(1)}
        forced = jnp.asarray(FORCED[:depth])
        y, taken = recursed(router, params, x, memory=memory, forced=forced, **options)
        found = losses.total(params["routing"], taken, y, target)
        return jnp.mean(found.module) + jnp.mean(found.routing), found.routing

    @quick
    def run():
        params, memory = recursive.init(jax.random.key(0), made)
        grads, routing = jax.grad(cost, has_aux=True)(params, memory, DEPTH)
        return grads["routing"], routing, cost(params, memory, 1)[1]

    grads, whole, first = run()
    sizes = [float(jnp.sum(g**2)) for g in jax.tree.leaves(grads)]
    assert np.isfinite(sizes).all() and min(sizes) > 0
    if name not in ("relax", "gumbel"):
        assert whole[0] != 0
        # The first sample stops at once, whatever could have followed.
        np.testing.assert_allclose(whole[0], first[0], rtol=1e-5)


def test_to_stop_is_learnt_like_any_other_choice():
    router = dataclasses.replace(
        other(agents=2, storage="tabular"), activation="none", depth=2
    )
    # Modules double. The first agent's samples are to stay as they are, the second's
    # to be doubled twice.
    modules = {"kernel": jnp.stack([2 * jnp.eye(WIDTH)] * K), "bias": jnp.zeros((K, 3))}
    agents = jnp.arange(32) % 2
    x = 1 + jnp.abs(draw(32, WIDTH))
    target = x * (1 + 3 * agents[:, None])
    params = quick(lambda: recursive.init(jax.random.key(0), router).params)()
    optimizer = optax.adam(0.1)

    def cost(routing, key):
        own = {"routing": routing, "modules": modules}
        y, taken = recursed(router, own, x, agents, train=True, key=key)
        distance = jnp.sum(jnp.abs(jnp.log2(y / target)), -1)
        found = losses.routing_loss(routing, taken, -distance)
        return jnp.mean(found.routing)

    @quick
    def learn(routing):
        def update(carry, key):
            routing, state = carry
            changes, state = optimizer.update(jax.grad(cost)(routing, key), state)
            return (optax.apply_updates(routing, changes), state), None

        carry = routing, optimizer.init(routing)
        keys = jax.random.split(jax.random.key(1), 100)
        (routing, _), _ = jax.lax.scan(update, carry, keys)
        return trajectory.actions(
            recursed(router, {"routing": routing, "modules": modules}, x, agents)[1]
        )

    actions = learn(params["routing"])
    assert not np.any(actions[:, ::2])
    assert np.all(actions[:, 1::2])


def test_all_modules_and_the_stop_share_a_full_gradient():
    router = other(algorithm="gumbel", mode="full")
    x = draw(BATCH, WIDTH)

    @quick
    def run():
        params = recursive.init(jax.random.key(0), router).params

        def cost(params, router):
            options = {"train": True, "forced": jnp.asarray(FORCED)}
            y, after = recursed(router, params, x, key=jax.random.key(1), **options)
            return jnp.sum(y**2), (y, after)

        grads, (y, after) = jax.grad(cost, has_aux=True)(params, router)
        return (grads, y), cost(params, other())[1][0], after

    (grads, y), expected, after = run()
    np.testing.assert_allclose(y, expected, atol=1e-6)
    # Later selections do not know of them.
    assert "weights" not in after.steps[0].statistics
    assert np.any(grads["routing"]["stop"]["policy"]["layer0"]["kernel"])


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"depth": 0}, "depth"),
        ({"activation": "rellu"}, "Did you mean 'relu'"),
        ({"modules": linear_modules(K + 1, WIDTH, WIDTH)}, "and 0 to stop"),
        ({"modules": linear_modules(K, WIDTH, WIDTH, name="stop")}, "modules.name"),
    ),
)
def test_settings_that_make_no_router(changes, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(ROUTER, **changes)


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"forced": jnp.full((DEPTH, BATCH), K + 1)}, "forced: got 3"),
        ({"forced": jnp.asarray(FORCED[:2])}, "a row for each call"),
        ({"mask": jnp.zeros(BATCH, bool)}, "at least one"),
        ({"agents": jnp.array([0, 1, 2, 0, 0])}, "actions: got 2"),
        ({"agents": None}, "the agent of each sample"),
        ({"mask": jnp.ones(BATCH - 1, bool)}, "mask: .*5 numbers"),
        ({"noise": jnp.ones((2, BATCH, K + 1))}, "noise: .*3 rows, one for each call"),
    ),
)
def test_calls_that_make_no_sense(options, message):
    router = other(agents=2)
    made = jax.eval_shape(lambda: recursive.init(jax.random.key(0), router).params)
    params = jax.tree.map(lambda a: jnp.zeros(a.shape), made)
    options = {"agents": jnp.zeros(BATCH, jnp.int32), **options}
    with pytest.raises(UsageError, match=message):
        recursed(router, params, draw(BATCH, WIDTH), **options)


def test_modules_keep_the_width():
    router = dataclasses.replace(ROUTER, modules=linear_modules(K, WIDTH, WIDTH + 1))
    params = recursive.init(jax.random.key(0), router).params
    with pytest.raises(UsageError, match=r"modules: .*\(4,\).* expected \(3,\)"):
        recursed(router, params, draw(BATCH, WIDTH))


def test_forced_actions_and_agents_of_samples_left_out_may_be_anything():
    router = other(agents=2)
    mask = jnp.arange(BATCH) > 1
    forced = jnp.where(mask[None], FORCED, -1)
    agents = jnp.where(mask, 1, 7)

    x = draw(BATCH, WIDTH)

    def run(**options):
        def one(key):
            params = recursive.init(key, router).params
            return recursed(router, params, x, **options)[0]

        return jax.eval_shape(one, jax.random.key(0)).shape

    assert run(agents=agents, mask=mask, forced=forced) == x.shape
    with pytest.raises(UsageError, match="forced: got -1"):
        run(agents=agents % 2, mask=mask.at[0].set(True), forced=forced)
