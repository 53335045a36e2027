"""Training invertible networks: from configs to a run directory."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gaitprop import diagnostics, networks, rules, upstream
from gaitprop.config import Config
from gaitprop.optimizer import make_optimizer
from shared import checkpoint, data, groups, runs, training
from shared.data import batching
from shared.errors import UsageError

DTYPES = ("float32", "float64")
"""Types of numbers that the solvers of linear systems take."""

REMEDY = "Try --ortho-weight, a smaller --learning-rate, or --algorithm bp."

RECORDED = ("train/accuracy", "train/mse", "test/accuracy", "test/mse")
"""What goes into the series files of the published program, in their order."""

ACCURACIES = ("train/accuracy", "valid/accuracy", "test/accuracy")


def inputs(images: Array, scale: int) -> Float[Array, "batch pixels"]:
    """Flatten images `[batch, h, w, 1]` row by row and scale them to [0, 1]."""
    flat = images.reshape(images.shape[0], -1)
    return flat.astype(jnp.result_type(float)) / scale


def build(
    static: Any, *, scale: int = 255, axis_name: str | None = None
) -> training.Program:
    """Return the program that trains the network of a config.

    Args:
        static: static part of a `Config`.
        scale: largest value of a pixel.
        axis_name: mesh axis over which batches are shared out.
    """
    optimizer = make_optimizer(static.optimizer)
    update = rules.make_update(static)

    def update_fn(params, state, batch, key, hyper):
        x = inputs(batch.images, scale)
        return update(params, state, (x, batch.labels), key, hyper)

    def init(key, hyper):
        network_key, rule_key = jax.random.split(training.init_key(key))
        params = networks.init(network_key, static)
        state = rules.init_rule_state(rule_key, params, static, hyper)
        return training.init_state(params, state, key, hyper, optimizer)

    def evaluate(train_state, batch):
        x = inputs(batch.images, scale)
        output = networks.forward(train_state.params, x, static)[-1]
        return diagnostics.metrics(output, batch.labels, static.classes)

    step = training.make_train_step(update_fn, optimizer, axis_name=axis_name)
    return training.Program(init, step, evaluate)


def make_probe(
    static: Any, batch: data.Split, scale: int
) -> Callable[[training.TrainState], dict[str, Array]]:
    """Return `train_state -> {"layerN/statistic": value}`, on one fixed batch.

    The statistics are the angle of the update to that of BP in degrees, how far the
    kernel is from orthogonal, and for rules that nudge activities the share of units
    that change sign.
    """

    def probe(train_state: training.TrainState) -> dict[str, Array]:
        columns = diagnostics.orthogonality(train_state.params)
        own, bp, info = _updates(static, batch, scale, train_state)
        columns["angle"] = diagnostics.angles(own, bp)
        if "sign_changes" in info:
            columns["sign_changes"] = info["sign_changes"]
        return {
            f"layer{i + 1}/{name}": values[i]
            for name, values in columns.items()
            for i in range(len(train_state.params))
        }

    return probe


def _updates(
    static: Any, batch: data.Split, scale: int, train_state: training.TrainState
) -> tuple[networks.Params, networks.Params, dict[str, Array]]:
    """Return the rule's and BP's gradients, unregularised, and the rule's figures."""
    params, rule_state, hyper = train_state[0], train_state[1], train_state.hyper
    activities = networks.forward(params, inputs(batch.images, scale), static)
    target = networks.output_target(activities[-1], batch.labels, static)

    def gradients(rule):
        errors, _, info = rule(params, rule_state, activities, target, hyper, static)
        return rules.data_gradients(params, errors, activities, static), info

    own, info = gradients(rules.RULES[static.algorithm])
    return own, gradients(rules.bp)[0], info


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
        data_dir: where the data sets lie; `digits` needs none.
        devices: how many devices share the members, or the batch of a single one.
        run: run directory to write to, and to go on from if it holds a checkpoint.
        progress: show a progress bar; None shows it on a terminal only.

    Returns:
        One summary per config: `status`, `steps`, `seconds`, and peak and final
        accuracies.

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
    dataset = _load(static, data_dir)
    scale = dataset.info.scale
    program = build(static, scale=scale, axis_name=place.axis_name)
    batches = batching.epochs(
        batching.rows(dataset.train), static.batch_size, shuffle=static.shuffle
    )
    first = batching.slice_rows(dataset.train, 0, static.batch_size)
    try:
        fitted = groups.fit(
            program,
            hyper,
            place,
            dataset.train,
            batches,
            steps=static.steps or static.epochs * batches.per_epoch,
            headline=headline,
            log_every=min(100, batches.per_epoch),
            eval_every=static.eval_every or None,
            checkpoint_every=static.checkpoint_every or None,
            evaluate=_splits(dataset, static.eval_train_rows),
            probe=make_probe(static, first, scale) if static.diagnose else None,
            label=static.algorithm,
        )
    except FloatingPointError as error:
        last = start = groups.start(program, hyper)
        if place.checkpoints is not None:
            _, last = checkpoint.restore(place.checkpoints, start) or (0, start)
        cause = diagnostics.find_singular(last.params)
        cause = cause or "no kernel was singular before"
        raise FloatingPointError(f"{error}; {cause}. {REMEDY}") from error
    return [member.summary for member in fitted]


def _load(static: Any, data_dir: str | Path | None) -> data.Dataset:
    """Load the data set of a config, and check that they fit together."""
    dataset = data.load(static.dataset, data_dir, valid_size=static.valid_size)
    height, width, channels = dataset.info.shape
    pixels = height * width * channels
    if static.widths[0] != pixels:
        allowed = f"{pixels} first, the pixels of {static.dataset}"
        raise UsageError("widths", static.widths, allowed)
    if static.classes < dataset.info.classes:
        allowed = f"at least the {dataset.info.classes} of {static.dataset}"
        raise UsageError("classes", static.classes, allowed)
    return dataset


def _splits(dataset: data.Dataset, rows: int) -> dict[str, data.Split]:
    count = batching.rows(dataset.train)
    train = batching.slice_rows(dataset.train, 0, min(rows or count, count))
    splits = {"train": train, "valid": dataset.valid, "test": dataset.test}
    return {name: split for name, split in splits.items() if batching.rows(split)}


def headline(records: Sequence[training.Record]) -> dict[str, float]:
    """Return the peak and final accuracies of one member from its records."""
    found = {}
    for name in ACCURACIES:
        series = [record[name] for record in records if name in record]
        if series:
            peak, final = diagnostics.peak_final(series)
            found |= {f"{name}/peak": peak, f"{name}/final": final}
    return found


def evaluate(
    path: str | Path, *, data_dir: str | Path | None = None
) -> list[training.Record]:
    """Evaluate the last checkpoint of a run, one record per member.

    Raises:
        UsageError: if the run has no whole checkpoint, or the data set is missing.
    """
    data_dir = data_dir or runs.read_config(path)["options"]["data_dir"]

    def prepare(static):
        dataset = _load(static, data_dir)
        splits = _splits(dataset, static.eval_train_rows)
        return build(static, scale=dataset.info.scale), splits

    return groups.evaluate(path, Config, prepare)


class Updates(NamedTuple):
    """Kernel updates of one trained network on its first batch.

    Attributes:
        rule: the rule it was trained by.
        own, bp: that rule's and BP's updates, one array per layer, without the
            regulariser.
    """

    rule: str
    own: list[np.ndarray]
    bp: list[np.ndarray]


def updates(path: str | Path, *, data_dir: str | Path | None = None) -> list[Updates]:
    """Compare rule and BP at the last checkpoint of a run, for each group's first.

    Raises:
        UsageError: if the run has no whole checkpoint, or the data set is missing.
    """
    found = []
    for static, _, dataset, (first, *_) in _restored(path, data_dir):
        batch = batching.slice_rows(dataset.train, 0, static.batch_size)
        pair = jax.jit(functools.partial(_updates, static, batch, dataset.info.scale))(
            first
        )
        own, bp = ([np.asarray(g["kernel"]) for g in grads] for grads in pair[:2])
        found.append(Updates(static.algorithm, own, bp))
    return found


def export(
    path: str | Path, directory: str | Path, *, data_dir: str | Path | None = None
) -> list[Path]:
    """Write the members of a run in the file layout of the published program.

    Its loss files get the squared error summed over classes, which is what the
    networks minimise; the numbers that the published program wrote there are not.

    Returns:
        The folders, one per member.

    Raises:
        UsageError: if the run is not whole, or the layout cannot hold it.
    """
    path = Path(path)
    places = runs.members(path) or [path]
    configs = runs.read_configs(path, Config)
    folders = {}
    for _, indices, _, states in _restored(path, data_dir):
        for index, state in zip(indices, states, strict=True):
            records = runs.read_metrics(places[index])
            series = {
                name: [r[metric] for r in records if metric in r]
                for name, metric in zip(upstream.SERIES, RECORDED, strict=True)
            }
            settings = upstream.settings_of(configs[index])
            folders[index] = upstream.export(directory, settings, state.params, series)
    return [folders[index] for index in sorted(folders)]


def _restored(path: str | Path, data_dir: str | Path | None) -> Iterator[tuple]:
    """Yield `(static, indices, dataset, states)` for each group of a run."""
    data_dir = data_dir or runs.read_config(path)["options"]["data_dir"]
    for static, hyper, indices, checkpoints in groups.stored(path, Config):
        dataset = _load(static, data_dir)
        program = build(static, scale=dataset.info.scale)
        _, states = groups.restore(program, hyper, checkpoints)
        yield static, indices, dataset, states
