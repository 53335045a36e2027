"""Loading by name: digits, the IDX sets, splits, statistics, warnings, errors."""

import dataclasses
import gzip
import hashlib
import tracemalloc
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shared.data import catalog, load
from shared.data.catalog import IDX_FILES, SETS
from shared.data.dataset import channel_statistics
from shared.errors import UsageError
from tests.shared.data import official


def load_partial(*args, **kwargs):
    with pytest.warns(UserWarning, match="is partial"):
        return load(*args, **kwargs)


def test_digits_are_the_uci_test_set_in_the_fixed_order():
    data = load("digits")
    assert data.train.images.shape == (1437, 8, 8, 1)
    assert data.test.images.shape == (360, 8, 8, 1)
    assert data.train.images.dtype == jnp.uint8
    assert data.train.labels.dtype == jnp.int32
    images = np.concatenate([data.train.images, data.test.images])
    labels = np.concatenate([data.train.labels, data.test.labels])
    original = np.argsort(np.random.default_rng(0).permutation(1797))
    # The distribution starts with 0..9 three times over.
    np.testing.assert_array_equal(labels[original][:30], np.arange(30) % 10)
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    np.testing.assert_array_equal(np.bincount(labels), counts)
    first = images[original][0, ..., 0]
    np.testing.assert_array_equal(first[0], [0, 0, 5, 13, 9, 1, 0, 0])
    assert images.max() == data.info.scale == 16
    assert (data.info.classes, data.info.shape) == (10, (8, 8, 1))
    assert data.info.complete and data.info.verified == "official"


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_are_read_as_written(tmp_path, name, packed):
    arrays = official.write_idx(tmp_path, name, packed=packed)
    data = load_partial(name, tmp_path)
    splits = [data.train.images[..., 0], data.train.labels]
    splits += [data.test.images[..., 0], data.test.labels]
    for ours, written in zip(splits, arrays, strict=True):
        np.testing.assert_array_equal(ours, written)
    assert data.valid.images.shape == (0, 28, 28, 1)
    assert data.info.verified == "partial" and not data.info.complete


def test_partial_set_gives_one_warning_with_the_counts(tmp_path):
    official.write_idx(tmp_path, train=24, test=8)
    with pytest.warns(UserWarning) as caught:
        data = load("mnist", tmp_path)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "24 of 60,000 training images, 8 of 10,000 test images" in message
    assert data.info.summary in message.replace(
        f" in {data.info.source} is partial", ""
    )


def test_partial_names_stand_for_the_training_files(tmp_path):
    images, labels, *_ = official.write_idx(tmp_path, "kmnist", train=11)
    for name in IDX_FILES[:2]:
        path = tmp_path / "kmnist" / f"{name}.gz"
        path.rename(path.with_name(path.name.replace("train-", "train-first11-")))
    data = load_partial("kmnist", tmp_path)
    np.testing.assert_array_equal(data.train.images[..., 0], images)
    np.testing.assert_array_equal(data.train.labels, labels)


def test_valid_split_is_the_end_of_train(tmp_path):
    images, labels, *_ = official.write_idx(tmp_path, train=24)
    whole = load_partial("mnist", tmp_path)
    data = load_partial("mnist", tmp_path, valid_size=5)
    np.testing.assert_array_equal(data.train.images[..., 0], images[:19])
    np.testing.assert_array_equal(data.valid.images[..., 0], images[19:])
    np.testing.assert_array_equal(data.valid.labels, labels[19:])
    assert data.info.counts == (19, 5, 8)
    assert (data.info.mean, data.info.std) == (whole.info.mean, whole.info.std)


@pytest.mark.parametrize("size", [-1, 1437, 10_000])
def test_valid_size_must_leave_training_images(size):
    with pytest.raises(UsageError, match="valid_size"):
        load("digits", valid_size=size)


@pytest.mark.parametrize("shape", [(700, 4, 4, 3), (1, 2, 2, 1)])
def test_statistics_are_those_of_the_scaled_images(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    mean, std = channel_statistics(images, 255)
    scaled = images / 255.0
    np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std((0, 1, 2)), rtol=1e-9)


def small_mnist(monkeypatch, tmp_path, change=lambda sums: sums):
    """Pretend that MNIST has 24 + 8 images, with the checksums of the files here."""
    official.write_idx(tmp_path)
    files = [tmp_path / "mnist" / f"{name}.gz" for name in IDX_FILES]
    packed = [path.read_bytes() for path in files]
    sums = [
        (hashlib.md5(p).hexdigest(), hashlib.md5(gzip.decompress(p)).hexdigest())
        for p in packed
    ]
    monkeypatch.setitem(catalog.IDX, "mnist", tuple(change(sums)))
    spec = dataclasses.replace(SETS["mnist"], rows=(24, 8))
    monkeypatch.setitem(SETS, "mnist", spec)


def test_official_files_load_without_a_word(monkeypatch, tmp_path):
    small_mnist(monkeypatch, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load("mnist", tmp_path)
    assert data.info.verified == "official" and data.info.complete


def test_unpacked_official_files_are_official(monkeypatch, tmp_path):
    small_mnist(monkeypatch, tmp_path)
    for path in (tmp_path / "mnist").iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert load("mnist", tmp_path).info.verified == "official"


def test_other_checksum_at_official_counts_warns(monkeypatch, tmp_path):
    small_mnist(monkeypatch, tmp_path, lambda s: [*s[:3], ("0" * 32, "0" * 32)])
    with pytest.warns(UserWarning, match="another checksum.*t10k-labels") as caught:
        data = load("mnist", tmp_path)
    assert len(caught) == 1 and "train-images" not in str(caught[0].message)
    assert data.info.verified == "modified" and data.info.complete


def test_official_file_under_another_name_is_refused(monkeypatch, tmp_path):
    small_mnist(monkeypatch, tmp_path, lambda s: [s[2], s[1], s[0], s[3]])
    with pytest.raises(UsageError, match="train-images.*official mnist/t10k-images"):
        load("mnist", tmp_path)


def spoil_pack(change):
    return lambda content: gzip.compress(change(gzip.decompress(content)), mtime=0)


SPOILED = {
    "truncated gzip": (0, lambda c: c[:-20], "whole gzip file"),
    "half of the gzip": (0, lambda c: c[: len(c) // 2], "whole gzip file"),
    "not a gzip": (0, lambda c: b"hello", "whole gzip file"),
    "empty": (1, lambda c: b"", "IDX header of 8 bytes"),
    "wrong magic": (2, spoil_pack(lambda c: b"\0\0\x0d" + c[3:]), "magic number"),
    "short": (2, spoil_pack(lambda c: c[:-1]), "rows that its header states"),
    "long": (3, spoil_pack(lambda c: c + b"\0"), "rows that its header states"),
    "images as labels": (
        1,
        lambda c: gzip.compress(official.idx_bytes(official.pixels(24, (28, 28)))),
        r"magic number 2051 \(images\)', expected magic number 2049 \(labels\)",
    ),
    "labels as images": (
        0,
        lambda c: gzip.compress(official.idx_bytes(official.labels(24))),
        r"magic number 2049 \(labels\)', expected magic number 2051 \(images\)",
    ),
    "other image size": (
        0,
        lambda c: gzip.compress(official.idx_bytes(official.pixels(24, (28, 27)))),
        "28 x 27 pixels', expected 28 x 28",
    ),
    "label out of range": (
        1,
        spoil_pack(lambda c: c[:-1] + b"\x0a"),
        "label 10 at row 23', expected labels from 0 to 9",
    ),
    "fewer labels than images": (
        3,
        lambda c: gzip.compress(official.idx_bytes(official.labels(7))),
        "'7 labels', expected one for each of the 8 images",
    ),
    "no rows": (
        3,
        lambda c: gzip.compress(official.idx_bytes(official.labels(0))),
        "0 rows",
    ),
    "more rows than there are": (
        3,
        lambda c: gzip.compress(official.idx_bytes(official.labels(10_001))),
        "10,001 rows', expected 1 to 10,000 rows",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_bad_idx_file_is_named(tmp_path, case):
    index, change, message = SPOILED[case]
    official.write_idx(tmp_path)
    path = tmp_path / "mnist" / f"{IDX_FILES[index]}.gz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UsageError, match=message) as raised:
        load("mnist", tmp_path)
    assert raised.value.argument == str(path)
    assert "\n" not in str(raised.value)


def test_gzip_bomb_is_not_unpacked(tmp_path):
    official.write_idx(tmp_path)
    path = tmp_path / "mnist" / f"{IDX_FILES[1]}.gz"
    # 150 MB of zeros behind the labels, in a file of a plausible size.
    path.write_bytes(path.read_bytes() + gzip.compress(bytes(10**7)) * 15)
    tracemalloc.start()
    with pytest.raises(UsageError, match="'more bytes', expected 32 bytes"):
        load("mnist", tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 10**8
    tracemalloc.stop()


def test_missing_set_names_files_directory_and_command(tmp_path):
    folder = tmp_path / "my data"
    folder.mkdir()
    with pytest.raises(UsageError) as raised:
        load("fashion_mnist", folder)
    message = str(raised.value)
    for name in IDX_FILES:
        assert f"fashion_mnist/{name}.gz" in message
    assert str(folder) in message and "\n" not in message
    command = f"python -m scripts.prepare_data fashion_mnist --data-dir '{folder}'"
    assert command in message


def test_one_missing_file_is_named(tmp_path):
    official.write_idx(tmp_path)
    (tmp_path / "mnist" / f"{IDX_FILES[1]}.gz").unlink()
    with pytest.raises(UsageError, match=rf"without mnist/{IDX_FILES[1]}.gz\)"):
        load("mnist", tmp_path)


def test_absent_directory_is_said(tmp_path):
    with pytest.raises(UsageError, match="no directory"):
        load("cifar10", tmp_path / "nowhere")


def test_without_directory_the_option_is_named():
    with pytest.raises(UsageError, match="Pass --data-dir DIR.*prepare_data mnist"):
        load("mnist")


def test_unknown_name_gets_the_closest():
    with pytest.raises(UsageError, match="cifar100.*Did you mean 'fashion_mnist'"):
        load("fashion-mnist")


def test_info_is_static_under_jit():
    data = load("digits")
    doubled = jax.jit(
        lambda d: d._replace(train=jax.tree.map(lambda a: a + a, d.train))
    )
    assert doubled(data).info == data.info
