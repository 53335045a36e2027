"""Pictures: complete files, one style, no trace left behind."""

import sys

import matplotlib
import numpy as np
import pytest

from shared import plotting
from shared.errors import UsageError


def _curve():
    figure, axes = plotting.figure(title="two seeds")
    x = np.arange(5.0)
    plotting.line_with_band(axes[0, 0], x, x**2, np.full(5, 0.5), label="a")
    plotting.describe(axes[0, 0], x="time (s)", y="loss", title="t", legend="inside")
    return figure, axes


def test_save_writes_both_files_and_nothing_else(tmp_path):
    figure, _ = _curve()
    written = plotting.save(figure, tmp_path / "new" / "loss.mean")
    assert [path.name for path in written] == ["loss.mean.png", "loss.mean.pdf"]
    assert written[0].read_bytes().startswith(b"\x89PNG")
    assert written[1].read_bytes().startswith(b"%PDF")
    assert sorted(tmp_path.rglob("*.*")) == sorted(written)


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    first = plotting.save(_curve()[0], tmp_path / "a")
    second = plotting.save(_curve()[0], tmp_path / "b")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_drawing_changes_no_global_setting(tmp_path):
    before, pyplot = dict(matplotlib.rcParams), "matplotlib.pyplot" in sys.modules
    plotting.save(_curve()[0], tmp_path / "a")
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot


def test_band_and_labels_are_drawn():
    _, axes = _curve()
    (line,) = axes[0, 0].lines
    np.testing.assert_allclose(line.get_ydata(), np.arange(5.0) ** 2)
    corners = axes[0, 0].collections[0].get_paths()[0].vertices
    assert corners[:, 1].max() == 16.5 and corners[:, 1].min() == -0.5
    assert axes[0, 0].get_xlabel() == "time (s)"
    assert [t.get_text() for t in axes[0, 0].get_legend().get_texts()] == ["a"]


def test_a_label_keeps_its_colour_when_others_are_absent():
    labels = ["bp", "tp", "gait"]
    _, axes = plotting.figure()
    plotting.bars(axes[0, 0], ["x"], {"gait": [1.0]}, labels=labels)
    expected = matplotlib.colors.to_rgba(plotting.colour("gait", labels))
    assert axes[0, 0].patches[0].get_facecolor() == expected
    assert len(set(plotting.PALETTE)) == len(plotting.PALETTE)


def test_heatmap_shows_values_at_their_place_and_leaves_nan_blank():
    _, axes = plotting.figure()
    values = np.array([[0.25, np.nan], [0.5, 1.0]])
    plotting.heatmap(axes[0, 0], values, rows=["a", "b"], columns=["c", "d"])
    texts = {t.get_position(): t.get_text() for t in axes[0, 0].texts}
    assert texts == {(0, 0): "0.25", (0, 1): "0.50", (1, 1): "1.00"}
    assert [t.get_text() for t in axes[0, 0].get_yticklabels()] == ["a", "b"]


def test_image_grid_places_images_row_by_row():
    _, axes = plotting.figure()
    images = np.arange(3.0)[:, None, None] * np.ones((3, 2, 2))
    plotting.image_grid(axes[0, 0], images, columns=2)
    canvas = axes[0, 0].images[0].get_array().filled(np.nan)
    assert canvas.shape == (5, 5)
    assert canvas[0, 0] == 0 and canvas[0, 3] == 1 and canvas[3, 0] == 2
    assert np.isnan(canvas[3, 3])


def test_unwritable_place_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="figure file"):
        plotting.save(_curve()[0], tmp_path / "file" / "loss")
