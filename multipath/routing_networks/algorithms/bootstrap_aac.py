"""Advantage actor-critic with one-step targets.

Reference: Mnih et al. (2016).
"""

from jaxtyping import Array, Float

from multipath.routing_networks.algorithms import acting, base, formulas


def loss(experience: base.Experience) -> Float[Array, "depth batch"]:
    """Return -ln π(a) (y - V) + (V - y)², y = r + γ (1 - z) V'.

    The published one adds to each step the mean of the squares, and lets the gradient
    through V'.
    """
    value = experience.statistics["v"]
    target = formulas.bootstrapped(experience, experience.following["v"])
    actor = formulas.policy_gradient(experience, target - value)
    if experience.decision.compat:
        return actor + formulas.executed_mean(experience, (target - value) ** 2)
    return actor + formulas.regression(value, target)


ALGORITHM = base.Algorithm(
    base.stores(1), acting.act_by_policy(1), loss, bootstraps=("v",)
)
