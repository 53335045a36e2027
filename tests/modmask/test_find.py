"""Masks for networks that were written elsewhere, with no change to them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from modmask import MaskConfig, Subtask, find_masks
from modmask.find import as_model
from shared import data, masking
from shared.data import batching
from shared.errors import UsageError
from shared.model import Variables
from tests.modmask import toy

CONFIG = MaskConfig(mask_steps=150, mask_lr=0.03, batch_size=64, eval_every=0)
# A schedule that is chosen costs another trace of the step.
QUIET = {"how": "map", "progress": False}


class LinenNet(linen.Module):
    """Attention over the rows of an 8x8 digit, batch norm, dropout."""

    @linen.compact
    def __call__(self, x, train: bool = False):
        x = linen.Dense(32)(x.reshape(-1, 64))
        x = linen.relu(linen.BatchNorm(use_running_average=not train)(x))
        rows = x.reshape(-1, 4, 8)
        rows = rows + linen.MultiHeadDotProductAttention(num_heads=2)(rows, rows)
        x = linen.Dropout(0.1, deterministic=not train)(rows.reshape(-1, 32))
        return linen.Dense(10)(x)


class NnxNet(nnx.Module):
    """The same in the other style."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Linear(64, 32, rngs=rngs)
        self.norm = nnx.BatchNorm(32, rngs=rngs)
        self.look = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)
        self.last = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.first(x.reshape(-1, 64))))
        rows = x.reshape(-1, 4, 8)
        x = self.drop((rows + self.look(rows)).reshape(-1, 32))
        return self.last(x)


@pytest.fixture(scope="module")
def digits():
    split = data.load("digits").train
    return split.images[..., 0] / 16, split.labels


def trained(model, x, labels):
    """Train any Model for a few full-batch steps of Adam."""
    optimizer = optax.adam(5e-3)
    variables = model.init(jax.random.key(0))
    opt_state = optimizer.init(variables.params)

    @jax.jit
    def step(variables, opt_state, key):
        def loss(params):
            own = variables._replace(params=params)
            logits, state = model.apply(own, x, train=True, key=key)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.mean(losses), state

        grads, state = jax.grad(loss, has_aux=True)(variables.params)
        updates, opt_state = optimizer.update(grads, opt_state)
        params = optax.apply_updates(variables.params, updates)
        return Variables(params, state), opt_state

    for i in range(60):
        variables, opt_state = step(variables, opt_state, jax.random.key(i))
    return variables


@pytest.mark.parametrize("style", ("linen", "nnx"))
def test_masks_of_a_foreign_network_keep_what_they_were_trained_for(digits, style):
    x, labels = digits
    if style == "linen":
        module = LinenNet()
        empty = module.init(jax.random.key(0), x[:2])
        model, _ = as_model(module, empty, (x[:2], labels[:2]))
        params, state = trained(model, x, labels)
        variables = {"params": params, **state}
    else:
        module = NnxNet(nnx.Rngs(0))
        model, _ = as_model(module, None, (x[:2], labels[:2]))
        values = trained(model, x, labels)
        nnx.update(module, values.params)
        nnx.update(module, values.state)
        variables = None
    small = np.flatnonzero(np.asarray(labels) < 5)
    # Sets of one size are evaluated by one compiled program.
    valid = {"all": (x[:256], labels[:256])}
    valid["small"] = (x[small[:256]], labels[small[:256]])
    subtasks = {
        "all": Subtask((x, labels)),
        "small": Subtask((x, labels), small),
    }
    found = find_masks(module, variables, subtasks, CONFIG, valid=valid, **QUIET)
    figures = found.statistics
    place = "faithfulness/small/{}/{}/accuracy".format
    assert figures["faithfulness/all/masked/all/accuracy"] > 0.9
    assert figures[place("masked", "small")] > 0.95
    assert figures[place("masked", "all")] < 0.8
    assert figures[place("inverse", "small")] < 0.5
    assert figures[place("random", "small")] < figures[place("masked", "small")]
    # A module is less alike the control than the same number of weights by chance is.
    assert figures["density/small/total"] < figures["density/all/total"] < 0.95


def test_the_masks_returned_are_those_that_were_evaluated(digits):
    x, labels = digits
    pair = (x.reshape(-1, 64), labels)
    model = toy.feedforward(64, 10, (16,))
    variables = model.init(jax.random.key(0))
    config = MaskConfig(mask_steps=20, mask_lr=0.2, eval_every=0, mask_biases=False)
    found = find_masks(
        model, variables, {"all": Subtask(pair)}, config, repetitions=2, **QUIET
    )
    masks = found.masks["all"]
    assert masks["layers"][0]["bias"] is None
    assert masks["layers"][0]["kernel"].shape == (2, 64, 16)
    accuracy = []
    for i in range(2):
        own = jax.tree.map(lambda mask: jnp.asarray(mask[i]), masks)  # noqa: B023
        params = masking.export(variables.params, own)
        logits, _ = model.apply(Variables(params), pair[0])
        accuracy.append(float(jnp.mean(jnp.argmax(logits, 1) == labels)))
    mean = found.statistics["faithfulness/all/masked/all/accuracy"]
    assert np.mean(accuracy) == pytest.approx(mean, abs=1e-6)


def test_shared_logits_mask_whole_columns(digits):
    x, labels = digits
    model = toy.feedforward(64, 10, (16,))
    found = find_masks(
        model,
        model.init(jax.random.key(0)),
        {"all": Subtask((x.reshape(-1, 64), labels))},
        MaskConfig(mask_steps=5, eval_every=0),
        where=lambda path, leaf: path.endswith("kernel"),
        share=lambda path, leaf: (1, leaf.shape[1]),
        **QUIET,
    )
    assert found.logits["all"]["layers"][0]["kernel"].shape == (1, 16)
    assert found.statistics["count/all/layers_0_weight"] % 64 == 0


def test_subtasks_over_the_same_arrays_are_not_copied():
    from modmask.find import _together

    pair = toy.arrays()
    rows = np.array([3, 5])
    train, stages = _together(
        {"a": Subtask(pair), "b": Subtask(pair, rows), "c": Subtask(toy.arrays(1))}
    )
    assert batching.rows(train) == 2 * toy.ROWS
    np.testing.assert_array_equal(stages[1].rows, rows)
    np.testing.assert_array_equal(stages[2].rows, np.arange(64, 128))


NETWORK = toy.network()
PAIR = toy.arrays()


@pytest.mark.parametrize(
    ("change", "message"),
    (
        ({"subtasks": {}}, "subtasks: got {}"),
        ({"variables": toy.network((9,))}, r"variables.params\[layers/0/bias\]"),
        ({"variables": {"params": {}}}, "variables: got 'dict'"),
        ({"model": "net"}, "model: got 'str', expected a Model, a Flax"),
        ({"where": lambda path, leaf: False}, "at least one parameter"),
        ({"subtasks": {"a": Subtask(PAIR, np.array([99]))}}, "0 to 63"),
        ({"subtasks": {"a": Subtask((PAIR[0], PAIR[1][:3]))}}, "equal numbers of rows"),
        ({"repetitions": 0}, "repetitions: got 0"),
    ),
)
def test_what_does_not_fit_is_refused_in_one_line(change, message):
    arguments = {
        "model": toy.task().model,
        "variables": NETWORK,
        "subtasks": {"a": Subtask(PAIR)},
        "config": MaskConfig(mask_steps=1),
    }
    with pytest.raises(UsageError, match=message):
        find_masks(**{**arguments, **change}, progress=False)
