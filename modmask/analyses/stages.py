"""The analysis of most tasks: a control mask, one for each sub-function, and tests."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jaxtyping import PyTree

from modmask import names, phases
from modmask.analyses import outcome
from modmask.analyses.outcome import Exports, Outcome
from modmask.config import Config
from modmask.evaluate import assess
from modmask.statistics import Figures
from modmask.task import Problem
from modmask.tasks import pairs
from shared import masking
from shared.data import batching
from shared.groups import Place
from shared.model import Variables

INVERTED = ("tuple", "tuple_ff", "tuple_ff_copyweight", "addmul", "addmul_ff")
"""Tasks whose masks take the inverse-mask test."""

WHOLE = ("deepmind_math",)
"""Tasks without the half-mask test."""


def run(
    problem: Problem,
    configs: Sequence[Config],
    networks: Sequence[Variables],
    place: Place,
    offset: int,
) -> list[Outcome]:
    """Train all masks of each network together, and test them.

    Args:
        problem: task, data and stages, the control first.
        configs, networks: one network per config.
        place: where to write to.
        offset: updates made so far.

    Reference:
        Csordás et al. (2021).
    """
    networks = prepared(configs, networks)
    stages = problem.stages[: 1 if configs[0].only_control else None]
    trained = phases.train_stages(
        problem, configs, networks, place, stages, phase="masks", offset=offset
    )
    steps = offset + configs[0].mask_steps
    return [
        examine(problem, config, network, logits, steps)
        for config, network, logits in zip(configs, networks, trained, strict=True)
    ]


def prepared(
    configs: Sequence[Config], networks: Sequence[Variables]
) -> list[Variables]:
    """Return the networks as they are masked, and check what is asked of their masks.

    Raises:
        UsageError: if the task has no input and output layers for `inverse_io`.
    """
    found = []
    for config, network in zip(configs, networks, strict=True):
        if config.inverse_io != "none":
            names.io_layers(config, list(names.named(network.params)))
        if config.task == "tuple_ff_copyweight":
            params = pairs.copy_weights(network.params, config)
            network = network._replace(params=params)
        found.append(network)
    return found


def examine(
    problem: Problem,
    config: Config,
    network: Variables,
    logits: Mapping[str, PyTree],
    steps: int,
    *,
    share: bool = True,
    compared: Sequence[tuple[str, str]] | None = None,
) -> Outcome:
    """Return all figures on the masks of a network, by the name of their stage.

    Args:
        problem: task and data.
        config: of the network.
        network: frozen.
        logits: by stage, the control first.
        steps: updates made so far.
        share, compared: see `outcome.overlaps`.
    """
    masks = {
        stage: outcome.masks_of(tree, network.params) for stage, tree in logits.items()
    }
    control = next(iter(masks))
    results: Figures = outcome.overlaps(masks, share=share, pairs=compared)
    exports = outcome.final_masks(logits)
    for i, stage in enumerate(masks):
        key = jax.random.fold_in(jax.random.key(config.seed), i)
        found, arrays = _stage(problem, config, network, masks, stage, key)
        results |= found
        exports |= arrays
    if config.task not in WHOLE:
        results |= half_masks(problem, config, network, masks[control], control)
    return Outcome(results, exports, steps)


def _stage(
    problem: Problem,
    config: Config,
    network: Variables,
    masks: Mapping[str, PyTree],
    stage: str,
    key: jax.Array,
) -> tuple[Figures, Exports]:
    """Return what a stage's mask does, and what is left without it."""
    task, valid, own = problem.task, problem.valid, masks[stage]
    masked = outcome.assess_all(task, network, own, valid)
    inverse = outcome.assess_all(task, network, masking.invert(own), valid)
    random = outcome.random_results(task, network, own, valid, key)
    figures = outcome.on_sets(f"analysis_results/{stage}", masked)
    figures |= outcome.faithfulness_rows(stage, masked, inverse, random)
    exports = _confusion(f"confusion/{stage}", problem, masked)
    if config.task in INVERTED:
        if config.inverse_io != "none":
            left = inverted(config, own, next(iter(masks.values())))
            inverse = outcome.assess_all(task, network, left, valid)
        place = f"inverse_mask_test/{stage}"
        figures |= outcome.on_sets(place, inverse)
        exports |= _confusion(f"{place}/confusion", problem, inverse)
    return figures, exports


def _confusion(place: str, problem: Problem, found: Mapping[str, Mapping]) -> Exports:
    """Return the numbers of rows behind a confusion on the first set, if there is."""
    name = next(iter(found))
    if "confusion" not in found[name]:
        return {}
    rows = batching.rows(problem.valid[name])
    return {place: np.rint(found[name]["confusion"] * rows).astype(np.int64)}


def inverted(config: Config, masks: PyTree, control: PyTree) -> PyTree:
    """Return masks that keep what these remove, but for input and output layers.

    Args:
        config: `inverse_io` says whether those take part ("none"), have the control's
            mask ("fullmask") or none ("ones").
        masks: of a stage.
        control: mask of the whole task.
    """
    left = masking.invert(masks)
    if config.inverse_io == "none":
        return left
    ends = names.io_layers(config, list(names.named(masks)))
    if config.inverse_io == "ones":
        return outcome.by_name(lambda name, m: None if name in ends else m, left)
    return outcome.by_name(lambda name, m, c: c if name in ends else m, left, control)


def half_masks(
    problem: Problem, config: Config, network: Variables, masks: PyTree, stage: str
) -> Figures:
    """Return the accuracy with the masks of one half of the layers, or of the other.

    Under `half_mask_test/{normal,inverse}/<stage>/iter_<i>/`: for each set of
    `names.half_sets`, with the masks of the set alone, and with all others alone.
    """
    masked = list(names.named(masks))
    name, arrays = next(iter(problem.valid.items()))
    figures: Figures = {}
    for i, chosen in enumerate(names.half_sets(config, masked)):
        rest = [other for other in masked if other not in chosen]
        for kind, half in (("normal", chosen), ("inverse", rest)):
            own = outcome.only(masks, half)
            found = assess(problem.task, network, own, arrays)
            place = f"half_mask_test/{kind}/{stage}/iter_{i}/{name}/accuracy"
            figures[place] = float(found["accuracy"])
    return figures
