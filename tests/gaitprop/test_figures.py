"""Every figure is drawn from the records of runs, and keeps apart what differs."""

import dataclasses
import json

import numpy as np
import pytest

from gaitprop import figures, train
from gaitprop.config import Config
from gaitprop.experiments import square
from gaitprop.figures import records
from shared import config as configs
from shared import runs
from shared.plotting import NothingToDraw

BASE = Config(dataset="digits", widths=square(1, 64), algorithm="gait", batch_size=32)


def record(step, level, depth, **more):
    """Return a record as training writes it, with all statistics at one level."""
    layers = {
        f"layer{i}/{name}": level * i
        for i in range(1, depth + 1)
        for name in ("angle", "off_norm", "condition")
    }
    accuracies = {f"{split}/accuracy": level for split in ("train", "test")}
    return {"step": step, "epoch": step / 10, **accuracies, **layers, **more}


def written(tmp_path, *changes, levels=(0.2, 0.9, 0.6)):
    """Write a run of one member per dict of changes; later members are lower."""
    members = [dataclasses.replace(BASE, **change) for change in changes]
    listed = [configs.to_dict(member) for member in members]
    run = runs.create(
        tmp_path, "gaitprop", "test", listed[0], {"data_dir": None}, members=listed
    )
    with run:
        for index, member in enumerate(members):
            for step, level in enumerate(levels):
                depth = len(member.widths) - 1
                run.log(step, record(step, level / (1 + index), depth), index)
    return run.path


def curves(axis):
    return {line.get_label(): line.get_ydata() for line in axis.get_lines()}


def test_learning_curves_have_a_panel_per_network_and_a_line_per_split(tmp_path):
    path = written(
        tmp_path,
        {"algorithm": "bp"},
        {"algorithm": "gait"},
        {"widths": (64, 64, 10)},
        {"transfer": "linear"},
    )
    panels = figures.FIGURES["learning-curves"]([path]).axes
    titles = ["digits: 1 hidden layer", "digits: tower 64-64-10"]
    titles.append("digits: 1 hidden layer, linear")
    assert [axis.get_title() for axis in panels] == titles
    found = curves(panels[0])
    np.testing.assert_allclose(found["BP, train"], [20, 90, 60])
    np.testing.assert_allclose(found["GAIT-prop, test"], [10, 45, 30])
    (linear,) = figures.FIGURES["linear-networks"]([path]).axes
    (tower,) = figures.FIGURES["tower-networks"]([path]).axes
    assert (linear.get_title(), tower.get_title()) == (titles[2], titles[1])


def test_lines_of_a_panel_differ_in_colour(tmp_path):
    path = written(
        tmp_path,
        {"algorithm": "bp"},
        {"algorithm": "gait"},
        {"widths": square(4, 64)},
        {"widths": square(4, 64), "gamma": 0.1},
    )
    for axis in figures.FIGURES["learning-curves"]([path]).axes:
        lines = [line for line in axis.get_lines() if "train" in line.get_label()]
        assert len({line.get_color() for line in lines}) == len(lines) == 2


def test_peak_and_final_of_each_network(tmp_path):
    mnist = {"dataset": "mnist", "widths": square(1)}
    path = written(tmp_path, {"seed": 1}, {"seed": 2}, mnist)
    (axis,) = figures.FIGURES["peak-final"]([path]).axes
    labels = [label.get_text() for label in axis.get_xticklabels()]
    assert labels == ["GAIT-prop\ndigits", "GAIT-prop\nmnist"]
    heights = sorted(bar.get_height() for bar in axis.patches)
    np.testing.assert_allclose(heights, [20, 30, 45, 67.5], rtol=1e-6)


def test_grid_is_a_map_per_rule_and_kind(tmp_path):
    cells = [
        {"algorithm": rule, "learning_rate": rate, "ortho_weight": weight}
        for rule in ("gait", "tp")
        for rate in (1e-4, 1e-3)
        for weight in (0.0, 0.1)
    ]
    axes = figures.FIGURES["grid"]([written(tmp_path, *cells)]).axes
    maps = {a.get_title(): a.images[0].get_array() for a in axes if a.images}
    kinds = [f"{rule}, {k}" for k in ("peak", "final") for rule in figures_of_rules()]
    assert list(maps) == kinds
    np.testing.assert_allclose(
        maps["GAIT-prop, peak"], [[90, 30], [45, 22.5]], rtol=1e-6
    )
    np.testing.assert_allclose(maps["target-prop, final"], [[12, 60 / 7], [10, 7.5]])


def figures_of_rules():
    return records.NAMES["gait"], records.NAMES["tp"]


def test_depth_is_the_horizontal_axis(tmp_path):
    path = written(tmp_path, *({"widths": square(h, 64)} for h in (1, 4)))
    (axis,) = figures.FIGURES["depth"]([path]).axes
    found = curves(axis)
    np.testing.assert_allclose(found["GAIT-prop, final"], [60, 30])
    np.testing.assert_allclose(found["GAIT-prop, peak"], [90, 45])
    np.testing.assert_array_equal(axis.get_lines()[0].get_xdata(), [1, 4])


def test_angles_by_layer_and_over_training(tmp_path):
    path = written(tmp_path, {"algorithm": "bp"}, {"ortho_weight": 0.1}, {})
    axes = figures.FIGURES["angle"]([path]).axes
    assert len(axes) == 3
    found = curves(axes[0])
    np.testing.assert_allclose(
        found["GAIT-prop, ortho_weight 0.1, start"], [0.1, 0.2], rtol=1e-6
    )
    np.testing.assert_allclose(
        found["GAIT-prop, ortho_weight 0.0, end"], [0.2, 0.4], rtol=1e-6
    )
    np.testing.assert_allclose(curves(axes[1])["layer 2"], [0.2, 0.9, 0.6])


def test_orthogonality_has_two_rows(tmp_path):
    path = written(tmp_path, {"algorithm": "bp"}, {"dataset": "digits"})
    axes = figures.FIGURES["orthogonality"]([path]).axes
    assert len(axes) == 4
    np.testing.assert_allclose(curves(axes[3])["layer 2"], [0.2, 0.9, 0.6])


def test_roundoff_is_drawn_over_depth(tmp_path):
    run = runs.create(tmp_path, "gaitprop", "roundoff", configs.to_dict(BASE), {})
    with run:
        for hidden in (1, 2):
            names = ("subtract32", "subtract64", "difference32", "angle64")
            errors = {name: 10.0**-i * hidden for i, name in enumerate(names)}
            run.log(hidden, {"hidden": hidden, **errors})
    (axis,) = figures.FIGURES["roundoff"]([run.path]).axes
    found = curves(axis)
    np.testing.assert_allclose(found["published form, float64"], [0.1, 0.2])
    np.testing.assert_allclose(found["difference form, float32"], [0.01, 0.02])
    assert axis.get_yscale() == "log"


def test_scatter_has_a_row_per_rule_and_a_column_per_layer(tmp_path, monkeypatch):
    path = written(tmp_path, {})
    (path / "summary.json").write_text(json.dumps({"status": "done"}))
    updates = [np.arange(6.0), np.arange(4.0)]
    found = [
        train.Updates(rule, [2 * u for u in updates], updates)
        for rule in ("tp", "gait", "bp")
    ]
    monkeypatch.setattr(train, "updates", lambda path: found)
    axes = figures.FIGURES["scatter"]([path]).axes
    assert [a.get_ylabel() for a in axes[::2]] == [
        "GAIT-prop update",
        "target-prop update",
    ]
    (line,) = axes[1].get_lines()
    np.testing.assert_array_equal(line.get_ydata(), 2 * line.get_xdata())
    assert len(line.get_xdata()) == 4


@pytest.mark.parametrize("name", sorted(figures.FIGURES))
def test_runs_without_records_have_nothing_to_draw(tmp_path, name):
    with pytest.raises(NothingToDraw):
        figures.FIGURES[name]([written(tmp_path, {}, levels=())])
