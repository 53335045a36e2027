"""PNG files in folders and archives: read as written, refused by name."""

import builtins
import zipfile

import numpy as np
import pytest

from enasq import folders
from enasq.folders import Place
from shared.errors import UsageError
from tests.enasq import images


def read(path, split="train", channels=1):
    place = {split: Place(path, split)}
    return folders.read(place, images.CLASSES, channels=channels)[split]


def expect(part, split, shape=(28, 28)):
    count = images.COUNTS[split]
    np.testing.assert_array_equal(part.labels, np.repeat(np.arange(10), count))
    for row, label in enumerate(part.labels):
        wanted = images.pixels(split, label, row % count, shape)
        np.testing.assert_array_equal(part.images[row], wanted.reshape(*shape[:2], -1))


def test_splits_are_found_and_read_in_every_form(tmp_path):
    images.write_set(tmp_path / "a" / "mnist")
    for split in images.COUNTS:
        inside = {f"{split}/{k}": v for k, v in images.members(split).items()}
        images.write_zip(tmp_path / "b" / f"{split}.zip", inside)
    debris = {"__MACOSX/all/train/0/0.png": b"", "all/readme.txt": b"", "x.png": b""}
    together = {
        f"all/{split}/{name}": content
        for split in images.COUNTS
        for name, content in images.members(split).items()
    }
    images.write_zip(tmp_path / "c" / "mnist.zip", together | debris)
    for root in "abc":
        found = folders.locate(tmp_path / root, "mnist")
        assert found is not None and set(found) == set(images.COUNTS)
        for split, part in folders.read(found, images.CLASSES).items():
            expect(part, split)
    assert folders.locate(tmp_path, "mnist") is None


def test_an_archive_may_leave_its_split_unnamed_but_not_name_another(tmp_path):
    files = images.members("test")
    expect(read(images.write_zip(tmp_path / "x.zip", files), "test"), "test")
    other = {f"train/{name}": content for name, content in files.items()}
    with pytest.raises(UsageError, match="no images"):
        read(images.write_zip(tmp_path / "y.zip", other), "test")
    several = {f"{side}/{k}": v for side in "ab" for k, v in files.items()}
    with pytest.raises(UsageError, match="classes in a, b"):
        read(images.write_zip(tmp_path / "z.zip", several), "test")


def test_colours_and_grey_images_become_the_channels_asked_for(tmp_path):
    shape = (5, 4, 3)
    folder = images.write_folder(tmp_path, images.members("test", shape))
    expect(read(folder, "test", channels=3), "test", shape)
    grey = read(folder, "test").images
    weighted = images.pixels("test", 0, 0, shape) @ [0.299, 0.587, 0.114]
    assert np.abs(grey[0, ..., 0] - weighted).max() <= 1
    folder = images.write_folder(tmp_path, images.members("test"))
    both = read(folder, "test", channels=3).images
    np.testing.assert_array_equal(both[..., :1].repeat(3, -1), both)


def changed(**files):
    """Return the members of a split with some replaced, or left out if None."""
    found = images.members("test") | {f"{k[1:]}.png": v for k, v in files.items()}
    return {name: content for name, content in found.items() if content is not None}


DAMAGED = images.png(images.pixels("test", 0, 0))[:-40]
WRONG = {
    "nothing": ({}, "no images"),
    "absent": ({"_7/0": None, "_7/1": None}, "no images in 7"),
    "surplus": ({"_dog/0": DAMAGED}, "images in dog too"),
    "truncated": ({"_3/1": DAMAGED}, "3/1.png"),
    "no_image": ({"_3/1": b"<html>"}, "3/1.png"),
    "unequal": ({"_3/1": images.png(np.zeros((9, 8), np.uint8))}, "3/1.png.*9 x 8"),
    "deep": ({"_3/1": images.png(np.zeros((28, 28), np.uint16))}, "3/1.png.*I;16"),
    "large": ({"_3/1": images.png(np.zeros((1, 1025), np.uint8))}, "3/1.png.*1025"),
}


@pytest.mark.parametrize("form", ["folder", "zip"])
@pytest.mark.parametrize("case", WRONG)
def test_what_is_missing_or_damaged_is_named(tmp_path, form, case):
    edits, message = WRONG[case]
    files = {} if case == "nothing" else changed(**edits)
    write = images.write_folder if form == "folder" else images.write_zip
    path = tmp_path / ("test" if form == "folder" else "test.zip")
    tmp_path.joinpath("test").mkdir()
    write(path, files)
    with pytest.raises(UsageError, match=message) as caught:
        read(path, "test")
    assert str(path) in str(caught.value)


def test_damaged_archives_and_members_are_named(tmp_path):
    path = images.write_zip(tmp_path / "test.zip", images.members("test"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(UsageError, match=r"test\.zip: got .*a whole zip archive"):
        read(path, "test")
    with zipfile.ZipFile(images.write_zip(path, images.members("test"))) as archive:
        start = archive.infolist()[5].header_offset
    middle = start + 200
    path.write_bytes(whole[:middle] + b"\0\1\2\3\4" + whole[middle + 5 :])
    with pytest.raises(UsageError, match=r"test\.zip:2/1\.png.*CRC"):
        read(path, "test")


def test_a_member_that_would_fill_the_memory_is_not_unpacked(tmp_path):
    path = images.write_zip(tmp_path / "test.zip", images.members("test"))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0/2.png", bytes(9 << 20))
    with pytest.raises(UsageError, match=r"0/2\.png.*9,437,184 bytes"):
        read(path, "test")


def test_splits_of_unequal_sizes_are_refused(tmp_path):
    images.write_set(tmp_path)
    images.write_folder(tmp_path / "test", images.members("test", (9, 8)))
    found = folders.locate(tmp_path, "mnist")
    assert found is not None
    with pytest.raises(UsageError, match="images of 9 x 8.*28 x 28"):
        folders.read(found, images.CLASSES)


def test_without_a_reader_the_error_says_what_to_install(tmp_path, monkeypatch):
    folder = images.write_folder(tmp_path, images.members("test"))
    plain = builtins.__import__

    def refuse(name, *rest):
        if name == "PIL":
            raise ImportError(name)
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UsageError, match="pip install pillow"):
        read(folder, "test")


def test_folders_that_the_user_names_must_exist(tmp_path):
    with pytest.raises(UsageError, match="train folder"):
        folders.places({"train": tmp_path / "none"})
