"""Advantage actor-critic with returns.

Reference: Mnih et al. (2016).
"""

from jaxtyping import Array, Float

from multipath.routing_networks.algorithms import acting, base, formulas


def loss(experience: base.Experience) -> Float[Array, "depth batch"]:
    """Return -ln π(a) (G - V) + (V - G)².

    The published one adds to each step the mean of the squares.
    """
    value = experience.statistics["v"]
    critic = formulas.regression(value, experience.returns)
    if experience.decision.compat:
        critic = formulas.executed_mean(experience, critic)
    return formulas.policy_gradient(experience, experience.returns - value) + critic


ALGORITHM = base.Algorithm(base.stores(1), acting.act_by_policy(1), loss)
