"""From the files' flat parameters and settings to networks and their variables."""

import json
from typing import Any

import numpy as np
from jax import numpy as jnp

from multipath.trees import graph
from multipath.trees.net import Net, from_node_variables, node_variables
from shared.model import Variables

FAMILIES = {"SRNet": "sr", "ActorNet": "actor", "CriticNet": "critic"}
STATE = ("m_avg", "v_avg")


def network(settings: dict[str, Any], index: list[dict[str, Any]]) -> Net:
    """Build the network of a file."""
    hypers = settings["hypers"]
    family, classes = FAMILIES[settings["net_type"]], hypers["y_shape"][0]
    blocks = graph.Blocks(
        classes=classes,
        arch=tuple(map(tuple, settings["arch"])),
        conv_supp=settings["conv_supp"],
        router_n_chan=settings["router_n_chan"],
        k_l2=settings["k_l2"],
    )
    if family == "sr":
        depth = sum(node["name"] == "ReConvMax" for node in index)
        root = graph.sr_chain(blocks, depth)
    elif max(node["n_sinks"] for node in index) > 2:
        root = graph.dr_tree(blocks)
    else:
        root = graph.dr_chain(blocks)
    options = ("dyn_k_cpt", "optimistic", "use_cls_err", "talr")
    chosen = {name: bool(hypers[name]) for name in options if name in hypers}
    return Net(family, root, tuple(hypers["x0_shape"]), classes, **chosen)


def hyper(settings: dict[str, Any], dtype: Any) -> dict[str, Any]:
    """Return the settings of a file that a step may change."""
    names = ("k_cpt", "k_dec", "k_cre", "eps", "tau", "alpha_cpt", "alpha_rtr")
    given = {**dict.fromkeys(names, 0.0), **settings["hypers"]}
    found = {name: jnp.asarray(given[name], dtype) for name in (*names, "lr", "mu")}
    never = jnp.asarray(np.inf, dtype)
    return {**found, "lr_half": never, "tau_half": never}


def variables(net: Net, flat: np.ndarray, index: list[dict], dtype: Any) -> Variables:
    """Unpack flat parameters."""
    nodes: dict[str, Variables] = {}
    for entry in index:
        node, keys, name = _split(entry["path"])
        params, state = nodes.setdefault(node, Variables({}, {}))
        place = state if name in STATE else params
        for key in keys:
            place = place.setdefault(key, {})
        size = int(np.prod(entry["shape"]))
        values = flat[entry["offset"] : entry["offset"] + size]
        place[name] = jnp.asarray(values.reshape(entry["shape"]), dtype)
    for path in graph.layout(net.root).paths:
        nodes.setdefault(path, Variables({}, {}))
    return from_node_variables(net, nodes)


def flatten(net: Net, tree: Variables, index: list[dict]) -> np.ndarray:
    """Undo `variables`; numbers that do not train are 0 where the state is empty."""
    nodes, parts = node_variables(net, tree), []
    for entry in index:
        node, keys, name = _split(entry["path"])
        place = nodes[node].state if name in STATE else nodes[node].params
        for key in keys:
            place = place.get(key, {})
        values = place.get(name)
        size = int(np.prod(entry["shape"]))
        parts.append(jnp.zeros(size) if values is None else jnp.ravel(values))
    return jnp.concatenate(parts)


def live(index: list[dict]) -> np.ndarray:
    """Tell which numbers something reads."""
    marks = [np.full(int(np.prod(e["shape"])), e["live"]) for e in index]
    return np.concatenate(marks)


def text(npz: Any, name: str) -> Any:
    """Read a JSON entry."""
    return json.loads(str(npz[name]))


def _split(path: str) -> tuple[str, list[str], str]:
    """Split `root.s0.r.c1/w` into node, keys below it, and name."""
    place, name = path.split("/")
    parts = place.split(".")
    start = next(
        i for i, part in enumerate(parts) if part[0] in "cr" and part != "root"
    )
    return ".".join(parts[:start]), parts[start:], name
