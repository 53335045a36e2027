"""Files of networks: what is written is read, and damage is told."""

import json
import zlib

import numpy as np
import pytest

from enasq import packed_file
from enasq.graph import Graph, Step
from shared.errors import UsageError


@pytest.fixture
def graph():
    """A graph of two steps."""
    arrays = {
        "kernel": np.arange(12, dtype=np.uint32).reshape(1, 3, 4),
        "levels": np.int8([[-1, 2]]),
    }
    steps = (
        Step("image", "image", (), {"bits": 8}, {"mean": np.float32([1.5])}),
        Step("conv", "stem", (0,), {"codes": ["binary", 1]}, arrays),
    )
    info = {"size": 8, "channels": 1, "classes": 2, "labels": ["ä", "b"]}
    return Graph("packed", info, steps)


@pytest.fixture
def path(graph, tmp_path):
    """Its file."""
    path = tmp_path / "network.npz"
    packed_file.save(graph, path)
    return path


def rewritten(path, change, *, signed=False):
    """Change the parts of a file: the header, a dict, and the payload."""
    with np.load(path) as archive:
        parts = {name: archive[name] for name in archive.files}
    header = json.loads(zlib.decompress(parts["header"].tobytes()))
    change(header, parts)
    if signed:
        header["checksum"] = packed_file.checksum(header, parts["payload"].tobytes())
    if "header" in parts:
        text = zlib.compress(json.dumps(header).encode())
        parts["header"] = np.frombuffer(text, np.uint8)
    with path.open("wb") as file:
        np.savez_compressed(file, **parts)


def test_what_is_written_is_read(graph, path):
    found = packed_file.load(path)
    assert found.info == graph.info and found.form == graph.form
    for ours, theirs in zip(found.steps, graph.steps, strict=True):
        assert ours[:4] == theirs[:4]
        assert ours.arrays.keys() == theirs.arrays.keys()
        for name, value in ours.arrays.items():
            assert value.dtype == theirs.arrays[name].dtype
            np.testing.assert_array_equal(value, theirs.arrays[name])
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("change", "words"),
    (
        (lambda header, parts: header.update(version=9), "version 9"),
        (lambda header, parts: header.update(format="other"), "an exported network"),
        (lambda header, parts: parts.pop("payload"), "there is no payload"),
        (lambda header, parts: parts.update(payload=parts["payload"] ^ 1), "checksum"),
        (lambda header, parts: header["info"].update(classes=3), "checksum"),
        (lambda header, parts: header["steps"][0][3].update(bits=7), "checksum"),
        (lambda header, parts: header.update(version="2"), "version 2"),
        (lambda header, parts: header.pop("checksum"), "checksum"),
    ),
)
def test_newer_and_damaged_files_are_refused(path, change, words):
    rewritten(path, change)
    with pytest.raises(UsageError, match=words):
        packed_file.load(path)


@pytest.mark.parametrize(
    ("change", "words"),
    (
        (lambda header: header.update(steps=[[1]]), "does not fit"),
        (lambda header: header["steps"][1][4][0].__setitem__(1, "O"), "type O"),
        (lambda header: header["steps"][1].__setitem__(0, "dense"), "operation 'den"),
        (lambda header: header["steps"][1].__setitem__(0, ["conv"]), "operation"),
        (lambda header: header["steps"][1].__setitem__(2, [1]), "inputs of stem"),
        (lambda header: header.update(form="exact"), "form 'exact'"),
        (lambda header: header["info"].pop("labels"), "there is no labels"),
        (lambda header: header.update(info=None), "does not fit"),
        (lambda header: header.pop("info"), "does not fit"),
        (lambda header: header.update(steps=[]), "there are no steps"),
        (lambda header: header.update(steps=None), "there are no steps"),
    ),
)
def test_headers_that_say_what_no_network_is_are_refused(path, change, words):
    rewritten(path, lambda header, parts: change(header), signed=True)
    with pytest.raises(UsageError, match=words):
        packed_file.load(path)


def test_torn_and_foreign_files_are_refused(path, tmp_path):
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no archive", whole[:-40]):
        path.write_bytes(content)
        with pytest.raises(UsageError):
            packed_file.load(path)
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0xFF
    path.write_bytes(bytes(flipped))
    with pytest.raises(UsageError):
        packed_file.load(path)
    np.save(path.with_suffix(".npy"), np.zeros(3))
    with pytest.raises(UsageError, match="an exported network"):
        packed_file.load(path.with_suffix(".npy"))
    with pytest.raises(UsageError, match="an exported network"):
        packed_file.load(tmp_path / "missing")


def test_a_place_that_cannot_be_written_is_told(graph, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="can be written"):
        packed_file.save(graph, tmp_path / "file" / "network.npz")
