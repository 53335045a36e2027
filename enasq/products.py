"""Products of integer codes by whatever is fastest here: bits, bytes or floats.

All backends give the same integers, or refuse. Their order of speed depends on the
sizes and on the machine; `fastest` states it as a rule that was read off measured
times.
"""

import math
import warnings

import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Int32, Num

from enasq import bitwise, packing
from enasq.packing import Codes, Columns, Packed
from shared.errors import UsageError, check_choice

HOW = ("auto", "words", "broadcast", "int8", "float")
EXACT = 2**24
"""float32 holds all whole numbers up to this one."""


def matmul(
    a: Packed | Codes, b: Columns | Codes, *, how: str = "auto"
) -> Int32[Array, "*rows n"]:
    """Multiply codes exactly.

    Args:
        a: rows of codes, any number of leading axes.
        b: a matrix of codes; its packed form has a window of (1, 1).
        how: "words" and "broadcast" count bits, "int8" and "float" multiply numbers;
            "auto" takes the fastest by `fastest`. Codes of more than 8 bits are not
            packed: they are multiplied as numbers, with a warning unless numbers were
            asked for.

    Raises:
        UsageError: if the inner lengths differ, if sums may pass what the backend
            holds exactly, for another `how`, for kinds and widths of codes that do not
            exist, or, outside compiled functions, for values that are no codes.
    """
    check_choice("how", how, HOW)
    for x in (a, b):
        if isinstance(x, Codes):
            packing.check_kind(x.kind, x.bits, most=16)
            packing.check_values(x.values, x.kind, x.bits)
    length = a.length if isinstance(a, Packed) else a.values.shape[-1]
    inner = b.length if isinstance(b, Columns) else b.values.shape[0]
    if inner != length:
        raise UsageError("b", inner, f"{length} rows, as many as a has columns")
    if isinstance(b, Columns) and b.window != (1, 1):
        raise UsageError("b", b.window, "a window of (1, 1)")
    largest = _largest(a, b, length)
    if largest >= 2**31:
        hint = "Take fewer bits, or the float simulation."
        raise UsageError("a x b", largest, "sums below 2^31", hint)
    wide = [x.bits for x in (a, b) if isinstance(x, Codes) and not _packs(x)]
    if wide and how not in ("float", "int8"):
        warnings.warn(
            f"codes of {max(wide)} bits are multiplied as numbers: "
            f"words take at most {packing.MOST_BITS}",
            stacklevel=2,
        )
        how = "float"
    elif how == "auto":
        how = _choose(a, b, largest)
    if how in ("words", "broadcast"):
        return _by_bits(a, b, how)
    return _by_numbers(a, b, how, largest)


def fastest(
    backend: str, rows: int, length: int, outputs: int, pairs: int, *, packed: bool
) -> str:
    """Return the backend that is fastest for a product `[rows, length, outputs]`.

    Measured on x86 with AVX-512 and on nothing else: counting bits wins, up to
    four popcounts a word pair, except for rows that have yet to be packed and do not
    fill a word. Graphics processors multiply bytes in their tensor
    units; there the rule is an assumption.

    Args:
        backend: of JAX.
        rows, length, outputs: sizes.
        pairs: popcounts for each pair of words.
        packed: whether the rows are packed already.
    """
    if backend != "cpu":
        return "words" if packed and pairs == 1 else "int8"
    if pairs > 4:
        return "int8" if rows * outputs >= 2**12 else "float"
    if length < packing.WORD and not packed:
        return "float"
    return "words"


def _choose(a: Packed | Codes, b: Columns | Codes, largest: int) -> str:
    rows = math.prod(a.planes.shape[1:-1] if isinstance(a, Packed) else _lead(a))
    length = a.length if isinstance(a, Packed) else a.values.shape[-1]
    outputs = (b.planes if isinstance(b, Columns) else b.values).shape[-1]
    pairs = _popcounts(a, b)
    packed = isinstance(a, Packed)
    how = fastest(jax.default_backend(), rows, length, outputs, pairs, packed=packed)
    return "words" if how == "float" and largest >= EXACT and pairs <= 4 else how


def _lead(a: Codes) -> tuple[int, ...]:
    return a.values.shape[:-1]


def _packs(x: Codes) -> bool:
    return x.kind in ("binary", "ternary") or x.bits <= packing.MOST_BITS


def _width(x: Packed | Columns | Codes) -> int:
    return x.bits if isinstance(x, Codes) else x.planes.shape[0]


def _popcounts(a: Packed | Codes, b: Columns | Codes) -> int:
    """Return the popcounts that a pair of words takes."""
    planes = lambda x: packing.planes_of(x.kind, _width(x))
    if b.kind == "ternary":
        return planes(a)
    if a.kind == "ternary":
        return planes(b)
    return planes(a) * planes(b)


def _largest(a: Packed | Codes, b: Columns | Codes, length: int) -> int:
    """Return a bound of the sums."""
    reach = [max(map(abs, packing.span(x.kind, _width(x)))) for x in (a, b)]
    return length * reach[0] * reach[1]


def _by_bits(a: Packed | Codes, b: Columns | Codes, form: str) -> Array:
    if isinstance(a, Codes):
        a = packing.pack(a.values, a.kind, a.bits)
    if isinstance(b, Codes):
        b = packing.pack_columns(b.values, b.kind, b.bits)
    lead = a.planes.shape[1:-1]
    flat = a.planes.reshape(a.planes.shape[0], math.prod(lead), a.planes.shape[-1])
    total = bitwise.product(Packed(flat, a.kind, a.length), b, form=form)
    return total.reshape(*lead, total.shape[-1])


def _by_numbers(a: Packed | Codes, b: Columns | Codes, how: str, largest: int) -> Array:
    left = packing.unpack(a) if isinstance(a, Packed) else a.values
    right = packing.unpack_columns(b)[0, 0] if isinstance(b, Columns) else b.values
    spans = [packing.span(x.kind, _width(x)) for x in (a, b)]
    if how == "int8" and all(_fits_bytes(low, high) for low, high in spans):
        return _bytes(left, right, spans)
    if how == "float" and largest < EXACT:
        return dot(left.astype(jnp.float32), right.astype(jnp.float32))
    return dot(left.astype(jnp.int32), right.astype(jnp.int32))


def _fits_bytes(low: int, high: int) -> bool:
    return high - low < 2**8


def _bytes(left: Array, right: Array, spans: list[tuple[int, int]]) -> Array:
    """Multiply as int8; codes that go to 255 are shifted, and the shift put back."""
    shifts = [128 if high > 127 else 0 for _, high in spans]
    small = [
        (x.astype(jnp.int32) - shift).astype(jnp.int8) if shift else x.astype(jnp.int8)
        for x, shift in zip((left, right), shifts, strict=True)
    ]
    total = dot(*small)
    if shifts[0]:
        column = jnp.sum(right, axis=0, dtype=jnp.int32)
        total = total + shifts[0] * column.reshape((1,) * (total.ndim - 1) + (-1,))
    if shifts[1]:
        row = jnp.sum(small[0], axis=-1, keepdims=True, dtype=jnp.int32)
        total = total + shifts[1] * row
    return total


def dot(a: Num[Array, "*rows k"], b: Num[Array, "k n"]) -> Int32[Array, "*rows n"]:
    """Multiply numbers of one type; the sums are int32."""
    whole = jnp.issubdtype(a.dtype, jnp.integer)
    total = lax.dot_general(
        a,
        b,
        (((a.ndim - 1,), (0,)), ((), ())),
        precision=lax.Precision.HIGHEST,
        preferred_element_type=jnp.int32 if whole else a.dtype,
    )
    return total.astype(jnp.int32)
