"""Policies and values of several agents: functions of the input, or tables.

Parameters are stacked over agents.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from multipath.routing_networks.settings import Decision
from shared.errors import UsageError
from shared.layers import linear as layers
from shared.model import Model, Variables

_DENSE = 8
"""Up to so many agents it is cheaper to ask all than to gather one's parameters."""


def init(
    key: Array,
    decision: Decision,
    outputs: int,
    *,
    features: int | None = None,
    network: Model | None = None,
) -> PyTree:
    """Return the parameters of one store, `[agents, ...]`.

    Tables begin at 1 / outputs, layers as linear ones do.

    Args:
        key: consumed.
        decision: whose.
        outputs: numbers for each sample.
        features: size of the input if it is not the decision's.
        network: a function of the user's own.

    Raises:
        UsageError: if that has a state.
    """
    dtype = jnp.result_type(float)
    if decision.storage == "tabular":
        return {"table": jnp.full((decision.agents, outputs), 1 / outputs, dtype)}
    keys = jax.random.split(key, decision.agents)
    if decision.tie_init:
        keys = jnp.broadcast_to(keys[:1], keys.shape)
    if network is not None:
        variables = jax.vmap(network.init)(keys)
        if jax.tree.leaves(variables.state):
            raise UsageError("network", "one with a state", "a network without")
        return {"network": variables.params}
    sizes = (features or decision.width, *decision.hidden, outputs)

    def layer_stack(key):
        keys = jax.random.split(key, len(sizes) - 1)
        return {
            f"layer{i}": layers.init_linear(keys[i], *sizes[i : i + 2], dtype=dtype)
            for i in range(len(keys))
        }

    return jax.vmap(layer_stack)(keys)


def evaluate(
    store: PyTree,
    x: Float[Array, "batch ..."],
    agent: Int[Array, " batch"],
    *,
    network: Model | None = None,
) -> Float[Array, "batch outputs"]:
    """Return what each sample's agent says; layers have rectifiers in between.

    Args:
        store: from `init`.
        x: inputs, which tables ignore and layers flatten.
        agent: of each sample.
        network: as `init` had it.
    """
    if "table" in store:
        return store["table"][agent]
    if "network" in store:
        assert network is not None
        return _asked_all(
            lambda params: network.apply(Variables(params), x)[0],
            store["network"],
            agent,
        )
    x = x.reshape(x.shape[0], -1)
    if len(store["layer0"]["kernel"]) <= _DENSE:
        return _asked_all(lambda params: _layered(params, x), store, agent)
    own = jax.tree.map(lambda leaf: leaf[agent], store)
    return jax.vmap(_layered)(own, x)


def _asked_all(apply, params: PyTree, agent: Array) -> Array:
    """Let all agents speak and keep what each sample's says."""
    if jax.tree.leaves(params)[0].shape[0] == 1:
        return apply(jax.tree.map(lambda leaf: leaf[0], params))
    said = jax.vmap(apply, out_axes=1)(params)
    return jnp.take_along_axis(said, agent[:, None, None], 1)[:, 0]


def _layered(params: PyTree, x: Array) -> Array:
    for i in range(len(params)):
        x = layers.linear(params[f"layer{i}"], x if i == 0 else jax.nn.relu(x))
    return x
