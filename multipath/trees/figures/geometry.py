"""Where node-link diagrams put things, and what routing histograms count."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

SMALLEST = 0.0025
"""Share of the images up to which a node is drawn as a dot."""


class NodeLink(NamedTuple):
    """A diagram of transformations and the images that leave at each, in pre-order.

    Attributes:
        bounds: x0, x1, y0, y1 of the centres.
        centres: of the nodes.
        radii: so that areas are shares, and those of dots where the share is smallest.
        accuracy: parts of the pie that are right and wrong, NaN for a dot.
        classes: parts of the pie by class, NaN for a dot.
        edges: x, y of a node and of one that takes its output.
    """

    bounds: Float[np.ndarray, "4"]
    centres: Float[np.ndarray, "nodes 2"]
    radii: Float[np.ndarray, " nodes"]
    accuracy: Float[np.ndarray, "nodes 2"]
    classes: Float[np.ndarray, "nodes classes"]
    edges: Float[np.ndarray, "edges 4"]


def node_link(record: Mapping[str, Any], r0: float | int = 1) -> NodeLink:
    """Lay out the transformations of a description.

    A node at (x, y) with spread r puts its child k of m at the angle
    a = ((k + 1) / (m + 1) - 1/2) π, at (x + cos a, y + r sin a), with spread r / m.
    The radius of a node where the share p leaves is √p / 2.

    Args:
        record: of the first transformation, from a description with test statistics.
        r0: its spread.
    """
    nodes: list[tuple[float, float, Mapping[str, Any]]] = []
    edges: list[tuple[float, float, float, float]] = []

    def visit(node: Mapping[str, Any], x: float, y: float, r: float) -> None:
        classifier, children = _parts(node)
        nodes.append((x, y, classifier))
        for k, child in enumerate(children):
            angle = ((k + 1) / (len(children) + 1) - 0.5) * math.pi
            place = x + math.cos(angle), y + r * math.sin(angle)
            edges.append((x, y, *place))
            visit(child, *place, r / len(children))

    visit(record, 0.0, 0.0, float(r0))
    centres = np.array([node[:2] for node in nodes])
    right, wrong = (
        np.array([node[2].get(name, 0.0) for node in nodes]) for name in _SHARES
    )
    shares = right + wrong
    dots = shares <= SMALLEST
    whole = np.where(dots, np.nan, shares)[:, None]
    (x0, y0), (x1, y1) = centres.min(axis=0), centres.max(axis=0)
    return NodeLink(
        bounds=np.array([x0, x1, y0, y1]),
        centres=centres,
        radii=np.sqrt(np.where(dots, SMALLEST, shares)) / 2,
        accuracy=np.stack([right, wrong], 1) / whole,
        classes=_by_class([node[2] for node in nodes]) / whole,
        edges=np.array(edges).reshape(-1, 4),
    )


def routing_histogram(
    records: Sequence[Mapping[str, Any]],
) -> Float[np.ndarray, "logs layers"]:
    """Return the share of images that leave after each layer, the latest log first.

    Args:
        records: of the first transformation, one for each log in the order of time.
    """
    rows = []
    for record in records:
        row, level = [], [record]
        while level:
            parts = [_parts(node) for node in level]
            row.append(sum(_share(classifier) for classifier, _ in parts))
            level = [child for _, children in parts for child in children]
        rows.append(row)
    return np.array(rows, float)[::-1]


_SHARES = ("p_cor", "p_inc")


def _parts(node: Mapping[str, Any]) -> tuple[Mapping[str, Any], list]:
    """Return the test statistics of a node's classifier, and its other sinks."""
    leaves = [sink for sink in node["sinks"] if not sink["sinks"]]
    others = [sink for sink in node["sinks"] if sink["sinks"]]
    return (leaves[0]["stats_ts"] if leaves else {}), others


def _share(classifier: Mapping[str, Any]) -> float:
    return sum(classifier.get(name, 0.0) for name in _SHARES)


def _by_class(classifiers: Sequence[Mapping[str, Any]]) -> np.ndarray:
    names = [f"{name}_by_cls" for name in _SHARES]
    count = max((len(c[n]) for c in classifiers for n in names if n in c), default=0)
    none = np.zeros(count)
    return np.array(
        [sum(np.asarray(c.get(n, none)) for n in names) for c in classifiers]
    )
