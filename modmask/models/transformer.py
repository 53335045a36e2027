"""Transformer encoder and decoder, layer norms after the residual sums."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

from modmask.models.symbols import append_end, length_of, likeliest, prepend_start
from modmask.models.transformer_layers import (
    Layer,
    Memory,
    Mode,
    decode,
    decoder_step,
    encode,
    init_layer,
    remember,
)
from shared.errors import UsageError, check_range
from shared.layers.attention import length_mask
from shared.layers.dropout import active_key
from shared.layers.embedding import (
    embedding,
    init_embedding,
    sinusoidal_positions,
    unembed,
)
from shared.layers.initializers import xavier_uniform
from shared.layers.linear import init_linear, linear
from shared.model import Model, Variables


def transformer(
    v_in: int,
    v_out: int,
    *,
    width: int,
    ff_multiplier: float | int,
    tied: bool,
    heads: int,
    encoder_layers: int,
    decoder_layers: int,
    dropout: float | int = 0.1,
    max_out: int,
    remat: bool = False,
    dtype: DTypeLike = jnp.float32,
) -> Model:
    """Return a transformer from sequences to sequences.

    The input is a dict of `source` `[batch, time]` and `source_length` `[batch]`; for
    teacher forcing also of `target` `[batch, steps]` and `target_length`. The outputs
    are `logits` `[batch, steps + 1, v_out + 1]` and `length` `[batch]`. Without a
    target the decoder reads its own likeliest symbols for `max_out + 1` steps. End
    symbols are `v_in` and `v_out`; the decoder starts with its own.

    Its parameters are `{"input_embedding", "output_embedding", "output_map", "trafo":
    {"encoder_layers", "decoder_layers"}}`, the second and third only if not tied.

    Args:
        v_in, v_out: sizes of the vocabularies, without end symbols.
        width: of a position; even, and a multiple of `heads`.
        ff_multiplier: hidden units of a feed-forward sub-layer, as a multiple of
            `width`.
        tied: whether source, target and output share one table E of embeddings; then
            logits are h Eᵀ / √width.
        heads: of attention.
        encoder_layers, decoder_layers: how many.
        dropout: in training.
        max_out: longest output without a target.
        remat: compute each layer again in the backward pass instead of keeping what
            is inside it.
        dtype: of the parameters.

    Raises:
        UsageError: for sizes that do not fit, or vocabularies that cannot be tied.

    Reference:
        Vaswani et al. (2017).
    """
    counts = {"v_in": v_in, "v_out": v_out, "width": width, "max_out": max_out}
    layers = {"encoder_layers": encoder_layers, "decoder_layers": decoder_layers}
    for name, size in {**counts, **layers}.items():
        check_range(name, size, low=1)
    check_range("dropout", dropout, low=0, high=1, high_open=True)
    if width % 2 or width % heads:
        raise UsageError("width", width, f"an even multiple of the {heads} heads")
    if tied and v_in != v_out:
        raise UsageError("v_out", v_out, f"{v_in}, the size of the tied vocabulary")
    ff = int(width * ff_multiplier)

    def init(key: Array) -> Variables:
        keys = jax.random.split(key, 4)
        table = lambda key, symbols: init_embedding(key, symbols, width, dtype=dtype)
        params: dict[str, Any] = {"input_embedding": table(keys[0], v_in + 1)}
        if not tied:
            params["output_embedding"] = table(keys[1], v_out + 1)
            params["output_map"] = init_linear(
                keys[2], width, v_out + 1, kernel_init=xavier_uniform(), dtype=dtype
            )
        params["trafo"] = {
            name: [
                init_layer(one, width, ff, heads, cross=i == 1, dtype=dtype)
                for one in jax.random.split(jax.random.fold_in(keys[3], i), count)
            ]
            for i, (name, count) in enumerate(layers.items())
        }
        return Variables(params)

    def apply(
        variables: Variables,
        x: PyTree,
        *,
        train: bool = False,
        key: Array | None = None,
    ) -> tuple[PyTree, PyTree]:
        x = jax.tree.map(jnp.asarray, x)
        params = variables.params
        mode = Mode(heads, dropout, active_key(key, dropout, train=train), remat)
        memory, inside = _read(params, x, mode)
        if "target" in x:
            outputs = _follow(params, x, memory, inside, mode)
        else:
            outputs = _write(params, memory, inside, heads, max_out + 1)
        return outputs, variables.state

    return Model(init, apply)


def _read(params: Layer, x: PyTree, mode: Mode) -> tuple[Array, Array]:
    """Encode the source; return its positions and which of them are in a sequence."""
    table = params["input_embedding"]
    length = x["source_length"].astype(jnp.int32)
    symbols = append_end(x["source"], length, _end(table))
    inside = length_mask(length + 1, symbols.shape[1])
    start = mode.fold(0).drop(_placed(table, symbols))
    return encode(
        params["trafo"]["encoder_layers"], start, inside, mode.fold(1)
    ), inside


def _follow(
    params: Layer, x: PyTree, memory: Array, inside: Array, mode: Mode
) -> dict[str, Array]:
    """Decode with the target as input, all steps at once."""
    table = _table(params)
    length = x["target_length"].astype(jnp.int32)
    ended = append_end(x["target"], length, _end(table))
    symbols = prepend_start(ended[:, :-1], _end(table))
    start = mode.fold(2).drop(_placed(table, symbols))
    layers = params["trafo"]["decoder_layers"]
    h = decode(layers, start, memory, inside, mode.fold(3))
    return {"logits": _logits(params, h), "length": length}


def _write(
    params: Layer, memory: Array, inside: Array, heads: int, steps: int
) -> dict[str, Array]:
    """Decode step by step, the likeliest symbol of each as the input of the next."""
    table, layers = _table(params), params["trafo"]["decoder_layers"]
    rows, _, width = memory.shape
    sources = [remember(layer["multihead_attn"], memory, heads) for layer in layers]
    blank = jnp.zeros((rows, steps, heads, width // heads), memory.dtype)
    positions = sinusoidal_positions(steps, width, dtype=memory.dtype)

    def step(carry: tuple, now: tuple) -> tuple[tuple, Array]:
        caches, symbol = carry
        t, position = now
        h = embedding(table, symbol)[:, None] + position[None, None]
        filled = []
        for layer, cache, source in zip(layers, caches, sources, strict=True):
            h, cache = decoder_step(layer, h, cache, source, inside, t)
            filled.append(cache)
        logits = _logits(params, h[:, 0])
        return (filled, likeliest(logits)), logits

    caches = [Memory(blank, blank)] * len(layers)
    start = jnp.full((rows,), _end(table), jnp.int32)
    times = jnp.arange(steps), positions
    _, logits = jax.lax.scan(step, (caches, start), times)
    logits = jnp.moveaxis(logits, 0, 1)
    return {"logits": logits, "length": length_of(likeliest(logits), _end(table))}


def _end(table: dict[str, Array]) -> int:
    """Return the end symbol: the last of a table."""
    return len(table["table"]) - 1


def _table(params: Layer) -> dict[str, Array]:
    return params.get("output_embedding", params["input_embedding"])


def _placed(table: dict[str, Array], symbols: Array) -> Array:
    """Embed symbols and add their positions."""
    x = embedding(table, symbols)
    return x + sinusoidal_positions(*x.shape[1:], dtype=x.dtype)[None]


def _logits(params: Layer, h: Array) -> Array:
    if "output_map" in params:
        return linear(params["output_map"], h)
    return unembed(params["input_embedding"], h) * h.shape[-1] ** -0.5
