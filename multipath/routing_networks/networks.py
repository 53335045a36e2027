"""Routed networks and the table of all networks for several tasks.

Reference: Rosenbaum et al. (2018), section 3 and figure 3; Rosenbaum et al. (2019).
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jaxtyping import Array, PyTree

from multipath.routing_networks import backbones, baselines
from multipath.routing_networks import decision as decisions
from multipath.routing_networks import selection as selections
from multipath.routing_networks.config import storage_of
from multipath.routing_networks.network import (
    Head,
    Network,
    count,
    dense,
    init_dense,
    join,
)
from multipath.routing_networks.rewards import Reward
from multipath.routing_networks.selection import Selection
from multipath.routing_networks.settings import Decision
from multipath.routing_networks.trajectory import Trajectory
from shared.errors import UsageError, check_choice
from shared.model import Model, Variables


def routed(
    widths: tuple[int, ...],
    router: Decision,
    *,
    dispatcher: Decision | None = None,
    how: str = "auto",
) -> Head:
    """Return fully connected layers whose modules are chosen for each sample.

    Before each layer a decision chooses one of its linear modules; ReLU follows all
    layers but the last. The agent is the dispatcher's choice if there is one, else
    the task if there are several agents.

    Args:
        widths: of the layers, the last one the outputs.
        router: all decisions, `actions` the number of modules; each has its own
            features, and a number after the name.
        dispatcher: chooses among the agents by the features of the trunk.
        how: modules are applied, see `selection.Selection`.

    Raises:
        UsageError: if the dispatcher does not choose among the router's agents.
    """
    if dispatcher is not None and dispatcher.actions != router.agents:
        allowed = f"{router.agents}, the router's agents"
        raise UsageError("dispatcher.actions", dispatcher.actions, allowed)

    def layers(features: int) -> list[tuple[Decision, Selection]]:
        return _routed_layers(router, (features, *widths), how)

    def order(features: int) -> tuple[Decision, ...]:
        own = tuple(decision for decision, _ in layers(features))
        if dispatcher is None:
            return own
        return dataclasses.replace(dispatcher, features=features), *own

    def init(key: Array, features: int) -> Variables:
        keys = jax.random.split(key)
        routing, memory = _init_decisions(keys[0], order(features))
        modules = _init_layers(keys[1], [m for _, m in layers(features)])
        return Variables({"routing": routing, "modules": modules}, memory)

    def apply(params: Any, x: Array, trajectory: Trajectory, **options: Any):
        stack, everyone = layers(x.shape[1]), order(x.shape[1])
        decide = _in_turn(everyone, params["routing"], **options)
        agent = None
        if dispatcher is not None:
            x, trajectory, agent = decide(everyone[0], x, trajectory, None)
        elif router.agents > 1:
            x, trajectory, agent = decisions.per_task(x, trajectory)
        for i, (decision, modules) in enumerate(stack):
            x, trajectory, action = decide(decision, x, trajectory, agent)
            x = _layer(i, modules, params, x, trajectory, action)
            x = jax.nn.relu(x) if i + 1 < len(stack) else x
        return x, trajectory

    return Head(init, apply, order)


def _routed_layers(
    router: Decision, sizes: Sequence[int], how: str
) -> list[tuple[Decision, Selection]]:
    """Return the decision and the modules of each layer."""
    modules = _linear_layers(router.actions, sizes, how)
    own = [
        dataclasses.replace(router, name=f"{router.name}{i}", features=size)
        for i, size in enumerate(sizes[:-1])
    ]
    return list(zip(own, modules, strict=True))


def _in_turn(
    order: Sequence[Decision],
    params: dict[str, PyTree],
    *,
    key: Array | None,
    forced: Array | None,
    **options: Any,
) -> Callable[..., Any]:
    """Return `decide` with the key and the known actions of whose turn it is."""
    if forced is not None and len(forced) != len(order):
        raise UsageError("forced", f"{len(forced)} rows", f"{len(order)}, by decision")
    turns = iter(range(len(order)))

    def decide(decision, x, trajectory, agent):
        turn = next(turns)
        return decisions.decide(
            decision,
            params[decision.name],
            x,
            trajectory,
            agent,
            key=None if key is None else jax.random.fold_in(key, turn),
            forced=None if forced is None else forced[turn],
            **options,
        )

    return decide


def per_task(
    widths: tuple[int, ...], tasks: int, *, common: int = 0, how: str = "auto"
) -> Head:
    """Return fully connected layers of which each task has its own.

    Args:
        widths: of the layers, the last one the outputs.
        tasks: how many.
        common: the first layers, which all tasks share.
        how: modules are applied, see `selection.Selection`.
    """
    if not 0 <= common < len(widths):
        raise UsageError("common", common, f"integers from 0 to {len(widths) - 1}")

    def layers(features: int) -> list[Selection]:
        return _linear_layers(tasks, (features, *widths)[common:], how)

    def init(key: Array, features: int) -> Variables:
        keys = jax.random.split(key)
        below = init_dense(keys[0], (features, *widths[:common]))
        own = _init_layers(keys[1], layers(features))
        return Variables({"routing": {}, "modules": {**below, **own}}, {})

    def apply(params: Any, x: Array, trajectory: Trajectory, **options: Any):
        del options
        stack = layers(x.shape[1])
        x = dense(params["modules"], x, common)
        x = jax.nn.relu(x) if common else x
        x, trajectory, action = decisions.per_task(x, trajectory)
        for i, modules in enumerate(stack):
            x = _layer(i, modules, params, x, trajectory, action)
            x = jax.nn.relu(x) if i + 1 < len(stack) else x
        return x, trajectory

    return Head(init, apply)


def _linear_layers(count: int, sizes: Sequence[int], how: str) -> list[Selection]:
    return [
        selections.linear_modules(count, before, after, how=how)
        for before, after in itertools.pairwise(sizes)
    ]


def _init_decisions(
    key: Array, order: Sequence[Decision]
) -> tuple[dict[str, PyTree], dict[str, PyTree]]:
    """Return the parameters and the memory of decisions, by name."""
    keys = jax.random.split(key, len(order))
    made = {d.name: decisions.init(k, d) for d, k in zip(order, keys, strict=True)}
    params = {name: own.params for name, own in made.items()}
    return params, {name: own.state for name, own in made.items() if own.state}


def _init_layers(key: Array, layers: Sequence[Selection]) -> dict[str, PyTree]:
    keys = jax.random.split(key, len(layers))
    return {
        f"selection{i}": selections.init(keys[i], layer).params
        for i, layer in enumerate(layers)
    }


def _layer(
    number: int,
    layer: Selection,
    params: Any,
    x: Array,
    trajectory: Trajectory,
    action: Array,
) -> Array:
    own = params["modules"][f"selection{number}"]
    return selections.select(layer, own, x, trajectory, action)[0]


Build = Callable[[Any, tuple[int, ...], int, int], Network]


def build(settings: Any, shape: tuple[int, ...], outputs: int, tasks: int) -> Network:
    """Return the network that settings describe.

    Args:
        settings: a `config.Config`, or its static part.
        shape: of one input: an image, or a number of features, which need no trunk.
        outputs: of a task.
        tasks: how many.

    Raises:
        UsageError: for an unknown model, or an image that is too small for it.
    """
    check_choice("model", settings.model, MODELS)
    return MODELS[settings.model](settings, shape, outputs, tasks)


def _trunk(shape: tuple[int, ...], make: Callable[..., Model]) -> Model:
    return backbones.identity() if len(shape) == 1 else make(shape)


def _widths(settings: Any, outputs: int) -> tuple[int, ...]:
    return (settings.width,) * (settings.depth - 1) + (outputs,)


RELAX_TEMPERATURE = 0.5
"""Of RELAX, as published, unless exploration sets it."""


def router(settings: Any, tasks: int, agents: int) -> Decision:
    """Return the decisions of a network."""
    fixed = settings.algorithm == "relax" and not settings.temper
    return Decision(
        "decision",
        # Baselines have none; what is wanted then is the size alone.
        settings.algorithm or "reinforce",
        settings.modules or tasks,
        1,
        agents=agents,
        storage=storage_of(settings),
        hidden=settings.router_hidden,
        detach=settings.detach,
        reward=Reward(
            settings.history,
            rho=settings.rho,
            window=settings.window,
            ratio_power=2 if settings.compat else 1,
        ),
        compat=settings.compat,
        mode=settings.mode,
        temper=settings.temper,
        temperature=RELAX_TEMPERATURE if fixed else None,
    )


def _routed_all_fc(settings, shape, outputs, tasks, make=backbones.convnet) -> Network:
    own = router(settings, tasks, tasks)
    head = routed(_widths(settings, outputs), own)
    return join(_trunk(shape, make), shape, head)


def _dispatched(settings, shape, outputs, tasks) -> Network:
    agents = settings.agents or tasks
    own = router(settings, tasks, agents)
    # One that ignores its input, as published, cannot tell tasks apart.
    dispatcher = dataclasses.replace(
        own,
        name="dispatcher",
        actions=agents,
        agents=1,
        storage="tabular" if settings.compat else "approximate",
        tasks=tasks if settings.tell_task else 0,
        # Among all agents' modules there is nothing to add up.
        mode="selected",
        reward=own.reward if settings.compat else Reward(),
    )
    head = routed(_widths(settings, outputs), own, dispatcher=dispatcher)
    return join(_trunk(shape, backbones.convnet), shape, head)


def _per_decision_single_agent(settings, shape, outputs, tasks) -> Network:
    own = router(settings, tasks, 1)
    own = dataclasses.replace(own, tasks=tasks if settings.tell_task else 0)
    head = routed(_widths(settings, outputs), own)
    return join(_trunk(shape, backbones.convnet), shape, head)


def _paper_large(settings, shape, outputs, tasks) -> Network:
    return _routed_all_fc(settings, shape, outputs, tasks, backbones.paper_large)


def _baseline(head: Callable[[Any, tuple[int, ...], int], Head]) -> Build:
    """Return what builds a baseline from `(settings, widths, tasks) -> Head`."""

    def make(settings, shape, outputs, tasks):
        own = head(settings, _widths(settings, outputs), tasks)
        return join(_trunk(shape, backbones.convnet), shape, own)

    return make


def _shared_one_hot(settings, shape, outputs, tasks) -> Network:
    """Return a network as large as the routed one of the same settings."""
    trunk = _trunk(shape, backbones.convnet)
    features = backbones.width(trunk, shape)
    whole = count(_routed_all_fc(settings, shape, outputs, tasks))
    below = count(join(trunk, shape, baselines.perceptron((1,)))) - features - 1
    depth = max(settings.depth, 2)
    width = baselines.matching_width(whole - below, features + tasks, outputs, depth)
    widths = (width,) * (depth - 1) + (outputs,)
    return join(trunk, shape, baselines.perceptron(widths, tasks=tasks))


def _separate(settings, shape, outputs, tasks) -> Network:
    head = baselines.perceptron(_widths(settings, outputs))
    one = join(_trunk(shape, backbones.convnet), shape, head)
    # Such batches are then drawn with equally many rows of each task.
    return baselines.separate(one, tasks, even=settings.batch % tasks == 0)


MODELS: dict[str, Build] = {
    "routed_all_fc": _routed_all_fc,
    "dispatched": _dispatched,
    "per_decision_single_agent": _per_decision_single_agent,
    "paper_large": _paper_large,
    "per_task_all_fc": _baseline(lambda s, widths, tasks: per_task(widths, tasks)),
    "per_task_1_fc": _baseline(
        lambda s, widths, tasks: per_task(widths, tasks, common=len(widths) - 1)
    ),
    "shared": _baseline(lambda s, widths, tasks: baselines.perceptron(widths)),
    "shared_one_hot": _shared_one_hot,
    "separate": _separate,
    "soft_mixture": _baseline(
        lambda s, widths, tasks: baselines.soft_mixture(
            widths, modules=s.modules or tasks, tasks=tasks
        )
    ),
    "cross_stitch": _baseline(
        lambda s, widths, tasks: baselines.cross_stitch(widths, tasks=tasks)
    ),
}
"""Networks by the names of the settings, and what builds them."""
