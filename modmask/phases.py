"""The phases of a run: its weights, then its masks; each resumes where it was."""

import functools
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from modmask import masks, names, pictures, tasks, weights
from modmask.config import Config
from modmask.task import Problem, Stage
from modmask.tasks import samplers
from shared import checkpoint, masking, parallel, runs, sweep, training
from shared.config import from_dict, split
from shared.data import batching
from shared.errors import UsageError
from shared.model import Variables


class Place(NamedTuple):
    """Where a run writes to, and on what it computes.

    Attributes:
        run: the run directory; None keeps everything in memory.
        indices: of the run's members, for each config of the group.
        checkpoints: directory of the group's checkpoints.
        devices: how many share the members of a phase, or the batch of a single
            network.
        progress: see `training.fit`.
    """

    run: runs.Run | None = None
    indices: tuple[int, ...] = ()
    checkpoints: Path | None = None
    devices: int = 1
    progress: bool | None = None


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
    program = weights.build(problem.task, static, axis_name=axis_name)
    setting = jax.tree.map(np.asarray, problem.weights.setting)

    begin = functools.partial(_begin, program, setting)
    arrays = _rows(problem.train, problem.weights.rows)
    states = [jax.jit(begin)(split(configs[i])[1]) for i in firsts]
    count = batching.rows(arrays)
    size = min(static.batch_size, count)
    fitted = training.fit(
        program,
        _stacked(states),
        arrays,
        batching.with_replacement(count, size, augment=problem.augment),
        steps=static.steps,
        log_every=min(100, static.steps),
        eval_every=static.eval_every,
        checkpoint_every=static.checkpoint_every or static.eval_every or None,
        evaluate={**problem.valid, "train": _subset(arrays, problem)},
        members=many,
        mesh=mesh_of(place, "member" if many else "data"),
        progress=place.progress,
        label="weights",
        **outputs(
            place,
            "weights",
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


def mesh_of(place: Place, axis: str) -> Mesh | None:
    """Return a mesh of the place's devices, None for a single one."""
    return parallel.mesh(place.devices, axis=axis) if place.devices > 1 else None


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
    told = outputs(
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
        mesh=mesh_of(place, "member"),
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
        runs.write_text(told["checkpoints"] / CLOSED, "")
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


CLOSED = "closed"
"""In the checkpoints of a phase that is over: its records are never cut again."""


def outputs(
    place: Place,
    phase: str,
    offset: int,
    steps: int,
    owners: Sequence[Sequence[int]],
    extra: Callable[[int, int], dict[str, float]],
    prefixes: Sequence[str],
) -> dict[str, Any]:
    """Return checkpoints, log and rewind of a phase.

    Records count updates over all phases. Those of step 0 are left out in later
    phases: they would repeat what the phase before recorded last.
    """
    folder = None if place.checkpoints is None else place.checkpoints / phase
    if place.run is None:
        return {"checkpoints": folder, "log": None, "rewind": None}
    run, clock = place.run, {"step": 0, "time": time.monotonic()}

    def log(step: int, member: int, record: dict[str, Any]) -> None:
        if offset and step == 0:
            return
        named = {**_keys(record), **extra(member, step)}
        if step > clock["step"]:
            now = time.monotonic()
            clock["rate"] = 1000 * (now - clock["time"]) / (step - clock["step"])
            clock.update(step=step, time=now)
        if "rate" in clock:
            named["timing/ms_per_iter"] = round(clock["rate"], 3)
        named = {prefixes[member] + name: value for name, value in named.items()}
        for owner in owners[member]:
            run.log(offset + step, named, place.indices[owner])

    def rewind(step: int) -> None:
        clock.update(step=max(step, 0), time=time.monotonic())
        over = step >= steps or (folder is not None and (folder / CLOSED).exists())
        if not over:
            run.cut(offset + max(step, 0) if offset else step, place.indices)

    return {"checkpoints": folder, "log": log, "rewind": rewind}


def _keys(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record under the keys of the published program."""
    named: dict[str, Any] = {}
    for name, value in record.items():
        head, _, rest = name.partition("/")
        if name in ("step", "epoch", "seconds"):
            continue
        if head == "batch":
            named[f"train/{rest}"] = value
        elif rest:
            named[f"validation/{name}"] = value
        else:
            named[name] = value
    for metric in ("accuracy", "loss"):
        values = [
            v
            for k, v in named.items()
            if k.startswith("validation/") and k.count("/") == 2 and k.endswith(metric)
        ]
        if values:
            named[f"validation/mean_{metric}"] = float(np.mean(values))
    return named


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
    places = runs.members(path) or [path]
    configs = [from_dict(Config, runs.read_config(p)["config"]) for p in places]
    data_dir = data_dir or runs.read_config(path)["options"]["data_dir"]
    groups = sweep.group(configs)
    found: dict[int, Variables] = {}
    for group, folder in zip(groups, folders(path, len(groups)), strict=True):
        own = [configs[i] for i in group.indices]
        problem = tasks.load(own[0], data_dir)
        owners = shared_weights(own)
        firsts = list(dict.fromkeys(owners))
        program = weights.build(problem.task, group.static)
        setting = jax.tree.map(np.asarray, problem.weights.setting)
        begin = functools.partial(_begin, program, setting)
        hypers = [split(own[i])[1] for i in firsts]
        like = lambda: _stacked([begin(hyper) for hyper in hypers])  # noqa: B023
        restored = checkpoint.restore(folder / "weights", jax.eval_shape(like))
        if restored is None:
            raise UsageError("run", str(path), "one with a whole checkpoint of weights")
        states = sweep.unstack(restored[1]) if len(firsts) > 1 else [restored[1]]
        for i, owner in zip(group.indices, owners, strict=True):
            state = states[firsts.index(owner)]
            found[i] = Variables(state.params, state.state)
    return [found[i] for i in sorted(found)]


def _begin(program: training.Program, setting: PyTree, hyper: PyTree) -> Any:
    """Return the state in which weights begin, from a config's traced part."""
    key = jax.random.key(hyper["seed"])
    return program.init(key, {**hyper, "setting": setting})


def _stacked(states: Sequence[training.TrainState]) -> training.TrainState:
    """Give several states a member axis, and leave a single one as it is."""
    return sweep.stack(states) if len(states) > 1 else states[0]


def folders(path: Path, groups: int) -> list[Path]:
    """Return the checkpoint directory of each group of a run's members."""
    checkpoints = path / "checkpoints"
    if groups == 1:
        return [checkpoints]
    return [checkpoints / f"group-{number:02d}" for number in range(groups)]
