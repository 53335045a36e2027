"""The command line: a dataclass becomes flags, an error becomes one line.

`SYSTEM EXPERIMENT [run options] [--field V]`: run options are the same everywhere and
never fields of a config; every field of the experiment's config is a flag, all in one
flat namespace.
"""

import contextlib
import dataclasses
import importlib
import io
import os
import re
import sys
import types
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, TypeVar

from shared import config as configs
from shared import runs
from shared.config import Experiment
from shared.errors import UsageError, check_choice, check_range, closest

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
            have `scaled(config, scale) -> config` for `--scale`.
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
    words = _split(argv[2:])
    scale = dict(words).get("scale", ["paper"])
    defaults = [_scaled(system, c, " ".join(scale)) for c in experiment.configs]
    given = _overrides(
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
    return _run_tyro(kind, list(argv), prog=prog, config=markers)


def run_main(
    main: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None
) -> int:
    """Call a script's main function and return the exit status.

    Wrong usage gives one line and 2; a run that had to stop, one line and 1; an
    interrupt, one line that says how to go on, and 130.
    """
    try:
        with _short_warnings():
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
def _short_warnings() -> Iterator[None]:
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
    check_choice("--scale", scale, typing.get_args(_hints(RunOptions)["scale"]))
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
    members = [runs.read_config(member)["config"] for member in runs.members(path)]
    kind = type(experiment.configs[0])
    restored = tuple(
        configs.from_dict(kind, {name: _tuples(value) for name, value in each.items()})
        for each in members or [stored["config"]]
    )
    values = {**stored["options"], "resume": path}
    for name in ("data_dir", "out"):
        if values.get(name) is not None:
            values[name] = Path(values[name])
    if members:
        values["seeds"] = 1
    options = configs.from_dict(RunOptions, values)
    experiment = dataclasses.replace(experiment, configs=restored)
    return Request(stored["system"], experiment, options)


def _tuples(value: Any) -> Any:
    """JSON has lists where a config has tuples, at any depth."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _split(argv: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Group words under the flag they follow, flags as field names."""
    found: list[tuple[str, list[str]]] = []
    for word in argv:
        # A minus before a digit is a value; one dash before a word is a flag too.
        if re.match(r"--?[A-Za-z]", word):
            name, equals, value = word.partition("=")
            name = "help" if word == "-h" else name.lstrip("-").replace("-", "_")
            found.append((name, [value] if equals else []))
        elif found:
            found[-1][1].append(word)
        else:
            raise UsageError("argument", word, "a flag such as --seeds 3")
    return found


def _overrides(
    words: list[tuple[str, list[str]]],
    defaults: Mapping[str, Any],
    *,
    prog: str,
    description: str,
) -> dict[str, dict[str, Any]]:
    """Return, for each of some dataclass instances, the fields that flags change."""
    import tyro

    kinds = {part: _hints(type(value)) for part, value in defaults.items()}
    known = {name: kind for fields in kinds.values() for name, kind in fields.items()}
    args = []
    for name, values in words:
        name, values = _spelled(name, values, known)
        if name not in known and name != "help":
            near = closest(name, known)
            hint = f"Did you mean {_flag(near)}?" if near else ""
            raise UsageError("flag", _flag(name), f"one that {prog} --help lists", hint)
        args += (
            [_flag(name), *values]
            if len(values) != 1
            else [f"{_flag(name)}={values[0]}"]
        )
    plain = {part: _unchecked(type(value)) for part, value in defaults.items()}
    instances = {
        part: plain[part](**{n: getattr(value, n) for n in kinds[part]})
        for part, value in defaults.items()
    }
    everything = dataclasses.make_dataclass("Settings", list(plain.items()))
    parsed = _run_tyro(
        everything,
        args,
        default=everything(**instances),
        prog=prog,
        description=description,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagConversionOff),
    )
    given = {_spelled(name, values, known)[0] for name, values in words}
    return {
        part: {n: getattr(getattr(parsed, part), n) for n in kinds[part] if n in given}
        for part in defaults
    }


def _spelled(
    name: str, values: list[str], known: Mapping[str, Any]
) -> tuple[str, list[str]]:
    """Allow `--shuffle`, `--no-shuffle` and `--shuffle false` for `--shuffle False`."""
    if known.get(name) is bool:
        named = {"true": "True", "false": "False"}
        return name, [named.get(v.lower(), v) for v in values] or ["True"]
    if name.startswith("no_") and known.get(name[3:]) is bool and not values:
        return name[3:], ["False"]
    return name, values


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _unchecked(kind: type) -> type:
    """Return a copy of a dataclass for tyro, which would swallow what its checks say.

    Tuples of tuples are read as one Python literal.
    """
    from tyro.conf import UsePythonSyntaxForLiteralCollections as Literally

    nested = {
        name: Literally[hint]
        for name, hint in _hints(kind).items()
        if any(typing.get_origin(inner) is tuple for inner in typing.get_args(hint))
    }
    body = {
        "__annotations__": nested,
        "__post_init__": lambda self: None,
        "__doc__": kind.__doc__,
        "__module__": kind.__module__,
    }
    return dataclass(frozen=True, kw_only=True)(type(kind.__name__, (kind,), body))


def _run_tyro(kind: type[T], args: list[str], **settings: Any) -> T:
    """Call tyro and turn its box of an error into a UsageError."""
    import tyro

    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(kind, args=args, **settings)
    except SystemExit as stop:
        if not stop.code:
            raise
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue())
    lines = [line.strip("│ ") for line in text.splitlines()[1:]]
    end = next((i for i, line in enumerate(lines) if set(line) <= set("─╰╯")), None)
    message = " ".join(lines[:end])
    hints = {}
    for name, hint in _hints(kind).items():
        parts = isinstance(hint, type) and dataclasses.is_dataclass(hint)
        hints.update(_hints(hint) if parts else {name: hint})
    words = {} if args and not args[0].startswith("--") else dict(_split(args))
    for name in re.findall(r"--([a-z][\w-]*)", message):
        name = name.replace("-", "_")
        if name in hints and name in words:
            given = " ".join(words[name])
            raise UsageError(_flag(name), given, _expected(hints[name])) from None
    raise UsageError(
        "arguments", " ".join(args), "what --help shows", message
    ) from None


def _expected(hint: Any) -> str:
    """Say in words which values a type annotation allows."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_expected(each) for each in inner)
    if origin is tuple and typing.get_origin(inner[0]) is tuple:
        return "nested tuples as one word, such as ((8, 8), (16,))"
    if origin is tuple and inner[-1] is Ellipsis:
        return f"any number of values, each {_expected(inner[0])}"
    if origin is tuple:
        return f"{len(inner)} values: {', '.join(map(_expected, inner))}"
    words = {
        float: "a number",
        int: "an integer",
        bool: "True or False",
        str: "a word",
        Path: "a path",
        type(None): "None",
    }
    return words.get(hint, str(hint))


def _usage(prog: str, systems: Mapping[str, Any]) -> str:
    helped = re.findall(r"^ {8}(\w+): (.*)$", RunOptions.__doc__ or "", re.MULTILINE)
    options = [f"  {_flag(name):<12} {text}" for name, text in helped]
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
