"""Two groups of tasks that no single linear module can serve."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from multipath.routing_networks import conflict
from shared.errors import UsageError
from tests.quick import quick


@pytest.fixture(scope="module")
def drawn():
    make = lambda key: conflict.draw(key, conflict.problem(key, tasks=6), 2000)
    return jax.tree.map(np.asarray, quick(make)(jax.random.key(3)))


def least_squares(x, y):
    found = x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return float(conflict.relative_error(jnp.asarray(found), jnp.asarray(y)))


def test_each_half_is_linear_and_both_together_are_not(drawn):
    x, y, tasks = drawn
    assert least_squares(x[tasks < 3], y[tasks < 3]) < 1e-9
    assert least_squares(x[tasks >= 3], y[tasks >= 3]) < 1e-9
    assert least_squares(x, y) > 0.95
    # Halves are opposed, not merely different.
    assert least_squares(x, np.where(tasks[:, None] < 3, y, -y)) < 1e-9


def test_inputs_are_normal_and_tasks_even(drawn):
    x, _, tasks = drawn
    np.testing.assert_allclose(x.mean(0), 0, atol=0.1)
    np.testing.assert_allclose(x.std(0), 1, atol=0.1)
    np.testing.assert_allclose(np.bincount(tasks) / 2000, 1 / 6, atol=0.03)


def test_batches_are_new_rows_of_one_problem(key):
    problem = conflict.problem(key)
    take = quick(conflict.batches(8).take)
    batches = [take(problem, (), 0, k) for k in jax.random.split(key)]
    batches = jax.tree.map(np.asarray, batches)
    assert not np.array_equal(batches[0].x, batches[1].x)
    weights, signs = map(np.asarray, problem)
    for x, y, tasks in batches:
        np.testing.assert_allclose(y[:, 0], signs[tasks] * (x @ weights), rtol=1e-5)
    y = jnp.asarray(batches[0].y)
    assert float(conflict.relative_error(0 * y, y)) == 1


def test_bad_problems(key):
    with pytest.raises(UsageError, match="tasks: got 3"):
        conflict.problem(key, tasks=3)
    with pytest.raises(UsageError, match="batch_size"):
        conflict.batches(0)
