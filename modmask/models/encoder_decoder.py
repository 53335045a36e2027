"""LSTM encoder and decoder without attention: states are all that they share."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PyTree

from modmask.models.lstm import init_stack, stack
from modmask.models.symbols import append_end, length_of, likeliest
from shared.errors import check_range
from shared.layers.dropout import active_key
from shared.layers.dropout import dropout as drop
from shared.layers.embedding import embedding as embed
from shared.layers.embedding import init_embedding
from shared.layers.linear import init_linear, linear
from shared.layers.recurrent import LSTMState, lstm_cell
from shared.model import Model, Variables


class Dropout(NamedTuple):
    """Its rate, and the key that it is drawn with: None draws nothing."""

    rate: float | int
    key: Array | None

    def fold(self, number: int) -> "Dropout":
        """Return the same with a key of its own."""
        if self.key is None:
            return self
        return self._replace(key=jax.random.fold_in(self.key, number))

    def of(self, x: Float[Array, "*shape"], place: int) -> Float[Array, "*shape"]:
        """Apply it; each place has a key of its own."""
        own = self.fold(place)
        return drop(x, self.rate, train=own.key is not None, key=own.key)


def encoder_decoder(
    v_in: int,
    v_out: int,
    *,
    hidden: int,
    layers: int,
    embedding: int,
    dropout: float | int,
    max_out: int,
    encoder_skip_eos: bool = False,
    dtype: DTypeLike = jnp.float32,
) -> Model:
    """Return an LSTM that reads a sequence, and one that writes from its last states.

    The input is a dict of `source` `[batch, time]` and `source_length` `[batch]`; with
    a reference also of `target` `[batch, steps]`, `target_length` and `teacher`
    `[batch]` (by default true). Where `teacher` is true, the decoder reads the
    reference, elsewhere the likeliest symbol of the step before. The outputs are
    `logits` `[batch, steps + 1, v_out + 1]` (`max_out + 1` steps without a reference)
    and `length` `[batch]`: that of the reference where it is read, elsewhere the number
    of steps before the first end symbol. End symbols are `v_in` and `v_out`; the
    decoder starts with its own.

    Its parameters are `{"encoder": {"embedding", "lstm"}, "decoder": {"embedding",
    "lstm", "output_projection"}}`.

    Args:
        v_in, v_out: sizes of the vocabularies, without end symbols.
        hidden: units of each layer.
        layers: of the encoder, and of the decoder.
        embedding: width of an embedded symbol.
        dropout: of embedded symbols and between layers, in training.
        max_out: longest output without a reference.
        encoder_skip_eos: leave the encoder in the state before the end symbol, as the
            published program does.
        dtype: of the parameters.

    Reference:
        Sutskever et al. (2014).
    """
    sizes = {"v_in": v_in, "v_out": v_out, "hidden": hidden, "layers": layers}
    for name, size in {**sizes, "embedding": embedding, "max_out": max_out}.items():
        check_range(name, size, low=1)
    check_range("dropout", dropout, low=0, high=1, high_open=True)

    def init(key: Array) -> Variables:
        keys = jax.random.split(key, 3)
        sides = [
            _init_side(one, symbols + 1, embedding, hidden, layers, dtype)
            for one, symbols in zip(keys, (v_in, v_out), strict=False)
        ]
        readout = init_linear(keys[2], hidden, v_out + 1, dtype=dtype)
        decoder = {**sides[1], "output_projection": readout}
        return Variables({"encoder": sides[0], "decoder": decoder})

    def apply(
        variables: Variables,
        x: PyTree,
        *,
        train: bool = False,
        key: Array | None = None,
    ) -> tuple[PyTree, PyTree]:
        # The published program has dropout wherever it decodes freely.
        own = Dropout(dropout, active_key(key, dropout, train=train))
        x = jax.tree.map(jnp.asarray, x)
        encoder, decoder = (variables.params[name] for name in ("encoder", "decoder"))
        states = _read(encoder, x, encoder_skip_eos, own.fold(0))
        outputs = _write(decoder, states, x, max_out, own.fold(1))
        return outputs, variables.state

    return Model(init, apply)


def _read(
    params: dict[str, Any], x: PyTree, skip_end: bool, dropout: Dropout
) -> list[LSTMState]:
    """Return the encoder's states behind each sequence."""
    length = x["source_length"].astype(jnp.int32)
    embedded = _embedded(params, append_end(x["source"], length, _end(params)), dropout)
    consumed = length if skip_end else length + 1
    rate, key = dropout
    return stack(params["lstm"], embedded, lengths=consumed, rate=rate, key=key)[1]


def _write(
    params: dict[str, Any],
    states: list[LSTMState],
    x: PyTree,
    max_out: int,
    dropout: Dropout,
) -> dict[str, Array]:
    """Decode, each step with the reference's symbol or its own as the next input."""
    end, rows = _end(params), len(x["source"])
    reference, teacher = _reference(x, rows, max_out)

    def step(carry: tuple, now: tuple) -> tuple[tuple, Array]:
        states, symbol = carry
        target, key = now
        own = dropout._replace(key=key)
        h, states = _advance(params, states, symbol, own)
        logits = linear(params["output_projection"], h)
        return (states, jnp.where(teacher, target, likeliest(logits))), logits

    key, steps = dropout.key, len(reference)
    keys = None if key is None else jax.random.split(key, steps)
    start = jnp.full((rows,), end, jnp.int32)
    _, logits = jax.lax.scan(step, (states, start), (reference, keys))
    logits = jnp.moveaxis(logits, 0, 1)
    length = length_of(likeliest(logits), end)
    if "target" in x:
        length = jnp.where(teacher, x["target_length"].astype(jnp.int32), length)
    return {"logits": logits, "length": length}


def _init_side(
    key: Array, symbols: int, width: int, hidden: int, layers: int, dtype: DTypeLike
) -> dict[str, Any]:
    table_key, lstm_key = jax.random.split(key)
    return {
        "embedding": init_embedding(table_key, symbols, width, dtype=dtype),
        "lstm": init_stack(lstm_key, width, hidden, layers, dtype=dtype),
    }


def _end(params: dict[str, Any]) -> int:
    """Return a side's end symbol: the last of its table."""
    return len(params["embedding"]["table"]) - 1


def _embedded(
    params: dict[str, Any], symbols: Int[Array, "*shape"], dropout: Dropout
) -> Float[Array, "*shape width"]:
    return dropout.of(embed(params["embedding"], symbols), 0)


def _reference(
    x: PyTree, rows: int, max_out: int
) -> tuple[Int[Array, "steps batch"], Array]:
    """Return the symbols to follow the first one, by step, and which rows read them."""
    if "target" not in x:
        return jnp.zeros((max_out + 1, rows), jnp.int32), jnp.zeros(rows, bool)
    # What the last step would hand on is read by none.
    reference = jnp.pad(x["target"].astype(jnp.int32), ((0, 0), (0, 1))).T
    return reference, x.get("teacher", jnp.ones(rows, bool))


def _advance(
    params: dict[str, Any],
    states: list[LSTMState],
    symbol: Int[Array, " batch"],
    dropout: Dropout,
) -> tuple[Float[Array, "batch hidden"], list[LSTMState]]:
    """Take one step with all layers."""
    x, new = _embedded(params, symbol, dropout), []
    for i, (layer, state) in enumerate(zip(params["lstm"], states, strict=True)):
        new.append(lstm_cell(layer, state, dropout.of(x, i) if i else x))
        x = new[-1].h
    return x, new
