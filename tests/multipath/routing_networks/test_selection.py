"""Properties of selections: each sample goes through its own module, by any way."""

import dataclasses
import functools

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax import numpy as jnp

from multipath.routing_networks import grouping, selection, ways
from multipath.routing_networks.decision import Decision, decide
from multipath.routing_networks.decision import init as init_decision
from multipath.routing_networks.selection import Selection, linear_modules
from multipath.routing_networks.trajectory import initialize
from shared.errors import UsageError
from shared.layers import norm
from shared.layers.linear import init_linear, linear
from shared.model import Model, Variables, from_linen
from tests.quick import quick

INPUTS, OUTPUTS = 4, 3


def perceptron(hidden, outputs=OUTPUTS):
    """Return a Model with one hidden layer."""

    def init(key):
        keys = jax.random.split(key)
        sizes = ((INPUTS, hidden), (hidden, outputs))
        dtype = jnp.result_type(float)
        return Variables(
            [init_linear(k, *s, dtype=dtype) for k, s in zip(keys, sizes, strict=True)]
        )

    def apply(variables, x, *, train=False, key=None):
        first, second = variables.params
        return linear(second, jnp.tanh(linear(first, x))), variables.state

    return Model(init, apply)


def normaliser():
    """Return a Model that normalises its batch."""
    init = lambda key: norm.init_batch_norm(INPUTS)

    def apply(variables, x, *, train=False, key=None):
        return norm.batch_norm(*variables, x, train=train, unbiased=False)

    return Model(init, apply)


UNEQUAL = (perceptron(5), perceptron(2), perceptron(3))
WAYS = ("gather", "grouped", "dense")


def _samples(batch, modules, seed=0):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(batch, INPUTS)), jnp.result_type(float))
    return x, jnp.asarray(rng.integers(0, modules, batch), jnp.int32)


def _alone(chosen, params, x, actions):
    """Return what each sample's module makes of it, one sample at a time."""
    rows = []
    for row, action in zip(x, np.asarray(actions), strict=True):
        if chosen.stacked:
            model, own = chosen.modules, jax.tree.map(lambda a: a[action], params)  # noqa: B023
        else:
            model, own = chosen.modules[action], params[action]
        rows.append(model.apply(Variables(own), row[None])[0][0])
    return jnp.stack(rows)


@pytest.mark.parametrize(
    ("chosen", "batch", "ways"),
    [
        (linear_modules(3, INPUTS, OUTPUTS), 40, WAYS),
        (Selection(perceptron(2), 7), 5, WAYS),
        (Selection(UNEQUAL[:2]), 20, ("grouped", "dense")),
    ],
)
def test_all_ways_agree_with_each_sample_alone(chosen, batch, ways):
    with jax.enable_x64(True):
        params = selection.init(jax.random.key(0), chosen).params
        x, actions = _samples(batch, chosen.size)
        mask = jnp.asarray(np.random.default_rng(1).random(batch) < 0.6)
        everywhere = jnp.ones_like(mask)
        crowded = jnp.full_like(actions, chosen.size - 1)

        @functools.partial(quick, static_argnums=0)
        def run(way, params, x, actions, mask):
            made = dataclasses.replace(chosen, how=way)
            apply = lambda params, x: selection.apply(
                made, Variables(params), x, actions, mask=mask
            )[0]
            y, pull = jax.vjp(apply, params, x)
            return y, pull(jnp.sin(y))

        found = {}
        for name, row in {
            "even": (actions, everywhere),
            "crowded": (crowded, everywhere),
            "masked": (actions, mask),
        }.items():
            first = run(ways[0], params, x, *row)
            for way in ways[1:]:
                other = run(way, params, x, *row)
                for a, b in zip(*map(jax.tree.leaves, (first, other)), strict=True):
                    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
            found[name] = first
        expected = _alone(chosen, params, x[:3], actions[:3])
        np.testing.assert_allclose(found["even"][0][:3], expected, rtol=1e-12)
        np.testing.assert_array_equal(found["masked"][0][~mask], 0)
        np.testing.assert_array_equal(found["masked"][1][1][~mask], 0)
        # Modules that nobody was sent to learn nothing.
        params_gradient = found["crowded"][1][0]
        idle = lambda a: a[: chosen.size - 1] if chosen.stacked else a
        idle = jax.tree.map(
            idle, params_gradient if chosen.stacked else params_gradient[:-1]
        )
        for leaf in jax.tree.leaves(idle):
            np.testing.assert_array_equal(leaf, 0)


def test_the_fastest_way_depends_on_the_sizes():
    assert [ways.best(count, 256) for count in (2, 8, 20, 64)] == (
        ["dense", "grouped", "grouped", "grouped"]
    )
    few = [ways.best(4, 10), ways.best(20, 10), ways.best(64, 64)]
    assert few == ["dense", "gather", "gather"]
    assert ways.best(20, 10, equal=False) == "dense"


def test_members_of_a_batch_of_programs_do_not_mix():
    # As in one program of several seeds; one of them sends everybody to one module.
    apart, sorted_ = (
        linear_modules(4, INPUTS, OUTPUTS, how=how) for how in ("dense", "grouped")
    )
    params = jax.vmap(lambda k: selection.init(k, apart).params)(
        jax.random.split(jax.random.key(0))
    )
    x, actions = _samples(60, 4)
    actions = jnp.stack([actions, jnp.full_like(actions, 2)])

    @quick
    @jax.vmap
    def run(params, actions):
        def loss(params, chosen):
            y, _ = selection.apply(chosen, Variables(params), x, actions)
            return jnp.sum(y**2)

        return [jax.value_and_grad(loss)(params, c) for c in (apart, sorted_)]

    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    jax.tree.map(same, *run(params, actions))


def test_renamed_modules_make_no_difference(key):
    params = selection.init(key, linear_modules(3, INPUTS, OUTPUTS)).params
    x, actions = _samples(16, 3)
    order = jnp.array([2, 0, 1])

    @quick
    def run(params):
        moved = jax.tree.map(lambda a: a[order], params)
        found = []
        for how in WAYS:
            chosen = linear_modules(3, INPUTS, OUTPUTS, how=how)
            y, _ = selection.apply(chosen, Variables(params), x, actions)
            renamed = jnp.argsort(order)[actions]
            z, _ = selection.apply(chosen, Variables(moved), x, renamed)
            found.append((y, z))
        return found

    for y, z in run(params):
        np.testing.assert_allclose(y, z, rtol=1e-5, atol=1e-6)


def test_a_single_module_is_the_plain_layer(key):
    chosen = linear_modules(1, INPUTS, INPUTS, masked="identity")
    params = selection.init(key, chosen).params
    x, actions = _samples(6, 1)
    mask = np.arange(6) != 2

    def routed(params, x):
        variables = Variables(params)
        return selection.apply(chosen, variables, x, actions, mask=jnp.asarray(mask))[0]

    def plain(params, x):
        y = linear(jax.tree.map(lambda a: a[0], params), x)
        return y.at[2].set(x[2])

    @quick
    def run(params, x):
        found = [jax.vjp(fn, params, x) for fn in (routed, plain)]
        return [(y, pull(y)) for y, pull in found]

    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5)
    jax.tree.map(same, *run(params, x))


def test_images_go_through_modules_like_vectors():
    def apply(variables, x, *, train=False, key=None):
        return x * variables.params, variables.state

    init = lambda key: Variables(jax.random.normal(key, (1, 1, 1, 2)))
    chosen = Selection(Model(init, apply), 3, how="grouped")
    params = selection.init(jax.random.key(0), chosen).params
    x = jax.random.normal(jax.random.key(1), (10, 4, 4, 2))
    actions = jnp.arange(10) % 3
    y, _ = selection.apply(chosen, Variables(params), x, actions)
    np.testing.assert_allclose(y, x * params[actions, 0], rtol=1e-6)


@pytest.mark.parametrize("unequal", (False, True))
def test_statistics_of_modules_are_those_of_their_own_samples(unequal, key):
    modules = (normaliser(),) * 3 if unequal else normaliser()
    chosen = Selection(modules, 3, name="norms")
    params, memory = selection.init(key, chosen)
    x = 3 + _samples(12, 3)[0]
    # Half of the samples go to each of two modules, so that rows fill the batch evenly.
    actions = jnp.asarray([0, 2] * 6, jnp.int32)
    x, record, _ = initialize(x, memory={"norms": memory})

    @quick
    def train(x, record):
        return selection.select(chosen, params, x, record, actions, train=True)[:2]

    y, record = train(x, record)
    np.testing.assert_allclose(y[::2].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(y[1::2].std(0), 1, atol=1e-3)
    state = record.memory["norms"]["modules"]
    mean = [own["mean"] for own in state] if unequal else state["mean"]
    np.testing.assert_allclose(mean[0], 0.1 * x[::2].mean(0), rtol=1e-5)
    np.testing.assert_array_equal(mean[1], 0)
    np.testing.assert_allclose(mean[2], 0.1 * x[1::2].mean(0), rtol=1e-5)
    z, after, _ = selection.select(chosen, params, x, record, actions)
    np.testing.assert_allclose(
        z[0], (x[0] - mean[0]) / _deviation(state, unequal), rtol=1e-3
    )
    assert after.memory is record.memory


def _deviation(state, unequal):
    return np.sqrt((state[0]["var"] if unequal else state["var"][0]) + 1e-5)


def test_random_modules_draw_for_each_group(key):
    def apply(variables, x, *, train=False, key=None):
        return x * jax.random.bernoulli(key, 0.5, x.shape), variables.state

    model = Model(lambda key: Variables(jnp.zeros(1)), apply)
    x, actions = _samples(40, 3)
    variables = Variables(jnp.zeros((3, 1)))

    @quick
    def draw(key):
        each = [Selection(model, 3, how=how) for how in WAYS]
        options = {"train": True, "key": key}
        return [selection.apply(c, variables, x, actions, **options)[0] for c in each]

    for one, other in zip(draw(key), draw(jax.random.key(1)), strict=True):
        assert bool(jnp.any(one != other)) and 0.3 < jnp.mean(one == 0) < 0.7


def test_all_modules_add_up_by_the_weights_of_a_decision(key):
    chosen = linear_modules(3, INPUTS, OUTPUTS)
    params = selection.init(key, chosen).params
    x, _ = _samples(5, 3)
    decision = Decision("d", "gumbel", 3, INPUTS, mode="full")
    policy = init_decision(key, decision).params

    def loss(policy, params):
        out, record, actions = decide(
            decision, policy, x, initialize(x)[1], None, key=key, train=True
        )
        y, *_ = selection.select(chosen, params, out, record, actions)
        weights = record.steps[0].statistics["weights"][0]
        plain, _ = selection.apply(chosen, Variables(params), x, actions)
        return jnp.sum(y**2), (y, plain, weights, actions)

    (_, (y, plain, weights, actions)), gradients = quick(
        jax.value_and_grad(loss, (0, 1), has_aux=True)
    )(policy, params)
    np.testing.assert_allclose(y, plain, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jnp.sum(weights, 1), 1, rtol=1e-6)
    assert float(jnp.max(jnp.abs(gradients[0]["policy"]["layer0"]["kernel"]))) > 1e-4
    # Each module learns as if its weight, 1 or 0, were a constant.
    alone = quick(
        jax.grad(
            lambda p: jnp.sum(selection.apply(chosen, Variables(p), x, actions)[0] ** 2)
        )
    )(params)
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    jax.tree.map(same, gradients[1], alone)


@pytest.mark.parametrize("listed", [False, True])
def test_flax_modules_can_be_chosen(listed):
    """Their state is an empty dict, not an empty tuple."""
    x = jax.random.normal(jax.random.key(0), (4, 3))
    module = from_linen(nn.Dense(2), x)
    own = Selection((module, module), how="dense") if listed else Selection(module, 2)
    params = selection.init(jax.random.key(1), own).params
    action = jnp.array([0, 1, 1, 0])
    y = selection.select(own, params, *initialize(x)[:2], action)[0]
    for i, k in enumerate(action):
        one = params[k] if listed else jax.tree.map(lambda leaf: leaf[k], params)  # noqa: B023
        expected = module.apply(Variables(one, {}), x[i : i + 1])[0][0]
        np.testing.assert_allclose(y[i], expected, rtol=1e-5)


def test_uses_are_counted_where_steps_were_executed():
    actions = jnp.array([[0, 2, 2], [0, 1, 2]])
    mask = jnp.array([[True, True, False], [False, True, True]])
    np.testing.assert_array_equal(selection.counts(actions, None, 4), [2, 1, 3, 0])
    np.testing.assert_array_equal(selection.counts(actions, mask, 4), [1, 1, 2, 0])


def test_tiles_hold_every_sample_once():
    actions = jnp.asarray([3] * 30 + [0, 1, 1])
    groups = grouping.group(actions, 4, jnp.arange(33) != 5)
    np.testing.assert_array_equal(groups.sizes, [1, 2, 0, 29])
    np.testing.assert_array_equal(groups.order[:4], [30, 31, 32, 0])
    np.testing.assert_array_equal(
        grouping.own_rows(groups, actions, 1, 5), jnp.ones(5, int)
    )


X, ACTIONS = np.zeros((4, INPUTS), np.float32), np.array([0, 1, 2, 3])


@pytest.mark.parametrize(
    ("chosen", "actions", "named"),
    [
        (lambda: linear_modules(3, INPUTS, 2), ACTIONS, "actions: got 3"),
        (lambda: linear_modules(4, INPUTS, 2), -ACTIONS, "actions: got -1"),
        (lambda: linear_modules(4, INPUTS, 2), ACTIONS[:3], "4 numbers"),
        (lambda: linear_modules(4, INPUTS, 2), None, "actions: got None"),
        (
            lambda: Selection((perceptron(2), perceptron(2, outputs=2))),
            ACTIONS % 2,
            "outputs have one shape",
        ),
        (
            lambda: linear_modules(4, INPUTS, 2, masked="identity"),
            ACTIONS,
            "keep the shape",
        ),
        (lambda: linear_modules(4, INPUTS, 2, how="gathr"), ACTIONS, "'gather'"),
        (lambda: Selection(perceptron(2)), ACTIONS, "the number of modules"),
        (lambda: Selection(UNEQUAL, 2), ACTIONS, "3 modules"),
        (lambda: Selection(UNEQUAL, how="gather"), ACTIONS, "the modules differ"),
        (lambda: Selection(normaliser(), 4), ACTIONS, "a name"),
    ],
)
def test_wrong_input_is_one_usage_error(chosen, actions, named, key):
    x, record, _ = initialize(jnp.asarray(X))
    actions = None if actions is None else jnp.asarray(actions)
    with pytest.raises(UsageError) as error:
        made = chosen()
        params = selection.init(key, made).params
        selection.select(made, params, x, record, actions)
    assert named in str(error.value)


@pytest.mark.parametrize("modules", (perceptron(2), (perceptron(2),) * 5))
def test_parameters_are_those_of_all_modules(modules, key):
    made = Selection(modules, 5)
    params = jax.eval_shape(lambda: selection.init(key, made).params)
    fewer = params[:3]
    if made.stacked:
        fewer = jax.tree.map(lambda a: jnp.zeros((3, *a.shape[1:])), params)
    with pytest.raises(UsageError, match="params: got '3 modules', expected 5"):
        selection.apply(made, Variables(fewer), jnp.asarray(X), jnp.arange(4))


def test_actions_of_masked_samples_may_be_anything(key):
    chosen = linear_modules(2, INPUTS, OUTPUTS)
    params = selection.init(key, chosen).params
    actions, mask = jnp.array([0, 9, 1, -4]), jnp.array([True, False, True, False])

    @quick
    def run(params):
        # The values are known while the program is traced.
        variables = Variables(params)
        return selection.apply(chosen, variables, jnp.asarray(X), actions, mask=mask)[0]

    np.testing.assert_array_equal(run(params)[1::2], 0)
