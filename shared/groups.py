"""Groups of a run: members with equal static parts, trained and read as one program.

A system's `train` hands its configs to `train` here, which calls it back once for each
group with the group's static part, its traced values and its `Place`; `fit` trains the
group there. `restore` and `evaluate` read what a run directory holds.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from shared import checkpoint, chunk, parallel, runs, sweep, training
from shared.data import batching
from shared.errors import UsageError

Hyper = Mapping[str, Array]
Summary = dict[str, Any]

ONCE = {"xla_backend_optimization_level": 0}
"""Compiler options of a program that runs once, which is not worth optimising."""


class Place(NamedTuple):
    """Where a group of members writes to, and on what it computes.

    Attributes:
        run: the run directory; None keeps everything in memory.
        indices: which of the run's members the group holds.
        checkpoints: the group's directory for them; None saves nothing.
        devices: how many share the members, or the batch of a single one.
        progress: see `training.fit`.
    """

    run: runs.Run | None = None
    indices: tuple[int, ...] = (0,)
    checkpoints: Path | None = None
    devices: int = 1
    progress: bool | None = None

    @property
    def axis_name(self) -> str | None:
        """The mesh axis over which devices share the batch of a single member."""
        return "data" if self.devices > 1 and len(self.indices) == 1 else None

    def mesh(self, axis: str) -> Mesh | None:
        """Return a mesh of the devices, None for a single one."""
        found = parallel.mesh(self.devices, axis=axis)
        return found if found.size > 1 else None


def train(
    configs: Sequence[Any],
    train_group: Callable[[Any, dict[str, Array], Place], Sequence[Summary]],
    *,
    run: runs.Run | None = None,
    devices: int = 1,
    progress: bool | None = None,
) -> list[Summary]:
    """Train many configs, those with equal static parts in one program.

    Args:
        configs: one frozen dataclass for each member.
        train_group: `(static, hyper, place) -> summaries`, one for each member of the
            group; `hyper` holds arrays `[members]`.
        run: run directory to write to, and to go on from if it holds a checkpoint.
        devices: how many share the members of a group, or the batch of a single one.
        progress: show a progress bar; None shows it on a terminal only.

    Returns:
        The summaries in the order of `configs`, with the `seconds` of the group.
    """
    summaries: dict[int, Summary] = {}
    found = sweep.group(configs)
    none = [None] * len(found)
    folders = none if run is None else _folders(run.checkpoints, len(found))
    for (static, indices, hyper), folder in zip(found, folders, strict=True):
        started = time.monotonic()
        place = Place(run, indices, folder, devices, progress)
        own = train_group(static, hyper, place)
        seconds = round(time.monotonic() - started, 2)
        for index, summary in zip(indices, own, strict=True):
            summaries[index] = {**summary, "seconds": seconds}
    return [summaries[index] for index in sorted(summaries)]


def _folders(checkpoints: Path, count: int) -> list[Path]:
    """Return the directory of each group; a single one has the whole."""
    if count == 1:
        return [checkpoints]
    return [checkpoints / f"group-{number:02d}" for number in range(count)]


def start(program: training.Program, hyper: Hyper) -> training.TrainState:
    """Return the state in which a group begins, a member axis in front if it has many.

    Args:
        program: from a system's `build`.
        hyper: traced values, arrays `[members]`; the key of a member is its `seed`.
    """
    return jax.jit(_starter(program), compiler_options=ONCE)(hyper)


def _starter(program: training.Program) -> Callable[[Hyper], training.TrainState]:
    def one(hyper):
        return program.init(jax.random.key(hyper["seed"]), hyper)

    def start(hyper):
        if len(hyper["seed"]) > 1:
            return jax.lax.map(one, hyper)
        return one({name: values[0] for name, values in hyper.items()})

    return start


class Trained(NamedTuple):
    """One member of a group that was trained.

    Attributes:
        index: among all members of the run.
        records: all of them, those before an interruption too.
        summary: `status`, `steps`, and its headline.
    """

    index: int
    records: list[training.Record]
    summary: Summary


def fit(
    program: training.Program,
    hyper: Hyper,
    place: Place,
    train: PyTree,
    batches: batching.Batches,
    *,
    steps: int,
    headline: Callable[[list[training.Record]], Summary],
    finish: Callable[[training.Record], training.Record] = lambda record: record,
    label: str = "",
    **options: Any,
) -> list[Trained]:
    """Train the members of a group, from their checkpoint on if there is one.

    Args:
        program: built for `place.axis_name`.
        hyper: traced values, arrays `[members]`.
        place: where to write to.
        train, batches, steps: see `training.fit`.
        headline: `records -> figures` of one member, which go into its summary.
        finish: makes of each record what is kept of it, ratios of means, say.
        label: stands before the progress bar.
        options: further arguments of `training.fit`.

    Raises:
        UsageError: as `training.fit`.
        FloatingPointError: if a single member becomes non-finite.
    """
    run, indices = place.run, place.indices
    many = len(indices) > 1
    fitted = training.fit(
        program,
        start(program, hyper),
        train,
        batches,
        steps=steps,
        members=many,
        mesh=place.mesh("member" if many else "data"),
        checkpoints=place.checkpoints,
        log=None if run is None else lambda s, m, r: run.log(s, finish(r), indices[m]),
        rewind=None if run is None else lambda s: run.cut(s, indices),
        progress=place.progress,
        label=f"{label} x{len(indices)}" if many else label,
        **options,
    )
    found = []
    for m, index in enumerate(indices):
        kept = [finish(record) for record in fitted.history[m]]
        records = kept if run is None else run.records(index)
        summary = {"status": _status(fitted.failed[m]), "steps": steps}
        found.append(Trained(index, records, {**summary, **headline(records)}))
    return found


def _status(failed: chunk.Failure | None) -> str:
    if failed is None:
        return "done"
    step, metric = failed
    return f"failed: {metric} non-finite at step {step}"


class Stored(NamedTuple):
    """A group of a run directory.

    Attributes:
        static: the static part of its configs.
        hyper: their traced values, arrays `[members]`.
        indices: which of the run's members the group holds.
        checkpoints: its directory for them.
    """

    static: Any
    hyper: dict[str, Array]
    indices: tuple[int, ...]
    checkpoints: Path


def stored(path: str | Path, config_type: type) -> list[Stored]:
    """Return the groups of a run directory, whose configs are of some dataclass."""
    found = sweep.group(runs.read_configs(path, config_type))
    folders = _folders(Path(path) / "checkpoints", len(found))
    return [
        Stored(static, hyper, indices, folder)
        for (static, indices, hyper), folder in zip(found, folders, strict=True)
    ]


def restore(
    program: training.Program, hyper: Hyper, checkpoints: Path
) -> tuple[int, list[training.TrainState]]:
    """Return the step of a group's last whole checkpoint, and the state of each member.

    Args:
        program, hyper: as in training.
        checkpoints: the group's directory.

    Raises:
        UsageError: if there is no whole checkpoint, or that of another program.
    """
    restored = checkpoint.restore(checkpoints, jax.eval_shape(_starter(program), hyper))
    if restored is None:
        raise UsageError("run", str(checkpoints), "one with a whole checkpoint")
    step, train_state = restored
    many = len(hyper["seed"]) > 1
    return step, sweep.unstack(train_state) if many else [train_state]


def evaluate(
    path: str | Path,
    config_type: type,
    prepare: Callable[[Any], tuple[training.Program, Mapping[str, PyTree]]],
) -> list[training.Record]:
    """Evaluate the last checkpoint of a run, one record per member.

    Args:
        path: the run directory.
        config_type: dataclass of its configs.
        prepare: `static -> (program, splits)`, arrays to evaluate on by name.

    Raises:
        UsageError: if a group has no whole checkpoint.
    """
    records: dict[int, training.Record] = {}
    for static, hyper, indices, checkpoints in stored(path, config_type):
        program, splits = prepare(static)
        step, states = restore(program, hyper, checkpoints)
        assess = chunk.make_assess(
            program.evaluate, splits, members=False, how="auto", mesh=None
        )
        for index, state in zip(indices, states, strict=True):
            records[index] = {"member": index, "step": step, **assess(state)[0]}
    return [records[index] for index in sorted(records)]
