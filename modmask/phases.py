"""The phases of a run: its weights, then its masks; each resumes where it was."""

import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from modmask import journal, masks, names, pictures, tasks, weights
from modmask.config import Config
from modmask.task import Problem, Stage
from modmask.tasks import samplers
from shared import groups, masking, runs, sweep, training
from shared.config import split
from shared.data import batching
from shared.errors import UsageError
from shared.groups import Place
from shared.model import Variables

WEIGHTS = "weights"
"""The phase that trains them, and its folder of checkpoints."""


def train_weights(
    problem: Problem, configs: Sequence[Config], place: Place
) -> list[Variables]:
    """Train one network per config; configs that differ in masks alone share one.

    Raises:
        FloatingPointError: if the training of a network diverges.
    """
    static, _ = split(configs[0])
    owners = shared_weights(configs)
    firsts = list(dict.fromkeys(owners))
    many = len(firsts) > 1
    axis_name = "data" if place.devices > 1 and not many else None
    program = _program(problem, static, axis_name=axis_name)
    arrays = _rows(problem.train, problem.weights.rows)
    count = batching.rows(arrays)
    size = min(static.batch_size, count)
    fitted = training.fit(
        program,
        groups.start(program, _hyper(configs, firsts)),
        arrays,
        batching.with_replacement(count, size, augment=problem.augment),
        steps=static.steps,
        log_every=min(100, static.steps),
        eval_every=static.eval_every,
        checkpoint_every=static.checkpoint_every or static.eval_every or None,
        evaluate={**problem.valid, "train": _subset(arrays, problem)},
        members=many,
        mesh=place.mesh("member" if many else "data"),
        progress=place.progress,
        label="weights",
        **journal.outputs(
            place,
            WEIGHTS,
            0,
            static.steps,
            [[i for i, o in enumerate(owners) if o == first] for first in firsts],
            lambda m, step: {"lr": _rate(configs[firsts[m]], step)},
            [""] * len(firsts),
        ),
    )
    broken = [failure for failure in fitted.failed if failure]
    if broken:
        step, metric = broken[0]
        raise FloatingPointError(f"{metric} became non-finite at step {step}")
    states = sweep.unstack(fitted.train_state) if many else [fitted.train_state]
    found = {
        first: Variables(own.params, own.state)
        for first, own in zip(firsts, states, strict=True)
    }
    return [found[owner] for owner in owners]


def shared_weights(configs: Sequence[Config]) -> list[int]:
    """Return for each config the first one whose weights it shares."""
    known: dict[tuple, int] = {}
    traced = ("lr", "weight_decay", "lr_warmup", "seed")
    return [
        known.setdefault(tuple(getattr(config, name) for name in traced), i)
        for i, config in enumerate(configs)
    ]


def train_stages(
    problem: Problem,
    configs: Sequence[Config],
    networks: Sequence[Variables],
    place: Place,
    stages: Sequence[Stage],
    *,
    phase: str,
    offset: int,
    control: Sequence[PyTree] | None = None,
) -> list[dict[str, PyTree]]:
    """Train the masks of some stages for every config, all together.

    Args:
        problem: task and data.
        configs, networks: one network per config.
        place: where to write to.
        stages: of the problem, or others over its training arrays.
        phase, offset: see `train_masks`.
        control: logits of each network's control mask, from which `keep_last_layer`
            takes those of the output layer, to leave them as they are.

    Returns:
        Logits by the name of the stage, one dict per config.
    """
    members = []
    for i, (config, network) in enumerate(zip(configs, networks, strict=True)):
        begin = starting(network, config, None if control is None else control[i])
        members += [masks.Member(config, network, s, *begin) for s in stages]
    owners = [i for i in range(len(configs)) for _ in stages]
    found = train_masks(problem, members, owners, place, phase=phase, offset=offset)
    count = len(stages)
    return [
        {stage.name: found[i * count + k] for k, stage in enumerate(stages)}
        for i in range(len(configs))
    ]


def starting(
    network: Variables, config: Config, control: PyTree | None = None
) -> tuple[PyTree, PyTree | None]:
    """Return the logits that a mask begins with, and which of them are trained.

    Args:
        network: to be masked.
        config: says which parameters have masks; with `keep_last_layer` that of the
            output layer is the control's, and stays.
        control: logits of the control mask.
    """
    where = names.masked(network.params, config)
    logits = masking.init_logits(network.params, where, config.mask_init)
    if control is None or not config.keep_last_layer:
        return logits, None
    spell = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
    last = jax.tree_util.tree_map_with_path(
        lambda path, _: spell(path).startswith(LAST_LAYER), logits
    )
    choose = lambda is_last, kept, fresh: kept if is_last else fresh
    logits = jax.tree.map(choose, last, control, logits)
    return logits, jax.tree.map(lambda is_last: not is_last, last)


LAST_LAYER = "out_layer"
"""Path of the output layer of the image networks."""


def train_masks(
    problem: Problem,
    members: Sequence[masks.Member],
    owners: Sequence[int],
    place: Place,
    *,
    phase: str,
    offset: int,
) -> list[PyTree]:
    """Train the masks of one phase, and return their logits.

    Args:
        problem: task and data.
        members: the masks, see `masks.train_masks`.
        owners: for each of them, which config of the group it belongs to.
        place: where to write to.
        phase: name of the phase's checkpoints.
        offset: updates made in earlier phases, for the records.

    Raises:
        FloatingPointError: if all masks diverge.
    """
    config = members[0].config

    def extra(m: int, step: int) -> dict[str, float]:
        own = members[m].config
        share = min(1.0, step / own.mask_warmup) if own.mask_warmup else 1.0
        return {"mask_lr": own.mask_lr * share}

    prefixes = [f"analyzer/{member.stage.name}/" for member in members]
    told = journal.outputs(
        place, phase, offset, config.mask_steps, [[o] for o in owners], extra, prefixes
    )
    watch = None
    if getattr(config, "plot_masks", False) and place.run is not None:
        drawn = (place.run, [place.indices[owner] for owner in owners])
        watch = functools.partial(_draw, *drawn, members, offset)
    trained = masks.train_masks(
        problem.task,
        problem.train,
        members,
        valid=problem.valid,
        augment=problem.augment,
        mesh=place.mesh("member"),
        watch=watch,
        log_every=min(100, config.mask_steps),
        progress=place.progress,
        label=phase,
        **told,
    )
    if all(trained.failed):
        step, metric = trained.failed[0] or (0, "a metric")
        raise FloatingPointError(f"{metric} became non-finite at step {step}")
    for member, failure in zip(members, trained.failed, strict=True):
        if failure is not None:
            step, metric = failure
            message = f"mask {member.stage.name}: {metric} became non-finite at step "
            hint = f"{step}; its figures are those of the last evaluation before"
            warnings.warn(message + hint, stacklevel=2)
    if told["checkpoints"] is not None:
        journal.close(told["checkpoints"])
    return trained.logits


def _draw(
    run: runs.Run,
    indices: Sequence[int],
    members: Sequence[masks.Member],
    offset: int,
    step: int,
    train_state: training.TrainState,
) -> None:
    """Draw the masks as they are at a step, and the histograms of their logits."""
    logits = sweep.unstack(jax.device_get(train_state.params))
    stages = list(dict.fromkeys(member.stage.name for member in members))
    for member, index, own in zip(members, indices, logits, strict=True):
        name, named = member.stage.name, names.named(jax.device_get(own))
        number = stages.index(name)
        pictures.show(run, offset + step, name, number, named, index)


def _rate(config: Config, step: int) -> float:
    static, hyper = split(config)
    schedule = weights.make_schedule(static)
    return float(schedule(jnp.int32(max(step - 1, 0)), hyper))


def _rows(arrays: PyTree, rows: np.ndarray | None) -> PyTree:
    if rows is None:
        return arrays
    return jax.tree.map(lambda a: a[rows], arrays)


def _subset(arrays: PyTree, problem: Problem) -> PyTree:
    """Return the training rows to validate on, as many as there are in "iid"."""
    count = batching.rows(arrays)
    limit = batching.rows(problem.valid["iid"]) if "iid" in problem.valid else 1000
    return _rows(arrays, samplers.subset(count, limit))


def restored_weights(
    source: str, problem: Problem, configs: Sequence[Config]
) -> list[Variables]:
    """Return the weights that an earlier run trained, one network per config.

    Args:
        source: run directory of an experiment with the same network.
        problem: whose network the weights are for.
        configs: as many as the run has members, or any number for a run of one.

    Raises:
        UsageError: if the run has none, or those of another architecture.
    """
    found = trained_weights(Path(source))
    if len(found) not in (1, len(configs)):
        allowed = f"a run of one network or of {len(configs)}"
        raise UsageError("restore", f"{source}, with {len(found)} networks", allowed)
    own = jax.eval_shape(problem.task.model.init, jax.random.key(0))
    shapes = lambda tree: [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]
    for variables in found:
        same = jax.tree.structure(variables) == jax.tree.structure(own)
        if not same or shapes(variables) != shapes(own):
            given = f"{source}, trained on another architecture"
            raise UsageError("restore", given, "weights of this network")
    return found * len(configs) if len(found) == 1 else found


def trained_weights(path: Path, data_dir: str | Path | None = None) -> list[Variables]:
    """Read the weights that a run's first phase trained, one network per member.

    Raises:
        UsageError: if the run has no whole checkpoint of them.
    """
    configs = runs.read_configs(path, Config)
    data_dir = data_dir or runs.read_config(path)["options"]["data_dir"]
    found: dict[int, Variables] = {}
    for static, _, indices, checkpoints in groups.stored(path, Config):
        own = [configs[i] for i in indices]
        problem = tasks.load(own[0], data_dir)
        owners = shared_weights(own)
        firsts = list(dict.fromkeys(owners))
        program, hyper = _program(problem, static), _hyper(own, firsts)
        _, states = groups.restore(program, hyper, checkpoints / WEIGHTS)
        for i, owner in zip(indices, owners, strict=True):
            state = states[firsts.index(owner)]
            found[i] = Variables(state.params, state.state)
    return [found[i] for i in sorted(found)]


def _program(problem: Problem, static: Any, **options: Any) -> training.Program:
    """Return the program of a problem's weights, whose states know its setting."""
    program = weights.build(problem.task, static, **options)
    setting = jax.tree.map(np.asarray, problem.weights.setting)
    init = lambda key, hyper: program.init(key, {**hyper, "setting": setting})
    return program._replace(init=init)


def _hyper(configs: Sequence[Config], chosen: Sequence[int]) -> dict[str, Array]:
    """Return the traced parts of some configs, arrays `[chosen]`."""
    return sweep.stack([split(configs[i])[1] for i in chosen])
