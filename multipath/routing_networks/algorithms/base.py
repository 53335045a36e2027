"""What an algorithm is, and the stores of parameters that several have.

Reference: Rosenbaum et al. (2019), section 3.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import Array, Bool, Float, Int, PyTree

from multipath.routing_networks import storage
from multipath.routing_networks.settings import Decision
from shared.model import Variables

Number = Float[Array, ""] | float | int


class Choice(NamedTuple):
    """What a decision did for each sample.

    Attributes:
        action: which module.
        greedy: which one it holds for best.
        statistics: what the loss needs, `[batch, ...]`.
        factor: what the output is multiplied by; its value is 1, its gradient teaches
            a policy. None for most.
        explored: what is recorded as exploratory; None for action ≠ greedy, or for its
            opposite where the published program has that.
    """

    action: Int[Array, " batch"]
    greedy: Int[Array, " batch"]
    statistics: dict[str, Array]
    factor: Float[Array, " batch"] | None = None
    explored: Bool[Array, " batch"] | None = None


class Experience(NamedTuple):
    """All steps of one decision in a pass; arrays `[depth, batch, ...]`.

    Attributes:
        decision: which one.
        params: its parameters.
        statistics: as it recorded them.
        following: those of the next step of each sample, zeros where `terminal`.
        action, following_action: of this step and of the next.
        agent: who acted.
        mask: which steps were executed; the others count for nothing.
        reward, returns: r and G.
        final: R of the sample.
        terminal: whether there is no next step to learn from.
        gamma: discount.
        rate: learning rate of what is learnt without a gradient; None leaves it to the
            decision.
    """

    decision: Decision
    params: PyTree
    statistics: dict[str, Array]
    following: dict[str, Array]
    action: Int[Array, "depth batch"]
    following_action: Int[Array, "depth batch"]
    agent: Int[Array, "depth batch"]
    mask: Bool[Array, "depth batch"]
    reward: Float[Array, "depth batch"]
    returns: Float[Array, "depth batch"]
    final: Float[Array, "depth batch"]
    terminal: Bool[Array, "depth batch"]
    gamma: Number
    rate: Number | None = None


class Algorithm(NamedTuple):
    """One way to learn decisions.

    Attributes:
        init: `(key, decision) -> Variables`: parameters `[agents, ...]`, and the
            decision's part of the memory beside its history.
        act: `(decision, params, memory, x, agent, *, key, noise, train, exploration,
            forced) -> Choice`, for inputs `[batch, ...]`.
        loss: `(experience) -> [depth, batch]`; whatever the steps not executed have.
        update: `(decision, memory, experience) -> memory` for what is learnt without a
            gradient; None for most.
        bootstraps: statistics of the next step that the loss needs.
    """

    init: Callable[..., Variables]
    act: Callable[..., Choice]
    loss: Callable[[Experience], Array]
    update: Callable[..., dict[str, PyTree]] | None = None
    bootstraps: tuple[str, ...] = ()


def stores(values: int | str | None = None) -> Callable[[Array, Decision], Variables]:
    """Return the `init` of algorithms with a policy and perhaps values.

    Args:
        values: outputs of the second store: 1 of a state, "actions" of each action.
    """

    def init(key: Array, decision: Decision) -> Variables:
        keys = jax.random.split(key)
        own = decision.network
        params = {
            "policy": storage.init(keys[0], decision, decision.actions, network=own)
        }
        if values is not None:
            outputs = decision.actions if values == "actions" else 1
            params["value"] = storage.init(
                keys[1],
                decision,
                outputs,
                network=_value_network(decision, values),
            )
        return Variables(params, {})

    return init


def _value_network(decision: Decision, values: int | str | None):
    if decision.value_network is None and values == "actions":
        return decision.network
    return decision.value_network


def scores(
    decision: Decision, params: PyTree, x: Array, agent: Array
) -> Float[Array, "batch actions"]:
    """Return what the policy store says of each action."""
    return storage.evaluate(params["policy"], x, agent, network=decision.network)


def values(
    decision: Decision, params: PyTree, x: Array, agent: Array, kind: int | str | None
) -> dict[str, Array]:
    """Return the statistic of the second store: `q`, `v` or nothing."""
    if kind is None:
        return {}
    network = _value_network(decision, kind)
    found = storage.evaluate(params["value"], x, agent, network=network)
    return {"q": found} if kind == "actions" else {"v": found[..., 0]}


def temperature(
    decision: Decision, exploration: Number | None, default: Number
) -> Number:
    """Return 0.1 + 9.9 of a given exploration, otherwise the default."""
    if decision.temperature is not None:
        return decision.temperature
    return default if exploration is None else 0.1 + 9.9 * exploration
