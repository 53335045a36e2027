"""Training routing networks and their baselines: from configs to a run directory."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from multipath.routing_networks import diagnostics, learning
from multipath.routing_networks.config import Config
from multipath.routing_networks.tasks import Task, finish, prepare
from shared import groups, runs, training
from shared.errors import UsageError
from shared.model import Variables

DTYPES = ("float32", "float64")


def build(static: Any, task: Task, *, axis_name: str | None = None) -> training.Program:
    """Return the program that trains the network of a config.

    Args:
        static: static part of a `Config`.
        task: from `tasks.prepare`.
    """
    network, per_epoch = task.network, task.batches.per_epoch
    optimizer = learning.make_optimizer(static, per_epoch)
    steps = static.updates or static.epochs * per_epoch

    def update_fn(params, state, batch, key, hyper):
        inputs, targets, tasks = batch

        def cost(params):
            outputs, trajectory, new = network.apply(
                Variables(params, state),
                inputs,
                tasks,
                train=True,
                key=key,
                exploration=learning.exploration(static, hyper, steps),
            )
            found = task.losses(
                params["routing"],
                trajectory,
                outputs,
                targets,
                objective=learning.objective(static, hyper, per_epoch),
            )
            total = learning.total(static, hyper, found, trajectory)
            critic = diagnostics.critic_error(trajectory, found.returns)
            told = {
                "loss/critic": critic,
                **diagnostics.acts(trajectory, found.rewards),
            }
            return total, (found, told, {**new, "memory": found.memory})

        grads, (found, told, new) = jax.grad(cost, has_aux=True)(params)
        metrics = {
            "loss/module": jnp.mean(found.module),
            "loss/routing": jnp.mean(found.routing),
            "reward": jnp.mean(found.final),
            **told,
            **{f"gradient/{k}": jnp.sqrt(_square(v)) for k, v in grads.items()},
        }
        return grads, (new, metrics)

    def init(key, hyper):
        variables = network.init(training.init_key(key))
        return training.init_state(*variables, key, hyper, optimizer)

    def evaluate(train_state, split):
        asked = task.read(split)
        inputs, targets, tasks = asked
        variables = Variables(train_state.params, train_state.state)
        outputs, trajectory, _ = network.apply(variables, inputs, tasks, train=False)
        found = task.losses(
            train_state.params["routing"],
            trajectory,
            outputs,
            targets,
            objective=learning.objective(static, train_state.hyper, per_epoch),
        )
        return {
            "loss/module": jnp.mean(found.module),
            "loss/routing": jnp.mean(found.routing),
            **task.answers(outputs, asked, trajectory),
            **diagnostics.routes(trajectory, tasks, task_count=len(task.names)),
        }

    step = training.make_train_step(update_fn, optimizer, timed=True)
    return training.Program(init, step, evaluate)


def _square(tree: PyTree) -> Array:
    return sum((jnp.vdot(g, g) for g in jax.tree.leaves(tree)), jnp.zeros(()))


def train(
    configs: Sequence[Config],
    *,
    data_dir: str | Path | None = None,
    devices: int = 1,
    run: runs.Run | None = None,
    progress: bool | None = None,
) -> list[dict[str, Any]]:
    """Train one network per config; equal static parts are one program.

    Args:
        configs: one per member.
        data_dir: where the data sets lie; digits and the conflict task need none.
        devices: how many devices share the members of a program.
        run: run directory to write to, and to go on from if it holds a checkpoint.
        progress: show a progress bar; None shows it on a terminal only.

    Returns:
        One summary per config: `status`, `steps`, `seconds`, and the accuracy and
        balanced accuracy of each set at the end.

    Raises:
        UsageError: for settings or data that do not fit together.
        FloatingPointError: if a single run becomes non-finite.
    """
    train_group = functools.partial(_train_group, data_dir)
    return groups.train(
        configs, train_group, run=run, devices=devices, progress=progress
    )


def _train_group(
    data_dir: str | Path | None, static: Any, hyper: groups.Hyper, place: groups.Place
) -> list[dict[str, Any]]:
    if place.axis_name is not None:
        # Histories of actions are those of whole batches in order.
        allowed = "1, or several members that are one program, such as seeds"
        raise UsageError("--devices", place.devices, allowed)
    task = prepare(static, data_dir)
    per_epoch = task.batches.per_epoch
    steps = static.updates or static.epochs * per_epoch
    fitted = groups.fit(
        build(static, task),
        hyper,
        place,
        task.train,
        task.batches,
        steps=steps,
        headline=headline,
        log_every=min(per_epoch, steps),
        eval_every=min(static.eval_every * per_epoch, steps),
        checkpoint_every=static.checkpoint_every or min(per_epoch, steps),
        evaluate=task.splits,
        finish=finish,
        label=static.algorithm or static.model,
    )
    return [member.summary for member in fitted]


def headline(records: Sequence[training.Record]) -> dict[str, Any]:
    """Return the figures of a member's summary."""
    ends = ("accuracy", "error")
    names = [f"{s}/{kind}" for s in ("valid", "test") for kind in _HEADLINES]
    for record in reversed(records):
        if any(name.endswith(ends) for name in record):
            return {name: record[name] for name in names if name in record}
    return {}


_HEADLINES = ("accuracy", "balanced_accuracy", "error")


def evaluate(
    path: str | Path, *, data_dir: str | Path | None = None
) -> list[training.Record]:
    """Evaluate the last checkpoint of a run, one record per member.

    Raises:
        UsageError: if the run has no whole checkpoint, or the data set is missing.
    """
    data_dir = data_dir or runs.read_config(path)["options"]["data_dir"]

    def prepared(static: Any) -> tuple[training.Program, Mapping[str, PyTree]]:
        task = prepare(static, data_dir)
        return build(static, task), task.splits

    found = groups.evaluate(path, Config, prepared)
    return [finish(record) for record in found]
