"""Tiny files in the official formats, written the way the distributions do."""

import gzip
import io
import struct
import tarfile
from pathlib import Path

import numpy as np

from shared.data.catalog import CIFAR, IDX_FILES


def pixels(count: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return random images `[count, *shape]`."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def labels(count: int, classes: int = 10) -> np.ndarray:
    """Return labels that run through the classes."""
    return (np.arange(count) * 7 % classes).astype(np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    """Return an array of bytes in IDX form."""
    header = struct.pack(f">{array.ndim + 1}I", 2048 + array.ndim, *array.shape)
    return header + array.tobytes()


def write_idx(data_dir: Path, name: str = "mnist", *, train=24, test=8, packed=True):
    """Write the four files of an IDX set; return their arrays in official order."""
    arrays = [
        pixels(train, (28, 28), 1),
        labels(train),
        pixels(test, (28, 28), 2),
        labels(test),
    ]
    folder = data_dir / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, array in zip(IDX_FILES, arrays, strict=True):
        content = idx_bytes(array)
        if packed:
            (folder / f"{file}.gz").write_bytes(gzip.compress(content, mtime=0))
        else:
            (folder / file).write_bytes(content)
    return arrays


def cifar_parts(name: str, layout, rows: int = 3) -> dict[str, tuple]:
    """Return (labels, channels-first images) for each file of a layout."""
    classes = 10 if name == "cifar10" else 100
    files = (*layout.train, *layout.test)
    return {
        file: (labels(rows, classes), pixels(rows, (3, 32, 32), seed))
        for seed, file in enumerate(files)
    }


def cifar_binary(lead: int, part: tuple) -> bytes:
    """Return one file of the binary version, `lead` label bytes a record."""
    fine, images = part
    columns = [(fine + 3) % 20, fine][2 - lead :]
    rows = [*(c[:, None] for c in columns), images.reshape(len(fine), -1)]
    return np.concatenate(rows, 1).astype(np.uint8).tobytes()


def python2_pickle(label_key: str, part: tuple, *, module="numpy.core.multiarray"):
    """Return one file of the pickled version, opcode by opcode as Python 2 wrote it."""
    fine, images = part
    data = images.reshape(len(fine), -1)

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    number = lambda value: b"J" + struct.pack("<i", value)
    kind = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
    kind += b"(K\x03" + text(b"|") + b"NNN" + number(-1) + number(-1) + b"K\x00tb"
    array = b"c" + module.encode() + b"\n_reconstruct\ncnumpy\nndarray\n"
    array += b"K\x00\x85" + text(b"b") + b"\x87R(K\x01"
    array += number(data.shape[0]) + number(data.shape[1]) + b"\x86" + kind + b"\x89"
    array += b"T" + struct.pack("<i", data.nbytes) + data.tobytes() + b"tb"
    values = b"](" + b"".join(number(int(value)) for value in fine) + b"e"
    items = text(b"data") + array + text(label_key.encode()) + values
    items += text(b"batch_label") + text(b"one of many")
    return b"\x80\x02}(" + items + b"u."


def cifar_files(name: str, version: int, rows: int = 3) -> tuple[dict, dict]:
    """Return the parts of a set and its files, binary (0) or pickled (1)."""
    layout = CIFAR[name][version]
    parts = cifar_parts(name, layout, rows)
    write = python2_pickle if version else cifar_binary
    how = layout.label_key if version else layout.label_bytes
    return parts, {file: write(how, part) for file, part in parts.items()}


def write_folder(data_dir: Path, name: str, files: dict[str, bytes]) -> Path:
    """Write the binary version's folder."""
    folder = data_dir / CIFAR[name][0].folder
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return folder


def write_archive(path: Path, members: dict[str, bytes]) -> Path:
    """Write a .tar.gz with members of the given names."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
