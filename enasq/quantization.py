"""Quantisers by name: one record each, and what is done with it.

A record is static (hashable), so that it may decide what is compiled. The same record
serves weights and activations, told apart by their `role`; channels are the last axis.

| name | weights | activations |
|---|---|---|
| float | as they are | max(x, 0) |
| binary | H sign(w / H), Courbariaux et al. (2016) | sign(x) |
| stochastic_binary | as binary | a random sign while training |
| xnor | sign(w) mean abs(w), Rastegari et al. (2016) | sign(x) |
| approx_sign | as xnor, gradient of Liu et al. (2018) | sign(x), the same gradient |
| swish_sign | as xnor, gradient of Darabi et al. (2018) | sign(x), the same gradient |
| ternary | H, 0, -H with thresholds at H / 2 and -H / 2 | 1, 0, -1 |
| twn | threshold and scale from the weights, Li et al. (2016) | |
| ttq | learned scales, Zhu et al. (2017) | |
| kbit | fixed point, Hubara et al. (2017) | fixed point |
| quantized_relu | the positive fixed-point numbers | the same |
| dorefa | normalised by tanh, Zhou et al. (2016) | equal steps over [0, 1] |
| lsq | learned step, Esser et al. (2020) | learned step |
| log | powers of two, Hubara et al. (2017) | the same |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Int, Key

from enasq import schemes
from enasq import straight_through as through
from enasq.schemes import Scheme
from shared.errors import UsageError, check_choice, check_range

ROLES = ("weights", "activations")


class Setting(NamedTuple):
    """A setting that a quantiser heeds: its default, and choices or two bounds."""

    default: Any
    allowed: tuple[Any, ...]


class Rule(NamedTuple):
    """A named quantiser.

    Attributes:
        weights, activations: what is done to them; None where it is not meant for them.
        settings: those that it heeds.
        limit: latent weights beyond it get no gradient any more, so they are kept
            inside; "high" is that setting, None no limit.
    """

    weights: Scheme
    activations: Scheme | None
    settings: Mapping[str, Setting] = {}
    limit: float | str | None = None


@dataclass(frozen=True)
class Quantizer:
    """A quantiser and its settings; None takes the default, idle ones are refused.

    Attributes:
        name: a key of `QUANTIZERS`.
        bits: 1 to 16 (kbit, quantized_relu, dorefa, lsq; 4), or 2 to 8 (log; 4).
        high: range H of the weights (binary, stochastic_binary, ternary; 1), or
            "Glorot": √(1.5 / (n_in + n_out)) of the kernel.
        scale: what shares a scale: "none", "tensor" or "channel" (xnor, twn: channel,
            tensor; approx_sign, swish_sign, kbit: none; lsq: tensor).
        factor: of the threshold (twn 0.75 of the mean, ttq 0.05 of the maximum).
        beta: steepness (swish_sign; 5).
        signed: whether codes are negative too (lsq; True).
        symmetric: one learned scale in place of two (ttq; False).

    Raises:
        UsageError: for an unknown name, a value out of range, or a setting that the
            quantiser does not heed.
    """

    name: str
    bits: int | None = None
    high: float | int | str | None = None
    scale: str | None = None
    factor: float | int | None = None
    beta: float | int | None = None
    signed: bool | None = None
    symmetric: bool | None = None

    def __post_init__(self):
        check_choice("quantizer", self.name, QUANTIZERS)
        heeded = QUANTIZERS[self.name].settings
        for name in SETTINGS:
            given = getattr(self, name)
            if name not in heeded:
                if given is not None:
                    words = ", ".join(heeded) or "no settings"
                    raise UsageError(name, given, f"{words} for {self.name!r}")
            elif given is None:
                object.__setattr__(self, name, heeded[name].default)
            else:
                _check(name, given, heeded[name].allowed)
        if self.name == "lsq" and self.signed and self.bits == 1:
            raise UsageError("bits", 1, "2 to 16, for signed codes")


SETTINGS = ("bits", "high", "scale", "factor", "beta", "signed", "symmetric")


def _check(name: str, given: Any, allowed: tuple[Any, ...]) -> None:
    if name == "high" and isinstance(given, str) or name == "scale":
        check_choice(name, given, allowed)
    elif name in ("signed", "symmetric"):
        if not isinstance(given, bool):
            raise UsageError(name, given, "True or False")
    elif name == "bits":
        if not isinstance(given, int) or isinstance(given, bool):
            raise UsageError(name, given, "an integer")
        check_range(name, given, low=allowed[0], high=allowed[1])
    else:
        check_range(name, given, low=0, low_open=True)


_HIGH = {"high": Setting(1.0, ("Glorot",))}
_BITS = {"bits": Setting(4, (1, 16))}
_LOG_BITS = {"bits": Setting(4, (2, 8))}


def _scale(default: str, *choices: str) -> dict[str, Setting]:
    return {"scale": Setting(default, choices or ("none", "tensor", "channel"))}


def _factor(default: float) -> dict[str, Setting]:
    return {"factor": Setting(default, ())}


def _sign(quantizer: Any, x: Array) -> Array:
    return through.binary_tanh(x)


def _approx(quantizer: Any, x: Array) -> Array:
    return through.approx_sign(x)


def _swish(quantizer: Any, x: Array) -> Array:
    return through.swish_sign(x, quantizer.beta)


QUANTIZERS: dict[str, Rule] = {
    "float": Rule(schemes.floating(lambda x: x), schemes.floating(jax.nn.relu)),
    "binary": Rule(schemes.ranged_binary(), schemes.signs(_sign), _HIGH, "high"),
    "stochastic_binary": Rule(
        schemes.ranged_binary(), schemes.drawn_signs(), _HIGH, "high"
    ),
    "xnor": Rule(
        schemes.scaled_signs(_sign), schemes.signs(_sign), _scale("channel"), 1.0
    ),
    "approx_sign": Rule(
        schemes.scaled_signs(_approx), schemes.signs(_approx), _scale("none"), 1.0
    ),
    "swish_sign": Rule(
        schemes.scaled_signs(_swish),
        schemes.signs(_swish),
        _scale("none") | {"beta": Setting(5.0, ())},
    ),
    "ternary": Rule(schemes.ranged_ternary(), schemes.trits(), _HIGH, "high"),
    "twn": Rule(schemes.mean_ternary(), None, _scale("tensor") | _factor(0.75)),
    "ttq": Rule(
        schemes.trained_ternary(),
        None,
        _factor(0.05) | {"symmetric": Setting(False, ())},
    ),
    "kbit": Rule(
        schemes.fixed_point(scaled=True),
        schemes.fixed_point(scaled=False),
        _BITS | _scale("none"),
        1.0,
    ),
    "quantized_relu": Rule(schemes.rectified(), schemes.rectified(), _BITS, 1.0),
    "dorefa": Rule(schemes.normalized(), schemes.unit_interval(), _BITS),
    "lsq": Rule(
        schemes.learned_step(examples=False),
        schemes.learned_step(examples=True),
        _BITS | _scale("tensor", "tensor", "channel") | {"signed": Setting(True, ())},
    ),
    "log": Rule(schemes.logarithmic(), schemes.logarithmic(), _LOG_BITS, 1.0),
}
"""Quantisers by name."""


def scheme(quantizer: Quantizer, role: str = "weights") -> Scheme:
    """Return what a quantiser does in a role.

    Raises:
        UsageError: if it is not meant for that role.
    """
    check_choice("role", role, ROLES)
    found = getattr(QUANTIZERS[quantizer.name], role)
    if found is None:
        raise UsageError("quantizer", quantizer.name, f"one that is meant for {role}")
    return found


def init(
    quantizer: Quantizer, sample: Float[Array, "..."], *, role: str = "weights"
) -> dict[str, Array]:
    """Return the learned parameters of a quantiser; most have none.

    Args:
        quantizer: the record.
        sample: the initial weights, or some activations `[examples, ..., channels]`;
            scales are fitted to them.
        role: "weights" or "activations".
    """
    return scheme(quantizer, role).init(quantizer, sample)


def quantize(
    quantizer: Quantizer,
    params: dict[str, Array],
    x: Float[Array, "*shape"],
    *,
    role: str = "weights",
    key: Key[Array, ""] | None = None,
) -> Float[Array, "*shape"]:
    """Quantise, with a gradient that passes through.

    Args:
        quantizer: the record.
        params: of `init`.
        x: weights or activations, channels last.
        role: "weights" or "activations".
        key: consumed by quantisers that draw; without it they take the likelier value.
    """
    return scheme(quantizer, role).values(quantizer, params, x, key)


def codes(
    quantizer: Quantizer,
    params: dict[str, Array],
    x: Float[Array, "*shape"],
    *,
    role: str = "weights",
) -> tuple[Int[Array, "*shape"], Float[Array, "..."]]:
    """Return integer codes and their scale, whose product is `quantize`, bit for bit.

    The scale is one number, or `[1, ..., 1, channels]`; that of "ttq" with two scales
    is one for each weight.

    Raises:
        UsageError: if there are no codes, or they are too large.
    """
    return scheme(quantizer, role).codes(quantizer, params, x)


def levels(quantizer: Quantizer, *, role: str = "weights") -> Sequence[int]:
    """Return all codes, ascending; none for "float"."""
    return scheme(quantizer, role).levels(quantizer)


def bits_of(quantizer: Quantizer, *, role: str = "weights") -> int:
    """Return the bits that one value takes when stored: 32 for "float"."""
    count = len(levels(quantizer, role=role))
    return max((count - 1).bit_length(), 1) if count else 32


def latent_bound(quantizer: Quantizer, shape: Sequence[int]) -> float | None:
    """Return the size beyond which latent weights get no gradient, or None.

    Args:
        quantizer: of the weights.
        shape: of the kernel.
    """
    limit = QUANTIZERS[quantizer.name].limit
    if quantizer.name == "kbit" and quantizer.scale != "none":
        # Their grid follows the weights, and its gradient is 1 everywhere.
        return None
    if isinstance(limit, str):
        return float(schemes.bound(quantizer, shape))
    return limit


def latent_range(
    quantizer: Quantizer, shape: Sequence[int]
) -> tuple[float, float] | None:
    """Return the range in which latent weights have gradients, or None if all have.

    That of k bits ends at the largest code, 1 - 2^(1 - k): weights that would be
    rounded to a larger one have no gradient.

    Args:
        quantizer: of the weights.
        shape: of the kernel.
    """
    bound = latent_bound(quantizer, shape)
    if bound is None:
        return None
    if quantizer.name == "kbit" and quantizer.bits:
        return -bound, bound * (1 - 2.0 ** (1 - quantizer.bits))
    return -bound, bound
