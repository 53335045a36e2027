"""Addition and multiplication by one network, told which.

The two are different functions of the same inputs and outputs: a modular network would
keep them apart.

Reference:
    Csordás et al. (2021), addition / multiplication.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from modmask.config import Config
from modmask.models.feedforward import feedforward
from modmask.models.lstm import lstm
from modmask.task import Evaluate, Forward, Loss, Problem, Stage, Task
from modmask.tasks import arithmetic
from shared.errors import check_choice

TASKS = ("addmul", "addmul_ff")
STEPS = 3
"""How often a recurrent network is shown its input."""


def load(config: Config, data_dir: Any = None, *, items: int | None = None) -> Problem:
    """Return addition and multiplication, with a mask for both and one for each.

    Arrays are `input` `[rows, 2, digits]`, `operation` `[rows]` and `results`
    `[rows, 2, digits]`, those of both operations.

    Args:
        config: `task`, `digits`, `held_out_pairs` and the network: `state_size` and
            `layers`, or `layer_sizes`.
        data_dir: not needed, for data are drawn.
        items: rows of each set, by default those of the published program.

    Raises:
        UsageError: for another task.
    """
    del data_dir
    train = arrays("train", config, items=items)
    valid = arrays("valid", config, items=items)
    stages = [
        Stage(name, np.flatnonzero(train["operation"] == i).astype(np.int32))
        for i, name in enumerate(arithmetic.OPERATIONS)
    ]
    parts = {
        name: {key: array[valid["operation"] == i] for key, array in valid.items()}
        for i, name in enumerate(arithmetic.OPERATIONS)
    }
    return Problem(
        task=make_task(config),
        train=train,
        weights=Stage("weights"),
        stages=(Stage("verify"), *stages),
        valid={"iid": valid, **parts},
        info={"operations": arithmetic.OPERATIONS, "digits": config.digits},
    )


def arrays(
    name: str, config: Config, *, items: int | None = None
) -> dict[str, np.ndarray]:
    """Return one set of operations, see `load` and `arithmetic.operations`."""
    held_out, digits = config.held_out_pairs, config.digits
    drawn = arithmetic.operations(name, digits, items=items, held_out=held_out)
    results = [
        arithmetic.calculate(drawn.operands, operation, digits)
        for operation in arithmetic.OPERATIONS
    ]
    return {
        "input": arithmetic.digits_of(drawn.operands, digits),
        "operation": drawn.operation.astype(np.uint8),
        "results": arithmetic.digits_of(np.stack(results, axis=1), digits),
    }


def make_task(config: Config) -> Task:
    """Return the network of a configuration and its losses; see `load`."""
    check_choice("task", config.task, TASKS)
    inputs, outputs = 2 * config.digits * 10 + 2, config.digits * 10
    recurrent = config.task == "addmul"
    if recurrent:
        model = lstm(inputs, outputs, config.state_size, config.layers)
    else:
        model = feedforward(inputs, outputs, config.layer_sizes)
    return Task(model, _make_loss(recurrent), _make_evaluate(recurrent))


def encode(
    digits: Shaped[Array | np.ndarray, "batch 2 digits"],
    operation: Shaped[Array | np.ndarray, " batch"],
) -> Float[Array, "batch inputs"]:
    """Return the digits of both operands and the operation, one-hot."""
    which = jax.nn.one_hot(operation, 2)
    return jnp.concatenate([arithmetic.one_hot_digits(digits), which], axis=1)


def logits(
    forward: Forward, batch: PyTree, *, recurrent: bool
) -> Float[Array, "batch digits 10"]:
    """Run a network and read the result.

    Args:
        forward: one pass.
        batch: see `load`.
        recurrent: whether it is shown its input for three steps, and read at the last.
    """
    x = encode(batch["input"], batch["operation"])
    if recurrent:
        y = forward(jnp.repeat(x[:, None], STEPS, axis=1))[:, -1]
    else:
        y = forward(x)
    return y.reshape(len(x), -1, 10)


def target(batch: PyTree) -> Shaped[Array, "batch digits"]:
    """Return the digits of the result of the operation that was asked for."""
    add, mul = batch["results"][:, 0], batch["results"][:, 1]
    return jnp.where(batch["operation"][:, None] == 1, mul, add)


def confusion(
    matches: Bool[Array, "batch 2"], operation: Shaped[Array | np.ndarray, " batch"]
) -> Float[Array, "3 2"]:
    """Tell what was calculated instead of what, as shares of all items.

    Rows are add, mul and neither; where both have the same result, an item counts in
    both rows. Columns are the operation asked for.

    Args:
        matches: whether the output is the result of each operation.
        operation: asked for.
    """
    neither = ~jnp.any(matches, axis=1, keepdims=True)
    predicted = jnp.concatenate([matches, neither], axis=1)
    asked = jax.nn.one_hot(operation, 2)
    return predicted.astype(asked.dtype).T @ asked / len(asked)


def _make_loss(recurrent: bool) -> Loss:
    def loss(
        forward: Forward, batch: PyTree, key: Array, setting: PyTree
    ) -> tuple[Array, dict[str, Array]]:
        del key, setting
        found, wanted = logits(forward, batch, recurrent=recurrent), target(batch)
        value = jnp.mean(arithmetic.digit_losses(found, wanted))
        right = arithmetic.all_right(found, wanted)
        return value, {"loss": value, "accuracy": jnp.mean(right)}

    return loss


def _make_evaluate(recurrent: bool) -> Evaluate:
    def evaluate(forward: Forward, batch: PyTree) -> dict[str, Array]:
        found, wanted = logits(forward, batch, recurrent=recurrent), target(batch)
        either = jnp.stack([found] * 2, axis=1)
        matches = arithmetic.all_right(either, batch["results"])
        return {
            "loss": jnp.mean(arithmetic.digit_losses(found, wanted)),
            "accuracy": jnp.mean(arithmetic.all_right(found, wanted)),
            "confusion": confusion(matches, batch["operation"]),
        }

    return evaluate
