"""Weighted policy learner: a probability moves the slower, the less is left of its way.

With tables the policy is a vector of probabilities that is moved and projected without
a gradient: it lies in the memory, not among the parameters. A policy that is a function
of the input learns by gradient, with the same weights.

Reference: Abdallah and Lesser (2008); Rosenbaum, Klinger and Riemer (2018), section 3.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from multipath.routing_networks.algorithms import acting, base, formulas
from multipath.routing_networks.settings import Decision
from shared.errors import UsageError
from shared.model import Variables

_ABOVE = 1e-6
"""What the published policy adds to the scores above the least one."""


def init(key: Array, decision: Decision) -> Variables:
    """Return parameters, or the memory of a table: `policy` and `baseline`.

    Raises:
        UsageError: if the probabilities of a table cannot all reach the floor.
    """
    if not _by_table(decision):
        return base.stores("actions")(key, decision)
    if decision.floor * decision.actions >= 1:
        allowed = f"less than 1 / {decision.actions}, one over the number of actions"
        raise UsageError("floor", decision.floor, allowed)
    return Variables({}, begin(decision))


def begin(decision: Decision) -> dict[str, Array]:
    """Return the probabilities `[agents, actions]` and mean returns `[agents]`."""
    shape, dtype = (decision.agents, decision.actions), jnp.result_type(float)
    policy = jnp.full(shape, 1 / decision.actions, dtype)
    return {"policy": policy, "baseline": jnp.zeros(decision.agents, dtype)}


def act(
    decision, params, memory, x, agent, *, key, noise, train, exploration, forced
) -> base.Choice:
    """Sample from the policy, whatever the exploration."""
    if _by_table(decision):
        table = memory if "policy" in memory else begin(decision)
        statistics = {"logp": jnp.log(table["policy"][agent])}
    else:
        scores = base.scores(decision, params, x, agent)
        policy = published_policy if decision.compat else jax.nn.log_softmax
        q = base.values(decision, params, x, agent, "actions")
        statistics = {"logp": policy(scores), **q}
    action = greedy = jnp.argmax(statistics["logp"], -1)
    if forced is not None:
        action = forced
    elif train:
        action = acting.sample_policy(key, statistics["logp"])
    return base.Choice(action, greedy, statistics)


def published_policy(
    scores: Float[Array, "*batch actions"],
) -> Float[Array, "*batch actions"]:
    """Return ln p / Σ p within the type's precision, p = s - min s + 1e-6.

    The gradient of the least score is that of the first one, and there is none where
    the precision cuts.
    """
    first = jnp.argmin(scores, -1, keepdims=True)
    above = scores - jnp.take_along_axis(scores, first, -1) + _ABOVE
    policy = above / jnp.sum(above, -1, keepdims=True)
    smallest = jnp.finfo(scores.dtype).eps
    cut = lax.stop_gradient(jnp.clip(policy, smallest, 1 - smallest))
    return jnp.log(jnp.where(cut == policy, policy, cut))


def loss(experience: base.Experience) -> Float[Array, "depth batch"]:
    """Return -Δ w ln π(a) + (Q_a - G)², Δ = G - Σ_k π_k Q_k, Δ w a constant.

    w is 1 - π(a) after a better return than expected, otherwise π(a). The published
    loss is (ln π(a) - f ln π(a))² + (Q_a - G)² with Δ = G - Q_a and f = 1 + Δ if that
    is negative, otherwise 2 - Δ, the second ln π(a) a constant. Tables lose nothing.
    """
    if _by_table(experience.decision):
        return jnp.zeros_like(experience.returns)
    q = formulas.of_action(experience.statistics["q"], experience.action)
    critic = formulas.regression(q, experience.returns)
    if experience.decision.compat:
        logp = formulas.of_action(experience.statistics["logp"], experience.action)
        better = experience.returns - q
        factor = jnp.where(better < 0, 1 + better, 2 - better)
        return formulas.regression(logp, logp * factor) + critic
    better = experience.returns - formulas.expected_value(experience)
    weighted = weigh(better, experience.statistics["logp"], experience.action)
    return formulas.policy_gradient(experience, weighted) + critic


def weigh(
    better: Float[Array, "*batch"],
    logp: Float[Array, "*batch actions"],
    action: Int[Array, "*batch"],
) -> Float[Array, "*batch"]:
    """Return Δ w: a gain times the way up that is left, a loss times that down."""
    taken = jnp.exp(jnp.take_along_axis(logp, action[..., None], -1)[..., 0])
    return better * jnp.where(better < 0, taken, 1 - taken)


def update(
    decision: Decision, memory: dict[str, PyTree], experience: base.Experience
) -> dict[str, PyTree]:
    """Return the memory after the steps of a pass; without tables it is the same."""
    if not _by_table(decision):
        return memory
    tables = memory if "policy" in memory else begin(decision)
    flat = lambda array: array.reshape(-1)
    learnt = wpl_update(
        {name: tables[name] for name in ("policy", "baseline")},
        flat(experience.agent),
        flat(experience.action),
        flat(experience.returns),
        flat(experience.mask),
        rate=decision.rate if experience.rate is None else experience.rate,
        decay=decision.decay,
        floor=decision.floor,
    )
    return {**memory, **learnt}


def wpl_update(
    tables: dict[str, Array],
    agent: Int[Array, " steps"],
    action: Int[Array, " steps"],
    returns: Float[Array, " steps"],
    mask: Bool[Array, " steps"] | None = None,
    *,
    rate: base.Number = 0.05,
    decay: float | int = 0.05,
    floor: float | int = 0.02,
) -> dict[str, Array]:
    """Move probabilities by what was better than the mean return, and project them.

    π <- project(π + rate · mean of Δ w e_a),  R̄ <- R̄ + decay (mean of G - R̄), the
    means over the steps of an agent, Δ = G - R̄. An agent without steps stays as it is.

    Args:
        tables: `policy` `[agents, actions]` and `baseline` `[agents]`, R̄.
        agent: who acted.
        action: what it chose.
        returns: G.
        mask: the steps that count; None means all.
        rate: of the probabilities.
        decay: weight of new returns in the mean return.
        floor: least probability.
    """
    policy, baseline = tables["policy"], tables["baseline"]
    active = jnp.ones(agent.shape, bool) if mask is None else mask
    whose = jax.nn.one_hot(agent, len(policy), dtype=policy.dtype)
    whose = jnp.where(active[:, None], whose, 0)
    count = jnp.sum(whose, 0)
    mean = lambda rows: (whose.T @ rows) / jnp.maximum(count, 1)[:, None]
    returns = returns.astype(policy.dtype)
    step = weigh(returns - baseline[agent], jnp.log(policy)[agent], action)
    chosen = jax.nn.one_hot(action, policy.shape[1], dtype=policy.dtype)
    moved = project(policy + rate * mean(step[:, None] * chosen), floor)
    return {
        "policy": jnp.where(count[:, None] > 0, moved, policy),
        "baseline": baseline
        + decay * (mean(returns[:, None])[:, 0] - baseline) * (count > 0),
    }


def project(
    vector: Float[Array, "*batch actions"], floor: float | int = 0.0
) -> Float[Array, "*batch actions"]:
    """Return the nearest vector that sums to 1 and whose entries reach the floor.

    Reference:
        Duchi et al. (2008), figure 1.
    """
    size = vector.shape[-1]
    over = vector - floor
    ordered = -jnp.sort(-over, -1)
    ranks = jnp.arange(1, size + 1, dtype=vector.dtype)
    ranks = ranks.reshape((1,) * (vector.ndim - 1) + (size,))
    excess = (jnp.cumsum(ordered, -1) - (1 - size * floor)) / ranks
    last = jnp.sum(ordered > excess, -1, keepdims=True) - 1
    return jnp.maximum(over - jnp.take_along_axis(excess, last, -1), 0) + floor


def _by_table(decision: Decision) -> bool:
    """Return whether the policy is a table that moves without a gradient."""
    return decision.storage == "tabular" and not decision.compat


ALGORITHM = base.Algorithm(init, act, loss, update)
