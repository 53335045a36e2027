"""Multipath networks: what is fixed at construction, parameters, operations."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from multipath.trees import kinds, layers
from multipath.trees.graph import Layout, Node, layout
from shared.errors import UsageError, check_choice
from shared.model import Variables

FAMILIES = ("sr", "actor", "critic")


@dataclass(frozen=True)
class Net:
    """A network and how its routing is learned; what is fixed at construction.

    Attributes:
        family: sr (statically routed, no routers), actor (routers follow the gradient
            of the expected cost) or critic (routers predict minus the cost to go).
        root: its nodes.
        image: height, width and channels.
        classes: classes to tell apart.
        dyn_k_cpt: the price of an operation is an input of each image, which the
            routers see.
        optimistic: critics regress on the cost under the best choices instead of
            their own.
        use_cls_err: critics regress on classification errors instead of the
            cross-entropy.
        talr: throughput-adjusted learning rates.
        stop_grad_p: whether the costs of complexity and of decisions leave an actor's
            policy alone.
    """

    family: str
    root: Node
    image: tuple[int, int, int]
    classes: int
    dyn_k_cpt: bool = False
    optimistic: bool = False
    use_cls_err: bool = False
    talr: bool = True
    stop_grad_p: bool = True

    def __post_init__(self):
        check_choice("family", self.family, FAMILIES)
        switches = len(layout(self.root).switches)
        if self.family == "sr" and switches:
            raise UsageError(
                "family", "sr", f"actor or critic, for {switches} switches"
            )
        if self.family != "sr" and not switches:
            allowed = "sr, for a network without switches"
            raise UsageError("family", self.family, allowed)
        for node in layout(self.root).nodes:
            for layer in _layers(node.chain):
                if isinstance(layer, kinds.ToPyramid):
                    _check_divides(self.image, layer.n_scales)


def init(key: Array, net: Net, *, dtype: DTypeLike | None = None) -> Variables:
    """Initialise a network.

    Args:
        key: consumed.
        net: which one.
        dtype: of all arrays; JAX's default float type if None.

    Returns:
        Params `{path: {"c0": {...}, ..., "r": {...}}}`: one entry for each group of
        equal nodes, by the path of its first, with a leading member axis; `r` is the
        router's. State likewise.
    """
    plan, dtype = layout(net.root), dtype or jnp.result_type(float)
    makers = _makers(net, dtype)
    sizes = [
        len(g.members) * m.normals for g, m in zip(plan.groups, makers, strict=True)
    ]
    normals = jax.random.normal(key, (sum(sizes),), dtype)
    parts = jnp.split(normals, np.cumsum(sizes)[:-1])
    variables = [
        jax.vmap(maker.make)(part.reshape(len(group.members), -1))
        for group, maker, part in zip(plan.groups, makers, parts, strict=True)
    ]
    params = {group_name(plan, g): v.params for g, v in enumerate(variables)}
    state = {group_name(plan, g): v.state for g, v in enumerate(variables)}
    return Variables(_filled(params), _filled(state))


@functools.lru_cache(maxsize=64)
def operations(net: Net) -> tuple[np.ndarray, np.ndarray]:
    """Return the operations of each node and of its router, 0 without one `[nodes]`."""
    plan = layout(net.root)
    nodes, routers = (np.zeros(len(plan.nodes), int) for _ in range(2))
    for group, maker in zip(plan.groups, _makers(net, jnp.float32), strict=True):
        node, members = group.node, list(group.members)
        params, state = jax.eval_shape(maker.make, maker.example)
        nodes[members] = layers.count_ops(node.chain, params, state, maker.x)
        if node.router is not None:
            seen = _seen(net, maker.signal)
            own = params["r"], state["r"]
            routers[members] = layers.count_ops(node.router, *own, seen)
    # Shared by all callers.
    nodes.flags.writeable = routers.flags.writeable = False
    return nodes, routers


@functools.lru_cache(maxsize=64)
def outputs(net: Net) -> int:
    """Return how many numbers the widest leaf gives."""
    pairs = zip(layout(net.root).groups, _makers(net, jnp.float32), strict=True)
    return max(m.signal.shape[-1] for g, m in pairs if not g.node.sinks)


def drops(net: Net) -> bool:
    """Tell whether anything in a network is dropped in training."""
    both = [
        part for node in layout(net.root).nodes for part in (node.chain, node.router)
    ]
    every = (layer for part in both if part is not None for layer in _layers(part))
    return any(isinstance(layer, kinds.Dropout) and layer.keep < 1 for layer in every)


def _layers(layer: kinds.Layer) -> Iterator[kinds.Layer]:
    """Yield the layers of a chain, those of chains within it too."""
    if isinstance(layer, kinds.Chain):
        for comp in layer.comps:
            yield from _layers(comp)
    else:
        yield layer


class _Maker(NamedTuple):
    """How the variables of a group's nodes are made.

    Attributes:
        make: `normals -> Variables` of one node.
        normals: how many numbers it takes.
        example: what such numbers look like.
        x: what the node's input looks like.
        signal: what its chain gives.
    """

    make: Callable[[Array], Variables]
    normals: int
    example: jax.ShapeDtypeStruct
    x: Any
    signal: Any


@functools.lru_cache(maxsize=16)
def _makers(net: Net, dtype: DTypeLike) -> list[_Maker]:
    signals, makers = [], []
    for group in layout(net.root).groups:
        x = jax.ShapeDtypeStruct((1, *net.image), dtype)
        if group.parent >= 0:
            x = signals[group.parent]
        chain, router = group.node.chain, group.node.router
        of_chain = layers.count_normals(chain, x)
        example = jax.ShapeDtypeStruct((of_chain,), dtype)
        make = lambda z: layers.init(z, chain, x)  # noqa: B023
        params, state = jax.eval_shape(make, example)
        signals.append(layers.shapes(chain, params, state, x))
        seen, count = None, of_chain
        if router is not None:
            seen = _seen(net, signals[-1])
            count += layers.count_normals(router, seen)
        make = functools.partial(
            _init_node, node=group.node, x=x, seen=seen, cut=of_chain
        )
        example = jax.ShapeDtypeStruct((count,), dtype)
        makers.append(_Maker(make, count, example, x, signals[-1]))
    return makers


def _init_node(normals: Array, *, node: Node, x: Any, seen: Any, cut: int) -> Variables:
    params, state = layers.init(normals[:cut], node.chain, x)
    if node.router is not None:
        router = layers.init(normals[cut:], node.router, seen)
        params, state = {**params, "r": router.params}, {**state, "r": router.state}
    return Variables(params, state)


def node_variables(net: Net, variables: Variables) -> dict[str, Variables]:
    """Return params and state of each node by its path, without the member axis."""
    plan = layout(net.root)
    found = {}
    for number, path in enumerate(plan.paths):
        g, place = plan.grouped[number]
        name = group_name(plan, g)
        cut = lambda a: a[place]  # noqa: B023
        found[path] = Variables(
            *(jax.tree.map(cut, tree.get(name, {})) for tree in variables)
        )
    return found


def from_node_variables(net: Net, nodes: dict[str, Variables]) -> Variables:
    """Undo `node_variables`."""
    plan = layout(net.root)
    params, state = {}, {}
    for g, group in enumerate(plan.groups):
        own = [nodes[plan.paths[i]] for i in group.members]
        params[group_name(plan, g)], state[group_name(plan, g)] = jax.tree.map(
            lambda *leaves: jnp.stack(leaves), *own
        )
    return Variables(_filled(params), _filled(state))


def scale_nodes(
    net: Net, tree: dict[str, Any], chain: Array, router: Array
) -> dict[str, Any]:
    """Multiply what belongs to each node, and to its router, by numbers `[nodes]`."""
    plan = layout(net.root)
    scaled = {}
    for g, group in enumerate(plan.groups):
        name = group_name(plan, g)
        if name not in tree:
            continue
        members = np.array(group.members)
        scaled[name] = {
            part: jax.tree.map(
                functools.partial(_times, (router if part == "r" else chain)[members]),
                values,
            )
            for part, values in tree[name].items()
        }
    return scaled


def _times(factors: Array, leaf: Array) -> Array:
    return leaf * factors.reshape(-1, *(1,) * (leaf.ndim - 1)).astype(leaf.dtype)


def group_name(plan: Layout, group: int) -> str:
    """Return what the variables of a group go by: the path of its first node."""
    return plan.paths[plan.groups[group].members[0]]


def _filled(tree: dict[str, Any]) -> dict[str, Any]:
    return {name: values for name, values in tree.items() if values}


def _check_divides(image: tuple[int, int, int], scales: int) -> None:
    height, width, _ = image
    divisor = 2 ** (scales - 1)
    if height % divisor or width % divisor:
        allowed = f"height and width divisible by {divisor}, for {scales} scales"
        raise UsageError("image", f"{height} x {width}", allowed)


def check_images(net: Net, images: Any, *, one: bool = False) -> None:
    """Refuse what a network cannot take for images.

    Args:
        net: which network.
        images: a batch of them.
        one: a single image instead.

    Raises:
        UsageError: for numbers that are not floats, and images of another size.
    """
    dtype = getattr(images, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        given = type(images).__name__ if dtype is None else str(dtype)
        raise UsageError("images", given, "an array of floats in [0, 1]")
    size = images.shape if one else images.shape[1:]
    if tuple(size) != net.image:
        sides = " x ".join(map(str, net.image))
        allowed = f"one of {sides}" if one else f"a batch x {sides}"
        raise UsageError("images", " x ".join(map(str, images.shape)), allowed)


def price_input(
    net: Net,
    k_cpt: Num[np.ndarray | Array, "..."] | float | int | None,
    alpha_cpt: Num[Array, ""] | float | int,
    batch: int,
    dtype: DTypeLike,
) -> Float[Array, "batch one"] | None:
    """Return the price of an operation as an input of each image, if the net has it.

    Raises:
        UsageError: if it has and there is no price, or prices that do not fit.
    """
    if not net.dyn_k_cpt:
        return None
    if k_cpt is None:
        raise UsageError("k_cpt", None, "the price of an operation, for dyn_k_cpt")
    count = np.size(k_cpt)
    if count not in (1, batch):
        raise UsageError("k_cpt", f"{count} prices", f"one, or one for each of {batch}")
    if not isinstance(k_cpt, Tracer):
        values = np.ravel(k_cpt)
        wrong = values[~((values >= 0) & np.isfinite(values))]
        if wrong.size:
            raise UsageError("k_cpt", float(wrong[0]), "a number >= 0")
    price = jnp.ravel(alpha_cpt * jnp.asarray(k_cpt))
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    return jnp.broadcast_to(price, (batch,)).astype(dtype)[:, None]


def with_price(signal: Any, price: Float[Array, "batch 1"]) -> Any:
    """Append the price of an operation to each flattened scale, for a router."""
    flat = lambda scale: scale.reshape(scale.shape[0], -1)
    return jax.tree.map(lambda s: jnp.concatenate([flat(s), price], 1), signal)


def _seen(net: Net, signal: Any) -> Any:
    """Return the kind of signal that a router gets."""
    if not net.dyn_k_cpt:
        return signal
    dtype = jax.tree.leaves(signal)[0].dtype
    return jax.eval_shape(with_price, signal, jax.ShapeDtypeStruct((1, 1), dtype))
