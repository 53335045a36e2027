"""Pictures and histograms reach the places that can show them, and only those."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from shared import runs, sinks

CONFIG = {"seed": 0}


class Writer:
    """Stands in for TensorBoard's writer."""

    calls: list

    def __init__(self, folder, purge_step, filename_suffix):
        self.folder = Path(folder).name

    def add_image(self, name, image, step, dataformats):
        self.calls.append((self.folder, name, image, step, dataformats))

    def add_histogram(self, name, values, step):
        self.calls.append((self.folder, name, values, step))

    def close(self):
        pass


@pytest.fixture
def writer(monkeypatch):
    monkeypatch.setattr(Writer, "calls", [], raising=False)
    module = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    return Writer


@pytest.fixture
def tracker(monkeypatch):
    """A module like wandb or trackio, which keeps what it was told in `calls`."""
    module = types.SimpleNamespace(calls=[])
    module.init = lambda **settings: None
    module.finish = lambda: None
    module.log = lambda metrics, step: module.calls.append((metrics, step))
    module.Image = lambda picture: ("image", picture)
    module.Histogram = lambda np_histogram: ("histogram", *np_histogram)
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setitem(sys.modules, "trackio", module)
    return module


def opened(tmp_path, name, count=0):
    members = [CONFIG] * count
    options = {"sinks": (name,)}
    return runs.create(tmp_path, "modmask", "test", CONFIG, options, members or None)


PICTURE = np.zeros((3, 2, 5), np.float32)
PICTURE[0, 1, 4], PICTURE[2, 0, 0] = 1, 0.999


def check_bytes(picture):
    assert (picture.shape, picture.dtype) == ((2, 5, 3), np.uint8)
    np.testing.assert_array_equal(picture[1, 4], [255, 0, 0])
    np.testing.assert_array_equal(picture[0, 0], [0, 0, 255])


def test_tensorboard_shows_pictures_and_histograms(tmp_path, writer):
    values = np.array([0.1, 0.9])
    with opened(tmp_path, "tensorboard", count=2) as run:
        run.picture(4, "masks/w", PICTURE, member=1)
        run.histogram(4, "mask_histogram/0", values)
        run.histogram(4, "empty", values[:0])
    image, histogram = writer.calls
    assert (image[0], image[1], *image[3:]) == ("001", "masks/w", 4, "HWC")
    check_bytes(image[2])
    assert (histogram[0], histogram[1], histogram[3]) == ("run", "mask_histogram/0", 4)
    np.testing.assert_array_equal(histogram[2], values)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_trackers_show_pictures_and_counted_histograms(tmp_path, tracker, name):
    values = np.linspace(0, 1, 1000)
    with opened(tmp_path, name, count=1) as run:
        run.picture(4, "masks/w", PICTURE, member=0)
        run.histogram(5, "mask_histogram/0", values)
        run.histogram(5, "empty", values[:0])
    (image, first), (histogram, second) = tracker.calls
    assert (list(image), first) == (["000/masks/w"], 4)
    kind, picture = image["000/masks/w"]
    assert kind == "image"
    check_bytes(picture)
    assert (list(histogram), second) == (["mask_histogram/0"], 5)
    kind, counts, edges = histogram["mask_histogram/0"]
    assert (kind, counts.sum(), len(edges)) == ("histogram", 1000, sinks.BINS + 1)


def test_a_tracker_without_pictures_goes_without(tmp_path, tracker):
    del tracker.Image, tracker.Histogram
    with opened(tmp_path, "trackio") as run:
        run.picture(1, "masks/w", PICTURE)
        run.histogram(1, "mask_histogram/0", np.ones(3))
        run.log(1, {"loss": 1.0})
    assert tracker.calls == [({"loss": 1.0}, 1)]


def test_a_run_without_members_is_not_a_member_of_itself(tmp_path, tracker):
    with opened(tmp_path, "wandb") as run:
        run.picture(1, "masks/w", PICTURE, member=0)
    ((metrics, _),) = tracker.calls
    assert list(metrics) == ["masks/w"]
