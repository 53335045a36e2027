"""The sweep command: what it runs, what it asks, and that it never waits in vain."""

import pytest

from modmask.experiments import EXPERIMENTS
from scripts import sweep, train
from shared import cli

FILE = """
method: grid
parameters:
  task: {value: addmul_ff}
  layer_sizes: {values: ["30,30", "20"]}
  mask_init: {values: [1, 2.0]}
  stop_after: {value: 200}
  sweep_id_for_grid_search: {values: [1, 2, 3]}
"""


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Return the requests that would be trained."""
    requests = []

    def run(request):
        requests.append(request)
        return tmp_path / "run"

    monkeypatch.setattr(train, "run", run)
    return requests


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(FILE)
    return str(path)


@pytest.fixture
def terminal(monkeypatch):
    """Answer questions from a list."""

    def answer(*answers):
        remaining = list(answers)
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)

        def reply(prompt):
            del prompt
            if not remaining:
                raise EOFError
            return remaining.pop(0)

        monkeypatch.setattr("builtins.input", reply)

    return answer


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)


def settings(requests):
    (request,) = requests
    configs = request.experiment.configs
    return [(c.layer_sizes, c.mask_init, c.seed) for c in configs]


def test_selected_values_make_one_config(file, asked):
    chosen = ["--select", "layer_sizes=20", "mask_init=2"]
    assert cli.run_main(sweep.main, [file, *chosen]) == 0
    assert settings(asked) == [((20,), 2.0, 0)]
    assert asked[0].options.seeds == 1


def test_all_values_are_members_with_repetitions_as_seeds(file, asked):
    assert cli.run_main(sweep.main, [file, "--select=mask_init=1", "--all"]) == 0
    assert settings(asked) == [
        (sizes, 1.0, seed) for sizes in ((30, 30), (20,)) for seed in (1, 2, 3)
    ]


def test_seeds_take_the_place_of_the_repetitions_of_the_file(file, asked):
    assert cli.run_main(sweep.main, [file, "--all", "--seeds", "2"]) == 0
    assert len(settings(asked)) == 4 and asked[0].options.seeds == 2
    members = train.members(asked[0].experiment.configs, 2)
    assert [config.seed for config in members] == [0, 1] * 4


def test_one_repetition_can_be_chosen(file, asked):
    chosen = ["layer_sizes=20", "mask_init=1", "sweep_id_for_grid_search=3"]
    assert cli.run_main(sweep.main, [file, "--select", *chosen]) == 0
    assert settings(asked) == [((20,), 1.0, 3)]


def test_a_terminal_is_asked_for_what_is_open(file, asked, terminal, capsys):
    terminal("3", "x", "2", "all")
    assert cli.run_main(sweep.main, [file]) == 0
    assert settings(asked) == [((20,), 1.0, 0), ((20,), 2.0, 0)]
    printed = capsys.readouterr().out
    assert "  1  30,30\n  2  20\n" in printed and "repetition" not in printed


def test_the_end_of_input_is_no_answer(file, asked, terminal, capsys):
    terminal("1")
    assert cli.run_main(sweep.main, [file]) == 2
    assert "mask_init: got 'no answer'" in capsys.readouterr().err and not asked


def test_without_a_terminal_the_choices_are_listed(file, asked, capsys):
    arguments = [file, "--select", "mask_init=1"]
    assert cli.run_main(sweep.main, arguments) == 2
    captured = capsys.readouterr().err
    assert (
        "layer_sizes=30,30 | 20; or --all" in captured
        and "mask_init=1 |" not in captured
    )
    assert not asked


def test_options_of_the_run_follow(file, asked):
    options = "--scale smoke --mask-lr 0.5 --sinks tensorboard --all --seeds=1".split()
    assert cli.run_main(sweep.main, [file, *options]) == 0
    (request,) = asked
    assert request.options.scale == "smoke" and request.options.sinks == (
        "tensorboard",
    )
    assert request.system == "modmask" and request.experiment.name == "custom"
    assert {c.steps for c in request.experiment.configs} == {150}
    assert {c.mask_lr for c in request.experiment.configs} == {0.5}


def test_a_file_named_like_an_experiment_runs_under_its_name(tmp_path, asked):
    path = tmp_path / "addmul_rnn.yaml"
    path.write_text("parameters: {task: {value: addmul}}")
    assert cli.run_main(sweep.main, [str(path)]) == 0
    assert asked[0].experiment.name == "addmul_rnn" in EXPERIMENTS


def test_what_has_no_effect_is_noted_once(tmp_path, asked, capsys):
    path = tmp_path / "x.yaml"
    path.write_text("parameters: {log: {value: tb}, lr: {values: [0.1, 0.2]}}")
    assert cli.run_main(sweep.main, [str(path), "--all"]) == 0
    assert capsys.readouterr().out.count("note: log tb: use --sinks") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--all"], "sweep file: got '--all'"),
        (["FILE", "--select", "mask_init"], "name=value"),
        (["FILE", "--select", "mask_init=3", "--all"], "one of 1, 2.0"),
        (["FILE", "--select", "mask_int=2"], "Did you mean 'mask_init'"),
        (["FILE", "--all", "--batch-sizes", "4"], "Did you mean --batch-size"),
        (["FILE", "--all", "--batch-size", "3"], "a multiple of mask_samples"),
        (["FILE", "--all", "--resume", "runs/x"], "no other argument"),
    ],
)
def test_wrong_usage_is_one_line_and_trains_nothing(
    arguments, words, file, asked, capsys
):
    given = [file if word == "FILE" else word for word in arguments]
    assert cli.run_main(sweep.main, given) == 2
    captured = capsys.readouterr().err
    assert captured.count("\n") == 1 and words in captured and not asked


def test_help_needs_no_file(capsys):
    assert cli.run_main(sweep.main, ["--help"]) == 0
    assert "--select" in capsys.readouterr().out
