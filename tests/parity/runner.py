"""Runs reference files against our code and tells how far the two are apart.

A system's module holds `CASES`, triples `(matches, run, tolerances)`:

    matches(keys, meta, stem) -> bool       whether the case handles a file
    run(npz, dtype) -> {name: (ours, golden)}    every output array of the file
    tolerances(name, npz) -> Tolerance | None    None for an input array

Cases match by a file's keys and settings, never by its whole name, its sizes or its
seed. A file without a case is an error, as is an array that is no input and that no
case compares.
"""

import importlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

Npz = Mapping[str, np.ndarray]


class Tolerance(NamedTuple):
    """Largest allowed error of one array in one precision.

    Attributes:
        relative: of the Frobenius norm of the difference to that of the golden array.
        absolute: of the largest entry of the difference. An array passes if either
            bound holds; the absolute one starts at 0, which only equality passes.
    """

    relative: float
    absolute: float = 0.0


class Row(NamedTuple):
    """The outcome for one array."""

    file: str
    dtype: str
    name: str
    error: float
    absolute: float
    tolerance: Tolerance

    @property
    def passed(self) -> bool:
        """Whether one of the two bounds holds."""
        allowed = self.tolerance
        return self.error <= allowed.relative or self.absolute <= allowed.absolute

    @property
    def share(self) -> float:
        """The error as a share of what is allowed, by the kinder bound."""
        allowed = self.tolerance
        shares = [_ratio(self.error, allowed.relative)]
        shares.append(_ratio(self.absolute, allowed.absolute))
        return min(shares)


class Problem(NamedTuple):
    """What could not be compared."""

    file: str
    message: str


def _ratio(error: float, allowed: float) -> float:
    if not np.isfinite(error):
        return float("inf")
    return 0.0 if error == 0 else error / allowed if allowed > 0 else float("inf")


class Loaded(dict[str, np.ndarray]):
    """The arrays of a file, and the folder where others that it names lie."""

    folder: Path


def load(path: Path) -> Loaded:
    """Read a file whole; objects are refused."""
    with np.load(path, allow_pickle=False) as archive:
        loaded = Loaded({name: archive[name] for name in archive.files})
    loaded.folder = path.parent
    return loaded


def meta(npz: Npz) -> dict[str, Any]:
    """Return a file's settings, empty if it states none in words."""
    named = "meta" in npz and npz["meta"].dtype.kind == "U"
    return json.loads(str(npz["meta"])) if named else {}


def errors(ours: Any, golden: np.ndarray) -> tuple[float, float]:
    """Return the relative Frobenius error and the largest absolute error."""
    ours, golden = np.asarray(ours), np.asarray(golden)
    if ours.shape != golden.shape:
        return float("inf"), float("inf")
    if ours.size == 0:
        return 0.0, 0.0
    ours, golden = ours.astype(np.float64), golden.astype(np.float64)
    gap = ours - golden
    absolute = float(np.max(np.abs(gap)))
    size = float(np.linalg.norm(golden))
    distance = float(np.linalg.norm(gap))
    return (distance / size if size > 0 else _ratio(distance, 0.0)), absolute


def case_for(cases: Iterable[tuple], npz: Npz, stem: str) -> tuple | None:
    """Return the first case that handles a file."""
    keys = frozenset(npz)
    return next((case for case in cases if case[0](keys, meta(npz), stem)), None)


def check_file(
    path: Path, cases: Iterable[tuple], dtype: str
) -> tuple[list[Row], list[Problem]]:
    """Compare every output array of one file in one precision."""
    npz = load(path)
    case = case_for(cases, npz, path.stem)
    if case is None:
        return [], [Problem(path.name, "no case handles this file")]
    _, run, tolerances = case
    with jax.enable_x64(dtype == "float64"):
        compared = run(npz, np.dtype(dtype))
        compared = {k: (np.asarray(a), b) for k, (a, b) in compared.items()}
    rows, problems = [], []
    for name in npz:
        if name == "meta":
            continue
        tolerance = tolerances(name, npz, np.dtype(dtype))
        if name not in compared:
            if tolerance is not None:
                problems.append(Problem(path.name, f"nobody compares {name}"))
            continue
        if tolerance is None:
            problems.append(Problem(path.name, f"no tolerance for {name}"))
            continue
        rows.append(Row(path.stem, dtype, name, *errors(*compared[name]), tolerance))
    return rows, problems


def system_cases(system: str) -> tuple[tuple, ...]:
    """Return the cases of a system's module."""
    return importlib.import_module(f"tests.parity.{system}").CASES


def check_directory(
    directory: Path,
    system: str,
    dtypes: Iterable[str] = ("float64", "float32"),
    report: Callable[[list[Row]], None] = lambda rows: None,
) -> tuple[list[Row], list[Problem]]:
    """Compare all files of a directory; `report` sees each file's rows as they come."""
    cases, rows, problems = system_cases(system), [], []
    paths = sorted(directory.glob("*.npz"))
    if not paths:
        problems.append(Problem(str(directory), "holds no .npz file"))
    for path in paths:
        for dtype in dtypes:
            found, missed = check_file(path, cases, dtype)
            rows += found
            problems += missed
            report(found)
    return rows, problems
