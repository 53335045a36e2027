"""Layers of a transformer, with layer norms after the residual sums."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from shared.layers.attention import attention, causal_mask, init_attention
from shared.layers.dropout import dropout as drop
from shared.layers.initializers import variance_scaling, xavier_uniform
from shared.layers.linear import init_linear, linear
from shared.layers.norm import init_layer_norm, layer_norm

Layer = dict[str, Any]


class Mode(NamedTuple):
    """How layers are computed.

    Attributes:
        heads: of attention.
        rate: of dropout: of attention weights, inside and behind each sub-layer.
        key: None for no dropout.
        remat: compute a layer again in the backward pass instead of keeping what is
            inside it.
    """

    heads: int
    rate: float | int = 0.0
    key: Array | None = None
    remat: bool = False

    def fold(self, number: int) -> "Mode":
        """Return the same with a key of its own."""
        if self.key is None:
            return self
        return self._replace(key=jax.random.fold_in(self.key, number))

    def drop(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Apply dropout."""
        train = self.key is not None
        return drop(x, self.rate, train=train, key=self.key)


class Memory(NamedTuple):
    """Keys and values of some positions.

    Attributes:
        keys, values: `[batch, positions, heads, width / heads]`.
    """

    keys: Float[Array, "batch positions heads size"]
    values: Float[Array, "batch positions heads size"]


def init_layer(
    key: Array,
    width: int,
    ff: int,
    heads: int,
    *,
    cross: bool = False,
    dtype: DTypeLike = jnp.float32,
) -> Layer:
    """Return `self_attn`, `linear1`, `linear2` and norms of an encoder layer.

    Args:
        key: consumed.
        width: of a position.
        ff: hidden units of the feed-forward sub-layer.
        heads: of attention.
        cross: add `multihead_attn` and a third norm, for a decoder layer.
        dtype: of the parameters.
    """
    keys = jax.random.split(key, 4)
    look = lambda key: init_attention(key, width, heads, bias=False, dtype=dtype)
    # Xavier-uniform with the gain √2 of rectifiers.
    rectified = variance_scaling(2.0, "fan_avg", "uniform")
    layer = {
        "self_attn": look(keys[0]),
        "linear1": init_linear(keys[1], width, ff, kernel_init=rectified, dtype=dtype),
        "linear2": init_linear(
            keys[2], ff, width, kernel_init=xavier_uniform(), dtype=dtype
        ),
        "norm1": init_layer_norm(width, dtype=dtype),
        "norm2": init_layer_norm(width, dtype=dtype),
    }
    if cross:
        layer["multihead_attn"] = look(keys[3])
        layer["norm3"] = init_layer_norm(width, dtype=dtype)
    return layer


def encode(
    layers: list[Layer],
    x: Float[Array, "batch time width"],
    inside: Bool[Array, "batch time"],
    mode: Mode,
) -> Float[Array, "batch time width"]:
    """Run the encoder's layers; `inside` tells which positions are in a sequence."""
    run = _rematerialised(encoder_layer, mode)
    for i, layer in enumerate(layers):
        x = run(layer, x, inside, mode.fold(i).key)
    return x


def decode(
    layers: list[Layer],
    x: Float[Array, "batch steps width"],
    memory: Float[Array, "batch time width"],
    inside: Bool[Array, "batch time"],
    mode: Mode,
) -> Float[Array, "batch steps width"]:
    """Run the decoder's layers over all steps at once."""
    run = _rematerialised(decoder_layer, mode)
    for i, layer in enumerate(layers):
        x = run(layer, x, memory, inside, mode.fold(i).key)
    return x


def _rematerialised(layer: Callable, mode: Mode) -> Callable:
    def run(params: Layer, *inputs: Any) -> Array:
        *arrays, key = inputs
        return layer(params, *arrays, mode._replace(key=key))

    return jax.checkpoint(run) if mode.remat else run


def encoder_layer(
    params: Layer,
    x: Float[Array, "batch time width"],
    inside: Bool[Array, "batch time"],
    mode: Mode,
) -> Float[Array, "batch time width"]:
    """Look around, then transform each position; each sub-layer N(x + drop(f(x)))."""
    looked = _attend(params["self_attn"], x, x, inside[:, None, :], mode.fold(0))
    x = _add(params["norm1"], x, looked, mode.fold(1))
    return _add(params["norm2"], x, _feed(params, x, mode.fold(2)), mode.fold(3))


def decoder_layer(
    params: Layer,
    x: Float[Array, "batch steps width"],
    memory: Float[Array, "batch time width"],
    inside: Bool[Array, "batch time"],
    mode: Mode,
) -> Float[Array, "batch steps width"]:
    """Look back, at the memory, then transform each position."""
    before = causal_mask(x.shape[1])
    looked = _attend(params["self_attn"], x, x, before, mode.fold(0))
    x = _add(params["norm1"], x, looked, mode.fold(1))
    read = _attend(
        params["multihead_attn"], x, memory, inside[:, None, :], mode.fold(2)
    )
    x = _add(params["norm2"], x, read, mode.fold(3))
    return _add(params["norm3"], x, _feed(params, x, mode.fold(4)), mode.fold(5))


def decoder_step(
    params: Layer,
    x: Float[Array, "batch 1 width"],
    cache: Memory,
    memory: Memory,
    inside: Bool[Array, "batch time"],
    t: Int[Array, ""],
) -> tuple[Float[Array, "batch 1 width"], Memory]:
    """Take step t of a decoder layer without dropout.

    Args:
        params: of the layer.
        x: the layer's input at step t.
        cache: keys and values of the steps before, of the layer's own inputs.
        memory: keys and values of the encoder's outputs.
        inside: which of these are in a sequence.
        t: from 0.

    Returns:
        The layer's output, and the cache with step t.
    """
    mode = Mode(cache.keys.shape[2])
    now = remember(params["self_attn"], x, mode.heads)
    write = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, t, axis=1)
    cache = Memory(*map(write, cache, now))
    known = jnp.arange(cache.keys.shape[1])[None, :] <= t
    x = _add(params["norm1"], x, recall(params["self_attn"], x, cache, known), mode)
    read = recall(params["multihead_attn"], x, memory, inside)
    x = _add(params["norm2"], x, read, mode)
    return _add(params["norm3"], x, _feed(params, x, mode), mode), cache


def remember(
    params: Layer, x: Float[Array, "batch positions width"], heads: int
) -> Memory:
    """Return the keys and values that attention makes of positions."""
    split = lambda y: y.reshape(*y.shape[:-1], heads, y.shape[-1] // heads)
    return Memory(*(split(linear(params[name], x)) for name in ("key", "value")))


def recall(
    params: Layer,
    x: Float[Array, "batch 1 width"],
    memory: Memory,
    known: Bool[Array, "#batch positions"],
) -> Float[Array, "batch 1 width"]:
    """Let one position look at keys and values: attention without computing these."""
    rows, _, heads, size = memory.keys.shape
    query = linear(params["query"], x).reshape(rows, heads, size)
    match = jnp.einsum("bhd,bkhd->bhk", query, memory.keys) / math.sqrt(size)
    weights = jax.nn.softmax(jnp.where(known[:, None], match, -jnp.inf))
    y = jnp.einsum("bhk,bkhd->bhd", weights, memory.values)
    return linear(params["merge"], y.reshape(x.shape))


def _attend(params: Layer, x: Array, memory: Array, mask: Array, mode: Mode) -> Array:
    return attention(
        params,
        x,
        memory,
        heads=mode.heads,
        mask=mask,
        train=mode.key is not None,
        dropout_rate=mode.rate,
        key=mode.key,
    )


def _feed(params: Layer, x: Array, mode: Mode) -> Array:
    hidden = jax.nn.relu(linear(params["linear1"], x))
    return linear(params["linear2"], mode.drop(hidden))


def _add(norm: Layer, x: Array, y: Array, mode: Mode) -> Array:
    return layer_norm(norm, x + mode.drop(y), form="deviation")
