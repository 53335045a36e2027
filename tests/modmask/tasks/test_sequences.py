"""Losses and scores of sequences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modmask.models.symbols import append_end
from modmask.tasks import sequences
from shared.model import Model, Variables

END = 4


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "source": jnp.asarray(rng.integers(0, 3, (6, 2)), jnp.int8),
        "source_length": jnp.array([2, 1, 2, 1, 2, 2]),
        "target": jnp.asarray(rng.integers(0, END, (6, 3)), jnp.int8),
        "target_length": jnp.array([3, 1, 2, 3, 1, 2]),
    }


def perfect(batch):
    """Return outputs that are almost sure of the reference."""
    symbols = append_end(batch["target"], batch["target_length"], END)
    return {
        "logits": 20 * jax.nn.one_hot(symbols, END + 1),
        "length": batch["target_length"],
    }


def test_loss_counts_the_end_symbol_and_nothing_behind_it(batch):
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(6, 4, END + 1)))
    target, length = batch["target"], batch["target_length"]
    losses = sequences.cross_entropy(logits, target, length)
    logs = np.asarray(jax.nn.log_softmax(logits), np.float64)
    for row in range(6):
        symbols = [*target[row, : length[row]].tolist(), END]
        expected = -sum(logs[row, step, symbol] for step, symbol in enumerate(symbols))
        np.testing.assert_allclose(losses[row], expected, rtol=1e-5)


def test_a_shorter_prediction_counts_only_what_it_has(batch):
    logits = perfect(batch)["logits"][:, :2]
    losses = sequences.cross_entropy(logits, batch["target"], batch["target_length"])
    np.testing.assert_allclose(losses, np.zeros(6), atol=1e-5)


@pytest.mark.parametrize(
    ("predicted", "length", "right"),
    (
        ([1, 2, 3], 2, True),
        ([1, 2, 0, 3, 3], 2, True),
        ([1, 2, 3], 3, False),
        ([1, 0, 3], 2, False),
        ([1], 1, False),
        ([1], 2, True),
    ),
)
def test_exact_match(predicted, length, right):
    found = sequences.exact_match(
        jnp.array([predicted]), jnp.array([length]), jnp.array([[1, 2]]), jnp.array([2])
    )
    assert bool(found[0]) == right


def forwarded(calls, outputs):
    def forward(x):
        calls.append(x)
        return outputs

    return forward


def task(teacher_rate=1.0):
    nothing = Model(lambda key: Variables({}), lambda variables, x, **_: (x, ()))
    return sequences.task(nothing, teacher_rate=teacher_rate)


def test_evaluation_decodes_without_the_reference(batch):
    calls, outputs = [], perfect(batch)
    wrong = outputs["length"].at[0].add(1)
    metrics = task().evaluate(forwarded(calls, {**outputs, "length": wrong}), batch)
    assert set(calls[0]) == {"source", "source_length"}
    np.testing.assert_allclose(metrics["accuracy"], 5 / 6, rtol=1e-6)
    assert metrics["loss"] < 1e-5


def test_teacher_is_drawn_once_for_a_batch(batch):
    calls, keys = [], jax.random.split(jax.random.key(0), 40)
    forward = forwarded(calls, perfect(batch))
    for key in keys:
        task(0.5).loss(forward, batch, key, ())
    teachers = np.array([call["teacher"] for call in calls])
    assert (teachers == teachers[:, :1]).all()
    assert 10 <= teachers[:, 0].sum() <= 30
    task().loss(forward, batch, keys[0], ())
    assert "teacher" not in calls[-1]


def test_loss_of_a_batch_is_the_mean_of_its_halves(batch):
    rng = np.random.default_rng(2)
    logits = jnp.asarray(rng.normal(size=(6, 4, END + 1)), jnp.float32)

    def loss(rows):
        part = {name: values[rows] for name, values in batch.items()}
        forward = lambda x: {"logits": logits[rows]}
        return task().loss(forward, part, jax.random.key(0), ())[0]

    halves = loss(slice(0, 3)), loss(slice(3, 6))
    np.testing.assert_allclose(loss(slice(0, 6)), sum(halves) / 2, rtol=1e-5)
