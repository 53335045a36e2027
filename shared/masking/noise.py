"""Random numbers of mask samples, each by (key, sample, parameter, weight) alone."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, UInt32

SOURCES = ("hash", "threefry")


def logistic_noise(uniform: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return standard logistic noise log u - log(1 - u) from uniform draws."""
    return jnp.log(uniform) - jnp.log1p(-uniform)


def gumbel_noise(uniform: Float[Array, "2 ..."]) -> Float[Array, "..."]:
    """Return logistic noise as a difference of two Gumbel draws, to replay a program.

    -log(log(u₁ + ε) / log(u₀ + ε) + ε), ε = 1e-10.
    """
    first, second = jnp.log(uniform + 1e-10)
    return -jnp.log(second / first + 1e-10)


def sample_keys(key: Array, n: int, first: int | Int[Array, ""]) -> Array:
    """Return the keys of samples first, ..., first + n - 1."""
    return jax.vmap(lambda k: jax.random.fold_in(key, k))(first + jnp.arange(n))


def sample_seeds(keys: Array, leaves: int) -> UInt32[Array, "leaves n 2"]:
    """Return two words of seed for each parameter and sample."""
    words = jax.vmap(lambda key: jax.random.bits(key, (leaves, 2), jnp.uint32))(keys)
    return jnp.moveaxis(words, 0, 1)


def threefry_uniform(
    keys: Array, leaf: int, shape: tuple[int, ...], dtype: jnp.dtype
) -> Float[Array, "..."]:
    """Return uniform draws `[n, *shape]` in (0, 1) of a tree's `leaf`-th parameter."""
    # A draw of 0 would make the noise infinite.
    tiny = jnp.finfo(dtype).tiny
    draw = lambda key: jax.random.uniform(
        jax.random.fold_in(key, leaf), shape, dtype, minval=tiny
    )
    return jax.vmap(draw)(keys)


def hashed_bits(
    seeds: UInt32[Array, "*n 2"], shape: tuple[int, ...]
) -> UInt32[Array, "..."]:
    """Return 32 random bits for each weight: a hash of its flat index and the seeds.

    An integer mixer of three multiplications with the first word added before, and the
    second after the first of them, so that two streams whose first words are near each
    other do not repeat one another with a shift. Elementwise: a compiler computes it
    where it is used and stores none of it.

    Args:
        seeds: two words a sample.
        shape: of the parameter.

    Returns:
        `[*n, *shape]`.

    Reference:
        Wellons (2018), "Prospecting for hash functions": the constants of triple32.
    """
    word = lambda number: jnp.asarray(number, jnp.uint32)
    lead = seeds.shape[:-1]
    outer = seeds.reshape(*lead, 2, *(1 for _ in shape))
    first, second = (jnp.take(outer, i, axis=len(lead)) for i in (0, 1))
    x = first + _flat_index(shape).reshape(*(1 for _ in lead), *shape)
    x = (x ^ (x >> word(17))) * word(0xED5AD4BB) ^ second
    x = (x ^ (x >> word(11))) * word(0xAC4C1B51)
    x = (x ^ (x >> word(15))) * word(0x31848BAB)
    return x ^ (x >> word(14))


def _flat_index(shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    index = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = jnp.asarray(math.prod(shape[axis + 1 :]), jnp.uint32)
        index = index + lax.broadcasted_iota(jnp.uint32, shape, axis) * stride
    return index


def uniform_of_bits(
    bits: UInt32[Array, "*shape"], dtype: jnp.dtype
) -> Float[Array, "*shape"]:
    """Return the middles of equal parts of (0, 1).

    2²³ parts in float32, which holds no more, and in smaller types; 2³² in float64.
    """
    if dtype == jnp.float64:
        return (bits.astype(dtype) + 0.5) * 2.0**-32
    u = (bits >> jnp.asarray(9, jnp.uint32)).astype(jnp.float32)
    return u * jnp.float32(2.0**-23) + jnp.float32(2.0**-24)
