"""Images as PNG files in a folder for each class, on disk or inside a zip archive.

    {train,valid,test}/{0..9}/*.png

A split is a folder, a zip archive of its own, or part of one archive with all splits.
Archives are read in place, member by member: what a member is called is only ever
compared, never a path to write to. A class's number is the rank of its folder's name.
"""

import io
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from shared.data.dataset import HostSplit
from shared.errors import UsageError

SPLITS = ("train", "valid", "test")

_LARGEST_SIDE = 1024
_LARGEST_FILE = 8 << 20
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


class Place(NamedTuple):
    """Where a split is.

    Attributes:
        path: a folder or a zip archive.
        split: its name, for archives that hold several.
    """

    path: Path
    split: str


def locate(data_dir: Path, name: str) -> dict[str, Place] | None:
    """Find the splits of a set, or return None unless training and test are there.

    They are looked for in `data_dir` and in the folder `name` below it: as folders, as
    `train.zip` and so on, or together in `{name}.zip`.
    """
    for root in (data_dir, data_dir / name):
        together = root / f"{name}.zip"
        inside = _splits_inside(together) if together.is_file() else ()
        found = {}
        for split in SPLITS:
            options = [root / split, root / f"{split}.zip"]
            options += [together] if split in inside else []
            there = [p for p in options if p.is_dir() or p.is_file()]
            if there:
                found[split] = Place(there[0], split)
        if "train" in found and "test" in found:
            return found
    return None


def places(paths: Mapping[str, str | os.PathLike]) -> dict[str, Place]:
    """Return the places of splits whose folders or archives the user named."""
    for split, path in paths.items():
        if split not in SPLITS or not Path(path).exists():
            allowed = f"a folder or a zip archive, for {', '.join(SPLITS)}"
            raise UsageError(f"{split} folder", str(path), allowed)
    return {split: Place(Path(path), split) for split, path in paths.items()}


def read(
    found: Mapping[str, Place], classes: Iterable[str], *, channels: int = 1
) -> dict[str, HostSplit]:
    """Read splits whole, by class and then by file name.

    Args:
        found: where each split is.
        classes: names of the folders that each split must have, and no others.
        channels: 1 reads images as grey, 3 as red, green and blue.

    Raises:
        UsageError: naming what is missing, damaged or of another size: one folder, file
            or member of an archive.
    """
    splits: dict[str, HostSplit] = {}
    sizes: dict[str, tuple[int, ...]] = {}
    for split, place in found.items():
        splits[split] = _read_split(place, tuple(classes), channels)
        sizes[split] = splits[split].images.shape[1:3]
        first = next(iter(sizes.values()))
        if sizes[split] != first:
            given = "images of {} x {}".format(*sizes[split])
            allowed = "{} x {}, like the others".format(*first)
            raise UsageError(str(place.path), given, allowed)
    return splits


Listing = dict[str, list[tuple[str, Callable[[], bytes]]]]
"""Files of each class: what messages call a file, and what reads it."""


def _read_split(place: Place, classes: tuple[str, ...], channels: int) -> HostSplit:
    with ExitStack() as stack:
        if place.path.is_dir():
            listing = _list_folder(place.path)
        else:
            archive = stack.enter_context(_opened(place.path))
            listing = _list_archive(archive, place)
        _check_classes(str(place.path), listing, classes)
        images: list[np.ndarray] = []
        labels: list[int] = []
        for label, name in enumerate(sorted(listing)):
            for where, read_bytes in listing[name]:
                image = _decode(_contents(where, read_bytes), where, channels)
                if images and image.shape != images[0].shape:
                    given = "{} x {} pixels".format(*image.shape)
                    allowed = "{} x {}, like the others".format(*images[0].shape)
                    raise UsageError(where, given, allowed)
                images.append(image)
                labels.append(label)
    return HostSplit(np.stack(images), np.asarray(labels, np.int32))


def _list_folder(folder: Path) -> Listing:
    listing: Listing = {}
    for path in sorted(folder.glob("*/*")):
        if _is_png(path.name) and not path.parent.name.startswith("."):
            entry = (str(path), lambda path=path: _read_file(path))
            listing.setdefault(path.parent.name, []).append(entry)
    return listing


def _list_archive(archive: zipfile.ZipFile, place: Place) -> Listing:
    groups: dict[PurePosixPath, Listing] = {}
    for member in sorted(archive.infolist(), key=lambda m: m.filename):
        path = PurePosixPath(member.filename)
        if member.is_dir() or not _is_wanted(path):
            continue
        where = f"{place.path}:{member.filename}"
        entry = (where, lambda member=member: _read_member(archive, member))
        listing = groups.setdefault(path.parent.parent, {})
        listing.setdefault(path.parent.name, []).append(entry)
    own = [group for group in groups if group.name == place.split]
    # An archive of one split need not name it, but must not name another.
    own = own or [group for group in groups if group.name not in SPLITS]
    if len(own) > 1:
        given = f"classes in {', '.join(str(group) for group in own)}"
        raise UsageError(str(place.path), given, "those of one split in one folder")
    return groups[own[0]] if own else {}


def _splits_inside(path: Path) -> set[str]:
    with _opened(path) as archive:
        members = (PurePosixPath(name) for name in archive.namelist())
        return {path.parent.parent.name for path in members if _is_wanted(path)}


def _is_wanted(path: PurePosixPath) -> bool:
    """Tell whether a member is an image in a class folder, and no system's debris."""
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return _is_png(path.name) and len(path.parts) > 1 and not hidden


def _is_png(name: str) -> bool:
    return name.lower().endswith(".png") and not name.startswith(".")


def _check_classes(where: str, listing: Listing, classes: tuple[str, ...]) -> None:
    wanted = f"PNG files in folders {', '.join(classes)}"
    if not listing:
        raise UsageError(where, "no images", wanted)
    absent = [name for name in classes if name not in listing]
    surplus = [name for name in listing if name not in classes]
    if absent:
        raise UsageError(where, f"no images in {', '.join(absent)}", wanted)
    if surplus:
        raise UsageError(where, f"images in {', '.join(surplus)} too", wanted)


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        hint = "The archive is truncated or corrupt: fetch it again"
        raise UsageError(str(path), str(error), "a whole zip archive", hint) from None


def _read_file(path: Path) -> bytes:
    _check_length(path.stat().st_size)
    return path.read_bytes()


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    _check_length(member.file_size)
    return archive.read(member)


def _check_length(length: int) -> None:
    if length > _LARGEST_FILE:
        raise ValueError(f"{length:,} bytes")


def _contents(where: str, read_bytes: Callable[[], bytes]) -> bytes:
    try:
        return read_bytes()
    except Exception as error:  # encrypted, damaged or of an unknown kind
        given = str(error) or type(error).__name__
        allowed = f"a whole PNG file of at most {_LARGEST_FILE:,} bytes"
        raise UsageError(where, given, allowed) from None


def _decode(content: bytes, where: str, channels: int) -> np.ndarray:
    pillow = _pillow()
    try:
        with pillow.open(io.BytesIO(content), formats=["PNG"]) as image:
            width, height = image.size
            if max(width, height) > _LARGEST_SIDE or image.mode not in _MODES:
                raise ValueError(f"{height} x {width} pixels, {image.mode}")
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
            return pixels.reshape(height, width, channels)
    except Exception as error:  # a damaged file can raise nearly anything
        given = str(error) or type(error).__name__
        allowed = f"a PNG file of 8 bits and at most {_LARGEST_SIDE} pixels a side"
        raise UsageError(where, given, allowed) from None


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        hint = "To install it: pip install pillow"
        raise UsageError("PNG files", "no reader", "Pillow", hint) from None
    return Image
