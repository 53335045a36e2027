"""Multi-head attention and its masks, in which true means: may be looked at."""

import math

import chex
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from shared.errors import UsageError
from shared.layers._arrays import widen
from shared.layers.dropout import dropout
from shared.layers.initializers import Initializer, xavier_uniform, zeros
from shared.layers.linear import init_linear, linear

Params = dict[str, dict[str, Array]]


def causal_mask(queries: int, keys: int | None = None) -> Bool[Array, "queries keys"]:
    """Let each position see itself and what is before it.

    Args:
        queries: number of positions that look.
        keys: number of those looked at, as many by default. If there are more, queries
            are the last of them.
    """
    keys = queries if keys is None else keys
    return jnp.tri(queries, keys, keys - queries, dtype=bool)


def length_mask(lengths: Int[Array, "*batch"], size: int) -> Bool[Array, "*batch size"]:
    """Tell for each sequence, padded to `size`, which positions are inside it."""
    positions = jnp.arange(size, dtype=lengths.dtype)
    shape = (*lengths.shape, size)
    return jnp.broadcast_to(positions, shape) < jnp.expand_dims(lengths, -1)


def init_attention(
    key: Array,
    width: int,
    heads: int,
    *,
    memory_width: int | None = None,
    bias: bool = True,
    kernel_init: Initializer | None = None,
    bias_init: Initializer | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Params:
    """Return projections `query`, `key`, `value`, `merge`, each as from `init_linear`.

    Column h d + i of the first three belongs to place i of head h, d = width / heads.

    Args:
        key: consumed.
        width: of queries and outputs.
        heads: number of heads, a divisor of `width`.
        memory_width: width of what is attended to; `width` by default.
        bias: whether projections have one.
        kernel_init, bias_init: by default `xavier_uniform` and zeros.
        dtype: of the parameters.

    Raises:
        UsageError: if `heads` does not divide `width`.
    """
    _check_heads(heads, width)
    from_memory = width if memory_width is None else memory_width
    inputs = {"query": width, "key": from_memory, "value": from_memory, "merge": width}
    keys = jax.random.split(key, len(inputs))
    return {
        name: init_linear(
            one,
            size,
            width,
            bias=bias,
            kernel_init=kernel_init or xavier_uniform(),
            bias_init=bias_init or zeros,
            dtype=dtype,
        )
        for one, (name, size) in zip(keys, inputs.items(), strict=True)
    }


def attention(
    params: Params,
    x: Float[Array, "*batch queries width"],
    memory: Float[Array, "*batch keys memory_width"] | None = None,
    *,
    heads: int,
    mask: Bool[Array, "..."] | None = None,
    train: bool = False,
    dropout_rate: float | int | Float[Array, ""] = 0.0,
    key: Array | None = None,
    keep: Bool[Array, "..."] | None = None,
    dtype: DTypeLike | None = None,
) -> Float[Array, "*batch queries width"]:
    """Let each query gather values from the positions that match it.

    For each head, y = softmax(q kᵀ / √d) v with q, k, v of width d = width / heads;
    the heads are concatenated and merged. A query that may look at nothing gets zeros
    (plus the bias of `merge`).

    Args:
        params: from `init_attention`.
        x: what the queries are made of.
        memory: what keys and values are made of; x itself by default.
        heads: number of heads.
        mask: true where a query may look; broadcast to `[*batch, queries, keys]`, so
            one of `[queries, keys]` serves all, and one of lengths needs a 1 for the
            queries: `length_mask(lengths, keys)[:, None, :]`.
        train, dropout_rate, key, keep: dropout of the weights after the softmax, in
            training; `keep` is `[*batch, heads, queries, keys]`. See `dropout`.
        dtype: type of computation and result; that of `params` by default. The softmax
            is at least float32.

    Reference:
        Vaswani et al. (2017), section 3.2.
    """
    memory = x if memory is None else memory
    _check_heads(heads, params["query"]["kernel"].shape[1])
    chex.assert_equal_rank([x, memory])

    def split_heads(name: str, source: Array) -> Array:
        flat = linear(params[name], source, dtype=dtype)
        return flat.reshape(*flat.shape[:-1], heads, flat.shape[-1] // heads)

    q, k, v = (
        split_heads(name, source)
        for name, source in (("query", x), ("key", memory), ("value", memory))
    )
    match = jnp.einsum("...qhd,...khd->...hqk", q, k) / math.sqrt(q.shape[-1])
    weights = _softmax(match, mask).astype(v.dtype)
    weights = dropout(weights, dropout_rate, train=train, key=key, keep=keep)
    y = jnp.einsum("...hqk,...khd->...qhd", weights, v)
    return linear(params["merge"], y.reshape(*y.shape[:-2], -1), dtype=dtype)


def _softmax(match: Array, mask: Array | None) -> Array:
    """Return the softmax over the last axis, zero where masked."""
    match = widen(match)
    if mask is None:
        return jax.nn.softmax(match)
    *batch, _, queries, keys = match.shape
    mask = jnp.broadcast_to(mask, (*batch, queries, keys))
    mask = jnp.broadcast_to(jnp.expand_dims(mask, -3), match.shape)
    # A finite low value, since rows of -inf alone have no gradient.
    low = jnp.full_like(match, jnp.finfo(match.dtype).min)
    weights = jax.nn.softmax(jnp.where(mask, match, low))
    return jnp.where(mask, weights, jnp.zeros_like(weights))


def _check_heads(heads: int, width: int) -> None:
    if heads < 1 or width % heads:
        raise UsageError("heads", heads, f"a divisor of the width {width}")
