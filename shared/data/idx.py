"""The IDX files of MNIST, Fashion-MNIST and KMNIST, packed or plain.

Layout: a big-endian magic number (2049 labels, 2051 images), one big-endian 32-bit
size for each dimension, then the bytes.
"""

import gzip
import hashlib
import io
import math
import re
import zlib
from pathlib import Path

import numpy as np

from shared.data.catalog import IDX, IDX_FILES, ImageSet
from shared.data.dataset import Found, HostSplit, check_labels
from shared.errors import UsageError

_KINDS = {2049: "labels", 2051: "images"}


def expected(spec: ImageSet) -> list[str]:
    """Return the official files of a set, relative to the data directory."""
    return [f"{spec.name}/{name}.gz" for name in IDX_FILES]


def missing(data_dir: Path, spec: ImageSet) -> list[str]:
    """Return the official files that have no counterpart in the directory."""
    located = (_locate(data_dir / spec.name, name) for name in IDX_FILES)
    return [
        name for name, path in zip(expected(spec), located, strict=True) if path is None
    ]


def read(data_dir: Path, spec: ImageSet) -> Found | None:
    """Read the four files of a set, or return None if one of them is absent.

    A file may be packed (`.gz`) or plain; `train-firstN-...` stands for a training
    file that holds only the first N rows.

    Raises:
        UsageError: naming the file that is truncated, mislabelled or of other sizes.
    """
    folder = data_dir / spec.name
    paths = [path for name in IDX_FILES if (path := _locate(folder, name))]
    if len(paths) < len(IDX_FILES):
        return None
    arrays, checks = [], {}
    for index, path in enumerate(paths):
        shape = () if index % 2 else spec.shape[:2]
        limit = spec.rows[index // 2]
        largest = _header(shape) + limit * math.prod(shape)
        packed = _read_bytes(path, largest)
        content = _unpack(path, packed, largest)
        arrays.append(_parse(path, content, shape, limit))
        checks[path.name] = _is_official(path, packed, content, spec.name, index)
    train = _pair(str(paths[1]), spec, arrays[0], arrays[1])
    test = _pair(str(paths[3]), spec, arrays[2], arrays[3])
    return Found(train, test, source=str(folder), checks=checks)


def _header(shape: tuple[int, ...]) -> int:
    """Return the bytes before the data: the magic number, the count, the shape."""
    return 4 * (2 + len(shape))


def _locate(folder: Path, name: str) -> Path | None:
    for candidate in (folder / f"{name}.gz", folder / name):
        if candidate.is_file():
            return candidate
    split, rest = name.split("-", 1)
    pattern = re.compile(rf"{split}-first\d+-{re.escape(rest)}(\.gz)?")
    found = sorted(p for p in folder.glob(f"{split}-first*") if pattern.match(p.name))
    return found[0] if found else None


def _read_bytes(path: Path, limit: int) -> bytes:
    try:
        # Far more than the official file can need: do not read it at all.
        if path.stat().st_size > 2 * limit + 65_536:
            size = f"{path.stat().st_size:,} bytes"
            raise UsageError(str(path), size, f"at most {limit:,} bytes")
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or "unreadable"
        raise UsageError(str(path), reason, "a readable file") from None


def _unpack(path: Path, packed: bytes, limit: int) -> bytes:
    """Return at most one byte more than `limit`, so that excess is noticed."""
    if path.suffix != ".gz":
        return packed
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
            return stream.read(limit + 1)
    except (EOFError, OSError, zlib.error) as error:
        hint = "The file is truncated or corrupt: fetch it again"
        raise UsageError(str(path), str(error), "a whole gzip file", hint) from None


def _parse(
    path: Path, content: bytes, shape: tuple[int, ...], limit: int
) -> np.ndarray:
    """Check the header against the official one and return the array."""
    where, dimensions, header = str(path), len(shape) + 1, _header(shape)
    magic = 2048 + dimensions
    if len(content) < header:
        given = f"{len(content)} bytes"
        raise UsageError(where, given, f"an IDX header of {header} bytes")
    found = int.from_bytes(content[:4], "big")
    if found != magic:
        given = f"magic number {found} ({_KINDS.get(found, 'not an IDX byte file')})"
        raise UsageError(where, given, f"magic number {magic} ({_KINDS[magic]})")
    sizes = tuple(np.frombuffer(content, ">u4", dimensions, 4).tolist())
    if sizes[1:] != shape:
        given = "images of {} x {} pixels".format(*sizes[1:])
        raise UsageError(where, given, "{} x {}".format(*shape))
    if not 1 <= sizes[0] <= limit:
        raise UsageError(where, f"{sizes[0]:,} rows", f"1 to {limit:,} rows")
    length = header + sizes[0] * math.prod(shape)
    if len(content) != length:
        given = f"{len(content):,} bytes" if len(content) < length else "more bytes"
        allowed = f"{length:,} bytes for the {sizes[0]:,} rows that its header states"
        raise UsageError(where, given, allowed)
    return np.frombuffer(content, np.uint8, offset=header).reshape(sizes)


def _is_official(
    path: Path, packed: bytes, content: bytes, name: str, index: int
) -> bool | None:
    """Compare with the published checksums; another official file is refused."""
    owners = {
        md5: (owner, position)
        for owner, files in IDX.items()
        for position, pair in enumerate(files)
        for md5 in pair
        if md5
    }
    for data in (packed,) if packed is content else (packed, content):
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        owner = owners.get(digest)
        if owner == (name, index):
            return True
        if owner:
            given = f"the official {owner[0]}/{IDX_FILES[owner[1]]}"
            raise UsageError(str(path), given, f"{name}/{IDX_FILES[index]}")
    known = path.suffix == ".gz" or IDX[name][index][1]
    return False if known else None


def _pair(
    where: str, spec: ImageSet, images: np.ndarray, labels: np.ndarray
) -> HostSplit:
    if len(images) != len(labels):
        given = f"{len(labels):,} labels"
        raise UsageError(where, given, f"one for each of the {len(images):,} images")
    check_labels(where, labels, len(spec.class_names))
    return HostSplit(images[..., None], labels.astype(np.int32))
