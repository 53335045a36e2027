"""Parameters under the names of the published program, and sets of them.

`original_name` maps the path of a parameter to the name that records, exports and
figures use: "lstm/0/recurrent" is `lstm_cells_0_weight_hh`. Projections of keys and
values are one matrix `..._data_to_kv_weight` in the published program and two here,
`..._data_to_k_weight` and `..._data_to_v_weight`.
"""

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from modmask.config import Config, MaskConfig
from shared.errors import UsageError
from shared.masking import Filter

_LEAVES = {
    "kernel": "weight",
    "recurrent": "weight_hh",
    "table": "weight",
    "scale": "weight",
    "offset": "bias",
}
_LAYER_NORM = {"scale": "gamma", "offset": "beta"}
_PROJECTIONS = {
    "query": "data_to_q",
    "key": "data_to_k",
    "value": "data_to_v",
    "merge": "multi_head_merge",
}
_HALF_SETS = 5


def original_name(path: str) -> str:
    """Return the name of the parameter at a path like "layers/0/kernel".

    Parts are joined by "_". Kernels are weights; an LSTM's cells have `weight_ih`,
    `weight_hh` and `bias`; the norms of a transformer (`norm1`, ...) have `gamma` and
    `beta`, others `weight` and `bias`. Parts that no rule knows stay as they are.
    """
    *modules, leaf = path.split("/")
    outer, owner = ["", "", *modules][-2:]
    if leaf == "kernel" and outer == "lstm":
        leaf = "weight_ih"
    elif re.fullmatch(r"norm\d+", owner):
        leaf = _LAYER_NORM.get(leaf, leaf)
    else:
        leaf = _LEAVES.get(leaf, leaf)
    if owner in _PROJECTIONS and outer.endswith("attn"):
        modules[-1] = _PROJECTIONS[owner]
    cells = ["lstm_cells" if part == "lstm" else part for part in modules]
    return "_".join([*cells, leaf])


def named(tree: PyTree) -> dict[str, Any]:
    """Return the leaves of a tree of parameters or masks by original name, sorted.

    Raises:
        UsageError: if two parameters have one name.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    paths: dict[str, str] = {}
    found = {}
    for keys, leaf in leaves:
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        name = original_name(path)
        if name in found:
            given = f"{paths[name]} and {path}"
            raise UsageError("params", given, f"one parameter called {name}")
        paths[name], found[name] = path, leaf
    return dict(sorted(found.items()))


def masked(params: PyTree, config: MaskConfig) -> Filter:
    """Return the filter `(path, leaf) -> bool` of parameters that have masks.

    Embeddings have none; biases only with `mask_biases`, and layer norms not with
    `skip_layernorm`.

    Args:
        params: whose names must differ.
        config: a `Config` for `skip_layernorm`.
    """
    named(params)
    skip_norms = isinstance(config, Config) and config.skip_layernorm

    def where(path: str, leaf: Any) -> bool:
        del leaf
        name = original_name(path)
        if "embedding" in name or ("bias" in name and not config.mask_biases):
            return False
        return not (skip_norms and re.fullmatch(r".+_norm\d+_(beta|gamma)", name))

    return where


def half_sets(
    config: Config, names: Sequence[str], *, seed: int | None = None
) -> tuple[tuple[str, ...], ...]:
    """Return the sets of parameters whose masks act alone in a half-mask test.

    The other half of each test is the rest of the names. Feed-forward networks and the
    recurrent ones of double addition have the first half of the layers in alphabetical
    order, transformers on SCAN their lower layers and the output, image networks the
    first half of their kernels; for all others there are up to five random halves.

    Args:
        config: of the experiment.
        names: original names of all masked parameters.
        seed: of the random halves, by default that of the configuration.

    Reference:
        Csordás et al. (2021), half-mask experiments.
    """
    ordered = sorted(names)
    if config.task in ("tuple", "tuple_ff", "tuple_ff_copyweight"):
        return (tuple(ordered[: len(ordered) // 2]),)
    if config.task == "addmul_ff":
        return (tuple(ordered[: math.ceil(len(ordered) / 2)]),)
    if config.task == "trafo_scan":
        return (_lower_layers(config, ordered),)
    if config.task.startswith("cifar10"):
        return (_first_features(ordered),)
    return _random_halves(ordered, config.seed if seed is None else seed)


def _lower_layers(config: Config, names: Sequence[str]) -> tuple[str, ...]:
    last = {
        "encoder": config.encoder_layers // 2,
        "decoder": config.decoder_layers // 2,
    }

    def lower(name: str) -> bool:
        found = re.search(r"(encoder|decoder)_layers_(\d+)_", name)
        if found is None:
            return name.startswith("output_map_")
        return int(found[2]) <= last[found[1]]

    return tuple(filter(lower, names))


def _first_features(names: Sequence[str]) -> tuple[str, ...]:
    """Take the modules that hold the first half of the kernels, output included."""
    module = lambda name: int(name.split("_")[1])
    features = [name for name in names if name.startswith("features_")]
    kernels = sorted(module(n) for n in features if n.endswith("_weight"))
    outputs = sum(n.endswith("_weight") for n in names) - len(kernels)
    first = set(kernels[: math.ceil((len(kernels) + outputs) / 2)])
    return tuple(name for name in features if module(name) in first)


def _random_halves(names: Sequence[str], seed: int) -> tuple[tuple[str, ...], ...]:
    size = math.ceil(len(names) / 2)
    wanted = min(math.comb(len(names), size), _HALF_SETS)
    random = np.random.RandomState(seed)
    draws = (
        tuple(sorted(random.choice(names, size, replace=False).tolist()))
        for _ in itertools.count()
    )
    # A dictionary drops what was drawn before and keeps the order.
    chosen: dict[tuple[str, ...], None] = {}
    while len(chosen) < wanted:
        chosen[next(draws)] = None
    return tuple(chosen)


def io_layers(config: Config, names: Sequence[str]) -> tuple[str, ...]:
    """Return the parameters of a network's input and output layers.

    Args:
        config: of an experiment on double addition.
        names: original names of all masked parameters.

    Raises:
        UsageError: for another task.
    """
    if config.task == "tuple":
        pattern = "lstm_cells_0_weight_ih|output_projection_.+"
    elif config.task in ("tuple_ff", "tuple_ff_copyweight"):
        layers = [int(name.split("_")[1]) for name in names]
        pattern = f"layers_({min(layers)}|{max(layers)})_.+"
    else:
        tasks = "a task on double addition (tuple, tuple_ff, tuple_ff_copyweight)"
        hint = "Other tasks know inverse_io=none only."
        raise UsageError("task", config.task, tasks, hint)
    return tuple(name for name in sorted(names) if re.fullmatch(pattern, name))
