"""Measures that optax lacks."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree


def accuracy(
    logits: Float[Array, "*batch classes"], labels: Int[Array, "*batch"]
) -> Float[Array, ""]:
    """Return the share of examples whose largest logit is that of the label."""
    return jnp.mean(jnp.argmax(logits, axis=-1) == labels)


def angle(a: PyTree, b: PyTree) -> Float[Array, ""]:
    """Return the angle in degrees between two trees, seen as vectors.

    θ = 2 atan2(|a/|a| - b/|b||, |a/|a| + b/|b||), which keeps its digits for small
    angles, where the arc cosine loses half of them. Zero if a or b is zero or not
    finite.
    """
    unit = lambda tree, norm: jax.tree.map(
        lambda leaf: leaf / jnp.where(norm > 0, norm, 1), tree
    )
    norms = optax.tree.norm(a), optax.tree.norm(b)
    a, b = unit(a, norms[0]), unit(b, norms[1])
    apart = optax.tree.norm(jax.tree.map(jnp.subtract, a, b))
    together = optax.tree.norm(jax.tree.map(jnp.add, a, b))
    degrees = jnp.rad2deg(2 * jnp.arctan2(apart, together))
    known = (jnp.minimum(*norms) > 0) & jnp.isfinite(norms[0] + norms[1])
    return jnp.where(known, degrees, jnp.zeros_like(degrees))
