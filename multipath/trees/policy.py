"""How likely an image is to reach each node, and what its way costs.

Reference: McGill and Perona (2017), section 3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from multipath.trees.graph import Layout
from shared.errors import check_range

Number = Float[Array, "..."] | float | int


class Reach(NamedTuple):
    """Probabilities of reaching each node, nodes in pre-order.

    Attributes:
        p: under the policy of training.
        q: under the greedy policy, 0 or 1.
    """

    p: Float[Array, "nodes batch"]
    q: Float[Array, "nodes batch"]


def choices(
    plan: Layout, scores: Float[Array, "switches batch sinks"]
) -> Int[Array, "switches batch"]:
    """Return the sink with the highest score, the first of equal ones."""
    return jnp.argmax(jnp.where(_valid(plan), scores, -jnp.inf), -1)


def reach(
    plan: Layout,
    scores: Float[Array, "switches batch sinks"],
    tau: Number,
    eps: Number,
    *,
    batch: int,
) -> Reach:
    """Return the probabilities of all nodes.

    Training sends an image to sink i of a switch with probability
    (p - f) softmax(scores / tau)_i + f_i, where f is eps times the share of all leaves
    that lie below the node and f_i that of the sink: with probability eps an image goes
    to a leaf chosen evenly.

    Args:
        plan: of the network.
        scores: of its routers.
        tau: temperature, positive.
        eps: exploration, in [0, 1].
        batch: number of images, where there is no score to tell it.

    Raises:
        UsageError: for a negative tau, or an eps outside [0, 1], that is not traced.
    """
    for name, value, high in (("tau", tau, None), ("eps", eps, 1)):
        if not isinstance(value, Tracer) and np.ndim(value) == 0:
            check_range(name, float(value), low=0, high=high)
    # A schedule may let tau vanish; scores are to stay finite when divided by it.
    tau = jnp.maximum(tau, float(jnp.finfo(scores.dtype).tiny) ** 0.5)
    shares = jax.nn.softmax(jnp.where(_valid(plan), scores / tau, -jnp.inf), -1)
    best = jax.nn.one_hot(choices(plan, scores), plan.max_sinks, dtype=scores.dtype)
    floor = jnp.asarray(plan.leaf_counts / plan.leaf_counts[0], scores.dtype) * eps
    p = q = jnp.ones((1, batch), scores.dtype)
    levels_p, levels_q = [p], [q]
    for above, level in zip(plan.depths, plan.depths[1:], strict=False):
        way = _ways(plan, above, level)
        p, q = p[way.parents], q[way.parents]
        if way.switches.size:
            base, own = (floor[np.array(nodes)][:, None] for nodes in way.floors)
            at = way.switches, slice(None), way.positions
            moved = (p[way.routed] - base) * shares[at] + own
            p = p.at[way.routed].set(moved)
            q = q.at[way.routed].multiply(best[at])
        levels_p.append(p)
        levels_q.append(q)
    order = np.argsort([i for level in plan.depths for i in level])
    return Reach(jnp.concatenate(levels_p)[order], jnp.concatenate(levels_q)[order])


class _Ways(NamedTuple):
    """How the nodes of one depth hang on those above, as places within the depths."""

    parents: np.ndarray
    routed: np.ndarray
    switches: np.ndarray
    positions: np.ndarray
    floors: tuple[list[int], list[int]]


def _ways(plan: Layout, above: tuple[int, ...], level: tuple[int, ...]) -> _Ways:
    parents = [plan.parents[i] for i in level]
    routed = [k for k, i in enumerate(parents) if len(plan.sinks[i]) > 1]
    switches = [plan.switches.index(parents[k]) for k in routed]
    return _Ways(
        np.array([above.index(i) for i in parents]),
        np.array(routed, int),
        np.array(switches, int),
        np.array([plan.positions[level[k]] for k in routed], int),
        ([parents[k] for k in routed], [level[k] for k in routed]),
    )


def _valid(plan: Layout) -> np.ndarray:
    """Return which scores belong to sinks `[switches, 1, sinks]`."""
    counts = np.array([len(plan.sinks[i]) for i in plan.switches], int)
    return (np.arange(plan.max_sinks)[None] < counts[:, None])[:, None]


def cost_to_go(
    plan: Layout,
    costs: Float[Array, "nodes batch"],
    scores: Float[Array, "switches batch sinks"],
    *,
    optimistic: bool,
) -> Float[Array, "nodes batch"]:
    """Add up the costs from each node down to a leaf.

    Args:
        plan: of the network.
        costs: of each node alone.
        scores: of the routers.
        optimistic: along the cheapest way, instead of the one that the scores choose.
    """
    best = choices(plan, scores)
    totals: dict[int, Array] = {}
    for node in reversed(range(len(plan.nodes))):
        total, below = costs[node], plan.sinks[node]
        if len(below) == 1:
            total = total + totals[below[0]]
        elif below:
            options = jnp.stack([totals[sink] for sink in below])
            if optimistic:
                total = total + jnp.min(options, 0)
            else:
                taken = best[plan.switches.index(node)][None]
                total = total + jnp.take_along_axis(options, taken, 0)[0]
        totals[node] = total
    return jnp.stack([totals[i] for i in range(len(plan.nodes))])
