"""Training multipath networks: from configs to a run directory."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from multipath.trees import (
    data,
    descriptions,
    files,
    forward,
    learning,
    objectives,
    statistics,
)
from multipath.trees import net as networks
from multipath.trees.config import Config, network
from shared import checkpoint, chunk, parallel, runs, sweep, training
from shared.config import from_dict
from shared.data import batching
from shared.errors import UsageError
from shared.model import Variables

DTYPES = ("float32", "float64")

ONCE = {"xla_backend_optimization_level": 0}
"""Compiler options of a program that runs once, which is not worth optimising."""


def build(
    static: Any, net: networks.Net, *, axis_name: str | None = None
) -> training.Program:
    """Return the program that trains a network.

    Args:
        static: static part of a `Config`.
        net: from `config.network`.
        axis_name: mesh axis over which batches are shared out.
    """
    prices = _prices(net, static)
    update = learning.make_update(net, k_cpts=prices, axis_name=axis_name)

    def update_fn(params, state, batch, key, hyper):
        return update(params, state, _with_targets(net, batch), key, hyper)

    def init(key, hyper):
        variables = networks.init(training.init_key(key), net)
        return training.init_state(*variables, key, hyper, learning.make_optimizer)

    def evaluate(train_state, batch):
        # The schedules of the update that was last made.
        last = jnp.maximum(train_state.step - 1, 0)
        hyper = learning.scheduled({**train_state.hyper, "step": last})
        variables = Variables(train_state.params, train_state.state)
        return assess(net, variables, batch, hyper, prices)

    step = training.make_train_step(
        update_fn, learning.make_optimizer, axis_name=axis_name, timed=True
    )
    return training.Program(init, step, evaluate)


def assess(
    net: networks.Net,
    variables: Variables,
    batch: data.Split,
    hyper: dict[str, Any],
    prices: Sequence[float] = (),
) -> dict[str, Array]:
    """Return the statistics of a batch in evaluation mode.

    Args:
        net: which network.
        variables: its parameters and running statistics.
        batch: images and labels.
        hyper: settings of now.
        prices: of an adaptive network; each gives statistics `k0/...`, `k1/...`.
    """
    images, targets = _with_targets(net, batch)

    def one(price):
        record, _ = forward.apply(
            net,
            *variables,
            images,
            y=targets,
            k_cpt=price,
            alpha_cpt=hyper["alpha_cpt"],
        )
        now = {**hyper, "k_cpt": price}
        reach = objectives.costs(net, record, now).reach
        return statistics.means(net, record, reach, targets)

    if not prices:
        return one(hyper["k_cpt"])
    # What does not depend on the price is computed once for all of them.
    found = jax.vmap(one)(jnp.asarray(prices, images.dtype))
    return {
        f"k{i}/{name}": values[i]
        for i in range(len(prices))
        for name, values in found.items()
    }


def _with_targets(net: networks.Net, batch: data.Split) -> learning.Batch:
    dtype = jnp.result_type(float)
    targets = jax.nn.one_hot(batch.labels, net.classes, dtype=dtype)
    return learning.Batch(batch.images.astype(dtype), targets)


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
        data_dir: where the data sets lie; digits need none.
        devices: how many devices share the members, or the batch of a single one.
        run: run directory to write to, and to go on from if it holds a checkpoint.
        progress: show a progress bar; None shows it on a terminal only.

    Returns:
        One summary per config: `status`, `steps`, `seconds`, and the accuracy and mean
        operation count of each set at the end.

    Raises:
        UsageError: for settings or data that do not fit together.
        FloatingPointError: if a single run becomes non-finite.
    """
    groups = [group.indices for group in sweep.group(configs)]
    folders = _folders(run.checkpoints, len(groups)) if run is not None else None

    def train_group(static, hyper, indices):
        folder = folders and folders[groups.index(indices)]
        return _train_group(
            static, hyper, indices, data_dir, devices, run, folder, progress
        )

    return sweep.run(configs, train_group)


def _train_group(
    static, hyper, indices, data_dir, devices, run, checkpoints, progress
) -> list[dict[str, Any]]:
    started = time.monotonic()
    many = len(indices) > 1
    sets, net = _prepare(static, data_dir)
    mesh = parallel.mesh(devices, axis="member" if many else "data")
    program = build(static, net, axis_name="data" if devices > 1 and not many else None)
    count = batching.rows(sets.train)
    batches = batching.with_replacement(
        count,
        static.batch,
        per_epoch=max(count // static.batch, 1),
        augment=data.augment(sets.mirrored, static.shift),
    )
    fitted = training.fit(
        program,
        _start(program, hyper, many),
        sets.train,
        batches,
        steps=static.n_iter,
        log_every=min(static.t_log, static.n_iter),
        eval_every=min(static.t_log, static.n_iter),
        checkpoint_every=static.checkpoint_every or min(static.t_log, static.n_iter),
        evaluate=_splits(sets, static.eval_rows),
        members=many,
        mesh=mesh if devices > 1 else None,
        checkpoints=checkpoints,
        log=None if run is None else lambda s, m, r: run.log(s, r, indices[m]),
        rewind=None if run is None else lambda s: run.cut(s, indices),
        progress=progress,
        label=f"{static.family} x{len(indices)}" if many else static.family,
    )
    seconds = time.monotonic() - started
    summaries = []
    for m, index in enumerate(indices):
        records = fitted.history[m] if run is None else run.records(index)
        summaries.append(summarise(records, fitted.failed[m], static.n_iter, seconds))
        if run is not None:
            _write_log(run, index, net, records, _prices(net, static))
    return summaries


def _prepare(
    static: Any, data_dir: str | Path | None
) -> tuple[data.TreeData, networks.Net]:
    sets = data.load(static.dataset, data_dir, valid_fraction=static.valid_fraction)
    height, width, channels = sets.train.images.shape[1:]
    return sets, network(static, (height, width, channels), sets.classes)


def _prices(net: networks.Net, static: Any) -> tuple[float, ...]:
    """Return the prices among which an adaptive network's are drawn."""
    return static.k_cpts if net.dyn_k_cpt else ()


def _splits(sets: data.TreeData, rows: int) -> dict[str, data.Split]:
    """Return the sets that have images, or so many of them, evenly spread."""
    found = {}
    for name in ("train", "valid", "test"):
        split = getattr(sets, name)
        count = batching.rows(split)
        if not count:
            continue
        if 0 < rows < count:
            # The sets are sorted by class.
            chosen = np.linspace(0, count, rows, endpoint=False).astype(int)
            split = data.Split(split.images[chosen], split.labels[chosen])
        found[name] = split
    return found


def summarise(
    records: Sequence[training.Record],
    failed: tuple[int, str] | None,
    steps: int,
    seconds: float,
) -> dict[str, Any]:
    """Return the summary of one member from its records."""
    summary: dict[str, Any] = {"status": "done", "steps": steps}
    if failed is not None:
        summary["status"] = f"failed: {failed[1]} non-finite at step {failed[0]}"
    last = next((r for r in reversed(records) if "test/accuracy" in r), {})
    last = last or next((r for r in reversed(records) if "test/k0/accuracy" in r), {})
    for name, value in last.items():
        if name.endswith(("accuracy", "moc")):
            summary[name] = value
    return {**summary, "seconds": round(seconds, 2)}


def _write_log(
    run: runs.Run, index: int, net: networks.Net, records: Sequence, prices: Sequence
) -> None:
    """Write the descriptions of all records as text."""
    title = f"{run.config['experiment']}/{index:04d}"
    texts = []
    for record in records:
        for i in range(len(prices)) if prices else (None,):
            try:
                description = descriptions.from_metrics(net, record, i)
            except UsageError:
                # A record of the losses alone.
                continue
            price = "" if i is None else f", k_cpt {prices[i]:g}"
            name = f"{title} — iteration {record['step']}{price}"
            texts.append(descriptions.render(description, name))
    place = run.members[index] if run.members else run.path
    runs.write_text(place / "log.txt", "\n".join([*texts, ""]))


class Trained(NamedTuple):
    """A network of a run, and what it was trained with.

    Attributes:
        index: of the member.
        static: static part of its config.
        net, variables: the network.
        hyper: its settings at the end.
        sets: its data.
        step: updates made.
    """

    index: int
    static: Any
    net: networks.Net
    variables: Variables
    hyper: dict[str, Any]
    sets: data.TreeData
    step: int


def trained(
    path: str | Path, *, data_dir: str | Path | None = None
) -> Iterator[Trained]:
    """Yield the networks of the last checkpoints of a run, group by group.

    Raises:
        UsageError: if the run has no whole checkpoint, or the data set is missing.
    """
    path = Path(path)
    stored = [runs.read_config(place) for place in runs.members(path) or [path]]
    data_dir = data_dir or stored[0]["options"]["data_dir"]
    groups = sweep.group([from_dict(Config, s["config"]) for s in stored])
    folders = _folders(path / "checkpoints", len(groups))
    for (static, indices, hyper), folder in zip(groups, folders, strict=True):
        sets, net = _prepare(static, data_dir)
        many = len(indices) > 1
        like = jax.eval_shape(_starter(build(static, net), many), hyper)
        restored = checkpoint.restore(folder, like)
        if restored is None:
            raise UsageError("run", str(path), "one with a whole checkpoint")
        step, train_state = restored
        states = sweep.unstack(train_state) if many else [train_state]
        for index, state in zip(indices, states, strict=True):
            last = jnp.maximum(state.step - 1, 0)
            now = learning.scheduled({**state.hyper, "step": last})
            variables = Variables(state.params, state.state)
            yield Trained(index, static, net, variables, now, sets, step)


def evaluate(
    path: str | Path, *, data_dir: str | Path | None = None
) -> list[training.Record]:
    """Evaluate the last checkpoint of a run, one record per member.

    Raises:
        UsageError: if the run has no whole checkpoint, or the data set is missing.
    """
    records = {}
    for one in trained(path, data_dir=data_dir):
        prices = _prices(one.net, one.static)
        found = chunk.make_assess(
            lambda state, batch: assess(one.net, state[0], batch, state[1], prices),  # noqa: B023
            _splits(one.sets, one.static.eval_rows),
            members=False,
            how="auto",
            mesh=None,
        )((one.variables, one.hyper))
        records[one.index] = {"member": one.index, "step": one.step, **found[0]}
    return [records[index] for index in sorted(records)]


def export(
    path: str | Path, directory: str | Path, *, data_dir: str | Path | None = None
) -> list[Path]:
    """Write the networks of a run as files that stand alone, one per member.

    Returns:
        Their paths.

    Raises:
        UsageError: if the run has no whole checkpoint, or the data set is missing.
    """
    written = {}
    for one in trained(path, data_dir=data_dir):
        file = Path(directory) / f"{one.index:04d}"
        settings = {name: float(value) for name, value in one.hyper.items()}
        written[one.index] = files.write(file, one.net, one.variables, settings)
    return [written[index] for index in sorted(written)]


def _folders(checkpoints: Path, groups: int) -> list[Path]:
    """Return the checkpoint directory of each group of members."""
    if groups == 1:
        return [checkpoints]
    return [checkpoints / f"group-{number:02d}" for number in range(groups)]


def _start(program: training.Program, hyper: dict, many: bool) -> training.TrainState:
    return jax.jit(_starter(program, many), compiler_options=ONCE)(hyper)


def _starter(
    program: training.Program, many: bool
) -> Callable[[dict], training.TrainState]:
    """Return what makes the first state of a group from its settings."""

    def start(hyper):
        return program.init(jax.random.key(hyper["seed"]), hyper)

    def start_all(hyper):
        if many:
            return jax.lax.map(start, hyper)
        return start({name: values[0] for name, values in hyper.items()})

    return start_all
