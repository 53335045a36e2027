"""Evaluate a run: python -m scripts.evaluate RUN [--data-dir DIR] [--export DIR].

The last whole checkpoint is evaluated; prints one JSON object per member.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax

from scripts import systems
from shared import cli, runs
from shared.errors import UsageError


@dataclass(frozen=True)
class Options:
    """Evaluate the last checkpoint of a run on its data set.

    Attributes:
        path: the run directory, or that of a member.
        data_dir: where the data sets lie (default: as in training).
        export: also write the networks here: in the file layout of the original
            program of the system, or packed (enasq).
    """

    path: Path
    data_dir: Path | None = None
    export: Path | None = None


def main(argv: Sequence[str]) -> None:
    """Parse, evaluate, print one JSON object per member."""
    options = cli.parse_into(Options, argv, prog="python -m scripts.evaluate")
    stored = runs.read_config(options.path)
    jax.config.update("jax_enable_x64", stored["options"]["dtype"] == "float64")
    data_dir = options.data_dir or stored["options"]["data_dir"]
    system = systems.load(stored["system"], "train")
    if options.export is not None and not hasattr(system, "export"):
        allowed = "none: runs of this system keep their arrays under export/"
        raise UsageError("--export", str(options.export), allowed)
    member = stored.get("member")
    if member is not None and options.export is not None:
        raise UsageError("--export", str(options.path), "a whole run, not a member")
    # The members of a run share its checkpoints.
    whole = options.path if member is None else options.path.resolve().parents[1]
    for record in system.evaluate(whole, data_dir=data_dir):
        if member in (None, record["member"]):
            print(json.dumps(record))
    if options.export is not None:
        for written in system.export(options.path, options.export, data_dir=data_dir):
            print(f"exported: {written}")


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
