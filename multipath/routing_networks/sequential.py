"""A network from a list of layers, each of which hands on the triplet."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Int, PyTree, Shaped

from multipath.routing_networks import decision as decisions
from multipath.routing_networks import selection as selections
from multipath.routing_networks.network import Network
from multipath.routing_networks.selection import Selection
from multipath.routing_networks.settings import Decision
from multipath.routing_networks.trajectory import Trajectory, initialize
from shared.errors import UsageError, check_choice
from shared.model import Model, Variables

KINDS = (
    "per_task",
    "pass_through",
    "dispatch",
    "decision",
    "selection",
    "model",
    "function",
)


class _Options(NamedTuple):
    """How a pass is run; see `Network`."""

    train: bool
    keys: list[Array | None]
    exploration: Any
    forced: Array | None


class _Pass(NamedTuple):
    """What goes from layer to layer.

    Attributes:
        x, trajectory, actions: the triplet.
        agents: in place of the actions, for all decisions after a dispatch.
        turn: number of the next decision.
        states: of models so far.
    """

    x: Array
    trajectory: Trajectory
    actions: Array | None
    agents: Array | None
    turn: int
    states: dict[str, PyTree]


def sequential(layers: Sequence[tuple[str, Any]]) -> Network:
    """Chain layers.

    A decision takes the actions of the layer before for its agents, and a selection
    for its modules; selections hand them on. Parameters and states of models and
    selections are called `layer{i}`, those of decisions by their names.

    Args:
        layers: pairs of a kind and its configuration:

            - per_task, pass_through: None; actions are tasks, or 0;
            - dispatch: None; from here on the actions of now are the agents of all
              decisions;
            - decision: a `Decision`;
            - selection: a `Selection`;
            - model: a `Model`, of the samples alone;
            - function: of the samples alone, without parameters.

    Raises:
        UsageError: for another kind, a configuration that is not of its kind, a
            selection before the first actions, fewer agents or modules than actions,
            or one name of two that remember or learn apart.
    """
    _check(layers)
    _check_names(layers)
    _check_sizes(layers)
    chosen = [config for kind, config in layers if kind == "decision"]

    def init(key: Array) -> Variables:
        params: dict[str, Any] = {"routing": {}, "modules": {}}
        memory, trunk = {}, {}
        keys = jax.random.split(key, len(layers))
        for number, (key, (kind, config)) in enumerate(zip(keys, layers, strict=True)):
            name = f"layer{number}"
            if kind == "decision":
                own = decisions.init(key, config)
                params["routing"][config.name], memory[config.name] = own
            elif kind == "selection":
                params["modules"][name], state = selections.init(key, config)
                memory |= {config.name: state} if state else {}
            elif kind == "model":
                params["modules"][name], trunk[name] = config.init(key)
        return Variables(params, {"memory": memory, "trunk": trunk})

    def apply(
        variables: Variables,
        inputs: Shaped[Array, "batch ..."],
        tasks: Int[Array, " batch"] | None = None,
        *,
        train: bool = False,
        key: Array | None = None,
        exploration: Float[Array, ""] | float | int | None = None,
        forced: Int[Array, "depth batch"] | None = None,
    ) -> tuple[Shaped[Array, "batch ..."], Trajectory, dict[str, PyTree]]:
        params, state = variables
        if forced is not None and len(forced) != len(chosen):
            allowed = f"{len(chosen)} rows, one for each decision"
            raise UsageError("forced", f"{len(forced)} rows", allowed)
        split = None if key is None else jax.random.split(key, len(layers))
        keys = [None if split is None else split[i] for i in range(len(layers))]
        options = _Options(train, keys, exploration, forced)
        now = _Pass(*initialize(inputs, tasks, state["memory"]), None, 0, {})
        for number, layer in enumerate(layers):
            now = _apply_layer(number, layer, params, state["trunk"], now, options)
        new = {"memory": now.trajectory.memory, "trunk": now.states}
        return now.x, now.trajectory, new

    return Network(init, apply, tuple(dict.fromkeys(chosen)))


def _check(layers: Sequence[tuple[str, Any]]) -> None:
    """Raise a UsageError for a layer that is none, or that has no actions to go by."""
    types = {"decision": Decision, "selection": Selection, "model": Model}
    chosen = False
    for number, (kind, config) in enumerate(layers):
        name = f"layers[{number}]"
        check_choice(name, kind, KINDS)
        if kind in types and not isinstance(config, types[kind]):
            raise UsageError(name, type(config).__name__, f"a {types[kind].__name__}")
        if kind == "function" and not callable(config):
            raise UsageError(name, config, "a function")
        if kind in ("selection", "dispatch") and not chosen:
            allowed = "a layer before it that gives actions"
            raise UsageError(name, kind, allowed)
        chosen = chosen or kind in ("per_task", "pass_through", "decision")


def _check_names(layers: Sequence[tuple[str, Any]]) -> None:
    """Raise a UsageError for layers that would overwrite what others keep."""
    named: dict[str, Any] = {}
    for number, (kind, config) in enumerate(layers):
        if kind != "decision" and not (kind == "selection" and config.name):
            continue
        # A decision may be taken again; selections have parameters of their own.
        again = kind == "decision" and named.get(config.name) == config
        if config.name in named and not again:
            name, allowed = f"layers[{number}].name", "one that no other layer has"
            raise UsageError(name, config.name, allowed)
        named[config.name] = config


def _check_sizes(layers: Sequence[tuple[str, Any]]) -> None:
    """Raise a UsageError for fewer agents or modules than actions that choose them.

    How many tasks there are is not known: 0.
    """
    actions, agents, dispatched = 0, 0, False
    for number, (kind, config) in enumerate(layers):
        name = f"layers[{number}]"
        if kind == "decision" and 1 < config.agents < agents:
            allowed = f"{agents}, one for each action before"
            raise UsageError(name, f"{config.agents} agents", allowed)
        if kind == "selection" and config.size < actions:
            allowed = f"{actions}, one for each action before"
            raise UsageError(name, f"{config.size} modules", allowed)
        if kind == "decision":
            actions = config.actions
        elif kind in ("per_task", "pass_through"):
            actions = int(kind == "pass_through")
        if kind == "dispatch" or not dispatched:
            agents = actions
        dispatched = dispatched or kind == "dispatch"


def _apply_layer(
    number: int,
    layer: tuple[str, Any],
    params: dict[str, Any],
    trunk: dict[str, PyTree],
    now: _Pass,
    options: _Options,
) -> _Pass:
    """Return the pass after one layer."""
    (kind, config), name, key = layer, f"layer{number}", options.keys[number]
    train, triplet = options.train, (now.x, now.trajectory, now.actions)
    if kind == "function":
        return now._replace(x=config(now.x))
    if kind == "dispatch":
        return now._replace(agents=now.actions)
    if kind == "model":
        own = Variables(params["modules"][name], trunk[name])
        x, state = config.apply(own, now.x, train=train, key=key)
        return now._replace(x=x, states={**now.states, name: state})
    if kind == "decision":
        forced = None if options.forced is None else options.forced[now.turn]
        triplet = decisions.decide(
            config,
            params["routing"][config.name],
            now.x,
            now.trajectory,
            now.actions if now.agents is None else now.agents,
            key=key,
            train=train,
            exploration=options.exploration,
            forced=forced,
        )
        now = now._replace(turn=now.turn + 1)
    elif kind == "selection":
        own = params["modules"][name]
        assert now.actions is not None
        triplet = selections.select(
            config, own, now.x, now.trajectory, now.actions, train=train, key=key
        )
    elif kind == "per_task":
        triplet = decisions.per_task(*triplet)
    else:
        triplet = decisions.pass_through(*triplet)
    x, trajectory, actions = triplet
    return now._replace(x=x, trajectory=trajectory, actions=actions)
