"""The command line: an experiment by name, flags for its config, errors in one line.

`SYSTEM EXPERIMENT [run options] [--field V]`: run options are the same everywhere and
never fields of a config; every field of the experiment's config is a flag, all in one
flat namespace.
"""

import contextlib
import dataclasses
import importlib
import os
import re
import sys
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, TypeVar

from shared import config as configs
from shared import flags, runs
from shared.config import Experiment
from shared.errors import UsageError, check_choice, check_range

T = TypeVar("T")


@dataclass(frozen=True)
class RunOptions:
    """Options of every experiment.

    Attributes:
        data_dir: directory of the data sets.
        out: directory of all run directories.
        seeds: how many runs with consecutive seeds, trained as one program.
        devices: how many devices to use; None uses one.
        dtype: type of numbers in the computation.
        scale: paper as published; small and smoke for minutes and seconds.
        sinks: further places for the metrics.
        resume: run directory to go on with; takes no other argument.
    """

    data_dir: Path | None = None
    out: Path = Path("runs")
    seeds: int = 1
    devices: int | None = None
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    scale: Literal["smoke", "small", "paper"] = "paper"
    sinks: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    resume: Path | None = None

    def __post_init__(self):
        check_range("--seeds", self.seeds, low=1)
        if self.devices is not None:
            check_range("--devices", self.devices, low=1)


class Request(NamedTuple):
    """What a command line asks for.

    Attributes:
        system: name of the system.
        experiment: its configs are scaled and overridden as asked. To resume a run of
            several members, they are the members' own, and `options.seeds` is 1.
        options: the run options.
    """

    system: str
    experiment: Experiment
    options: RunOptions


def parse(argv: Sequence[str], systems: Mapping[str, Any], *, prog: str) -> Request:
    """Read `SYSTEM EXPERIMENT [run options] [--field V]` or `--resume RUN`.

    `--help` and `--list` print and raise SystemExit(0). With several configs an
    override applies to each.

    Args:
        argv: arguments without the program's name.
        systems: by name, an object with `EXPERIMENTS` (a dict of `Experiment`s by
            name) or the name of a module that has it, imported when needed. It may
            have `scaled(config, scale) -> config` for `--scale`, and `translated(words,
            config) -> words` for flags, as of `flags.split`, that go by other names
            too.
        prog: what the user typed to get here, for `--help`.

    Raises:
        UsageError: for anything that is wrong, with the closest right name.
    """
    argv = list(argv)
    if any(word.partition("=")[0] == "--resume" for word in argv):
        return _resumed(argv, systems)
    if "--list" in argv:
        _print_and_exit(_listing(systems))
    if argv and argv[0] in ("-h", "--help"):
        _print_and_exit(_usage(prog, systems))
    name = argv[0] if argv else ""
    check_choice("system", name, systems)
    system = _load(systems[name])
    if len(argv) > 1 and argv[1] in ("-h", "--help"):
        _print_and_exit(_listing({name: system}))
    check_choice("experiment", argv[1] if len(argv) > 1 else "", system.EXPERIMENTS)
    experiment = system.EXPERIMENTS[argv[1]]
    words = flags.split(argv[2:])
    if hasattr(system, "translated"):
        words = system.translated(words, experiment.configs[0])
    scale = dict(words).get("scale", ["paper"])
    defaults = [_scaled(system, c, " ".join(scale)) for c in experiment.configs]
    given = flags.overrides(
        words,
        {"run": RunOptions(), "config": defaults[0]},
        prog=f"{prog} {name} {experiment.name}",
        description=f"{experiment.summary}\n\n{experiment.reference}",
    )
    options = RunOptions(**given["run"])
    if options.data_dir is not None:
        # A run may be resumed from another directory.
        options = dataclasses.replace(options, data_dir=options.data_dir.absolute())
    changed = tuple(dataclasses.replace(c, **given["config"]) for c in defaults)
    return Request(name, dataclasses.replace(experiment, configs=changed), options)


def parse_into(kind: type[T], argv: Sequence[str], *, prog: str) -> T:
    """Read a plain command line into a dataclass; fields without default come first.

    Raises:
        UsageError: for an argument that does not fit.
    """
    import tyro

    markers = (tyro.conf.PositionalRequiredArgs, tyro.conf.FlagConversionOff)
    return flags.read(kind, list(argv), prog=prog, config=markers)


def run_main(
    main: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None
) -> int:
    """Call a script's main function and return the exit status.

    Wrong usage gives one line and 2; a run that had to stop, one line and 1; an
    interrupt, one line that says how to go on, and 130.
    """
    try:
        with short_warnings():
            main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; nothing may be written any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except UsageError as error:
        return _report("error", error, 2)
    except (FloatingPointError, OSError) as error:
        # An OSError that gets here names a file: a full disk, a lost permission.
        return _report("error", error, 1)
    except KeyboardInterrupt as error:
        notes = "; ".join(getattr(error, "__notes__", ()))
        return _report("interrupted", notes or "nothing was saved", 130)


def _report(kind: str, message: object, status: int) -> int:
    print(f"{kind}: {' '.join(str(message).split())}", file=sys.stderr)
    return status


@contextlib.contextmanager
def short_warnings() -> Iterator[None]:
    """Show what the library itself warns of as one line, without its source."""
    original = warnings.showwarning

    def show(message, category, *args, **kwargs):
        if category is UserWarning:
            _report("warning", message, 0)
        else:
            original(message, category, *args, **kwargs)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = original


def _load(system: Any) -> Any:
    return importlib.import_module(system) if isinstance(system, str) else system


def _scaled(system: Any, config: Any, scale: str) -> Any:
    check_choice("--scale", scale, typing.get_args(flags.hints(RunOptions)["scale"]))
    if scale == "paper":
        return config
    if not hasattr(system, "scaled"):
        raise UsageError("--scale", scale, "paper, the only scale of this system")
    return system.scaled(config, scale)


def _resumed(argv: list[str], systems: Mapping[str, Any]) -> Request:
    words = argv[0].split("=", 1) + argv[1:]
    if words[0] != "--resume" or len(words) != 2:
        given = " ".join(argv)
        raise UsageError("--resume", given, "a run directory and no other argument")
    path = Path(words[1]).absolute()
    stored = runs.read_config(path)
    check_choice(f"system of {path}", stored["system"], systems)
    experiments = _load(systems[stored["system"]]).EXPERIMENTS
    check_choice(f"experiment of {path}", stored["experiment"], experiments)
    experiment = experiments[stored["experiment"]]
    restored = tuple(runs.read_configs(path, type(experiment.configs[0])))
    values = {**stored["options"], "resume": path}
    for name in ("data_dir", "out"):
        if values.get(name) is not None:
            values[name] = Path(values[name])
    if runs.members(path):
        values["seeds"] = 1
    options = configs.from_dict(RunOptions, values)
    experiment = dataclasses.replace(experiment, configs=restored)
    return Request(stored["system"], experiment, options)


def _usage(prog: str, systems: Mapping[str, Any]) -> str:
    helped = re.findall(r"^ {8}(\w+): (.*)$", RunOptions.__doc__ or "", re.MULTILINE)
    options = [f"  {flags.flag(name):<12} {text}" for name, text in helped]
    return "\n".join(
        [
            f"usage: {prog} SYSTEM EXPERIMENT [run options] [--field V]",
            f"       {prog} --resume RUN",
            f"       {prog} --list",
            "",
            f"systems: {', '.join(systems)}",
            "",
            "  SYSTEM --help             lists the experiments of a system",
            "  SYSTEM EXPERIMENT --help  lists all options and their defaults",
            "  --list                    lists the experiments of all systems",
            "",
            "run options:",
            *options,
        ]
    )


def _listing(systems: Mapping[str, Any]) -> str:
    rows = [
        (name, experiment)
        for name, system in systems.items()
        for experiment in _load(system).EXPERIMENTS.values()
    ]
    widths = [
        max((len(text) for text in column), default=0)
        for column in zip(*((n, e.name, e.data) for n, e in rows), strict=True)
    ]
    return "\n".join(
        f"{n:<{widths[0]}}  {e.name:<{widths[1]}}  {e.data:<{widths[2]}}  "
        f"{e.summary} (~{e.minutes:g} min)"
        for n, e in rows
    )


def _print_and_exit(text: str) -> NoReturn:
    print(text, flush=True)
    raise SystemExit(0)
