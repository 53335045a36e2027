"""Reference values of the data sets: what their readers return."""

import pickle
import tempfile
import warnings
from pathlib import Path

import numpy as np
from jax import numpy as jnp

from enasq import data, pixels
from tests.parity.runner import Tolerance

EXACT = Tolerance(0.0)
CLOSE = Tolerance(1e-5, 1e-5)
LEVEL = Tolerance(0.0, 1.0)


def _write_batches(folder, npz):
    """Write the pickled batches that the images came from."""
    train = zip(
        np.array_split(npz["train_raw"], 5),
        np.array_split(npz["train_labels_raw"], 5),
        strict=True,
    )
    for number, (images, labels) in enumerate(train, 1):
        batch = {"data": images, "labels": labels.tolist()}
        (folder / f"data_batch_{number}").write_bytes(pickle.dumps(batch))
    # Labels of the test images stand there as they come out.
    batch = {"data": npz["test_raw"], "labels": npz["y_test"].tolist()}
    (folder / "test_batch").write_bytes(pickle.dumps(batch))


def _run_cifar(npz, dtype):
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* is partial")
        _write_batches(Path(name), npz)
        valid = int(npz["num_valids"])
        sets = data.load("cifar10", name, valid=valid, compat=True)
    images = {split: data.whole(sets, split).images for split in sets._fields[:3]}
    assert all(value.dtype == dtype for value in images.values())
    # Added in double precision: the images are compared, not the additions.
    train = np.asarray(images["train"], np.float64)
    ours = {
        "n_train": sets.info.counts.train,
        "train_first": images["train"][0],
        "valid_last": images["valid"][-1],
        "test_first": images["test"][0],
        "sum_train": train.sum(),
        "sum_abs_train": np.abs(train).sum(),
        **{f"y_{split}": getattr(sets, split).labels for split in images},
    }
    return {name: (value, npz[name]) for name, value in ours.items()}


def _cifar_tolerance(name, npz, dtype):
    if name in ("train_raw", "train_labels_raw", "test_raw", "num_valids"):
        return None
    if name == "n_train" or name.startswith("y_"):
        return EXACT
    if name == "sum_train":
        # Its terms cancel: it is as accurate as they are together.
        return Tolerance(1e-5, 1e-5 * float(npz["sum_abs_train"]))
    return CLOSE


def _run_mnist(npz, dtype):
    golden = npz["resized"]
    images = pixels.with_channels(npz["raw"][..., None], golden.shape[-1])
    resized = pixels.resize(jnp.asarray(images), golden.shape[1])
    # What follows starts from the golden grey levels: they may differ by one.
    norm = pixels.per_image(golden)
    normalised = pixels.scaled(jnp.asarray(golden), norm)
    assert normalised.dtype == dtype
    ours = {
        "resized": resized,
        "mean": norm.mean[0],
        "std": norm.std[0],
        "normalised": normalised,
    }
    return {name: (value, npz[name]) for name, value in ours.items()}


def _mnist_tolerance(name, npz, dtype):
    if name in ("raw", "raw_labels"):
        return None
    return LEVEL if name == "resized" else CLOSE


CASES = (
    (
        lambda keys, meta, stem: {"train_raw", "train_first"} <= keys,
        _run_cifar,
        _cifar_tolerance,
    ),
    (
        lambda keys, meta, stem: {"raw", "resized", "normalised"} <= keys,
        _run_mnist,
        _mnist_tolerance,
    ),
)
