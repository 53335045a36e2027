"""The command that fetches data."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from scripts.prepare_data import main
from shared.data import catalog, load
from shared.data.catalog import IDX_FILES, Remote
from tests.shared.data import official
from tests.shared.data.server import serve


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server that holds a tiny MNIST, known to the catalogue as the official one."""
    official.write_idx(tmp_path / "origin")
    with serve() as served:
        files = []
        for name in IDX_FILES:
            path = f"mnist/{name}.gz"
            served.files[path] = (tmp_path / "origin" / path).read_bytes()
            md5 = hashlib.md5(served.files[path]).hexdigest()
            files.append(Remote(path, md5, (f"{served.url}/{path}",)))
        monkeypatch.setitem(catalog.DOWNLOADS, "mnist", tuple(files))
        yield served


def lines(text: str) -> list[str]:
    return text.rstrip("\n").split("\n")


def test_fetched_files_load(server, tmp_path, capsys):
    assert main(["mnist", "digits", "--data-dir", str(tmp_path / "data")]) == 0
    printed = lines(capsys.readouterr().out)
    assert len(printed) == 5 and "fetched and verified" in printed[0]
    assert printed[4] == "digits: ships with the package"
    with pytest.warns(UserWarning, match="24 of 60,000"):
        assert len(load("mnist", tmp_path / "data").test.labels) == 8


@pytest.mark.filterwarnings("always:.*is partial")
def test_archives_of_trees(tmp_path, capsys):
    official.write_idx(tmp_path, train=20, test=10)
    _, files = official.cifar_files("cifar10", 0, rows=10)
    official.write_folder(tmp_path, "cifar10", files)
    assert main(["trees", "--data-dir", str(tmp_path)]) == 0
    out, told = map(lines, capsys.readouterr())
    assert told[0].startswith("warning: mnist") and "20 of 60,000" in told[0]
    assert len(out) == 5
    assert out[0].endswith("mnist.npz: written, 20 training and 10 test images")
    classes = {"mnist": 10, "cifar-10": 10, "cifar-5": 5, "cifar-2": 2, "hybrid": 10}
    for name, count in classes.items():
        with np.load(tmp_path / "trees" / f"{name}.npz", allow_pickle=False) as archive:
            assert archive["y_tr"].shape == (len(archive["x0_tr"]), count)
            assert archive["m_sym"].shape == (count,)
    written = tmp_path / "trees" / "hybrid.npz"
    before = written.stat().st_mtime_ns
    assert main(["trees/mnist", "--data-dir", str(tmp_path)]) == 0
    assert written.stat().st_mtime_ns == before


@pytest.mark.filterwarnings("always:.*is partial")
def test_a_place_that_cannot_hold_archives_is_told(tmp_path, capsys):
    official.write_idx(tmp_path, train=20, test=10)
    (tmp_path / "trees").write_text("a file")
    assert main(["trees/mnist", "--data-dir", str(tmp_path)]) == 2
    _, error = lines(capsys.readouterr().err)
    assert "archive" in error and "can be written" in error
    assert (tmp_path / "trees").read_text() == "a file"


def test_second_call_transfers_nothing(server, tmp_path, capsys):
    arguments = ["mnist", "--data-dir", str(tmp_path / "data")]
    main(arguments)
    asked = len(server.requests)
    assert main(arguments) == 0 and len(server.requests) == asked
    assert capsys.readouterr().out.count("already there, verified") == 4


def test_mirror(server, tmp_path):
    mirror = ["--mirror", server.url]
    assert main(["mnist", "--data-dir", str(tmp_path / "data"), *mirror]) == 0


def test_wrong_checksum_is_one_line_and_status_1(server, tmp_path, capsys):
    server.files[f"mnist/{IDX_FILES[0]}.gz"] = b"something else"
    assert main(["mnist", "--data-dir", str(tmp_path / "data")]) == 1
    error = lines(capsys.readouterr().err)
    assert len(error) == 1 and "checksum" in error[0] and IDX_FILES[0] in error[0]
    assert list((tmp_path / "data" / "mnist").iterdir()) == []


def test_dead_network_is_one_line_and_status_1(tmp_path, capsys):
    mirror = ["--mirror", "http://127.0.0.1:9"]
    assert main(["kmnist", "--data-dir", str(tmp_path), *mirror]) == 1
    error = lines(capsys.readouterr().err)
    assert len(error) == 1 and "refused" in error[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["minst", "--data-dir", "d"], "Did you mean 'mnist'"),
        (["mnist"], "--data-dir"),
        (["--data-dir", "d"], "NAME"),
        (["mnist", "--data-dir", "d", "--via", "ftp"], "ftp"),
        (["mnist", "--data-dir", "d", "--nonsense"], "--nonsense"),
        (["scan", "--data-dir", "d", "--via", "tfds"], "scan is no image set"),
        (["mnist", "--data-dir", "d", "--mirror", "here"], "an http or https address"),
        (["trees/hybird", "--data-dir", "d"], "Did you mean 'trees/hybrid'"),
        (["trees/mnist", "--data-dir", "d"], "prepare_data mnist --data-dir d"),
        (["trees/mnist", "--data-dir", "d", "--via", "tfds"], "made from files"),
        (["trees", "--data-dir", "d", "--mirror", "http://h"], "made from files"),
    ],
)
def test_usage_error_is_one_line_and_status_2(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = lines(capsys.readouterr().err)
    assert len(error) == 1 and message in error[0]


def test_tfds_without_tensorflow_is_status_2(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("shared.data.tfds.find_spec", lambda name: None)
    assert main(["mnist", "--data-dir", str(tmp_path), "--via", "tfds"]) == 2
    assert "five-nets[prepare]" in capsys.readouterr().err


def test_run_as_a_module(tmp_path):
    command = [sys.executable, "-m", "scripts.prepare_data", "digits"]
    done = subprocess.run(
        [*command, "--data-dir", str(tmp_path)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "digits: ships with the package\n")
