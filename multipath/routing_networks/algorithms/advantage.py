"""Advantage learning from returns.

Reference: Rosenbaum et al. (2019).
"""

from jaxtyping import Array, Float

from multipath.routing_networks.algorithms import acting, base, formulas


def loss(experience: base.Experience) -> Float[Array, "depth batch"]:
    """Return (V - G)² + (A_a - (G - V))²."""
    return formulas.advantage_loss(experience, experience.returns)


ALGORITHM = base.Algorithm(base.stores(1), acting.act_by_value("adv", 1), loss)
