"""Initialisers, under the names of the literature.

An initialiser is a function `(key, shape, dtype) -> array`. JAX has most of them; they
stand here beside the few that it lacks. For kernels, the last axis counts outputs, the
one before inputs, and all others multiply both fans.
"""

import math
from collections.abc import Callable

import jax
from jax.nn.initializers import (
    constant,
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    kaiming_normal,
    kaiming_uniform,
    lecun_normal,
    lecun_uniform,
    normal,
    ones,
    orthogonal,
    truncated_normal,
    variance_scaling,
    xavier_normal,
    xavier_uniform,
    zeros,
)
from jaxtyping import Array

from shared.errors import check_range

__all__ = [
    "Initializer",
    "constant",
    "embedding_normal",
    "fan_in_uniform",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "ones",
    "orthogonal",
    "symmetric_uniform",
    "truncated_normal",
    "variance_scaling",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]

Initializer = Callable[..., Array]


def symmetric_uniform(bound: float | int) -> Initializer:
    """Draw from U(-bound, bound)."""
    check_range("bound", bound, low=0)
    return lambda key, shape, dtype: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


def fan_in_uniform() -> Initializer:
    """Draw from U(-1/√n, 1/√n), n the fan-in: what PyTorch does for kernels.

    Reference:
        He et al. (2015), `kaiming_uniform` with a = √5.
    """
    return variance_scaling(1 / 3, "fan_in", "uniform")


def embedding_normal() -> Initializer:
    """Draw from N(0, 1)."""
    return normal(1.0)


def kernel_and_bias(
    key: Array,
    shape: tuple[int, ...],
    *,
    bias: bool,
    kernel_init: Initializer | None,
    bias_init: Initializer | None,
    dtype: jax.typing.DTypeLike,
) -> dict[str, Array]:
    """Draw `kernel` and, if there is one, `bias`; both U(±1/√fan-in) by default."""
    kernel_key, bias_key = jax.random.split(key)
    params = {"kernel": (kernel_init or fan_in_uniform())(kernel_key, shape, dtype)}
    if bias:
        fan_in = math.prod(shape[:-1])
        draw = bias_init or symmetric_uniform(fan_in**-0.5)
        params["bias"] = draw(bias_key, shape[-1:], dtype)
    return params
