"""The commands: train, report, plot and evaluate one tiny run, and say what is wrong."""

import json
from pathlib import Path

import pytest

from gaitprop.experiments import EXPERIMENTS
from scripts import evaluate, plot, report, train
from shared import cli, runs

TINY = "--scale smoke --steps 20 --eval-train-rows 64 --widths 64 20 10".split()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    arguments = ["gaitprop", "digits-rules", *TINY, "--seeds", "2", "--out", str(out)]
    assert cli.run_main(train.main, arguments) == 0
    (path,) = runs.find(out)
    return path


def test_run_directory_holds_all_that_is_needed(run):
    stored = runs.read_config(run)
    assert (stored["system"], stored["experiment"]) == ("gaitprop", "digits-rules")
    assert stored["options"]["scale"] == "smoke" and stored["members"] == 6
    members = [runs.read_config(m)["config"] for m in runs.members(run)]
    assert [(m["algorithm"], m["seed"]) for m in members] == [
        (rule, seed) for rule in ("bp", "gait", "tp") for seed in (1, 2)
    ]
    assert all(m["widths"] == [64, 20, 10] and m["steps"] == 20 for m in members)
    assert runs.read_summary(run)["status"] == "done"


def test_report_pools_seeds_and_names_what_differs(run):
    lines = report.table([run]).splitlines()
    assert len(lines) == 2 + 3
    assert [
        ("algorithm " + rule) in line
        for rule, line in zip(("bp", "gait", "tp"), lines[2:], strict=True)
    ] == [True] * 3
    assert "±" in lines[2] and "%" in lines[2]


def test_plot_draws_what_the_run_has_and_skips_the_rest(run, capsys):
    assert cli.run_main(plot.main, [str(run)]) == 0
    printed = capsys.readouterr().out
    assert "depth: skipped, needs runs of several depths" in printed
    for name in ("learning-curves", "peak-final", "angle", "orthogonality", "scatter"):
        for suffix in ("png", "pdf"):
            assert (run / "figures" / f"{name}.{suffix}").stat().st_size > 1000


def test_plot_of_an_unknown_figure_names_the_closest(run, capsys):
    arguments = [str(run), "--figure", "angel"]
    assert cli.run_main(plot.main, arguments) == 2
    assert "Did you mean 'angle'" in capsys.readouterr().err


def test_evaluate_prints_a_record_per_member(run, capsys):
    assert cli.run_main(evaluate.main, [str(run)]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    last = [runs.read_metrics(m)[-1] for m in runs.members(run)]
    found = [record["test/accuracy"] for record in records]
    assert found == [record["test/accuracy"] for record in last]


def test_list_has_a_line_for_every_experiment(capsys):
    with pytest.raises(SystemExit) as stopped:
        train.main(["--list"])
    assert stopped.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[1] for line in lines} >= set(EXPERIMENTS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("gaitprop sq4-gat", "Did you mean 'sq4-gait'"),
        ("gaitpro sq4-gait", "Did you mean 'gaitprop'"),
        ("gaitprop sq4-gait", "Pass --data-dir DIR"),
        ("gaitprop digits-h4-gait --gama 1", "Did you mean --gamma"),
        ("gaitprop digits-h4-gait --dtype bfloat16", "--dtype: got 'bfloat16'"),
        ("gaitprop digits-h4-gait --batch-size 2000", "batch_size: got 2000"),
        ("gaitprop digits-h4-gait --widths 64 8", "widths: got (64, 8)"),
        ("--resume /nowhere", "a run directory"),
    ],
)
def test_wrong_usage_is_one_line_status_2_and_leaves_nothing(
    arguments, words, tmp_path, capsys
):
    given = arguments.split()
    if "--resume" not in given:
        given += ["--out", str(tmp_path)]
    assert cli.run_main(train.main, given) == 2
    captured = capsys.readouterr().err
    assert captured.count("\n") == 1 and words in captured
    assert not list(tmp_path.rglob("config.json"))


def test_divergence_is_one_line_and_status_1(tmp_path, capsys):
    arguments = "gaitprop digits-h4-gait --learning-rate 1e20 --steps 20".split()
    status = cli.run_main(train.main, [*arguments, "--out", str(tmp_path)])
    captured = capsys.readouterr().err
    assert status == 1 and captured.count("\n") == 1
    for words in ("non-finite at step", "last good checkpoint: none", "--learning-rate"):
        assert words in captured
