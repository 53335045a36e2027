"""Every figure is drawn from the results of runs, and keeps apart what differs."""

import dataclasses

import numpy as np
import pytest
from matplotlib.container import BarContainer

from modmask import figures, repetitions
from modmask.config import Config
from modmask.figures import drawing, records
from shared import plotting
from shared.plotting import NothingToDraw
from tests.modmask import figure_runs
from tests.modmask.figure_runs import FNN, RNN, repeated, written

TUPLE = Config(task="tuple_ff", layer_sizes=(200, 200))
NAMES = "plane auto bird cat deer dog frog horse ship truck".split()


def draw(name, *paths):
    return figures.FIGURES[name](paths)


def panels(figure):
    """Return the panels with something in them, without tables and colour bars."""
    return [a for a in figure.axes if a.axison and a.get_label() != "<colorbar>"]


def bars(axis):
    """Return heights and deviations by series, in the order of the groups."""
    found = {}
    for container in axis.containers:
        if isinstance(container, BarContainer):
            heights = [bar.get_height() for bar in container]
            segments = container.errorbar[2][0].get_segments()
            deviations = [np.ptp(s[:, 1]) / 2 if len(s) else np.nan for s in segments]
            found[container.get_label()] = heights, deviations
    return found


def heights(axis):
    return {label: values for label, (values, _) in bars(axis).items()}


def groups(axis):
    return [label.get_text() for label in axis.get_xticklabels()]


def chance_levels(axis):
    segments = [s for lines in axis.collections for s in lines.get_segments()]
    level = lambda s: s[0, 1] == s[1, 1] and s[0, 0] < s[1, 0]
    return [s[0, 1] for s in segments if level(s)]


def text_in_tables(figure):
    cells = [
        cell for a in figure.axes for t in a.tables for cell in t.get_celld().items()
    ]
    return [cell.get_text().get_text() for _, cell in sorted(cells, key=lambda c: c[0])]


def replaced(config, **changes):
    return dataclasses.replace(config, **changes)


def test_confusions_are_percentages_of_each_true_operation(tmp_path):
    path = written(tmp_path, repeated(FNN), figure_runs.addmul)
    maps = panels(draw("addmul_confusion", path))
    titles = ["mask full", "mask +", "mask ×", "not full", "not +", "not ×"]
    assert [axis.get_title() for axis in maps] == titles
    shares = np.array([[60, 20, 20 + s] for s in range(3)]) / [[100], [101], [102]]
    image = maps[1].images[0]
    np.testing.assert_allclose(
        image.get_array(), [100 * shares.mean(axis=0), [20, 70, 10]]
    )
    assert (image.norm.vmin, image.norm.vmax) == (0, 100)
    texts = [text.get_text() for text in maps[1].texts]
    assert texts == ["59\n±1", "20\n±0", "21\n±1", "20\n±0", "70\n±0", "10\n±0"]
    # The inverse test's counts are stored upside down here.
    np.testing.assert_allclose(maps[4].images[0].get_array()[1], [10, 70, 20])


@pytest.mark.parametrize(
    ("name", "config", "fill"),
    [
        ("addmul_iou", RNN, figure_runs.addmul),
        ("tuple_iou", Config(task="tuple"), figure_runs.pairs),
    ],
)
def test_similarity_by_layer_with_its_chance_level(tmp_path, name, config, fill):
    path = written(tmp_path, repeated(config), fill)
    (axis,) = panels(draw(name, path))
    layers = ["lstm_1_ih", "lstm_1_hh", "lstm_2_ih", "lstm_2_hh", "output"]
    assert groups(axis) == layers
    found = bars(axis)
    expected = [0.45, 0.4, 0.55, 0.5, 0.6]
    np.testing.assert_allclose(found["IoU"][0], expected)
    np.testing.assert_allclose(found["IoMin"][0], np.add(expected, 0.1))
    np.testing.assert_allclose(found["IoU"][1], 0.01)
    np.testing.assert_allclose(chance_levels(axis), [0.25] * 10)
    assert axis.get_ylim() == (0, 1)


def test_runs_that_differ_in_their_inverse_test_alone_have_one_mask(tmp_path):
    kinds = ("none", "fullmask")
    members = [replaced(c, inverse_io=k) for c in repeated(TUPLE) for k in kinds]
    path = written(tmp_path, members, figure_runs.pairs)
    (axis,) = panels(draw("tuple_iou", path))
    np.testing.assert_allclose(bars(axis)["IoU"][1], 0.01)


def test_performance_on_addition_and_multiplication(tmp_path):
    path = written(tmp_path, [*repeated(FNN), *repeated(RNN)], figure_runs.addmul)
    figure = draw("addmul_performance", path)
    (axis,) = panels(figure)
    assert groups(axis) == ["Full", "+", "not +", "×", "not ×"]
    found = bars(axis)
    assert list(found) == [
        f"{n} {s}" for n in ("FNN 2000×4", "RNN 2×256") for s in "+×"
    ]
    np.testing.assert_allclose(found["FNN 2000×4 +"][0], [98, 96, 10, 3, 10])
    np.testing.assert_allclose(found["RNN 2×256 ×"][0], [97, 4, 10, 95, 10])
    np.testing.assert_allclose(found["RNN 2×256 ×"][1], 1)
    assert axis.get_ylim() == (0, 100)
    text = text_in_tables(figure)
    assert text[:2] == ["mean ± sd [95 % interval]", "Full"]
    _, low, high = repetitions.confidence_interval([97.0, 98.0, 99.0])
    assert f"98.0 ± 1.0\n[{low:.1f}, {high:.1f}]" in text


def test_the_inverse_test_that_spares_inputs_has_a_panel_of_its_own(tmp_path):
    members = [TUPLE, replaced(TUPLE, inverse_io="fullmask")]
    path = written(tmp_path, members, figure_runs.pairs)
    normal, spared = panels(draw("tuple_performance", path))
    assert groups(normal) == ["Full", "pair 1", "not pair 1", "pair 2", "not pair 2"]
    found = heights(normal)
    assert list(found) == ["FNN 200×2 pair 1", "FNN 200×2 pair 2"]
    np.testing.assert_allclose(found["FNN 200×2 pair 1"], [97, 95, 9, 2, 9])
    np.testing.assert_allclose(heights(spared)["FNN 200×2 pair 2"][2], 69)
    assert "control's mask" in spared.get_title()


def test_each_network_has_a_panel_where_it_is_asked_for(tmp_path):
    modes = ("together", "only_one_io")
    members = [Config(task="tuple", tuple_mode=mode) for mode in modes]
    path = written(tmp_path, [*members, TUPLE], figure_runs.pairs)
    found = panels(draw("tuple_performance_each", path))
    assert list(bars(found[0])) == ["pair 1", "pair 2"]
    titles = [axis.get_title() for axis in found]
    assert titles == ["FNN 200×2", "RNN 2×128, only_one_io", "RNN 2×128, together"]


def test_many_networks_are_spread_over_panels_so_that_no_colour_repeats(tmp_path):
    members = [replaced(FNN, layer_sizes=(n, n)) for n in range(10, 60, 10)]
    path = written(tmp_path, members, figure_runs.addmul)
    for axis in panels(draw("addmul_performance", path)):
        found = [c for c in axis.containers if isinstance(c, BarContainer)]
        assert len({c[0].get_facecolor() for c in found}) == len(found)


def test_kept_weights_by_layer_with_totals(tmp_path):
    path = written(tmp_path, repeated(FNN), figure_runs.addmul)
    (axis,) = panels(draw("addmul_weight_proportion", path))
    assert groups(axis) == [*(f"layer {i}" for i in range(1, 5)), "output"]
    found = bars(axis)
    np.testing.assert_allclose(found["+"][0], [1100, 2100, 3100, 4100, 5100])
    np.testing.assert_allclose(found["×"][1], 200)
    assert axis.get_title().endswith("+ 7,100, × 14,200 in all, ratio 0.50")
    assert axis.get_ylim() == (0, 2.2e4)


def test_sharing_over_size_leaves_other_mask_loss_weights_out(tmp_path):
    small = replaced(FNN, layer_sizes=(400, 400, 200))
    study = [replaced(FNN, mask_loss_weight=w) for w in (1e-5, 1e-3)]
    members = [*repeated(FNN), *repeated(small), *study]
    path = written(tmp_path, members, figure_runs.addmul)
    (axis,) = panels(draw("weight_sharing_vs_size", path))
    assert groups(axis) == ["small\n400-400-200", "big\n2000×4"]
    ((shared, deviations),) = bars(axis).values()
    np.testing.assert_allclose(shared, [39, 32])
    np.testing.assert_allclose(deviations, 1)
    np.testing.assert_allclose(chance_levels(axis), [20, 20])


def test_sensitivity_marks_the_usual_weight(tmp_path):
    weights = (1e-5, 1e-4, 1e-3)
    members = [replaced(c, mask_loss_weight=w) for c in repeated(FNN) for w in weights]
    alone = replaced(FNN, layer_sizes=(10, 10))
    path = written(tmp_path, [*members, alone], figure_runs.addmul)
    (axis,) = panels(draw("mask_weight_sensitivity", path))
    *_, dots, star = axis.collections
    np.testing.assert_allclose(dots.get_offsets(), [[1e-5, 97.5], [1e-3, 97.5]])
    np.testing.assert_allclose(star.get_offsets(), [[1e-4, 97.5]])
    np.testing.assert_allclose(star.get_array(), [32])
    assert star.get_clim() == (25, 55)
    (line,) = [x for x in axis.get_lines() if len(x.get_xdata()) == 2]
    assert set(line.get_xdata()) == {1e-4}
    assert axis.get_xscale() == "log"


def test_halves_lose_points_and_random_halves_are_left_out(tmp_path):
    networks = [*repeated(FNN), RNN]
    arithmetic = written(tmp_path, networks, figure_runs.addmul)
    members = [Config(task="scan"), Config(task="trafo_scan")]
    commands = written(tmp_path, members, figure_runs.scan)
    double = written(tmp_path, [TUPLE], figure_runs.pairs)
    (axis,) = panels(draw("halfmask", arithmetic, commands, double))
    assert groups(axis) == ["+/+\nFNN 200×2", "+/×\nFNN 2000×4", "SCAN\ntransformer"]
    found = heights(axis)
    np.testing.assert_allclose(found["early masked"], [7, 7.5, 47])
    np.testing.assert_allclose(found["late masked"], [47, 47.5, 47])


def test_histograms_are_means_over_repetitions(tmp_path):
    path = written(tmp_path, repeated(FNN), figure_runs.addmul)
    without, everything = panels(draw("mask_histogram", path))
    counts = without.get_lines()[0].get_ydata()
    assert (len(counts), counts[0], counts[250], counts.sum()) == (500, 0, 5, 11)
    logarithms = everything.get_lines()[0].get_ydata()
    kept = int(500 / (1 + np.exp(-2)))
    np.testing.assert_allclose(logarithms[[0, 250]], np.log([90, 5]))
    np.testing.assert_allclose(logarithms[kept], np.log([5, 6, 7]).mean())
    assert logarithms[100] == 0


def test_scan_with_the_full_mask_and_with_that_of_the_split(tmp_path):
    members = [
        c for task in ("scan", "trafo_scan") for c in repeated(Config(task=task))
    ]
    figure = draw("scan_accuracies", written(tmp_path, members, figure_runs.scan))
    (axis,) = panels(figure)
    assert groups(axis) == ["Turn Left", "Jump", "Length"]
    found = heights(axis)
    assert len(found) == 4
    np.testing.assert_allclose(found["LSTM, full mask"], 97)
    np.testing.assert_allclose(found["transformer, mask of the split"], [10, 20, 30])
    assert "87.0 ± 0.0\n[87.0, 87.0]" in text_in_tables(figure)


def test_scan_masked_beside_trained_on_the_split(tmp_path):
    scan = Config(task="scan")
    splits = ("length", "jump")
    alone = [replaced(scan, scan_train_split=s, analysis=False) for s in splits]
    path = written(tmp_path, [*repeated(scan), *alone], figure_runs.scan)
    (axis,) = panels(draw("scan_removed_vs_baseline", path))
    found = heights(axis)
    np.testing.assert_allclose(found["trained on the split"], [np.nan, 39, 39])
    np.testing.assert_allclose(found["masked for the split"], [10, 20, 30])
    masked = written(tmp_path, [scan], figure_runs.scan)
    with pytest.raises(NothingToDraw, match="trained on one of the splits"):
        draw("scan_removed_vs_baseline", masked)


@pytest.mark.parametrize("task", ["scan", "trafo_scan"])
def test_weights_that_the_jump_mask_removes_of_each_token(tmp_path, task):
    path = written(tmp_path, [Config(task=task)], figure_runs.scan)
    (axis,) = panels(draw("scan_output_token_removed_percentage", path))
    assert groups(axis)[2::4] == ["JUMP", "EOS"]
    ((removed, _),) = bars(axis).values()
    np.testing.assert_allclose(removed, [0, 0, 100 * 2 / 3, 0, 0, 0, 0])


def test_confusions_after_removing_each_class(tmp_path):
    members = repeated(Config(task="cifar10_class_removal"))
    path = written(tmp_path, members, figure_runs.removal)
    maps = panels(draw("cifar10_confusion_diff", path))
    titles = [axis.get_title().removeprefix("simple CNN: ") for axis in maps]
    assert titles == ["full (%)", *(f"without {name}" for name in NAMES)]
    reference, bird = (maps[i].images[0].get_array() for i in (0, 3))
    np.testing.assert_allclose(np.diag(reference), 82)
    np.testing.assert_allclose(bird[2, 2:4], [-52, 52])
    assert [maps[i].images[0].get_clim() for i in (0, 3)] == [(0, 100), (-100, 100)]
    assert [t.get_text() for t in maps[3].texts][22:25] == [
        "-52\n±1",
        "52\n±1",
        "0\n±0",
    ]


def test_drops_of_the_class_and_of_others(tmp_path):
    task = "cifar10_class_removal"
    plain = Config(task=task, cnn_dropout=False)
    resnet = Config(task="cifar10_resnet_class_removal")
    members = [*repeated(Config(task=task)), plain, resnet]
    path = written(tmp_path, members, figure_runs.removal)
    ratio, target = panels(draw("cifar10_drop_per_class", path))
    assert groups(target) == NAMES
    names = ["simple CNN", "CNN without dropout", "ResNet-110"]
    assert list(bars(target)) == names
    np.testing.assert_allclose(heights(target)["simple CNN"], np.arange(50, 60))
    found = heights(ratio)["ResNet-110"]
    np.testing.assert_allclose(found, [*(200 / np.arange(49, 58)), np.nan])
    assert (ratio.get_ylim(), target.get_ylim()) == ((0, 10), (0, 100))
    text = text_in_tables(draw("cifar10_drop_statistics", path))
    assert text[5:8] == ["simple CNN", "0", "53.5 (least 49.0)"]
    assert text[8] == "2.0 (most 2.0)"


def test_stability_is_told_with_mean_deviation_and_count(tmp_path):
    members = repeated(Config(task="cifar10_mask_stability", cnn_dropout=False))
    path = written(tmp_path, members, figure_runs.stability)
    (axis,) = panels(draw("mask_iou", path))
    deviation = np.std(np.repeat(np.arange(0.8, 0.895, 0.01), 3), ddof=1)
    numbers = f"mean 0.845, sd {deviation:.3f}, n = 30"
    assert axis.get_title() == f"CNN without dropout: {numbers}"
    assert groups(axis)[:2] == ["plane\ncat", "auto\ndeer"]
    np.testing.assert_allclose(heights(axis)["IoU"], np.arange(0.8, 0.895, 0.01))
    np.testing.assert_allclose(chance_levels(axis), 0.3)


def test_transfer_has_a_panel_per_start_of_the_logits(tmp_path):
    config = Config(task="permuted_mnist", layer_sizes=(800, 800, 64))
    starts = (2.0, 0.0, -1.0)
    members = [
        replaced(c, transfer_new_init=s) for c in repeated(config) for s in starts
    ]
    found = panels(
        draw("transfer_sharing", written(tmp_path, members, figure_runs.transfer))
    )
    titles = [f"new logits from {start:g}, used from 2" for start in starts]
    assert [axis.get_title().partition(": ")[2] for axis in found] == titles
    assert groups(found[0]) == ["layer 2", "layer 3", "layer 4"]
    drawn = heights(found[0])
    assert list(drawn) == ["T2", "T4", "T6", "T8", "T10"]
    np.testing.assert_allclose(drawn["T4"], [0.25, 0.35, 0.45])
    np.testing.assert_allclose(chance_levels(found[0]), [0.33] * 15)


def test_hard_problems_under_the_mask_of_easy_ones(tmp_path):
    modules = ("comparison__sort", "arithmetic__add_or_sub")
    members = [
        replaced(c, math_task=module)
        for module in modules
        for c in repeated(Config(task="deepmind_math"))
    ]
    path = written(tmp_path, members, figure_runs.mathematics)
    (axis,) = panels(draw("dm_math", path))
    assert groups(axis) == ["add or sub", "sort"]
    expected = {"network": [90, 90], "full mask": [85, 85], "mask of easy": [30, 30]}
    for label, values in heights(axis).items():
        np.testing.assert_allclose(values, expected.pop(label))
    assert not expected


def test_faithfulness_compares_masked_inverse_and_random(tmp_path):
    arithmetic = written(tmp_path, repeated(RNN), figure_runs.addmul)
    double = written(tmp_path, [TUPLE], figure_runs.pairs)
    first, second = panels(draw("faithfulness", arithmetic, double))
    assert [axis.get_title() for axis in (first, second)] == [
        "+/+ FNN 200×2",
        "+/× RNN 2×256",
    ]
    rows = [label.get_text() for label in second.get_yticklabels()]
    assert rows[:4] == ["full: masked", "full: inverse", "full: random", "+: masked"]
    assert groups(second) == ["add", "mul"]
    np.testing.assert_allclose(second.images[0].get_array()[3], [96, 4])
    assert groups(first) == ["pair 1", "pair 2"]
    np.testing.assert_allclose(first.images[0].get_array()[6:8], [[3, 95], [10, 10]])


def test_curves_of_masks_start_at_their_own_first_update(tmp_path):
    config = replaced(FNN, steps=50, mask_steps=20)

    def logged(member):
        for step in (60, 70, 80, 90):
            # Two rounds of training: "add" comes after "verify".
            stage, own = ("verify", "iid") if step <= 70 else ("add", "add")
            density = 1 / (step + 10 * member.seed)
            yield {
                "step": step,
                f"analyzer/{stage}/density": density,
                f"analyzer/{stage}/validation/{own}/accuracy": step / 100,
                f"analyzer/{stage}/train/loss": 7.0,
            }

    path = written(tmp_path, repeated(config, 2), None, logged)
    density, accuracy = panels(draw("mask_curves", path))
    full, add = accuracy.get_lines()
    assert (full.get_label(), add.get_label()) == ("full", "+")
    np.testing.assert_array_equal(add.get_xdata(), [10, 20])
    np.testing.assert_allclose(add.get_ydata(), [80, 90])
    expected = [100 * np.mean([1 / s, 1 / (s + 10)]) for s in (60, 70)]
    np.testing.assert_allclose(density.get_lines()[0].get_ydata(), expected)


def test_the_same_settings_are_no_repetitions(tmp_path):
    paths = [written(tmp_path, [FNN], figure_runs.addmul) for _ in range(3)]
    unfinished = written(tmp_path, [FNN])
    (member,) = records.collect([*paths, unfinished])
    assert member.path == paths[-1]


def test_networks_are_told_apart_by_what_differs(tmp_path):
    members = [FNN, replaced(FNN, seed=1), replaced(FNN, digits=1), RNN]
    path = written(tmp_path, members, figure_runs.addmul)
    found = records.by_network(records.collect([path]))
    assert {label: len(group) for label, group in found.items()} == {
        "FNN 2000×4, digits 2": 2,
        "FNN 2000×4, digits 1": 1,
        "RNN 2×256": 1,
    }


def test_bars_without_repetitions_stay_empty():
    figure, axes = plotting.figure()
    series = {"a": [np.array([]), np.array([3.0])]}
    drawing.bars(axes[0, 0], ["x", "y"], series, y="y", top=5)
    np.testing.assert_allclose(heights(axes[0, 0])["a"], [np.nan, 3])
    assert axes[0, 0].get_ylim() == (0, 5)
    figure.canvas.draw()


def test_an_axis_grows_beyond_its_published_end_if_bars_do():
    _, axes = plotting.figure()
    drawing.bars(axes[0, 0], ["x"], {"a": [np.array([30.0])]}, y="%", top=10)
    assert axes[0, 0].get_ylim()[1] > 30


@pytest.mark.parametrize("name", sorted(figures.FIGURES))
def test_runs_without_results_have_nothing_to_draw(tmp_path, name):
    paths = [written(tmp_path, [config]) for config in (FNN, TUPLE)]
    with pytest.raises(NothingToDraw):
        draw(name, *paths)


@pytest.mark.parametrize(
    "name",
    sorted(set(figures.FIGURES) - {"halfmask", "mask_histogram", "faithfulness"}),
)
def test_runs_of_other_tasks_have_nothing_to_draw(tmp_path, name):
    if name == "dm_math":
        path = written(tmp_path, [TUPLE], figure_runs.pairs)
    else:
        config = Config(task="deepmind_math")
        path = written(tmp_path, [config], figure_runs.mathematics)
    with pytest.raises(NothingToDraw):
        draw(name, path)


@pytest.mark.parametrize(
    "name", ["addmul_performance", "faithfulness", "mask_histogram"]
)
def test_figures_of_one_run_can_be_saved(tmp_path, name):
    path = written(tmp_path, [FNN], figure_runs.addmul)
    png, pdf = plotting.save(draw(name, path), tmp_path / name)
    assert png.stat().st_size > 5000 and pdf.exists()
