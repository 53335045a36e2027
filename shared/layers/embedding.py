"""Embeddings of symbols and of positions."""

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from shared.errors import UsageError
from shared.layers._arrays import cast
from shared.layers.initializers import Initializer, embedding_normal


def init_embedding(
    key: Array,
    symbols: int,
    width: int,
    *,
    table_init: Initializer | None = None,
    dtype: DTypeLike = jnp.float32,
) -> dict[str, Array]:
    """Return `table` `[symbols, width]`.

    Args:
        key: consumed.
        symbols: size of the vocabulary.
        width: of an embedding.
        table_init: N(0, 1) by default.
        dtype: of the table.
    """
    return {"table": (table_init or embedding_normal())(key, (symbols, width), dtype)}


def embedding(
    params: dict[str, Array],
    symbols: Int[Array, "*shape"],
    *,
    dtype: DTypeLike | None = None,
) -> Float[Array, "*shape width"]:
    """Look symbols up; one beyond the table gives NaN, so it is not overlooked.

    Args:
        params: `table`.
        symbols: integers from 0.
        dtype: type of the result; that of `params` by default.
    """
    (params,) = cast(params, dtype)
    return jnp.take(params["table"], symbols, axis=0, mode="fill")


def unembed(
    params: dict[str, Array],
    x: Float[Array, "*shape width"],
    *,
    dtype: DTypeLike | None = None,
) -> Float[Array, "*shape symbols"]:
    """Compare with all embeddings, for an output tied to the table: y = x Eᵀ."""
    params, x = cast(params, dtype, x)
    return jnp.dot(x, params["table"].T)


def sinusoidal_positions(
    length: int, width: int, *, dtype: DTypeLike = jnp.float32
) -> Float[Array, "length width"]:
    """Encode positions: p[t, 2i] = sin(t / 10000^(2i/width)), p[t, 2i+1] = cos(same).

    Args:
        length: number of positions, from 0.
        width: even.
        dtype: of the result; computed in float64.

    Reference:
        Vaswani et al. (2017), section 3.5.
    """
    if width % 2:
        raise UsageError("width", width, "an even number")
    rates = np.exp(-np.log(10000.0) * np.arange(0, width, 2) / width)
    angles = np.arange(length)[:, None] * rates[None, :]
    both = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    return jnp.asarray(both.reshape(length, width), dtype)
