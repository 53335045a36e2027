"""What networks minimise, and how far each node's gradient is scaled.

Each family's objective is one function of the record of a pass. Costs are means over
the batch of sums over nodes.

Reference: McGill and Perona (2017), sections 3.1 to 3.4.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from multipath.trees import policy
from multipath.trees.forward import Record
from multipath.trees.graph import Layout, layout
from multipath.trees.net import Net, operations

Hyper = Mapping[str, Any]
"""Settings that may change from step to step:

- `k_cpt`: price of an operation, one for all or one for each image `[batch]`;
- `k_dec`: weight of an actor's squared scores; `k_cre`: of a critic's errors;
- `tau`, `eps`: temperature and exploration of the training policy;
- `alpha_rtr`: scale of the routers' gradients.

Updates also read `alpha_cpt`, the scale of prices as input, `lr` and `mu`, and how
fast `lr` and `tau` halve: `lr_half`, `tau_half`.
"""


class Costs(NamedTuple):
    """What a network is judged by.

    Attributes:
        total: the objective.
        reach: probabilities of the nodes; ones for a statically routed net.
        to_go: a critic's targets `[nodes, batch]`, else None.
        regression: a critic's cost `[switches, batch]`, else None.
    """

    total: Float[Array, ""]
    reach: policy.Reach
    to_go: Float[Array, "nodes batch"] | None = None
    regression: Float[Array, "switches batch"] | None = None


def costs(net: Net, record: Record, hyper: Hyper) -> Costs:
    """Return the objective of a network's family."""
    return OBJECTIVES[net.family](net, record, hyper)


def _statically_routed(net: Net, record: Record, hyper: Hyper) -> Costs:
    """J = mean Σ c_err + c_mod."""
    del hyper
    ones = jnp.ones_like(record.c_err)
    total = _mean(record.c_err + record.c_mod)
    return Costs(total, policy.Reach(ones, ones))


def _actor(net: Net, record: Record, hyper: Hyper) -> Costs:
    """J = mean Σ p c_err + k_cpt p n + [p] c_mod + [p] k_dec |scores|².

    The brackets are left out of the gradient unless `stop_grad_p` is false.
    """
    plan = layout(net.root)
    reach = _reach(plan, record, hyper)
    p = reach.p
    weight = jax.lax.stop_gradient(p) if net.stop_grad_p else p
    total = _mean(p * (record.c_err + _prices(net, record, hyper)))
    total += _mean(weight * (record.c_mod + record.router_c_mod))
    decisions = hyper["k_dec"] * jnp.sum(record.scores**2, -1)
    total += _mean(weight[_switches(plan)] * decisions)
    return Costs(total, reach)


def _critic(net: Net, record: Record, hyper: Hyper) -> Costs:
    """J = mean Σ [p] (c_err + c_mod + k_cre |scores + [V]|²), V the cost to go."""
    plan = layout(net.root)
    reach = _reach(plan, record, hyper)
    weight = jax.lax.stop_gradient(reach.p)
    error = record.c_err
    if net.use_cls_err:
        wrong = 1 - record.correct.astype(error.dtype)
        error = jnp.zeros_like(error).at[jnp.array(plan.leaves)].set(wrong)
    to_go = jax.lax.stop_gradient(
        policy.cost_to_go(
            plan,
            error + _prices(net, record, hyper),
            record.scores,
            optimistic=net.optimistic,
        )
    )
    misses = [
        jnp.sum(
            (record.scores[s, :, : len(sinks)] + to_go[jnp.array(sinks)].T) ** 2, -1
        )
        for s, sinks in enumerate(plan.sinks[i] for i in plan.switches)
    ]
    regression = hyper["k_cre"] * jnp.stack(misses)
    total = _mean(weight * (record.c_err + record.c_mod + record.router_c_mod))
    total += _mean(weight[_switches(plan)] * regression)
    return Costs(total, reach, to_go, regression)


OBJECTIVES: dict[str, Callable[[Net, Record, Hyper], Costs]] = {
    "sr": _statically_routed,
    "actor": _actor,
    "critic": _critic,
}


def throughput_scales(
    net: Net,
    reach: policy.Reach,
    alpha_rtr: Array | float,
    *,
    axis_name: Any = None,
) -> tuple[Float[Array, " nodes"], Float[Array, " nodes"]]:
    """Return the factors of the gradients of nodes and of their routers.

    κ = 1 / √mean(p²), so that a node's steps do not shrink with the share of images
    that reach it. κ may be huge, but what it scales carries a weight of at most p.

    Args:
        net: whether it has throughput-adjusted rates at all.
        reach: probabilities in training.
        alpha_rtr: further factor of routers.
        axis_name: mapped axis that the batch is shared over.
    """
    if net.family == "sr" or not net.talr:
        scale = jnp.ones(reach.p.shape[0], reach.p.dtype)
    else:
        square = jnp.mean(reach.p**2, 1)
        if axis_name is not None:
            square = jax.lax.pmean(square, axis_name)
        scale = jax.lax.rsqrt(jnp.maximum(square, jnp.finfo(square.dtype).tiny))
    return scale, alpha_rtr * scale


def _reach(plan: Layout, record: Record, hyper: Hyper) -> policy.Reach:
    batch = record.c_err.shape[1]
    return policy.reach(plan, record.scores, hyper["tau"], hyper["eps"], batch=batch)


def _prices(net: Net, record: Record, hyper: Hyper) -> Float[Array, "nodes batch"]:
    """Return what the operations of each node and its router cost."""
    count = jnp.asarray(sum(operations(net)), record.c_err.dtype)
    batch = record.c_err.shape[1]
    k_cpt = jnp.broadcast_to(jnp.ravel(jnp.asarray(hyper["k_cpt"])), (batch,))
    return count[:, None] * k_cpt[None]


def _switches(plan: Layout) -> Array:
    return jnp.array(plan.switches, int)


def _mean(values: Float[Array, "rows batch"]) -> Float[Array, ""]:
    return jnp.mean(jnp.sum(values, 0))
