"""The pass that evaluates every node of a network for every image.

So it is in training and in the statistics of whole sets; how likely an image is to get
to a node is counted afterwards, from the scores of the routers (`policy`). `inference`
runs the nodes that images really reach.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

from multipath.trees import kinds, layers, multiscale
from multipath.trees.graph import Group, Layout, Node, layout
from multipath.trees.net import (
    Net,
    check_images,
    group_name,
    price_input,
    with_price,
)
from shared.errors import check_choice


class Record(NamedTuple):
    """What one pass gives, with nodes in pre-order.

    Attributes:
        c_err: error cost `[nodes, batch]`, 0 where there is no error.
        c_mod: cost of complexity `[nodes, batch]`.
        router_c_mod: that of the node's router `[nodes, batch]`.
        scores: of the routers `[switches, batch, sinks]`, 0 beyond a switch's sinks.
        probabilities: of classes, at each leaf `[leaves, batch, classes]`.
        correct: whether the leaf is right `[leaves, batch]`; all false without targets.
    """

    c_err: Float[Array, "nodes batch"]
    c_mod: Float[Array, "nodes batch"]
    router_c_mod: Float[Array, "nodes batch"]
    scores: Float[Array, "switches batch sinks"]
    probabilities: Float[Array, "leaves batch classes"]
    correct: Bool[Array, "leaves batch"]


def apply(
    net: Net,
    params: dict[str, Any],
    state: dict[str, Any],
    x: Num[Array, "batch height width channels"],
    *,
    y: Float[Array, "batch classes"] | None = None,
    train: bool = False,
    k_cpt: Float[Array, "..."] | None = None,
    alpha_cpt: Float[Array, ""] | float = 1e7,
    key: Array | None = None,
    axis_name: Any = None,
    how: str = "auto",
) -> tuple[Record, dict[str, Any]]:
    """Evaluate every node for every image.

    Args:
        net: which network.
        params, state: from `init`.
        x: images in [0, 1].
        y: one-hot targets; None leaves errors at 0.
        train: whether batch normalisation uses the batch.
        k_cpt: price of an operation for each image, `[batch]`, `[1]` or `[]`; needed
            with `dyn_k_cpt`, and used by no other network.
        alpha_cpt: scale of that input.
        key: for dropout in training.
        axis_name: mapped axis over which the moments of batches are pooled.
        how: whether the convolutions of equal nodes run as one (`vmap`) or in turn
            (`loop`), which is faster on a CPU; equal results.

    Returns:
        The record, and the new running statistics.

    Raises:
        UsageError: for images of another size or kind, and missing or wrong prices.
    """
    check_choice("how", how, ("auto", "vmap", "loop"))
    check_images(net, x)
    if how == "auto":
        how = "loop" if jax.default_backend() == "cpu" else "vmap"
    plan, batch = layout(net.root), x.shape[0]
    price = price_input(net, k_cpt, alpha_cpt, batch, x.dtype)
    run = layers.Pass(y, train, key, axis_name)
    signals, parts, states = [], [], {}
    for g, group in enumerate(plan.groups):
        name = group_name(plan, g)
        source = jax.tree.map(lambda a: a[None], x)
        if group.parent >= 0:
            source = signals[group.parent]
        own = params.get(name, {}), state.get(name, {})
        out, signal = _run_group(
            group, own, source, run._replace(live=live_scales(group)), price, how
        )
        signals.append(signal)
        parts.append(out)
        if name in state:
            states[name] = out.state
    return _gather(plan, parts, batch), states


def live_scales(group: Group) -> int | None:
    """Return how many of its scales are read, of a published transformation."""
    node = group.node
    if not _begins_with_convolution(node) or not node.sinks:
        return None
    readers = [sink.chain for sink in node.sinks]
    readers += [node.router] if node.router is not None else []
    scales = len(node.chain.comps[0].n_chan)
    return max(layers.scales_read(reader, scales) for reader in readers)


class _NodeOut(NamedTuple):
    """Outputs of one node, or stacked of several."""

    state: dict[str, Any]
    c_err: Array
    c_mod: Array
    router_c_mod: Array
    scores: Array | None
    probabilities: Array | None
    correct: Array | None


def _run_group(
    group: Group,
    variables: tuple[dict, dict],
    source: Any,
    run: layers.Pass,
    price: Array | None,
    how: str,
) -> tuple[_NodeOut, Any]:
    """Run equal nodes; their variables, signals and outputs have a member axis."""
    node, numbers = group.node, jnp.array(group.members)
    if how == "loop" and len(group.members) > 1 and _begins_with_convolution(node):
        out = _chain_in_turn(node.chain, *variables, source, group.sources, run)
    else:
        # A slice for one member is free; a gather is not.
        one = len(group.members) == 1
        pick = lambda a: (
            a[group.sources[0]][None] if one else a[np.array(group.sources)]
        )
        x = jax.tree.map(pick, source)
        chain = lambda p, s, x, number: layers.apply(
            node.chain, p, s, x, _keyed(run, number)
        )
        out = _mapped(chain)(*variables, x, numbers)
    finish = functools.partial(_finish_node, node, run=run, price=price)
    return _mapped(finish)(*variables, out, numbers), out.x


def _mapped(fn: Callable) -> Callable:
    """Map over members; one is run as it is."""

    def mapped(*args):
        if jax.tree.leaves(args)[0].shape[0] > 1:
            return jax.vmap(fn)(*args)
        out = fn(*jax.tree.map(lambda a: a[0], args))
        return jax.tree.map(lambda a: jnp.asarray(a)[None], out)

    return mapped


def _keyed(run: layers.Pass, number: Array | int) -> layers.Pass:
    if run.key is None:
        return run
    return run._replace(key=jax.random.fold_in(run.key, number))


def _chain_in_turn(
    chain: kinds.Chain,
    params: dict,
    state: dict,
    x: Any,
    sources: Sequence[int],
    run: layers.Pass,
) -> layers.Out:
    """Run a convolution of each member in turn, and the layers after it as one."""
    first, *rest = chain.comps
    y = multiscale.conv_max(first, params["c0"], x, sources)
    penalty = jax.vmap(functools.partial(layers.conv_max_penalty, first))(params["c0"])
    after = kinds.Chain((kinds.NoOp(), *rest))
    apply_rest = lambda p, s, y: layers.apply(after, p, s, y, run)
    below = {name: values for name, values in params.items() if name != "c0"}
    out = jax.vmap(apply_rest)(below, state, y)
    return out._replace(c_mod=out.c_mod + penalty)


def _finish_node(
    node: Node,
    params: dict,
    state: dict,
    out: layers.Out,
    number: Array,
    *,
    run: layers.Pass,
    price: Array | None,
) -> _NodeOut:
    """Run the router of a node on what its chain gave, and collect the costs."""
    leaf = jax.tree.leaves(out.x)[0]
    batch = leaf.shape[0]
    each = lambda value: jnp.broadcast_to(jnp.asarray(value, leaf.dtype), (batch,))
    scores, router_c_mod, new = None, 0.0, out.state
    if node.router is not None:
        seen = out.x if price is None else with_price(out.x, price)
        # The chain has used the streams of its own layers.
        own = _keyed(_keyed(run, number), len(node.chain.comps))
        routed = layers.apply(node.router, params["r"], state["r"], seen, own)
        scores, router_c_mod = routed.x, routed.c_mod
        new = {**new, "r": routed.state}
    probabilities, correct = None, None
    if not node.sinks:
        probabilities, correct = out.x, out.correct
        if correct is None:
            correct = jnp.zeros(batch, bool)
    return _NodeOut(
        new,
        each(out.c_err),
        each(out.c_mod),
        each(router_c_mod),
        scores,
        probabilities,
        correct,
    )


def _begins_with_convolution(node: Node) -> bool:
    first, *rest = node.chain.comps or (None,)
    by_scale = kinds.MultiscaleBatchNorm | kinds.MultiscaleRect
    return isinstance(first, kinds.MultiscaleConvMax) and all(
        isinstance(comp, by_scale) for comp in rest
    )


def _gather(plan: Layout, parts: list[_NodeOut], batch: int) -> Record:
    """Put the outputs of groups into pre-order."""
    order = np.argsort([i for group in plan.groups for i in group.members])

    def nodes(name):
        return jnp.concatenate([getattr(part, name) for part in parts])[order]

    def some(name):
        pairs = [
            (group.members, getattr(part, name))
            for group, part in zip(plan.groups, parts, strict=True)
            if getattr(part, name) is not None
        ]
        if not pairs:
            # A static network has no scores.
            return jnp.zeros((0, batch, 0), parts[0].c_err.dtype)
        numbers = [i for members, _ in pairs for i in members]
        widest = max(values.shape[-1] for _, values in pairs)
        whole = [filled_up(values, widest) for _, values in pairs]
        return jnp.concatenate(whole)[np.argsort(numbers)]

    return Record(
        nodes("c_err"),
        nodes("c_mod"),
        nodes("router_c_mod"),
        some("scores"),
        some("probabilities"),
        some("correct"),
    )


def filled_up(values: Array, size: int) -> Array:
    """Add zeros after the last axis, up to some size."""
    missing = size - values.shape[-1]
    if not missing:
        return values
    return jnp.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])
