"""The commands: train, report, plot and evaluate a tiny run, name what is wrong."""

import json
from pathlib import Path

import pytest

from gaitprop.experiments import EXPERIMENTS
from scripts import demo, evaluate, plot, report, systems, train
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


def test_one_figure_of_a_system_is_drawn_by_its_name(run, capsys, monkeypatch):
    root = run.parents[2]
    plot.main(["gaitprop", "learning-curves", str(root)])
    assert f"learning-curves: {run}" in capsys.readouterr().out
    # Without runs named, those under runs/ of the working directory.
    monkeypatch.chdir(root.parent)
    (root.parent / "runs").symlink_to(root)
    plot.main(["gaitprop", "learning-curves"])
    assert "learning-curves: runs/gaitprop" in capsys.readouterr().out


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


def test_a_member_is_evaluated_like_a_run(run, capsys):
    assert cli.run_main(evaluate.main, [str(run)]) == 0
    records = capsys.readouterr().out.splitlines()
    assert cli.run_main(evaluate.main, [str(runs.members(run)[4])]) == 0
    assert capsys.readouterr().out.splitlines() == [records[4]]


def test_plot_of_a_member_draws_what_needs_no_checkpoint(run, capsys):
    member = runs.members(run)[2]
    assert runs.read_config(member)["config"]["algorithm"] == "gait"
    assert cli.run_main(plot.main, [str(member)]) == 0
    assert "scatter: skipped, run: got" in capsys.readouterr().out
    assert cli.run_main(plot.main, [str(member), "--figure", "scatter"]) == 2


@pytest.mark.parametrize("command", [plot, report])
def test_no_run_is_wrong_usage(command, capsys):
    assert cli.run_main(command.main, []) == 2
    assert "a run directory" in capsys.readouterr().err


def test_resuming_a_finished_run_changes_nothing(run, capsys):
    before = {p: p.read_bytes() for p in run.rglob("*.json*")}
    assert cli.run_main(train.main, ["--resume", str(run)]) == 0
    assert f"run: {run}" in capsys.readouterr().out
    assert {p: p.read_bytes() for p in run.rglob("*.json*")} == before


def test_a_failed_resume_leaves_the_run_alone(tmp_path, capsys):
    arguments = ["gaitprop", "digits-h1-bp", *TINY, "--out", str(tmp_path)]
    request = cli.parse(arguments, systems.EXPERIMENTS, prog="train")
    # Killed before its first record.
    train.open_run(request, request.experiment.configs).close()
    (path,) = runs.find(tmp_path)
    file = path / "config.json"
    file.write_text(file.read_text().replace('"batch_size": 32', '"batch_size": 9999'))
    assert cli.run_main(train.main, ["--resume", str(path)]) == 2
    assert "batch_size: got 9999" in capsys.readouterr().err and file.is_file()


def test_demo_explains_itself(capsys):
    assert cli.run_main(demo.main, ["--help"]) == 0
    assert "python -m scripts.demo" in capsys.readouterr().out


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
    arguments = ["gaitprop", "digits-h1-gait", *TINY, "--learning-rate", "1e20"]
    status = cli.run_main(train.main, [*arguments, "--out", str(tmp_path)])
    captured = capsys.readouterr().err
    assert status == 1 and captured.count("\n") == 1
    (path,) = runs.find(tmp_path)
    assert "failed: " in report.table([path])
    for words in ("non-finite at step", "good checkpoint: none", "--learning-rate"):
        assert words in captured
