"""Latent weights of a run, from its last checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from enasq import learning, parts, retrain, search, sessions
from enasq.config import Config
from enasq.figures import maps
from enasq.policy import QuantPolicy
from enasq.quantization import Quantizer
from shared import groups, runs
from shared.plotting import NothingToDraw

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Latents(NamedTuple):
    """Latent weights and where their quantisers divide them, by part of the network.

    Attributes:
        weights: all kernels of a part, flat.
        thresholds: of its quantiser.
    """

    weights: dict[str, np.ndarray]
    thresholds: dict[str, list[float]]


def read(paths: Sequence[Path]) -> Latents:
    """Return the latent weights of the first member of the first run that has any."""
    saved = [
        path for path in paths if any((path / "checkpoints").rglob("manifest.json"))
    ]
    if not saved:
        raise NothingToDraw("no run with a checkpoint")
    path = saved[0]
    data_dir = runs.read_config(path)["options"]["data_dir"]
    static, hyper, _, checkpoints = groups.stored(path, Config)[0]
    sets = parts.load(static, data_dir)
    if static.task == "fixed":
        own = sessions.training_of(static, sets, parts.architecture(static))
        program = retrain.build(own)
    else:
        own = sessions.searching(static, sets, path)
        program = search.build(own)
    if static.task == "study":
        checkpoints = checkpoints / "member-0000" / "search"
        hyper = {name: values[:1] for name, values in hyper.items()}
    _, states = groups.restore(program, hyper, checkpoints)
    return of_params(states[0].params, own.net.policy)


def of_params(params: dict, policy: QuantPolicy) -> Latents:
    """Return the latent kernels of a network's parameters."""
    found: dict[str, list[np.ndarray]] = {}
    places: dict[str, list[float]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [part.key for part in path]
        if names[-1] != "kernel":
            continue
        (quantizer, *_) = learning.owners(names, policy)
        if quantizer.name != "float":
            found.setdefault(names[0], []).append(np.ravel(leaf))
            places[names[0]] = thresholds(quantizer)
    weights = {name: np.concatenate(leaves) for name, leaves in found.items()}
    return Latents(weights, places)


def thresholds(quantizer: Quantizer) -> list[float]:
    """Return where a quantiser divides latent weights, if it does so for all alike."""
    if quantizer.name in ("binary", "stochastic_binary", "xnor", "approx_sign"):
        return [0.0]
    if quantizer.name == "ternary" and isinstance(quantizer.high, float | int):
        return [-quantizer.high / 2, quantizer.high / 2]
    if quantizer.name == "kbit" and quantizer.bits is not None:
        m = 2 ** (quantizer.bits - 1)
        return [(q + 0.5) / m for q in range(-m, m - 1)]
    return []


def draw(found: Latents) -> "Figure":
    """Draw the distributions of latent weights with their thresholds."""
    return maps.weights(found.weights, found.thresholds)
