"""Trees of layers: their specification, the published nets, and their layout.

A net is a rooted tree. A node runs a Chain on the signal of its parent and hands the
result to its sinks; a node with several sinks is a *switch* and has a router, which
scores them. A leaf classifies. Nodes are numbered in pre-order, the order of files and
figures.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from multipath.trees.kinds import (
    ActivityError,
    BatchNorm,
    Chain,
    CrossEntropyError,
    Dropout,
    LinTrans,
    MultiscaleBatchNorm,
    MultiscaleConvMax,
    MultiscaleRect,
    NoOp,
    Rect,
    Select,
    Softmax,
    ToPyramid,
)
from shared.errors import UsageError, check_range

ARCH = (
    (16, 16, 16, 16),
    (16, 16, 16, 16),
    (32, 32, 32),
    (32, 32, 32),
    (64, 64),
    (64, 64),
    (128,),
    (128,),
)
"""Channels of each scale of the published transformations, from the finest on."""

SPLITS = 3
"""Transformations of the published tree after which it branches."""


@dataclass(frozen=True)
class Node:
    """One node of a net, with all below it.

    Attributes:
        name: what descriptions call it.
        chain: what it computes.
        sinks: the nodes that take its output, in order.
        router: scores the sinks; needed if there are several.
    """

    name: str
    chain: Chain
    sinks: tuple["Node", ...] = ()
    router: Chain | None = None

    def __post_init__(self):
        if len(self.sinks) > 1 and self.router is None:
            raise UsageError(
                "router", None, f"one for the {len(self.sinks)} sinks of {self.name}"
            )
        if len(self.sinks) < 2 and self.router is not None:
            count = len(self.sinks)
            raise UsageError("router", self.name, f"none for a node of {count} sinks")
        scores = _outputs(self.router) if self.router is not None else None
        if scores not in (None, len(self.sinks)):
            allowed = f"{len(self.sinks)}, one for each sink of {self.name}"
            raise UsageError("router", f"{scores} scores", allowed)


def _outputs(chain: Chain) -> int | None:
    """Return how many numbers a chain gives, None if its last layers do not tell."""
    for layer in reversed(chain.comps):
        if isinstance(layer, LinTrans):
            return layer.n_chan
        if isinstance(layer, Chain):
            return _outputs(layer)
        if not isinstance(layer, _PRESERVING):
            return None
    return None


_PRESERVING = NoOp | Rect | Softmax | BatchNorm | Dropout | ActivityError


@dataclass(frozen=True)
class Blocks:
    """What the published nets are built of.

    Attributes:
        classes: classes to tell apart.
        arch: channels of each scale of each transformation.
        conv_supp: width of the windows.
        router_n_chan: hidden units of routers.
        k_l2: weight of the squared weights.
        sigma_w: scale of the initial weights.
    """

    classes: int
    arch: tuple[tuple[int, ...], ...] = ARCH
    conv_supp: int = 3
    router_n_chan: int = 16
    k_l2: float = 1e-4
    sigma_w: float = 1.0

    def __post_init__(self):
        check_range("classes", self.classes, low=2)
        check_arch(self.arch)


def check_arch(arch: tuple[tuple[int, ...], ...]) -> None:
    """Refuse transformations that cannot follow each other."""
    scales = [len(channels) for channels in arch]
    if not scales or min(scales) < 1 or scales != sorted(scales, reverse=True):
        allowed = "transformations of at least one scale, never more than before"
        raise UsageError("arch", arch, allowed)


def widened(arch: tuple[tuple[int, ...], ...], width: int) -> tuple:
    """Return an arch with `width` times the channels."""
    check_range("width", width, low=1)
    return tuple(tuple(width * count for count in channels) for channels in arch)


def sr_chain(blocks: Blocks, depth: int) -> Node:
    """Return the statically routed net of the first `depth` transformations.

    Raises:
        UsageError: for a depth outside 1 to the length of the arch.
    """
    check_range("depth", depth, low=1, high=len(blocks.arch))
    node = _log_reg(blocks)
    for i in reversed(range(depth)):
        node = _transformation(blocks, i, (node,))
    return _root(blocks, node)


def dr_chain(blocks: Blocks) -> Node:
    """Return the net that may stop after each transformation."""
    return _root(blocks, _branch(blocks, 0, splits=0))


def dr_tree(blocks: Blocks, splits: int = SPLITS) -> Node:
    """Return the net that also goes left or right after the first transformations."""
    return _root(blocks, _branch(blocks, 0, splits=splits))


def _branch(blocks: Blocks, i: int, *, splits: int) -> Node:
    sinks = (_log_reg(blocks),)
    if i + 1 < len(blocks.arch):
        sinks += (_branch(blocks, i + 1, splits=splits),) * (2 if i < splits else 1)
    return _transformation(blocks, i, sinks)


def _root(blocks: Blocks, node: Node) -> Node:
    chain = Chain((ToPyramid(n_scales=len(blocks.arch[0])),))
    return Node("ToPyramid", chain, (node,))


def _transformation(blocks: Blocks, i: int, sinks: tuple[Node, ...]) -> Node:
    conv = MultiscaleConvMax(
        n_chan=blocks.arch[i],
        supp=blocks.conv_supp,
        k_l2=blocks.k_l2,
        sigma_w=blocks.sigma_w,
    )
    chain = Chain((conv, MultiscaleBatchNorm(), MultiscaleRect()))
    router = _router(blocks, len(sinks)) if len(sinks) > 1 else None
    return Node("ReConvMax", chain, sinks, router)


def _log_reg(blocks: Blocks) -> Node:
    linear = LinTrans(n_chan=blocks.classes, k_l2=blocks.k_l2, sigma_w=blocks.sigma_w)
    return Node("LogReg", Chain((Select(-1), linear, Softmax(), CrossEntropyError())))


def _router(blocks: Blocks, sinks: int) -> Chain:
    hidden = LinTrans(blocks.router_n_chan, k_l2=blocks.k_l2, sigma_w=blocks.sigma_w)
    # Weights of zero: a policy that begins without preference.
    scores = LinTrans(sinks, k_l2=blocks.k_l2, sigma_w=0.0)
    body = (hidden, BatchNorm(), Rect(), hidden, BatchNorm(), Rect())
    return Chain((Select(-1), *body, scores))


class Group(NamedTuple):
    """Equal nodes at one depth whose parents are one group: they compute as a stack.

    Attributes:
        node: what they all are.
        members: their numbers.
        parent: number of their parents' group, -1 for the root's.
        sources: which member of that group each one reads.
    """

    node: Node
    members: tuple[int, ...]
    parent: int
    sources: tuple[int, ...]


class Layout(NamedTuple):
    """The nodes of a net and how they hang together, all by number.

    Attributes:
        nodes: in pre-order.
        paths: `root`, `root.s0`, ...
        parents: -1 for the root.
        positions: which of its parent's sinks each node is, -1 for the root.
        sinks: numbers of each node's sinks.
        depths: numbers of the nodes at each depth.
        switches, leaves: their numbers.
        leaf_counts: leaves below each node, 1 for a leaf `[nodes]`.
        groups: parents before their sinks.
        grouped: for each node its group and its place therein.
    """

    nodes: tuple[Node, ...]
    paths: tuple[str, ...]
    parents: tuple[int, ...]
    positions: tuple[int, ...]
    sinks: tuple[tuple[int, ...], ...]
    depths: tuple[tuple[int, ...], ...]
    switches: tuple[int, ...]
    leaves: tuple[int, ...]
    leaf_counts: np.ndarray
    groups: tuple[Group, ...]
    grouped: tuple[tuple[int, int], ...]

    @property
    def max_sinks(self) -> int:
        """Most sinks of any switch, 0 without switches."""
        return max((len(self.sinks[i]) for i in self.switches), default=0)


@functools.lru_cache(maxsize=64)
def layout(root: Node) -> Layout:
    """Number the nodes of a net."""
    nodes: list[Node] = []
    paths: list[str] = []
    parents: list[int] = []
    positions: list[int] = []
    depths: list[list[int]] = []

    def visit(node: Node, path: str, parent: int, position: int, depth: int) -> None:
        number = len(nodes)
        nodes.append(node)
        paths.append(path)
        parents.append(parent)
        positions.append(position)
        if depth == len(depths):
            depths.append([])
        depths[depth].append(number)
        for i, sink in enumerate(node.sinks):
            visit(sink, f"{path}.s{i}", number, i, depth + 1)

    visit(root, "root", -1, -1, 0)
    sinks = [[] for _ in nodes]
    for number, parent in enumerate(parents[1:], 1):
        sinks[parent].append(number)
    leaf_counts = np.array([not below for below in sinks], int)
    for number in reversed(range(1, len(nodes))):
        leaf_counts[parents[number]] += leaf_counts[number]
    groups, grouped = _groups(nodes, parents, depths)
    return Layout(
        nodes=tuple(nodes),
        paths=tuple(paths),
        parents=tuple(parents),
        positions=tuple(positions),
        sinks=tuple(map(tuple, sinks)),
        depths=tuple(map(tuple, depths)),
        switches=tuple(i for i, below in enumerate(sinks) if len(below) > 1),
        leaves=tuple(i for i, below in enumerate(sinks) if not below),
        leaf_counts=leaf_counts,
        groups=groups,
        grouped=grouped,
    )


def _groups(
    nodes: list[Node], parents: list[int], depths: list[list[int]]
) -> tuple[tuple[Group, ...], tuple[tuple[int, int], ...]]:
    groups: list[Group] = []
    places: dict[int, tuple[int, int]] = {}
    for level in depths:
        kinds: dict[tuple, list[int]] = {}
        for i in level:
            node = nodes[i]
            parent = places[parents[i]][0] if i else -1
            # What is computed, not what hangs below.
            kind = parent, node.name, node.chain, node.router, len(node.sinks)
            kinds.setdefault(kind, []).append(i)
        for (parent, *_), members in kinds.items():
            sources = tuple(places[parents[i]][1] if i else 0 for i in members)
            for place, i in enumerate(members):
                places[i] = len(groups), place
            groups.append(Group(nodes[members[0]], tuple(members), parent, sources))
    return tuple(groups), tuple(places[i] for i in range(len(nodes)))
