"""What runs have written, as the plain data that figures show."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from enasq import cell as cells
from enasq.cell import Architecture
from enasq.figures import fronts
from enasq.figures.curves import Curve, Entropy
from enasq.figures.fronts import Entry, Found, Ranking
from enasq.figures.maps import Sampled
from shared import disk, runs, trained
from shared.errors import UsageError
from shared.plotting import NothingToDraw

POINTS = 200
"""Most points of a curve; further ones are averaged with their neighbours."""

# What says nothing about the result.
NOT_IN_LABELS = (
    "seed data_dir eval_every eval_batch checkpoint_every log_every epochs steps"
).split()

Members = Sequence[trained.Trained]
Curves = dict[str, dict[str, Curve]]


class Best(NamedTuple):
    """An architecture, and the names of the quantisers that its operations choose."""

    arc: Architecture
    choices: tuple[str, ...]


def by_label(members: Members) -> dict[str, list[trained.Trained]]:
    """Group networks that differ in their seed only, under what tells them apart."""
    if not members:
        return {}
    settings = [{"experiment": m.experiment, **m.config} for m in members]
    fields = trained.telling_fields(
        settings, first=("experiment", "policy"), ignore=NOT_IN_LABELS
    )
    groups: dict[str, list[trained.Trained]] = {}
    for member, own in zip(members, settings, strict=True):
        label = ", ".join(_named(field, own.get(field)) for field in fields)
        groups.setdefault(label or member.experiment, []).append(member)
    return groups


def _named(field: str, value: Any) -> str:
    if field in ("experiment", "policy", "dataset"):
        return str(value)
    if isinstance(value, list | tuple):
        value = " ".join(map(str, value)) or "none"
    return f"{field} {value:g}" if isinstance(value, float) else f"{field} {value}"


def _having(paths: Sequence[Path], name: str, what: str) -> Members:
    found = [m for m in trained.read(paths) if any(name in r for r in m.records)]
    if not found:
        raise NothingToDraw(f"no record of {what}")
    return found


def curve(
    members: Members, name: str, reduce: Callable[[Any], Any] | None = None
) -> Curve | None:
    """Return a metric over epochs, mean and deviation over seeds; None without any.

    Args:
        members: repetitions.
        name: of the metric.
        reduce: makes one number of a list; without it a list holds values one after
            the other since the record before.
    """
    columns: dict[float, list[float]] = {}
    for member in members:
        for x, y in _points(member.records, name, reduce):
            columns.setdefault(x, []).append(y)
    if not columns:
        return None
    x = sorted(columns)
    mean = np.array([np.mean(columns[at]) for at in x])
    spread = np.array([np.std(columns[at]) for at in x]) if len(members) > 1 else None
    return Curve(np.array(x, float), mean, spread)


def _points(
    records: Sequence[dict[str, Any]], name: str, reduce: Callable[[Any], Any] | None
) -> list[tuple[float, float]]:
    columns: dict[float, list[float]] = {}
    before = 0.0
    for record in (r for r in records if name in r):
        value, epoch = record[name], float(record["epoch"])
        values = [disk.number(v) for v in value] if isinstance(value, list) else [value]
        if reduce is not None:
            values = [float(reduce(values))]
        for place, one in enumerate(values, 1):
            x = before + (epoch - before) * place / len(values)
            columns.setdefault(x, []).append(one)
        before = epoch
    points = np.array([(x, np.mean(y)) for x, y in sorted(columns.items())])
    if len(points) > POINTS:
        points = np.array([p.mean(0) for p in np.array_split(points, POINTS)])
    return [(float(x), float(y)) for x, y in points]


def _curves(members: Members, wanted: dict[str, tuple[str, Any]]) -> Curves:
    found: Curves = {}
    for label, group in by_label(members).items():
        own = {k: curve(group, name, how) for k, (name, how) in wanted.items()}
        found[label] = {k: v for k, v in own.items() if v is not None}
    return found


def searches(paths: Sequence[Path]) -> Curves:
    """Return how searches went."""
    wanted = {
        "reward": ("reward", np.mean),
        "baseline": ("baseline", np.mean),
        "mean": ("valid/accuracies", np.mean),
        "best": ("valid/accuracies", np.max),
    }
    members = _having(paths, "valid/accuracies", "candidates of a search")
    return _curves(members, wanted)


def trainings(paths: Sequence[Path]) -> Curves:
    """Return how networks were trained."""
    wanted = {
        "loss": ("batch/loss", np.mean),
        "train": ("batch/accuracy", np.mean),
        "valid": ("valid/accuracy", np.mean),
        "test": ("test/accuracy", np.mean),
        "rate": ("batch/rate", np.mean),
    }
    return _curves(_having(paths, "batch/loss", "the loss of batches"), wanted)


def entropies(paths: Sequence[Path]) -> dict[str, Entropy]:
    """Return the entropies of controllers."""
    members = _having(paths, "arcs", "candidates of a search")
    found = {}
    for label, group in by_label(members).items():
        own = curve(group, "controller/entropy") or curve(group, "entropy", np.mean)
        if own is None:
            continue
        _, blocks, _ = np.shape(_evaluations(group)[0]["arcs"][0])
        choices = max(len(_choices(group[0])), 1)
        found[label] = Entropy(own, blocks, len(cells.OPERATIONS) * choices)
    if not found:
        raise NothingToDraw("no record of a controller's entropy")
    return found


def _evaluations(members: Members) -> list[dict[str, Any]]:
    """Return the records of evaluated candidates, by rising step."""
    found = [r for m in members for r in m.records if "arcs" in r]
    return sorted(found, key=lambda record: record["step"])


def _choices(member: trained.Trained) -> tuple[str, ...]:
    return tuple(member.config.get("choices") or ())


def sampled(paths: Sequence[Path]) -> Sampled:
    """Return the candidates of the first and of the last quarter of searches."""
    members = _having(paths, "arcs", "candidates of a search")
    found = _evaluations(members)
    quarter = -(-len(found) // 4)
    ends = [found[:quarter], found[-quarter:]] if len(found) > 1 else [found]
    arcs = {}
    for own in ends:
        first, last = own[0]["epoch"], own[-1]["epoch"]
        span = f"epoch {first:g}" if first == last else f"epochs {first:g} to {last:g}"
        arcs[span] = np.concatenate([np.array(r["arcs"], np.int32) for r in own])
    return Sampled(arcs, _choices(members[0]))


def best(paths: Sequence[Path]) -> Best:
    """Return what a study chose, or else the best of a search's last candidates."""
    for report in _reports(paths):
        for entry in report["entries"]:
            if entry["name"] == "searched":
                # The study has checked it, whatever its quantisers are.
                arc = cells.parse(entry["architecture"], ops=2**15)
                return Best(arc, _named_choices(paths))
    members = _having(paths, "arcs", "candidates of a search, and no report")
    last = [(_evaluations([member])[-1], _choices(member)) for member in members]
    found = [
        (accuracy, arc, choices)
        for record, choices in last
        for accuracy, arc in zip(
            record["valid/accuracies"], record["arcs"], strict=True
        )
    ]
    _, arc, choices = max(found, key=lambda one: one[0])
    return Best(np.array(arc, np.int32), choices)


def _named_choices(paths: Sequence[Path]) -> tuple[str, ...]:
    found = (_choices(member) for member in trained.read(paths))
    return next(filter(None, found), ())


def candidates(paths: Sequence[Path]) -> dict[str, Found]:
    """Return all candidates that searches have kept a record of."""
    found = []
    for place in (place for path in paths for place in runs.members(path) or [path]):
        document = runs.read_config(place)
        lines = disk.whole_lines(place / "candidates.jsonl")
        if lines:
            rows = [json.loads(line) for line in lines]
            experiment, config = document["experiment"], document["config"]
            found.append(trained.Trained(experiment, config, rows))
    if not found:
        raise NothingToDraw("no file of candidates")
    groups = by_label(found).items()
    return {k: _found([row for m in v for row in m.records]) for k, v in groups}


def _policy(document: dict[str, Any]) -> str:
    return str(document["config"].get("policy", ""))


def _found(rows: Sequence[dict[str, Any]]) -> Found:
    costs = {
        name: np.array([row["costs"][name] for row in rows], float)
        for name in fronts.AXES
    }
    accuracies = np.array([disk.number(row["accuracy"]) for row in rows], float)
    return Found(costs, accuracies, np.array([row["epoch"] for row in rows], float))


def _reports(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the reports of studies.

    Raises:
        UsageError: for one that is no JSON object with entries.
    """
    found = []
    for path in paths:
        file = Path(path) / "report.json"
        if not file.is_file():
            continue
        try:
            report = json.loads(file.read_text())
            complete = isinstance(report["entries"], list)
        except (ValueError, KeyError, TypeError):
            complete = False
        if not complete:
            raise UsageError("report.json", str(file), "a report of a study")
        found.append(report)
    return found


def entries(paths: Sequence[Path]) -> list[Entry]:
    """Return the networks of studies, and trainings whose summary says their size."""
    found = [
        Entry(row["name"], row["policy"], row["bits"], tuple(row["test_accuracy"]))
        for report in _reports(paths)
        for row in report["entries"]
    ]
    for path in paths:
        for place in runs.members(path) or [path]:
            summary = runs.read_summary(place) or {}
            if "bits" in summary and "test/accuracy" in summary:
                policy = _policy(runs.read_config(place))
                scores = (float(summary["test/accuracy"]),)
                found.append(Entry("trained", policy, summary["bits"], scores))
    if not found:
        raise NothingToDraw("no report of a study")
    return found


def rankings(paths: Sequence[Path]) -> Ranking:
    """Return accuracies with shared weights beside those after training alone."""
    for report in _reports(paths):
        rows = [r for r in report["entries"] if r.get("shared_accuracy") is not None]
        if len(rows) > 1:
            return Ranking(
                np.array([row["shared_accuracy"] for row in rows], float),
                np.array([np.mean(row["valid_accuracy"]) for row in rows], float),
                [row["name"] for row in rows],
                report.get("kendall_tau"),
            )
    raise NothingToDraw("no report of networks with shared and with own weights")
