"""Products of packed matrices, by counting bits: exact integers.

A code is an affine function of its bits, code = c + Σ_i c_i bit_i, so a product of two
rows of codes is a sum over pairs of planes of popcounts, plus what depends on one of
both alone. With xor in place of and, fewer pairs do:

    binary x binary     n - 2 |a ^ b|
    any x ternary       Σ_i c_i (|(a_i ^ s) & m| - |s|) + c (|m| - 2 |s|)
    k-bit x binary      Σ_i c_i (|b| - |a_i ^ b|)
    other               Σ_ij c_i d_j |a_i & b_j| + n c d
                        + c Σ_j d_j |b_j| + d Σ_i c_i |a_i|

where m and s are the mask and the sign of ternary codes, and |.| counts ones.

Reference: Courbariaux et al. (2016), arXiv 1602.02830; Rastegari et al. (2016),
arXiv 1603.05279; Zhou et al. (2016), arXiv 1606.06160.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Int32, UInt32

from enasq.packing import Columns, Packed, weights_of

UNROLL = 64
"""Popcounts in the body of a loop. Longer products take several loops."""

CLASH, GAP = 512, 48
"""Columns whose multiples are kept apart in memory, and by how many more columns."""

WIDE = {"xla_cpu_prefer_vector_width": 512}
"""Options of `jax.jit` for programs of these products on CPUs with long vectors."""

Words = list[Array]


class Pair(NamedTuple):
    """One popcount for every word of two operands.

    Attributes:
        factor: of the count.
        combine: (planes of a, planes of b) -> bits to count.
    """

    factor: int
    combine: Callable[[Words, Words], Array]


class Plan(NamedTuple):
    """How two kinds of codes are multiplied.

    Attributes:
        pairs: what is counted for every output.
        constant: of an output, for every code of the inner axis.
        row: factors of the ones in each plane of a, added to its row.
        column: likewise for b.
    """

    pairs: tuple[Pair, ...]
    constant: int
    row: tuple[int, ...]
    column: tuple[int, ...]


def plan(a: Packed | Columns, b: Packed | Columns) -> Plan:
    """Return how to multiply codes of these kinds."""
    kinds, counts = (a.kind, b.kind), (a.planes.shape[0], b.planes.shape[0])
    (c, cs), (d, ds) = (weights_of(*x) for x in zip(kinds, counts, strict=True))
    none_a, none_b = (0,) * counts[0], (0,) * counts[1]
    if kinds == ("binary", "binary"):
        return Plan((Pair(-2, lambda a, b: a[0] ^ b[0]),), 1, none_a, none_b)
    if b.kind == "ternary":
        pairs = tuple(Pair(f, _masked(i)) for i, f in enumerate(cs))
        return Plan(pairs, 0, none_a, (c, -2 * c - sum(cs)))
    if a.kind == "ternary":
        turned = plan(b, a)
        swap = lambda fn: lambda a, b: fn(b, a)
        pairs = tuple(Pair(f, swap(fn)) for f, fn in turned.pairs)
        return Plan(pairs, 0, turned.column, none_b)
    if b.kind == "binary":
        pairs = tuple(Pair(-f, _differing(i)) for i, f in enumerate(cs))
        return Plan(pairs, 0, none_a, (sum(cs),))
    pairs = tuple(
        Pair(f * g, _shared(i, j)) for i, f in enumerate(cs) for j, g in enumerate(ds)
    )
    return Plan(pairs, c * d, tuple(d * f for f in cs), tuple(c * g for g in ds))


def _masked(i: int) -> Callable[[Words, Words], Array]:
    return lambda a, b: (a[i] ^ b[1]) & b[0]


def _differing(i: int) -> Callable[[Words, Words], Array]:
    return lambda a, b: a[i] ^ b[0]


def _shared(i: int, j: int) -> Callable[[Words, Words], Array]:
    return lambda a, b: a[i] & b[j]


def product(a: Packed, b: Columns, *, form: str = "words") -> Int32[Array, "m n"]:
    """Multiply packed rows by packed columns.

    Args:
        a: planes `[planes, m, words]`, one row an output row; the words of patches lie
            behind each other.
        b: planes `[planes, words, n]`.
        form: "words" adds up word by word, "broadcast" sums an array of all words,
            which is for very few of them.
    """
    todo = plan(a, b)
    taps = b.window[0] * b.window[1]
    counts = _broadcast if form == "broadcast" else _by_words
    total = counts(a.planes, b.planes, todo.pairs)
    constant = todo.constant * a.length * taps
    total = total + constant if constant else total
    if any(todo.column):
        total = total + weighted_ones(b.planes, todo.column, axis=0)[None, :]
    if any(todo.row):
        total = total + weighted_ones(a.planes, todo.row, axis=1)[:, None]
    return total


def weighted_ones(
    planes: UInt32[Array, "planes _ _"], factors: tuple[int, ...], axis: int
) -> Int32[Array, " _"]:
    """Return Σ_i f_i |plane_i|, ones counted along an axis of words."""
    counts = jnp.sum(
        lax.population_count(planes).astype(jnp.int32), axis=axis + 1, dtype=jnp.int32
    )
    return sum(
        (f * count for f, count in zip(factors, counts, strict=True) if f),
        jnp.zeros_like(counts[0]),
    )


def _by_words(a: Array, b: Array, pairs: tuple[Pair, ...]) -> Array:
    words, body = a.shape[-1], max(UNROLL // len(pairs), 1)
    b = _apart(b)
    total = _unrolled(a[..., :body], b[:, :body], pairs)
    for start in range(body, words, body):
        end = min(start + body, words)
        part = _unrolled(a[..., start:end], b[:, start:end], pairs)
        # Each part is a loop of its own, which keeps programs of long rows small. A
        # compiled loop over parts would slice b inside, and lose its vectors.
        total = lax.optimization_barrier(total + part)
    return total


def _apart(b: Array) -> Array:
    """Return columns whose words do not lie a multiple of 2 kB apart on a CPU.

    Such words share a few places of the first cache, and those of one column drive each
    other out before the next row reads them.
    """
    count = b.shape[-1]
    if jax.default_backend() != "cpu" or count % CLASH:
        return b
    wide = jnp.pad(b, ((0, 0), (0, 0), (0, GAP)))
    return lax.optimization_barrier(wide)[..., :count]


def _unrolled(a: Array, b: Array, pairs: tuple[Pair, ...]) -> Array:
    sums: dict[int, Array] = {}
    for w in range(a.shape[-1]):
        left = [plane[:, w][:, None] for plane in a]
        right = [plane[w][None] for plane in b]
        for factor, combine in pairs:
            ones = lax.population_count(combine(left, right)).astype(jnp.int32)
            sums[factor] = sums[factor] + ones if factor in sums else ones
    return _weighted(sums)


def _broadcast(a: Array, b: Array, pairs: tuple[Pair, ...]) -> Array:
    left, right = [plane[:, :, None] for plane in a], [plane[None] for plane in b]
    sums: dict[int, Array] = {}
    for factor, combine in pairs:
        ones = lax.population_count(combine(left, right)).astype(jnp.int32)
        ones = jnp.sum(ones, axis=1, dtype=jnp.int32)
        sums[factor] = sums[factor] + ones if factor in sums else ones
    return _weighted(sums)


def _weighted(sums: dict[int, Array]) -> Array:
    total = [factor * ones for factor, ones in sums.items()]
    return sum(total[1:], total[0])
