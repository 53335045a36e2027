"""Sets of figures, films and notes of `scripts.plot`."""

from types import SimpleNamespace

import pytest

from scripts import plot, systems
from shared import cli, plotting, runs


class Film:
    """A picture that writes itself."""

    def save(self, path):
        target = path.with_name(f"{path.name}.gif")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("film")
        return [target]


def curve(paths):
    return plotting.figure(title="no runs of:\nB")[0]


def absent(paths):
    raise plotting.NothingToDraw("no run of C")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of a system with a figure and a set of three."""
    figures = {"curve": curve, "set": {"a": curve, "b": absent, "c": lambda _: Film()}}
    monkeypatch.setattr(systems, "load", lambda *_: SimpleNamespace(FIGURES=figures))
    return runs.create(tmp_path, "gaitprop", "test", {}, {}).path


def written(run):
    return sorted(file.name for file in (run / "figures").iterdir())


def test_a_set_is_drawn_whole_and_what_it_lacks_is_told(run, capsys):
    plot.draw("gaitprop", [run], run / "figures", ["set"])
    assert written(run) == ["a.pdf", "a.png", "c.gif"]
    assert capsys.readouterr().out.splitlines() == [
        f"a: {run}/figures/a.png (no runs of: B)",
        "b: skipped, no run of C",
        f"c: {run}/figures/c.gif",
    ]


def test_one_of_a_set_is_drawn_by_its_own_name(run):
    assert cli.run_main(plot.main, ["gaitprop", "c", str(run)]) == 0
    assert written(run) == ["c.gif"]


def test_all_figures_are_drawn_once(run, capsys):
    assert cli.run_main(plot.main, [str(run)]) == 0
    names = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["curve", "a", "b", "c"]


def test_a_set_without_any_picture_is_wrong_usage(run, capsys):
    assert cli.run_main(plot.main, [str(run), "--figure", "b"]) == 2
    assert cli.run_main(plot.main, [str(run), "--figure", "sets"]) == 2
    assert "Did you mean 'set'" in capsys.readouterr().err
