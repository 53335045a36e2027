"""Sequences of symbols, padded with 0, that end with a symbol of their own."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Integer


def append_end(
    ids: Integer[Array, "batch time"], length: Integer[Array, " batch"], end: int
) -> Int[Array, "batch longer"]:
    """Put `end` behind each sequence; time becomes one step longer."""
    longer = jnp.pad(ids.astype(jnp.int32), ((0, 0), (0, 1)))
    return jnp.where(at(length, longer.shape[1]), end, longer)


def prepend_start(
    ids: Integer[Array, "batch time"], start: int
) -> Int[Array, "batch longer"]:
    """Put `start` before each sequence; time becomes one step longer."""
    return jnp.pad(ids.astype(jnp.int32), ((0, 0), (1, 0)), constant_values=start)


def at(length: Integer[Array, " batch"], size: int) -> Bool[Array, "batch size"]:
    """Return whether a step is the first one behind its sequence."""
    return jnp.arange(size)[None, :] == length[:, None]


def likeliest(logits: Float[Array, "*lead symbols"]) -> Int[Array, "*lead"]:
    """Return the symbols of the largest logits."""
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def length_of(ids: Int[Array, "batch time"], end: int) -> Int[Array, " batch"]:
    """Count the steps before the first `end`; all of them if there is none."""
    ended = jnp.cumsum(ids == end, axis=1) > 0
    return jnp.sum(~ended, axis=1, dtype=jnp.int32)
