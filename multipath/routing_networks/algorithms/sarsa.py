"""SARSA.

Reference: Rummery and Niranjan (1994).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from multipath.routing_networks.algorithms import acting, base, formulas


def loss(experience: base.Experience) -> Float[Array, "depth batch"]:
    """Return (Q_a - y)², y = r + γ (1 - z) Q'_a'.

    The published target is R at the last step and Q_a' of the present one before.
    """
    q, later = experience.statistics["q"], experience.following_action
    if experience.decision.compat:
        target = jnp.where(
            experience.terminal, experience.final, formulas.of_action(q, later)
        )
    else:
        value = formulas.of_action(experience.following["q"], later)
        target = formulas.bootstrapped(experience, value)
    return formulas.regression(formulas.of_action(q, experience.action), target)


ALGORITHM = base.Algorithm(
    base.stores(), acting.act_by_value("q"), loss, bootstraps=("q",)
)
