"""What a phase of a run leaves on disk: checkpoints, and records under known keys."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared import disk
from shared.groups import Place

CLOSED = "closed"
"""In the checkpoints of a phase that is over: its records are never cut again."""


def outputs(
    place: Place,
    phase: str,
    offset: int,
    steps: int,
    owners: Sequence[Sequence[int]],
    extra: Callable[[int, int], dict[str, float]],
    prefixes: Sequence[str],
) -> dict[str, Any]:
    """Return checkpoints, log and rewind of a phase.

    Records count updates over all phases. Those of step 0 are left out in later
    phases: they would repeat what the phase before recorded last.
    """
    folder = None if place.checkpoints is None else place.checkpoints / phase
    if place.run is None:
        return {"checkpoints": folder, "log": None, "rewind": None}
    run, clock = place.run, {"step": 0, "time": time.monotonic()}

    def log(step: int, member: int, record: dict[str, Any]) -> None:
        if offset and step == 0:
            return
        named = {**_keys(record), **extra(member, step)}
        if step > clock["step"]:
            now = time.monotonic()
            clock["rate"] = 1000 * (now - clock["time"]) / (step - clock["step"])
            clock.update(step=step, time=now)
        if "rate" in clock:
            named["timing/ms_per_iter"] = round(clock["rate"], 3)
        named = {prefixes[member] + name: value for name, value in named.items()}
        for owner in owners[member]:
            run.log(offset + step, named, place.indices[owner])

    def rewind(step: int) -> None:
        clock.update(step=max(step, 0), time=time.monotonic())
        over = step >= steps or (folder is not None and (folder / CLOSED).exists())
        if not over:
            run.cut(offset + max(step, 0) if offset else step, place.indices)

    return {"checkpoints": folder, "log": log, "rewind": rewind}


def close(checkpoints: Path) -> None:
    """Note that a phase is over, beside its checkpoints."""
    disk.write_text(checkpoints / CLOSED, "")


def _keys(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record under the keys of the published program."""
    named: dict[str, Any] = {}
    for name, value in record.items():
        head, _, rest = name.partition("/")
        if name in ("step", "epoch", "seconds"):
            continue
        if head == "batch":
            named[f"train/{rest}"] = value
        elif rest:
            named[f"validation/{name}"] = value
        else:
            named[name] = value
    for metric in ("accuracy", "loss"):
        values = [
            v
            for k, v in named.items()
            if k.startswith("validation/") and k.count("/") == 2 and k.endswith(metric)
        ]
        if values:
            named[f"validation/mean_{metric}"] = float(np.mean(values))
    return named
