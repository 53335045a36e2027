"""Advantage actor-critic that acts greedily but for ε of the time.

Reference: Rosenbaum et al. (2019).
"""

from jaxtyping import Array, Float

from multipath.routing_networks.algorithms import acting, base, formulas


def loss(experience: base.Experience) -> Float[Array, "depth batch"]:
    """Return -ln π(a) w (G - V) + (V - G)², w = π_a / μ_a.

    The published one is w_i Σ_j -ln π(a_j) (G_j - V_j) + Σ_j (G_j - V_j)².
    """
    value, weight = experience.statistics["v"], formulas.importance(experience)
    advantage = experience.returns - value
    critic = formulas.regression(value, experience.returns)
    if experience.decision.compat:
        actor = formulas.executed_sum(
            experience, formulas.policy_gradient(experience, advantage)
        )
        return weight * actor + formulas.executed_sum(experience, critic)
    return formulas.policy_gradient(experience, weight * advantage) + critic


ALGORITHM = base.Algorithm(base.stores(1), acting.act_greedily_or_by_policy(1), loss)
