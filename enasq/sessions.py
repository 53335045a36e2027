"""Searches and trainings of groups of members, from data to records on disk."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from enasq import (
    accounting,
    candidates,
    cell,
    costs,
    data,
    fixed,
    judging,
    latency,
    log,
    parts,
    retrain,
    search,
    supernet,
)
from enasq.cell import Architecture
from enasq.plan import Network
from enasq.policy import QuantPolicy
from shared import disk, groups, training
from shared.data import batching
from shared.groups import Place

Summary = dict[str, Any]
ACCOUNTED = ("bits", "bit_operations", "macs")
"""Costs that follow from an architecture alone."""


def searching(
    static: Any, sets: data.Sets, folder: Path | None = None
) -> judging.Searching:
    """Return what a search is made of.

    Args:
        static: static part of a config.
        sets: the data.
        folder: of the run, where measured seconds are kept: a resumed search goes on
            with them.

    Raises:
        UsageError: for a budget that no architecture keeps to.
    """
    per_epoch = parts.batches(static, sets).per_epoch
    steps = parts.total_steps(static, per_epoch)
    policy = parts.quant_policy(static)
    shape, classes = sets.info.shape, sets.info.classes
    net = supernet.describe(
        parts.network(static, "search", shape, classes),
        policy,
        parts.behaviour(static, steps),
    )
    final = parts.network(static, "fixed", shape, classes)
    names = (*ACCOUNTED, *(["seconds"] if static.budget_of == "seconds" else []))
    tables = {name: _tables(final, policy, name, folder) for name in names}
    settings = parts.controller_settings(static)
    return judging.Searching(static, net, settings, tables, sets.info, per_epoch, steps)


def _tables(
    network: Network, policy: QuantPolicy, name: str, folder: Path | None
) -> costs.Tables:
    """Return what architectures cost, by a name in `config.COSTS`."""
    if name == "seconds":
        return _seconds(network, policy, folder)
    return costs.tables(network, policy, costs.accounted(network, policy, name))


def _seconds(
    network: Network, policy: QuantPolicy, folder: Path | None
) -> costs.Tables:
    """Return measured seconds: those of the run if it has any."""
    file = None if folder is None else folder / "seconds.json"
    if file is not None and file.exists():
        kept = json.loads(file.read_text())
        return costs.Tables(**{k: np.asarray(v, float) for k, v in kept.items()})
    found = costs.tables(network, policy, latency.measured(network, policy))
    if file is not None:
        lists = {k: np.asarray(v).tolist() for k, v in found._asdict().items()}
        disk.write_text(file, json.dumps(lists))
    return found


def run_search(
    static: Any, hyper: groups.Hyper, place: Place, sets: data.Sets
) -> list[Summary]:
    """Search with every member of a group."""
    own = searching(static, sets, None if place.run is None else place.run.path)
    if place.axis_name is not None:
        own = own._replace(devices=place.devices)
    if static.budget_of != "none":
        tables = own.tables[static.budget_of]
        costs.check_budget(tables, float(np.min(hyper["budget"])))
    batches = search.batches(static, sets)
    every = static.eval_every * own.per_epoch
    rate = hyper["controller_lr"]
    fitted = groups.fit(
        search.build(own, axis_name=place.axis_name),
        hyper,
        place,
        (sets.train, _shared_out(sets.valid, place)),
        batches,
        steps=own.steps,
        headline=functools.partial(_headline, static),
        finish=lambda record: _finished(record, float(rate[0])),
        how="map",
        log_every=static.log_every,
        eval_every=every,
        checkpoint_every=static.checkpoint_every * own.per_epoch,
        evaluate=judging.splits(sets),
        probe=functools.partial(search.probe, own),
        label="search",
    )
    if place.run is not None:
        for index, records, _ in fitted:
            folder = place.run.directory(index)
            text = log.render(records, batch_size=batches.size, counts=sets.info.counts)
            disk.write_text(folder / "log.txt", text)
            cost = "bits" if static.budget_of == "none" else static.budget_of
            candidates.write(folder, candidates.of_records(records), cost)
    return [member.summary for member in fitted]


def _shared_out(split: Any, place: Place) -> Any:
    """Leave out the rows that devices could not share."""
    count = len(split.labels)
    return batching.slice_rows(split, 0, count - count % place.devices)


def _finished(record: training.Record, rate: float) -> training.Record:
    """Return a record as it is kept: architectures are whole numbers."""
    if "arcs" not in record:
        return record
    arcs = np.asarray(record["arcs"]).astype(int).tolist()
    if any(record["controller/entropy"]):
        return {**record, "arcs": arcs, "controller_rate": rate}
    # There was no phase of the controller yet.
    names = ("reward", "entropy", "accuracy", "baseline")
    idle = lambda name: name in names or name.startswith("controller/")
    return {k: v for k, v in record.items() if not idle(k)} | {"arcs": arcs}


def _headline(static: Any, records: Sequence[training.Record]) -> Summary:
    found = candidates.of_records(records)
    last = next((r for r in reversed(records) if "test/accuracy" in r), {})
    best = max(
        (own for own in found if own.step == found[-1].step),
        key=lambda own: own.accuracy,
    )
    return {
        "architecture": best.architecture,
        "best/accuracy": best.accuracy,
        **{k: last[k] for k in ("valid/accuracy", "test/accuracy") if k in last},
    }


def training_of(
    static: Any,
    sets: data.Sets,
    arc: Architecture,
    *,
    name: str | None = None,
    epochs: int | None = None,
) -> retrain.Training:
    """Return what the training of an architecture is made of.

    Args:
        static: static part of a config.
        sets: the data.
        arc: the architecture.
        name: of a policy in place of the config's.
        epochs: in place of the config's.
    """
    per_epoch = parts.batches(static, sets).per_epoch
    steps = parts.total_steps(static, per_epoch)
    if epochs is not None:
        steps = epochs * per_epoch
    net = fixed.describe(
        parts.network(static, "fixed", sets.info.shape, sets.info.classes),
        parts.quant_policy(static, name=name),
        arc,
        parts.behaviour(static, steps),
    )
    return retrain.Training(static, net, sets.info, per_epoch, steps)


def run_fixed(
    static: Any, hyper: groups.Hyper, place: Place, sets: data.Sets
) -> list[Summary]:
    """Train one architecture with every member of a group."""
    arc = parts.architecture(static)
    own = training_of(static, sets, arc)
    fitted = fit_fixed(own, hyper, place, sets, label="train")
    net = own.net
    account = accounting.account(net.plan.network, net.policy, arc)
    if place.run is not None:
        for index, records, _ in fitted:
            folder = place.run.directory(index)
            text = log.render(
                records, batch_size=static.batch_size, counts=sets.info.counts
            )
            text += f"architecture: {cell.render(arc)}\n"
            disk.write_text(folder / "log.txt", text)
            disk.write_text(folder / "accounting.txt", accounting.to_text(account))
            disk.write_text(folder / "accounting.json", accounting.to_json(account))
            disk.write_text(folder / "accounting.csv", accounting.to_csv(account))
    return [member.summary for member in fitted]


def fit_fixed(
    own: retrain.Training,
    hyper: groups.Hyper,
    place: Place,
    sets: data.Sets,
    *,
    label: str,
) -> list[groups.Trained]:
    """Train an architecture, from a checkpoint on if there is one."""
    static = own.static
    return groups.fit(
        retrain.build(own, axis_name=place.axis_name),
        hyper,
        place,
        sets.train,
        parts.batches(static, sets),
        steps=own.steps,
        headline=retrain.headline,
        how="map",
        log_every=static.log_every,
        eval_every=static.eval_every * own.per_epoch,
        checkpoint_every=static.checkpoint_every * own.per_epoch,
        evaluate=retrain.splits(sets),
        label=label,
    )
