"""Networks as stages: what runs between two decisions, and how decisions are taken.

A stage is a run of nodes of which all but the last have one sink. Its last node is a
leaf, or a switch, where each image is sent on to another stage. Equal branches of a
tree are one stage with several members, so that they are compiled once.
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from multipath.trees import forward, layers
from multipath.trees import net as networks
from multipath.trees.graph import Layout, Node, layout
from multipath.trees.net import Net
from shared.errors import UsageError, check_choice, check_range
from shared.model import Variables

RULES = ("confidence", "margin")


@dataclass(frozen=True)
class Thresholds:
    """When images stop at a switch that has a classifier as sink.

    Attributes:
        rule: what is compared: confidence, the largest class probability that the
            classifier gives, or margin, the router's score of the classifier minus the
            largest of the other sinks (0 everywhere is the network's own policy).
        values: an image stops where it reaches the value of the switch; one for each
            switch, those without a classifier are ignored.
    """

    rule: str
    values: tuple[float | int, ...]

    def __post_init__(self):
        check_choice("rule", self.rule, RULES)


class Stage(NamedTuple):
    """Equal runs of nodes.

    Attributes:
        nodes: what runs, in turn.
        members: for each node of the run, the numbers of the equal ones.
        sinks: stages after it, by the position of the sink; none after a leaf.
        places: which member of that stage each member's sink is `[member][position]`.
    """

    nodes: tuple[Node, ...]
    members: tuple[tuple[int, ...], ...]
    sinks: tuple[int, ...]
    places: tuple[tuple[int, ...], ...]


class Outcome(NamedTuple):
    """What a stage gives for each image.

    Attributes:
        signal: for the next stage, as far as anything reads it; None after a leaf.
        choice: position of the sink `[batch]`; None after a leaf.
        probabilities: of classes `[batch, classes]`, of those images whose sink is the
            `stop_of` the switch; None if that classifier did not run.
    """

    signal: Any
    choice: Int[Array, " batch"] | None
    probabilities: Any


def stop_of(node: Node) -> int | None:
    """Return the position of the first sink that is a leaf."""
    return next((i for i, sink in enumerate(node.sinks) if not sink.sinks), None)


def classifier_of(node: Node, rule: str | None) -> int | None:
    """Return the position of the sink that runs for all images at a switch, if any."""
    if rule != "confidence" or len(node.sinks) < 2:
        return None
    return stop_of(node)


def routes(node: Node, rule: str | None) -> bool:
    """Tell whether the router of a node runs."""
    return len(node.sinks) > (1 if classifier_of(node, rule) is None else 2)


@functools.lru_cache(maxsize=64)
def stages(root: Node) -> tuple[Stage, ...]:
    """Return the stages of a net, each before those after it."""
    plan = layout(root)
    found: list[Stage | None] = []

    def visit(heads: tuple[int, ...]) -> int:
        number = len(found)
        found.append(None)
        members = [heads]
        while len(plan.sinks[members[-1][0]]) == 1:
            members.append(tuple(plan.sinks[i][0] for i in members[-1]))
        below = [plan.sinks[i] for i in members[-1]]
        last = plan.nodes[members[-1][0]]
        equal: dict[tuple[Node, bool], list[tuple[int, int]]] = {}
        for position, sink in enumerate(last.sinks):
            # The classifier that may run at the switch is a stage of its own.
            spots = equal.setdefault((sink, position == stop_of(last)), [])
            spots.extend((m, position) for m in range(len(heads)))
        sinks, places = [0] * len(below[0]), [[0] * len(row) for row in below]
        for spots in equal.values():
            after = visit(tuple(below[m][position] for m, position in spots))
            for place, (m, position) in enumerate(spots):
                sinks[position], places[m][position] = after, place
        nodes = tuple(plan.nodes[level[0]] for level in members)
        places = tuple(map(tuple, places))
        found[number] = Stage(nodes, tuple(members), tuple(sinks), places)
        return number

    visit((0,))
    return tuple(stage for stage in found if stage is not None)


def check(net: Net, thresholds: Thresholds | None) -> None:
    """Refuse thresholds that do not fit the network.

    Raises:
        UsageError: for a wrong number of thresholds, and one that is no number.
    """
    if thresholds is None:
        return
    switches = len(layout(net.root).switches)
    if len(thresholds.values) != switches:
        allowed = f"{switches} values, one for each switch"
        raise UsageError("thresholds", thresholds.values, allowed)
    for value in thresholds.values:
        check_range("thresholds", value)


def variables_of(
    net: Net, variables: Variables, stage: Stage, member: Array | int, rule: str | None
) -> list[Variables]:
    """Return the variables of one member of a stage, and of the classifier it runs.

    Args:
        net: which network.
        variables: from `net.init`.
        stage: of `stages`.
        member: which one; may be traced.
        rule: of the thresholds, None for the routers' own choice.
    """
    plan = layout(net.root)
    numbers = list(stage.members)
    position = classifier_of(stage.nodes[-1], rule)
    if position is not None:
        numbers.append(tuple(plan.sinks[i][position] for i in stage.members[-1]))
    return [_picked(plan, variables, equal, member) for equal in numbers]


def _picked(
    plan: Layout, variables: Variables, equal: tuple[int, ...], member: Array | int
) -> Variables:
    group = plan.grouped[equal[0]][0]
    name = networks.group_name(plan, group)
    places = np.array([plan.grouped[i][1] for i in equal])
    if isinstance(member, int) or len(equal) == 1:
        place = int(places[member if isinstance(member, int) else 0])
        pick = lambda a: a[place]
    else:
        place = jnp.asarray(places)[member]
        pick = lambda a: jax.lax.dynamic_index_in_dim(a, place, keepdims=False)
    return Variables(*(jax.tree.map(pick, tree.get(name, {})) for tree in variables))


def run_stage(
    net: Net,
    stage: Stage,
    rule: str | None,
    own: list[Variables],
    x: Any,
    price: Float[Array, "batch one"] | None,
    threshold: Float[Array, ""] | float,
) -> Outcome:
    """Run a stage on all images given, and decide where they go.

    Args:
        net: which network.
        stage: of `stages`.
        rule: of the thresholds, None for the routers' own choice.
        own: from `variables_of`.
        x: the signal.
        price: scaled price of an operation, with `dyn_k_cpt`.
        threshold: of the stage's switch.
    """
    plan = layout(net.root)
    for node, members, (params, state) in zip(
        stage.nodes, stage.members, own, strict=False
    ):
        live = forward.live_scales(plan.groups[plan.grouped[members[0]][0]])
        x = layers.apply(node.chain, params, state, x, layers.Pass(live=live)).x
        if live is not None:
            # Nothing reads the others: leave them out of what is moved.
            x = (None,) * (len(x) - live) + tuple(x[-live:])
    last = stage.nodes[-1]
    if not last.sinks:
        return Outcome(None, None, forward.filled_up(x, networks.outputs(net)))
    scores = probabilities = None
    if last.router is not None and routes(last, rule):
        seen = x if price is None else networks.with_price(x, price)
        params, state = own[len(stage.nodes) - 1]
        scores = layers.apply(
            last.router, params["r"], state["r"], seen, layers.Pass()
        ).x
    position = classifier_of(last, rule)
    if position is not None:
        sink = last.sinks[position]
        found = layers.apply(sink.chain, *own[-1], x, layers.Pass()).x
        probabilities = forward.filled_up(found, networks.outputs(net))
    stop = None if rule is None else stop_of(last)
    choice = _choose(stop, scores, probabilities, threshold)
    return Outcome(x, choice, probabilities)


def _choose(
    stop: int | None, scores: Any, probabilities: Array | None, threshold: Any
) -> Array:
    """Return positions of sinks; without one to stop at, the router's choice."""
    if stop is None:
        return jnp.argmax(scores, -1)
    if scores is None:
        return jnp.where(_sure(probabilities) >= threshold, stop, 1 - stop)
    others = scores.at[:, stop].set(-jnp.inf)
    onward, margin = jnp.argmax(others, -1), scores[:, stop] - jnp.max(others, -1)
    sure = margin if probabilities is None else _sure(probabilities)
    return jnp.where(sure >= threshold, stop, onward)


def _sure(probabilities: Any) -> Array:
    return jnp.max(probabilities, -1)


@functools.lru_cache(maxsize=64)
def path_operations(net: Net, rule: str | None = None) -> np.ndarray:
    """Return the operations that an image spends which ends at each leaf `[leaves]`.

    Args:
        net: which network.
        rule: of the thresholds, None for the routers' own choice. Under confidence an
            image pays for the classifiers that did not stop it, and for routers only
            where they have a choice left.
    """
    plan = layout(net.root)
    nodes, routers = networks.operations(net)

    def spent(i: int, leaf: int) -> int:
        total, node = int(nodes[i]), plan.nodes[i]
        if len(node.sinks) > 1:
            total += int(routers[i]) * routes(node, rule)
            position = classifier_of(node, rule)
            if position is not None and plan.sinks[i][position] != leaf:
                total += int(nodes[plan.sinks[i][position]])
        return total + (spent(plan.parents[i], leaf) if i else 0)

    return np.array([spent(leaf, leaf) for leaf in plan.leaves])
