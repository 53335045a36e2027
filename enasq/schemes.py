"""What the named quantisers do to weights and to activations.

A scheme's functions take a record of `enasq.quantization`, of which they read only the
settings that it heeds.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jax import numpy as jnp
from jaxtyping import Array

from enasq import learned, powers, scales
from enasq import straight_through as through
from shared.errors import UsageError

Params = dict[str, Array]
Coded = tuple[Array, Array]


class Scheme(NamedTuple):
    """One way to quantise.

    Attributes:
        values: (quantizer, params, x, key) -> quantised values, with a gradient. Only
            schemes that draw use the key.
        codes: (quantizer, params, x) -> (int32 codes, scale): codes times scale are the
            values, bit for bit.
        levels: quantizer -> all codes, ascending.
        init: (quantizer, sample) -> learned parameters, fitted to a sample of x.
    """

    values: Callable[[Any, Params, Array, Array | None], Array]
    codes: Callable[[Any, Params, Array], Coded]
    levels: Callable[[Any], Sequence[int]]
    init: Callable[[Any, Array], Params] = lambda quantizer, sample: {}


def glorot_bound(shape: Sequence[int]) -> float:
    """Return √(1.5 / (n_in + n_out)) of a kernel.

    Args:
        shape: of the kernel, whose last two axes are inputs and outputs; n_in and n_out
            are those times the size of the window.

    Reference:
        Glorot and Bengio (2010).
    """
    if len(shape) < 2:
        raise UsageError("high", "Glorot", "a number, unless for weights of 2 axes")
    *window, inputs, outputs = shape
    size = 1
    for length in window:
        size *= length
    return (1.5 / (size * (inputs + outputs))) ** 0.5


def bound(quantizer: Any, shape: Sequence[int]) -> float | int:
    """Return the range H of a quantiser's weights; 1 of those that have none."""
    if quantizer.high is None:
        return 1
    return glorot_bound(shape) if quantizer.high == "Glorot" else quantizer.high


def _coded(codes: Array, scale: Any, x: Array) -> Coded:
    return codes.astype(jnp.int32), jnp.asarray(scale, x.dtype)


def _signs(quantizer: Any) -> Sequence[int]:
    return (-1, 1)


def _trits(quantizer: Any) -> Sequence[int]:
    return (-1, 0, 1)


def _no_codes(quantizer: Any, params: Params, x: Array) -> Coded:
    raise UsageError("quantizer", quantizer.name, "one that has integer codes")


def floating(function: Callable[[Array], Array]) -> Scheme:
    """Keep full precision."""
    return Scheme(lambda q, p, x, key: function(x), _no_codes, lambda q: ())


def ranged_binary() -> Scheme:
    """Signs times the range H."""

    def codes(q, p, x):
        high = bound(q, x.shape)
        return _coded(through.sign(x / high), high, x)

    values = lambda q, p, x, key: through.binarize(x, bound(q, x.shape))
    return Scheme(values, codes, _signs)


def signs(surrogate: Callable[[Any, Array], Array]) -> Scheme:
    """Signs, with the gradient of `surrogate`."""
    return Scheme(
        lambda q, p, x, key: surrogate(q, x),
        lambda q, p, x: _coded(through.sign(x), 1, x),
        _signs,
    )


def scaled_signs(surrogate: Callable[[Any, Array], Array]) -> Scheme:
    """Signs times the mean size of the weights."""
    return Scheme(
        lambda q, p, x, key: scales.mean_abs(x, q.scale) * surrogate(q, x),
        lambda q, p, x: _coded(through.sign(x), scales.mean_abs(x, q.scale), x),
        _signs,
    )


def drawn_signs() -> Scheme:
    """Signs drawn at random while there is a key."""

    def values(q, p, x, key):
        if key is None:
            return through.binary_tanh(x)
        return through.stochastic_binary(x, key)

    return signs(lambda q, x: through.binary_tanh(x))._replace(values=values)


def ranged_ternary() -> Scheme:
    """Trits times the range H, with thresholds at half the range."""

    def codes(q, p, x):
        high = bound(q, x.shape)
        return _coded(jnp.sign(through.ternary(x, high)), high, x)

    values = lambda q, p, x, key: through.ternarize(x, bound(q, x.shape))
    return Scheme(values, codes, _trits)


def trits() -> Scheme:
    """Trits of activations, clipped to [-1, 1]."""
    return Scheme(
        lambda q, p, x, key: through.ternary_tanh(x),
        lambda q, p, x: _coded(through.ternary(x), 1, x),
        _trits,
    )


def mean_ternary() -> Scheme:
    """Trits times the mean of the chosen sizes."""

    def codes(q, p, x):
        parts = scales.twn_parts(x, q.factor, q.scale)
        return parts.codes, parts.alpha

    return Scheme(lambda q, p, x, key: scales.twn(x, q.factor, q.scale), codes, _trits)


def trained_ternary() -> Scheme:
    """Trits times two learned scales, or one."""

    def scale_pair(q, p):
        if q.symmetric:
            return p["scale"], p["scale"]
        return p["positive"], p["negative"]

    def init(q, sample):
        alpha = scales.twn_parts(sample).alpha
        if q.symmetric:
            return {"scale": alpha}
        return {"positive": alpha, "negative": alpha}

    def codes(q, p, x):
        found = learned.trained_codes(x, q.factor)
        positive, negative = scale_pair(q, p)
        same = positive if q.symmetric else jnp.where(found > 0, positive, negative)
        return found, same

    return Scheme(
        lambda q, p, x, key: learned.trained_ternary(x, *scale_pair(q, p), q.factor),
        codes,
        _trits,
        init,
    )


def fixed_point(scaled: bool) -> Scheme:
    """Two's complement numbers in [-1, 1), or over the range of the weights."""

    def values(q, p, x, key):
        if scaled and q.scale != "none":
            return scales.range_quantize(x, q.bits, q.scale)
        return through.quantize(x, q.bits)

    def codes(q, p, x):
        if scaled and q.scale != "none":
            return scales.range_codes(x, q.bits, q.scale)
        m = 2 ** (q.bits - 1)
        return _coded(through.quantize(x, q.bits) * m, 1 / m, x)

    return Scheme(values, codes, _two_complement)


def _two_complement(quantizer: Any) -> Sequence[int]:
    m = 2 ** (quantizer.bits - 1)
    return range(-m, m)


def rectified() -> Scheme:
    """The non-negative half of the fixed-point numbers."""

    def codes(q, p, x):
        m = 2 ** (q.bits - 1)
        return _coded(through.quantized_relu(x, q.bits) * m, 1 / m, x)

    return Scheme(
        lambda q, p, x, key: through.quantized_relu(x, q.bits),
        codes,
        lambda q: range(2 ** (q.bits - 1)),
    )


def normalized() -> Scheme:
    """Equal steps over [-1, 1], of weights squashed by tanh."""

    def levels(q):
        return range(1 - 2**q.bits, 2**q.bits, 2)

    return Scheme(
        lambda q, p, x, key: scales.dorefa(x, q.bits),
        lambda q, p, x: scales.dorefa_codes(x, q.bits),
        levels,
    )


def unit_interval() -> Scheme:
    """Equal steps over [0, 1]."""
    return Scheme(
        lambda q, p, x, key: scales.dorefa_activation(x, q.bits),
        lambda q, p, x: scales.dorefa_activation_codes(x, q.bits),
        lambda q: range(2**q.bits),
    )


def learned_step(examples: bool) -> Scheme:
    """Equal learned steps.

    Args:
        examples: whether x are activations, whose leading axis counts examples: they
            do not add to the number of values that share a step.
    """

    def ends(q):
        if q.signed:
            return -(2 ** (q.bits - 1)), 2 ** (q.bits - 1) - 1
        return 0, 2**q.bits - 1

    def values(q, p, x, key) -> Any:
        low, high = ends(q)
        shared = x.size // (x.shape[-1] if q.scale == "channel" else 1)
        shared = max(shared // (x.shape[0] if examples else 1), 1)
        size = jnp.abs(p["step"])
        return learned.learned_step(x, size, low, high, (shared * high) ** -0.5)

    def codes(q, p, x):
        step = jnp.abs(p["step"])
        return learned.learned_codes(x, step, *ends(q)), step

    def init(q, sample):
        mean = scales.mean_abs(sample, q.scale)
        step = 2 * mean / ends(q)[1] ** 0.5
        return {"step": jnp.where(step > 0, step, jnp.ones_like(step))}

    return Scheme(values, codes, lambda q: range(ends(q)[0], ends(q)[1] + 1), init)


def logarithmic() -> Scheme:
    """Powers of two and 0."""

    def unit(q):
        # All levels are integers in terms of the smallest.
        return 2 - 2 ** (q.bits - 1)

    def codes(q, p, x):
        if q.bits > 6:
            raise UsageError("bits", q.bits, "at most 6, for integers of 32 bits")
        kept, exponent = powers.log_codes(x, q.bits)
        return _coded(jnp.ldexp(kept, exponent - unit(q)), 2.0 ** unit(q), x)

    def levels(q):
        sizes = [2**n for n in range(2 ** (q.bits - 1) - 1)]
        return (*(-n for n in reversed(sizes)), 0, *sizes)

    values = lambda q, p, x, key: powers.log_quantize(x, q.bits)
    return Scheme(values, codes, levels)
