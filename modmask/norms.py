"""Running means of gradient norms, one for each masked parameter."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

WINDOW = 11
"""Norms that a mean goes over, as in the published program."""


def start(logits: PyTree) -> Float[Array, "parameters window"]:
    """Return the empty record: not-a-number where no norm is yet."""
    leaves = jax.tree.leaves(logits)
    return jnp.full((len(leaves), WINDOW), jnp.nan, leaves[0].dtype)


def push(
    record: Float[Array, "parameters window"], gradient: PyTree
) -> Float[Array, "parameters window"]:
    """Add the norms of a gradient, dropping the oldest."""
    newest = jnp.stack([optax.tree.norm(leaf) for leaf in jax.tree.leaves(gradient)])
    return jnp.concatenate([record[:, 1:], newest[:, None]], axis=1)


def means(record: Float[Array, "parameters window"]) -> Float[Array, " parameters"]:
    """Return the mean of the norms that there are."""
    return jnp.nanmean(record, axis=1)


def scales(record: Float[Array, "parameters window"]) -> Float[Array, " parameters"]:
    """Return the factors of the penalty, max(g_p / mean g, 1e-4) (g: mean norms)."""
    g = means(record)
    return jnp.maximum(g / jnp.mean(g), 1e-4)
