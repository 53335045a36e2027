"""The published program's files."""

import numpy as np
import pytest

from gaitprop import upstream
from shared.errors import UsageError
from tests.gaitprop.build import network
from tests.gaitprop.settings import settings

SERIES = {name: [0.1, 0.5 + i] for i, name in enumerate(upstream.SERIES)}
TP = upstream.Settings("kmnist", "tp", True, True, 1000, 3, 1e-5, 4, False)
TOWER = upstream.Settings("mnist", "gait", False, False, 0.1, 1, 1e-4, 1, True)


@pytest.mark.parametrize(
    ("chosen", "name"),
    (
        (TP, "KMNIST_TP_Linear_OrthoInit_1000.0OrthoReg_3Seed_1e-05LR_4L"),
        (TOWER, "MNIST_GAIT_0.1OrthoReg_1Seed_0.0001LR_1TOWER"),
    ),
)
def test_folder_name_states_the_settings(chosen, name):
    assert upstream.folder_name(chosen) == name
    assert upstream.parse_name(name) == chosen
    assert upstream.parse_name(name + "x") is None


def test_export_and_load_return_the_run(key, tmp_path):
    config, _ = settings(widths=(14, 12, 10))
    params = network(key, config)
    folder = upstream.export(tmp_path, TOWER, params, SERIES)
    assert (folder / "training_acc.txt").read_text().splitlines() == [
        "1.000000000000000056e-01",
        "5.000000000000000000e-01",
    ]
    assert np.load(folder / "0Lweights.npy").dtype == np.float64
    found = upstream.load(folder)
    assert found.settings == TOWER
    np.testing.assert_array_equal(found.series["test_loss"], SERIES["test_loss"])
    for ours, golden in zip(found.params, params, strict=True):
        np.testing.assert_array_equal(ours["kernel"], golden["kernel"])
        np.testing.assert_array_equal(ours["bias"], golden["bias"])


def test_bad_folders_are_told(key, tmp_path):
    config, _ = settings(widths=(12, 10))
    with pytest.raises(UsageError, match="0Lweights"):
        upstream.load(tmp_path)
    with pytest.raises(UsageError, match="training_loss"):
        upstream.export(tmp_path, TOWER, network(key, config), {"training_acc": []})
    folder = upstream.export(tmp_path, TOWER, network(key, config), SERIES)
    (folder / "test_acc.txt").write_text("one\n")
    with pytest.raises(UsageError, match="test_acc"):
        upstream.load(folder)
    (folder / "0Lbiases.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UsageError, match="0Lbiases"):
        upstream.load(folder)
    with pytest.raises(UsageError, match="digits"):
        upstream.folder_name(TP._replace(dataset="digits"))
