"""Run directories: what was asked, what happened, what came out.

`root/system/experiment/time-id/` holds `config.json` (written last at creation, so a
directory that has it is whole), `metrics.jsonl` (one JSON object a line),
`summary.json` (written when the run is finished), `checkpoints/`, `figures/`, and for
a run of several members `members/000/...`, each of which reads like a run.
"""

import datetime
import importlib.metadata
import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from shared import disk, parallel, sinks
from shared.config import VERSION, from_dict
from shared.errors import UsageError

PROJECT = "five-nets"


class Run:
    """An open run directory; made by `create` or `open`.

    Attributes:
        path: the directory.
        members: directories of the members, empty for a single run.
        config: what `config.json` says.
    """

    def __init__(self, path: Path, lock: int | None):
        self.path = path
        self.members = members(path)
        self.config = read_config(path)
        self._lock = lock
        self._writes = parallel.is_lead()
        names = self.config["options"].get("sinks") or ()
        writing = self._writes and lock is not None
        self._sinks = (
            [sinks.open_sink(n, path, self.config) for n in names] if writing else []
        )

    def directory(self, member: int | None = None) -> Path:
        """Directory of a member; a run without members is its own member 0."""
        if member is None or not self.members:
            return self.path
        return self.members[member]

    @property
    def checkpoints(self) -> Path:
        """Directory for `shared.checkpoint`."""
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        """Directory for pictures."""
        return self.path / "figures"

    def log(
        self, step: int, metrics: Mapping[str, Any], member: int | None = None
    ) -> None:
        """Append one whole line to `metrics.jsonl`; steps never decrease.

        Args:
            step: number of updates made so far.
            metrics: names and values; NaN and infinities become the strings "nan",
                "inf" and "-inf", which `read_metrics` turns back.
            member: whose record it is; None for the run as a whole. A run without
                members is its own member 0.
        """
        if not self._may_write():
            return
        path = self.directory(member) / "metrics.jsonl"
        record = disk.plain({"step": int(step), **metrics})
        with path.open("ab", buffering=0) as file:
            file.write(disk.dumps(record).encode() + b"\n")
        numbers = {k: v for k, v in record.items() if type(v) in (int, float)}
        numbers.pop("step", None)
        for sink in self._sinks:
            sink.log(step, numbers, member if self.members else None)

    def picture(
        self, step: int, name: str, array: np.ndarray, member: int | None = None
    ) -> None:
        """Show a picture `[3, height, width]`, from 0 to 1, in the sinks."""
        for sink in self._sinks:
            sink.image(step, name, array, member if self.members else None)

    def histogram(
        self, step: int, name: str, values: np.ndarray, member: int | None = None
    ) -> None:
        """Show how values are distributed in the sinks."""
        for sink in self._sinks:
            sink.histogram(step, name, values, member if self.members else None)

    def cut(self, step: int, members: Sequence[int] | None = None) -> None:
        """Drop the records after `step`, which a resumed run writes again.

        Args:
            step: the last step whose records stand.
            members: whose records; None means all and the run's own.
        """
        if not self._may_write():
            return
        everyone = [None, *range(len(self.members))]
        for member in everyone if members is None or not self.members else members:
            _cut(self.directory(member) / "metrics.jsonl", step)

    def records(self, member: int | None = None) -> list[dict[str, Any]]:
        """Return the records so far of a member, or of the run as a whole."""
        return read_metrics(self.directory(member))

    def finish(
        self,
        summary: Mapping[str, Any],
        member_summaries: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Write the summaries, the run's own last: a run that has one is finished."""
        if not self._may_write():
            return
        for path, values in zip(self.members, member_summaries, strict=True):
            disk.write_text(path / "summary.json", disk.dumps(values, indent=1))
        disk.write_text(self.path / "summary.json", disk.dumps(summary, indent=1))

    def discard(self) -> None:
        """Remove a run in which nothing has happened yet; keep any other."""
        places = (self.path, *self.members)
        lines = [disk.whole_lines(place / "metrics.jsonl") for place in places]
        if self._may_write() and not any(lines) and not any(self.checkpoints.iterdir()):
            shutil.rmtree(self.path)

    def close(self) -> None:
        """Release the lock and close the sinks."""
        for sink in self._sinks:
            sink.close()
        self._sinks = []
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        self.close()
        if isinstance(error, KeyboardInterrupt):
            error.add_note(f"go on with: python -m scripts.train --resume {self.path}")

    def _may_write(self) -> bool:
        if self._writes and self._lock is None:
            raise RuntimeError(f"{self.path} is not open for writing")
        return self._writes


def create(
    root: str | os.PathLike,
    system: str,
    experiment: str,
    config: Mapping[str, Any],
    options: Mapping[str, Any],
    members: Sequence[Mapping[str, Any]] | None = None,
) -> Run:
    """Make a new run directory and open it for writing.

    Args:
        root: directory of all runs.
        system, experiment: names, also of the directories.
        config: all fields of the config.
        options: all run options; "sinks" names further places for the metrics.
        members: configs of the members of a run that trains many at once.

    Raises:
        UsageError: for a directory that cannot be written, or a sink that is unknown
            or not installed.
    """
    for name in options.get("sinks") or ():
        sinks.check(name)
    now = datetime.datetime.now()
    name = parallel.agree(f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}")
    path = Path(root).absolute() / system / experiment / name
    if not parallel.is_lead():
        parallel.barrier("run directory")
        return Run(path, None)
    document = {
        "version": VERSION,
        "library": _version(),
        "jax": jax.__version__,
        "created": now.isoformat(timespec="seconds"),
        "system": system,
        "experiment": experiment,
        "options": dict(options),
    }
    with disk.writable("run directory", path):
        (path / "checkpoints").mkdir(parents=True)
        (path / "figures").mkdir()
        lock = _lock(path)
        for index, member in enumerate(members or ()):
            directory = path / "members" / f"{index:03d}"
            (directory / "figures").mkdir(parents=True)
            (directory / "metrics.jsonl").touch()
            own = {**document, "member": index, "config": dict(member)}
            disk.write_text(directory / "config.json", disk.dumps(own, indent=1))
        (path / "metrics.jsonl").touch()
        whole = {**document, "members": len(members or ()), "config": dict(config)}
        disk.write_text(path / "config.json", disk.dumps(whole, indent=1))
    parallel.barrier("run directory")
    return Run(path, lock)


def open(path: str | os.PathLike, *, lock: bool = True) -> Run:
    """Open an existing run, to go on with it or (`lock=False`) to read only.

    Raises:
        UsageError: for a directory that is no run, lacks members, was written by a
            newer version, is in use by another process, or cannot be written.
    """
    path = Path(path).absolute()
    config = read_config(path)
    if lock and "member" in config:
        raise UsageError(
            "run directory", str(path), "a whole run", "Resume the run it belongs to."
        )
    found, expected = len(members(path)), config.get("members", 0)
    if lock and found != expected:
        allowed = f"a run with all its {expected} members (it has {found})"
        raise UsageError("run directory", str(path), allowed)
    for name in config["options"].get("sinks") or () if lock else ():
        sinks.check(name)
    held = _lock(path) if lock and parallel.is_lead() else None
    return Run(path, held)


def read_config(path: str | os.PathLike) -> dict[str, Any]:
    """Return `config.json` of a run or of a member.

    Raises:
        UsageError: if there is none, or a newer version wrote it.
    """
    path = Path(path)
    try:
        config = json.loads((path / "config.json").read_text())
        version = int(config["version"])
        complete = {"system", "experiment", "config", "options"} <= set(config)
    except OSError as error:
        reason = "a run directory (it has no config.json)"
        raise UsageError("run directory", str(path), reason) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "config.json", str(path / "config.json"), "JSON with a version"
        ) from error
    if version <= VERSION and not complete:
        raise UsageError("config.json", str(path / "config.json"), "a run's config")
    if version > VERSION:
        raise UsageError(
            f"version of {path}",
            version,
            f"at most {VERSION}",
            "A newer version of this library wrote it.",
        )
    return config


def read_configs(path: str | os.PathLike, config_type: type) -> list[Any]:
    """Return the configs of a run's members, or that of a single run.

    Raises:
        UsageError: as `read_config`, or for a field that the type does not have.
    """
    places = members(path) or [path]
    return [from_dict(config_type, read_config(place)["config"]) for place in places]


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Return the records of a run or member; a torn last line is left out.

    Raises:
        UsageError: for a line in the middle that is no JSON object.
    """
    path = Path(path) / "metrics.jsonl"
    records = [json.loads(line) for line in disk.whole_lines(path)]
    return [{k: disk.number(v) for k, v in record.items()} for record in records]


def read_summary(path: str | os.PathLike) -> dict[str, Any] | None:
    """Return the summary of a run or member, None while it is not finished.

    Raises:
        UsageError: for a file that is no JSON object.
    """
    file = Path(path) / "summary.json"
    if not file.is_file():
        return None
    try:
        return {k: disk.number(v) for k, v in json.loads(file.read_text()).items()}
    except (ValueError, AttributeError) as error:
        raise UsageError("summary.json", str(file), "a JSON object") from error


def members(path: str | os.PathLike) -> list[Path]:
    """Return the directories of a run's members, none for a single run."""
    found = [p.parent for p in Path(path).glob("members/*/config.json")]
    # By number: member 1000 comes after member 999.
    return sorted(found, key=lambda p: (len(p.name), p.name))


def find(path: str | os.PathLike) -> list[Path]:
    """Return the run at `path`, or all runs below it, oldest first in each folder.

    Raises:
        UsageError: if there is none.
    """
    found = []
    for directory, folders, files in os.walk(path):
        if "config.json" in files:
            found.append(Path(directory))
            folders.clear()
        # Members of a directory that is no run are what a kill at its creation left.
        folders[:] = sorted(name for name in folders if name != "members")
    if not found:
        raise UsageError("run directory", str(path), "a run, or a directory of runs")
    return found


def _cut(path: Path, step: int) -> None:
    """Rewrite a metrics file without torn lines and without later steps."""
    lines = [x for x in disk.whole_lines(path) if json.loads(x)["step"] <= step]
    text = "".join(line + "\n" for line in lines)
    if not path.is_file() or path.read_bytes() != text.encode():
        disk.write_text(path, text)


def _lock(path: Path) -> int:
    """Take the lock that the kernel drops when this process ends, however it ends."""
    import fcntl  # absent on Windows, where runs can still be read

    with disk.writable("run directory", path):
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 32).decode().strip() or "unknown"
        os.close(descriptor)
        raise UsageError(
            "run directory", str(path), f"one not in use; process {owner} has it open"
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _version() -> str:
    try:
        return importlib.metadata.version(PROJECT)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
