"""Chains of layers are the same as calling each by hand."""

import dataclasses

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from multipath.routing_networks import decision as decisions
from multipath.routing_networks import trajectory
from multipath.routing_networks.decision import Decision
from multipath.routing_networks.rewards import Reward
from multipath.routing_networks.selection import Selection, linear_modules, select
from multipath.routing_networks.sequential import sequential
from shared.errors import UsageError
from shared.model import Model, Variables
from tests.quick import quick

BATCH, FEATURES, HIDDEN = 6, 4, 5
TASKS = jnp.array([0, 1, 2, 1, 0, 2])
FIRST = Decision(
    "first", "actor_critic", 2, FEATURES, agents=3, reward=Reward("collaboration")
)
SECOND = Decision("second", "aac", 3, HIDDEN, agents=2)


def _counting():
    """Return a model that counts its training passes and adds the count."""

    def apply(variables, x, *, train=False, key=None):
        count = variables.state + jnp.float32(train)
        return x * variables.params + count, count

    return Model(lambda key: Variables(jnp.float32(2), jnp.float32(0)), apply)


TASK = "per_task"
LAYERS = (
    ("per_task", None),
    ("decision", FIRST),
    ("selection", linear_modules(2, FEATURES, HIDDEN)),
    ("function", jnp.tanh),
    ("model", _counting()),
    ("decision", SECOND),
    ("selection", linear_modules(3, HIDDEN, 2)),
)


def _inputs():
    values = np.random.default_rng(0).normal(size=(BATCH, FEATURES))
    return jnp.asarray(values, jnp.float32)


def test_a_chain_is_its_layers_in_turn():
    network, x = sequential(LAYERS), _inputs()
    assert network.decisions == (FIRST, SECOND)

    @quick
    def run(key):
        variables = network.init(key)
        routing, modules = variables.params["routing"], variables.params["modules"]
        step = trajectory.initialize(x, TASKS, variables.state["memory"])
        step = decisions.per_task(*step)
        forced = jnp.array([[0, 1, 1, 0, 1, 1], [2, 1, 0, 0, 1, 2]])
        step = decisions.decide(FIRST, routing["first"], *step, forced=forced[0])
        h, record, actions = select(LAYERS[2][1], modules["layer2"], *step)
        h = 2 * jnp.tanh(h) + 1
        # The agents of the second decision are the actions of the first.
        step = decisions.decide(
            SECOND, routing["second"], h, record, actions, forced=forced[1]
        )
        expected = select(LAYERS[6][1], modules["layer6"], *step)
        found = network.apply(variables, x, TASKS, train=True, forced=forced)
        return found, expected, variables

    (out, record, state), (expected, other, _), variables = run(jax.random.key(0))
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    assert jax.tree.structure(record) == jax.tree.structure(other)
    for one, two in zip(jax.tree.leaves(record), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)
    np.testing.assert_array_equal(record.steps[0].agent[0], TASKS)
    np.testing.assert_array_equal(record.steps[1].agent[0], record.steps[0].action[0])
    assert state["trunk"] == {"layer4": 1}
    assert state["memory"]["first"]["history"].counts.sum() == BATCH
    assert set(variables.params["modules"]) == {"layer2", "layer4", "layer6"}
    assert jax.tree.structure(variables.state) == jax.tree.structure(state)


def test_a_dispatcher_chooses_the_agents_of_all_that_follow():
    dispatcher = Decision("dispatcher", "reinforce", 2, FEATURES)
    later = [
        dataclasses.replace(FIRST, name=name, agents=2, actions=3) for name in "ab"
    ]
    layers = [("decision", dispatcher), ("dispatch", None)]
    layers += [("decision", decision) for decision in later]
    network = sequential(layers)

    @quick
    def run(key):
        options = {"train": True, "key": key, "exploration": 0.1}
        return network.apply(network.init(key), _inputs(), **options)[1]

    taken = run(jax.random.key(1)).steps
    assert set(np.asarray(taken[0].action[0])) == {0, 1}
    for steps in taken[1:]:
        np.testing.assert_array_equal(steps.agent[0], taken[0].action[0])


@pytest.mark.parametrize(
    ("layer", "message"),
    (
        (("decison", FIRST), r"layers\[1\].*Did you mean 'decision'"),
        (("decision", LAYERS[2][1]), r"layers\[1\]: got 'Selection', expected a Dec"),
        (("selection", FIRST), r"layers\[1\]: got 'Decision', expected a Selection"),
        (("model", jnp.tanh), r"layers\[1\].*expected a Model"),
        (("function", 3), r"layers\[1\]: got 3, expected a function"),
    ),
)
def test_bad_layers(layer, message):
    with pytest.raises(UsageError, match=message):
        sequential([("per_task", None), layer])


WIDE = Decision("wide", "reinforce", 4, FEATURES)
NORMS = Selection(_counting(), 4, name="norms")


@pytest.mark.parametrize(
    ("layers", "message"),
    (
        ([WIDE, SECOND], r"layers\[1\]: got '2 agents', expected 4, one for each act"),
        ([WIDE, None, SECOND], r"layers\[2\]: got '2 agents', expected 4"),
        ([WIDE, None, TASK, SECOND], r"layers\[3\]: got '2 agents', expected 4"),
        ([WIDE, LAYERS[2][1]], r"layers\[1\]: got '2 modules', expected 4"),
        (
            [WIDE, dataclasses.replace(WIDE, hidden=(2,))],
            r"layers\[1\].name: got 'wide'",
        ),
        (
            [WIDE, dataclasses.replace(NORMS, name="wide")],
            r"layers\[1\].name: got 'wide",
        ),
        ([WIDE, NORMS, NORMS], r"layers\[2\].name: got 'norms', expected one that"),
    ),
)
def test_layers_that_do_not_fit_together(layers, message):
    kinds = {Decision: "decision", Selection: "selection", type(None): "dispatch"}
    pairs = [
        (kinds[type(layer)], layer) if layer is not TASK else (TASK, None)
        for layer in layers
    ]
    with pytest.raises(UsageError, match=message):
        sequential(pairs)


def test_a_decision_may_be_taken_again_and_tasks_may_be_any():
    one = dataclasses.replace(WIDE, agents=2)
    layers = [(TASK, None), ("decision", one), (TASK, None), ("decision", one)]
    assert sequential([*layers, ("pass_through", None), LAYERS[2]]).decisions == (one,)


def test_bad_calls():
    network = sequential(LAYERS)
    shaped = lambda **options: jax.eval_shape(
        lambda key: network.apply(network.init(key), _inputs(), **options),
        jax.random.key(0),
    )
    with pytest.raises(UsageError, match="forced: got '1 rows', expected 2 rows"):
        shaped(tasks=TASKS, forced=jnp.zeros((1, BATCH), jnp.int32))
    with pytest.raises(UsageError, match="the task of each sample"):
        shaped()
    with pytest.raises(UsageError, match="a layer before it that gives actions"):
        sequential(LAYERS[2:])
    first = sequential(LAYERS[:2])
    with pytest.raises(
        UsageError, match="actions: got 3, expected integers from 0 to 2"
    ):
        first.apply(quick(first.init)(jax.random.key(0)), _inputs(), TASKS + 1)
