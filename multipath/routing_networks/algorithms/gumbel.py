"""Gumbel-softmax: the policy learns through the loss of the modules.

Samples are the largest of noisy scores; the gradient is that of a softmax of them.

Reference: Jang, Gu and Poole (2017); Maddison, Mnih and Teh (2017).
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from multipath.routing_networks.algorithms import base
from shared.errors import UsageError

_TINY = 1e-20


def act(
    decision, params, memory, x, agent, *, key, noise, train, exploration, forced
) -> base.Choice:
    """Choose the largest of scores and Gumbel noise, in evaluation of scores alone.

    s = softmax((scores + g) / τ), g = -ln(-ln u). In training the output's factor is
    1 + s_a - s_a, the second s_a a constant. In the mode "full" there is none: the
    statistic `weights`, 1[k = a] + s_k - s_k, tells the selection to add up all modules
    by it, which costs as many times more. Exploration e makes τ = 0.1 + 9.9 e.
    """
    logits = base.scores(decision, params, x, agent)
    greedy = jnp.argmax(logits, -1)
    statistics = {"logits": logits}
    if not train:
        return base.Choice(greedy if forced is None else forced, greedy, statistics)
    default = 0.1 + 9.9 * decision.exploration
    tau = base.temperature(decision, exploration, default)
    uniform = drawn(key, logits, noise)
    noisy = logits - jnp.log(-jnp.log(uniform + _TINY) + _TINY)
    soft = jax.nn.softmax(noisy / tau)
    action = jnp.argmax(noisy, -1) if forced is None else forced
    weights = jax.nn.one_hot(action, decision.actions, dtype=soft.dtype)
    weights = weights + (soft - lax.stop_gradient(soft))
    if decision.mode == "full":
        return base.Choice(action, greedy, statistics | {"weights": weights})
    factor = jnp.take_along_axis(weights, action[:, None], -1)[:, 0]
    return base.Choice(action, greedy, statistics, factor)


def drawn(key: Array | None, like: Array, noise: Array | None = None) -> Array:
    """Return the uniform numbers that are given, otherwise random ones.

    Raises:
        UsageError: for numbers of another shape; or without them and a key.
    """
    if noise is not None:
        if noise.shape != like.shape:
            allowed = f"shape {like.shape}: samples, and actions of each"
            raise UsageError("noise", f"shape {noise.shape}", allowed)
        return noise
    if key is None:
        raise UsageError("key", None, "a random key, in training without given noise")
    smallest = jnp.finfo(like.dtype).tiny
    return jax.random.uniform(key, like.shape, like.dtype, minval=smallest)


def loss(experience: base.Experience) -> Float[Array, "depth batch"]:
    """Return zeros: the gradient comes through the modules."""
    return jnp.zeros_like(experience.returns)


ALGORITHM = base.Algorithm(base.stores(), act, loss)
