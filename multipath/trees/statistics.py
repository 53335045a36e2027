"""What a network does with the images of a set, as means over them."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from multipath.trees.forward import Record
from multipath.trees.graph import Layout, layout
from multipath.trees.net import Net, operations
from multipath.trees.policy import Reach


def means(
    net: Net, record: Record, reach: Reach, y: Float[Array, "batch classes"]
) -> dict[str, Array]:
    """Return the statistics of one batch; those of a set are their means.

    Args:
        net: which network.
        record: of a pass in evaluation mode, with targets.
        reach: probabilities of the nodes.
        y: one-hot targets.

    Returns:
        - `accuracy`, of the greedy policy, and `moc`, its mean operation count;
        - for each leaf `[leaves]`: `p_cor` and `p_inc`, shares of the images that end
          there and are right or wrong; `c_err`, the leaf's cross-entropy over all
          images; `p_tr`, its mean probability in training (not of static nets);
        - `p_cor_by_cls` and `p_inc_by_cls` `[leaves, classes]`, the shares by class;
        - `x_rte` `[switches]`, the mean size of the scores.
    """
    plan = layout(net.root)
    leaves = np.array(plan.leaves)
    here, right = reach.q[leaves], record.correct.astype(reach.q.dtype)
    correct, wrong = here * right, here * (1 - right)
    batch = y.shape[0]
    count = jnp.asarray(sum(operations(net)), reach.q.dtype)
    found = {
        "accuracy": jnp.sum(jnp.mean(correct, 1)),
        "moc": jnp.sum(jnp.mean(reach.q, 1) * count),
        "p_cor": jnp.mean(correct, 1),
        "p_inc": jnp.mean(wrong, 1),
        "p_cor_by_cls": correct @ y / batch,
        "p_inc_by_cls": wrong @ y / batch,
        "c_err": jnp.mean(record.c_err[leaves], 1),
    }
    if net.family != "sr":
        found["p_tr"] = jnp.mean(reach.p[leaves], 1)
    if plan.switches:
        sinks = np.array([len(plan.sinks[i]) for i in plan.switches], float)
        size = jnp.mean(jnp.sum(jnp.abs(record.scores), -1), 1)
        found["x_rte"] = size / jnp.asarray(sinks, size.dtype)
    return found


def by_node(plan: Layout, found: dict[str, Any]) -> tuple[dict, dict[str, dict]]:
    """Sort statistics by what they belong to.

    Args:
        plan: of the network.
        found: from `means`, as arrays or nested lists.

    Returns:
        Those of the network, by name (`acc`, `moc`), and those of each node by its
        path and name: numbers, and lists of them for classes.
    """
    whole = {"acc": float(found["accuracy"]), "moc": float(found["moc"])}
    nodes: dict[str, dict] = {path: {} for path in plan.paths}
    for name, values in found.items():
        if name in ("accuracy", "moc"):
            continue
        owners = plan.switches if name == "x_rte" else plan.leaves
        for owner, value in zip(owners, np.asarray(values, float), strict=True):
            nodes[plan.paths[owner]][name] = value.tolist()
    return whole, nodes
