"""RELAX: REINFORCE less a control variate that learns to lower the variance.

The variate c sees the input and a relaxed sample: s of the noise that led to the
action, and s~ of other noise given that action. What the one takes off the other gives
back, so the mean gradient is that of the return.

Reference: Grathwohl, Choi, Wu, Roeder and Duvenaud (2018), algorithm 1 and appendix B.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from multipath.routing_networks import storage
from multipath.routing_networks.algorithms import base, formulas
from multipath.routing_networks.algorithms.gumbel import drawn
from multipath.routing_networks.settings import Decision
from shared.errors import UsageError
from shared.model import Variables

ENTROPY = 0.01
"""Weight of the policy's entropy."""

VARIANCE = 0.5
"""Weight of the variance in what the control variate minimises."""

_TEMPERATURE = 0.5
_TINY = 1e-8


def init(key: Array, decision: Decision) -> Variables:
    """Return the parameters of the policy and, as `value`, of the control variate."""
    keys, network = jax.random.split(key), decision.network
    width = decision.width + decision.actions
    policy = storage.init(keys[0], decision, decision.actions, network=network)
    value = storage.init(
        keys[1], decision, 1, features=width, network=decision.value_network
    )
    return Variables({"policy": policy, "value": value}, {})


def act(
    decision, params, memory, x, agent, *, key, noise, train, exploration, forced
) -> base.Choice:
    """Choose the largest of scores and Gumbel noise, in evaluation of scores alone.

    `noise` is a pair of uniform numbers `[batch, actions]`, for s and s~. Exploration e
    makes the temperature of both 0.1 + 9.9 e; it is 0.5 otherwise. The statistics hold
    what the loss begins anew from.
    """
    logits = base.scores(decision, params, x, agent)
    greedy = jnp.argmax(logits, -1)
    if not train:
        action = greedy if forced is None else forced
        return base.Choice(action, greedy, {"logits": logits})
    given = (None, None) if noise is None else noise
    if len(given) != 2:
        raise UsageError("noise", f"{len(given)} arrays", "two, for s and s~")
    keys = (None, None) if key is None else jax.random.split(key)
    u, v = (drawn(own, logits, one) for own, one in zip(keys, given, strict=True))
    action = forced
    if action is None:
        z = jax.nn.log_softmax(logits) + _gumbel(u, decision.compat)
        action = jnp.argmax(z, -1)
    tau = base.temperature(decision, exploration, _TEMPERATURE)
    tau = jnp.full(greedy.shape, tau, logits.dtype)
    drawing = Drawing(x, agent, action, u, v, tau)
    relaxed = relax(decision, params, drawing)
    statistics = {
        "logits": logits,
        "c": relaxed.c,
        "c_tilde": relaxed.c_tilde,
        "features": x,
        "u": u,
        "v": v,
        "tau": tau,
    }
    return base.Choice(action, greedy, statistics)


class Drawing(NamedTuple):
    """What relaxed samples are made of, for each step."""

    features: Float[Array, "steps ..."]
    agent: Int[Array, " steps"]
    action: Int[Array, " steps"]
    u: Float[Array, "steps actions"]
    v: Float[Array, "steps actions"]
    tau: Float[Array, " steps"]


class Relaxed(NamedTuple):
    """Relaxed samples, and what the control variate says of them."""

    logp: Float[Array, "steps actions"]
    z: Float[Array, "steps actions"]
    z_tilde: Float[Array, "steps actions"]
    s: Float[Array, "steps actions"]
    s_tilde: Float[Array, "steps actions"]
    c: Float[Array, " steps"]
    c_tilde: Float[Array, " steps"]


def relax(decision: Decision, params: PyTree, drawing: Drawing) -> Relaxed:
    """Return z = ln π + g(u), s = softmax(z / τ), and the same given the action.

    z~_a = -ln(-ln v_a) and z~_k = -ln(-ln v_k / π_k + exp(-z~_a)) for the others. The
    published z~ is ln π_a + g(v_a) and ln π_k - ln(-ln v_k + π_k).
    """
    logits = base.scores(decision, params, drawing.features, drawing.agent)
    logp = jax.nn.log_softmax(logits)
    z = logp + _gumbel(drawing.u, decision.compat)
    chosen = jax.nn.one_hot(drawing.action, decision.actions, dtype=bool)
    wait = jnp.log(-jnp.log(drawing.v))
    if decision.compat:
        # Its variate is blind to a policy whose input is cut off.
        blind = decision.detach or decision.storage == "tabular"
        seen = lax.stop_gradient(logp) if blind else logp
        z = seen + _gumbel(drawing.u, True)
        others = seen - jnp.log(jnp.exp(wait) + jnp.exp(seen))
        z_tilde = jnp.where(chosen, seen + _gumbel(drawing.v, True), others)
    else:
        own = jnp.sum(jnp.where(chosen, wait, 0), -1, keepdims=True)
        z_tilde = -jnp.where(chosen, wait, jnp.logaddexp(wait - logp, own))
    s, s_tilde = (jax.nn.softmax(a / drawing.tau[:, None]) for a in (z, z_tilde))
    c, c_tilde = (_variate(decision, params, drawing, a) for a in (s, s_tilde))
    return Relaxed(logp, z, z_tilde, s, s_tilde, c, c_tilde)


def _gumbel(uniform: Array, compat: bool) -> Array:
    tiny = _TINY if compat else 0.0
    return -jnp.log(-jnp.log(uniform + tiny) + tiny)


def _variate(
    decision: Decision, params: PyTree, drawing: Drawing, sample: Array
) -> Float[Array, " steps"]:
    features = drawing.features.reshape(len(sample), -1)
    seen = jnp.concatenate([features, sample], -1)
    network = decision.value_network
    return storage.evaluate(params["value"], seen, drawing.agent, network=network)[:, 0]


def loss(experience: base.Experience) -> Float[Array, "depth batch"]:
    """Return what has the gradient ĝ of the policy, and that of Σ ĝ² of the variate.

    ĝ is the gradient of the mean of `estimate`. The policy alone learns from that and
    from its entropy, times 0.01; the variate alone from half of Σ ĝ². In evaluation
    there is nothing to learn. The published loss is 0, its gradient that of a sum.
    """
    shape, statistics = experience.returns.shape, experience.statistics
    if "u" not in statistics:
        return jnp.zeros_like(experience.returns)
    flat = lambda array: array.reshape(shape[0] * shape[1], *array.shape[2:])
    noise = [flat(statistics[name]) for name in ("u", "v", "tau")]
    features, agent = flat(statistics["features"]), flat(experience.agent)
    drawing = Drawing(features, agent, flat(experience.action), *noise)
    returns, mask = flat(experience.returns), flat(experience.mask)
    # Whoever averages over the batch gets back what is added to each step.
    share = shape[1] / jnp.maximum(jnp.sum(mask), 1).astype(returns.dtype)
    decision, params = experience.decision, experience.params
    if decision.compat:
        total = _published(decision, params, drawing, returns, mask)
        return jnp.broadcast_to(share * (total - lax.stop_gradient(total)), shape)

    def mean(policy: PyTree, value: PyTree) -> Array:
        own = {"policy": policy, "value": value}
        each = estimate(decision, own, lax.stop_gradient(drawing), returns)
        return jnp.sum(jnp.where(mask, each, 0)) / shape[1]

    policy, value = params["policy"], params["value"]
    variance = _squares(jax.grad(mean)(lax.stop_gradient(policy), value))
    own = {"policy": policy, "value": lax.stop_gradient(value)}
    each = estimate(decision, own, drawing, returns)
    entropy = formulas.entropy(relax(decision, own, drawing).logp)
    return (each - ENTROPY * entropy).reshape(shape) + VARIANCE * share * variance


def estimate(
    decision: Decision,
    params: PyTree,
    drawing: Drawing,
    returns: Float[Array, " steps"],
) -> Float[Array, " steps"]:
    """Return -(G - c(s~)) ln π(a) - c(s) + c(s~).

    The coefficient is a constant for the policy, though not for the control variate.
    """
    relaxed = relax(decision, params, drawing)
    fixed = {**params, "policy": lax.stop_gradient(params["policy"])}
    known = relax(decision, fixed, lax.stop_gradient(drawing)).c_tilde
    logp = jnp.take_along_axis(relaxed.logp, drawing.action[:, None], 1)[:, 0]
    return -(returns - known) * logp - relaxed.c + relaxed.c_tilde


def _published(
    decision: Decision, params: PyTree, drawing: Drawing, returns: Array, mask: Array
) -> Array:
    """Return what has the gradients that the published program leaves behind.

    With P = softmax(logits), p is the product of the Jacobian of P with
    -(G - c(s~)) (e_a - P), and d the gradient of c(s) - c(s~), counted once for each
    action: the policy learns by p - d, and both it and the variate by half of
    Σ (p - d)². Everything is summed over the steps.
    """
    drawing = lax.stop_gradient(drawing)
    chosen = jax.nn.one_hot(drawing.action, decision.actions, dtype=returns.dtype)
    chosen = chosen * mask[:, None]

    def look(policy: PyTree, value: PyTree) -> Relaxed:
        return relax(decision, {"policy": policy, "value": value}, drawing)

    def gradient(policy: PyTree, value: PyTree) -> PyTree:
        def difference(policy):
            relaxed = look(policy, value)
            apart = jnp.where(mask, relaxed.c - relaxed.c_tilde, 0)
            return decision.actions * jnp.sum(apart)

        probs, back = jax.vjp(lambda p: jnp.exp(look(p, value).logp), policy)
        coefficient = look(policy, value).c_tilde - returns
        coefficient = jnp.where(mask, coefficient, 0)[:, None]
        scores = back(coefficient * (chosen - probs))[0]
        return jax.tree.map(jnp.subtract, scores, jax.grad(difference)(policy))

    policy, value = params["policy"], params["value"]
    found = gradient(policy, value)
    products = jax.tree.map(
        lambda p, g: jnp.sum(p * lax.stop_gradient(g)), policy, found
    )
    entropy = jnp.sum(jnp.where(mask, formulas.entropy(look(policy, value).logp), 0))
    along = sum(jax.tree.leaves(products), jnp.zeros_like(entropy))
    return along - ENTROPY * entropy + VARIANCE * _squares(found)


def _squares(tree: PyTree) -> Float[Array, ""]:
    return sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)), jnp.zeros(()))


ALGORITHM = base.Algorithm(init, act, loss)
