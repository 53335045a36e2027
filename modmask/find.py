"""Masks for any trained network: which of its weights does a sub-task use?"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from modmask.analyses import outcome
from modmask.config import MaskConfig
from modmask.masks import Member, Trained, train_masks
from modmask.task import Evaluate, Forward, Loss, Stage, Task
from shared import masking, training
from shared.data import batching
from shared.errors import UsageError
from shared.model import Model, Variables, from_linen, from_nnx


class Subtask(NamedTuple):
    """Data that show one sub-task.

    Attributes:
        data: arrays `[rows, ...]`; a pair `(x, labels)` for the default loss.
        rows: which rows show it; None means all. Sub-tasks over the same arrays share
            them in memory.
        setting: scalars for the loss, of one structure in all sub-tasks.
    """

    data: PyTree
    rows: np.ndarray | None = None
    setting: PyTree = ()


class Found(NamedTuple):
    """What `find_masks` found, by the name of the sub-task.

    Attributes:
        masks: trees of booleans like the parameters, None where there is no mask; with
            several repetitions each leaf has a leading axis for them.
        logits: what the masks were made of.
        statistics: densities, overlaps and their chance levels, and accuracies of the
            masked, the inversely and the randomly masked network; flat, a number each,
            the mean over repetitions.
        history: records of the training of each mask, per repetition.
        failed: None, or what went wrong, per repetition.
    """

    masks: dict[str, PyTree]
    logits: dict[str, PyTree]
    statistics: dict[str, float]
    history: dict[str, list[list[training.Record]]]
    failed: dict[str, list[Any]]


def cross_entropy(
    forward: Forward, batch: PyTree, key: Array, setting: PyTree
) -> tuple[Array, dict[str, Array]]:
    """Return the mean cross-entropy of `(x, labels)`, and the accuracy."""
    del key, setting
    x, labels = batch
    logits = forward(x)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(losses), {"accuracy": _accuracy(logits, labels)}


def accuracy(forward: Forward, batch: PyTree) -> dict[str, Array]:
    """Return the accuracy and the mean cross-entropy on `(x, labels)`."""
    x, labels = batch
    logits = forward(x)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return {"accuracy": _accuracy(logits, labels), "loss": jnp.mean(losses)}


def _accuracy(logits: Array, labels: Array) -> Array:
    right = jnp.argmax(logits, -1) == labels
    return jnp.mean(right.astype(logits.dtype))


def find_masks(
    model: Any,
    variables: Any,
    subtasks: Mapping[str, Subtask],
    config: MaskConfig | None = None,
    *,
    where: masking.Filter | None = None,
    share: Callable[[str, Any], tuple[int, ...]] | None = None,
    loss: Loss = cross_entropy,
    evaluate: Evaluate = accuracy,
    valid: Mapping[str, PyTree] | None = None,
    repetitions: int = 1,
    how: str = "auto",
    mesh: Mesh | None = None,
    checkpoints: Path | None = None,
    progress: bool | None = None,
) -> Found:
    """Find the weights of a trained network that each sub-task uses.

    The weights stay as they are; for each sub-task a mask is trained that keeps it
    working with as few of them as possible. All masks are trained together.

    Args:
        model: a `Model`, or a Flax Linen or NNX module as it is.
        variables: `Variables` of a Model; the dict of collections of a Linen module
            (`{"params": ..., "batch_stats": ...}`); None for an NNX module, which holds
            its own.
        subtasks: data of each sub-task by name.
        config: settings of mask training.
        where: `(path, parameter) -> bool`, which parameters have masks; all of floating
            type by default, biases only with `config.mask_biases`.
        share: `(path, parameter) -> shape` of the logits of a parameter whose weights
            share them, see `masking.init_logits`.
        loss: `(forward, batch, key, setting) -> (loss, metrics)`, means over rows of
            a sub-task's data; `forward(x)` runs the network, in evaluation mode.
        evaluate: `(forward, batch) -> metrics`, means over rows.
        valid: data to evaluate on by name; by default that of the sub-tasks.
        repetitions: masks per sub-task, with consecutive seeds.
        how, mesh: schedule over masks and devices, see `sweep.fan_out`.
        checkpoints: directory to save to and to go on from.
        progress: show a progress bar; None shows it on a terminal only.

    Raises:
        UsageError: for no sub-task, a filter that masks nothing, variables that are not
            those of the model, or data that fit neither each other nor the batch.

    Reference:
        Csordás et al. (2021).
    """
    config = MaskConfig() if config is None else config
    if not subtasks:
        raise UsageError("subtasks", dict(subtasks), "at least one")
    if repetitions < 1:
        raise UsageError("repetitions", repetitions, "an integer >= 1")
    train, stages = _together(subtasks)
    # Only shapes are needed to set a Linen module up.
    first = jax.tree.map(lambda a: a[:1], train)
    net, weights = as_model(model, variables, first)
    task = Task(net, loss, evaluate)
    chosen = where or _all_but_biases(config)
    logits = masking.init_logits(weights.params, chosen, config.mask_init, share)
    members = [
        Member(seeded(config, i), weights, stage, logits)
        for stage in stages
        for i in range(repetitions)
    ]
    if valid is None:
        valid = {name: _rows(subtask) for name, subtask in subtasks.items()}
    trained = train_masks(
        task,
        train,
        members,
        valid=valid,
        how=how,
        mesh=mesh,
        checkpoints=checkpoints,
        progress=progress,
    )
    return _collect(task, weights, valid, trained, list(subtasks), repetitions)


def seeded(config: MaskConfig, repetition: int) -> MaskConfig:
    """Return the settings of a repetition: the repetition is the seed."""
    return dataclasses.replace(config, seed=config.seed + repetition)


def as_model(model: Any, variables: Any, batch: PyTree) -> tuple[Model, Variables]:
    """Turn a Flax module and its variables into ours; a Model stays as it is.

    Args:
        model: a Model, or a Linen or NNX module.
        variables: see `find_masks`.
        batch: one row of data, whose first part a Linen module takes.

    Raises:
        UsageError: if the model is none of these, or the variables are not its own.
    """
    from flax import linen, nnx

    if isinstance(model, nnx.Module):
        if variables is not None:
            allowed = "None, since an NNX module holds its own"
            raise UsageError("variables", type(variables).__name__, allowed)
        net = from_nnx(model)
        return net, net.init(jax.random.key(0))
    if isinstance(model, linen.Module):
        example = batch[0] if isinstance(batch, tuple) else batch
        net = from_linen(model, example)
        if not isinstance(variables, Variables):
            collections = _collections(variables)
            params = collections.pop("params")
            variables = Variables(params, collections)
    elif isinstance(model, Model):
        net = model
        if not isinstance(variables, Variables):
            given = type(variables).__name__
            raise UsageError("variables", given, "Variables(params, state)")
    else:
        allowed = "a Model, a Flax Linen module or a Flax NNX module"
        raise UsageError("model", type(model).__name__, allowed)
    _check_own(net, variables)
    return net, variables


def _collections(variables: Any) -> dict[str, Any]:
    if not isinstance(variables, Mapping) or "params" not in variables:
        allowed = 'Variables, or collections such as {"params": ...}'
        raise UsageError("variables", type(variables).__name__, allowed)
    return dict(variables)


def _check_own(model: Model, variables: Variables) -> None:
    """Refuse parameters that are not of the model's architecture."""
    own = jax.eval_shape(model.init, jax.random.key(0)).params
    kind = lambda tree: {
        jax.tree_util.keystr(path, simple=True, separator="/"): jnp.shape(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    needed, given = kind(own), kind(variables.params)
    for name in sorted({*needed, *given}):
        if needed.get(name) != given.get(name):
            got = given.get(name, "nothing")
            allowed = f"{needed.get(name, 'nothing')}, as the model has it"
            raise UsageError(f"variables.params[{name}]", got, allowed)


def _all_but_biases(config: MaskConfig) -> masking.Filter | None:
    if config.mask_biases:
        return None

    def where(path: str, leaf: Any) -> bool:
        return "bias" not in path and jnp.issubdtype(leaf.dtype, jnp.floating)

    return where


def _together(subtasks: Mapping[str, Subtask]) -> tuple[PyTree, list[Stage]]:
    """Join the arrays of all sub-tasks; those over the same arrays share them."""
    arrays: list[PyTree] = []
    offsets: list[int] = []
    stages = []
    for name, subtask in subtasks.items():
        leaves = jax.tree.leaves(subtask.data)
        sizes = {np.shape(leaf)[0] for leaf in leaves}
        if len(sizes) != 1:
            allowed = "arrays of equal numbers of rows"
            raise UsageError(f"subtasks[{name!r}]", sorted(sizes), allowed)
        same = [i for i, known in enumerate(arrays) if _is_same(known, subtask.data)]
        if not same:
            offsets.append(sum(batching.rows(known) for known in arrays))
            arrays.append(subtask.data)
        place = same[0] if same else len(arrays) - 1
        count = sizes.pop()
        rows = np.arange(count) if subtask.rows is None else np.asarray(subtask.rows)
        if rows.size and not 0 <= rows.min() <= rows.max() < count:
            given = f"{rows.min()} to {rows.max()}"
            raise UsageError(f"subtasks[{name!r}].rows", given, f"0 to {count - 1}")
        stages.append(Stage(name, rows + offsets[place], subtask.setting))
    try:
        joined = jax.tree.map(lambda *parts: jnp.concatenate(parts), *arrays)
    except (ValueError, TypeError) as error:
        raise UsageError("subtasks", str(error), "data of one structure") from error
    return joined, stages


def _is_same(a: PyTree, b: PyTree) -> bool:
    left, right = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(left) == len(right) and all(
        x is y for x, y in zip(left, right, strict=True)
    )


def _rows(subtask: Subtask) -> PyTree:
    if subtask.rows is None:
        return jax.tree.map(jnp.asarray, subtask.data)
    return jax.tree.map(lambda a: jnp.asarray(a)[subtask.rows], subtask.data)


def _collect(
    task: Task,
    variables: Variables,
    valid: Mapping[str, PyTree],
    trained: Trained,
    names: list[str],
    repetitions: int,
) -> Found:
    """Sort what was trained by sub-task, and compare the masks of each repetition."""
    per = lambda values: {
        name: list(values[k * repetitions : (k + 1) * repetitions])
        for k, name in enumerate(names)
    }
    logits, figures = per(trained.logits), []
    for i in range(repetitions):
        stages = {
            name: outcome.masks_of(own[i], variables.params)
            for name, own in logits.items()
        }
        found = outcome.overlaps(stages)
        key = jax.random.key(i)
        found |= outcome.faithfulness(task, variables, stages, valid, key)
        figures.append(found)
    together = {
        name: own[0] if repetitions == 1 else jax.tree.map(_stacked, *own)
        for name, own in logits.items()
    }
    masks = jax.tree.map(lambda leaf: jnp.asarray(leaf) > 0, together)
    mean = {name: float(np.mean([f[name] for f in figures])) for name in figures[0]}
    return Found(masks, together, mean, per(trained.history), per(trained.failed))


def _stacked(*leaves: np.ndarray) -> np.ndarray:
    return np.stack(leaves)
