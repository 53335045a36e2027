"""Networks as files that stand alone: the structure as JSON, the numbers as .npz.

`NAME.json` holds `{version, type, hypers, root, arrays, checksum, extra}`. A node is
`{name, chain, sinks, router}`, a layer `{type, hypers}` with the options of its kind;
the layers of a Chain are its `comps`. `NAME.npz` holds each node's parameters and
running statistics as `root.s0.c0/w_horz_0`, those of its router as `root.s0.r.c1/w`.
"""

import dataclasses
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from multipath.trees import net as networks
from multipath.trees.descriptions import TYPES
from multipath.trees.graph import Node, layout
from multipath.trees.kinds import LAYERS, Chain
from multipath.trees.net import Net
from shared import disk
from shared.errors import UsageError, check_choice
from shared.model import Variables

VERSION = 1
"""Version of the written form; a newer one is refused."""

_FAMILIES = {name: family for family, name in TYPES.items()}
_NODE = {"name", "chain", "sinks", "router"}


class Stored(NamedTuple):
    """What a file holds.

    Attributes:
        net: the network.
        variables: its parameters and running statistics.
        extra: what was written with them.
    """

    net: Net
    variables: Variables
    extra: dict[str, Any]


def write(
    path: str | os.PathLike,
    net: Net,
    variables: Variables,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write a network, each of its two files whole or not at all.

    Args:
        path: file name; a suffix .json or .npz is left out.
        net: the network.
        variables: its parameters and running statistics.
        extra: further things to keep, as JSON: settings, an iteration.

    Returns:
        The JSON file.

    Raises:
        UsageError: if the directory cannot be written, or `extra` is no JSON.
    """
    structure, numbers = _places(path)
    host = jax.tree.map(np.asarray, variables)
    arrays = _flat(networks.node_variables(net, host))
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    document = {
        "version": VERSION,
        "type": TYPES[net.family],
        "hypers": _hypers(net, leave=("family", "root")),
        "root": _node(net.root),
        "arrays": {n: [str(a.dtype), list(a.shape)] for n, a in arrays.items()},
        "checksum": hashlib.sha256(packed.getvalue()).hexdigest(),
        "extra": dict(extra or {}),
    }
    try:
        text = json.dumps(document, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError("extra", extra, f"what JSON can say ({error})") from error
    with disk.writable("network file", structure):
        with disk.replacing(numbers) as draft:
            draft.write_bytes(packed.getvalue())
        # Last, with the checksum of the numbers: what a kill between the two leaves is
        # refused instead of read with other numbers.
        disk.write_text(structure, text)
    return structure


def read(path: str | os.PathLike, *, expected: Net | None = None) -> Stored:
    """Read a network back, bit for bit.

    Args:
        path: as given to `write`.
        expected: the network that it must be; None takes any.

    Raises:
        UsageError: for a file that is missing, damaged or of a newer version, one with
            unknown kinds of layers or options, with other arrays than its network has,
            or of another network than expected.
    """
    structure, numbers = _places(path)
    document = _document(structure)
    try:
        family = document["type"]
        check_choice(f"type in {structure}", family, _FAMILIES)
        hypers = {name: _tupled(value) for name, value in document["hypers"].items()}
        _check_names(hypers, _names(Net) - {"family", "root"}, "options of the network")
        net = Net(_FAMILIES[family], _read_node(document["root"]), **hypers)
        listed, checksum = dict(document["arrays"]), document["checksum"]
        extra = document["extra"]
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            "network file", str(structure), f"a network's structure ({error!r})"
        ) from error
    if expected is not None and net != expected:
        given = f"another network ({_difference(net, expected)})"
        raise UsageError(f"network in {structure}", given, "the network asked for")
    return Stored(net, _variables(net, listed, _arrays(numbers, checksum)), extra)


def _places(path: str | os.PathLike) -> tuple[Path, Path]:
    path = Path(path)
    name = path.stem if path.suffix in (".json", ".npz") else path.name
    return path.with_name(f"{name}.json"), path.with_name(f"{name}.npz")


def _names(kind: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def _hypers(thing: Any, leave: tuple[str, ...] = ()) -> dict[str, Any]:
    return {name: getattr(thing, name) for name in sorted(_names(thing) - set(leave))}


def _node(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "chain": _layer(node.chain),
        "sinks": [_node(sink) for sink in node.sinks],
        "router": None if node.router is None else _layer(node.router),
    }


def _layer(layer: Any) -> dict[str, Any]:
    hypers = _hypers(layer)
    if isinstance(layer, Chain):
        hypers["comps"] = [_layer(comp) for comp in layer.comps]
    return {"type": type(layer).__name__, "hypers": hypers}


def _read_node(entry: dict[str, Any]) -> Node:
    _check_names(entry, _NODE, "entries of a node")
    router = entry["router"]
    return Node(
        entry["name"],
        _read_layer(entry["chain"]),
        tuple(map(_read_node, entry["sinks"])),
        None if router is None else _read_layer(router),
    )


def _read_layer(entry: dict[str, Any]) -> Any:
    check_choice("layer", entry["type"], LAYERS)
    kind, hypers = LAYERS[entry["type"]], dict(entry["hypers"])
    _check_names(hypers, _names(kind), f"options of {entry['type']}")
    if kind is Chain:
        return Chain(tuple(map(_read_layer, hypers["comps"])))
    return kind(**{name: _tupled(value) for name, value in hypers.items()})


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


def _check_names(given: Any, wanted: Any, what: str) -> None:
    missing, unknown = (
        sorted(set(wanted) - set(given)),
        sorted(set(given) - set(wanted)),
    )
    if missing or unknown:
        told = "; ".join(
            f"{word} {', '.join(names[:4])}{' ...' if names[4:] else ''}"
            for word, names in (("missing", missing), ("unknown", unknown))
            if names
        )
        raise UsageError(what, told, "all of them and no other")


def _document(structure: Path) -> dict[str, Any]:
    try:
        document = json.loads(structure.read_text())
        version = int(document["version"])
    except OSError as error:
        reason = f"a stored network ({error.strerror})"
        raise UsageError("network file", str(structure), reason) from error
    except (ValueError, KeyError, TypeError) as error:
        allowed = "JSON with a version"
        raise UsageError("network file", str(structure), allowed) from error
    if version > VERSION:
        raise UsageError(
            f"version of {structure}",
            version,
            f"at most {VERSION}",
            "A newer version of this library wrote it.",
        )
    return document


def _arrays(numbers: Path, checksum: str) -> dict[str, np.ndarray]:
    try:
        packed = numbers.read_bytes()
        if hashlib.sha256(packed).hexdigest() != checksum:
            allowed = "the arrays that its .json was written with"
            raise UsageError("network file", str(numbers), allowed)
        with np.load(io.BytesIO(packed), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, UsageError):
            raise
        reason = f"the arrays of a network ({error})"
        raise UsageError("network file", str(numbers), reason) from error


def _variables(
    net: Net, listed: dict[str, Any], arrays: dict[str, np.ndarray]
) -> Variables:
    plan = layout(net.root)
    members = {
        networks.group_name(plan, g): [plan.paths[i] for i in group.members]
        for g, group in enumerate(plan.groups)
    }
    # Not the other way round from single nodes: stacking hundreds of arrays on a
    # device would compile as many programs.
    template = jax.eval_shape(lambda key: networks.init(key, net), jax.random.key(0))
    names = {}
    for path, _ in jax.tree_util.tree_leaves_with_path(template):
        _, group, *keys = path
        names[path] = [_name(node, keys) for node in members[group.key]]
    _check_names(arrays, sum(names.values(), []), "arrays of the network")
    _check_names(listed, arrays, "list of arrays")

    def one(path: Any, leaf: Any) -> jax.Array:
        own = [_restored(n, arrays[n], leaf.shape[1:], *listed[n]) for n in names[path]]
        return jnp.asarray(np.stack(own))

    return jax.tree_util.tree_map_with_path(one, template)


def _restored(
    name: str, array: np.ndarray, wanted: tuple, dtype: str, shape: list[int]
) -> np.ndarray:
    if not array.shape == tuple(shape) == wanted:
        raise UsageError(name, array.shape, f"an array of {wanted}")
    if jax.dtypes.canonicalize_dtype(dtype) != jnp.dtype(dtype):
        hint = "Turn on jax_enable_x64 to read it."
        raise UsageError(name, dtype, "numbers of at most 32 bits", hint)
    # .npz keeps the bits of bfloat16, but not its name.
    return array.view(jnp.dtype(dtype))


def _flat(nodes: dict[str, Variables]) -> dict[str, Any]:
    """Name the arrays of nodes; parameters and statistics differ in their names."""
    return {
        _name(node, keys): leaf
        for node, variables in nodes.items()
        for tree in variables
        for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _name(node: str, keys: Any) -> str:
    *place, name = (str(key.key) for key in keys)
    return f"{'.'.join([node, *place])}/{name}"


def _difference(ours: Net, wanted: Net) -> str:
    told = [
        f"{name} {getattr(ours, name)!r} instead of {getattr(wanted, name)!r}"
        for name in sorted(_names(Net) - {"root"})
        if getattr(ours, name) != getattr(wanted, name)
    ]
    return ", ".join(told) or "other layers"
