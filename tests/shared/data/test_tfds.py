"""Prepared TFDS copies, from the checked-in tiny ones."""

import json
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest

from shared.data import load, tfds
from shared.data.fetch import FetchError
from shared.errors import UsageError

FIXTURE = Path(__file__).parents[2] / "fixtures" / "tfds.zip"


@pytest.fixture
def copies(tmp_path):
    """A data directory with the prepared copies of MNIST and CIFAR-100."""
    with zipfile.ZipFile(FIXTURE) as archive:
        archive.extractall(tmp_path)
    return tmp_path


def load_partial(*args, **kwargs):
    with pytest.warns(UserWarning, match="24 of .* training images, 8 of"):
        return load(*args, **kwargs)


def ramps(count, shape):
    """The images of the fixture by their number."""
    i, u, v, c = np.ogrid[:count, : shape[0], : shape[1], : shape[2]]
    return ((3 * i + 2 * u + v + 40 * c) % 256).astype(np.uint8)


def test_fixture_is_small():
    assert FIXTURE.stat().st_size < 50_000


def test_mnist_copy(copies):
    data = load_partial("mnist", copies)
    for split, count in ((data.train, 24), (data.test, 8)):
        # The copy has an order of its own; the corner pixel tells the number.
        numbers = np.asarray(split.images)[:, 0, 0, 0] // 3
        np.testing.assert_array_equal(np.sort(numbers), np.arange(count))
        np.testing.assert_array_equal(split.images, ramps(24, (28, 28, 1))[numbers])
        np.testing.assert_array_equal(split.labels, numbers % 10)
    assert data.info.source == str(copies / "mnist" / "3.0.1")


def test_cifar_copy_is_put_in_official_order(copies):
    data = load_partial("cifar100", copies)
    np.testing.assert_array_equal(data.train.images, ramps(24, (32, 32, 3)))
    np.testing.assert_array_equal(data.train.labels, 4 * np.arange(24))
    np.testing.assert_array_equal(data.test.images, ramps(8, (32, 32, 3)))


def test_copy_is_read_without_tensorflow(copies):
    program = f"""
import sys, warnings
warnings.simplefilter("ignore")
from shared.data import load
assert "tensorflow_datasets" not in sys.modules
count = len(load("mnist", {str(copies)!r}).train.labels)
print(count, "tensorflow_datasets" in sys.modules, "tensorflow" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "24 True False\n", done.stderr


def test_tfds_is_not_imported_without_a_copy(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UsageError, match="TFDS copy in mnist/VERSION"):
        load("mnist", tmp_path)


def test_newest_version_is_taken(copies):
    for version in ("3.0.0", "3.0.10", "incomplete.7_3.1.0"):
        folder = copies / "mnist" / version
        folder.mkdir()
        (folder / "dataset_info.json").write_text("{}")
    assert tfds.find(copies, "mnist") == copies / "mnist" / "3.0.10"


def test_other_format_is_refused_with_the_command(copies):
    path = copies / "mnist" / "3.0.1" / "dataset_info.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    with pytest.raises(UsageError, match="tfrecord.*prepare_data mnist --via tfds"):
        load("mnist", copies)


@pytest.mark.parametrize("damage", ["cut", "gone", "zeros", "info"])
def test_damaged_copy_is_named(copies, damage):
    folder = copies / "mnist" / "3.0.1"
    path = next(folder.glob("mnist-train*"))
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "gone":
        path.unlink()
    elif damage == "zeros":
        path.write_bytes(bytes(len(content)))
    else:
        (folder / "dataset_info.json").write_text("{")
    with pytest.raises(UsageError) as raised:
        load("mnist", copies)
    assert str(folder) in raised.value.argument
    assert "\n" not in str(raised.value)


def test_copy_of_another_set_is_refused(copies):
    (copies / "mnist" / "3.0.1").rename(copies / "elsewhere")
    (copies / "cifar10").mkdir()
    (copies / "elsewhere").rename(copies / "cifar10" / "3.0.2")
    with pytest.raises(UsageError, match="28 x 28, L', expected 32 x 32 x 3"):
        load("cifar10", copies)


def test_preparing_needs_tensorflow(monkeypatch, tmp_path):
    monkeypatch.setattr(tfds, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="TensorFlow.*five-nets\\[prepare\\]"):
        tfds.prepare("mnist", tmp_path)


def test_present_copy_is_not_prepared_again(monkeypatch, copies):
    monkeypatch.setattr(tfds, "find_spec", lambda name: None)
    assert tfds.prepare("mnist", copies) == copies / "mnist" / "3.0.1"


def fake_tfds(calls, error=None):
    """Stand in for a TFDS that can prepare."""

    class Builder:
        data_dir = "prepared"

        def download_and_prepare(self, download_dir):
            calls.append(download_dir)
            if error:
                raise error

    def builder(name, data_dir, file_format):
        calls.append((name, data_dir, file_format))
        return Builder()

    class DownloadError(Exception):
        pass

    download = types.SimpleNamespace(DownloadError=DownloadError)
    return types.SimpleNamespace(builder=builder, download=download)


def test_preparing_keeps_the_sets_downloads_apart(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(tfds, "find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake_tfds(calls))
    for name in ("mnist", "kmnist"):
        assert tfds.prepare(name, tmp_path) == Path("prepared")
    assert calls[0] == ("mnist", str(tmp_path), "array_record")
    assert calls[1] != calls[3]


def test_failed_preparing_is_one_line(monkeypatch, tmp_path):
    fake = fake_tfds([], ConnectionError("no\nnetwork"))
    monkeypatch.setattr(tfds, "find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)
    with pytest.raises(FetchError, match="mnist: .*no network"):
        tfds.prepare("mnist", tmp_path)
