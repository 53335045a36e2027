"""Files of the Mathematics Dataset: its release, never unpacked, or generated ones.

A file holds one module; a line with a question is followed by one with its answer.
"""

import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from shared.errors import UsageError, closest

RELEASE = "mathematics_dataset-v1.0"
ARCHIVE = f"{RELEASE}.tar.gz"
DIFFICULTIES = ("easy", "medium", "hard")
PLACES = (*(f"train-{name}" for name in DIFFICULTIES), "interpolate", "extrapolate")
LONGEST_QUESTION, LONGEST_ANSWER = 160, 30
HINT = (
    f"Download {ARCHIVE} from github.com/google-deepmind/mathematics_dataset, or "
    "generate the files with the package mathematics_dataset"
)


def read(module: str, data_dir: str | os.PathLike) -> dict[str, list[tuple[str, str]]]:
    """Return the questions and answers of a module by place, see `PLACES`.

    There may be no file in `extrapolate`; there, it is the first one whose name starts
    with that of the module.

    Args:
        module: such as arithmetic__add_or_sub.
        data_dir: holds the archive of the release, or the five directories, in
            itself or in the directory of the release.

    Raises:
        UsageError: naming the file that is missing, truncated or of another kind.
    """
    directory = Path(data_dir)
    folders = [f for f in (directory / RELEASE, directory) if (f / PLACES[0]).is_dir()]
    archive = directory / ARCHIVE
    if folders:
        found = _read_folder(folders[0], module)
        where = folders[0]
    elif archive.is_file():
        found, where = _read_archive(archive, module), archive
    else:
        given = str(directory) if directory.is_dir() else f"{directory} (no directory)"
        needed = f"a directory with {ARCHIVE}, or with {', '.join(PLACES)}"
        raise UsageError("data_dir", given, needed, HINT)
    for place in PLACES[:4]:
        if place not in found:
            given = f"no {place}/{module}.txt"
            raise UsageError(str(where), given, "a file of each of these places", HINT)
    return {place: _pairs(*found[place]) for place in PLACES if place in found}


def _read_folder(folder: Path, module: str) -> dict[str, tuple[str, bytes]]:
    names = {
        place: [path.name for path in sorted((folder / place).glob("*.txt"))]
        for place in PLACES
    }
    _check_module(module, names[PLACES[0]], str(folder / PLACES[0]))
    found = {}
    for place in PLACES:
        chosen = [name for name in names[place] if _belongs(place, name, module)]
        if chosen:
            path = folder / place / chosen[0]
            try:
                found[place] = (str(path), path.read_bytes())
            except OSError as error:
                reason = error.strerror or "unreadable"
                raise UsageError(str(path), reason, "a readable file") from None
    return found


def _read_archive(path: Path, module: str) -> dict[str, tuple[str, bytes]]:
    """Read the wanted members one after the other, up to the last one.

    Whether there is one in `extrapolate` shows only at the end of the archive.
    """
    found: dict[str, tuple[str, bytes]] = {}
    names = []
    try:
        for place, name, content in _members(path, module):
            names.append(name)
            if content is not None and name <= _name(found, place, name):
                found[place] = (f"{path}:{place}/{name}", content)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        hint = "The archive is truncated or corrupt: download it again"
        raise UsageError(str(path), str(error), "a whole .tar.gz", hint) from None
    _check_module(module, names, str(path))
    return found


def _members(path: Path, module: str) -> Iterator[tuple[str, str, bytes | None]]:
    """Yield place, name and, where it belongs to the module, content of each member."""
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            inside = PurePosixPath(member.name)
            place = inside.parent.name
            if not member.isfile() or place not in PLACES:
                continue
            stream = None
            if _belongs(place, inside.name, module):
                stream = archive.extractfile(member)
            yield place, inside.name, stream.read() if stream else None


def _name(found: dict[str, tuple[str, bytes]], place: str, default: str) -> str:
    return found[place][0].rpartition("/")[2] if place in found else default


def _belongs(place: str, name: str, module: str) -> bool:
    if place == "extrapolate":
        return name.startswith(module) and name.endswith(".txt")
    return name == f"{module}.txt"


def _check_module(module: str, names: list[str], where: str) -> None:
    modules = sorted({name.removesuffix(".txt") for name in names})
    if module not in modules:
        near = closest(module, modules)
        hint = f"Did you mean {near!r}?" if near else HINT
        raise UsageError("math_task", module, f"a module in {where}", hint)


def _pairs(where: str, content: bytes) -> list[tuple[str, str]]:
    """Return questions and answers; what is no such file is refused."""
    try:
        lines = content.decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise UsageError(where, "bytes that are not ASCII", "a text file") from None
    whole = content.endswith(b"\n")
    if not lines or len(lines) % 2 or not whole:
        given = f"{len(lines):,} lines, the last one {'whole' if whole else 'cut off'}"
        allowed = "whole lines, of questions and answers in turn"
        raise UsageError(where, given, allowed, "The file is truncated")
    for number, line in enumerate(lines, 1):
        longest = LONGEST_QUESTION if number % 2 else LONGEST_ANSWER
        if not 0 < len(line) <= longest:
            given = f"{len(line)} characters in line {number}"
            raise UsageError(where, given, f"1 to {longest}: question, answer, ...")
    return list(zip(lines[::2], lines[1::2], strict=True))
