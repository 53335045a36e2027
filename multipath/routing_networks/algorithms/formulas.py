"""Formulas that the losses of several algorithms share; arrays `[depth, batch]`.

Reference: Sutton and Barto (2018); Rosenbaum et al. (2019).
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from multipath.routing_networks.algorithms.base import Experience


def of_action(
    statistic: Float[Array, "depth batch actions"], action: Int[Array, "depth batch"]
) -> Float[Array, "depth batch"]:
    """Return the entries of the actions taken."""
    return jnp.take_along_axis(statistic, action[..., None], -1)[..., 0]


def entropy(logp: Float[Array, "*steps actions"]) -> Float[Array, "*steps"]:
    """Return -Σ p ln p in nats.

    Taken from logarithms, since the slope of p ln p is infinite at a probability that
    rounds to 0.
    """
    finite = jnp.maximum(logp, jnp.finfo(logp.dtype).min)
    return -jnp.sum(jnp.exp(logp) * finite, -1)


def policy_gradient(
    experience: Experience, weight: Float[Array, "depth batch"]
) -> Float[Array, "depth batch"]:
    """Return -ln π(a) times a constant."""
    logp = of_action(experience.statistics["logp"], experience.action)
    return -logp * lax.stop_gradient(weight)


def regression(
    value: Float[Array, "depth batch"], target: Float[Array, "depth batch"]
) -> Float[Array, "depth batch"]:
    """Return the squared distance from a constant."""
    return (value - lax.stop_gradient(target)) ** 2


def bootstrapped(
    experience: Experience, later: Float[Array, "depth batch"]
) -> Float[Array, "depth batch"]:
    """Return y = r + γ (1 - z) times the value of the next step."""
    discounted = jnp.where(experience.terminal, 0, experience.gamma * later)
    return experience.reward + discounted


def greedy_target(experience: Experience) -> Float[Array, "depth batch"]:
    """Return y = r + γ (1 - z) max_k Q'_k.

    The published one is R at the last step and max_k Q'_k - r before.
    """
    best = jnp.max(experience.following["q"], -1)
    if experience.decision.compat:
        return jnp.where(
            experience.terminal, experience.final, best - experience.reward
        )
    return bootstrapped(experience, best)


def expected_value(experience: Experience) -> Float[Array, "depth batch"]:
    """Return Σ_k π_k Q_k."""
    policy = jnp.exp(experience.statistics["logp"])
    return jnp.sum(policy * experience.statistics["q"], -1)


def baseline_loss(
    experience: Experience,
    returns: Float[Array, "depth batch"],
    published: Float[Array, "depth batch"],
) -> Float[Array, "depth batch"]:
    """Return -ln π(a) (G - b) + (Q_a - y)², b = Σ_k π_k Q_k.

    Args:
        experience: of the decision.
        returns: G, perhaps weighted.
        published: b of the published program.
    """
    q = of_action(experience.statistics["q"], experience.action)
    compat = experience.decision.compat
    baseline = published if compat else expected_value(experience)
    critic = regression(q, greedy_target(experience))
    return policy_gradient(experience, returns - baseline) + critic


def importance(experience: Experience) -> Float[Array, "depth batch"]:
    """Return w = π_a / μ_a, a constant."""
    probs, mu = (experience.statistics[name] for name in ("probs", "mu"))
    weight = of_action(probs, experience.action) / of_action(mu, experience.action)
    return lax.stop_gradient(weight)


def executed_sum(
    experience: Experience, each: Float[Array, "depth batch"]
) -> Float[Array, ""]:
    """Add up over the executed steps."""
    return jnp.sum(jnp.where(experience.mask, each, 0))


def executed_mean(
    experience: Experience, each: Float[Array, "depth batch"]
) -> Float[Array, ""]:
    """Average over the executed steps."""
    count = jnp.maximum(jnp.sum(experience.mask), 1)
    return executed_sum(experience, each) / count.astype(each.dtype)


def advantage_loss(
    experience: Experience, target: Float[Array, "depth batch"]
) -> Float[Array, "depth batch"]:
    """Return (V - y)² + (A_a - (y - V))², y - V a constant."""
    value = experience.statistics["v"]
    advantage = of_action(experience.statistics["adv"], experience.action)
    return regression(value, target) + regression(advantage, target - value)
