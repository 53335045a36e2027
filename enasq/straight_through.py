"""Functions of few levels, with gradients that pass straight through them.

Each multiplies the gradient that comes back by a factor of its own, stated as `d` in
its docstring; 1[.] is an indicator, rounding is to the nearest and from halves to the
even number. Consequences that networks rely on: the sign of 0 is -1; the threshold of
`ternary` is half its range, open above and closed below; the levels of `quantize` are
those of two's complement.

Reference: Courbariaux et al. (2016), arXiv 1602.02830; Hubara et al. (2017), arXiv
1609.07061.
"""

import functools
from collections.abc import Callable

import jax
from jax import numpy as jnp
from jaxtyping import Array, Bool, Float, Key

Values = Float[Array, "*shape"]
Function = Callable[[Array], Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def estimate(forward: Function, factor: Function | None, x: Values) -> Values:
    """Return `forward(x)`, with the gradient `g factor(x)` on the way back.

    Args:
        forward: any function that keeps the shape; never differentiated.
        factor: gives numbers, or booleans (1 where true), of the shape of x; None
            stands for 1 everywhere. It alone is kept for the way back.
        x: any shape.
    """
    return forward(x)


def _estimate_fwd(
    forward: Function, factor: Function | None, x: Array
) -> tuple[Array, Array | None]:
    return forward(x), None if factor is None else factor(x)


def _estimate_bwd(
    forward: Function, factor: Function | None, kept: Array | None, g: Array
) -> tuple[Array]:
    if kept is None:
        return (g,)
    if kept.dtype == bool:
        return (jnp.where(kept, g, jnp.zeros_like(g)),)
    return (g * kept,)


estimate.defvjp(_estimate_fwd, _estimate_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def scale_gradient(x: Values, factor: float | int) -> Values:
    """Return x, with the gradient `g factor`."""
    return x


def _scale_gradient_fwd(x: Array, factor: float | int) -> tuple[Array, None]:
    return x, None


def _scale_gradient_bwd(factor: float | int, kept: None, g: Array) -> tuple[Array]:
    return (g * factor,)


scale_gradient.defvjp(_scale_gradient_fwd, _scale_gradient_bwd)


def _within(x: Array, low: float | int, high: float | int) -> Bool[Array, "*shape"]:
    return (x >= low) & (x <= high)


def round_through(x: Values) -> Values:
    """Round; d = 1."""
    return estimate(jnp.round, None, x)


def clip_through(x: Values, low: float | int, high: float | int) -> Values:
    """Clip to [low, high]; d = 1, outside as well."""
    return estimate(lambda x: jnp.clip(x, low, high), None, x)


def clip(x: Values, low: float | int, high: float | int) -> Values:
    """Clip to [low, high]; d = 1[low <= x <= high], both ends included."""
    return estimate(
        lambda x: jnp.clip(x, low, high), lambda x: _within(x, low, high), x
    )


def _half(x: Array) -> Array:
    return 0.5 * x + 0.5


def hard_sigmoid(x: Values) -> Values:
    """Return clip(x / 2 + 1/2, 0, 1); d = 1[-1 <= x <= 1] / 2."""
    return clip(_half(x), 0, 1)


def binary_sigmoid(x: Values) -> Values:
    """Return round(hard_sigmoid(x)), 0 or 1; d = 1[-1 <= x <= 1] / 2."""
    return round_through(hard_sigmoid(x))


def sign(x: Values) -> Values:
    """Return 2 round(hard_sigmoid(x)) - 1: +1 where x > 0, else -1. It has no gradient.

    In float32, positive numbers below 2^-24 count as 0.
    """
    return 2 * jnp.round(jnp.clip(_half(x), 0, 1)) - 1


def binary_tanh(x: Values) -> Values:
    """Return sign(x); d = 1[-1 <= x <= 1]."""
    return estimate(sign, lambda x: _within(_half(x), 0, 1), x)


def binarize(w: Values, high: float | int = 1.0) -> Values:
    """Return high sign(w / high); d = 1[-high <= w <= high]."""
    return high * binary_tanh(w / high)


def stochastic_binary(x: Values, key: Key[Array, ""]) -> Values:
    """Return +1 with probability hard_sigmoid(x), else -1; d = 1[-1 <= x <= 1].

    Args:
        x: any shape.
        key: consumed.
    """
    u = jax.random.uniform(key, x.shape, x.dtype)
    # The draw goes in with x, so that a mapped or compiled key stays a plain value.
    return _stochastic(x, u)


@jax.custom_vjp
def _stochastic(x: Array, u: Array) -> Array:
    return jnp.where(u < _half(x), jnp.ones_like(x), -jnp.ones_like(x))


_stochastic.defvjp(
    lambda x, u: (_stochastic(x, u), _within(_half(x), 0, 1)),
    lambda inside, g: (jnp.where(inside, g, jnp.zeros_like(g)), None),
)


def approx_sign(x: Values) -> Values:
    """Return sign(x); d = max(2 - 2 |x|, 0), the slope of two parabolas.

    Reference:
        Liu et al. (2018), Bi-Real Net, arXiv 1808.00278.
    """
    return estimate(sign, lambda x: jnp.maximum(2 - 2 * jnp.abs(x), 0), x)


def swish_sign(x: Values, beta: float | int = 5.0) -> Values:
    """Return sign(x); d = beta (2 - beta x tanh(beta x / 2)) / (1 + cosh(beta x)).

    d is the slope of 2 σ(beta x) (1 + beta x (1 - σ(beta x))) - 1.

    Reference:
        Darabi et al. (2018), BNN+, arXiv 1812.11800.
    """

    def factor(x):
        # 1 / (1 + cosh z) = 2 σ(z) σ(-z), which does not overflow.
        z = beta * x
        bell = 2 * jax.nn.sigmoid(z) * jax.nn.sigmoid(-z)
        return beta * (2 - z * jnp.tanh(z / 2)) * bell

    return estimate(sign, factor, x)


def ternary(w: Values, high: float | int = 1.0) -> Values:
    """Return high where w / high > 1/2, -high where it is <= -1/2, else 0.

    It has no gradient.
    """
    ratio = w / high
    one = jnp.full_like(w, high)
    low = jnp.where(ratio <= -0.5, -one, jnp.zeros_like(w))
    return jnp.where(ratio > 0.5, one, low)


def ternarize(w: Values, high: float | int = 1.0) -> Values:
    """Return ternary(w, high); d = 1."""
    return estimate(lambda w: ternary(w, high), None, w)


def ternary_tanh(x: Values) -> Values:
    """Return ternary(x, 1); d = 1[-1 <= x <= 1]."""
    return estimate(ternary, lambda x: _within(x, -1, 1), x)


def quantize(w: Values, bits: int) -> Values:
    """Round to the numbers -1, -1 + 1/m ... 1 - 1/m, m = 2^(bits - 1).

    d = 1[-m <= round(m w) <= m - 1].
    """
    m = 2 ** (bits - 1)
    return clip(round_through(w * m), -m, m - 1) / m


def quantized_tanh(x: Values, bits: int) -> Values:
    """Return quantize(x, bits), under its name as an activation."""
    return quantize(x, bits)


def quantized_relu(x: Values, bits: int) -> Values:
    """Round x to the numbers 0, 1/m ... 1 - 1/m, m = 2^(bits - 1).

    d = 1[-1 <= x <= 1] 1[0 <= r <= 1 - 1/m], r the rounded number before its clip.
    """
    steps = 2**bits
    r = 2 * (round_through(hard_sigmoid(x) * steps) / steps) - 1
    return clip(r, 0, 1 - 2 / steps)


@jax.custom_vjp
def ternarize_dot(
    x: Float[Array, "*lead inputs"], w: Float[Array, "inputs outputs"]
) -> Float[Array, "*lead outputs"]:
    """Return x ternary(w), with the gradients of x w.

    So the latent weights, not their ternary values, carry the gradient by x.
    """
    return x @ ternary(w)


def _ternarize_dot_bwd(kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, w = kept
    axes = tuple(range(g.ndim - 1))
    return g @ w.T, jnp.tensordot(x, g, (axes, axes))


ternarize_dot.defvjp(lambda x, w: (ternarize_dot(x, w), (x, w)), _ternarize_dot_bwd)
