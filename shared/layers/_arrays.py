"""What the layers share: the type of computation, and explicit broadcasting."""

from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from shared.errors import UsageError


def cast(
    params: dict[str, Array], dtype: DTypeLike | None, *arrays: Array
) -> tuple[Any, ...]:
    """Return params and arrays in the type of computation, that of params if None."""
    if dtype is None:
        dtype = next(iter(params.values())).dtype
    own = {name: value.astype(dtype) for name, value in params.items()}
    return own, *(jnp.asarray(array, dtype) for array in arrays)


def widen(array: Array) -> Array:
    """Return an array of float32 at least, for sums over many values."""
    narrow = jnp.finfo(array.dtype).bits < 32
    return array.astype(jnp.float32) if narrow else array


def per_channel(vector: Array, like: Array) -> Array:
    """Give a vector `[channels]` the rank of an array with channels last."""
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)


def pair(argument: str, value: int | tuple[int, int]) -> tuple[int, int]:
    """Return a size along height and width, given one or both."""
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) != 2 or min(both) < 1:
        raise UsageError(argument, value, "an integer >= 1, or two")
    return both


def explicit_padding(
    padding: str | int | tuple[tuple[int, int], ...],
    size: tuple[int, ...],
    window: tuple[int, ...],
    stride: tuple[int, ...],
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return zeros to put before and after the rows, and the columns.

    "SAME" gives outputs of `ceil(size / stride)`, the larger half of the zeros after.

    Args:
        padding: "SAME", "VALID", a number for all sides, or both pairs themselves.
        size, window, stride: height and width each; `window` with its dilation.

    Raises:
        UsageError: for anything else.
    """
    if padding == "VALID":
        return (0, 0), (0, 0)
    if padding == "SAME":
        out = [-(-n // s) for n, s in zip(size, stride, strict=True)]
        total = [
            max((o - 1) * s + w - n, 0)
            for o, s, w, n in zip(out, stride, window, size, strict=True)
        ]
        high, wide = total
        return (high // 2, high - high // 2), (wide // 2, wide - wide // 2)
    if isinstance(padding, int) and padding >= 0:
        return (padding, padding), (padding, padding)
    if isinstance(padding, tuple | list) and [len(p) for p in padding] == [2, 2]:
        (top, bottom), (left, right) = padding
        return (top, bottom), (left, right)
    allowed = '"SAME", "VALID", an integer >= 0 or ((top, bottom), (left, right))'
    raise UsageError("padding", padding, allowed)
