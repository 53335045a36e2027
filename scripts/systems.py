"""The systems on the command line, and the packages that hold them."""

import importlib
from pathlib import Path
from types import ModuleType

from shared import runs
from shared.errors import UsageError, check_choice

PACKAGES = {
    "enasq": "enasq",
    "gaitprop": "gaitprop",
    "modmask": "modmask",
    "trees": "multipath.trees",
    "routing": "multipath.routing_networks",
}

EXPERIMENTS = {name: f"{package}.experiments" for name, package in PACKAGES.items()}
"""Modules with `EXPERIMENTS`, the `Config` and `scaled`, by system."""


def load(system: str, part: str) -> ModuleType:
    """Import a part (`train`, `figures`, ...) of a system.

    Raises:
        UsageError: for an unknown system.
    """
    check_choice("system", system, PACKAGES)
    return importlib.import_module(f"{PACKAGES[system]}.{part}")


def runs_by_system(paths: list[Path]) -> dict[str, list[Path]]:
    """Find the runs at and below some paths, grouped by system.

    Raises:
        UsageError: for no path, or one without a run.
    """
    if not paths:
        raise UsageError("arguments", "", "a run directory, or a directory of runs")
    found: dict[str, list[Path]] = {}
    for path in paths:
        for run in runs.find(path):
            found.setdefault(runs.read_config(run)["system"], []).append(run)
    return found
