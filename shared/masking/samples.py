"""Samples of masks: three kinds, and gradients that cost one pass over the noise."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree, UInt32

from shared.errors import UsageError, check_choice, check_range
from shared.masking.noise import (
    SOURCES,
    gumbel_noise,
    hashed_bits,
    logistic_noise,
    sample_keys,
    sample_seeds,
    threefry_uniform,
    uniform_of_bits,
)

KINDS = ("gumbel", "hard_concrete", "annealed")
BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
STEEPEST = 200.0
# A longer sum is left to a reduction, which compiles faster and runs slower on a CPU.
_UNROLLED = 16

Number = float | int | Float[Array, ""]
Index = int | Int[Array, ""]


@jax.custom_jvp
def _step(z: Array) -> Array:
    """Return 1 where z > 0, else 0, with the gradient of σ(z)."""
    return (z > 0).astype(z.dtype)


@_step.defjvp
def _step_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (z,), (dz,) = primals, tangents
    s = jax.nn.sigmoid(z)
    return _step(z), dz * s * (1 - s)


def gumbel_sigmoid(
    logits: Float[Array, "..."],
    noise: Float[Array, "..."],
    *,
    tau: Number = 1.0,
    hard: bool = True,
) -> Float[Array, "..."]:
    """Sample masks: s = σ((logits + noise) / tau), or 1[s > 1/2] if hard.

    Hard samples are exactly 0 or 1. The gradient is that of s in both cases:
    s (1 - s) / tau.

    Args:
        logits: `[*shape]`.
        noise: logistic, `[*shape]` or `[n, *shape]` for n samples.
        tau: temperature.
        hard: whether to round.

    Reference:
        Jang et al. (2017); Maddison et al. (2017); straight-through, Bengio et al.
        (2013).
    """
    return _value("hard" if hard else "soft", logits, noise, tau)


def sample(
    logits: PyTree,
    n: int | None = None,
    *,
    key: Array | None = None,
    uniform: PyTree | None = None,
    tau: Number = 1.0,
    hard: bool = True,
    source: str = "hash",
    first: Index = 0,
) -> PyTree:
    """Draw masks: each weight is kept with probability σ(logit).

    Sample k of a key is the same however many are drawn with it, so `sample(l, 4,
    key=key)[2]` is `sample(l, 1, key=key, first=2)[0]`.

    Args:
        logits: tree with None where there is no mask.
        n: number of samples, the leading axis of the result; None for one sample
            without that axis.
        key: source of noise; consumed.
        uniform: the noise instead: a tree like `logits` of uniform draws from (0, 1),
            `[n, *shape]`, or `[2, n, *shape]` for `gumbel_noise`.
        tau, hard: see `gumbel_sigmoid`. Gradients are cheapest for the number 1, and
            with a hash none flows to tau.
        source: "hash", an integer hash of the weight's index seeded by the key, or
            "threefry", JAX's own generator, which is many times slower on a CPU.
        first: number of the first sample, if drawn with a key.

    Raises:
        UsageError: without noise or with two sources of it, for noise of another
            structure or shape, and for n < 1 or tau <= 0.
    """
    form = "hard" if hard else "soft"
    return _draw(form, logits, n, key, uniform, tau, source, first)


def draw(
    kind: str,
    logits: PyTree,
    n: int | None = None,
    *,
    key: Array | None = None,
    uniform: PyTree | None = None,
    tau: Number = 1.0,
    progress: Number = 0.0,
    source: str = "hash",
    first: Index = 0,
) -> PyTree:
    """Draw masks of one of three kinds, all with the same logits and `threshold`.

    - "gumbel": hard samples of `sample`.
    - "hard_concrete": clip(s (ζ - γ) + γ, 0, 1), s = σ((l + noise) / β), with
      β = 2/3 tau, γ = -0.1, ζ = 1.1: exactly 0 or 1 often, between them otherwise, with
      its own gradient.
    - "annealed": σ(βl) without noise, β = 200^progress: a step in the end.

    Args:
        kind: one of these.
        logits, n, key, uniform, source, first: see `sample`; "annealed" uses no noise
            and gives n equal masks.
        tau: temperature of the samples; none for "annealed".
        progress: of the training, in [0, 1], for "annealed".

    Raises:
        UsageError: for an unknown kind, and as `sample` does.

    Reference:
        Csordás et al. (2021); Louizos et al. (2018); Savarese et al. (2020).
    """
    check_choice("kind", kind, KINDS)
    if kind == "annealed":
        lead = _lead(n)
        wide = lambda leaf: jnp.broadcast_to(leaf, (*lead, *leaf.shape))
        return jax.tree.map(wide, soft_mask(kind, logits, progress=progress))
    form = "hard" if kind == "gumbel" else "stretched"
    return _draw(form, logits, n, key, uniform, tau, source, first)


def soft_mask(kind: str, logits: PyTree, *, progress: Number = 0.0) -> PyTree:
    """Return the masks without noise, in [0, 1].

    The keep probability σ(l) for "gumbel", clip(σ(l) (ζ - γ) + γ, 0, 1) for
    "hard_concrete" (Louizos et al. 2018, equation 13), σ(βl) for "annealed". Above 1/2
    where l > 0, for all.

    Args:
        kind, logits, progress: see `draw`.
    """
    check_choice("kind", kind, KINDS)

    def soft(leaf: Array) -> Array:
        if kind == "hard_concrete":
            return _stretched(jax.nn.sigmoid(leaf))
        steep = steepness(progress, leaf.dtype) if kind == "annealed" else 1
        return jax.nn.sigmoid(leaf * steep)

    return jax.tree.map(soft, logits)


def steepness(progress: Number, dtype: jnp.dtype) -> Float[Array, ""]:
    """Return β = 200^progress of annealed masks."""
    return jnp.exp(math.log(STEEPEST) * jnp.asarray(progress, dtype))


def _lead(n: int | None) -> tuple[int, ...]:
    if n is not None:
        check_range("n", n, low=1)
    return () if n is None else (n,)


def _draw(
    form: str,
    logits: PyTree,
    n: int | None,
    key: Array | None,
    uniform: PyTree | None,
    tau: Number,
    source: str,
    first: Index,
) -> PyTree:
    """Draw masks of one form: "hard", "soft" or "stretched"."""
    lead = _lead(n)
    if not isinstance(tau, jax.Array):
        check_range("tau", tau, low=0, low_open=True)
    check_choice("source", source, SOURCES)
    leaves, structure = jax.tree.flatten(logits)
    if key is not None and uniform is None:
        keys = sample_keys(key, n or 1, first)
        drawn = _draw_hashed if source == "hash" else _draw_threefry
        masks = drawn(form, leaves, keys, tau)
        if n is None:
            masks = [mask[0] for mask in masks]
    elif key is None and uniform is not None:
        if jax.tree.structure(uniform) != structure:
            given = jax.tree.structure(uniform)
            raise UsageError("uniform", given, f"the structure of logits, {structure}")
        noises = [
            _given_noise(u, (*lead, *leaf.shape))
            for u, leaf in zip(jax.tree.leaves(uniform), leaves, strict=True)
        ]
        pairs = zip(leaves, noises, strict=True)
        masks = [_value(form, leaf, noise, tau) for leaf, noise in pairs]
    else:
        given = "neither" if key is None else "both"
        raise UsageError("key, uniform", given, "one of them")
    return jax.tree.unflatten(structure, masks)


def _draw_hashed(
    form: str, leaves: list[Array], keys: Array, tau: Number
) -> list[Array]:
    seeds = sample_seeds(keys, len(leaves))
    unit = form != "stretched" and not isinstance(tau, jax.Array) and tau == 1
    scale = lambda leaf: jnp.asarray(tau, _precise(leaf.dtype))
    pairs = zip(leaves, seeds, strict=True)
    return [_hashed(form, unit, leaf, own, scale(leaf)) for leaf, own in pairs]


def _draw_threefry(
    form: str, leaves: list[Array], keys: Array, tau: Number
) -> list[Array]:
    def one(i: int, leaf: Array) -> Array:
        u = threefry_uniform(keys, i, leaf.shape, leaf.dtype)
        return _value(form, leaf, logistic_noise(u), tau)

    return [one(i, leaf) for i, leaf in enumerate(leaves)]


def _given_noise(uniform: Array, shape: tuple[int, ...]) -> Array:
    if uniform.shape == shape:
        return logistic_noise(uniform)
    if uniform.shape == (2, *shape):
        return gumbel_noise(uniform)
    raise UsageError("uniform", uniform.shape, f"the shape {shape} or {(2, *shape)}")


def _value(form: str, logits: Array, noise: Array, tau: Number) -> Array:
    if form == "stretched":
        tau = tau * BETA
    z = (jnp.broadcast_to(logits, noise.shape) + noise) / tau
    if form == "hard":
        return _step(z)
    s = jax.nn.sigmoid(z)
    return s if form == "soft" else _stretched(s)


def _stretched(s: Array) -> Array:
    return jnp.clip(s * (ZETA - GAMMA) + GAMMA, 0, 1)


def _precise(dtype: jnp.dtype) -> jnp.dtype:
    return jnp.promote_types(dtype, jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _hashed(
    form: str,
    unit: bool,
    logits: Float[Array, "..."],
    seeds: UInt32[Array, "n 2"],
    tau: Float[Array, ""],
) -> Float[Array, "..."]:
    """Sample one parameter's masks `[n, *shape]`.

    The derivative is written out since it draws the same noise again from the seeds,
    which costs less than to keep it: nothing of the size `[n, *shape]` is stored.

    Args:
        form: "hard", "soft" or "stretched".
        unit: whether tau is known to be 1.
        logits, seeds, tau: arrays.
    """
    own, u = _noisy(logits, seeds)
    if form == "hard":
        # l + log u - log(1 - u) > 0, without logarithms.
        return (u > jax.nn.sigmoid(-own)).astype(logits.dtype)
    return _value(form, own, logistic_noise(u), tau).astype(logits.dtype)


def _hashed_fwd(
    form: str, unit: bool, logits: Array, seeds: Array, tau: Array
) -> tuple[Array, tuple]:
    return _hashed(form, unit, logits, seeds, tau), (logits, seeds, tau)


def _hashed_bwd(form: str, unit: bool, residuals: tuple, gradient: Array) -> tuple:
    logits, seeds, tau = residuals
    n = len(seeds)
    part = lambda seeds: _slope(form, unit, *_noisy(logits, seeds), tau)
    if n <= _UNROLLED:
        # A sum written out: a reduction over a leading axis is not vectorised by XLA on
        # a CPU, nor is the noise inside it.
        total = gradient[0] * part(seeds[0])
        for k in range(1, n):
            total = total + gradient[k] * part(seeds[k])
    else:
        total = jnp.sum(gradient * part(seeds), axis=0)
    # The division comes last since XLA does not compute one again for each use of its
    # result, as it would the sum.
    own = logits.astype(total.dtype)
    divisor = 2 + jnp.exp(own) + jnp.exp(-own) if unit else tau
    return (total / divisor).astype(logits.dtype), None, None


_hashed.defvjp(_hashed_fwd, _hashed_bwd)


def _noisy(logits: Array, seeds: Array) -> tuple[Array, Array]:
    """Return logits `[1s, *shape]` and uniform draws `[*n, *shape]`."""
    own = logits.astype(_precise(logits.dtype))
    u = uniform_of_bits(hashed_bits(seeds, logits.shape), own.dtype)
    return own.reshape((1,) * (u.ndim - own.ndim) + own.shape), u


def _slope(form: str, unit: bool, logits: Array, u: Array, tau: Array) -> Array:
    """Return the derivative of a sample to its logit, but for a divisor.

    With tau = 1, s has the odds o = e^l u / (1 - u), and s (1 - s) = o / (1 + o)² needs
    no logarithm: with p = σ(l), q = σ(-l) it is p q u (1 - u) / (p u + q (1 - u))². The
    divisor is 1 / (p q) = 2 + e^l + e^-l then, tau otherwise.
    """
    if form == "stretched":
        s = jax.nn.sigmoid((logits + logistic_noise(u)) / (tau * BETA))
        inside = jnp.abs(s * (ZETA - GAMMA) + GAMMA - 0.5) < 0.5
        return jnp.where(inside, (ZETA - GAMMA) / BETA * s * (1 - s), 0)
    if unit:
        whole = jax.nn.sigmoid(logits) * u + jax.nn.sigmoid(-logits) * (1 - u)
        return u * (1 - u) / (whole * whole)
    odds = jnp.exp(-jnp.abs((logits + jnp.log(u / (1 - u))) / tau))
    return odds / ((1 + odds) * (1 + odds))
