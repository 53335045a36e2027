"""Files are replaced whole or not at all, whatever goes wrong."""

import numpy as np
import pytest

from shared import disk
from shared.errors import UsageError


def test_a_file_is_replaced_when_its_writer_is_done(tmp_path):
    path = tmp_path / "new" / "numbers.npz"
    for value in (1, 2):
        with disk.replacing(path) as draft, draft.open("wb") as stream:
            assert path.exists() == (value == 2)
            np.savez(stream, value=value)
    assert np.load(path)["value"] == 2
    assert [p.name for p in path.parent.iterdir()] == ["numbers.npz"]


def test_after_an_error_the_old_file_stands_alone(tmp_path):
    path = tmp_path / "text"
    disk.write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), disk.replacing(path) as draft:
        draft.write_text("half")
        raise KeyboardInterrupt
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "taken").write_text("a file, not a directory")
    path = tmp_path / "taken" / "text"
    with pytest.raises(UsageError, match="letter: got .*text.*can be written"):
        with disk.writable("letter", path):
            disk.write_text(path, "words")


def test_numbers_that_json_does_not_know_come_back():
    values = {"a": float("nan"), "b": -np.inf, "c": np.float32(0.5), "d": np.arange(2)}
    assert disk.plain(values) == {"a": "nan", "b": "-inf", "c": 0.5, "d": [0, 1]}
    assert np.isnan(disk.number("nan")) and disk.number("-inf") == -np.inf
    assert disk.number("word") == "word"
