"""Decisions: who acts, what is recorded, how actions are drawn, where gradients go."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from multipath.routing_networks import decision as decisions
from multipath.routing_networks import rewards, storage, trajectory
from multipath.routing_networks.algorithms import acting
from multipath.routing_networks.decision import Decision, decide
from multipath.routing_networks.rewards import Reward
from shared.errors import UsageError
from shared.model import Model, Variables
from tests.quick import quick

BATCH, FEATURES, ACTIONS = 6, 4, 3
ONE = Decision("one", "reinforce", ACTIONS, FEATURES)
SHARED = Reward("collaboration", window=8)


def _inputs(seed=0, features=FEATURES):
    values = np.random.default_rng(seed).normal(size=(BATCH, features))
    return jnp.asarray(values, jnp.float32)


def _call(decision, params, x, actions=None, memory=None, **options):
    _, start, _ = trajectory.initialize(x, None, memory)
    return decide(decision, params, x, start, actions, **options)


_run = quick(_call, static_argnames=("decision", "train"))


@functools.cache
def _params(decision):
    return quick(decisions.init, static_argnums=1)(jax.random.key(0), decision).params


def test_masked_samples_leave_no_trace():
    decision = dataclasses.replace(ONE, reward=SHARED)
    mask = jnp.array([1, 0, 1, 1, 0, 0], bool)
    forced = jnp.array([2, 9, 1, 2, -1, 1])
    x = _inputs()
    out, after, action = _run(decision, _params(decision), x, mask=mask, forced=forced)
    steps = after.steps[0]
    assert not steps.always
    np.testing.assert_array_equal(out, x)
    np.testing.assert_array_equal(action, [2, 0, 1, 2, 0, 0])
    np.testing.assert_array_equal(steps.action[0], action)
    assert not np.any(steps.exploratory[0] & ~mask)
    counts = after.memory["one"]["history"].counts
    np.testing.assert_array_equal(counts, [0, 1, 2])


def test_one_agent_that_is_told_the_task_decides_by_it():
    told = dataclasses.replace(ONE, tasks=2)
    layer = _params(told)["policy"]["layer0"]
    # To task 1 belongs module 1, to task 0 module 2.
    kernel = jnp.zeros_like(layer["kernel"]).at[:, -1, 1].set(1).at[:, -2, 2].set(1)
    params = {"policy": {"layer0": {**layer, "kernel": kernel}}}
    x = jnp.zeros((BATCH, FEATURES))
    tasks = jnp.arange(BATCH) % 2
    _, start, _ = trajectory.initialize(x, tasks)
    out, _, action = decide(told, params, x, start, None)
    assert out.shape == x.shape
    np.testing.assert_array_equal(action, 2 - tasks)
    with pytest.raises(UsageError, match="tasks"):
        _call(told, params, x)
    _, start, _ = trajectory.initialize(x, jnp.full(BATCH, 2))
    with pytest.raises(UsageError, match="tasks"):
        decide(told, params, x, start, None)
    with pytest.raises(UsageError, match="tables"):
        dataclasses.replace(told, storage="tabular")


def test_evaluation_registers_actions_only_if_wanted():
    x, never = _inputs(), dataclasses.replace(SHARED, in_eval=False)
    for reward, train, seen in (
        (SHARED, False, 6),
        (never, False, 0),
        (never, True, 6),
    ):
        decision = dataclasses.replace(ONE, reward=reward)
        state = quick(decisions.init, static_argnums=1)(jax.random.key(0), decision)
        forced = jnp.zeros(BATCH, jnp.int32)
        _, after, _ = _run(
            decision,
            state.params,
            x,
            None,
            {"one": state.state},
            train=train,
            forced=forced,
        )
        assert after.memory["one"]["history"].counts.sum() == seen


def test_decisions_may_share_one_history():
    first = dataclasses.replace(ONE, reward=SHARED)
    second = dataclasses.replace(first, name="two", history="one")
    x, forced = _inputs(), jnp.ones(BATCH, jnp.int32)

    @quick
    def run(params):
        _, after, _ = _call(first, params, x, forced=forced)
        _, after, _ = decide(second, params, x, after, None, forced=forced)
        return after.memory, decisions.init(jax.random.key(0), second).state

    memory, begun = run(_params(ONE))
    assert set(memory) == {"one"} and begun == {}
    # The window holds 8 of the 12 actions.
    np.testing.assert_array_equal(memory["one"]["history"].counts, [0, 8, 0])
    for kind in rewards.REMEMBERING:
        reward = Reward(kind, window=8)
        third = dataclasses.replace(second, actions=2, reward=reward)
        begun = {"one": {"history": rewards.init(reward, ACTIONS)}}
        with pytest.raises(UsageError, match="'one', 3 actions\", expected one of 2"):
            decisions.remembered(third, begun)
        with pytest.raises(UsageError, match="history: got"):
            jax.eval_shape(lambda: _call(third, _params(ONE), x, None, begun))  # noqa: B023


def test_agents_with_equal_parameters_act_as_one():
    two = dataclasses.replace(ONE, agents=2, tie_init=True, hidden=(5,))
    params, x = _params(two), _inputs()
    alone = jax.tree.map(lambda leaf: leaf[:1], params)
    agent = jnp.array([0, 1, 1, 0, 1, 0])
    _, many, _ = _run(two, params, x, agent)
    single = dataclasses.replace(ONE, hidden=(5,))
    _, one, _ = _run(single, alone, x)
    np.testing.assert_allclose(
        many.steps[0].statistics["logp"], one.steps[0].statistics["logp"], rtol=1e-6
    )
    np.testing.assert_array_equal(many.steps[0].agent[0], agent)
    apart = _params(dataclasses.replace(two, tie_init=False))
    kernel = apart["policy"]["layer0"]["kernel"]
    assert not np.allclose(kernel[0], kernel[1])


@pytest.mark.parametrize("agents", (3, 11))
def test_each_sample_hears_its_own_agent(agents):
    many = dataclasses.replace(ONE, agents=agents, hidden=(5,))
    params, x = _params(many)["policy"], _inputs()
    agent = np.arange(BATCH) % agents

    @quick
    def run(params):
        nobody = jnp.zeros(1, jnp.int32)
        own = [jax.tree.map(lambda leaf, a=a: leaf[a][None], params) for a in agent]
        each = [
            storage.evaluate(params, x[b][None], nobody)[0]
            for b, params in enumerate(own)
        ]
        return storage.evaluate(params, x, jnp.asarray(agent)), jnp.stack(each)

    np.testing.assert_allclose(*run(params), rtol=1e-5, atol=1e-6)


def test_tables_ignore_the_input_and_begin_level():
    table = dataclasses.replace(ONE, storage="tabular", agents=2)
    params = _params(table)
    np.testing.assert_allclose(params["policy"]["table"], 1 / ACTIONS)
    agent = jnp.array([0, 1, 0, 1, 0, 1])
    found = storage.evaluate({"table": jnp.arange(6.0).reshape(2, 3)}, _inputs(), agent)
    np.testing.assert_array_equal(found[:2], [[0, 1, 2], [3, 4, 5]])
    # Of equal scores the first is greedy.
    _, _, action = _run(table, params, _inputs(), agent)
    assert not action.any()


def test_a_network_of_ones_own_takes_the_place_of_layers():
    def apply(variables, x):
        return x.sum((1, 2))[:, None] * variables.params[None], ()

    init = lambda key: Variables(jax.random.normal(key, (ACTIONS,)))
    own = Decision(
        "own", "reinforce_bl1", ACTIONS, (2, 2), agents=2, network=Model(init, apply)
    )
    params = _params(own)
    # The values of actions are a second copy.
    assert params["policy"]["network"].shape == (2, ACTIONS)
    assert params["value"]["network"].shape == (2, ACTIONS)
    x, agent = _inputs().reshape(BATCH, 2, 2), jnp.arange(BATCH) % 2
    _, after, _ = _run(own, params, x, agent)
    q = params["value"]["network"][agent] * x.sum((1, 2))[:, None]
    np.testing.assert_allclose(after.steps[0].statistics["q"][0], q, rtol=1e-5)
    stateful = Model(lambda key: Variables(jnp.ones(1), jnp.ones(1)), apply)
    with pytest.raises(UsageError, match="a network without"):
        _params(dataclasses.replace(own, network=stateful))


@pytest.mark.parametrize("detach", (True, False))
def test_gradients_stop_at_the_input_if_detached(detach):
    decision = dataclasses.replace(ONE, detach=detach)

    def score(x, params):
        _, after, _ = _call(decision, params, x)
        return after.steps[0].statistics["logp"][0, :, 0].sum()

    below, own = quick(jax.grad(score, (0, 1)))(_inputs(), _params(decision))
    assert bool(np.any(below)) != detach
    assert any(np.any(leaf) for leaf in jax.tree.leaves(own))


def test_actions_are_drawn_as_the_probabilities_say():
    draws, epsilon = 40_000, 0.3
    table = {"policy": {"table": jnp.array([[0.0, 1.0, 0.5], [2.0, -1.0, 0.0]])}}
    agent = jnp.arange(draws) % 2
    names = "egreedy_reinforce", "qlearning", "reinforce"

    @quick
    def run(epsilon, key, agent):
        x, found = jnp.zeros((draws, 1)), {}
        for name in names:
            decision = Decision("d", name, ACTIONS, 1, storage="tabular", agents=2)
            options = {"train": True, "key": key, "exploration": epsilon}
            found[name] = _call(decision, table, x, agent, **options)[1].steps[0]
        policy = acting.behaviour(found[names[0]].statistics["logp"][0], 1.0)
        return found, policy

    found, policy = jax.tree.map(np.asarray, run(epsilon, jax.random.key(1), agent))
    mu, probs = (found[names[0]].statistics[name][0] for name in ("mu", "probs"))
    np.testing.assert_allclose(mu.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(policy, probs, rtol=1e-5)
    even = np.full(ACTIONS, epsilon / ACTIONS)
    greedy = np.array([1, 0])
    for a in range(2):
        by_value = even + (1 - epsilon) * np.eye(ACTIONS)[greedy[a]]
        for name, expected in zip(names, (mu[a], by_value, probs[a]), strict=True):
            taken = found[name].action[0, a::2]
            seen = np.bincount(taken, minlength=ACTIONS) / (draws / 2)
            np.testing.assert_allclose(seen, expected, atol=1e-2)
            away = found[name].exploratory[0, a::2]
            np.testing.assert_array_equal(away, taken != greedy[a])


def test_exploration_is_a_temperature_where_it_is_said_to_be():
    logits = jnp.array([[1.0, -1.0, 0.5]])
    x = jnp.zeros((1, 1))

    def logp(algorithm, exploration=None, **options):
        decision = Decision("d", algorithm, ACTIONS, 1, storage="tabular", **options)
        stores = {"policy": {"table": logits}, "value": {"table": logits}}
        _, after, _ = _run(decision, stores, x, exploration=exploration)
        return after.steps[0].statistics["logp"][0]

    plain, warm, cold = (jax.nn.log_softmax(logits / t) for t in (1, 2.08, 0.5))
    for found, expected in (
        (logp("reinforce", 0.2), plain),
        (logp("actor_critic", temper=True), plain),
        (logp("actor_critic", 0.2, temper=True), warm),
        (logp("reinforce", 0.2, temper=True, temperature=0.5), cold),
        (logp("aac", 0.2, temper=True), plain),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_published_flags_and_tripled_exploration():
    x, forced = _inputs(), jnp.array([0, 1, 2, 0, 1, 2])
    old = Decision("d", "egreedy_reinforce", ACTIONS, FEATURES, compat=True)
    _, after, _ = _run(old, _params(old), x, forced=forced, train=True, exploration=0.2)
    steps = after.steps[0]
    logp = np.asarray(steps.statistics["logp"][0])
    best = logp.argmax(-1)
    np.testing.assert_array_equal(steps.exploratory[0], forced == best)
    mu = np.asarray(steps.statistics["mu"][0])
    np.testing.assert_allclose(mu[np.arange(BATCH), best], 0.4, rtol=1e-5)


def test_tasks_and_nothing_in_the_place_of_decisions():
    x, tasks = _inputs(), jnp.arange(BATCH)
    start = trajectory.initialize(x, tasks)
    same, after, actions = decisions.per_task(*start)
    assert same is x and after.steps == ()
    np.testing.assert_array_equal(actions, tasks)
    assert not decisions.pass_through(*start)[2].any()
    with pytest.raises(UsageError, match="the task of each sample"):
        decisions.per_task(*trajectory.initialize(x))


def test_compiled_and_vectorised_calls_agree_with_plain_ones():
    decision = dataclasses.replace(ONE, agents=2, reward=SHARED)
    params, x = _params(dataclasses.replace(ONE, agents=2)), _inputs()
    agent, key = jnp.arange(BATCH) % 2, jax.random.key(3)
    run = lambda key: _call(decision, params, x, agent, train=True, key=key)
    both = quick(lambda key: (run(key), jax.vmap(run)(jax.random.split(key, 2))))
    plain, (compiled, many) = run(key), both(key)
    assert jax.tree.structure(plain) == jax.tree.structure(compiled)
    np.testing.assert_array_equal(compiled[2], plain[2])
    assert many[1].steps[0].action.shape == (2, 1, BATCH)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    (
        ({}, {"forced": jnp.array([0, 1, 2, 3, 0, 0])}, "forced: got 3, expected"),
        ({}, {"forced": jnp.zeros(5, jnp.int32)}, "forced: .*6 numbers"),
        ({}, {"mask": jnp.zeros(BATCH, bool)}, "mask: got 'no sample'"),
        ({}, {"mask": jnp.ones(5, bool)}, "mask: .*6 numbers"),
        ({}, {"train": True}, "key: got None"),
        ({}, {"x": _inputs(features=5)}, "x: got '5 features', expected 4"),
        ({"agents": 2}, {}, "actions: got None, expected the agent of each"),
        ({"agents": 2}, {"actions": jnp.arange(BATCH)}, "got 2, .*for each task or"),
        ({}, {"exploration": 5.0}, "exploration: got 5.0, expected a number >= 0"),
        ({"agents": 2}, {"actions": jnp.zeros(4, jnp.int32)}, "actions: .*6 numbers"),
    ),
)
def test_bad_calls(change, options, message):
    decision = dataclasses.replace(ONE, **change)
    options = {"x": _inputs(), **options}
    with pytest.raises(UsageError, match=message):
        _call(decision, _params(ONE), **options)


@pytest.mark.parametrize(
    ("change", "message"),
    (
        ({"algorithm": "reinforse"}, "Did you mean 'reinforce'"),
        ({"storage": "table"}, "Did you mean 'tabular'"),
        ({"mode": "ful"}, "Did you mean 'full'"),
        ({"actions": 0}, "actions: got 0"),
        ({"agents": 0}, "agents: got 0"),
        ({"exploration": 1.5}, "exploration: got 1.5"),
        ({"temperature": 0}, "temperature: got 0"),
        ({"storage": "tabular", "network": Model(id, id)}, "storage: got 'tabular'"),
    ),
)
def test_bad_settings(change, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(ONE, **change)


def test_a_table_of_rewards_has_one_for_each_action():
    decision = dataclasses.replace(ONE, reward=Reward("manual", table=(1.0, 2.0)))
    with pytest.raises(UsageError, match="3 rewards, one for each"):
        jax.eval_shape(lambda: decisions.init(jax.random.key(0), decision))
