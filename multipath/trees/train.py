"""Training multipath networks: from configs to a run directory."""

import functools
from collections.abc import Iterator, Sequence
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
from shared import disk, groups, runs, training
from shared.data import batching
from shared.errors import UsageError
from shared.model import Variables

DTYPES = ("float32", "float64")


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
        variables = Variables(train_state.params, train_state.state)
        return assess(net, variables, batch, _now(train_state), prices)

    step = training.make_train_step(
        update_fn, learning.make_optimizer, axis_name=axis_name, timed=True
    )
    return training.Program(init, step, evaluate)


def _now(train_state: training.TrainState) -> objectives.Hyper:
    """Return the settings of the update that was last made."""
    last = jnp.maximum(train_state.step - 1, 0)
    return learning.scheduled({**train_state.hyper, "step": last})


def assess(
    net: networks.Net,
    variables: Variables,
    batch: data.Split,
    hyper: objectives.Hyper,
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
    train_group = functools.partial(_train_group, data_dir)
    return groups.train(
        configs, train_group, run=run, devices=devices, progress=progress
    )


def _train_group(
    data_dir: str | Path | None, static: Any, hyper: groups.Hyper, place: groups.Place
) -> list[dict[str, Any]]:
    sets, net = _prepare(static, data_dir)
    count = batching.rows(sets.train)
    batches = batching.with_replacement(
        count,
        static.batch,
        per_epoch=max(count // static.batch, 1),
        augment=data.augment(sets.mirrored, static.shift),
    )
    log_every = min(static.t_log, static.n_iter)
    fitted = groups.fit(
        build(static, net, axis_name=place.axis_name),
        hyper,
        place,
        sets.train,
        batches,
        steps=static.n_iter,
        headline=headline,
        log_every=log_every,
        eval_every=log_every,
        checkpoint_every=static.checkpoint_every or log_every,
        evaluate=_splits(sets, static.eval_rows),
        label=static.family,
    )
    if place.run is not None:
        prices = _prices(net, static)
        for index, records, _ in fitted:
            _write_log(place.run, index, net, records, prices)
    return [member.summary for member in fitted]


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
            # Some sets are sorted by class.
            chosen = np.linspace(0, count, rows, endpoint=False).astype(int)
            split = data.Split(split.images[chosen], split.labels[chosen])
        found[name] = split
    return found


def headline(records: Sequence[training.Record]) -> dict[str, float]:
    """Return the last accuracies and operation counts of one member's records."""
    last = next((r for r in reversed(records) if "test/accuracy" in r), {})
    last = last or next((r for r in reversed(records) if "test/k0/accuracy" in r), {})
    return {k: v for k, v in last.items() if k.endswith(("accuracy", "moc"))}


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
    disk.write_text(run.directory(index) / "log.txt", "\n".join([*texts, ""]))


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
    hyper: objectives.Hyper
    sets: data.TreeData
    step: int


def trained(
    path: str | Path, *, data_dir: str | Path | None = None
) -> Iterator[Trained]:
    """Yield the networks of the last checkpoints of a run, group by group.

    Raises:
        UsageError: if the run has no whole checkpoint, or the data set is missing.
    """
    data_dir = data_dir or runs.read_config(path)["options"]["data_dir"]
    for static, hyper, indices, checkpoints in groups.stored(path, Config):
        sets, net = _prepare(static, data_dir)
        step, states = groups.restore(build(static, net), hyper, checkpoints)
        for index, state in zip(indices, states, strict=True):
            variables = Variables(state.params, state.state)
            yield Trained(index, static, net, variables, _now(state), sets, step)


def evaluate(
    path: str | Path, *, data_dir: str | Path | None = None
) -> list[training.Record]:
    """Evaluate the last checkpoint of a run, one record per member.

    Raises:
        UsageError: if the run has no whole checkpoint, or the data set is missing.
    """
    data_dir = data_dir or runs.read_config(path)["options"]["data_dir"]

    def prepare(static):
        sets, net = _prepare(static, data_dir)
        return build(static, net), _splits(sets, static.eval_rows)

    return groups.evaluate(path, Config, prepare)


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
