"""Tiny sets of images in the forms that users have them in."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = tuple("0123456789")
COUNTS = {"train": 3, "valid": 1, "test": 2}


def png(pixels: np.ndarray) -> bytes:
    """Return an image `[h, w]` or `[h, w, 3]` as the bytes of a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def pixels(split: str, label: int, number: int, shape=(28, 28)) -> np.ndarray:
    """Return the image that stands at a place of the tiny set."""
    seed = (list(COUNTS).index(split), label, number)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def members(split: str, shape=(28, 28)) -> dict[str, bytes]:
    """Return the files of a split by their path, `class/number.png`."""
    return {
        f"{name}/{number}.png": png(pixels(split, label, number, shape))
        for label, name in enumerate(CLASSES)
        for number in range(COUNTS[split])
    }


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    """Write files as the members of an archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_set(root: Path, shape=(28, 28)) -> Path:
    """Write all splits as folders."""
    for split in COUNTS:
        write_folder(root / split, members(split, shape))
    return root


def write_cifar(folder: Path, rows: int = 4) -> dict[str, np.ndarray]:
    """Write six pickled batches; return the planes of each, `[rows, 3072]`."""
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    folder.mkdir(parents=True, exist_ok=True)
    planes = {}
    for number, name in enumerate(names):
        random = np.random.default_rng(number)
        planes[name] = random.integers(0, 256, (rows, 3072)).astype(np.uint8)
        labels = [(number + row) % 10 for row in range(rows)]
        content = pickle.dumps({"data": planes[name], "labels": labels}, protocol=2)
        (folder / name).write_bytes(content)
    return planes
