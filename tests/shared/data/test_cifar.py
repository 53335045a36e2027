"""CIFAR in its three forms, and archives and pickles that mean harm."""

import dataclasses
import hashlib
import os
import pickle

import numpy as np
import pytest

from shared.data import catalog, load, pickles
from shared.data.catalog import CIFAR
from shared.errors import UsageError
from tests.shared.data import official


def load_partial(*args, **kwargs):
    with pytest.warns(UserWarning, match="is partial"):
        return load(*args, **kwargs)


def expect(name, version, parts, data):
    layout = CIFAR[name][version]
    for split, files in ((data.train, layout.train), (data.test, layout.test)):
        labels = np.concatenate([parts[file][0] for file in files])
        images = np.concatenate([parts[file][1] for file in files])
        np.testing.assert_array_equal(split.labels, labels)
        np.testing.assert_array_equal(split.images, images.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_binary_folder(tmp_path, name):
    parts, files = official.cifar_files(name, 0)
    official.write_folder(tmp_path, name, files)
    data = load_partial(name, tmp_path)
    expect(name, 0, parts, data)
    assert data.info.classes == len(data.info.class_names)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("version", [0, 1])
def test_archive(tmp_path, name, version):
    parts, files = official.cifar_files(name, version)
    layout = CIFAR[name][version]
    members = {f"{layout.folder}/{file}": content for file, content in files.items()}
    path = official.write_archive(tmp_path / layout.archive, members)
    data = load_partial(name, tmp_path)
    expect(name, version, parts, data)
    assert data.info.source == str(path)


def test_binary_archive_goes_before_the_pickled_one(tmp_path):
    for version in (0, 1):
        _, files = official.cifar_files("cifar100", version)
        layout = CIFAR["cifar100"][version]
        members = {
            f"{layout.folder}/{file}": content for file, content in files.items()
        }
        official.write_archive(tmp_path / layout.archive, members)
    data = load_partial("cifar100", tmp_path)
    assert data.info.source == str(tmp_path / "cifar-100-binary.tar.gz")


def test_superclasses_have_five_classes_each():
    coarse = catalog.SETS["cifar100"].coarse
    np.testing.assert_array_equal(np.bincount(coarse), np.full(20, 5))
    names = catalog.SETS["cifar100"].class_names
    fish = {name for name, group in zip(names, coarse, strict=True) if group == 1}
    assert fish == {"aquarium_fish", "flatfish", "ray", "shark", "trout"}


def test_short_test_file_warns_with_the_counts(tmp_path):
    _, files = official.cifar_files("cifar10", 0)
    official.write_folder(tmp_path, "cifar10", files)
    with pytest.warns(UserWarning, match="15 of 50,000 .*, 3 of 10,000") as caught:
        load("cifar10", tmp_path)
    assert len(caught) == 1


def test_archive_goes_before_a_folder_with_short_files(tmp_path):
    _, files = official.cifar_files("cifar10", 0, rows=2)
    official.write_folder(tmp_path, "cifar10", files)
    parts, files = official.cifar_files("cifar10", 0, rows=3)
    members = {f"./cifar-10-batches-bin/{f}": content for f, content in files.items()}
    official.write_archive(tmp_path / "cifar-10-binary.tar.gz", members)
    expect("cifar10", 0, parts, load_partial("cifar10", tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[:-1], "9,218 bytes', expected whole records of 3,073 bytes"),
        (lambda c: b"", "0 bytes"),
        (lambda c: b"\x0a" + c[1:], "label 10 at row 0', expected labels from 0 to 9"),
        (lambda c: c * 4000, "36,876,000 bytes"),
    ],
)
def test_bad_batch_is_named(tmp_path, change, message):
    _, files = official.cifar_files("cifar10", 0)
    files["data_batch_3.bin"] = change(files["data_batch_3.bin"])
    folder = official.write_folder(tmp_path, "cifar10", files)
    with pytest.raises(UsageError, match=message) as raised:
        load("cifar10", tmp_path)
    assert raised.value.argument == str(folder / "data_batch_3.bin")


def test_superclass_out_of_range(tmp_path):
    _, files = official.cifar_files("cifar100", 0)
    files["test.bin"] = b"\x14" + files["test.bin"][1:]
    official.write_folder(tmp_path, "cifar100", files)
    with pytest.raises(UsageError, match="test.bin.*superclass 20 at row 0"):
        load("cifar100", tmp_path)


def test_official_batch_under_another_name_is_refused(monkeypatch, tmp_path):
    _, files = official.cifar_files("cifar10", 0)
    binary, pickled = CIFAR["cifar10"]
    digest = hashlib.md5(files["data_batch_2.bin"]).hexdigest()
    train = {**binary.train, "data_batch_1.bin": digest}
    layouts = (dataclasses.replace(binary, train=train), pickled)
    monkeypatch.setitem(catalog.CIFAR, "cifar10", layouts)
    official.write_folder(tmp_path, "cifar10", files)
    with pytest.raises(UsageError, match="data_batch_2.*the official data_batch_1"):
        load("cifar10", tmp_path)


def test_truncated_archive_is_named(tmp_path):
    _, files = official.cifar_files("cifar10", 0)
    members = {f"cifar-10-batches-bin/{f}": content for f, content in files.items()}
    path = official.write_archive(tmp_path / "cifar-10-binary.tar.gz", members)
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(UsageError, match="whole .tar.gz") as raised:
        load("cifar10", tmp_path)
    assert raised.value.argument == str(path)


def test_archive_without_a_member_is_refused(tmp_path):
    _, files = official.cifar_files("cifar10", 0)
    members = {f"cifar-10-batches-bin/{f}": content for f, content in files.items()}
    del members["cifar-10-batches-bin/test_batch.bin"]
    official.write_archive(tmp_path / "cifar-10-binary.tar.gz", members)
    with pytest.raises(UsageError, match="an archive without test_batch.bin"):
        load("cifar10", tmp_path)


def test_archive_writes_nothing_anywhere(tmp_path):
    _, files = official.cifar_files("cifar10", 0)
    members = {f"cifar-10-batches-bin/{f}": content for f, content in files.items()}
    members["../escaped.bin"] = b"outside"
    members[str(tmp_path / "absolute.bin")] = b"outside"
    # A member that only ends like a wanted one is not it.
    members["../cifar-10-batches-bin/test_batch.bin"] = b"other"
    folder = tmp_path / "data"
    folder.mkdir()
    official.write_archive(folder / "cifar-10-binary.tar.gz", members)
    load_partial("cifar10", folder)
    assert sorted(os.listdir(tmp_path)) == ["data"]
    assert os.listdir(folder) == ["cifar-10-binary.tar.gz"]


class Hostile:
    """Pickles as a call of a function of the machine."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def test_hostile_pickle_is_refused_before_anything_runs(tmp_path):
    _, files = official.cifar_files("cifar10", 1)
    ran = tmp_path / "ran"
    payload = {"data": Hostile(os.mkdir, str(ran)), "labels": []}
    files["data_batch_2"] = pickle.dumps(payload, protocol=2)
    members = {f"cifar-10-batches-py/{f}": content for f, content in files.items()}
    official.write_archive(tmp_path / "cifar-10-python.tar.gz", members)
    with pytest.raises(UsageError, match="data_batch_2.*asks for posix.mkdir"):
        load("cifar10", tmp_path)
    assert not ran.exists()


@pytest.mark.parametrize(
    "value",
    [
        Hostile(np.load, "x"),
        Hostile(eval, "1"),
        Hostile(getattr, "x", "upper"),
        np.array([1, "a"], object),
        np.float64(1.0),
    ],
)
def test_nothing_but_integer_arrays_is_rebuilt(value):
    with pytest.raises(UsageError, match="file.pkl"):
        pickles.load(pickle.dumps({"data": value}), "file.pkl")


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x02]", b"\x80\x02]q\x01.", b"nonsense"]
)
def test_broken_pickle_is_a_usage_error(content):
    with pytest.raises(UsageError, match="pickled dictionary of NumPy arrays"):
        pickles.load(content, "file.pkl")


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", ["u1", "<i4", ">i8"])
def test_arrays_of_every_protocol_come_back(protocol, kind):
    array = np.arange(12).reshape(3, 4).astype(kind)
    content = pickle.dumps({"c": array, "f": np.asfortranarray(array)}, protocol)
    loaded = pickles.load(content, "file.pkl")
    np.testing.assert_array_equal(loaded["c"], array)
    np.testing.assert_array_equal(loaded["f"], array)
    assert loaded["c"].dtype == array.dtype


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_names_of_both_numpy_generations(module):
    part = (official.labels(2), official.pixels(2, (3, 32, 32)))
    loaded = pickles.load(official.python2_pickle("labels", part, module=module), "f")
    np.testing.assert_array_equal(loaded["data"], part[1].reshape(2, -1))
    assert loaded["labels"] == part[0].tolist()
