"""Networks that translate commands through a router."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from multipath.routing_networks import commands, diagnostics, language
from multipath.routing_networks.decision import Decision
from multipath.routing_networks.losses import Objective
from multipath.routing_networks.network import count
from shared.data import scan
from shared.errors import UsageError
from shared.model import Variables
from tests.quick import quick

TEXTS = ("walk and jump", "walk after jump", "jump twice", "look", "turn left")
LONGEST, WIDTH, K = 2, 6, 2
ROUTED = language.Translator(
    Decision("router", "aac", K, 1, agents=3), width=WIDTH, depth=2
)


@pytest.fixture(scope="module")
def asked():
    return commands.batch(scan.encode(TEXTS), np.arange(len(TEXTS)), LONGEST)


def made():
    return language.network(ROUTED).init(jax.random.key(0))


def test_only_the_router_knows_the_conjunction(asked):
    both = jax.tree.map(lambda a: a[:2], asked.inputs)
    seeing = language.network(dataclasses.replace(ROUTED, blind=False))

    @quick
    def run():
        variables, tasks = made(), asked.tasks[:2]
        paths = jnp.array([[1, 1], [2, 2]]), jnp.array([[1, 2], [0, 0]])
        words = both._replace(before=both.before[:1].repeat(2, 0))
        found = [
            language.network(ROUTED).apply(variables, words, tasks, forced=f)[0]
            for f in paths
        ]
        return *found, seeing.apply(variables, words, tasks, forced=paths[0])[0]

    same, other, seen = run()
    np.testing.assert_array_equal(same[0], same[1])
    assert np.max(np.abs(other[0] - other[1])) > 1e-3
    assert np.max(np.abs(seen[0] - seen[1])) > 1e-3


def test_rows_right_by_the_reference_are_those_it_writes_alone(asked):
    net = language.network(ROUTED)

    @quick
    def run():
        variables = made()

        def write(t, before):
            inputs = asked.inputs._replace(before=before)
            outputs = net.apply(variables, inputs, asked.tasks)[0]
            written = jnp.argmax(outputs, -1).astype(before.dtype)
            return before.at[:, t + 1].set(written[:, t], mode="drop")

        before = jnp.full_like(asked.inputs.before, commands.END)
        before = jax.lax.fori_loop(0, LONGEST, write, before)
        inputs = asked.inputs._replace(before=before)
        outputs = net.apply(variables, inputs, asked.tasks)[0]
        written = jnp.argmax(outputs, -1)
        wrong = written.at[0, 0].add(1)
        return [language.right(outputs, t) for t in (written, wrong)]

    right, wrong = run()
    assert np.all(right)
    assert wrong.tolist() == [False, True, True, True, True]


def test_both_losses_reach_all_parameters(asked):
    net = language.network(ROUTED)

    @quick
    def run():
        params, state = made()

        def cost(params):
            variables = Variables(params, state)
            options = {"train": True, "key": jax.random.key(1)}
            outputs, taken, _ = net.apply(
                variables, asked.inputs, asked.tasks, **options
            )
            found = language.total(
                params["routing"],
                taken,
                outputs,
                asked.targets,
                objective=Objective(final="correct"),
            )
            return jnp.mean(found.module) + jnp.mean(found.routing), found

        grads, found = jax.grad(cost, has_aux=True)(params)
        return grads, found, state

    grads, found, state = run()
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.any(leaf), path
    # Nobody is right by chance in the first pass.
    assert found.final.tolist() == [-1.0] * len(TEXTS)
    assert set(state) == {"memory", "trunk"}


def test_a_loss_is_the_mean_over_symbols(asked):
    zeros = jnp.zeros((len(TEXTS), LONGEST + 1, commands.SYMBOLS))
    even = quick(language.loss)(zeros, asked.targets)
    np.testing.assert_allclose(even, math.log(7), rtol=1e-6)
    sure = 100.0 * jax.nn.one_hot(asked.targets, commands.SYMBOLS)
    assert np.max(quick(language.loss)(sure, asked.targets)) < 1e-6


def test_the_net_without_routing_has_as_many_parameters():
    for translator in (ROUTED, dataclasses.replace(ROUTED, width=64, depth=3)):
        plain = language.unrouted(translator)
        routed, fixed = (count(language.network(t)) for t in (translator, plain))
        assert abs(fixed - routed) <= translator.width + 1
        assert not language.network(plain).decisions


def test_groups_are_measured_over_whole_sets(asked):
    actions = jnp.array([[0, 1, 2, 1, 2], [0, 1, 1, 0, 2]])
    outputs = jax.nn.one_hot(asked.targets, commands.SYMBOLS).at[3, 0].set(0)
    net = language.network(ROUTED)

    @quick
    def measured(rows):
        part = jax.tree.map(lambda a: a[rows], asked)
        forced = actions[:, rows]
        taken = net.apply(made(), part.inputs, part.tasks, forced=forced)[1]
        return language.measure(outputs[rows], part, taken)

    whole = language.finish(measured(np.arange(4)))
    halves = [measured(np.arange(2) + i) for i in (0, 2)]
    again = language.finish(jax.tree.map(lambda *a: sum(a) / 2, *halves))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), whole, again)
    assert float(whole["accuracy"]) == 0.75
    assert whole["tasks/accuracy"] == pytest.approx([0.5, 1.0, 1.0])
    assert whole["tasks/depth"] == pytest.approx([1.5, 0.0, 2.0])
    twice = commands.MARKS.index("twice")
    assert whole["marks/depth"][twice] == pytest.approx(2.0)
    assert whole["marks/routes"][twice][0] == pytest.approx([0.0, 0.0, 1.0])
    assert whole["lengths/accuracy"][0] == pytest.approx(0.75)
    assert diagnostics.finish(whole).keys() == whole.keys()


@pytest.mark.parametrize(
    ("make", "message"),
    (
        (lambda: language.Translator(None), "hidden"),
        (lambda: dataclasses.replace(ROUTED, depth=0), "depth"),
        (
            lambda: language.Translator(Decision("r", "aac", K, 1, agents=2)),
            "one for each task",
        ),
    ),
)
def test_settings_that_make_no_sense(make, message):
    with pytest.raises(UsageError, match=message):
        make()
