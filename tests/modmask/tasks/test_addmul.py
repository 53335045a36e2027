"""Addition and multiplication."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modmask.config import Config
from modmask.tasks import addmul, arithmetic
from shared.errors import UsageError
from tests.quick import quick


def config(**chosen):
    small = {"digits": 1, "layer_sizes": (7,), "state_size": 4, "layers": 1}
    return Config(**{"task": "addmul_ff", **small, **chosen})


def test_inputs_are_both_operands_and_the_operation():
    digits = np.array([[[3, 1], [0, 9]]], np.uint8)
    x = addmul.encode(digits, np.array([1], np.uint8))
    assert x.shape == (1, 42)
    assert np.flatnonzero(x[0]).tolist() == [3, 10 + 1, 20 + 0, 30 + 9, 40 + 1]


def test_items_hold_both_results():
    rows = addmul.arrays("valid", config(digits=2), items=300)
    a, b = (rows["input"] @ np.array([1, 10])).T
    add, mul = (rows["results"] @ np.array([1, 10])).T
    np.testing.assert_array_equal(add, (a + b) % 100)
    np.testing.assert_array_equal(mul, a * b % 100)
    wanted = addmul.target({k: jnp.asarray(v) for k, v in rows.items()})
    either = np.where(rows["operation"] == 1, mul, add)
    np.testing.assert_array_equal(wanted @ np.array([1, 10]), either)


def test_a_recurrent_network_is_shown_its_input_thrice_and_read_at_the_end():
    rows = addmul.arrays("valid", config(), items=5)
    shown = []

    def forward(x):
        shown.append(x)
        return jnp.broadcast_to(jnp.arange(3.0)[None, :, None], (5, 3, 10))

    found = addmul.logits(forward, rows, recurrent=True)
    x = addmul.encode(rows["input"], rows["operation"])
    np.testing.assert_array_equal(shown[0], np.stack([x] * 3, axis=1))
    np.testing.assert_array_equal(found, np.full((5, 1, 10), 2.0))


def test_confusion_counts_the_operation_calculated_for_that_asked():
    matches = jnp.array([[1, 0], [1, 0], [1, 1], [0, 0], [0, 1], [1, 1]]).astype(bool)
    operation = jnp.array([0, 1, 0, 0, 1, 1])
    found = addmul.confusion(matches, operation)
    counts = [[2, 2], [1, 2], [1, 0]]
    np.testing.assert_allclose(found, np.array(counts) / 6, rtol=1e-6)


def adding(x):
    """Add what one-digit inputs say, whatever the operation."""
    a, b = jnp.argmax(x[:, :10], axis=1), jnp.argmax(x[:, 10:20], axis=1)
    return jax.nn.one_hot((a + b) % 10, 10)


def test_a_network_that_only_adds_is_found_out():
    rows = addmul.arrays("valid", config(), items=500)
    evaluate = addmul.make_task(config()).evaluate
    found = quick(lambda rows: evaluate(adding, rows))(rows)
    is_mul = rows["operation"] == 1
    same = np.all(rows["results"][:, 0] == rows["results"][:, 1], axis=1)
    expected = [
        [np.sum(~is_mul), np.sum(is_mul)],
        [np.sum(same & ~is_mul), np.sum(same & is_mul)],
        [0, 0],
    ]
    np.testing.assert_allclose(found["confusion"], np.array(expected) / 500, rtol=1e-5)
    right = np.mean(~is_mul | same)
    np.testing.assert_allclose(found["accuracy"], right, rtol=1e-6)


def test_stages_and_sets_show_one_operation_each():
    problem = addmul.load(config(), items=100)
    operation = problem.train["operation"]
    control, add, mul = problem.stages
    assert (control.name, add.name, mul.name) == ("verify", "add", "mul")
    assert control.rows is None
    assert np.all(operation[add.rows] == 0) and np.all(operation[mul.rows] == 1)
    assert len(add.rows) + len(mul.rows) == 100
    assert list(problem.valid) == ["iid", "add", "mul"]
    sizes = {name: len(rows["operation"]) for name, rows in problem.valid.items()}
    assert sizes["iid"] == sizes["add"] + sizes["mul"] == 100
    assert np.all(problem.valid["mul"]["operation"] == 1)


def everything():
    """Return both operations on all pairs of digits."""
    numbers = np.stack(np.meshgrid(*[np.arange(10)] * 2), axis=-1).reshape(-1, 2)
    results = [arithmetic.calculate(numbers, op, 1) for op in arithmetic.OPERATIONS]
    return {
        "input": arithmetic.digits_of(np.tile(numbers, (2, 1)), 1),
        "operation": np.repeat([0, 1], 100).astype(np.uint8),
        "results": arithmetic.digits_of(np.tile(np.stack(results, 1), (2, 1)), 1),
    }


def test_a_small_network_learns_both_operations(key):
    task, rows = addmul.make_task(config(layer_sizes=(48, 48))), everything()
    adam = optax.adam(1e-2)

    def learn(key, steps):
        variables = task.model.init(key)
        forward = lambda params: (
            lambda x: task.model.apply(variables._replace(params=params), x)[0]
        )
        loss = lambda params: task.loss(forward(params), rows, key, ())[0]

        def step(_, carry):
            params, state = carry
            updates, state = adam.update(jax.grad(loss)(params), state)
            return optax.apply_updates(params, updates), state

        start = variables.params, adam.init(variables.params)
        params, _ = jax.lax.fori_loop(0, steps, step, start)
        return task.evaluate(forward(params), rows)["accuracy"]

    run = quick(learn)
    assert run(key, 0) < 0.3
    assert run(key, 250) > 0.95


@pytest.mark.parametrize(
    ("chosen", "count"),
    (
        ({"task": "addmul", "state_size": 256, "layers": 2}, 836_628),
        ({"layer_sizes": (800,) * 4}, 1_972_820),
        ({"layer_sizes": (2000,) * 4}, 12_132_020),
    ),
)
def test_networks_have_the_published_sizes(key, chosen, count):
    task = addmul.make_task(config(digits=2, **chosen))
    shapes = jax.eval_shape(task.model.init, key).params
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def test_another_task_is_refused():
    with pytest.raises(UsageError, match="task"):
        addmul.load(config(task="tuple"))
