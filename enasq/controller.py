"""The controller: an LSTM that draws architectures, one decision after the other.

For each block of a cell it chooses two earlier nodes by attention and two operations,
each from the state that the choice before left behind; the reduction cell follows the
normal one. All of it is one scan over the cells and the blocks, with candidates that
do not exist yet masked, so that sampling, scoring and decoding are compiled once for
all architectures and may be mapped over keys or architectures.

Reference: Pham et al. (2018), sections 2.2 and 2.4.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Key

from enasq import cell
from shared.config import check_choices, check_ranges, traced
from shared.errors import UsageError

Params = dict[str, Array]
Hyper = Mapping[str, Any]

# Within a block the nodes are chosen first; codes store `index op` pairs.
_STORED = (0, 2, 1, 3)

BASELINES = ("previous", "updated")
ENTROPIES = ("loss", "reward")


@dataclass(frozen=True)
class Settings:
    """A controller and how it learns.

    Attributes:
        blocks: blocks of a cell.
        ops: operations.
        choices: quantisers that an operation may be combined with, `ops * choices`
            operation ids in all.
        hidden: units of each LSTM layer.
        layers: LSTM layers.
        op_bias: initial logit of the two convolutions. At the published 10 it lies so
            deep in the tanh that it never learns; 0.5 keeps a third of its effect.
        tanh_constant: bound of the logits of nodes; 0 leaves the tanh out.
        op_tanh_reduce: divides the bound of the logits of operations.
        temperature: divides logits before the tanh; 0 leaves it out.
        baseline: previous (the advantage is measured from the baseline before this
            reward, which starts at the first reward) or updated (from the one after,
            which starts at 0, as published).
        entropy: loss (a bonus with a gradient) or reward (a constant added to the
            reward, as published).
        entropy_weight: weight of the entropy.
        baseline_decay: of the moving baseline.
        learning_rate: of Adam without first moment.
        l2: weight of the squared parameters.
    """

    blocks: int = 5
    ops: int = 5
    choices: int = 1
    hidden: int = 64
    layers: int = 1
    op_bias: float = 0.5
    tanh_constant: float = traced(1.10, zero_is_static=True)
    op_tanh_reduce: float = traced(2.5)
    temperature: float = traced(0.0, zero_is_static=True)
    baseline: str = "previous"
    entropy: str = "loss"
    entropy_weight: float = traced(1e-4)
    baseline_decay: float = traced(0.99)
    learning_rate: float = traced(0.0035)
    l2: float = traced(0.0)

    def __post_init__(self):
        check_choices(self, baseline=BASELINES, entropy=ENTROPIES)
        check_ranges(self, "blocks", "ops", "choices", "hidden", "layers", low=1)
        check_ranges(self, "tanh_constant", "temperature", "l2", low=0)
        check_ranges(self, "op_tanh_reduce", "learning_rate", low=0, low_open=True)
        check_ranges(self, "baseline_decay", low=0, high=1, high_open=True)
        check_ranges(self, "entropy_weight", "op_bias")

    @property
    def op_count(self) -> int:
        """Operation ids: each operation with each choice."""
        return self.ops * self.choices


def published(**changes: Any) -> Settings:
    """Return the published program's controller, with other settings as given."""
    quirks = {"op_bias": 10.0, "baseline": "updated", "entropy": "reward"}
    return Settings(**(quirks | changes))


class Outcome(NamedTuple):
    """What the controller says about one architecture.

    Attributes:
        arc: the architecture.
        log_prob: logarithm of its probability.
        entropy: of all its decisions together, in nats.
        logits: of each decision, in the order in which they are made: index_x,
            index_y, op_x, op_y; -inf for what cannot be chosen.
    """

    arc: Int[Array, "2 blocks 4"]
    log_prob: Float[Array, ""]
    entropy: Float[Array, ""]
    logits: Float[Array, "2 blocks 4 widest"]


def init(key: Key[Array, ""], settings: Settings) -> Params:
    """Draw parameters from U(-0.1, 0.1), but for the bias of the operations."""
    units, count = settings.hidden, settings.op_count
    shapes = {
        "lstm": (settings.layers, 2 * units, 4 * units),
        "start": (units,),
        "op_embedding": (count, units),
        "op_kernel": (units, count),
        "attention_key": (units, units),
        "attention_query": (units, units),
        "attention_score": (units,),
    }
    keys, real = jax.random.split(key, len(shapes)), jnp.result_type(float)
    drawn = {
        name: jax.random.uniform(own, shape, real, -0.1, 0.1)
        for own, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    bias = jnp.where(_is_convolution(settings), settings.op_bias, 0.0)
    return {**drawn, "op_bias": bias.astype(real)}


def sample(
    params: Params, key: Key[Array, ""], settings: Settings, hyper: Hyper
) -> Outcome:
    """Draw an architecture.

    Args:
        params: from `init`.
        key: consumed by the decisions.
        settings, hyper: the two halves of the settings, see `shared.config.split`.
    """
    keys = jax.random.split(key, (2, settings.blocks, 4))
    pick = lambda logits, key: jax.random.categorical(key, logits)
    return _unroll(params, settings, hyper, pick, keys)


def greedy(params: Params, settings: Settings, hyper: Hyper) -> Outcome:
    """Return the architecture of the likeliest decisions, each given those before."""
    nothing = jnp.zeros((2, settings.blocks, 4), jnp.int32)
    return _unroll(params, settings, hyper, lambda logits, _: logits.argmax(), nothing)


def score(
    params: Params,
    arc: Int[Array, "2 blocks 4"] | Int[np.ndarray, "2 blocks 4"],
    settings: Settings,
    hyper: Hyper,
) -> Outcome:
    """Return what the controller says about a given architecture.

    Raises:
        UsageError: for an architecture that it cannot draw, unless that is traced.
    """
    blocks = arc.shape[1]
    if blocks != settings.blocks:
        raise UsageError("architecture", f"{blocks} blocks", f"{settings.blocks}")
    if not isinstance(arc, Tracer):
        cell.check(np.asarray(arc), ops=settings.op_count)
    codes = jnp.asarray(arc, jnp.int32)[..., _STORED]
    return _unroll(params, settings, hyper, lambda logits, code: code, codes)


class _Decision(NamedTuple):
    code: Int[Array, ""]
    log_prob: Float[Array, ""]
    entropy: Float[Array, ""]
    logits: Float[Array, " widest"]


class _State(NamedTuple):
    """Cells and outputs of the LSTM, each `[layers, hidden]`."""

    c: Float[Array, "layers hidden"]
    h: Float[Array, "layers hidden"]


def _unroll(
    params: Params,
    settings: Settings,
    hyper: Hyper,
    pick: Callable[[Array, Any], Array],
    feed: Array,
) -> Outcome:
    """Make all decisions.

    Args:
        params, settings, hyper: as of `sample`.
        pick: the code that follows from a decision's logits and its entry of `feed`.
        feed: `[2, blocks, 4]` keys or codes, in the order of decisions.
    """
    nodes, start = settings.blocks + 2, params["start"]
    block = functools.partial(_block, params, settings, hyper, pick)

    def warm(state, _):
        state = _step(params["lstm"], state, start)
        return state, state.h[-1] @ params["attention_key"]

    def one_cell(state, given):
        prior, own = given
        state, first = lax.scan(warm, state, None, length=2)
        keys = jnp.zeros((nodes, settings.hidden), start.dtype).at[:2].set(first)
        # The two inputs have no anchors of their own.
        carry = state, jnp.zeros_like(keys), keys
        xs = jnp.arange(2, nodes), jnp.tile(prior, (settings.blocks, 1)), own
        (state, _, _), decisions = lax.scan(block, carry, xs)
        return state, decisions

    zeros = jnp.zeros((settings.layers, settings.hidden), start.dtype)
    prior = jnp.where(_is_convolution(settings), 0.25, -0.25).astype(start.dtype)
    # Only the normal cell has a prior.
    priors = jnp.stack([prior, jnp.zeros_like(prior)])
    _, made = lax.scan(one_cell, _State(zeros, zeros), (priors, feed))
    arc = made.code[..., _STORED]
    return Outcome(arc, made.log_prob.sum(), made.entropy.sum(), made.logits)


def _block(params, settings, hyper, pick, carry, given):
    """Make the four decisions of one block."""
    (before, anchors, keys), (node, prior, feed) = carry, given
    width = max(len(keys), settings.op_count)
    widen = lambda logits: jnp.pad(
        logits, (0, width - len(logits)), constant_values=-jnp.inf
    )

    # One body for both kinds of decision keeps the program small.
    def decide(carry, given):
        (state, x), (slot, own) = carry, given
        state = _step(params["lstm"], state, x)
        h, chooses_node = state.h[-1], slot < 2
        nodes = _bounded(_attend(params, h, keys), settings, hyper, 1.0)
        nodes = jnp.where(jnp.arange(len(keys)) < node, nodes, -jnp.inf)
        ops = h @ params["op_kernel"] + params["op_bias"]
        ops = _bounded(ops, settings, hyper, hyper["op_tanh_reduce"]) + prior
        logits = jnp.where(chooses_node, widen(nodes), widen(ops))
        made = _decide(logits, pick(lax.stop_gradient(logits), own))
        anchor, op = anchors[made.code], params["op_embedding"][made.code]
        return (state, jnp.where(chooses_node, anchor, op)), made

    slots = jnp.arange(4), feed
    (state, x), made = lax.scan(decide, (before, params["start"]), slots)
    state = _step(params["lstm"], state, x)
    anchors = anchors.at[node].set(state.h[-1])
    keys = keys.at[node].set(state.h[-1] @ params["attention_key"])
    return (state, anchors, keys), made


def _decide(logits, code):
    log_probs = jax.nn.log_softmax(logits)
    # 0 log 0 is 0, and so is its gradient.
    finite = jnp.where(jnp.isfinite(logits), log_probs, 0)
    entropy = -jnp.sum(jnp.exp(log_probs) * finite)
    code = code.astype(jnp.int32)
    return _Decision(code, log_probs[code], entropy, logits)


def _attend(params, h, keys):
    query = (h @ params["attention_query"])[None]
    return jnp.tanh(keys + query) @ params["attention_score"]


def _bounded(logits, settings, hyper, reduce):
    if settings.temperature != 0:
        logits = logits / hyper["temperature"]
    if settings.tanh_constant != 0:
        logits = hyper["tanh_constant"] / reduce * jnp.tanh(logits)
    return logits


def _step(kernels: Array, state: _State, x: Array) -> _State:
    """Run all LSTM layers once; their gates are in the order i, f, o, g."""
    cells, outputs = [], []
    for layer, kernel in enumerate(kernels):
        i, f, o, g = jnp.split(jnp.concatenate([x, state.h[layer]]) @ kernel, 4)
        c = jax.nn.sigmoid(f) * state.c[layer] + jax.nn.sigmoid(i) * jnp.tanh(g)
        x = jax.nn.sigmoid(o) * jnp.tanh(c)
        cells.append(c)
        outputs.append(x)
    return _State(jnp.stack(cells), jnp.stack(outputs))


def _is_convolution(settings: Settings) -> np.ndarray:
    """Tell which operation ids are convolutions, whatever their quantiser."""
    return np.tile(np.arange(settings.ops) < 2, settings.choices)
