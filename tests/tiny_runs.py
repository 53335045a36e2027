"""Small runs of any system, killed ones too."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shared import runs
from shared.config import to_dict


class Killed(Exception):
    """What ends a run."""


def create(folder: Path, system: str, configs: Sequence[Any]) -> runs.Run:
    """Create a run of some members, or of one network."""
    return runs.create(
        folder,
        system,
        "tiny",
        to_dict(configs[0]),
        {"data_dir": None, "dtype": "float32"},
        members=[to_dict(c) for c in configs] if len(configs) > 1 else None,
    )


@contextmanager
def killed_at(step: int, member: int = 1) -> Iterator[None]:
    """Expect that a run ends, which it does when a member logs this step."""
    log = runs.Run.log

    def stop(run, at, record, member_now=None):
        if at == step and member_now == member:
            raise Killed
        return log(run, at, record, member_now)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(runs.Run, "log", stop)
        yield


def numbers(path: Path) -> list[list[dict[str, Any]]]:
    """Return all records of all members without what tells of time."""
    places = runs.members(path) or [path]
    timed = lambda name: name == "seconds" or "timing" in name
    return [
        [{k: v for k, v in r.items() if not timed(k)} for r in runs.read_metrics(place)]
        for place in places
    ]
