"""Invertible transfer functions.

Both are leaky rectifiers, `f(z) = z if z >= 0 else slope z`: slope 1 is the linear
transfer function. A slope is a Python number, so programs of linear networks hold no
trace of the rectifier. At zero the derivative is 1.
"""

from jax import numpy as jnp
from jaxtyping import Array, Bool, Float

TRANSFERS = ("leaky_relu", "linear")


def forward(z: Float[Array, "..."], slope: float | int) -> Float[Array, "..."]:
    """Apply the transfer function, `f(z)`."""
    return z if slope == 1 else jnp.where(z >= 0, z, slope * z)


def inverse(y: Float[Array, "..."], slope: float | int) -> Float[Array, "..."]:
    """Undo the transfer function, `g(y) = f^-1(y)`."""
    return y if slope == 1 else jnp.where(y >= 0, y, y / slope)


def derivative(y: Float[Array, "..."], slope: float | int) -> Float[Array, "..."]:
    """Return `f'(g(y))`, the slope at the unit whose activity is `y`.

    `f` keeps signs, so the derivative at a pre-activation and at its activity agree.
    """
    one = jnp.ones_like(y)
    return one if slope == 1 else jnp.where(y >= 0, one, slope * one)


def crossings(
    h: Float[Array, "..."], p: Float[Array, "..."], s: Float[Array, "..."]
) -> Bool[Array, "..."]:
    """Tell which units change sign between `h` and `h - s p`."""
    return (h >= 0) != (h - s * p >= 0)


def difference(
    h: Float[Array, "..."],
    p: Float[Array, "..."],
    s: Float[Array, "..."] | None,
    slope: float | int,
) -> Float[Array, "..."]:
    """Return `Q = (g(h) - g(h - s p)) / s`, evaluated without cancellation.

    A unit that keeps its sign has `Q = p f'(g(h))^-1`, whatever `s`. One that changes
    sign differs from that by `(1/slope - 1) h / s`, which `p` bounds because
    `|h| < |s p|` there.

    Args:
        h: activities `[batch, units]`.
        p: scaled change of the activities `[batch, units]`.
        s: scale of the change, a scalar or `[batch, 1]`; it may underflow to 0. None
            takes the limit, in which no unit changes sign.
        slope: slope of the transfer function for negative arguments.
    """
    if slope == 1:
        return p
    if s is None:
        return jnp.where(h < 0, p / slope, p)
    was, now = h < 0, h - s * p < 0
    jump = (1 / slope - 1) * (h / s)
    kept = jnp.where(now, p / slope, p)
    return jnp.where(was == now, kept, jnp.where(was, kept + jump, kept - jump))
