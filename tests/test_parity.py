"""Reference files agree with our code, and the comparison notices when not."""

from pathlib import Path

import numpy as np
import pytest

from tests.parity import __main__ as command
from tests.parity import runner

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(GOLDEN.glob("*/*.npz"))


# Systems whose files are cheap enough to be compared in both precisions every time.
CHEAP = {"gaitprop"}
# Files too large to be compared every time.
LARGE = {
    "resnet110_unmasked_train",
    "ac_tree_a",
    "cr_tree_a",
    "child_search_a",
    "child_fixed_a",
}


def comparisons():
    """Every file in both precisions; the fast tests take float64 of all but the large.

    The others are slow, except those in single precision of a cheap system.
    """
    for path in FILES:
        system = path.parent.name
        for dtype in ("float64", "float32"):
            fast = path.stem not in LARGE and (dtype == "float64" or system in CHEAP)
            yield pytest.param(
                path,
                dtype,
                id=f"{system}-{path.stem}-{dtype}",
                marks=() if fast else pytest.mark.slow,
            )


@pytest.mark.parametrize(("path", "dtype"), list(comparisons()))
def test_reference_file(path, dtype):
    cases = runner.system_cases(path.parent.name)
    rows, problems = runner.check_file(path, cases, dtype)
    assert not problems
    assert rows
    assert not [row for row in rows if not row.passed]


def edited(folder, **changes):
    """Write a copy of a small reference file under another name."""
    npz = runner.load(GOLDEN / "gaitprop" / "layer_linear.npz")
    kept = {k: v for k, v in (npz | changes).items() if v is not None}
    np.savez(folder / "other_name.npz", **kept)


def run(folder):
    return command.main([str(folder), "--system", "gaitprop"])


def test_command_passes_a_file_of_another_name(tmp_path, capsys):
    edited(tmp_path)
    assert run(tmp_path) == 0
    assert "other_name" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"y": np.ones((5, 9))}, "FAILED other_name float64 y:"),
        ({"y": np.full((5, 9), np.nan)}, "FAILED other_name float64 y:"),
        ({"y_inverted": np.ones((9, 5))}, "FAILED other_name float64 y_inverted:"),
        ({"surprise": np.ones(3)}, "nobody compares surprise"),
        ({"act": None}, "no case handles this file"),
    ),
)
def test_command_fails_loudly(tmp_path, capsys, changes, message):
    edited(tmp_path, **changes)
    assert run(tmp_path) == 1
    assert message in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "name"),
    (
        ("ortho_penalty", "other_W"),
        ("adam_bp", "other_init"),
        ("metrics", "other"),
        ("square_h2_rowscaled", "gait_angle"),
    ),
)
def test_an_array_that_nothing_uses_is_an_error(tmp_path, capsys, file, name):
    npz = runner.load(GOLDEN / "gaitprop" / f"{file}.npz")
    np.savez(tmp_path / "more.npz", **npz, **{name: np.ones(3)})
    assert run(tmp_path) == 1
    assert f"nobody compares {name}" in capsys.readouterr().out


def test_recorded_angles_that_are_noise_give_way_to_exact_ones(tmp_path):
    npz = runner.load(GOLDEN / "gaitprop" / "square_h4_leaky_near.npz")
    noisy = {"gait_g0.001_angle_deg": 90 * np.ones(5)}
    np.savez(tmp_path / "noisy.npz", **(npz | noisy))
    assert run(tmp_path) == 0
    wrong = {"gait_g0.1_angle_deg": npz["gait_g0.1_angle_deg"] + 0.1}
    np.savez(tmp_path / "noisy.npz", **(npz | wrong))
    assert run(tmp_path) == 1


def test_empty_directory_and_unknown_system_are_errors(tmp_path, capsys):
    assert run(tmp_path) == 1
    assert command.main([str(tmp_path), "--system", "nothing"]) == 2
    assert "nothing" in capsys.readouterr().out
