"""Class removal: what is lost with the weights that only one class needs?"""

from collections.abc import Mapping, Sequence
from typing import Any

from modmask import phases, statistics
from modmask.analyses import stages
from modmask.analyses.outcome import Exports, Outcome
from modmask.config import Config
from modmask.statistics import Figures
from modmask.task import Problem
from shared.groups import Place
from shared.model import Variables


def run(
    problem: Problem,
    configs: Sequence[Config],
    networks: Sequence[Variables],
    place: Place,
    offset: int,
) -> list[Outcome]:
    """Train a control mask, and one without each class; compare their confusions.

    With `keep_last_layer` the masks without a class take the control's mask of the
    output layer, lest they remove a class by deleting its output alone. They are then
    trained after it, otherwise together with it.

    Args:
        problem: task and data; the first stage is the control, the others have the
            number of the class that they leave out for a name.
        configs, networks: one network per config.
        place: where to write to.
        offset: updates made so far.

    Reference:
        Csordás et al. (2021), class removal on CIFAR-10.
    """
    config, (control, *others) = configs[0], problem.stages
    together = [control] if config.only_control else [control, *others]
    later = others if config.keep_last_layer and not config.only_control else []
    first = [control] if later else together
    trained = phases.train_stages(
        problem, configs, networks, place, first, phase="masks", offset=offset
    )
    steps = offset + config.mask_steps
    if later:
        rest = phases.train_stages(
            problem,
            configs,
            networks,
            place,
            later,
            phase="masks-without",
            offset=steps,
            control=[logits[control.name] for logits in trained],
        )
        trained = [a | b for a, b in zip(trained, rest, strict=True)]
        steps += config.mask_steps
    outcomes = []
    for config, network, logits in zip(configs, networks, trained, strict=True):
        compared = [(control.name, name) for name in list(logits)[1:]]
        found = stages.examine(
            problem, config, network, logits, steps, share=False, compared=compared
        )
        tables = {name: found.exports[f"confusion/{name}"] for name in logits}
        figures, exports = confusions(tables)
        results, exports = found.results | figures, found.exports | exports
        outcomes.append(Outcome(results, exports, steps))
    return outcomes


def confusions(tables: Mapping[str, Any]) -> tuple[Figures, Exports]:
    """Return how each removal changes the confusion of classes, `[true, predicted]`.

    Args:
        tables: numbers of rows `[predicted, true]` by stage, the control first and then
            by the number of the removed class.

    Returns:
        `class_removal/drop/<class>/...` of `statistics.drops`, and the exports
        `class_removal/confusion_reference` and `.../confusion_difference/<class>`.
    """
    shares = {
        name: statistics.normalise_confusion(table) for name, table in tables.items()
    }
    reference = shares.pop(next(iter(shares)))
    figures: Figures = {}
    exports: Exports = {"class_removal/confusion_reference": reference}
    for stage, share in shares.items():
        change = share - reference
        exports[f"class_removal/confusion_difference/{stage}"] = change
        for name, value in statistics.drops(reference, change, int(stage)).items():
            figures[f"class_removal/drop/{stage}/{name}"] = value
    return figures, exports
