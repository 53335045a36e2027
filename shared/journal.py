"""What the host keeps of a training run: when it wakes, records, and failures."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shared import chunk, disk, parallel

Record = dict[str, Any]
"""Numbers by name, or nested lists of them."""

FAILED = "failed.json"
"""Beside the checkpoints: per member null, or the step and metric of its failure."""


class Cadence(NamedTuple):
    """When the host wakes up, in steps.

    Attributes:
        steps: total number of updates.
        log: between records of the mean batch metrics.
        evaluate: between evaluations; 0 only at the end.
        save: between checkpoints; 0 only at the end.
    """

    steps: int
    log: int
    evaluate: int
    save: int

    def due(self, step: int, every: int) -> bool:
        """Whether something done every so many steps, and at the end, is due."""
        return step == self.steps or (every > 0 and step % every == 0)

    def next(self, step: int) -> int:
        """The first step after `step` at which anything is due."""
        periods = [n for n in (self.log, self.evaluate, self.save) if n > 0]
        return min([self.steps, *((step // n + 1) * n for n in periods)])


class Journal:
    """The records and failures of one call of `training.fit`, on the host.

    Attributes:
        history: the records, one list per member.
        failed: per member None, or the step and metric that became non-finite.
    """

    def __init__(self, count: int, epoch: int, log: Callable | None):
        self.history: list[list[Record]] = [[] for _ in range(count)]
        self.failed: list[chunk.Failure | None] = [None] * count
        self._epoch, self._log, self._start = epoch, log, time.monotonic()

    @property
    def all_failed(self) -> bool:
        """Whether nothing is left to train."""
        return all(self.failed)

    def note_failures(self, found: Sequence[chunk.Failure | None]) -> list:
        """Note members that fail for the first time and return their failures."""
        newly = []
        for member, failure in enumerate(found):
            if failure is not None and self.failed[member] is None:
                self.failed[member] = failure
                newly.append(failure)
        return newly

    def write(self, step: int, records: Sequence[Record]) -> None:
        """Keep and log one record per member, except of those that failed."""
        seconds = round(time.monotonic() - self._start, 3)
        for member, record in enumerate(records):
            if self.failed[member] is None:
                head = {"step": step, "epoch": step / self._epoch}
                line = {**head, **record, "seconds": seconds}
                self.history[member].append(line)
                if self._log is not None:
                    self._log(step, member, line)

    def headline(self) -> str:
        """The mean over members of each accuracy and loss that was last seen."""
        last = [h[-1] for h in self.history if h]
        names = [
            k for k in (last[0] if last else {}) if k.endswith(("accuracy", "loss"))
        ]
        values = {k: np.mean([r[k] for r in last if k in r]) for k in names}
        return " ".join(f"{k} {v:.4g}" for k, v in values.items())

    def save_failures(self, checkpoints: Path) -> None:
        """Write the failures beside the checkpoints; a resumed run reads them."""
        if parallel.is_lead():
            checkpoints.mkdir(parents=True, exist_ok=True)
            disk.write_text(checkpoints / FAILED, json.dumps(self.failed))

    def load_failures(self, checkpoints: Path, own: np.ndarray, step: int) -> None:
        """Take over the failures up to a checkpoint.

        Args:
            checkpoints: directory of the checkpoints.
            own: each member's own step `[members]`; that of a failed one lags.
            step: the checkpoint's.
        """
        if not np.any(own < step):
            return
        file = checkpoints / FAILED
        noted = json.loads(file.read_text()) if file.is_file() else self.failed
        for member in np.flatnonzero(own < step):
            at, metric = noted[member] or (int(own[member]), "a metric")
            self.failed[member] = at, metric
