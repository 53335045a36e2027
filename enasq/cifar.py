"""CIFAR-10 as its six pickled batches lie when the official archive is unpacked."""

import hashlib
from pathlib import Path

import numpy as np

from shared.data import pickles
from shared.data.catalog import CIFAR, SETS
from shared.data.dataset import Found, HostSplit, check_labels
from shared.errors import UsageError

_LAYOUT = CIFAR["cifar10"][1]
_FOLDERS = ("", "cifar10", _LAYOUT.folder)
_LARGEST_FILE = 40 << 20


def locate(data_dir: Path) -> Path | None:
    """Return the folder with all batches: the directory, `cifar10`, the official one.

    None if there is none.
    """
    names = (*_LAYOUT.train, *_LAYOUT.test)
    for folder in (data_dir / name for name in _FOLDERS):
        if all((folder / name).is_file() for name in names):
            return folder
    return None


def read(folder: Path) -> Found:
    """Read the batches; nothing that a pickle asks for is run.

    Raises:
        UsageError: naming the file that is damaged or holds something else.
    """
    checks: dict[str, bool | None] = {}
    parts: dict[str, HostSplit] = {}
    for name, digest in {**_LAYOUT.train, **_LAYOUT.test}.items():
        content = _contents(folder / name)
        parts[name] = _decode(content, str(folder / name))
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        checks[name] = found == digest
    train, test = (
        HostSplit(*map(np.concatenate, zip(*(parts[n] for n in names), strict=True)))
        for names in (_LAYOUT.train, _LAYOUT.test)
    )
    return Found(train, test, source=str(folder), checks=checks)


def _contents(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > _LARGEST_FILE:
            raise UsageError(str(path), f"{size:,} bytes", f"up to {_LARGEST_FILE:,}")
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or "unreadable"
        raise UsageError(str(path), reason, "a readable file") from None


def _decode(content: bytes, where: str) -> HostSplit:
    loaded = pickles.load(content, where)
    pixels, labels = loaded.get("data"), loaded.get(_LAYOUT.label_key)
    if not isinstance(pixels, np.ndarray) or not isinstance(labels, list | np.ndarray):
        given = f"the keys {', '.join(sorted(loaded))}"
        raise UsageError(where, given, f"'data' and {_LAYOUT.label_key!r}")
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3072):
        given = f"{pixels.dtype} data {pixels.shape} for {len(labels)} labels"
        raise UsageError(where, given, f"uint8 data ({len(labels)}, 3072)")
    if not len(labels) or not all(isinstance(n, int | np.integer) for n in labels):
        raise UsageError(where, "other labels", "a whole number for each image")
    numbers = np.asarray(labels, np.int64)
    check_labels(where, numbers, len(SETS["cifar10"].class_names))
    # Red, green and blue planes become channels.
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return HostSplit(np.ascontiguousarray(images), numbers.astype(np.int32))
