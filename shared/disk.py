"""Files that a kill leaves whole: replaced in one go, or read by whole lines."""

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from shared.errors import UsageError

_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Replace a file in one go: readers see the old one or the new, never half.

    Yields the name to write to, beside the file, whose directory is created. After an
    error nothing is left of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.writing")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one go, and see to it that the disk has it."""
    with replacing(path) as draft, draft.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def writable(what: str, path: Path) -> Iterator[None]:
    """Raise a UsageError, not an OSError, if something cannot be written.

    Args:
        what: what it is.
        path: where it was to be.
    """
    try:
        yield
    except OSError as error:
        reason = f"a place that can be written ({error.strerror or error})"
        raise UsageError(what, str(path), reason) from error


def whole_lines(path: Path) -> list[str]:
    """Return the lines of JSON objects; one that was torn at the end is left out.

    Raises:
        UsageError: for a line in the middle that is no JSON object.
    """
    if not path.is_file():
        return []
    # What follows the last newline was torn by a kill, or is empty.
    lines = path.read_bytes().split(b"\n")[:-1]
    decoded = [line.decode(errors="replace") for line in lines]
    for number, line in enumerate(decoded, start=1):
        try:
            whole = isinstance(json.loads(line), dict)
        except ValueError:
            whole = False
        if not whole and number == len(decoded):
            return decoded[:-1]
        if not whole:
            raise UsageError(f"{path}, line {number}", line[:60], "a JSON object")
    return decoded


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Return any value as JSON, see `plain`."""
    return json.dumps(plain(value), allow_nan=False, indent=indent)


def plain(value: Any) -> Any:
    """Turn arrays, paths and non-finite numbers into what JSON can say."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return plain(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def number(value: Any) -> Any:
    """Turn the word of a non-finite number back into it."""
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value
