"""What a run found, beyond its headline figures: `results.json` and `export/`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shared import disk

FILE = "results.json"


def write(path: Path, results: Mapping[str, Any]) -> None:
    """Write flat results, `{"group/name": number}`, into a run directory."""
    plain = {name: float(value) for name, value in results.items()}
    disk.write_text(Path(path) / FILE, json.dumps(plain, indent=1, sort_keys=True))


def read(path: Path) -> dict[str, float]:
    """Read the results of a run or a member; empty if it has none yet."""
    file = Path(path) / FILE
    return json.loads(file.read_text()) if file.exists() else {}


def export(path: Path, exports: Mapping[str, Any]) -> None:
    """Write arrays as `.npy` and dicts of arrays as `.npz` under `export/`."""
    for name, value in exports.items():
        many = isinstance(value, Mapping)
        file = Path(path) / "export" / f"{name}.{'npz' if many else 'npy'}"
        with disk.replacing(file) as draft, draft.open("wb") as stream:
            np.savez(stream, **value) if many else np.save(stream, value)
