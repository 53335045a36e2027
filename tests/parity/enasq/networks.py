"""Reference values of shared-weight and fixed networks."""

import functools
import re
from typing import NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from enasq import behaviour, cell, fixed, losses, plan, policy, supernet
from shared.model import Variables
from tests.parity.runner import Tolerance
from tests.quick import quick


class Given(NamedTuple):
    """A file's network, and its numbers by their published names."""

    network: plan.Network
    arc: np.ndarray
    images: np.ndarray
    params: dict[str, np.ndarray]


def _read(npz, dtype) -> Given:
    layers, blocks, filters, size, channels, _, kept, aux, _ = npz["meta"].tolist()
    network = plan.Network(
        "fixed" if kept else "search",
        int(layers),
        int(filters),
        int(blocks),
        int(size),
        int(channels),
        aux_head=bool(aux),
    )
    scales = {"scale": 64, "moving_mean": 32, "moving_variance": 16}
    params = {}
    for name in npz:
        if name.startswith("param/"):
            scale = scales.get(name.rsplit("/", 1)[1], 128)
            params[name[6:]] = np.asarray(npz[name] / scale, dtype)
    arc = cell.check(npz["arc"])
    return Given(network, arc, jnp.asarray(npz["images"] / 128, dtype), params)


# Names: ours for a place in the tree, theirs in the file. One function maps a tree of
# ours; what it fetches for a leaf decides on the direction.

UNITS = {"input_0": "calibrate/pool_x", "input_1": "calibrate/pool_y"}


def _unit(tree, fetch, name):
    """Map a convolution or a factorised reduction with its norm."""
    paths = {"conv": "w", "path_1": "path1_conv/w", "path_2": "path2_conv/w"}
    found = {}
    for key, own in tree.items():
        if key == "norm":
            found[key] = _norm(own, fetch, name)
        else:
            found[key] = {"kernel": fetch(f"{name}/{paths[key]}", own["kernel"])}
    return found


def _norm(tree, fetch, name):
    names = {
        "scale": "scale",
        "offset": "offset",
        "mean": "moving_mean",
        "var": "moving_variance",
    }
    return {
        key: fetch(f"{name}/bn/{names[key]}", leaf) if key in names else leaf
        for key, leaf in tree.items()
    }


def _stack(tree, fetch, name):
    names = {"depthwise": "w_depth", "pointwise": "w_point"}
    return {
        key: _norm(own, fetch, name)
        if key == "norm"
        else {"kernel": fetch(f"{name}/{names[key]}", own["kernel"])}
        for key, own in tree.items()
    }


def _fixed_cell(tree, fetch, name, loose):
    found = {}
    for key, own in tree.items():
        if match := re.fullmatch(r"block_(\d+)_([xy])", key):
            place = f"{name}/cell_{int(match[1]) - 1}/{match[2]}_conv"
            if "stack_0" in own:
                found[key] = {
                    stack: _stack(part, fetch, f"{place}/sep_conv_{stack[-1]}")
                    for stack, part in own.items()
                }
            else:
                found[key] = _unit(own, fetch, place)
        elif match := re.fullmatch(r"loose_(\d+)", key):
            # Theirs count the loose ends.
            place = f"{name}/final_combine/calibrate_{loose.index(int(match[1]))}"
            found[key] = _unit(own, fetch, place)
        else:
            place = UNITS.get(key, "layer_base")
            found[key] = _unit(own, fetch, f"{name}/{place}")
    return found


def _search_cell(tree, fetch, name, blocks):
    found = {}
    for key, own in tree.items():
        if key == "banks":
            found[key] = {
                op: {
                    stack: _bank(part, fetch, name, op, stack, blocks)
                    for stack, part in stacks.items()
                }
                for op, stacks in own.items()
            }
        elif key == "output":
            norm = _norm(own["norm"], fetch, f"{name}/final_conv")
            kernel = fetch(f"{name}/final_conv/w", own["conv"]["kernel"])
            found[key] = {"conv": {"kernel": kernel}, "norm": norm}
        else:
            place = "" if key == "entry" else "/" + UNITS[key]
            found[key] = _unit(own, fetch, f"{name}{place}")
    return found


def _bank(tree, fetch, name, op, stack, blocks):
    """Map the rows of one kernel, which are theirs of all branches in a row."""
    window = op[-1]
    ends = np.cumsum([0] + [block + 2 for block in range(blocks) for _ in "xy"])

    def rows(leaf, part):
        places = [
            f"{name}/cell_{block}/{branch}/conv_{window}x{window}/{stack}/{part}"
            for block in range(blocks)
            for branch in "xy"
        ]
        pieces = [
            fetch(place, leaf[start:end])
            for place, start, end in zip(places, ends, ends[1:], strict=False)
        ]
        return np.concatenate(pieces)

    return {
        "depthwise": {"kernel": rows(tree["depthwise"]["kernel"], "w_depth")},
        "pointwise": {"kernel": rows(tree["pointwise"]["kernel"], "w_point")},
        "norm": {key: rows(leaf, f"bn/{key}") for key, leaf in tree["norm"].items()},
    }


def _map(tree, fetch, given, loose):
    """Return a tree like ours of what `fetch(their name, our leaf)` gives."""
    found = {}
    for key, own in tree.items():
        if key == "stem":
            found[key] = _unit(own, fetch, "stem_conv")
        elif key == "head":
            kernel = fetch("fc/w", own["dense"]["kernel"])
            found[key] = {"dense": {"kernel": kernel}}
        elif key == "aux_head":
            found[key] = {
                "project": _unit(own["project"], fetch, "aux_head/proj"),
                "window": _unit(own["window"], fetch, "aux_head/avg_pool"),
                "head": {
                    "dense": {
                        "kernel": fetch("aux_head/fc/w", own["head"]["dense"]["kernel"])
                    }
                },
            }
        else:
            name = key.replace("cell", "layer")
            if given.network.kind == "search":
                found[key] = _search_cell(own, fetch, name, given.network.blocks)
            else:
                found[key] = _fixed_cell(own, fetch, name, loose[key])
    return found


def _fill(tree, given, loose):
    """Return our tree with the numbers of the file."""
    return _map(
        tree,
        lambda name, leaf: given.params[name].reshape(leaf.shape),
        given,
        loose,
    )


def _name(tree, given, loose):
    """Return the leaves of a tree by the names of the file."""
    found = {}

    def fetch(name, leaf):
        found[name] = leaf
        return leaf

    _map(tree, fetch, given, loose)
    return found


def _reshaped(values, npz, prefix):
    """Pair values with those of the file."""
    pairs = {}
    for name, value in values.items():
        if prefix + name in npz:
            golden = npz[prefix + name]
            pairs[prefix + name] = (np.reshape(np.asarray(value), golden.shape), golden)
    return pairs


def _total_loss(logits, aux, labels):
    hinge = losses.loss("published_hinge", logits, labels)
    if aux is None:
        return hinge, hinge, hinge
    other = losses.loss("published_hinge", aux, labels)
    return hinge + 0.4 * other, hinge, other


def _compare(npz, given, init, loose, run):
    """Run a network of ours, and pair all of its results with those of the file."""
    labels = jnp.asarray(npz["labels"])
    # Of our variables only the shapes matter, and that updates are counted from 0.
    zeros = lambda leaf: np.zeros(leaf.shape, leaf.dtype)
    variables = jax.tree.map(zeros, jax.eval_shape(init, jax.random.key(0)))
    params = _fill(variables.params, given, loose)
    state = jax.tree.map(jnp.asarray, _fill(variables.state, given, loose))

    def loss(params):
        trace = run(Variables(params, state), True)
        total, hinge, aux = _total_loss(trace.logits, trace.aux, labels)
        return total, (trace, hinge, aux)

    value = jax.value_and_grad(loss, has_aux=True)
    (total, (trace, hinge, aux)), grads = jax.device_get(quick(value)(params))
    found = {
        "logits_train": trace.logits,
        "hinge_loss": hinge,
        "train_loss": total,
        "aux_loss": aux,
        "num_params": sum(
            leaf.size
            for name, part in params.items()
            if name != "aux_head"
            for leaf in jax.tree.leaves(part)
        ),
    }
    found |= {f"layer_out/{i}": output for i, output in enumerate(trace.outputs)}
    if "logits_eval" in npz:
        found["logits_eval"] = quick(
            lambda params: run(Variables(params, state), False).logits
        )(params)
    pairs = {name: (value, npz[name]) for name, value in found.items() if name in npz}
    pairs |= _reshaped(_name(grads, given, loose), npz, "grad/")
    if state:
        pairs |= _reshaped(_name(trace.state, given, loose), npz, "moving_after/")
    return pairs


def _run_search(npz, dtype):
    given = _read(npz, dtype)
    chosen = policy.preset("reference")
    net = supernet.describe(given.network, chosen, behaviour.compat())
    init = functools.partial(supernet.init, net, dtype=dtype)
    arc = jnp.asarray(given.arc)
    run = lambda variables, train: supernet.run(
        net, variables, arc, given.images, train=train
    )
    return _compare(npz, given, init, {}, run)


def _run_fixed(npz, dtype):
    given = _read(npz, dtype)
    chosen = policy.preset("published")
    net = fixed.describe(given.network, chosen, given.arc, behaviour.compat())
    init = functools.partial(fixed.init, net, dtype=dtype)
    loose = {f"cell_{c.number}": fixed.loose_ends(net, c) for c in net.plan.cells}
    run = lambda variables, train: fixed.run(net, variables, given.images, train=train)
    return _compare(npz, given, init, loose, run)


def _tolerance(name, npz, dtype):
    part = name.split("/")[0]
    if part in ("images", "labels", "arc", "param", "aux_params"):
        return None
    if name == "num_params":
        return Tolerance(0.0)
    largest = float(np.max(np.abs(npz[name])))
    share = {"grad": 3e-4, "moving_after": 2e-5}.get(part, 1e-5)
    return Tolerance(share, share * largest)


def _is(kind):
    def matches(keys, meta, stem):
        fixed = "logits_eval" in keys
        return "logits_train" in keys and fixed == (kind == "fixed")

    return matches


CASES = (
    (_is("search"), _run_search, _tolerance),
    (_is("fixed"), _run_fixed, _tolerance),
)
