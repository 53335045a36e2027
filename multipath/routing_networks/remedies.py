"""Terms of the objective that keep routers from collapsing.

They need policies, which value-based algorithms do not have.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from multipath.routing_networks import diagnostics
from multipath.routing_networks.algorithms import formulas
from multipath.routing_networks.trajectory import Steps, Trajectory
from shared.errors import UsageError


def entropy(trajectory: Trajectory) -> Float[Array, ""]:
    """Return the mean entropy of the policies, in nats.

    Reference: Williams and Peng (1991).
    """
    return _mean(trajectory, lambda s: _average(s, formulas.entropy(_log_policy(s))))


def imbalance(trajectory: Trajectory) -> Float[Array, ""]:
    """Return K Σ_k f_k P_k, 1 if the K modules of each decision are used evenly.

    f_k is the share of the samples that went to module k, a constant, and P_k its mean
    probability.

    Reference: Fedus, Zoph and Shazeer (2022), equation 4.
    """

    def one(steps):
        probs = jnp.exp(_log_policy(steps))
        taken = jax.nn.one_hot(steps.action, probs.shape[-1], dtype=probs.dtype)
        shares = [_average(steps, each) for each in (taken, probs)]
        return probs.shape[-1] * jnp.sum(shares[0] * shares[1])

    return _mean(trajectory, one)


def score_size(trajectory: Trajectory) -> Float[Array, ""]:
    """Return the mean of (ln Σ_k exp s_k)², s the scores before any softmax.

    Reference: Zoph et al. (2022), equation 5.
    """

    def one(steps):
        return _average(steps, jax.nn.logsumexp(steps.statistics["logits"], -1) ** 2)

    return _mean(trajectory, one)


def _log_policy(steps: Steps) -> Float[Array, "depth batch actions"]:
    logp = diagnostics.log_policy(steps)
    if logp is None:
        raise UsageError("algorithm", steps.decision.algorithm, "one with a policy")
    return logp


def _average(steps: Steps, values: Array) -> Array:
    """Average `[depth, batch, ...]` over executed steps."""
    mask = steps.mask.astype(values.dtype)
    weight = mask.reshape(mask.shape + (1,) * (values.ndim - 2))
    return jnp.sum(values * weight, (0, 1)) / jnp.maximum(jnp.sum(mask), 1)


def _mean(trajectory: Trajectory, of) -> Float[Array, ""]:
    found = [of(steps) for steps in trajectory.steps]
    return sum(found[1:], found[0]) / len(found)
