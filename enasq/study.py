"""A search and what makes its result worth believing.

The best architecture of a search is trained anew with several seeds, beside random ones
of equal cost and the same cells in full precision. The report says how the ranking
under shared weights agrees with that after training, and compares the packed file with
that of the full-precision network.

References: Li and Talwalkar (2020), for random search as a baseline; Yu et al. (2020),
for rankings under shared weights.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from enasq import (
    accounting,
    candidates,
    cell,
    costs,
    data,
    judging,
    packed,
    pareto,
    retrain,
    search,
    sessions,
)
from enasq.cell import Architecture
from enasq.records import records
from shared import disk, groups, runs, training
from shared.data import Split
from shared.errors import UsageError
from shared.groups import Place
from shared.model import Variables

TOLERANCE = 0.05
"""Part of the best architecture's cost by which random ones may differ."""


class Site(NamedTuple):
    """Where a study of one member is written.

    Attributes:
        run: the run directory.
        index: of the member.
        checkpoints: a folder for the search and one for each entry.
        devices, progress: see `groups.Place`.
    """

    run: runs.Run
    index: int
    checkpoints: Path
    devices: int
    progress: bool | None

    @property
    def folder(self) -> Path:
        """The member's directory."""
        return self.run.directory(self.index)


class Entry(NamedTuple):
    """A network of a study.

    Attributes:
        name: searched, float, or random-0 and so on.
        arc: its architecture.
        policy: a name in place of the config's.
        seeds: trainings.
    """

    name: str
    arc: Architecture
    policy: str | None
    seeds: int


def run(
    static: Any, hyper: groups.Hyper, place: Place, sets: data.Sets
) -> list[sessions.Summary]:
    """Make a study with every member of a group.

    Raises:
        UsageError: without a run directory to write to.
    """
    if place.run is None or place.checkpoints is None:
        raise UsageError("run", None, "a run directory, in which files are exported")
    found = []
    for number, index in enumerate(place.indices):
        own = {name: values[number : number + 1] for name, values in hyper.items()}
        checkpoints = place.checkpoints / f"member-{index:04d}"
        site = Site(place.run, index, checkpoints, place.devices, place.progress)
        found.append(_study(static, own, site, sets))
    return found


def _study(
    static: Any, hyper: groups.Hyper, site: Site, sets: data.Sets
) -> sessions.Summary:
    checkpoints = site.checkpoints / "search"
    place = Place(site.run, (site.index,), checkpoints, site.devices, site.progress)
    (summary,) = sessions.run_search(static, hyper, place, sets)
    own = sessions.searching(static, sets, site.run.path)
    entries = _entries(static, hyper, own, _chosen(static, hyper, site))
    shared = _shared_accuracies(own, hyper, checkpoints, entries, sets)
    found = []
    for entry in entries:
        file = site.folder / "entries" / f"{entry.name}.json"
        if not file.exists():
            trained = _train(static, hyper, site, sets, entry)
            file.parent.mkdir(exist_ok=True)
            disk.write_text(file, json.dumps(trained, indent=1))
        found.append(json.loads(file.read_text()) | shared.get(entry.name, {}))
    report = {"entries": found, "kendall_tau": _agreement(found)}
    disk.write_text(site.folder / "report.json", json.dumps(report, indent=1))
    disk.write_text(site.folder / "report.md", render(report))
    return summary | headline(report)


def _chosen(static: Any, hyper: groups.Hyper, site: Site) -> candidates.Candidate:
    """Return the best candidate within the budget."""
    found = candidates.of_records(site.run.records(site.index))
    budget = float(hyper["budget"][0])
    return candidates.best(found, cost=static.budget_of, budget=budget)


def _entries(
    static: Any,
    hyper: groups.Hyper,
    own: judging.Searching,
    chosen: candidates.Candidate,
) -> list[Entry]:
    ops = 5 * max(len(static.choices), 1)
    best = cell.parse(chosen.architecture, ops=ops)
    entries = [
        Entry("searched", best, None, static.study_seeds),
        Entry("float", cell.plain(best), "float", static.study_seeds),
    ]
    if not static.random_cells:
        return entries
    cost = "bits" if static.budget_of == "none" else static.budget_of
    key = jax.random.fold_in(jax.random.key(hyper["seed"][0]), 3)
    arcs = pareto.matched(
        key,
        own.tables[cost],
        chosen.costs[cost],
        TOLERANCE,
        static.random_cells,
        best.shape[1],
    )
    if len(arcs) < static.random_cells:
        warnings.warn(
            f"{len(arcs)} of {static.random_cells} random architectures within "
            f"{TOLERANCE:.0%} of the {cost} of the searched one",
            stacklevel=1,
        )
    randoms = [Entry(f"random-{i}", arc, None, 1) for i, arc in enumerate(arcs)]
    return entries + randoms


def _shared_accuracies(
    own: judging.Searching,
    hyper: groups.Hyper,
    checkpoints: Path,
    entries: list[Entry],
    sets: data.Sets,
) -> dict[str, dict[str, float]]:
    """Judge the architectures with the weights that the search has left."""
    _, (state,) = groups.restore(search.build(own), hyper, checkpoints)
    ranked = [entry for entry in entries if entry.policy is None]
    arcs = jnp.stack([jnp.asarray(entry.arc) for entry in ranked])

    @jax.jit
    def judge(params: Any, arcs: Any, valid: Split) -> Any:
        place = valid, sets.info.norms.valid
        return judging.accuracies(own, Variables(params, {}), arcs, *place)

    found = judge(state.params, arcs, sets.valid)
    return {
        entry.name: {"shared_accuracy": float(value)}
        for entry, value in zip(ranked, found, strict=True)
    }


def _train(
    static: Any, hyper: groups.Hyper, site: Site, sets: data.Sets, entry: Entry
) -> dict[str, Any]:
    """Train an entry and return what the report says about it."""
    own = sessions.training_of(
        static, sets, entry.arc, name=entry.policy, epochs=static.study_epochs
    )
    checkpoints = site.checkpoints / entry.name
    many = _with_seeds(hyper, entry.seeds)
    place = Place(
        None, tuple(range(entry.seeds)), checkpoints, site.devices, site.progress
    )
    sessions.fit_fixed(own, many, place, sets, label=entry.name)
    program = retrain.build(own)
    _, states = groups.restore(program, many, checkpoints)
    splits = retrain.splits(sets)
    evaluate = jax.jit(program.evaluate)
    accuracies = {
        f"{name}_accuracy": [float(evaluate(s, split)["accuracy"]) for s in states]
        for name, split in splits.items()
    }
    best = int(np.argmax(accuracies["valid_accuracy"]))
    return {
        "name": entry.name,
        "architecture": cell.render(entry.arc),
        "policy": entry.policy or static.policy,
        "seeds": entry.seeds,
        **accuracies,
        "shared_accuracy": None,
        **_costs(own),
        **_exported(own, entry, states[best], site.folder, sets),
    }


def _exported(
    own: retrain.Training,
    entry: Entry,
    state: training.TrainState,
    folder: Path,
    sets: data.Sets,
) -> dict[str, Any]:
    """Write the files that the report compares; random architectures have none."""
    if entry.name.startswith("random"):
        return {"file_bytes": None}
    variables = Variables(state.params, state.state)
    path = folder / f"{entry.name}{packed.SUFFIX}"
    return packed.write(own, variables, path, sets)


def _with_seeds(hyper: groups.Hyper, count: int) -> dict[str, Any]:
    """Return a member's values once for each of some consecutive seeds."""
    many = {name: jnp.repeat(values, count) for name, values in hyper.items()}
    return many | {"seed": many["seed"] + jnp.arange(count, dtype=jnp.int32)}


def _costs(own: retrain.Training) -> dict[str, int]:
    """Return what the network of an entry costs by account."""
    sums = accounting.totals(records(own.net.plan.network, own.net.policy, own.net.arc))
    return {name: getattr(sums, field) for name, field in costs.MEASURES.items()}


def _agreement(found: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Compare the ranking under shared weights with that after training."""
    ranked = [own for own in found if own["shared_accuracy"] is not None]
    if len(ranked) < 2:
        return None
    shared = np.asarray([own["shared_accuracy"] for own in ranked])
    trained = np.asarray([np.mean(own["valid_accuracy"]) for own in ranked])
    agreement = pareto.agreement(shared, trained)
    # Equal accuracies rank nothing.
    return agreement._asdict() if np.isfinite(agreement.tau) else None


def headline(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the few figures of a study that its summary shows."""
    by_name = {own["name"]: own for own in report["entries"]}
    mean = lambda name: float(np.mean(by_name[name]["test_accuracy"]))
    found = {"searched/accuracy": mean("searched"), "float/accuracy": mean("float")}
    randoms = [mean(name) for name in by_name if name.startswith("random")]
    if randoms:
        found["random/median_accuracy"] = float(np.median(randoms))
    sizes = [by_name[name]["file_bytes"] for name in ("searched", "float")]
    found["file_ratio"] = sizes[1] / sizes[0]
    if report["kendall_tau"]:
        found["kendall_tau"] = report["kendall_tau"]["tau"]
    return found


def render(report: Mapping[str, Any]) -> str:
    """Return a report as a table in Markdown."""
    lines = [
        "| network | policy | test accuracy | deviation | shared weights | "
        "kilobits | bit operations | file bytes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for own in report["entries"]:
        accuracy = np.asarray(own["test_accuracy"])
        shared, size = own["shared_accuracy"], own["file_bytes"]
        cells = (
            own["name"],
            own["policy"],
            f"{100 * accuracy.mean():.2f} %",
            f"{100 * accuracy.std():.2f}" if len(accuracy) > 1 else "",
            "" if shared is None else f"{100 * shared:.2f} %",
            f"{own['bits'] / 1000:,.1f}",
            f"{own['bit_operations']:,}",
            "" if size is None else f"{size:,}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    if report["kendall_tau"]:
        tau, p, count = (report["kendall_tau"][k] for k in ("tau", "p", "count"))
        lines += [
            "",
            f"Kendall's tau between shared weights and training: {tau:.2f} "
            f"(p = {p:.2f}, {count} architectures).",
        ]
    for own in report["entries"]:
        if own["file_bytes"]:
            lines += ["", f"{packed.words(own)}."]
    return "\n".join([*lines, ""])
