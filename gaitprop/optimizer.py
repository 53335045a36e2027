"""Optimisers of the experiments, chosen by name, with traced coefficients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jax import numpy as jnp
from jaxtyping import Array, Float

from shared.errors import check_choice

Scalar = Float[Array, ""] | float | int

OPTIMIZERS = ("adam_nodebias", "adam", "sgd")


class AdamState(NamedTuple):
    """Running means of the gradient (`mu`) and its square (`nu`), like the params."""

    mu: Any
    nu: Any


def adam_nodebias(
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
) -> optax.GradientTransformation:
    """Return Adam without bias correction.

        m <- b1 m + (1 - b1) u,   v <- b2 v + (1 - b2) u^2,   step = lr m / (eps + v^.5)

    With the default coefficients the first step is `lr sign(u)`, and a constant
    gradient's step grows to about 2.1 lr before it settles at lr.

    Args:
        learning_rate: lr, a number or a traced scalar, like all coefficients.
        b1, b2: decay of the two running means.
        eps: added outside the root.
    """

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamState(zeros, jax.tree.map(jnp.zeros_like, params))

    def update(updates, state, params=None):
        del params
        mu = jax.tree.map(lambda m, u: b1 * m + (1 - b1) * u, state.mu, updates)
        nu = jax.tree.map(lambda v, u: b2 * v + (1 - b2) * u * u, state.nu, updates)
        step = jax.tree.map(
            lambda m, v: -learning_rate * (m / (eps + jnp.sqrt(v))), mu, nu
        )
        return step, AdamState(mu, nu)

    return optax.GradientTransformation(init, update)


def make_optimizer(
    name: str,
) -> Callable[[dict[str, Array]], optax.GradientTransformation]:
    """Return `hyper -> optimiser` for the optimiser called `name`.

    Args:
        name: `adam_nodebias`, `adam` (with bias correction) or `sgd`. They read
            `learning_rate` and, the first two, `beta1`, `beta2` and `eps`.
    """
    check_choice("optimizer", name, OPTIMIZERS)
    if name == "sgd":
        return lambda hyper: optax.sgd(hyper["learning_rate"])
    make = adam_nodebias if name == "adam_nodebias" else optax.adam
    return lambda hyper: make(
        hyper["learning_rate"], b1=hyper["beta1"], b2=hyper["beta2"], eps=hyper["eps"]
    )
