"""Prepared TFDS copies, read without TensorFlow, and the preparing, which needs it.

A copy lies in `NAME/VERSION/` below the data directory, in array_record form. TFDS
stores the images of a set in a shuffled order of its own; where the records carry
their official number (CIFAR), the official order is restored.
"""

import io
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from shared.data.catalog import ImageSet
from shared.data.dataset import Found, HostSplit, check_labels
from shared.data.fetch import FetchError
from shared.errors import UsageError

_INFO = "dataset_info.json"
_BATCH = 4096


def find(data_dir: Path, name: str) -> Path | None:
    """Return the directory of the newest prepared version, or None."""
    versions = [
        path.parent
        for path in (data_dir / name).glob(f"*/{_INFO}")
        if all(part.isdigit() for part in path.parent.name.split("."))
    ]
    key = lambda path: [int(part) for part in path.name.split(".")]
    return max(versions, key=key, default=None)


def read(data_dir: Path, spec: ImageSet) -> Found | None:
    """Read a prepared copy into arrays, or return None if there is none.

    Raises:
        UsageError: for a copy in another format, with other features, or damaged.
    """
    # TFDS itself, given a directory without the set, retries the network for minutes.
    directory = find(data_dir, spec.name)
    if directory is None:
        return None
    _check_format(directory, spec.name)
    import tensorflow_datasets as tfds

    try:
        builder: Any = tfds.builder_from_directory(str(directory))
        train = _read_split(builder, "train", spec, directory)
        test = _read_split(builder, "test", spec, directory)
    except UsageError:
        raise
    except ImportError as error:
        hint = "Install it: pip install array_record"
        given = f"no {error.name or 'array_record'}"
        raise UsageError(
            str(directory), given, "the package array_record", hint
        ) from None
    except Exception as error:  # array_record and protobuf raise types of their own
        given = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            str(directory), given, f"a whole TFDS copy of {spec.name}"
        ) from None
    return Found(train, test, source=str(directory))


def prepare(name: str, data_dir: Path) -> Path:
    """Download a set and prepare it through TFDS; return its directory.

    Raises:
        UsageError: if TensorFlow is not installed.
        FetchError: if the download fails.
    """
    found = find(data_dir, name)
    if found is not None:
        return found
    if find_spec("tensorflow") is None:
        hint = 'Install it: pip install "five-nets[prepare]"'
        raise UsageError("--via", "tfds", "an installation with TensorFlow", hint)
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=str(data_dir), file_format="array_record")
    # One folder a set: TFDS keys extracted files by name alone, and the files of
    # MNIST, Fashion-MNIST and KMNIST have the same names.
    downloads = data_dir / "downloads" / name
    try:
        builder.download_and_prepare(download_dir=str(downloads))
    except (OSError, tfds.download.DownloadError) as error:
        reason = " ".join(str(error).split())
        raise FetchError(f"{name}: TFDS could not fetch it: {reason}") from error
    return Path(builder.data_dir)


def _check_format(directory: Path, name: str) -> None:
    path = directory / _INFO
    try:
        info = json.loads(path.read_text())
        given = info.get("fileFormat", "tfrecord")
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(str(path), str(error), "the description of a set") from None
    if given != "array_record":
        hint = (
            f"Remove it and run: python -m scripts.prepare_data {name} "
            f"--via tfds --data-dir {directory.parent.parent}"
        )
        raise UsageError(str(path), f"file format {given}", "array_record", hint)


def _read_split(builder: Any, split: str, spec: ImageSet, directory: Path) -> HostSplit:
    import tensorflow_datasets as tfds

    where = f"{directory} ({split})"
    limit = spec.rows[0 if split == "train" else 1]
    # Undecoded images: TFDS would decode them one by one through a slower path.
    decoders: Any = {"image": tfds.decode.SkipDecoding()}
    source: Any = builder.as_data_source(split=split, decoders=decoders)
    if not 1 <= len(source) <= limit:
        raise UsageError(where, f"{len(source):,} images", f"1 to {limit:,} images")
    images = np.empty((len(source), *spec.shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    numbers = np.arange(len(source))
    for start in range(0, len(source), _BATCH):
        rows = list(range(start, min(start + _BATCH, len(source))))
        for row, record in zip(rows, source.__getitems__(rows), strict=True):
            images[row] = _decode(record["image"], spec, where)
            labels[row] = record["label"]
            if "id" in record:
                numbers[row] = int(record["id"].decode().rpartition("_")[2])
    check_labels(where, labels, len(spec.class_names))
    order = np.argsort(numbers, kind="stable")
    return HostSplit(images[order], labels[order])


def _decode(png: bytes, spec: ImageSet, where: str) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        height, width, channels = spec.shape
        if image.size != (width, height) or len(image.getbands()) != channels:
            given = f"an image of {image.size[1]} x {image.size[0]}, {image.mode}"
            raise UsageError(where, given, "{} x {} x {}".format(*spec.shape))
        return np.frombuffer(image.tobytes(), np.uint8).reshape(spec.shape)
