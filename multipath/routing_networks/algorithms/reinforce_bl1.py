"""REINFORCE whose baseline is the expected action value.

Reference: Rosenbaum et al. (2019).
"""

from jaxtyping import Array, Float

from multipath.routing_networks.algorithms import acting, base, formulas


def loss(experience: base.Experience) -> Float[Array, "depth batch"]:
    """Return -ln π(a) (G - Σ_k π_k Q_k) + (Q_a - y)².

    The published baseline is the value of action 0.
    """
    first = experience.statistics["q"][..., 0]
    return formulas.baseline_loss(experience, experience.returns, first)


ALGORITHM = base.Algorithm(
    base.stores("actions"), acting.act_by_policy("actions"), loss, bootstraps=("q",)
)
