"""Every figure is drawn from the records of runs alone, and lacks aloud."""

import numpy as np
import pytest
from matplotlib.collections import FillBetweenPolyCollection, PathCollection
from matplotlib.container import ErrorbarContainer

from multipath.routing_networks.figures import FIGURES, curves, records, routes
from shared import plotting, runs, trained
from shared.plotting import NothingToDraw
from tests.multipath.routing_networks import figure_runs
from tests.multipath.routing_networks.figure_runs import (
    EPOCHS,
    ROUTED,
    SHARED,
    changed,
    written,
)

SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Runs of two algorithms, a dispatched network and a baseline; three seeds each."""
    root = tmp_path_factory.mktemp("runs")
    dispatched = changed(ROUTED, model="dispatched", modules=3)
    configs = (ROUTED, changed(ROUTED, algorithm="aac"), dispatched, SHARED)
    return [
        written(root, [changed(config, seed=seed) for seed in SEEDS])
        for config in configs
    ]


def lines(axes):
    """Return the named lines of a panel."""
    found = {line.get_label(): line for line in axes.get_lines()}
    return {label: line for label, line in found.items() if label[0] != "_"}


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.axison]


def test_lines_are_means_over_seeds_in_bands_of_a_deviation(paths):
    figure = FIGURES["accuracy"](paths)
    panel, dispatched = figure.axes
    assert titles(figure) == [
        "digits_mtl: agents by task",
        "digits_mtl: agents by dispatcher",
    ]
    # The tasks of this set are one-versus-rest.
    assert panel.get_ylabel() == "balanced accuracy (%)"
    assert list(lines(panel)) == ["AAC", "WPL", "shared"]
    expected = [100 * figure_runs.accuracy(ROUTED, epoch) + 1 for epoch in EPOCHS]
    np.testing.assert_allclose(lines(panel)["WPL"].get_xdata(), EPOCHS)
    np.testing.assert_allclose(lines(panel)["WPL"].get_ydata(), expected)
    band = panel.findobj(FillBetweenPolyCollection)[1].get_paths()[0].vertices
    height = np.ptp(band[np.isclose(band[:, 0], 1), 1])
    # Seeds differ by a hundredth each.
    assert height == pytest.approx(2 * np.sqrt(2 / 3))
    assert lines(panel)["WPL"].get_color() == lines(dispatched)["WPL"].get_color()
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["AAC", "WPL", "shared"]


def test_baselines_stand_beside_every_routed_network_in_grey(paths):
    for axes in FIGURES["accuracy"](paths).axes:
        line = lines(axes)["shared"]
        assert (line.get_color(), line.get_linestyle()) == ("#000000", "--")
    (axes,) = FIGURES["accuracy"](paths[3:]).axes
    assert axes.get_title() == "digits_mtl: baselines"
    assert lines(axes)["shared"].get_color() == plotting.PALETTE[0]


def test_lines_of_many_labels_all_look_different():
    member = trained.Trained("", {"algorithm": "wpl"}, [])
    baseline = trained.Trained("", {"algorithm": ""}, [])
    groups = {str(i): [member if i < 16 else baseline] for i in range(23)}
    assert len(set(curves._looks(groups))) == 23
    for count in (3, 20, 30):
        assert len({str(c) for c in records.colours(count)}) == count


def test_other_scores_of_other_data(tmp_path):
    published = changed(ROUTED, dataset="cifar100_mtl", modules=4, compat=True)
    opposed = changed(ROUTED, dataset="conflict", depth=1)
    # What differs between data sets is not in the labels.
    for config in (published, opposed):
        written(tmp_path, [config])
    found = {
        axes.get_title(): (axes.get_ylabel(), *lines(axes))
        for axes in FIGURES["accuracy"](runs.find(tmp_path)).axes
    }
    assert found == {
        "cifar100_mtl: agents by task": ("accuracy (%)", "WPL"),
        "conflict: agents by task": ("relative squared error", "WPL"),
    }


def test_labels_name_what_differs_and_leave_out_what_is_usual(tmp_path):
    many = [ROUTED, changed(ROUTED, rho=0.5), changed(ROUTED, lr_epochs=(8, 20))]
    written(tmp_path, [*many, changed(ROUTED, gamma=0.9)])
    labels = list(records.by_label(trained.read(runs.find(tmp_path))))
    assert labels == [
        "WPL",
        "WPL, reward weight ρ 0.5",
        "WPL, lr_epochs 8 20",
        "WPL, gamma 0.9",
    ]
    written(tmp_path / "two", many[:2])
    labels = list(records.by_label(trained.read(runs.find(tmp_path / "two"))))
    assert labels == ["WPL, reward weight ρ 0.3", "WPL, reward weight ρ 0.5"]


def test_a_setting_that_is_left_to_the_model_is_a_default():
    assert records.named("storage", {"storage": ""}) == "storage default"


def test_each_task_has_its_line(paths):
    figure = FIGURES["tasks"](paths)
    assert titles(figure) == [
        "AAC",
        "WPL, agents by task",
        "WPL, agents by dispatcher",
        "shared",
    ]
    found = lines(figure.axes[0])
    assert list(found) == [f"task {i}" for i in range(10)]
    ends = [line.get_ydata()[-1] for line in found.values()]
    middle = 100 * figure_runs.accuracy(changed(ROUTED, algorithm="aac", seed=2), 2)
    np.testing.assert_allclose(ends, middle + np.linspace(-5, 5, 10))


def test_every_decision_has_its_panel_and_the_greatest_value_there_is(paths):
    figure = FIGURES["entropy"](paths)
    assert titles(figure) == [
        "digits_mtl: agents by task\ndecision0",
        "digits_mtl: agents by task\ndecision1",
        "digits_mtl: agents by dispatcher\ndispatcher",
        "digits_mtl: agents by dispatcher\ndecision0",
        "digits_mtl: agents by dispatcher\ndecision1",
    ]
    levels = [
        lines(axes)[curves.EVEN].get_ydata()[0] for axes in figure.axes if axes.axison
    ]
    np.testing.assert_allclose(np.exp(levels), [10, 10, 3, 3, 3])
    top, below = FIGURES["collapse"](paths[:1]).axes[::2]
    assert top.get_ylabel() == "effective number of modules"
    assert below.get_ylabel() == "agreement within a task (%)"
    ends = [figure_runs.routes(changed(ROUTED, seed=s), 2) for s in SEEDS]
    for axes, name, unit in ((top, "modules", 1), (below, "agreement", 100)):
        expected = unit * np.mean([end[f"decision0/{name}"] for end in ends])
        assert lines(axes)["WPL"].get_ydata()[-1] == pytest.approx(expected)
    assert lines(top)[curves.EVEN].get_ydata()[0] == 10
    assert curves.EVEN not in lines(below)


def test_networks_with_other_numbers_of_modules_have_no_common_limit(paths, tmp_path):
    fewer = written(tmp_path, [changed(ROUTED, modules=3)])
    for axes in FIGURES["entropy"]([paths[0], fewer]).axes:
        assert list(lines(axes)) == [
            "WPL, as many modules as tasks",
            "WPL, modules in a layer 3",
        ]


def test_how_often_a_recursive_router_decides_is_drawn(tmp_path):
    recursive = changed(ROUTED, dataset="scan", model="recursive")
    panels = FIGURES["collapse"]([written(tmp_path, [recursive])]).axes
    assert panels[-1].get_ylabel() == "decisions of an example"
    np.testing.assert_allclose(lines(panels[-1])["WPL"].get_ydata(), 2.5)


def test_steps_of_recursive_routers_are_stacked_by_action(tmp_path):
    recursive = changed(ROUTED, dataset="scan", model="recursive")
    figure = FIGURES["steps"]([written(tmp_path, [recursive])])
    tasks, marks, lengths = figure.axes
    assert [text.get_text() for text in tasks.get_yticklabels()] == [
        "none",
        "and",
        "after",
    ]
    assert lengths.get_ylabel() == "actions meant"
    assert lengths.get_yticklabels()[1].get_text() == "5 to 8"
    assert marks.get_ylabel() == "with the word"
    stop, first, second = tasks.containers
    assert [bars.get_label() for bars in tasks.containers] == [
        "stop",
        "module 0",
        "module 1",
    ]
    assert {bar.get_height() for bar in (*stop, *second)} == {0.4}
    assert {bar.get_height() for bar in first} == {0.0}
    assert second[0].get_y() == pytest.approx(stop[0].get_y() + 0.4)


@pytest.mark.parametrize("name", ["use", "policies"])
def test_heat_maps_show_the_first_seed_at_the_end(paths, name):
    figure = FIGURES[name](paths)
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == [
        f"{label}\n{name}"
        for label, names in (
            ("AAC", ("decision0", "decision1")),
            ("WPL, agents by task", ("decision0", "decision1")),
            ("WPL, agents by dispatcher", ("dispatcher", "decision0", "decision1")),
        )
        for name in names
    ]
    np.testing.assert_allclose(
        panels[3].images[0].get_array(), figure_runs.use(ROUTED, EPOCHS[-1], 1)
    )
    assert (panels[4].get_xlabel(), panels[4].get_ylabel()) == ("agent", "task")
    assert panels[4].images[0].get_clim() == (0, 1)
    assert "first seed" in figure.get_suptitle()


def test_routes_join_tasks_and_modules_by_their_flows(paths):
    config = changed(ROUTED, model="dispatched", modules=3)
    record = {f"test/{k}": v for k, v in figure_runs.routes(config, 2).items()}
    shown = routes.alluvium(record)
    names = [column.name for column in shown.columns]
    assert names == ["task", "dispatcher", "decision0", "decision1"]
    assert [flow.shape for flow in shown.flows] == [(10, 3), (3, 3), (3, 3)]
    for (name, tops, heights), flow in zip(shown.columns[1:], shown.flows, strict=True):
        np.testing.assert_allclose(heights, flow.sum(0), err_msg=name)
        assert heights.sum() == pytest.approx(1)
        used = np.isfinite(tops)
        assert np.all(np.diff(tops[used]) < 0) and tops[used][0] <= 1
    axes = FIGURES["routes"](paths).axes[-1]
    bands = axes.findobj(PathCollection)
    wide = [np.count_nonzero(flow >= routes._THINNEST) for flow in shown.flows]
    assert [len(band.get_paths()) for band in bands] == wide
    # Into the first decision a ribbon is as wide as its share of all examples.
    edges = bands[0].get_paths()[0].vertices
    assert edges[0, 1] - edges[7, 1] == pytest.approx(0.7 * shown.flows[0][0, 0])
    # Those that end in the last module lie on each other and fill it.
    ends = [path.vertices for path in bands[2].get_paths()[2::3]]
    for above, below in zip(ends, ends[1:], strict=False):
        assert above[4, 1] == pytest.approx(below[3, 1])
    bottom = shown.columns[3].tops[2] - 0.7 * shown.columns[3].heights[2]
    assert ends[-1][4, 1] == pytest.approx(bottom)
    assert axes.get_xticklabels()[1].get_text() == "dispatcher\n3 of 3 used"


def test_modules_that_nothing_uses_have_no_place():
    tops = routes._tops(np.array([0.25, 0, 0.75]))
    np.testing.assert_allclose(tops, [0.9, np.nan, 0.625])
    (top,) = routes._tops(np.array([1.0]))
    assert top == pytest.approx(0.85)


def test_decisions_are_in_the_order_in_which_they_are_taken():
    flows = {"a/b1-b10/flow": 0, "a/b10-b2/flow": 0}
    record = {f"a/{name}/use": 0 for name in ("b1", "b10", "b2", "dispatcher")}
    assert records.decisions(record, "a/") == ["dispatcher", "b1", "b2", "b10"]
    del record["a/dispatcher/use"]
    assert routes.chain(record | flows, "a/") == ["b1", "b10", "b2"]
    assert routes.chain(record | {"a/b1-b1/flow": 0}, "a/") == ["b2"]


def test_a_sweep_is_drawn_over_what_differs(tmp_path):
    rhos = [changed(ROUTED, rho=r, seed=s) for r in (0.5, 0.0) for s in (1, 3)]
    figure = FIGURES["sweep"]([written(tmp_path, rhos, "the-rhos")])
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_title()) == ("reward weight ρ", "the-rhos")
    ends = [100 * figure_runs.accuracy(changed(c, seed=2), 2) for c in rhos[::-2]]
    np.testing.assert_allclose(axes.get_lines()[0].get_xydata().T, [[0, 0.5], ends])
    with pytest.raises(NothingToDraw, match="differ in a setting"):
        FIGURES["sweep"]([written(tmp_path, rhos[:2])])


def test_a_sweep_over_tasks_has_the_seconds_of_each(tmp_path):
    members = [changed(ROUTED, tasks=n, seed=s) for n in (2, 0) for s in (1, 2)]
    scores, seconds = FIGURES["sweep"]([written(tmp_path, members)]).axes
    assert scores.get_ylabel() == "balanced accuracy (%)"
    assert seconds.get_ylabel() == "training time per task (s)"
    # Two seeds share an epoch of 2 s a task; the first of two was not counted.
    x, y = seconds.get_lines()[0].get_xydata().T
    np.testing.assert_allclose(x, [2, 10])
    np.testing.assert_allclose(y, 2 * EPOCHS[-1] / 2)


def test_settings_without_numbers_are_categories(tmp_path):
    remedies = [{}, {"entropy_bonus": 0.1}, {"z_loss": 0.1, "detach": False}]
    plain = changed(ROUTED, algorithm="actor_critic")
    members = [changed(plain, **one) for one in remedies]
    (axes,) = FIGURES["sweep"]([written(tmp_path, members)]).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["base", "entropy bonus 0.1", "detach False, z-loss 0.1"]
    (points,) = (c for c in axes.containers if isinstance(c, ErrorbarContainer))
    np.testing.assert_allclose(points.lines[0].get_ydata(), [0, -1, -2])
    models = [SHARED, changed(SHARED, model="soft_mixture")]
    (axes,) = FIGURES["sweep"]([written(tmp_path, models)]).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["shared", "soft mixture"]


def test_what_is_not_recorded_is_not_drawn_and_said(tmp_path):
    baseline = written(tmp_path, [SHARED])
    for name in ("entropy", "collapse", "use", "routes"):
        with pytest.raises(NothingToDraw, match="no record of decisions"):
            FIGURES[name]([baseline])
    untrained = written(tmp_path, [ROUTED], epochs=())
    for draw in FIGURES.values():
        with pytest.raises(NothingToDraw):
            draw([untrained])
    with pytest.raises(NothingToDraw):
        FIGURES["tasks"]([written(tmp_path, [changed(ROUTED, dataset="conflict")])])
    single = FIGURES["use"]([written(tmp_path, [ROUTED]), baseline, untrained])
    assert len([axes for axes in single.axes if axes.images]) == 2


def test_figures_of_very_many_networks_say_what_they_leave_out(paths, monkeypatch):
    monkeypatch.setattr(curves, "NETWORKS", 2)
    figure = FIGURES["routes"](paths)
    assert titles(figure) == ["AAC", "WPL, agents by task"]
    assert figure.get_suptitle().endswith("\n2 of 3 networks")
