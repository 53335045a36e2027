"""Gradient cosine: which layers' masks turn the gradient away?"""

import functools
import re
from collections.abc import Collection, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from modmask import names, phases, statistics
from modmask.analyses import outcome
from modmask.analyses.outcome import Outcome
from modmask.config import Config
from modmask.evaluate import masked_forward
from modmask.statistics import Figures
from modmask.task import Problem, Task
from shared.data import batching
from shared.groups import Place
from shared.model import Variables


def run(
    problem: Problem,
    configs: Sequence[Config],
    networks: Sequence[Variables],
    place: Place,
    offset: int,
) -> list[Outcome]:
    """Train one mask, and compare gradients with more and more layers masked.

    Args:
        problem: task and data; the last stage is the one whose mask is trained.
        configs, networks: one network per config.
        place: where to write to.
        offset: updates made so far.
    """
    stages = problem.stages[-1:]
    trained = phases.train_stages(
        problem, configs, networks, place, stages, phase="masks", offset=offset
    )
    steps = offset + configs[0].mask_steps
    outcomes = []
    for config, network, logits in zip(configs, networks, trained, strict=True):
        masks = outcome.masks_of(logits[stages[0].name], network.params)
        results = compare(problem, network, masks, config.batch_size)
        outcomes.append(Outcome(results, outcome.final_masks(logits), steps))
    return outcomes


def compare(problem: Problem, network: Variables, masks: PyTree, batch: int) -> Figures:
    """Return `cos_distance/<i>/<parameter>` with the masks of the first i layers.

    Layers come in the order of `from_output`; with i = 0 nothing is masked, so that
    both gradients are the same. Cosines are over the weights that the masks keep.

    Args:
        problem: task and data.
        network: frozen.
        masks: of all its layers.
        batch: rows of a batch on the first set, whose mean losses are added up.
    """
    arrays = next(iter(problem.valid.values()))
    gradient = functools.partial(
        total_gradient, problem.task, network, arrays, batch, problem.stages[-1].setting
    )
    baseline = gradient(None)
    layers = from_output(list(names.named(masks)))
    figures: Figures = {}
    for i in range(len(layers) + 1):
        chosen = [name for layer in layers[:i] for name in layer]
        own = outcome.only(masks, chosen)
        found = statistics.cosines(baseline, gradient(own), own)
        for name, value in found.items():
            figures[f"cos_distance/{i}/{name}"] = float(value)
    return figures


def from_output(masked: Collection[str]) -> list[tuple[str, ...]]:
    """Return the names of each layer's parameters, the output layer's first.

    Layers are told apart by what stands before the last "_"; the one called "out" comes
    first, the others follow by falling number.
    """
    layers: dict[str, list[str]] = {}
    for name in sorted(masked):
        layers.setdefault(name.rpartition("_")[0], []).append(name)

    def place(layer: str) -> tuple[bool, list[int]]:
        numbers = [-int(number) for number in re.findall(r"\d+", layer)]
        return not layer.startswith("out"), numbers

    return [tuple(layers[layer]) for layer in sorted(layers, key=place)]


def total_gradient(
    task: Task,
    network: Variables,
    arrays: PyTree,
    batch: int,
    setting: PyTree,
    masks: PyTree | None,
) -> PyTree:
    """Return the gradient of the mean losses of all batches, added up.

    Args:
        task: network and loss.
        network: in evaluation.
        arrays: `[rows, ...]`; the last batch may be shorter.
        batch: rows of a batch.
        setting: of the loss.
        masks: fixed masks, None for none.
    """
    count, total = batching.rows(arrays), None
    for start in range(0, count, batch):
        part = batching.slice_rows(arrays, start, min(batch, count - start))
        found = _gradient(task, network, part, setting, masks)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    return total


@functools.partial(jax.jit, static_argnums=0)
def _gradient(
    task: Task, network: Variables, part: PyTree, setting: PyTree, masks: PyTree | None
) -> PyTree:
    def loss(params: PyTree) -> jax.Array:
        variables = network._replace(params=params)
        forward = masked_forward(task.model, variables, masks)
        # In evaluation nothing is drawn, so that any key will do.
        return task.loss(forward, part, jax.random.key(0), setting)[0]

    return jax.grad(loss)(network.params)
