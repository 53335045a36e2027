"""Every figure is drawn from the records of runs, labels included, and lacks aloud."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.legend import Legend
from matplotlib.transforms import Affine2D

from multipath.trees import data, figures
from multipath.trees.figures import diagrams, efficiency, films, geometry, records
from shared import runs
from shared.plotting import NothingToDraw
from tests.multipath.trees import figure_runs
from tests.multipath.trees.figure_runs import ACTOR, CRITIC, STATIC, changed, written

STEPS = (2000, 4000)
KINDS = {
    "ac-notalr": changed(ACTOR, talr=False),
    "ac-nokdec": changed(ACTOR, k_dec=0.0),
    "ac-globopt": changed(ACTOR, stop_grad_p=False),
    "cr-opt": changed(CRITIC, optimistic=True),
    "cr-clserr": changed(CRITIC, use_cls_err=True),
    "cr-notalr": changed(CRITIC, talr=False),
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Runs of all kinds of networks on the mixed data."""
    root = tmp_path_factory.mktemp("runs")
    for seed in (1, 2, 3):
        for base in (ACTOR, CRITIC):
            written(root, figure_runs.priced(changed(base, seed=seed)))
        written(root, figure_runs.statics(changed(STATIC, seed=seed)))
    for config in KINDS.values():
        written(root, figure_runs.priced(config))
    adaptive = changed(ACTOR, dyn_k_cpt=True, k_cpts=figure_runs.PRICES)
    written(root, [adaptive])
    written(root, figure_runs.priced(changed(ACTOR, topology="tree")))
    return runs.find(root)


def draw(name, paths):
    for group in figures.FIGURES.values():
        if isinstance(group, dict) and name in group:
            return group[name](paths)
    return figures.FIGURES[name](paths)


def bars(axes):
    """Return points `[points, 2]` and deviations of each labelled curve."""
    found = {}
    for container in axes.containers:
        assert isinstance(container, ErrorbarContainer)
        line, _, spread = container.lines
        lengths = [
            [np.ptp(s, axis=0).max() / 2 for s in c.get_segments()] for c in spread
        ]
        found[container.get_label()] = np.array(line.get_xydata()), np.array(lengths).T
    return found


def looks(axes):
    lines = {c.get_label(): c.lines[0] for c in axes.containers}
    return {k: (v.get_color(), v.get_linestyle()) for k, v in lines.items()}


def ends(config, prices=figure_runs.PRICES):
    """Return costs and errors that the runs hold at their last step."""
    found = [figure_runs.statistics(config, price, STEPS[-1]) for price in prices]
    return np.array([[s["moc"], 1 - s["accuracy"]] for s in found])


def test_every_kind_of_network_has_its_label_colour_and_panel(paths):
    figure = draw("acc-eff-0", paths)
    panels = [looks(axes) for axes in figure.axes]
    sr, ac, cr = "Statically-Routed Nets", "Actor Nets", "Pragmatic Critic Nets"
    assert [list(panel) for panel in panels] == [
        [sr, ac, cr],
        [sr, cr, "Optimistic Critic Nets"],
        [sr, cr, "Pragmatic Critic Nets, Classification Error"],
        [sr, cr, "Pragmatic Critic Nets, no TALR"],
        [sr, ac, "Actor Nets, no TALR"],
        [sr, ac, "Actor Nets, k_dec = 0"],
        [sr, ac, "Actor Nets, Regularized Policy"],
        [sr, ac, "Actor Net, Branching"],
        [sr, ac, "Actor Net, Dynamic k_cpt"],
    ]
    red, green = panels[0][cr][0], panels[0][ac][0]
    # The legend of the published figure has these two the other way round.
    assert panels[3]["Pragmatic Critic Nets, no TALR"] == (red, "--")
    yellow, line = panels[2]["Pragmatic Critic Nets, Classification Error"]
    assert line == "-" and yellow not in (red, green)
    assert panels[4]["Actor Nets, no TALR"] == (green, "--")
    assert panels[5]["Actor Nets, k_dec = 0"] == (green, ":")
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [look.label for look in efficiency.LOOKS.values()]
    assert figure.get_suptitle() == ""
    small = figure.subfigs[1]
    assert (small.get_supxlabel(), small.get_supylabel()) == (
        efficiency.X,
        efficiency.Y,
    )


def test_points_are_means_and_bars_deviations_over_seeds(paths):
    found = bars(draw("pres-03", paths).axes[0])
    points, spread = found["Actor Nets"]
    np.testing.assert_allclose(points, ends(changed(ACTOR, seed=2)))
    # Of seeds 1, 2, 3: a step of 1e5 operations each, and of 0.002 errors.
    np.testing.assert_allclose(spread, [[1e5, 0.002]] * 3, rtol=1e-6)
    static, _ = found["Statically-Routed Nets"]
    assert np.all(np.diff(static[:, 0]) > 0) and len(static) == 3


def test_curves_of_one_seed_have_no_bars_and_adaptive_nets_a_point_a_price(paths):
    points, spread = bars(draw("pres-09", paths).axes[0])["Actor Net, Dynamic k_cpt"]
    np.testing.assert_allclose(points, ends(ACTOR))
    assert spread.size == 0


def test_what_differs_in_other_settings_is_a_curve_of_its_own(tmp_path):
    for n_iter in (4000, 8000):
        written(tmp_path, figure_runs.priced(changed(ACTOR, n_iter=n_iter)))
    found = bars(draw("pres-00", runs.find(tmp_path)).axes[0])
    assert list(found) == ["Actor Nets, n_iter 4000", "Actor Nets, n_iter 8000"]


def test_adaptive_nets_with_other_prices_are_read_at_their_own(tmp_path):
    for seed, prices in ((1, (0.0, 1e-9)), (2, (1e-9, 2e-9, 4e-9))):
        own = changed(ACTOR, dyn_k_cpt=True, k_cpts=prices, seed=seed)
        written(tmp_path, [own])
    found = runs.find(tmp_path)
    (container,) = draw("pres-09", found).axes[0].containers
    points = container.lines[0].get_xydata()
    first, second = (changed(ACTOR, seed=seed) for seed in (1, 2))
    both = (ends(first, [1e-9]) + ends(second, [1e-9])) / 2
    wanted = [*ends(first, [0.0]), *both, *ends(second, [2e-9, 4e-9])]
    np.testing.assert_allclose(points, wanted)


def test_a_network_that_is_trained_again_is_no_further_seed():
    def member(seed, cost, created, step=4000, **changes):
        record = {"step": step, "test/moc": cost, "test/accuracy": 0.9}
        return records.Member(changed(ACTOR, seed=seed, **changes), [record], created)

    found = [
        member(1, 1.0, "2026-01-02"),
        member(1, 2.0, "2026-01-03", t_log=1000),
        member(1, 3.0, "2026-01-01"),
        member(1, 4.0, "2026-01-04", step=2000),
        member(2, 5.0, "2026-01-01"),
    ]
    (curve,) = records.curves(found, "ac")
    (point,) = curve.points
    np.testing.assert_allclose(records.efficiency(point)[:, 0], [2.0, 5.0])


def test_what_is_left_out_is_named(tmp_path):
    for dataset in ("hybrid", "digits", "mnist"):
        written(tmp_path, [changed(ACTOR, dataset=dataset)])
    paths = runs.find(tmp_path)
    note = "runs on digits and mnist left out"
    assert draw("pres-00", paths).get_suptitle().startswith(f"hybrid. {note}")
    for name in ("nld-0", "routing-hists"):
        title = " ".join(draw(name, paths).get_suptitle().split())
        assert title.startswith(f"hybrid, {note}")


def test_absent_runs_are_named(tmp_path):
    path = written(tmp_path, figure_runs.statics(changed(STATIC, dataset="digits")))
    title = draw("acc-eff-0", [path]).get_suptitle()
    assert title.startswith("digits. no runs of: Pragmatic Critic Nets; Optimistic")
    assert "Statically" not in title
    for name in ("acc-eff-1", "acc-eff-2", "nld-0", "nld-1", "routing-hists"):
        with pytest.raises(NothingToDraw, match="no run"):
            draw(name, [path])
    with pytest.raises(NothingToDraw, match="no run of Actor Nets on digits"):
        draw("pres-00", [path])
    with pytest.raises(NothingToDraw):
        draw("video-ac", [])


def test_runs_without_statistics_are_no_points(tmp_path):
    untrained = written(tmp_path, figure_runs.priced(), steps=())
    with pytest.raises(NothingToDraw, match="with statistics"):
        draw("acc-eff-0", [untrained])


def test_limits_are_published_ones_where_the_points_fit(tmp_path):
    wide = changed(STATIC, arch=("2,2",) * 3 + ("2",) * 5)
    window = efficiency.MIXED
    axes = draw("acc-eff-0", [written(tmp_path, figure_runs.statics(wide))]).axes[0]
    assert (axes.get_xlim(), axes.get_ylim()) == (window.x, window.y)
    early = written(tmp_path, figure_runs.statics(), steps=[100])
    axes = draw("acc-eff-0", [early]).axes[0]
    points, _ = bars(axes)["Statically-Routed Nets"]
    assert axes.get_ylim()[1] > points[:, 1].max() > window.y[1]
    assert points[:, 0].max() < axes.get_xlim()[1] < 2 * points[:, 0].max()


def test_complexities_and_widths(tmp_path):
    for dataset in ("cifar10", "cifar5"):
        for base in (STATIC, ACTOR):
            own = changed(base, dataset=dataset)
            many = figure_runs.statics if base is STATIC else figure_runs.priced
            written(tmp_path, many(own))
    written(tmp_path, figure_runs.priced(changed(ACTOR, dataset="cifar10", width=3)))
    found = runs.find(tmp_path)
    for name in ("acc-eff-1", "pres-02"):
        figure = draw(name, found)
        (axes,) = figure.axes
        colours = {label: colour for label, (colour, _) in looks(axes).items()}
        assert list(colours) == [
            f"{kind} Nets, CIFAR-{count}"
            for kind in ("Statically-Routed", "Actor")
            for count in (10, 5)
        ]
        assert colours["Statically-Routed Nets, CIFAR-10"] == "#1f78b4"
        assert colours["Actor Nets, CIFAR-5"] == "#b2df8a"
        assert axes.get_xscale() == ("log" if name == "pres-02" else "linear")
        assert "Nets, CIFAR-2; Actor" in figure.get_suptitle()
    figure = draw("acc-eff-2", found)
    one, three = figure.axes
    assert [a.get_title() for a in (one, three)] == [
        "2 ≤ channels ≤ 2",
        "6 ≤ channels ≤ 6",
    ]
    assert list(looks(three)) == ["Actor Nets"]
    absent = ["Statically-Routed Nets, width 2", "Statically-Routed Nets, width 3"]
    note = " ".join(figure.get_suptitle().split())
    assert note == f"no runs of: {'; '.join([*absent, 'Actor Nets, width 2'])}"


def leaf(right, wrong=0.0):
    classes = {"p_cor_by_cls": [right, 0.0], "p_inc_by_cls": [0.0, wrong]}
    own = {"p_cor": right, "p_inc": wrong, **classes}
    return {"name": "LogReg", "stats_ts": own, "sinks": []}


def node(*sinks):
    return {"name": "ReConvMax", "stats_ts": {}, "sinks": list(sinks)}


def test_diagram_of_a_small_tree():
    record = node(leaf(0.16), node(leaf(0.002)), node(leaf(0.3, 0.1), node(leaf(0.4))))
    link = geometry.node_link(record, 2)
    high = np.sqrt(3) / 2
    centres = [(0, 0), (high, -1), (high, 1), (high + 1, 1)]
    np.testing.assert_allclose(link.centres, centres, atol=1e-12)
    np.testing.assert_allclose(link.radii, np.sqrt([0.16, 0.0025, 0.4, 0.4]) / 2)
    np.testing.assert_allclose(
        link.accuracy, [[1, 0], [np.nan] * 2, [0.75, 0.25], [1, 0]]
    )
    np.testing.assert_allclose(link.classes, link.accuracy)
    np.testing.assert_allclose(link.bounds, [0, high + 1, -1, 1])
    edges = [(0, 0, high, -1), (0, 0, high, 1), (high, 1, high + 1, 1)]
    np.testing.assert_allclose(link.edges, edges, atol=1e-12)
    early = node(leaf(1.0), node(leaf(0.0)), node(leaf(0.0), node(leaf(0.0))))
    np.testing.assert_allclose(
        geometry.routing_histogram([early, record]), [[0.16, 0.402, 0.4], [1, 0, 0]]
    )


def drawn(figure, kind):
    return [c for c in figure.axes[0].collections if isinstance(c, kind)]


def legends(figure):
    found = figure.axes[0].findobj(Legend)
    return [[text.get_text() for text in legend.get_texts()] for legend in found]


def test_chains_have_a_row_for_each_price(paths):
    figure = draw("nld-0", paths)
    starts = [line.get_segments()[0][0] for line in drawn(figure, LineCollection)]
    # Two blocks of three prices, as wide as their legends.
    np.testing.assert_allclose(starts, [(x, y) for x in (0, 4) for y in range(3)])
    texts = [text.get_text() for text in figure.axes[0].texts]
    arrows = ["Layer Index"] * 2 + ["Cost of Computation"]
    assert [text for text in texts if text] == arrows
    names = legends(figure)
    assert names[0] == ["Correct Labels", "Incorrect Labels"]
    assert names[1][::5] == ["0", "Airplane"]
    # The first layer at the lowest price: shares of right and wrong, from the top on.
    right, wrong = drawn(figure, PatchCollection)[0].get_paths()[:2]
    found = figure_runs.statistics(ACTOR, 0.0, STEPS[-1])
    for path, name in ((right, "p_cor"), (wrong, "p_inc")):
        assert area(path) == pytest.approx(np.pi / 4 * found[name][0], rel=0.01)


@pytest.mark.parametrize("depth", [2, 8])
def test_names_below_chains_are_neither_cut_nor_on_each_other(depth, tmp_path):
    arch = ("2,2", *["2"] * (depth - 1))
    written(tmp_path, [changed(ACTOR, arch=arch)])
    figure = draw("nld-0", runs.find(tmp_path))
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    boxes = [legend.get_window_extent() for legend in axes.findobj(Legend)]
    boxes += [text.get_window_extent() for text in axes.texts if text.get_text()]
    for i, box in enumerate(boxes):
        assert figure.bbox.containsx(box.x0) and figure.bbox.containsx(box.x1)
        assert figure.bbox.containsy(box.y0) and figure.bbox.containsy(box.y1)
        assert not any(box.overlaps(other) for other in boxes[:i])


def area(path):
    # Large, since arcs become polygons of a few pixels, and with every corner.
    large = path.transformed(Affine2D().scale(1e4))
    large.should_simplify = False
    x, y = large.to_polygons()[0].T
    return abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2e8


def test_classes_have_names_and_colours_of_their_own():
    assert data.NAMES["hybrid"][4:6] == ("4", "Airplane")
    assert data.NAMES["cifar5"][-2:] == ("Horse", "Other")
    for count in (2, 10, 20):
        assert len(set(diagrams.hues(count))) == count


def test_trees_and_the_other_diagrams_are_drawn(paths):
    figure = draw("nld-1", paths)
    assert figure.get_suptitle() == "k_cpt = 0"
    (lines,) = drawn(figure, LineCollection)
    # Between 1 + 2 + 4 transformations.
    assert len(lines.get_segments()) == 6
    for name, blocks in (("accuracy", 3), ("classes", 3), ("tree-accuracy", 1)):
        figure = draw(f"nld-{name}", paths)
        assert len(drawn(figure, PatchCollection)) == blocks
        names = "0" if name == "classes" else "Correct Labels"
        assert [labels[0] for labels in legends(figure)] == [names]
    with pytest.raises(NothingToDraw, match="no tree number 3"):
        diagrams.tree(paths, number=3)


def test_histograms_run_from_the_latest_log_down(paths):
    figure = draw("routing-hists", paths)
    panels = [axes for axes in figure.axes if axes.images]
    titles = ["k_cpt = 0", "k_cpt = 1e-9", "k_cpt = 2e-9"]
    assert [axes.get_title() for axes in panels] == titles
    expected = [figure_runs.shares(ACTOR, 1e-9, step) for step in STEPS[::-1]]
    np.testing.assert_allclose(panels[1].images[0].get_array(), expected)
    assert [t.get_text() for t in panels[0].get_yticklabels()] == ["4k", "2k"]
    assert panels[0].images[0].get_clim() == (0, 1)


def test_films_have_a_frame_for_each_log(paths, tmp_path):
    from PIL import Image

    film = draw("video-ac", paths)
    assert len(film.frames) == 2
    gif, *frames = film._replace(dpi=20, small_dpi=20).save(tmp_path / "film")
    with Image.open(gif) as opened:
        assert getattr(opened, "n_frames", 1) == 2
    assert [f.name for f in frames] == ["nld-0000.png", "nld-0001.png"]
    first, last = (np.asarray(Image.open(f)) for f in frames)
    assert first.shape == last.shape and np.any(first != last)
    assert {p.name for p in tmp_path.iterdir()} == {"film", "film.gif"}
    tree = draw("video-ac-tree-1", paths)
    figure = diagrams._figure()
    tree.frames[1](figure)
    assert figure.get_suptitle() == "k_cpt = 1e-9, iteration 4,000"


def test_a_film_that_fails_leaves_no_draft(paths, tmp_path):
    def failing(figure):
        raise RuntimeError("no ink")

    film = draw("video-ac", paths)
    film = film._replace(frames=[film.frames[0], failing], dpi=20, small_dpi=20)
    with pytest.raises(RuntimeError, match="no ink"):
        film.save(tmp_path / "film")
    assert [p.name for p in tmp_path.iterdir()] == ["film"]


def test_logs_that_not_all_networks_have_are_no_frames(tmp_path):
    written(tmp_path, [ACTOR, changed(ACTOR, k_cpt=1e-9)], (2000,))
    written(tmp_path, [changed(ACTOR, k_cpt=2e-9)], (4000,))
    with pytest.raises(NothingToDraw, match="no iteration"):
        films.chains(runs.find(tmp_path), kind="ac")
