"""The command line: every field a flag, every mistake one line."""

import dataclasses
import subprocess
import sys
import types
import typing
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared import cli, config, runs
from shared.config import Experiment, traced
from shared.errors import UsageError, check_range

PROG = "python -m scripts.train"


@dataclass(frozen=True)
class Config:
    """Settings of a tiny system.

    Attributes:
        widths: layer widths.
        rate: step size.
    """

    widths: tuple[int, ...] = (4, 2)
    rate: float = traced(0.1)
    shuffle: bool = False
    rule: str = "bp"
    limit: int | None = None
    tree: tuple[tuple[int, ...], ...] = ((8, 8), (16,))
    seed: int = traced(1)

    def __post_init__(self):
        check_range("rate", self.rate, low=0)


def _experiment(name, *configs):
    return Experiment(name, f"Does {name}.", configs, "digits", "Table 1.", 2.5)


def _scaled(settings, scale):
    return dataclasses.replace(settings, widths={"smoke": (1,), "small": (2,)}[scale])


TABLE = {
    "plain": _experiment("plain", Config()),
    "grid": _experiment("grid", Config(rate=0.1), Config(rate=0.2)),
}
SYSTEMS = {
    "tiny": types.SimpleNamespace(EXPERIMENTS=TABLE, scaled=_scaled),
    "other": types.SimpleNamespace(EXPERIMENTS={"last": _experiment("last", Config())}),
    # Imported only when it is asked for.
    "absent": "no_such_package.experiments",
}


def _parse(line):
    return cli.parse(line.split(), SYSTEMS, prog=PROG)


def test_defaults_are_the_experiments():
    request = _parse("tiny plain")
    assert request.system == "tiny"
    assert request.experiment == TABLE["plain"]
    assert request.options == cli.RunOptions()


def test_every_field_and_option_in_one_namespace():
    request = _parse(
        "tiny plain --widths 7 8 9 --data_dir here --rate=0 --seeds 5 --limit 3 "
        "--shuffle --tree ((1,2),(3,)) -rule tp --seed 2 --sinks wandb trackio "
        "--dtype float64 --out there --devices 2"
    )
    assert request.experiment.configs == (
        Config((7, 8, 9), 0.0, True, "tp", 3, ((1, 2), (3,)), 2),
    )
    assert request.options == cli.RunOptions(
        data_dir=Path("here").absolute(),
        out=Path("there"),
        seeds=5,
        devices=2,
        dtype="float64",
        sinks=("wandb", "trackio"),
    )


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--shuffle True", True),
        ("--shuffle false", False),
        ("--shuffle", True),
        ("--no-shuffle", False),
    ],
)
def test_spellings_of_a_switch(flag, expected):
    (settings,) = _parse(f"tiny plain {flag}").experiment.configs
    assert settings.shuffle is expected


def test_an_override_applies_to_every_config_of_a_grid():
    request = _parse("tiny grid --rule tp")
    assert request.experiment.configs == (
        Config(rate=0.1, rule="tp"),
        Config(rate=0.2, rule="tp"),
    )


def test_scale_comes_before_overrides():
    (settings,) = _parse("tiny plain --scale smoke --rule tp").experiment.configs
    assert settings == Config(widths=(1,), rule="tp")
    (settings,) = _parse("tiny plain --widths 5 --scale smoke").experiment.configs
    assert settings.widths == (5,)
    with pytest.raises(UsageError, match="the only scale of this system"):
        _parse("other last --scale small")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "system: got '', expected one of tiny, other, absent"),
        ("tinny plain", "system: got 'tinny'.*Did you mean 'tiny'?"),
        ("tiny plane", "got 'plane', expected one of plain, grid.*'plain'"),
        ("tiny", "experiment: got ''"),
        ("tiny plain stray", "argument: got 'stray'"),
        ("tiny plain --rat 3", "got '--rat'.*Did you mean --rate"),
        ("tiny plain --rate x", "--rate: got 'x', expected a number"),
        ("tiny plain --rate", "--rate: got '', expected a number"),
        ("tiny plain --rate 1 2", "got '--rate 1 2'.*Unrecognized options: 2"),
        ("tiny plain --rate -1", "rate: got -1.0, expected a number >= 0"),
        ("tiny plain --widths 1 x", "got '1 x', expected any number .* an integer"),
        ("tiny plain --limit x", "got 'x', expected an integer or None"),
        ("tiny plain --tree 3", "got '3', expected nested tuples"),
        ("tiny plain --shuffle maybe", "got 'maybe', expected True or False"),
        ("tiny plain --scale big", "got 'big', expected one of smoke, small, paper"),
        ("tiny plain --dtype int8", "got 'int8', expected one of float32"),
        ("tiny plain --seeds 0", "--seeds: got 0"),
        ("tiny plain --devices 0", "--devices: got 0"),
        ("tiny plain --resume x", "--resume: .* no other argument"),
        ("--resume", "--resume: .* no other argument"),
        ("--resume x --seeds 3", "--resume: .* no other argument"),
        ("--resume nowhere", "a run directory"),
    ],
)
def test_mistakes_are_told_in_one_line(line, message, capfd):
    status = cli.run_main(lambda argv: _parse(" ".join(argv)), line.split())
    out, err = capfd.readouterr()
    assert status == 2 and not out
    assert err.count("\n") == 1 and err.startswith("error: ")
    with pytest.raises(UsageError, match=message):
        _parse(line)


@pytest.mark.parametrize(
    ("line", "shown", "hidden"),
    [
        ("--help", ["SYSTEM EXPERIMENT", "tiny, other, absent", "--data-dir"], "plain"),
        ("tiny --help", ["plain", "Does grid. (~2.5 min)"], "last"),
        ("tiny plain --help", ["layer widths", "step size", "--data-dir"], "last"),
        ("tiny plain --rate 3 -h", ["Does plain."], "last"),
    ],
)
def test_help_at_every_level(line, shown, hidden, capsys):
    with pytest.raises(SystemExit) as stop:
        _parse(line)
    text = capsys.readouterr().out
    assert not stop.value.code
    assert all(part in text for part in shown) and hidden not in text


def test_list_gives_every_experiment_one_line(capsys):
    systems = {name: SYSTEMS[name] for name in ("tiny", "other")}
    with pytest.raises(SystemExit):
        cli.parse(["--list"], systems, prog=PROG)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["tiny", "plain"],
        ["tiny", "grid"],
        ["other", "last"],
    ]


def _written(tmp_path, members=None, **options):
    written = config.to_dict(cli.RunOptions(data_dir=tmp_path / "data", **options))
    first = config.to_dict(Config(rate=0.3, widths=(9, 8)))
    with runs.create(tmp_path, "tiny", "plain", first, written, members) as run:
        return run.path


def test_resume_recreates_the_request(tmp_path):
    path = _written(tmp_path, scale="smoke", sinks=())
    request = cli.parse([f"--resume={path}"], SYSTEMS, prog=PROG)
    # The scale is in the stored config already.
    assert request.experiment.configs == (Config(rate=0.3, widths=(9, 8)),)
    assert request.options == cli.RunOptions(
        data_dir=tmp_path / "data", scale="smoke", resume=path
    )


def test_resume_of_members_lists_their_configs(tmp_path):
    members = [config.to_dict(Config(seed=seed)) for seed in (4, 5)]
    path = _written(tmp_path, members, seeds=2)
    request = cli.parse(["--resume", str(path)], SYSTEMS, prog=PROG)
    assert [c.seed for c in request.experiment.configs] == [4, 5]
    assert request.options.seeds == 1


def test_run_main_maps_endings_to_statuses(capsys, tmp_path):
    def ends(error):
        def main(argv):
            raise error

        return cli.run_main(main, [])

    interrupt = KeyboardInterrupt()
    interrupt.add_note("go on with: x")
    assert ends(interrupt) == 130
    assert capsys.readouterr().err == "interrupted: go on with: x\n"
    assert ends(FloatingPointError("loss is nan at step 3")) == 1
    assert capsys.readouterr().err == "error: loss is nan at step 3\n"
    assert ends(OSError(28, "No space left on device", "metrics.jsonl")) == 1
    told = "error: [Errno 28] No space left on device: 'metrics.jsonl'\n"
    assert capsys.readouterr().err == told
    with pytest.raises(ZeroDivisionError):
        ends(ZeroDivisionError())
    assert cli.run_main(lambda argv: None, []) == 0


def test_warnings_of_the_library_are_one_line(capsys):
    def main(argv):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("only 12 images", stacklevel=1)

    shown = warnings.showwarning
    cli.run_main(main, [])
    assert capsys.readouterr().err == "warning: only 12 images\n"
    assert warnings.showwarning is shown


@dataclass(frozen=True)
class _Plot:
    runs: tuple[Path, ...]
    title: str = "none"


def test_parse_into_reads_positional_words_first():
    parsed = cli.parse_into(_Plot, ["a", "b", "--title", "t"], prog="plot")
    assert parsed == _Plot((Path("a"), Path("b")), "t")
    with pytest.raises(UsageError, match="--titel"):
        cli.parse_into(_Plot, ["a", "--titel", "t"], prog="plot")


def test_run_options_are_all_explained():
    explained = typing.cast(str, cli.RunOptions.__doc__)
    for field in dataclasses.fields(cli.RunOptions):
        assert f"\n        {field.name}: " in explained


def test_importing_the_command_line_is_cheap():
    """Starting up must not pay for drawing, data sets or checkpoints."""
    heavy = "matplotlib", "tyro", "orbax", "tensorflow_datasets", "flax"
    code = "import sys, shared.cli, shared.plotting, shared.checkpoint\n"
    code += f"print([m for m in {heavy} if m in sys.modules])"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.strip() == "[]"
