"""Networks in one file: a zip archive of two NumPy arrays, without pickled objects.

`header` is compressed JSON: the name of the format, its version, the graph, and where
in the other array each array of weights lies. `payload` is their bytes behind each
other. The header knows the checksum of its own other entries and of the payload.
"""

import contextlib
import hashlib
import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from enasq.graph import OPS, STORED, Graph, Step
from shared import disk
from shared.errors import UsageError

FORMAT = "enasq network"
VERSION = 2
INFO = ("size", "channels", "classes", "labels")
ALLOWED = ("uint8", "int8", "int16", "int32", "uint32", "float32")
"""Types of stored arrays, little end first."""


class Place(NamedTuple):
    """Where an array lies in the payload."""

    name: str
    kind: str
    shape: list[int]
    start: int


def save(graph: Graph, path: str | os.PathLike) -> None:
    """Write a network in one go.

    Raises:
        UsageError: if the file cannot be written.
    """
    parts, places, start = [], [], 0
    for step in graph.steps:
        own = []
        for name, value in step.arrays.items():
            value = np.ascontiguousarray(value)
            own.append(Place(name, value.dtype.name, list(value.shape), start))
            parts.append(value.astype(value.dtype.newbyteorder("<")).tobytes())
            start += value.nbytes
        places.append(own)
    payload = b"".join(parts)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "form": graph.form,
        "info": graph.info,
        "steps": [
            [step.op, step.name, step.inputs, step.options, own]
            for step, own in zip(graph.steps, places, strict=True)
        ],
    }
    header["checksum"] = checksum(header, payload)
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    arrays: Any = {
        "header": np.frombuffer(zlib.compress(text, 9), np.uint8),
        "payload": np.frombuffer(payload, np.uint8),
    }
    target = Path(path)
    with disk.writable("path", target), disk.replacing(target) as draft:
        with draft.open("wb") as file:
            np.savez_compressed(file, **arrays)
            file.flush()
            os.fsync(file.fileno())


def checksum(header: dict[str, Any], payload: bytes) -> str:
    """Return the checksum of a payload and of all of its header but the checksum."""
    rest = {key: value for key, value in header.items() if key != "checksum"}
    found = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    found.update(payload)
    return found.hexdigest()


def load(path: str | os.PathLike) -> Graph:
    """Read a network.

    Raises:
        UsageError: if there is no such file, it is of another kind or version, or
            damaged.
    """
    target = Path(path)
    if not target.is_file():
        raise UsageError("path", str(target), "an exported network")
    header, payload = _arrays(target)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise UsageError("path", str(target), "an exported network")
    version = header.get("version")
    if version != VERSION:
        hint = "Update this program, or export the network again."
        allowed = f"a file of version {VERSION}"
        raise UsageError(str(target), f"version {version}", allowed, hint)
    if checksum(header, payload) != header.get("checksum"):
        raise _damaged(target, "its checksum differs")
    try:
        return _graph(header, payload)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise _damaged(target, f"its header does not fit, {error}") from error


def _damaged(path: Path, why: str) -> UsageError:
    return UsageError(str(path), why, "a whole file", "Export the network again.")


def _arrays(path: Path) -> tuple[Any, bytes]:
    """Return the header and the payload."""
    try:
        # Opened here: NumPy leaves a file open that is no whole archive.
        with path.open("rb") as file, contextlib.ExitStack() as stack:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UsageError("path", str(path), "an exported network")
            stack.enter_context(archive)
            missing = {"header", "payload"} - set(archive.files)
            if missing:
                words = ", ".join(sorted(missing))
                raise _damaged(path, f"there is no {words}")
            header, payload = archive["header"].tobytes(), archive["payload"].tobytes()
        return json.loads(zlib.decompress(header)), payload
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise _damaged(path, f"it cannot be read, {error}") from error
    except UsageError:
        raise
    except (ValueError, TypeError, AttributeError) as error:
        allowed = "an exported network"
        raise UsageError("path", str(path), allowed) from error


def _graph(header: dict[str, Any], payload: bytes) -> Graph:
    form, info, steps = header["form"], header["info"], []
    if form not in STORED:
        raise ValueError(f"form {form!r}")
    if missing := [name for name in INFO if name not in info]:
        raise ValueError(f"there is no {', '.join(missing)}")
    if not header["steps"]:
        raise ValueError("there are no steps")
    for op, name, inputs, options, places in header["steps"]:
        if op not in OPS:
            raise ValueError(f"operation {op!r} of {name}")
        if not all(0 <= value < len(steps) for value in inputs):
            raise ValueError(f"inputs of {name}")
        arrays = {own[0]: _array(Place(*own), payload) for own in places}
        steps.append(Step(op, name, tuple(inputs), options, arrays))
    return Graph(form, info, tuple(steps))


def _array(place: Place, payload: bytes) -> np.ndarray:
    if place.kind not in ALLOWED:
        raise ValueError(f"an array of type {place.kind}")
    kind = np.dtype(place.kind).newbyteorder("<")
    count = int(np.prod(place.shape, dtype=np.int64))
    flat = np.frombuffer(payload, kind, count, place.start)
    return flat.astype(place.kind).reshape(place.shape)
