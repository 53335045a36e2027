"""Optimisers and learning rates of the child networks and of the controller.

An optimiser adds the gradient of the l2 penalty, clips, then takes a step. Schedules
are functions of the step and of a dict of settings, so that both may be traced.

Reference: Loshchilov and Hutter (2017), for the cosine with restarts.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from shared.errors import check_choice

Scalar = Float[Array, ""] | float | int
Step = Int[Array, ""] | int
Hyper = Mapping[str, Any]

OPTIMIZERS = ("momentum", "sgd", "adam")
CLIPS = ("none", "global", "norm", "published_norm")


def make_optimizer(
    name: str, *, clip: str = "none", beta1: float | int = 0.0
) -> Callable[[Hyper], optax.GradientTransformation]:
    """Return `hyper -> optimiser`.

    Args:
        name: `momentum` (Nesterov, decay 0.9), `sgd`, or `adam` (beta2 0.999).
        clip: none; global, by the norm of the whole gradient; norm, of each array by
            itself; or published_norm, which leaves the gradient as it is, like the
            published program.
        beta1: of Adam. At 0, as published, no first moment is kept.

    The optimiser reads `learning_rate` from hyper, and if they are there: `l2`, the
    weight of the squared parameters; `clip_bound`, needed to clip; `epsilon`, of Adam,
    by default 1e-3.
    """
    check_choice("optimizer", name, OPTIMIZERS)
    check_choice("clip", clip, CLIPS)

    def make(hyper: Hyper) -> optax.GradientTransformation:
        parts = []
        if "l2" in hyper:
            parts.append(optax.add_decayed_weights(2 * hyper["l2"]))
        if clip in ("global", "norm"):
            bound = hyper["clip_bound"]
            parts.append(optax.stateless(lambda grads, _: clipped(grads, clip, bound)))
        if name == "momentum":
            parts.append(optax.trace(0.9, nesterov=True))
        elif name == "adam":
            parts.append(scale_by_adam(beta1, eps=hyper.get("epsilon", 1e-3)))
        return optax.chain(*parts, _scale(-hyper["learning_rate"]))

    return make


def _scale(factor: Scalar) -> optax.GradientTransformation:
    return optax.stateless(
        lambda updates, _: jax.tree.map(lambda u: factor * u, updates)
    )


def clipped(grads: Any, how: str, bound: Scalar) -> Any:
    """Shorten a gradient to a norm of at most `bound`.

    Args:
        grads: tree of arrays.
        how: `global` for the norm of the whole tree, `norm` for that of each array.
        bound: largest norm.
    """
    if how == "norm":
        return jax.tree.map(lambda leaf: clipped(leaf, "global", bound), grads)
    scale = bound / jnp.maximum(optax.tree.norm(grads), bound)
    return jax.tree.map(lambda leaf: (scale * leaf).astype(leaf.dtype), grads)


def gradient_norm(grads: Any, params: Any = None, l2: Scalar = 0.0) -> Float[Array, ""]:
    """Return the norm of a gradient with that of the l2 penalty, before clipping."""
    if params is None:
        return optax.tree.norm(grads)
    return optax.tree.norm(jax.tree.map(lambda g, p: g + 2 * l2 * p, grads, params))


class AdamState(NamedTuple):
    """Number of steps, and the moments.

    Attributes:
        count: steps made.
        mu: running mean of the gradient; None if beta1 is 0.
        nu: running mean of its square.
    """

    count: Int[Array, ""]
    mu: Any
    nu: Any


def scale_by_adam(
    b1: float | int = 0.0,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-3,
) -> optax.GradientTransformation:
    """Return Adam with epsilon beside the uncorrected root.

        m <- b1 m + (1 - b1) g,   s <- b2 s + (1 - b2) g^2
        step = (1 - b2^t)^.5 / (1 - b1^t) m / (s^.5 + eps)

    Optax adds epsilon after the correction: early steps, where 1 - b2^t is small,
    differ a lot when epsilon is as large as 1e-3.

    Args:
        b1: static, so that at 0 the first moment is left out.
        b2, eps: numbers or traced scalars.

    Reference: Kingma and Ba (2015), end of section 2.
    """

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        mu = jax.tree.map(jnp.zeros_like, params) if b1 else None
        return AdamState(jnp.zeros((), jnp.int32), mu, zeros)

    def update(updates, state, params=None):
        del params
        count = state.count + 1
        mu = updates
        if b1:
            mean = lambda m, g: b1 * m + (1 - b1) * g
            mu = jax.tree.map(mean, state.mu, updates)
        nu = jax.tree.map(lambda s, g: b2 * s + (1 - b2) * g * g, state.nu, updates)
        time = count.astype(jnp.result_type(float))
        scale = jnp.sqrt(1 - b2**time) / (1 - b1**time if b1 else 1)
        steps = jax.tree.map(
            lambda m, s: (scale * m / (jnp.sqrt(s) + eps)).astype(m.dtype), mu, nu
        )
        return steps, AdamState(count, mu if b1 else None, nu)

    return optax.GradientTransformation(init, update)


def exponential(step: Step, hyper: Hyper) -> Float[Array, ""]:
    """Return a rate that falls in steps, `lr rate^floor(max(step - start, 0) / every)`.

    Args:
        step: updates made before.
        hyper: `lr`, `rate`, `start` and `every`; if they are there, `lr_min`, a floor,
            and `warmup_steps` of a constant `warmup_value`.
    """
    past = jnp.maximum(step - hyper["start"], 0) // hyper["every"]
    rate = hyper["lr"] * jnp.asarray(hyper["rate"], jnp.result_type(float)) ** past
    if "lr_min" in hyper:
        rate = jnp.maximum(rate, hyper["lr_min"])
    if "warmup_steps" in hyper:
        early = step < hyper["warmup_steps"]
        rate = jnp.where(early, hyper["warmup_value"], rate)
    return rate


def cosine(step: Step, hyper: Hyper, *, compat: bool = False) -> Float[Array, ""]:
    """Return a rate that falls along a cosine and starts again, constant in an epoch.

        lr = lr_min + (lr_max - lr_min) (1 + cos(pi T_cur / T_i)) / 2

    T_cur epochs have passed since the last restart; the i-th period has
    T_i = period multiplier^i of them.

    Args:
        step: updates made before.
        hyper: `lr_max`, `lr_min`, `period`, `multiplier` and `steps_per_epoch`.
        compat: the first step of each restart takes the old T_cur with the new T_i,
            as in the published program, instead of `lr_max`.
    """
    real = jnp.result_type(float)
    epoch, within = jnp.divmod(jnp.asarray(step, jnp.int32), hyper["steps_per_epoch"])
    multiplier = jnp.asarray(hyper["multiplier"], real)

    def restart(state):
        passed, length, _ = state
        # Whole epochs: a period of 2.5 ends with the third.
        whole = jnp.ceil(length).astype(jnp.int32)
        return passed - whole, length * multiplier, whole

    # At least one epoch, or a period of 0 would restart for ever.
    length = jnp.maximum(jnp.asarray(hyper["period"], real), 1)
    start = epoch.astype(jnp.int32), length, jnp.zeros((), jnp.int32)
    passed, length, before = lax.while_loop(lambda s: s[0] >= s[1], restart, start)
    turn = jnp.pi
    if compat:
        glitch = (passed == 0) & (within == 0)
        passed, turn = jnp.where(glitch, before, passed), 3.1415926
    return _between(hyper, turn * passed / length)


def half_cosine(step: Step, hyper: Hyper) -> Float[Array, ""]:
    """Return a rate that falls along one half of a cosine, a little at each update.

    Args:
        step: updates made before.
        hyper: `lr_max`, `lr_min` and `steps`, of the whole training.

    Reference: Loshchilov and Hutter (2017), equation 5.
    """
    passed = jnp.asarray(step, jnp.result_type(float)) / hyper["steps"]
    return _between(hyper, jnp.pi * passed)


def _between(hyper: Hyper, turn: Array) -> Array:
    depth = (1 + jnp.cos(turn)) / 2
    return hyper["lr_min"] + (hyper["lr_max"] - hyper["lr_min"]) * depth


SCHEDULES: dict[str, Callable[..., Float[Array, ""]]] = {
    "cosine": cosine,
    "exponential": exponential,
}


def moving_average(average: Any, params: Any, decay: Scalar) -> Any:
    """Move averaged parameters towards new ones, `decay average + (1 - decay) new`."""
    return optax.incremental_update(params, average, 1 - decay)
