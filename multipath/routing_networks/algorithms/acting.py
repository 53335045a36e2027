"""How agents act: by a policy, by values, greedily but for ε of the time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from multipath.routing_networks.algorithms.base import (
    Choice,
    Number,
    scores,
    temperature,
    values,
)
from multipath.routing_networks.settings import Decision
from shared.errors import UsageError


def act_by_policy(
    kind: int | str | None = None, *, tempered: bool = False
) -> Callable[..., Choice]:
    """Return the `act` that samples from softmax(scores / temperature).

    Args:
        kind: of the second store, as for `stores`.
        tempered: whether there is a temperature.
    """

    def act(
        decision, params, memory, x, agent, *, key, noise, train, exploration, forced
    ):
        logits = scores(decision, params, x, agent)
        if tempered:
            given = exploration if decision.temper else None
            logits = logits / temperature(decision, given, 1.0)
        logp = jax.nn.log_softmax(logits)
        greedy = jnp.argmax(logp, -1)
        action = greedy
        if forced is not None:
            action = forced
        elif train:
            action = sample_policy(key, logp)
        statistics = {"logp": logp, "logits": logits}
        statistics |= values(decision, params, x, agent, kind)
        return Choice(action, greedy, statistics)

    return act


def act_greedily_or_by_policy(
    kind: int | str | None = None, *, tripled: bool = False
) -> Callable[..., Choice]:
    """Return the `act` that samples with probability ε and is greedy otherwise.

    μ_k = (1 - ε) 1[k is greedy] + ε π_k. The published one, which does not sum to 1, is
    1 - ε for the greedy action g and ε π_k / ((1 - ln π_g) (K - 1)) for others.

    Args:
        kind: of the second store, as for `stores`.
        tripled: whether the published program triples an exploration that it is given.
    """

    def act(
        decision, params, memory, x, agent, *, key, noise, train, exploration, forced
    ):
        logits = scores(decision, params, x, agent)
        logp = jax.nn.log_softmax(logits)
        greedy = jnp.argmax(logp, -1)
        epsilon = _epsilon(decision, exploration)
        if tripled and decision.compat and exploration is not None:
            epsilon = jnp.minimum(1.0, 3.0 * epsilon)
        action = greedy
        if forced is not None:
            action = forced
        elif train:
            coin_key, key = jax.random.split(_needed(key))
            coin = jax.random.uniform(coin_key, greedy.shape) < epsilon
            action = jnp.where(coin, sample_policy(key, logp), greedy)
        probs = jnp.exp(logp)
        statistics = {
            "logp": logp,
            "logits": logits,
            "probs": probs,
            "mu": behaviour(logp, epsilon, compat=decision.compat) if train else probs,
            **values(decision, params, x, agent, kind),
        }
        return Choice(action, greedy, statistics)

    return act


def act_by_value(channel: str, kind: int | str | None = None) -> Callable[..., Choice]:
    """Return the `act` that is random with probability ε and greedy otherwise.

    Args:
        channel: name of the scores among the statistics.
        kind: of the second store, as for `stores`.
    """

    def act(
        decision, params, memory, x, agent, *, key, noise, train, exploration, forced
    ):
        q = scores(decision, params, x, agent)
        greedy = jnp.argmax(q, -1)
        action, coin = greedy, None
        if forced is not None:
            action = forced
        elif train:
            coin_key, key = jax.random.split(_needed(key))
            coin = jax.random.uniform(coin_key, greedy.shape)
            coin = coin < _epsilon(decision, exploration)
            drawn = jax.random.randint(key, greedy.shape, 0, decision.actions)
            action = jnp.where(coin, drawn, greedy)
        statistics = {channel: q, **values(decision, params, x, agent, kind)}
        explored = action != greedy
        if decision.compat and coin is not None:
            explored = coin
        return Choice(action, greedy, statistics, None, explored)

    return act


def sample_policy(
    key: Array | None, logp: Float[Array, "batch actions"]
) -> Int[Array, " batch"]:
    """Draw actions from log-probabilities, by one uniform number each.

    Raises:
        UsageError: without a key.
    """
    shares = jnp.cumsum(jnp.exp(logp), -1)
    drawn = jax.random.uniform(_needed(key), logp.shape[:-1], logp.dtype)
    # Noise for every action, as `categorical` draws, takes five times as long.
    place = jnp.sum(shares <= (drawn * shares[..., -1])[..., None], -1)
    return jnp.minimum(place, logp.shape[-1] - 1)


def behaviour(
    logp: Float[Array, "batch actions"], epsilon: Number, *, compat: bool = False
) -> Float[Array, "batch actions"]:
    """Return the probabilities of an ε-greedy policy's actions."""
    best = jax.nn.one_hot(jnp.argmax(logp, -1), logp.shape[-1], dtype=bool)
    if not compat:
        return jnp.where(best, 1 - epsilon, 0) + epsilon * jnp.exp(logp)
    top = jnp.max(logp, -1, keepdims=True)
    others = jnp.exp(logp) / (1 - top) * epsilon / max(logp.shape[-1] - 1, 1)
    return jnp.where(best, 1 - epsilon, others)


def _needed(key: Array | None) -> Array:
    if key is None:
        raise UsageError(
            "key", None, "a random key, in training without forced actions"
        )
    return key


def _epsilon(decision: Decision, exploration: Number | None) -> Number:
    return decision.exploration if exploration is None else exploration
