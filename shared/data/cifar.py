"""CIFAR-10 and CIFAR-100: the binary version, or the pickled one in its archive.

A binary record is one label byte (CIFAR-100: the superclass, then the class) and the
red, green and blue planes of 1,024 bytes each.
"""

import hashlib
import tarfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np

from shared.data import pickles
from shared.data.catalog import CIFAR, CifarLayout, ImageSet
from shared.data.dataset import Found, HostSplit, check_labels
from shared.errors import UsageError

_PIXELS = 3 * 32 * 32


def expected(spec: ImageSet) -> list[str]:
    """Return the official files of a set, relative to the data directory."""
    layout = CIFAR[spec.name][0]
    return [f"{layout.folder}/{name}" for name in (*layout.train, *layout.test)]


def missing(data_dir: Path, spec: ImageSet) -> list[str]:
    """Return the files of the binary version that the directory lacks."""
    return [name for name in expected(spec) if not (data_dir / name).is_file()]


def read(data_dir: Path, spec: ImageSet) -> Found | None:
    """Read a set from the first source there is, or return None if there is none.

    In order: the binary version's folder if its files are of full size, the archive
    of the binary version, that of the pickled version, a folder with short files.

    Raises:
        UsageError: naming the file that is truncated, mislabelled or of other sizes.
    """
    binary, pickled = CIFAR[spec.name]
    folder = data_dir / binary.folder
    whole = not missing(data_dir, spec)
    archives = [a for a in (binary, pickled) if (data_dir / a.archive).is_file()]
    if whole and not (archives and _is_short(folder, binary, spec)):
        contents = _read_folder(folder, binary, spec)
        return _decode(contents, binary, spec, str(folder))
    if archives:
        path = data_dir / archives[0].archive
        contents = _read_archive(path, archives[0], spec)
        return _decode(contents, archives[0], spec, str(path))
    return None


def _rows(layout: CifarLayout, spec: ImageSet) -> dict[str, int]:
    """Return the official number of records of each file, training files first."""
    train = dict.fromkeys(layout.train, spec.rows[0] // len(layout.train))
    return {**train, **dict.fromkeys(layout.test, spec.rows[1])}


def _is_short(folder: Path, layout: CifarLayout, spec: ImageSet) -> bool:
    record = layout.label_bytes + _PIXELS
    rows = _rows(layout, spec).items()
    return any((folder / name).stat().st_size < n * record for name, n in rows)


def _read_folder(
    folder: Path, layout: CifarLayout, spec: ImageSet
) -> dict[str, tuple[str, bytes]]:
    contents = {}
    for name, rows in _rows(layout, spec).items():
        path = folder / name
        try:
            _check_size(str(path), path.stat().st_size, layout, rows)
            contents[name] = (str(path), path.read_bytes())
        except OSError as error:
            reason = error.strerror or "unreadable"
            raise UsageError(str(path), reason, "a readable file") from None
    return contents


def _read_archive(
    path: Path, layout: CifarLayout, spec: ImageSet
) -> dict[str, tuple[str, bytes]]:
    """Read the wanted members; nothing is ever written where an archive says."""
    rows = _rows(layout, spec)
    contents = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                inside = PurePosixPath(member.name)
                name, wanted = inside.name, str(inside.parent) == layout.folder
                if not (wanted and name in rows and member.isfile()):
                    continue
                where = f"{path}:{layout.folder}/{name}"
                _check_size(where, member.size, layout, rows[name])
                stream = archive.extractfile(member)
                contents[name] = (where, stream.read() if stream else b"")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        hint = "The archive is truncated or corrupt: fetch it again"
        raise UsageError(str(path), str(error), "a whole .tar.gz", hint) from None
    absent = [name for name in rows if name not in contents]
    if absent:
        given = f"an archive without {', '.join(absent)}"
        raise UsageError(str(path), given, f"the official {layout.archive}")
    return {name: contents[name] for name in rows}


def _check_size(where: str, size: int, layout: CifarLayout, rows: int) -> None:
    """Check a file's size before a byte of it is read."""
    if layout.label_key:
        # Labels, file names and markup come to far less than this for each image.
        most, record = rows * (_PIXELS + 256) + 65_536, 1
        allowed = f"1 to {most:,} bytes"
    else:
        record = layout.label_bytes + _PIXELS
        most = rows * record
        allowed = f"whole records of {record:,} bytes, 1 to {rows:,} of them"
    if not 0 < size <= most or size % record:
        raise UsageError(where, f"{size:,} bytes", allowed)


def _decode(
    contents: dict[str, tuple[str, bytes]],
    layout: CifarLayout,
    spec: ImageSet,
    source: str,
) -> Found:
    rows, checks = _rows(layout, spec), {}
    parts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, (where, content) in contents.items():
        decode = _decode_pickle if layout.label_key else _decode_records
        labels, pixels = decode(content, where, layout)
        if not 1 <= len(labels) <= rows[name]:
            allowed = f"1 to {rows[name]:,} records"
            raise UsageError(where, f"{len(labels):,} records", allowed)
        check_labels(where, labels, len(spec.class_names))
        parts[name] = (labels, pixels)
        checks[name] = _is_official(where, content, name, layout)
    train = _join([parts[name] for name in layout.train])
    test = _join([parts[name] for name in layout.test])
    return Found(train, test, source=source, checks=checks)


def _decode_records(
    content: bytes, where: str, layout: CifarLayout
) -> tuple[np.ndarray, np.ndarray]:
    lead = layout.label_bytes
    records = np.frombuffer(content, np.uint8).reshape(-1, lead + _PIXELS)
    if lead == 2:
        check_labels(where, records[:, 0], 20, what="superclass")
    return records[:, lead - 1], records[:, lead:]


def _decode_pickle(
    content: bytes, where: str, layout: CifarLayout
) -> tuple[np.ndarray, np.ndarray]:
    loaded = pickles.load(content, where)
    pixels, labels = loaded.get("data"), loaded.get(layout.label_key)
    if not isinstance(pixels, np.ndarray) or not isinstance(labels, list | np.ndarray):
        given = f"the keys {', '.join(sorted(loaded))}"
        raise UsageError(where, given, f"'data' and {layout.label_key!r}")
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), _PIXELS):
        given = f"{pixels.dtype} data {pixels.shape} for {len(labels)} labels"
        raise UsageError(where, given, f"uint8 data ({len(labels)}, {_PIXELS})")
    if not all(isinstance(label, int | np.integer) for label in labels):
        raise UsageError(where, f"{layout.label_key} of other types", "whole numbers")
    return np.asarray(labels, np.int64), pixels


def _is_official(where: str, content: bytes, name: str, layout: CifarLayout) -> bool:
    """Compare with the published checksum; another official file is refused."""
    known = {**layout.train, **layout.test}
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    for other, md5 in known.items():
        if digest == md5 and other != name:
            raise UsageError(where, f"the official {other}", f"the official {name}")
    return digest == known[name]


def _join(parts: list[tuple[np.ndarray, np.ndarray]]) -> HostSplit:
    """Put the parts together, pixels from planes to channels last."""
    labels = np.concatenate([labels for labels, _ in parts]).astype(np.int32)
    images = np.empty((len(labels), 32 * 32, 3), np.uint8)
    start = 0
    for part, pixels in parts:
        stop = start + len(part)
        # One plane at a time: three times faster than a transpose.
        for plane in range(3):
            images[start:stop, :, plane] = pixels[:, 1024 * plane : 1024 * (plane + 1)]
        start = stop
    return HostSplit(images.reshape(-1, 32, 32, 3), labels)
