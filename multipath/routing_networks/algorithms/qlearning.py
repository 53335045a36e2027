"""Q-learning.

Reference: Watkins and Dayan (1992).
"""

from jaxtyping import Array, Float

from multipath.routing_networks.algorithms import acting, base, formulas


def loss(experience: base.Experience) -> Float[Array, "depth batch"]:
    """Return (Q_a - y)², y = r + γ (1 - z) max_k Q'_k."""
    q = formulas.of_action(experience.statistics["q"], experience.action)
    return formulas.regression(q, formulas.greedy_target(experience))


ALGORITHM = base.Algorithm(
    base.stores(), acting.act_by_value("q"), loss, bootstraps=("q",)
)
