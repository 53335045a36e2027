"""Print a table of finished runs: python -m scripts.report RUN...

A RUN is a run directory or a directory of runs; members of one run that differ only in
their seed share a row, mean +- standard deviation.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scripts import systems
from shared import cli, runs, trained

NOT_SHOWN = ("status", "members")


@dataclass(frozen=True)
class Options:
    """Print the figures of runs as a table.

    Attributes:
        paths: run directories, or directories of runs.
    """

    paths: tuple[Path, ...]


def main(argv: Sequence[str]) -> None:
    """Parse, collect, print."""
    options = cli.parse_into(Options, argv, prog="python -m scripts.report")
    found = systems.runs_by_system(list(options.paths))
    print(table([run for group in found.values() for run in group]))


def table(paths: Sequence[Path]) -> str:
    """Return a Markdown table of runs, one row per set of seeds."""
    rows = [row for path in paths for row in _rows(path)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [columns, ["---"] * len(columns)]
    cells += [[str(row.get(name, "")) for name in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    pad = lambda line: [c.ljust(w) for c, w in zip(line, widths, strict=True)]
    return "\n".join(f"| {' | '.join(pad(line))} |" for line in cells)


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return one row for each set of members that differ in their seed alone."""
    places = runs.members(path) or [path]
    settings = [runs.read_config(place)["config"] for place in places]
    fields = trained.telling_fields(settings)
    groups: dict[str, list[int]] = {}
    for i, setting in enumerate(settings):
        name = ", ".join(f"{field} {setting[field]}" for field in fields)
        groups.setdefault(name, []).append(i)
    rows = []
    for name, indices in groups.items():
        summaries = [runs.read_summary(places[i]) for i in indices]
        row = {"experiment": runs.read_config(path)["experiment"], "setting": name}
        rows.append({**row, "seeds": len(indices), **_pooled(summaries)})
    if not any(row["setting"] for row in rows):
        for row in rows:
            del row["setting"]
    return rows


def _pooled(summaries: Sequence[dict[str, Any] | None]) -> dict[str, str]:
    finished = [s for s in summaries if s is not None]
    missing = len(summaries) - len(finished)
    bad = [s["status"] for s in finished if s.get("status") != "done"]
    status = bad[0] if bad else f"{missing} not finished" if missing else "done"
    names = [n for n in (finished[0] if finished else {}) if n not in NOT_SHOWN]
    good = [s for s in finished if s.get("status") == "done"]
    return {
        "status": status,
        **{n: _spread([s[n] for s in good if n in s], n) for n in names if good},
    }


def _spread(values: Sequence[Any], name: str) -> str:
    """Return mean +- standard deviation, accuracies in percent; words as they are."""
    if any(isinstance(value, str) for value in values):
        return ", ".join(dict.fromkeys(map(str, values)))
    percent = "accuracy" in name
    whole = all(isinstance(value, int) for value in values)
    scale, digits = (100, "{:.2f}") if percent else (1, "{:.4g}")
    if whole and min(values) == max(values):
        return str(values[0])
    text = digits.format(scale * np.mean(values))
    if max(values) > min(values):
        text += " ± " + digits.format(scale * np.std(values))
    return text + " %" if percent else text


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
