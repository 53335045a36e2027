"""Rounding to powers of two, with gradients that pass straight through.

Reference: Hubara et al. (2017), arXiv 1609.07061 (shift-based batch normalisation and
logarithmic quantisation).
"""

from jax import numpy as jnp
from jaxtyping import Array, Int

from enasq.straight_through import Values, estimate
from shared.errors import check_range


def exponents(x: Values) -> Int[Array, "*shape"]:
    """Return round(log2 |x|), for x other than 0.

    Taken from the parts of the float, so it is exact: |x| = m 2^e, 1/2 <= m < 1, is
    rounded up where m > √(1/2). No float lies on a tie.
    """
    m, e = jnp.frexp(jnp.abs(x))
    return e - (m < 0.5**0.5).astype(e.dtype)


def _power(x: Array, exponent: Array) -> Array:
    return jnp.ldexp(jnp.sign(x), exponent)


def ap2(x: Values) -> Values:
    """Return the nearest power of two, sign(x) 2^round(log2 |x|), or 0; d = 1."""
    return estimate(lambda x: _power(x, exponents(x)), None, x)


def log_codes(x: Values, bits: int) -> tuple[Values, Int[Array, "*shape"]]:
    """Return sign and exponent of the levels of `log_quantize`; sign 0 is level 0."""
    check_range("bits", bits, low=2, high=8)
    least = 2 - 2 ** (bits - 1)
    exponent = jnp.where(x == 0, least - 1, exponents(x))
    kept = jnp.where(exponent < least, jnp.zeros_like(x), jnp.sign(x))
    return kept, jnp.clip(exponent, least, 0)


def log_quantize(x: Values, bits: int) -> Values:
    """Round to 0 or plus or minus one of n powers of two: 1, 1/2 ... 2^(1 - n).

    n = 2^(bits - 1) - 1. Numbers below 2^(1/2 - n) become 0; d = 1[-1 <= x <= 1].

    Args:
        x: any shape.
        bits: 2 to 8: floats end at 2^-126.
    """
    return estimate(
        lambda x: jnp.ldexp(*log_codes(x, bits)), lambda x: jnp.abs(x) <= 1, x
    )


def pow_through(x: Values, base: float | int) -> Values:
    """Return base^x; d = 1."""
    return estimate(lambda x: jnp.power(jnp.asarray(base, x.dtype), x), None, x)


def log2_through(x: Values) -> Values:
    """Return log2 |x|; d = 1."""
    return estimate(lambda x: jnp.log2(jnp.abs(x)), None, x)
