"""Double addition: one network calculates two sums.

Both sums are the same function, so a modular network could share weights between them.
A feed-forward network is run once for each pair, and shown that pair only. A recurrent
one runs once, three steps for each pair; `tuple_mode` tells what it is shown when:

    mode          input                             read from
    together      all pairs at every step           last step, all slots
    only_one      each pair in its slot in turn     last step, all slots
    only_one_io   each pair in its slot in turn     each slot after its pair's steps
    same_output   all pairs at every step           one slot, after each pair's steps
    same_input    all pairs in one slot, in turn    last step, all slots
    same_io       all pairs in one slot, in turn    one slot, after each pair's steps

Reference:
    Csordás et al. (2021), double addition.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from modmask.config import TUPLE_MODES, Config
from modmask.models.feedforward import feedforward
from modmask.models.lstm import lstm
from modmask.task import Evaluate, Forward, Loss, Problem, Stage, Task
from modmask.tasks import arithmetic
from shared.errors import UsageError, check_choice, check_range
from shared.model import Model

TASKS = ("tuple", "tuple_ff", "tuple_ff_copyweight")
PAIRS = 2
STEPS = 3
"""For which a recurrent network is shown each pair."""

SHARED_INPUT = ("same_input", "same_io")
SHARED_OUTPUT = ("same_output", "same_io")
IN_TURN = ("only_one", "only_one_io")
AT_THE_END = ("together", "only_one", "same_input")

Restrict = Int[Array, ""] | np.int32 | int
"""The only pair that counts, -1 for none."""


def load(config: Config, data_dir: Any = None, *, items: int | None = None) -> Problem:
    """Return double addition, with a mask for both sums and one for each.

    Arrays are `input` `[rows, pairs, 2, digits]` and `output` `[rows, pairs, digits]`.
    The setting of a stage is the pair to restrict the task to, -1 for none.

    Args:
        config: `task`, `digits`, `held_out_pairs` and the network: `tuple_mode`,
            `state_size` and `layers`, or `layer_sizes`.
        data_dir: not needed, for data are drawn.
        items: rows of each set, by default those of the published program.

    Raises:
        UsageError: for another task.
    """
    del data_dir
    return Problem(
        task=make_task(config),
        train=arrays("train", config, items=items),
        weights=Stage("weights", None, np.int32(-1)),
        stages=tuple(Stage(str(i), None, np.int32(i - 1)) for i in range(1 + PAIRS)),
        valid={"iid": arrays("valid", config, items=items)},
        info={"pairs": PAIRS, "digits": config.digits},
    )


def arrays(
    name: str, config: Config, *, items: int | None = None
) -> dict[str, np.ndarray]:
    """Return one set of double additions, see `load` and `arithmetic.pairs`."""
    held_out, digits = config.held_out_pairs, config.digits
    operands = arithmetic.pairs(name, digits, items=items, held_out=held_out)
    sums = arithmetic.calculate(operands, "add", digits)
    return {
        "input": arithmetic.digits_of(operands, digits),
        "output": arithmetic.digits_of(sums, digits),
    }


def make_task(config: Config) -> Task:
    """Return the network of a configuration and its losses; see `load`."""
    check_choice("task", config.task, TASKS)
    if config.task == "tuple":
        model = _make_lstm(config)
        logits = functools.partial(recurrent_logits, mode=config.tuple_mode)
    else:
        size = PAIRS * config.digits * 10
        model = feedforward(2 * size, size, config.layer_sizes)
        logits = feedforward_logits
    return Task(model, _make_loss(logits), _make_evaluate(logits))


def feedforward_logits(
    forward: Forward,
    digits: Shaped[Array | np.ndarray, "batch pairs 2 digits"],
    restrict: Restrict = -1,
) -> Float[Array, "batch pairs digits 10"]:
    """Run a network once for each pair, shown that one alone, and read its slot.

    Both runs take place under a restriction too, each with masks of its own.
    """
    del restrict
    batch, pairs, _, places = digits.shape
    x = arithmetic.one_hot_digits(digits, lead=2)

    def run(pair: int) -> Array:
        y = forward((x * _shown(pair, pairs)[None, :, None]).reshape(batch, -1))
        return y.reshape(batch, pairs, places, 10)[:, pair]

    return jnp.stack([run(pair) for pair in range(pairs)], axis=1)


def recurrent_logits(
    forward: Forward,
    digits: Shaped[Array | np.ndarray, "batch pairs 2 digits"],
    restrict: Restrict = -1,
    *,
    mode: str,
) -> Float[Array, "batch pairs digits 10"]:
    """Run a network over a sequence and read all sums; see `encode`."""
    batch, pairs, _, places = digits.shape
    y = forward(encode(digits, mode, restrict))
    if mode in AT_THE_END:
        return y[:, -1].reshape(batch, pairs, places, 10)
    ends = y[:, STEPS - 1 :: STEPS]
    if mode == "only_one_io":
        slots = ends.reshape(batch, pairs, pairs, places, 10)
        return jnp.stack([slots[:, pair, pair] for pair in range(pairs)], axis=1)
    return ends.reshape(batch, pairs, places, 10)


def encode(
    digits: Shaped[Array | np.ndarray, "batch pairs 2 digits"],
    mode: str,
    restrict: Restrict = -1,
) -> Float[Array, "batch time inputs"]:
    """Return what a recurrent network is shown, three steps for each pair.

    Args:
        digits: of all operands.
        mode: see above.
        restrict: the only pair that is shown, or -1; may be traced.

    Raises:
        UsageError: for an unknown mode or a pair that there is not.
    """
    check_choice("mode", mode, TUPLE_MODES)
    batch, pairs = digits.shape[:2]
    if not isinstance(restrict, jax.Array):
        check_range("restrict", int(restrict), low=-1, high=pairs - 1)
    x = arithmetic.one_hot_digits(digits, lead=2)
    x = x * _shown(restrict, pairs)[None, :, None]
    if mode not in SHARED_INPUT:
        windows = jnp.eye(pairs) if mode in IN_TURN else jnp.ones((pairs, pairs))
        x = (x[:, None] * windows[None, :, :, None]).reshape(batch, pairs, -1)
    return jnp.repeat(x, STEPS, axis=1)


def copy_weights(params: PyTree, config: Config) -> PyTree:
    """Make both pairs' additions one function of the same weights, as a control.

    The first layer's weights of pair 0 become those of pair 1, and so do all
    parameters of the last layer: masks of the two must then come out shared.

    Args:
        params: of the feed-forward network.
        config: of the task "tuple_ff_copyweight".

    Raises:
        UsageError: for another task.

    Reference:
        Csordás et al. (2021), the control of double addition.
    """
    if config.task != "tuple_ff_copyweight":
        raise UsageError("task", config.task, "tuple_ff_copyweight")
    second = lambda a, axis: jnp.concatenate([jnp.split(a, 2, axis)[1]] * 2, axis)
    layers = [dict(layer) for layer in params["layers"]]
    layers[0]["kernel"] = second(layers[0]["kernel"], 0)
    layers[-1] = {name: second(value, -1) for name, value in layers[-1].items()}
    return {**params, "layers": layers}


def _make_lstm(config: Config) -> Model:
    check_choice("tuple_mode", config.tuple_mode, TUPLE_MODES)
    slot, mode = config.digits * 10, config.tuple_mode
    inputs = 2 * slot * (1 if mode in SHARED_INPUT else PAIRS)
    outputs = slot * (1 if mode in SHARED_OUTPUT else PAIRS)
    return lstm(inputs, outputs, config.state_size, config.layers)


def _shown(restrict: Restrict, pairs: int) -> Float[Array, " pairs"]:
    """Return 1 for each pair that a restriction leaves, else 0."""
    shown = (jnp.arange(pairs) == restrict) | (jnp.asarray(restrict) < 0)
    return shown.astype(jnp.result_type(float))


def _make_loss(logits: Any) -> Loss:
    def loss(
        forward: Forward, batch: PyTree, key: Array, setting: PyTree
    ) -> tuple[Array, dict[str, Array]]:
        del key
        found, output = logits(forward, batch["input"], setting), batch["output"]
        shown = _shown(setting, output.shape[1]).astype(found.dtype)
        share = (shown / jnp.sum(shown))[None]
        mean = lambda each: jnp.mean(jnp.sum(each * share, axis=1))
        value = mean(arithmetic.digit_losses(found, output))
        right = mean(arithmetic.all_right(found, output))
        return value, {"loss": value, "accuracy": right}

    return loss


def _make_evaluate(logits: Any) -> Evaluate:
    def evaluate(forward: Forward, batch: PyTree) -> dict[str, Array]:
        found, output = logits(forward, batch["input"]), batch["output"]
        return {
            "loss": jnp.mean(arithmetic.digit_losses(found, output)),
            **accuracies(arithmetic.all_right(found, output)),
        }

    return evaluate


def accuracies(right: Bool[Array, "batch pairs"]) -> dict[str, Array]:
    """Return the share of right sums of each pair, and of items with all sums right."""
    total = jnp.mean(jnp.all(right, axis=1))
    each = jnp.mean(right, axis=0)
    slots = {f"accuracy/tuple/{i}": each[i] for i in range(right.shape[1])}
    return {"accuracy": total, "accuracy/total": total, **slots}
