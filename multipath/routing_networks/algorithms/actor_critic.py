"""Actor and critic of action values; corrected, it equals `reinforce_bl1`.

Reference: Konda and Tsitsiklis (2000).
"""

from jaxtyping import Array, Float

from multipath.routing_networks.algorithms import acting, base, formulas


def loss(experience: base.Experience) -> Float[Array, "depth batch"]:
    """Return -ln π(a) (G - Σ_k π_k Q_k) + (Q_a - y)².

    The published baseline is the value of the action taken.
    """
    q = formulas.of_action(experience.statistics["q"], experience.action)
    return formulas.baseline_loss(experience, experience.returns, q)


ALGORITHM = base.Algorithm(
    base.stores("actions"),
    acting.act_by_policy("actions", tempered=True),
    loss,
    bootstraps=("q",),
)
