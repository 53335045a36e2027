"""REINFORCE with a baseline, every action weighing the same in expectation.

Reference: Rosenbaum et al. (2019).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from multipath.routing_networks.algorithms import acting, base, formulas


def loss(experience: base.Experience) -> Float[Array, "depth batch"]:
    """Return -ln π(a) (G / (K π_a) - Σ_k π_k Q_k) + (Q_a - y)².

    The published baseline is the value of action 0.
    """
    logp, q = (experience.statistics[name] for name in ("logp", "q"))
    chance = jnp.exp(formulas.of_action(logp, experience.action))
    weighted = experience.returns / (logp.shape[-1] * chance)
    return formulas.baseline_loss(experience, weighted, q[..., 0])


ALGORITHM = base.Algorithm(
    base.stores("actions"), acting.act_by_policy("actions"), loss, bootstraps=("q",)
)
