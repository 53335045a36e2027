"""Transfer: how much of what earlier tasks use does a new task take up?

Tasks are learnt one after the other, weights and masks together. What earlier masks
keep is frozen; all other weights begin anew for each task.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from modmask import chance, journal, mask_update, statistics
from modmask.analyses import outcome
from modmask.analyses.outcome import Outcome
from modmask.config import Config
from modmask.evaluate import assess, masked_forward
from modmask.statistics import Figures
from modmask.task import Problem, Stage, Task
from shared import masking, sweep, training
from shared.config import split
from shared.data import batching
from shared.errors import UsageError
from shared.groups import Place
from shared.model import Variables


class Restart(NamedTuple):
    """What a task begins with.

    Attributes:
        params: kept weights of earlier tasks, and fresh ones.
        kept: boolean, the weights that stay as they are.
        logits: of the task's masks.
    """

    params: PyTree
    kept: PyTree
    logits: PyTree


def reinit(
    params: PyTree,
    fresh: PyTree,
    earlier: Sequence[PyTree],
    *,
    new_init: float | int | Array,
    used_init: float | int | Array,
    reset_first_layer: bool,
) -> Restart:
    """Prepare weights and logits for the next task.

    Args:
        params: weights after the last task.
        fresh: newly drawn weights, which take the place of all that no mask keeps.
        earlier: masks of the tasks so far.
        new_init: logits of fresh weights.
        used_init: logits of weights that an earlier mask keeps.
        reset_first_layer: draw the first layer anew even so, since every task needs an
            input layer of its own; its logits then start from `new_init`.

    Reference:
        Csordás et al. (2021), permuted MNIST.
    """
    kept = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, bool), params)
    for mask in earlier:
        kept = masking.union(kept, mask)
    if reset_first_layer:
        clear = lambda name, m: m & (not name.startswith("layers_0_"))
        kept = outcome.by_name(clear, kept)
    mixed = jax.tree.map(jnp.where, kept, params, fresh)
    start = lambda keep, leaf: jnp.where(keep, used_init, new_init).astype(leaf.dtype)
    return Restart(mixed, kept, jax.tree.map(start, kept, params))


def freeze(gradient: PyTree, kept: PyTree) -> PyTree:
    """Return the gradient with 0 for the weights that stay as they are."""
    return jax.tree.map(lambda g, keep: jnp.where(keep, 0, g), gradient, kept)


def make_step(task: Task, static: Any) -> mask_update.Step:
    """Return the joint update of weights and logits.

    One step of Adam over both, with the learning rate of masks, on the loss of sampled
    masks and the penalty of the logits. The state of the run is what is frozen.

    Args:
        task: network and loss.
        static: static part of a `Config`.
    """
    loss_fn = mask_update.make_loss(task, static)
    how = "vmap" if static.mask_how == "auto" else static.mask_how

    def update_fn(params, state, batch, key, hyper):
        def objective(params):
            variables = Variables(params["weights"])
            count, keys = static.mask_samples, jax.random.split(key)
            return loss_fn(
                params["logits"], variables, batch, 0, count, keys, hyper, how
            )

        (loss, metrics), grads = jax.value_and_grad(objective, has_aux=True)(params)
        push = jax.grad(mask_update.penalty)(
            params["logits"], params["weights"], static, hyper, None
        )
        grads = {
            "weights": freeze(grads["weights"], state),
            "logits": jax.tree.map(jnp.add, grads["logits"], push),
        }
        return grads, (state, {**metrics, "loss": loss})

    return training.make_train_step(
        update_fn,
        mask_update.make_optimizer,
        clip_norm=static.grad_clip or None,
        timed=True,
    )


def make_evaluate(task: Task) -> Callable[[training.TrainState, PyTree], dict]:
    """Return `(train_state, batch) -> metrics` of the masked network."""

    def evaluate(train_state, batch):
        params = train_state.params
        own = masking.threshold(params["logits"])
        forward = masked_forward(task.model, Variables(params["weights"]), own)
        found = task.evaluate(forward, batch)
        return {name: value for name, value in found.items() if value.ndim == 0}

    return evaluate


def run(problem: Problem, configs: Sequence[Config], place: Place) -> list[Outcome]:
    """Learn all tasks in turn with each config, and tell what their masks share.

    Args:
        problem: a stage for each task, and a set to evaluate on of the same name.
        configs: one network each.
        place: where to write to; tasks that are learnt already are not learnt again.

    Raises:
        UsageError: for masks that leave out biases, since all weights of a task must
            be either its own or frozen.
        FloatingPointError: if all networks diverge.

    Reference:
        Csordás et al. (2021), permuted MNIST.
    """
    # Weights and masks have one number of steps here, that of the weights.
    configs = [dataclasses.replace(own, mask_steps=own.steps) for own in configs]
    config = configs[0]
    if not config.mask_biases:
        raise UsageError("mask_biases", False, "True for a transfer experiment")
    networks = [_fresh(problem.task, own, 0) for own in configs]
    history: list[dict[str, PyTree]] = [{} for _ in configs]
    logits: list[dict[str, PyTree]] = [{} for _ in configs]
    results: list[Figures] = [{} for _ in configs]
    for p, stage in enumerate(problem.stages):
        starts = [
            reinit(
                network,
                _fresh(problem.task, own, p),
                list(before.values()),
                new_init=own.transfer_new_init,
                used_init=own.transfer_used_init,
                reset_first_layer=own.transfer_reset_first_layer,
            )
            for own, network, before in zip(configs, networks, history, strict=True)
        ]
        found = _learn(problem, configs, place, p, stage, starts)
        networks = [params["weights"] for params in found]
        for i, params in enumerate(found):
            logits[i][stage.name] = params["logits"]
            history[i][stage.name] = masking.threshold(params["logits"])
            results[i] |= measure(problem, params["weights"], history[i])
    steps = len(problem.stages) * config.steps
    return [
        Outcome(found, outcome.final_masks(own), steps)
        for found, own in zip(results, logits, strict=True)
    ]


def _fresh(task: Task, config: Config, number: int) -> PyTree:
    return task.model.init(training.init_key(_key(config, number))).params


def _key(config: Config, number: int) -> Array:
    """Return the base key of one task of a run."""
    return jax.random.fold_in(jax.random.key(config.seed), number)


def _learn(
    problem: Problem,
    configs: Sequence[Config],
    place: Place,
    number: int,
    stage: Stage,
    starts: Sequence[Restart],
) -> list[PyTree]:
    """Train weights and logits on one task, for all configs together."""
    config, task = configs[0], problem.task
    static = split(config)[0]
    arrays = problem.train
    if stage.rows is not None:
        arrays = jax.tree.map(lambda a: a[stage.rows], arrays)
    states = [
        _begin(own, number, stage, start)
        for own, start in zip(configs, starts, strict=True)
    ]
    step, evaluate = make_step(task, static), make_evaluate(task)
    outputs = journal.outputs(
        place,
        stage.name,
        number * config.steps,
        config.steps,
        [[i] for i in range(len(configs))],
        lambda m, step: {"mask_lr": configs[m].mask_lr},
        [f"permuted_mnist/{stage.name}/"] * len(configs),
    )
    fitted = training.fit(
        training.Program(lambda key, hyper: states[0], step, evaluate),
        sweep.stack(states),
        arrays,
        batching.with_replacement(batching.rows(arrays), config.batch_size),
        steps=config.steps,
        log_every=min(100, config.steps),
        eval_every=config.eval_every,
        checkpoint_every=config.checkpoint_every or config.eval_every or None,
        evaluate={stage.name: problem.valid[stage.name]},
        members=True,
        mesh=place.mesh("member"),
        progress=place.progress,
        label=stage.name,
        **outputs,
    )
    if all(fitted.failed):
        step_number, metric = fitted.failed[0] or (0, "a metric")
        raise FloatingPointError(f"{metric} became non-finite at step {step_number}")
    if outputs["checkpoints"] is not None:
        journal.close(outputs["checkpoints"])
    return sweep.unstack(fitted.train_state.params)


def _begin(
    config: Config, number: int, stage: Stage, start: Restart
) -> training.TrainState:
    setting = jax.tree.map(np.asarray, stage.setting)
    hyper = {**split(config)[1], "setting": setting}
    params = {"weights": start.params, "logits": start.logits}
    return training.init_state(
        params, start.kept, _key(config, number), hyper, mask_update.make_optimizer
    )


def measure(problem: Problem, weights: PyTree, history: dict[str, PyTree]) -> Figures:
    """Return what the last task's mask shares with earlier ones, and accuracies.

    Args:
        problem: task and data.
        weights: after the last task.
        history: masks of all tasks so far by name.

    Returns:
        Under `permuted_mnist/<last>/`: `mask_stat/...` of
        `statistics.transfer_sharing`, and `<task>/<metric>` of each task so far with
        its own mask; the chance levels of the former under `chance/` and so on.
    """
    *before, last = history.values()
    name = list(history)[-1]
    none = jax.tree.map(jnp.zeros_like, last)
    used = functools.reduce(masking.union, before, none)
    figures: Figures = {}
    for key, value in statistics.transfer_sharing(last, used).items():
        figures[f"permuted_mnist/{name}/{key}"] = value
    for key, value in chance.transfer_chance(last, used).items():
        kind, _, rest = key.partition("/")
        figures[f"{kind}/permuted_mnist/{name}/{rest}"] = value
    for task, own in history.items():
        found = assess(problem.task, Variables(weights), own, problem.valid[task])
        figures |= outcome.scalars(f"permuted_mnist/{name}/{task}", found)
    return figures
