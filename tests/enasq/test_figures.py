"""Figures show what runs have written."""

import json

import numpy as np
import pytest

from enasq import cell, figures
from enasq.figures import curves, maps, records, samples
from shared import runs
from shared.errors import UsageError
from shared.plotting import NothingToDraw

ARCS = np.stack(
    [
        cell.parse("0 2 0 0 1 2 2 4 | 0 4 1 3 2 3 0 0"),
        cell.parse("1 2 0 1 0 0 2 3 | 0 0 1 2 1 2 1 0"),
        cell.parse("0 4 1 1 1 3 2 4 | 1 0 1 3 0 1 2 2"),
        cell.parse("1 1 1 0 2 2 0 1 | 0 3 0 3 1 4 2 1"),
    ]
)
LEVELS = (0.2, 0.6, 0.8)
COSTS = ((8000, 4e6), (16000, 2e6), (24000, 3e6))


def evaluation(level):
    """Return what a search records of its candidates."""
    return {
        "valid/accuracies": [level, level - 0.1],
        "valid/accuracy": level - 0.05,
        "test/accuracy": level,
        "reward": level - 0.07,
        "baseline": level / 2,
        "entropy": 9.0,
        "controller/entropy": [10.0, 8.0],
        "arcs": ARCS[:2].tolist(),
    }


def search(folder, *changes):
    """Write a search with a member for each dict of settings."""
    base = {"policy": "deployable", "seed": 0, "choices": []}
    configs = [base | change for change in changes or ({},)]
    options = {"data_dir": None}
    several = configs if len(configs) > 1 else None
    run = runs.create(folder, "enasq", "test", configs[0], options, members=several)
    with run:
        for index, config in enumerate(configs):
            for step, level in enumerate(LEVELS):
                level -= 0.1 * config["seed"]
                batch = {"loss": 1 - level, "accuracy": level, "rate": 0.1}
                record = {f"batch/{k}": v for k, v in batch.items()}
                run.log(2 * step, {"epoch": step + 0.5, **record}, index)
                record |= {"epoch": step + 1.0, **evaluation(level)}
                run.log(2 * step + 1, record, index)
            rows = [
                {
                    "step": step,
                    # The second and the third are of one evaluation.
                    "epoch": min(step, 1),
                    "architecture": cell.render(ARCS[0]),
                    "accuracy": level,
                    "costs": {"bits": bits, "bit_operations": ops, "macs": 1},
                    "front": True,
                }
                for step, (level, (bits, ops)) in enumerate(
                    zip(LEVELS, COSTS, strict=True)
                )
            ]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (run.directory(index) / "candidates.jsonl").write_text(text)
    return run.path


def report(path):
    """Write a study of a searched network, two random ones and one in floats."""
    rows = (("searched", 0.94, 0.8), ("random-0", 0.9, 0.7), ("random-1", 0.92, 0.75))
    entries = [
        {
            "name": name,
            "architecture": cell.render(ARCS[3]),
            "policy": "deployable" if shared else "float",
            "seeds": [0, 1],
            "test_accuracy": [score - 0.01, score + 0.01],
            "valid_accuracy": [score - 0.03, score + 0.01],
            "shared_accuracy": shared,
            "bits": 8000 if shared else 256_000,
        }
        for name, score, shared in (*rows, ("float", 0.96, None))
    ]
    tau = {"tau": 1.0, "p": 0.33, "count": 3}
    text = json.dumps({"entries": entries, "kendall_tau": tau})
    (path / "report.json").write_text(text)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a search over two seeds, with a report."""
    path = search(tmp_path_factory.mktemp("runs"), {}, {"seed": 1})
    report(path)
    return path


def lines(axis):
    """Return the values of lines by label."""
    return {line.get_label(): line.get_ydata() for line in axis.get_lines()}


def test_search_shows_the_mean_of_seeds(run):
    (axis,) = figures.FIGURES["search"]([run]).axes
    found = lines(axis)
    np.testing.assert_allclose(found["validation, best candidate"], [15, 55, 75])
    np.testing.assert_allclose(found["validation, mean candidate"], [10, 50, 70])
    np.testing.assert_allclose(found["reward"], [8, 48, 68])
    np.testing.assert_allclose(found["baseline"], [7.5, 27.5, 37.5])
    assert axis.get_ylabel() == "accuracy, reward (%)"


def test_entropy_is_spread_over_the_phase_and_has_a_maximum(run):
    (axis,) = figures.FIGURES["entropy"]([run]).axes
    curve, level = axis.get_lines()
    np.testing.assert_allclose(curve.get_xdata(), [0.5, 1, 1.5, 2, 2.5, 3])
    np.testing.assert_allclose(curve.get_ydata(), [10, 8] * 3)
    # Each of 4 blocks chooses two nodes and two operations.
    most = 2 * np.log(2 * 5 * 2 * 5) + 2 * np.log(3 * 5 * 3 * 5)
    assert curves.max_entropy(2, 5) == pytest.approx(most)
    assert level.get_ydata()[0] == pytest.approx(most)


def test_training_has_a_panel_for_loss_accuracy_and_rate(run, tmp_path):
    loss, accuracy, rate = figures.FIGURES["training"]([run]).axes
    x, y = loss.get_lines()[0].get_data()
    np.testing.assert_allclose(x, [0.5, 1, 1.5, 2, 2.5, 3])
    np.testing.assert_allclose(y, np.repeat([0.85, 0.45, 0.25], 2))
    assert list(lines(accuracy)) == ["batch", "validation", "test"]
    assert rate.get_ylabel() == "learning rate"
    other = search(tmp_path, {"policy": "float"})
    several = figures.FIGURES["training"]([run, other])
    assert [len(axis.get_lines()) for axis in several.axes] == [2, 4, 2]
    names = [text.get_text() for text in several.legends[0].get_texts()]
    assert names == ["deployable", "float"]


def test_long_curves_are_averaged():
    rows = [{"epoch": i / 100, "batch/loss": float(i)} for i in range(1000)]
    member = records.trained.Trained("test", {}, rows)
    found = records.curve([member], "batch/loss", np.mean)
    assert found is not None and found.spread is None
    assert len(found.x) == records.POINTS
    np.testing.assert_allclose(found.mean[:2], [2, 7])


def test_pareto_draws_the_last_front_of_each_cost(run):
    panels = figures.FIGURES["pareto"]([run]).axes[:2]
    fronts = [axis.get_lines()[0].get_xydata() for axis in panels]
    np.testing.assert_allclose(fronts[0], [[2, 60], [3, 80]])
    np.testing.assert_allclose(fronts[1], [[2, 60], [3, 80]])
    # All candidates of both seeds.
    assert [len(axis.collections[0].get_offsets()) for axis in panels] == [6, 6]


def test_bits_names_each_kind_of_network_once(run):
    axis = figures.FIGURES["bits"]([run]).axes[0]
    _, names = axis.get_legend_handles_labels()
    assert sorted(names) == ["float", "random, deployable", "searched, deployable"]
    assert axis.get_xscale() == "log"
    points = [tuple(box.lines[0].get_xydata()[0]) for box in axis.containers]
    np.testing.assert_allclose(
        sorted(points), [(1, 90), (1, 92), (1, 94), (32, 96)], atol=1e-9
    )


def test_ranking_names_its_agreement(run):
    (axis,) = figures.FIGURES["ranking"]([run]).axes
    assert axis.get_title() == "Kendall's τ 1.00 (p = 0.33, 3 architectures)"
    # On validation images, as with shared weights.
    np.testing.assert_allclose(lines(axis)["random"], [89, 91])


def test_best_is_the_report_s_or_the_last_best_candidate(run, tmp_path):
    np.testing.assert_array_equal(records.best([run]).arc, ARCS[3])
    alone = search(tmp_path, {"choices": ["binary", "ternary"]})
    found = records.best([alone])
    np.testing.assert_array_equal(found.arc, ARCS[0])
    assert found.choices == ("binary", "ternary")
    assert len(figures.FIGURES["cells"]([alone]).axes) == 2


def test_shares_of_operations(run):
    found = maps.shares(ARCS, 10)
    assert found.shape == (2, 10, 2)
    np.testing.assert_allclose(found.sum(1), 1)
    assert found[1, 3, 0] == np.mean(ARCS[:, 1, 0, 1::2] == 3)
    figure = figures.FIGURES["operations"]([run])
    titles = [axis.get_title() for axis in figure.axes[:4]]
    assert (
        titles[0] == "normal cell, epoch 1" and titles[3] == "reduction cell, epoch 3"
    )


def test_weights_and_their_thresholds():
    rng = np.random.default_rng(0)
    found = {"a": rng.normal(size=(3, 3, 4)), "b": rng.normal(size=50)}
    axes = maps.weights(found, {"a": (-0.5, 0.5)}).axes
    places = [np.asarray(line.get_xdata())[0] for line in axes[0].get_lines()]
    assert places == [-0.5, 0.5]
    assert not axes[1].get_lines()
    heights = [bar.get_extents().height for bar in axes[0].patches]
    # In pixels: a bar for each of 60 bins, some empty.
    assert len(heights) == 60 and max(heights) > 0


@pytest.mark.parametrize("name", figures.FIGURES)
def test_nothing_to_draw(tmp_path, name):
    run = runs.create(tmp_path, "enasq", "test", {"seed": 0}, {})
    run.close()
    with pytest.raises(NothingToDraw):
        figures.FIGURES[name]([run.path])


def test_a_damaged_report_is_named(tmp_path):
    run = runs.create(tmp_path, "enasq", "test", {"seed": 0}, {})
    run.close()
    (run.path / "report.json").write_text("[]")
    with pytest.raises(UsageError, match="report.json"):
        figures.FIGURES["bits"]([run.path])


def test_images_stand_above_their_labels():
    images = np.zeros((10, 4, 4, 1), np.uint8)
    images[3] = 16
    found = samples.Samples(images, [str(i) for i in range(10)])
    axes = samples.draw(found).axes
    assert [a.get_title() for a in axes[:10]] == [f"label: {i}" for i in range(10)]
    shown = [float(np.max(a.images[0].get_array())) for a in axes[:10]]
    assert shown == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
