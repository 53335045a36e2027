"""REINFORCE that acts greedily but for ε of the time.

Reference: Rosenbaum et al. (2019).
"""

from jaxtyping import Array, Float

from multipath.routing_networks.algorithms import acting, base, formulas


def loss(experience: base.Experience) -> Float[Array, "depth batch"]:
    """Return -ln π(a) w G, w = π_a / μ_a.

    The published one weights the sum over all steps: w_i Σ_j -ln π(a_j) G_j.
    """
    weight = formulas.importance(experience)
    if experience.decision.compat:
        each = formulas.policy_gradient(experience, experience.returns)
        return weight * formulas.executed_sum(experience, each)
    return formulas.policy_gradient(experience, weight * experience.returns)


ALGORITHM = base.Algorithm(
    base.stores(), acting.act_greedily_or_by_policy(tripled=True), loss
)
