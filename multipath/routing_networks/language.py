"""The recursive router on language: from commands of SCAN to the actions they mean.

An LSTM reads a command word by word, a recursive router sends what it has read through
as many modules as it finds worth it, and a second LSTM, which sees the result at each
step, writes the actions and an end symbol, reading those it should have written so far.
It has nothing else of the command, so all that is known passes the router.

Tasks are the conjunctions. With a router, the reader takes "and" and "after" for one
word: which half of the command comes first is known to the router's agents alone, one
for each task, and modules have to turn it round. Without a router it reads every word.

Reference: Cases et al. (2019); Lake and Baroni (2018); Sutskever et al. (2014).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from multipath.routing_networks import commands, losses, recursive
from multipath.routing_networks.commands import Batch, Commands
from multipath.routing_networks.losses import Losses, Objective
from multipath.routing_networks.network import Network
from multipath.routing_networks.recursive import Recursive
from multipath.routing_networks.selection import linear_modules
from multipath.routing_networks.settings import Decision
from multipath.routing_networks.trajectory import Trajectory, initialize
from shared.data import scan
from shared.errors import UsageError, check_range
from shared.layers.linear import init_linear, linear
from shared.layers.recurrent import LSTMState, init_lstm, lstm
from shared.model import Variables


@dataclass(frozen=True)
class Translator:
    """A network that reads commands and writes actions.

    Attributes:
        router: what its decision is like; `actions` is the number of modules,
            `features` of no account, `agents` 1 or one for each task. None applies
            one module `depth` times.
        width: of all vectors.
        depth: modules that a command passes at most.
        hidden: units of the one module, a perceptron; see `unrouted`.
        blind: whether the reader takes "and" and "after" for one word.

    Raises:
        UsageError: for settings out of range.
    """

    router: Decision | None
    width: int = 64
    depth: int = 4
    hidden: int = 0
    blind: bool = True

    def __post_init__(self):
        check_range("width", self.width, low=1)
        check_range("depth", self.depth, low=1)
        if self.router is None:
            check_range("hidden", self.hidden, low=1)
        else:
            check_range("router.actions", self.router.actions, low=1)
            if self.router.agents not in (1, len(commands.TASKS)):
                allowed = f"1, or {len(commands.TASKS)}: one for each task"
                raise UsageError("router.agents", self.router.agents, allowed)


def recursion(translator: Translator) -> Recursive:
    """Return the recursive router of a routed network."""
    own = translator.router
    assert own is not None
    decision = dataclasses.replace(
        own, actions=own.actions + 1, features=translator.width
    )
    modules = linear_modules(own.actions, translator.width, translator.width)
    return Recursive(decision, modules, translator.depth, activation="tanh")


def unrouted(translator: Translator) -> Translator:
    """Return the network with one module and as many parameters, or almost.

    The module is a perceptron with one hidden layer, and every command passes it
    `depth` times.
    """
    made: Any = jax.eval_shape(
        lambda: recursive.init(jax.random.key(0), recursion(translator)).params
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(made))
    width = translator.width
    hidden = max(round((count - width) / (2 * width + 1)), 1)
    return dataclasses.replace(translator, router=None, hidden=hidden, blind=False)


def network(translator: Translator) -> Network:
    """Return the network: inputs are `Commands`, outputs `[rows, steps, symbols]`."""
    routed = translator.router is not None
    decisions = (recursion(translator).decision,) if routed else ()

    def init(key: Array) -> Variables:
        return _init(key, translator)

    def apply(
        variables: Variables,
        inputs: Commands,
        tasks: Int[Array, " rows"],
        *,
        train: bool = False,
        key: Array | None = None,
        exploration: Float[Array, ""] | float | int | None = None,
        forced: Int[Array, "depth rows"] | None = None,
    ) -> tuple[Float[Array, "rows steps symbols"], Trajectory, dict[str, PyTree]]:
        params, state = variables
        own = params["modules"]
        x, trajectory, _ = initialize(
            _read(own, inputs, translator.blind), tasks, state["memory"]
        )
        if translator.router is not None:
            x, trajectory, _ = recursive.recurse(
                recursion(translator),
                {"routing": params["routing"], "modules": own["chosen"]},
                x,
                trajectory,
                tasks.astype(jnp.int32),
                key=key,
                train=train,
                exploration=exploration,
                forced=forced,
            )
        else:
            for i in range(translator.depth):
                x = _perceptron(own["fixed"], x if i == 0 else jnp.tanh(x))
        outputs = _write(own, x, inputs)
        return outputs, trajectory, {**state, "memory": trajectory.memory}

    return Network(init, apply, decisions)


def _init(key: Array, translator: Translator) -> Variables:
    keys, width = jax.random.split(key, 5), translator.width
    dtype = jnp.result_type(float)
    modules: dict[str, PyTree] = {
        "encoder": _init_lstm(keys[0], len(scan.WORDS), width),
        "decoder": _init_lstm(keys[1], commands.SYMBOLS + width, width),
        "readout": init_linear(keys[2], width, commands.SYMBOLS, dtype=dtype),
    }
    routing, memory = {}, {}
    if translator.router is not None:
        made = recursive.init(keys[3], recursion(translator))
        routing, memory = made.params["routing"], made.state
        chosen = jax.tree.map(lambda a: a / 10, made.params["modules"])
        same = jnp.eye(width, dtype=dtype)[None]
        modules["chosen"] = {**chosen, "kernel": chosen["kernel"] + same}
    else:
        sizes = (width, translator.hidden), (translator.hidden, width)
        parts = zip(jax.random.split(keys[4]), sizes, strict=True)
        modules["fixed"] = [init_linear(k, *size, dtype=dtype) for k, size in parts]
    state = {"memory": memory, "trunk": {}}
    return Variables({"routing": routing, "modules": modules}, state)


def _init_lstm(key: Array, inputs: int, width: int) -> dict[str, Array]:
    """Return parameters of an LSTM that at first forgets little."""
    params = init_lstm(key, inputs, width, dtype=jnp.result_type(float))
    return {**params, "bias": params["bias"].at[width : 2 * width].set(1)}


def _perceptron(params: list, x: Array) -> Array:
    return linear(params[1], jnp.tanh(linear(params[0], x)))


def _read(
    params: dict[str, PyTree], inputs: Commands, blind: bool
) -> Float[Array, "rows width"]:
    """Return the state of the encoder behind each command."""
    dtype = params["encoder"]["kernel"].dtype
    words = inputs.words
    if blind:
        words = jnp.where(words == commands.AFTER, commands.AND, words)
    words = jax.nn.one_hot(words, len(scan.WORDS), dtype=dtype)
    return lstm(params["encoder"], words, lengths=inputs.length)[1].h


def _write(
    params: dict[str, PyTree], x: Float[Array, "rows width"], inputs: Commands
) -> Float[Array, "rows steps symbols"]:
    """Return the scores of each step's symbol."""
    before = jax.nn.one_hot(inputs.before, commands.SYMBOLS, dtype=x.dtype)
    wide = jnp.broadcast_to(x[:, None], (*before.shape[:2], x.shape[1]))
    begin = LSTMState(jnp.tanh(x), x)
    found, _ = lstm(params["decoder"], jnp.concatenate([before, wide], -1), begin)
    return linear(params["readout"], found)


def loss(
    outputs: Float[Array, "rows steps symbols"], targets: Int[Array, "rows steps"]
) -> Float[Array, " rows"]:
    """Return the cross-entropy of each row, the mean over its symbols."""
    real = targets != commands.NOTHING
    picked = jnp.where(real, targets, 0).astype(jnp.int32)[..., None]
    logp = jnp.take_along_axis(jax.nn.log_softmax(outputs), picked, -1)[..., 0]
    count = jnp.sum(real, 1).astype(outputs.dtype)
    return -jnp.sum(jnp.where(real, logp, 0), 1) / count


def right(
    outputs: Float[Array, "rows steps symbols"], targets: Int[Array, "rows steps"]
) -> Bool[Array, " rows"]:
    """Tell which rows are right as a whole.

    Where the likeliest symbol is right at each step, the decoder would write the same
    if it read its own.
    """
    equal = jnp.argmax(outputs, -1) == targets
    return jnp.all(equal | (targets == commands.NOTHING), 1)


def total(
    params: dict[str, PyTree],
    trajectory: Trajectory,
    outputs: Float[Array, "rows steps symbols"],
    targets: Int[Array, "rows steps"],
    *,
    objective: Objective,
) -> Losses:
    """Return both losses of a pass, see `losses.total`.

    Args:
        params: of the decisions, by name.
        trajectory, outputs: of the pass.
        targets: what should have been written.
        objective: its final reward `correct` is 1 for a row that is right as a whole,
            otherwise -1.
    """
    score = right(outputs, targets).astype(outputs.dtype)
    return losses.total(
        params,
        trajectory,
        score,
        jnp.ones_like(score),
        objective=objective,
        external=loss(outputs, targets),
    )


def memberships(inputs: Batch) -> dict[str, Bool[Array, "rows groups"]]:
    """Return which commands belong to which group: by task, word, number of actions."""
    words, length, _ = inputs.inputs
    real = jnp.arange(words.shape[1])[None] < length[:, None]
    has = lambda word: jnp.any(real & (words == scan.WORDS.index(word)), 1)
    count = jnp.sum(inputs.targets != commands.NOTHING, 1) - 1
    tasks = jnp.arange(len(commands.TASKS))[None] == inputs.tasks[:, None]
    first = jnp.array([0, *commands.LENGTHS[:-1]])[None]
    sizes = (first < count[:, None]) & (
        count[:, None] <= jnp.array(commands.LENGTHS)[None]
    )
    marks = jnp.stack([has(word) for word in commands.MARKS], 1)
    return {"tasks": tasks, "marks": marks, "lengths": sizes}


def measure(
    outputs: Float[Array, "rows steps symbols"], asked: Batch, trajectory: Trajectory
) -> dict[str, Array]:
    """Return means over a batch, for `finish` once they are averaged over a set.

    Args:
        outputs: of the network.
        asked: what was asked.
        trajectory: of the pass.

    Returns:
        `accuracy` of whole rows and `symbol_accuracy`; and by groups of commands (see
        `memberships`) `GROUPS/share`, `GROUPS/right` `[groups]`, and with a router
        `GROUPS/taken` `[groups, depth, actions]`.
    """
    score = right(outputs, asked.targets).astype(outputs.dtype)
    real = (asked.targets != commands.NOTHING).astype(outputs.dtype)
    equal = (jnp.argmax(outputs, -1) == asked.targets) * real
    symbols = jnp.sum(equal, 1) / jnp.sum(real, 1)
    found = {"accuracy": jnp.mean(score), "symbol_accuracy": jnp.mean(symbols)}
    for name, group in memberships(asked).items():
        group = group.astype(outputs.dtype) / len(score)
        found |= {f"{name}/share": jnp.sum(group, 0), f"{name}/right": score @ group}
        for steps in trajectory.steps:
            count = steps.decision.actions
            taken = jax.nn.one_hot(steps.action, count, dtype=outputs.dtype)
            taken = taken * steps.mask[..., None]
            found[f"{name}/taken"] = jnp.einsum("bg,dba->gda", group, taken)
    return found


def finish(record: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the averages of `measure` in a record into what is reported.

    Of groups of commands, `share` and `right` become `accuracy`, and `taken` becomes
    `depth`, the modules that a command passes, and `routes`, the shares of the actions
    at each depth; 0 for groups without commands.
    """
    made = dict(record)
    ratio = lambda a, b: a / np.where(b > 0, b, 1)
    for key in record:
        start, _, name = key.rpartition("/")
        if name == "share" and f"{start}/right" in record:
            share = np.asarray(made.pop(key))
            right = np.asarray(made.pop(f"{start}/right"))
            made[f"{start}/accuracy"] = ratio(right, share).tolist()
            if f"{start}/taken" in record:
                taken = np.asarray(made.pop(f"{start}/taken"))
                passed = taken[..., 1:].sum((1, 2))
                made[f"{start}/depth"] = ratio(passed, share).tolist()
                shares = ratio(taken, taken.sum(-1, keepdims=True))
                made[f"{start}/routes"] = shares.tolist()
    return made
