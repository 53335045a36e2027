"""The two losses: where their gradients go, which steps they see, what they refuse."""

import dataclasses

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from multipath.routing_networks import decision as decisions
from multipath.routing_networks import losses, trajectory
from multipath.routing_networks.decision import Decision, decide
from multipath.routing_networks.losses import Objective
from multipath.routing_networks.rewards import Reward
from multipath.routing_networks.trajectory import Trajectory
from shared.errors import UsageError
from tests.quick import quick

BATCH, FEATURES, ACTIONS = 5, 4, 3
FIRST = Decision(
    "first",
    "reinforce_bl1",
    ACTIONS,
    FEATURES,
    reward=Reward("manual", table=(0.1, 0.2, 0.3)),
)
LABELS = jnp.array([0, 2, 1, 3, 0])


def _inputs(seed=0):
    values = np.random.default_rng(seed).normal(size=(BATCH, FEATURES))
    return jnp.asarray(values, jnp.float32)


def _forced(seed, steps=2):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.integers(ACTIONS, size=(steps, BATCH)), jnp.int32)


def _variables(*chosen):
    @quick
    def init(key):
        keys = jax.random.split(key, len(chosen) + 1)
        shape = (ACTIONS, FEATURES, FEATURES)
        params = {
            "routing": {
                d.name: decisions.init(k, d).params
                for d, k in zip(chosen, keys, strict=False)
            },
            "modules": 0.5 * jax.random.normal(keys[-1], shape),
        }
        return params

    return init(jax.random.key(0))


def _forward(params, chosen, x, forced, masks=None):
    """Send samples through a decision and a map for each of some steps."""
    x, record, actions = trajectory.initialize(x)
    for i, decision in enumerate(chosen):
        mask = None if masks is None else masks[i]
        own = params["routing"][decision.name]
        x, record, actions = decide(
            decision, own, x, record, None, mask=mask, forced=forced[i]
        )
        moved = jnp.einsum("bi,bio->bo", x, params["modules"][actions])
        x = moved if mask is None else jnp.where(mask[:, None], moved, x)
    return x, record


def _losses(params, chosen, x, forced, masks=None, y=LABELS, **options):
    x, record = _forward(params, chosen, x, forced, masks)
    return losses.total(params["routing"], record, x, y, **options)


def test_each_loss_moves_its_own_group_alone():
    second = dataclasses.replace(FIRST, name="second", algorithm="aac")
    chosen, x, forced = (FIRST, second), _inputs(), _forced(0) % 2

    @quick
    def run(params):
        both = lambda params: tuple(
            part.sum() for part in _losses(params, chosen, x, forced)[:2]
        )
        return jax.jacrev(both)(params)

    module, routing = run(_variables(*chosen))
    some = lambda tree: any(np.any(leaf) for leaf in jax.tree.leaves(tree))
    assert some(module["modules"]) and not some(module["routing"])
    assert some(routing["routing"]) and not some(routing["modules"])
    # A module that nobody chose does not move.
    assert not np.any(module["modules"][2])


def test_rewards_are_constants_and_without_a_detour_decisions_teach_the_modules():
    open_ = dataclasses.replace(FIRST, name="second", detach=False)
    chosen, x, forced = (FIRST, open_), _inputs(), _forced(1)

    @quick
    def run(params):
        def rewards(params):
            out, record = _forward(params, chosen, x, forced)
            final = out.sum(1)
            return losses.routing_loss(params["routing"], record, final).rewards.sum()

        routing = lambda params: _losses(params, chosen, x, forced).routing.sum()
        return jax.grad(rewards)(params), jax.grad(routing)(params)["modules"]

    rewards, modules = run(_variables(*chosen))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(rewards))
    assert np.any(modules)


def test_masked_steps_change_nothing_and_the_batch_may_be_permuted():
    chosen, x, forced = (FIRST, FIRST), _inputs(), _forced(2)
    masks = jnp.array([[1, 1, 1, 0, 1], [1, 0, 1, 0, 1]], bool)
    order = jnp.array([3, 1, 4, 0, 2])

    @quick
    def run(params):
        turned = (x[order], forced[:, order], masks[:, order])
        other = jnp.where(masks, forced, (forced + 1) % ACTIONS)
        permuted = _losses(params, chosen, *turned, LABELS[order])
        return (
            _losses(params, chosen, x, forced, masks),
            _losses(params, chosen, x, other, masks),
            permuted,
        )

    plain, other, permuted = run(_variables(FIRST))
    for a, b in zip(plain[:5], other[:5], strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(plain[:5], permuted[:5], strict=True):
        np.testing.assert_allclose(np.asarray(a)[..., order], b, rtol=1e-5, atol=1e-6)
    assert plain.routing[3] == 0 and plain.rewards[:, 3].tolist() == [0, 0]
    assert plain.final[3] == -plain.module[3]


def test_scanned_steps_cost_the_same_as_steps_in_turn():
    decision = dataclasses.replace(FIRST, algorithm="aac", compat=True)
    params, x, forced = _variables(decision), _inputs(), _forced(3, 3)

    @quick
    def run(params):
        def body(x, actions):
            x, record = _forward(params, (decision,), x, actions[None])
            return x, record.steps[0]

        out, steps = lax.scan(body, x, forced)
        steps = jax.tree.map(lambda a: a[:, 0], steps)
        steps = dataclasses.replace(steps, positions=(0, 1, 2))
        record = Trajectory(None, (steps,), {})
        scanned = losses.total(params["routing"], record, out, LABELS)
        return scanned, _losses(params, (decision,) * 3, x, forced)

    scanned, turned = run(params)
    for one, other in zip(scanned[:5], turned[:5], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_without_steps_there_is_no_routing_loss():
    x, record, _ = trajectory.initialize(_inputs(), jnp.arange(BATCH))
    found = losses.total({}, record, x, LABELS)
    assert not found.routing.any() and found.rewards.shape == (0, BATCH)
    assert found.module.all()


def test_losses_of_samples():
    rng = np.random.default_rng(4)
    scores = rng.normal(size=(BATCH, FEATURES)).astype(np.float32)
    targets = np.eye(FEATURES, dtype=np.float32)[np.asarray(LABELS)]
    outputs, empty = jnp.asarray(scores), Trajectory(None, (), {})
    squared = ((scores - targets) ** 2).sum(1)
    for y in (LABELS, jnp.asarray(targets)):
        found = losses.total({}, empty, outputs, y)
        np.testing.assert_allclose(found.module, squared, rtol=1e-5)
        np.testing.assert_allclose(found.final, -squared, rtol=1e-5)
    logp = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    right = np.where(scores.argmax(1) == np.asarray(LABELS), 2.0, -2.0)
    objective = Objective("cross_entropy", "correct", scale=2.0)
    found = losses.total({}, empty, outputs, LABELS, objective=objective)
    np.testing.assert_allclose(found.module, -(logp * targets).sum(1), rtol=1e-5)
    np.testing.assert_array_equal(found.final, right)
    external = jnp.ones((BATCH, 2, 3))
    found = losses.total({}, empty, outputs, external=external)
    np.testing.assert_array_equal(found.module, np.full(BATCH, 6.0))
    both = losses.total(
        {}, empty, outputs, LABELS, objective=objective, external=external
    )
    np.testing.assert_array_equal(both.module, np.full(BATCH, 6.0))
    np.testing.assert_array_equal(both.final, right)


def test_the_memory_comes_back_and_begins_anew_if_told():
    shared = Reward("collaboration", window=8)
    chosen = (dataclasses.replace(FIRST, reward=shared),)
    params = _variables(*chosen)

    def run(clear):
        objective = Objective(clear=clear)
        found = _losses(params, chosen, _inputs(), _forced(5), objective=objective)
        return found.memory["first"]["history"].counts.sum()

    kept, cleared = quick(lambda: (run(False), run(True)))()
    assert (kept, cleared) == (BATCH, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"y": LABELS[1:]}, "y: .*5 rows"),
        ({"y": jnp.ones((BATCH, 3))}, "y: .*labels or shape"),
        ({"y": None}, "y: got None, expected labels or targets"),
        ({"y": LABELS + 1}, "y: got 4, expected integers from 0 to 3"),
        ({"y": LABELS - 1}, "y: got -1, expected integers from 0 to 3"),
        (
            {"outputs": jnp.ones((BATCH, 1))},
            "y: got 'labels.*since there is one output",
        ),
        ({"external": jnp.ones(4)}, "external: .*5 rows"),
        (
            {
                "y": None,
                "external": jnp.ones(BATCH),
                "objective": Objective(final="correct"),
            },
            "y: got None, expected an array",
        ),
    ),
)
def test_bad_targets(options, message):
    _, record, _ = trajectory.initialize(_inputs())
    with pytest.raises(UsageError, match=message):
        losses.total({}, record, **{"outputs": _inputs(), "y": LABELS, **options})


def test_bad_trajectories_and_objectives():
    other = dataclasses.replace(FIRST, algorithm="sarsa")
    params, forced = _variables(FIRST), _forced(6)
    shape = lambda chosen, **options: jax.eval_shape(
        lambda: _losses(params, chosen, _inputs(), forced, **options)
    )
    with pytest.raises(UsageError, match="name: got 'first'"):
        shape((FIRST, other))
    _, record = _forward(params, (FIRST,), _inputs(), forced)
    with pytest.raises(UsageError, match="those of 'first' among them"):
        losses.routing_loss({}, record, jnp.ones(BATCH))
    with pytest.raises(UsageError, match="final: .*5 numbers"):
        losses.routing_loss(params["routing"], record, jnp.ones(4))
    with pytest.raises(UsageError, match="Did you mean 'squared'"):
        Objective("square")
    with pytest.raises(UsageError, match="Did you mean 'squared'"):
        losses.module_loss(_inputs(), LABELS, kind="sqared")
    with pytest.raises(UsageError, match="gamma: got 2"):
        Objective(gamma=2)
