"""Double addition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modmask.config import TUPLE_MODES, Config
from modmask.tasks import pairs
from shared.errors import UsageError
from tests.quick import quick

# 3 + 5 and 7 + 1: places of their ones among the inputs.
DIGITS = np.array([[[[3], [5]], [[7], [1]]]], np.uint8)
FIRST, SECOND = {3, 10 + 5}, {20 + 7, 30 + 1}
ALL = FIRST | SECOND
SHARED = {7, 10 + 1}
SHOWN = {
    "together": (ALL, ALL),
    "only_one": (FIRST, SECOND),
    "only_one_io": (FIRST, SECOND),
    "same_output": (ALL, ALL),
    "same_input": (FIRST, SHARED),
    "same_io": (FIRST, SHARED),
}
# Step and first output that each pair is read from.
READ = {
    "together": ((5, 0), (5, 10)),
    "only_one": ((5, 0), (5, 10)),
    "only_one_io": ((2, 0), (5, 10)),
    "same_output": ((2, 0), (5, 0)),
    "same_input": ((5, 0), (5, 10)),
    "same_io": ((2, 0), (5, 0)),
}


def config(**chosen):
    small = {"digits": 1, "layer_sizes": (7,), "state_size": 4, "layers": 1}
    return Config(**{"task": "tuple", **small, **chosen})


def ones(row):
    return set(np.flatnonzero(row).tolist())


def batch(chosen, items=12):
    return pairs.arrays("valid", chosen, items=items)


def network(task, key):
    """Return a function from weights to a forward function, and weights."""
    variables = quick(task.model.init)(key)

    def forward(params):
        masked = variables._replace(params=params)
        return lambda x: task.model.apply(masked, x)[0]

    return forward, variables.params


def make_loss(task, forward, rows, key):
    """Return the loss as a function of weights and of the setting."""
    return lambda params, pair: task.loss(forward(params), rows, key, pair)[0]


@pytest.mark.parametrize("mode", TUPLE_MODES)
def test_each_mode_shows_its_pairs(mode):
    x = pairs.encode(DIGITS, mode)
    first, second = SHOWN[mode]
    assert [ones(step) for step in x[0]] == [first] * 3 + [second] * 3
    width = 20 if mode in ("same_input", "same_io") else 40
    assert x.shape == (1, 6, width) and np.max(x) == 1


@pytest.mark.parametrize("mode", TUPLE_MODES)
def test_each_mode_reads_its_pairs(mode):
    outputs = 10 if mode in ("same_output", "same_io") else 20
    step, place = jnp.meshgrid(jnp.arange(6.0), jnp.arange(outputs), indexing="ij")
    found = pairs.recurrent_logits(
        lambda x: (100 * step + place)[None], DIGITS, mode=mode
    )
    starts = np.array([100 * step + start for step, start in READ[mode]])
    np.testing.assert_array_equal(found[0, :, 0], starts[:, None] + np.arange(10))


@pytest.mark.parametrize("mode", TUPLE_MODES)
def test_a_restriction_hides_the_other_pair(mode):
    x = pairs.encode(DIGITS, mode, jnp.int32(1))
    shared = mode in ("same_input", "same_io")
    first, second = (
        (set(), SHARED) if shared else [places & SECOND for places in SHOWN[mode]]
    )
    assert [ones(step) for step in x[0]] == [first] * 3 + [second] * 3
    np.testing.assert_array_equal(x, pairs.encode(DIGITS, mode, 1))


@pytest.mark.parametrize("task", pairs.TASKS)
@pytest.mark.parametrize("pair", (0, 1))
def test_a_restricted_loss_ignores_inputs_and_outputs_of_the_other_pair(
    key, task, pair
):
    chosen = config(task=task)
    task = pairs.make_task(chosen)
    forward, params = network(task, key)
    rows = batch(chosen)
    loss = make_loss(task, forward, rows, key)
    grads = quick(jax.grad(loss))(params, jnp.int32(pair))
    recurrent = "lstm" in grads
    first = grads["lstm"][0] if recurrent else grads["layers"][0]
    last = grads["output_projection"] if recurrent else grads["layers"][-1]
    for leaf, axis in ((first["kernel"], 0), (last["kernel"], 1), (last["bias"], 0)):
        halves = np.split(np.asarray(leaf), 2, axis)
        assert np.any(halves[pair])
        assert not np.any(halves[1 - pair])


def test_the_loss_is_the_mean_of_the_restricted_ones_of_a_feedforward_network(key):
    chosen = config(task="tuple_ff", digits=2)
    task = pairs.make_task(chosen)
    forward, params = network(task, key)
    loss = quick(make_loss(task, forward, batch(chosen), key))
    losses = [loss(params, np.int32(pair)) for pair in (-1, 0, 1)]
    np.testing.assert_allclose(losses[0], (losses[1] + losses[2]) / 2, rtol=1e-6)
    assert losses[1] != losses[2]


@pytest.mark.parametrize("task", ("tuple", "tuple_ff"))
def test_losses_of_halves_of_a_batch_average_to_its_own(key, task):
    chosen = config(task=task)
    task = pairs.make_task(chosen)
    forward, params = network(task, key)
    rows = batch(chosen)
    loss = quick(lambda rows: task.loss(forward(params), rows, key, np.int32(-1))[0])
    halves = [
        {k: v[part] for k, v in rows.items()} for part in (slice(6), slice(6, 12))
    ]
    np.testing.assert_allclose(loss(rows), sum(map(loss, halves)) / 2, rtol=1e-5)


def test_a_feedforward_network_is_run_for_each_pair_alone():
    shown = []

    def forward(x):
        shown.append([ones(row) for row in x])
        return jnp.full((1, 20), float(len(shown)))

    found = pairs.feedforward_logits(forward, DIGITS)
    assert shown == [[FIRST], [SECOND]]
    np.testing.assert_array_equal(found[0, :, 0, 0], [1.0, 2.0])


def test_accuracy_is_told_for_each_pair_and_for_both():
    rows = {"input": np.zeros((4, 2, 2, 1), np.uint8)}
    rows["output"] = np.array(
        [[[0], [0]], [[0], [1]], [[0], [0]], [[2], [0]]], np.uint8
    )
    forward = lambda x: jnp.zeros((4, 6, 20)).at[:, :, (0, 10)].set(1.0)
    evaluate = pairs.make_task(config()).evaluate
    found = quick(lambda rows: evaluate(forward, rows))(rows)
    assert found["accuracy/tuple/0"] == 0.75
    assert found["accuracy/tuple/1"] == 0.75
    assert found["accuracy/total"] == found["accuracy"] == 0.5


def test_copied_weights_add_both_pairs_alike(key):
    chosen = config(task="tuple_ff_copyweight", digits=2)
    task = pairs.make_task(chosen)
    forward, params = network(task, key)
    rows = batch(chosen)["input"]
    logits = quick(lambda params, rows: pairs.feedforward_logits(forward(params), rows))
    copied = quick(lambda params: pairs.copy_weights(params, chosen))(params)
    found, swapped = logits(copied, rows), logits(copied, rows[:, ::-1])
    np.testing.assert_allclose(found, swapped[:, ::-1], atol=1e-6)
    # The second pair's weights are those that stay.
    np.testing.assert_allclose(found[:, 1], logits(params, rows)[:, 1], atol=1e-6)
    assert np.any(found[:, 0] != logits(params, rows)[:, 0])


def test_stages_are_both_pairs_and_each():
    problem = pairs.load(config(), items=20)
    assert [stage.name for stage in problem.stages] == ["0", "1", "2"]
    assert [int(stage.setting) for stage in problem.stages] == [-1, 0, 1]
    assert int(problem.weights.setting) == -1
    assert problem.train["input"].shape == (20, 2, 2, 1)
    assert list(problem.valid) == ["iid"]


def test_items_hold_the_sums():
    rows = batch(config(digits=2))
    numbers = rows["input"] @ np.array([1, 10])
    sums = rows["output"] @ np.array([1, 10])
    np.testing.assert_array_equal(numbers.sum(-1) % 100, sums)


@pytest.mark.parametrize(
    ("chosen", "count"),
    (
        ({"task": "tuple", "state_size": 256, "layers": 2}, 880_680),
        ({"task": "tuple_ff", "layer_sizes": (2000,) * 4}, 12_248_040),
    ),
)
def test_networks_have_the_published_sizes(key, chosen, count):
    task = pairs.make_task(config(digits=2, **chosen))
    shapes = jax.eval_shape(task.model.init, key).params
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


@pytest.mark.parametrize(
    ("make", "named"),
    (
        (lambda: config(digits=0), "digits"),
        (lambda: pairs.encode(DIGITS, "apart"), "mode"),
        (lambda: pairs.encode(DIGITS, "together", 2), "restrict"),
        (lambda: pairs.load(config(task="addmul")), "task"),
        (lambda: pairs.copy_weights({}, config(task="tuple_ff")), "task"),
    ),
)
def test_bad_requests_are_refused(make, named):
    with pytest.raises(UsageError, match=named):
        make()
