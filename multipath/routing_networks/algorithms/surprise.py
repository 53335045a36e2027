"""Surprise learning; corrected, it equals `bootstrap_advantage`.

Reference: Rosenbaum et al. (2019).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from multipath.routing_networks.algorithms import base, bootstrap_advantage, formulas


def loss(experience: base.Experience) -> Float[Array, "depth batch"]:
    """Return (V - y)² + (A_a - (y - V))², y = r + γ (1 - z) V'.

    The published target is R at the last step and V' - r before.
    """
    if not experience.decision.compat:
        return bootstrap_advantage.loss(experience)
    before = experience.following["v"] - experience.reward
    target = jnp.where(experience.terminal, experience.final, before)
    return formulas.advantage_loss(experience, target)


ALGORITHM = bootstrap_advantage.ALGORITHM._replace(loss=loss)
