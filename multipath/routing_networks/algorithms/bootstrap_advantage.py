"""Advantage learning from one-step targets.

Reference: Rosenbaum et al. (2019).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from multipath.routing_networks.algorithms import acting, base, formulas


def loss(experience: base.Experience) -> Float[Array, "depth batch"]:
    """Return (V - y)² + (A_a - (y - V))², y = r + γ (1 - z) V'.

    The published target is R at the last step.
    """
    target = formulas.bootstrapped(experience, experience.following["v"])
    if experience.decision.compat:
        target = jnp.where(experience.terminal, experience.final, target)
    return formulas.advantage_loss(experience, target)


ALGORITHM = base.Algorithm(
    base.stores(1), acting.act_by_value("adv", 1), loss, bootstraps=("v",)
)
