"""Integer codes as planes of bits, 32 to a word.

Bit i of word w is position 32 w + i of the last axis; bits behind the end are 0. The
kinds of codes, with the planes of each:

    binary     -1, +1                  one plane: 1 stands for +1
    ternary    -1, 0, +1               the mask (not 0), and the sign (below 0)
    signed     -2^(k-1) .. 2^(k-1)-1   k planes of two's complement, the least first
    unsigned   0 .. 2^k-1              k planes, the least first
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Int, Num, UInt32

from shared.errors import UsageError, check_choice

KINDS = ("binary", "ternary", "signed", "unsigned")
WORD = 32
MOST_BITS = 8
"""Bits of the widest codes that are packed."""

static_field = functools.partial(dataclasses.field, metadata={"static": True})
"""A dataclass field that compiled programs hold fixed."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Packed:
    """Codes whose last axis is packed.

    Attributes:
        planes: `[planes, *rows, words]`.
        kind: one of `KINDS`.
        length: codes along the last axis.
    """

    planes: Array
    kind: str = static_field()
    length: int = static_field()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Columns:
    """A packed matrix whose columns products read: words come first.

    Attributes:
        planes: `[planes, rows * columns * words, outputs]`, by rows and columns of the
            window, then words of the inputs.
        kind: one of `KINDS`.
        length: inputs.
        window: rows and columns of a kernel; a matrix has (1, 1).
    """

    planes: Array
    kind: str = static_field()
    length: int = static_field()
    window: tuple[int, int] = static_field(default=(1, 1))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Codes:
    """Codes that are not packed.

    Attributes:
        values: whole numbers of any type `[..., length]`; as the right operand of a
            product `[length, outputs]`.
        kind: one of `KINDS`.
        bits: k of `signed` and `unsigned`, at most 16.
    """

    values: Array
    kind: str = static_field()
    bits: int = static_field(default=1)


def words_for(length: int) -> int:
    """Return the words that hold so many bits."""
    return -(-length // WORD)


def planes_of(kind: str, bits: int = 1) -> int:
    """Return the number of planes of a kind of codes."""
    return {"binary": 1, "ternary": 2}.get(kind, bits)


def span(kind: str, bits: int = 1) -> tuple[int, int]:
    """Return the least and the largest code of a kind."""
    if kind in ("binary", "ternary"):
        return -1, 1
    if kind == "signed":
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1


def check_kind(kind: str, bits: int, most: int = MOST_BITS) -> None:
    """Raise a UsageError unless codes of this kind and width exist and can be packed.

    Args:
        kind: any string.
        bits: k of `signed` and `unsigned`; others heed it not.
        most: largest width allowed.
    """
    check_choice("kind", kind, KINDS)
    if kind in ("signed", "unsigned") and not 1 <= bits <= most:
        hint = "Wider codes go through the float product." if most < 16 else ""
        raise UsageError("bits", bits, f"an integer from 1 to {most}", hint)


def check_values(values: Array, kind: str, bits: int) -> None:
    """Refuse codes that the kind does not have; traced ones pass unseen."""
    if isinstance(values, Tracer):
        return
    found = np.asarray(values)
    low, high = span(kind, bits)
    wrong = (found < low) | (found > high) | (found != np.round(found))
    if kind == "binary":
        wrong |= found == 0
    if wrong.any():
        allowed = "-1 or 1" if kind == "binary" else f"integers from {low} to {high}"
        raise UsageError(f"{kind} codes", found[wrong].flat[0].item(), allowed)


def pack_bits(bits: Bool[Array, "*rows length"]) -> UInt32[Array, "*rows words"]:
    """Pack booleans, the first into the least bit of the first word.

    Four bytes of 0 or 1 are read as one number; times 2^28 + 2^21 + 2^14 + 2^7 it
    holds their four bits on top, with no carry below them.
    """
    length = bits.shape[-1]
    tail = words_for(length) * WORD - length
    bits = jnp.pad(bits, [(0, 0)] * (bits.ndim - 1) + [(0, tail)])
    quads = bits.astype(jnp.uint8).reshape(*bits.shape[:-1], -1, 8, 4)
    quads = lax.bitcast_convert_type(quads, jnp.uint32)
    nibbles = (quads * jnp.uint32(0x10204080)) >> jnp.uint32(28)
    places = along_last(4 * np.arange(8, dtype=np.uint32), nibbles)
    return jnp.sum(nibbles << places, axis=-1, dtype=jnp.uint32)


def unpack_bits(
    words: UInt32[Array, "*rows words"], length: int
) -> Bool[Array, "*rows length"]:
    """Undo `pack_bits`, given the number of bits."""
    one = words[..., None]
    bits = one >> along_last(np.arange(WORD, dtype=np.uint32), one) & jnp.uint32(1)
    return bits.reshape(*words.shape[:-1], -1)[..., :length] != 0


def along_last(vector: np.ndarray, like: Array) -> Array:
    """Give a vector the rank of an array, along its last axis."""
    return jnp.asarray(vector).reshape((1,) * (like.ndim - 1) + vector.shape)


def bit_planes(
    values: Num[Array, "*shape"] | Num[np.ndarray, "*shape"], kind: str, bits: int = 1
) -> list[Any]:
    """Return the planes of codes, one boolean array each, the least first.

    NumPy in, NumPy out.
    """
    if kind == "binary":
        return [values > 0]
    if kind == "ternary":
        return [values != 0, values < 0]
    whole = values.astype("int32")
    return [(whole >> i) & 1 == 1 for i in range(bits)]


def from_bit_planes(
    planes: list[Bool[Array, "*shape"]], kind: str
) -> Int[Array, "*shape"]:
    """Undo `bit_planes`."""
    base, factors = weights_of(kind, len(planes))
    total = jnp.full(planes[0].shape, base, jnp.int32)
    for factor, plane in zip(factors, planes, strict=True):
        total = total + factor * plane.astype(jnp.int32)
    return total


def weights_of(kind: str, planes: int) -> tuple[int, tuple[int, ...]]:
    """Return c and c_i with code = c + Σ_i c_i plane_i."""
    if kind == "binary":
        return -1, (2,)
    if kind == "ternary":
        return 0, (1, -2)
    powers = [2**i for i in range(planes)]
    if kind == "signed":
        powers[-1] = -powers[-1]
    return 0, tuple(powers)


def pack(values: Num[Array, "*rows length"], kind: str, bits: int = 1) -> Packed:
    """Pack codes along their last axis.

    Args:
        values: whole numbers of any type; with binary codes, positive ones are +1.
        kind: one of `KINDS`.
        bits: k of `signed` and `unsigned`, 1 to 8.

    Raises:
        UsageError: for another kind or width, or, outside compiled functions, for
            values that are no codes of the kind.
    """
    check_kind(kind, bits)
    check_values(values, kind, bits)
    planes = [pack_bits(plane) for plane in bit_planes(values, kind, bits)]
    return Packed(jnp.stack(planes), kind, values.shape[-1])


def unpack(packed: Packed) -> Int[Array, "*rows length"]:
    """Return the codes, int32."""
    bits = [unpack_bits(words, packed.length) for words in packed.planes]
    return from_bit_planes(bits, packed.kind)


def pack_columns(
    values: Num[Array, "inputs outputs"] | Num[Array, "rows columns inputs outputs"],
    kind: str,
    bits: int = 1,
) -> Columns:
    """Pack a matrix, or the kernel of a convolution, as right operand of products.

    Args:
        values: codes.
        kind, bits: as at `pack`.

    Raises:
        UsageError: as `pack`.
    """
    packed = pack(jnp.moveaxis(values, -1, -2), kind, bits)
    planes = jnp.moveaxis(packed.planes, -2, -1)
    window = values.shape[:-2] or (1, 1)
    planes = planes.reshape(planes.shape[0], -1, planes.shape[-1])
    return Columns(planes, kind, packed.length, (window[0], window[1]))


def unpack_columns(columns: Columns) -> Int[Array, "rows columns inputs outputs"]:
    """Undo `pack_columns`; a matrix comes as a kernel of one row and one column."""
    words = jnp.moveaxis(columns.planes, -1, -2)
    words = words.reshape(*words.shape[:2], *columns.window, -1)
    codes = unpack(Packed(words, columns.kind, columns.length))
    return jnp.moveaxis(codes, 0, -1)
