"""What an analysis hands back, and the parts that several analyses are made of."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from modmask import chance, statistics
from modmask.evaluate import assess
from modmask.names import named, original_name
from modmask.statistics import Figures
from modmask.task import Task
from shared import masking
from shared.model import Variables

Exports = dict[str, np.ndarray | dict[str, np.ndarray]]

RANDOM_DRAWS = 3
"""Random masks that the accuracy of one is a mean over."""


class Outcome(NamedTuple):
    """What one network and its masks gave.

    Attributes:
        results: flat figures, `{"group/name": number}`.
        exports: by file name without its ending, an array to be kept as `.npy`, or a
            dict of arrays to be kept as `.npz`.
        steps: updates made until then, of weights and masks.
    """

    results: Figures
    exports: Exports
    steps: int


def masks_of(logits: PyTree, params: PyTree) -> PyTree:
    """Return the masks of some logits: an entry for each weight, l > 0."""
    kept = masking.threshold(jax.tree.map(jnp.asarray, logits))
    return masking.expand(kept, params)


def by_name(fn: Callable[..., Any], masks: PyTree, *rest: PyTree) -> PyTree:
    """Map `fn(original name, mask, ...)` over parameters that have a mask.

    Where it returns None, the result has no mask.
    """

    def call(path: Any, mask: Any, *others: Any) -> Any:
        spelled = jax.tree_util.keystr(path, simple=True, separator="/")
        return fn(original_name(spelled), mask, *others)

    return jax.tree_util.tree_map_with_path(call, masks, *rest)


def only(masks: PyTree, chosen: Collection[str]) -> PyTree:
    """Leave out the masks of all parameters but those of some original names."""
    return by_name(lambda name, mask: mask if name in chosen else None, masks)


def scalars(prefix: str, metrics: Mapping[str, np.ndarray]) -> Figures:
    """Return the metrics that are numbers, with a prefix."""
    return {f"{prefix}/{k}": float(v) for k, v in metrics.items() if np.ndim(v) == 0}


def assess_all(
    task: Task, variables: Variables, masks: PyTree | None, valid: Mapping[str, PyTree]
) -> dict[str, dict[str, np.ndarray]]:
    """Evaluate a network with fixed masks on all sets: metrics by name of the set."""
    return {
        name: assess(task, variables, masks, arrays) for name, arrays in valid.items()
    }


def on_sets(prefix: str, found: Mapping[str, Mapping[str, np.ndarray]]) -> Figures:
    """Return `<prefix>/<set>/<metric>` of what `assess_all` found."""
    figures: Figures = {}
    for name, metrics in found.items():
        figures |= scalars(f"{prefix}/{name}", metrics)
    return figures


def faithfulness(
    task: Task,
    variables: Variables,
    stages: Mapping[str, PyTree],
    valid: Mapping[str, PyTree],
    key: Array,
) -> Figures:
    """Return how the network does with a mask, without what it keeps, and by chance.

    A mask that is a module keeps its function alive, and the rest of the network cannot
    replace it; a random mask that keeps as many weights tells what that is worth.

    Args:
        task: network and metrics.
        variables: of the network.
        stages: masks by stage.
        valid: sets to evaluate on.
        key: of the random masks; consumed.

    Returns:
        `faithfulness/<stage>/{masked,inverse,random}/<set>/<metric>`, the last the
        mean over `RANDOM_DRAWS` random masks.
    """
    figures: Figures = {}
    for i, (stage, masks) in enumerate(stages.items()):
        masked = assess_all(task, variables, masks, valid)
        inverse = assess_all(task, variables, masking.invert(masks), valid)
        random = random_results(
            task, variables, masks, valid, jax.random.fold_in(key, i)
        )
        figures |= faithfulness_rows(stage, masked, inverse, random)
    return figures


def faithfulness_rows(
    stage: str, masked: Mapping, inverse: Mapping, random: Mapping
) -> Figures:
    """Return the rows of a stage, of three results of `assess_all`."""
    kinds = {"masked": masked, "inverse": inverse, "random": random}
    figures: Figures = {}
    for kind, found in kinds.items():
        figures |= on_sets(f"faithfulness/{stage}/{kind}", found)
    return figures


_draw = jax.jit(statistics.random_masks)


def random_results(
    task: Task,
    variables: Variables,
    masks: PyTree,
    valid: Mapping[str, PyTree],
    key: Array,
) -> dict[str, dict[str, np.ndarray]]:
    """Return the mean results of random masks that keep as many weights."""
    keys = jax.random.split(key, RANDOM_DRAWS)
    found = [assess_all(task, variables, _draw(k, masks), valid) for k in keys]
    mean = lambda *values: np.asarray(np.mean(values, axis=0))
    return jax.tree.map(mean, *found)


def overlaps(
    stages: Mapping[str, PyTree],
    *,
    share: bool = True,
    pairs: Sequence[tuple[str, str]] | None = None,
) -> Figures:
    """Return all figures on what some masks have in common, and their chance levels.

    Args:
        stages: masks by stage, the control first.
        share: whether the others share a function, so that `mask_stat` tells.
        pairs: whose IoU to calculate, by default those of all pairs.
    """
    everything = list(stages.values())
    figures = statistics.kept(stages) | statistics.similarity(stages, pairs)
    figures |= statistics.remaining(everything)
    share = share and len(everything) > 2
    if share:
        figures |= statistics.sharing(everything[1:])
    return figures | chance.chance(stages, share=share, pairs=pairs)


def final_masks(logits: Mapping[str, PyTree], first: int = 0) -> Exports:
    """Return the export of each stage's logits, under original names."""
    return {
        f"stage_final_masks/stage_{i}": {
            **{name: np.asarray(leaf) for name, leaf in named(tree).items()},
            "stage": np.array(stage),
        }
        for i, (stage, tree) in enumerate(logits.items(), start=first)
    }
