"""Mask stability: does training find the same weights when its data come otherwise?"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import PyTree

from modmask import chance, names, phases, statistics
from modmask.analyses import outcome
from modmask.analyses.outcome import Outcome
from modmask.config import Config
from modmask.masks import Member
from modmask.statistics import Figures
from modmask.task import Problem, Stage
from shared.groups import Place
from shared.model import Variables

TWICE = 2
"""Masks of each sub-task."""

SEED = 1234
"""From which the seeds of the masks are drawn, as in the published program."""


def run(
    problem: Problem,
    configs: Sequence[Config],
    networks: Sequence[Variables],
    place: Place,
    offset: int,
) -> list[Outcome]:
    """Train two masks of each sub-task, from one start on other data, and compare them.

    With `keep_last_layer` all take the output layer of a control mask, which is trained
    first and is on the full problem; that layer does not count in the comparison.

    Args:
        problem: task and data; the first stage is the control.
        configs, networks: one network per config.
        place: where to write to.
        offset: updates made so far.

    Reference:
        Csordás et al. (2021), appendix on the stability of masks.
    """
    control, *subtasks = problem.stages
    full = phases.train_stages(
        problem, configs, networks, place, [control], phase="masks", offset=offset
    )
    steps = offset + configs[0].mask_steps
    if configs[0].only_control:
        return [Outcome({}, outcome.final_masks(found), steps) for found in full]
    kept = [found[control.name] for found in full]
    members, owners = [], []
    for i, (config, network) in enumerate(zip(configs, networks, strict=True)):
        own = pairs_of_members(config, network, subtasks, kept[i])
        members += own
        owners += [i] * len(own)
    logits = phases.train_masks(
        problem, members, owners, place, phase="masks-twice", offset=steps
    )
    steps += configs[0].mask_steps
    outcomes, count = [], TWICE * len(subtasks)
    for i, network in enumerate(networks):
        own = logits[i * count : (i + 1) * count]
        named = dict(zip((m.stage.name for m in members), own, strict=False))
        results = compare(subtasks, members[:count], own, network.params)
        exports = outcome.final_masks({control.name: kept[i], **named})
        outcomes.append(Outcome(results, exports, steps))
    return outcomes


def pairs_of_members(
    config: Config, network: Variables, subtasks: Sequence[Stage], control: PyTree
) -> list[Member]:
    """Return two masks to train for each sub-task, `<name>/0` and `<name>/1`."""
    logits, trained = phases.starting(network, config, control)
    seeds = np.random.RandomState(SEED).randint(2**31 - 1, size=TWICE * len(subtasks))
    return [
        Member(
            dataclasses.replace(config, seed=(int(seed) + config.seed) % (2**31 - 1)),
            network,
            subtasks[k // TWICE]._replace(
                name=f"{subtasks[k // TWICE].name}/{k % TWICE}"
            ),
            logits,
            trained,
        )
        for k, seed in enumerate(seeds)
    ]


def compare(
    subtasks: Sequence[Stage],
    members: Sequence[Member],
    logits: Sequence[PyTree],
    params: PyTree,
) -> Figures:
    """Return the IoU of the two masks of each sub-task, and the average.

    Args:
        subtasks: their stages.
        members: what was trained, in pairs; parameters that were not do not count.
        logits: of the members.
        params: of the network.

    Returns:
        `masks_stability/<name>/iou` and `masks_stability/average_iou`, each with its
        chance level.
    """
    figures: Figures = {}
    for k, stage in enumerate(subtasks):
        pair = {}
        for i in range(TWICE):
            place = TWICE * k + i
            masks = outcome.masks_of(logits[place], params)
            pair[str(i)] = trained_only(masks, members[place].trained)
        name = f"masks_stability/{stage.name}/iou"
        figures[name] = statistics.total_iou(list(pair.values()))
        levels = chance.chance(pair, seed=k)
        for kind in ("chance", "chance_low", "chance_high"):
            figures[f"{kind}/{name}"] = levels[f"{kind}/mask_iou/0/1/total"]
    for kind in ("", "chance/"):
        values = [figures[f"{kind}masks_stability/{s.name}/iou"] for s in subtasks]
        figures[f"{kind}masks_stability/average_iou"] = float(np.mean(values))
    return figures


def trained_only(masks: PyTree, trained: PyTree | None) -> PyTree:
    """Leave out the masks of parameters whose logits were not trained."""
    if trained is None:
        return masks
    flags = names.named(trained)
    return outcome.only(masks, [name for name, flag in flags.items() if flag])
