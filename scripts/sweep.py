"""Run a sweep file of the published mask study: python -m scripts.sweep FILE.yaml ...

python -m scripts.sweep addmul_feedforward.yaml                  # asks what to run
python -m scripts.sweep addmul_feedforward.yaml --select layer_sizes=400,400,200
python -m scripts.sweep addmul_feedforward.yaml --all --scale small
python -m scripts.sweep scan_baseline.yaml --select profile=scan --all --seeds 3

Of a parameter with several values, --select takes one; --all takes every value of all
others, repetitions too, as members of one run. Without --all there is one repetition,
or as many as --seeds says; the repetition is the seed. Further options are those of
python -m scripts.train, such as --scale, --data-dir, --out, --sinks and --mask-lr 0.02.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from modmask import experiments, options, sweeps
from modmask.config import Config
from scripts import train
from shared import cli
from shared.config import Experiment
from shared.errors import UsageError

SYSTEM = "modmask"


class Asked(NamedTuple):
    """What the command line says of the sweep itself.

    Attributes:
        path: the sweep file.
        select: `name=value` of each parameter that is chosen.
        whole: whether to run all values of the others.
        rest: options of the run.
    """

    path: Path
    select: list[str]
    whole: bool
    rest: list[str]


def main(argv: Sequence[str]) -> None:
    """Read the file, choose values, train, report."""
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return
    asked = read_arguments(argv)
    sweep = select(sweeps.read(asked.path), asked)
    found = sweeps.members(sweep)
    for note in found.notes:
        print(f"note: {note}")
    path = train.run(make_request(sweep.name, found.configs, asked))
    print(f"figures: python -m scripts.plot {path}")


def read_arguments(argv: Sequence[str]) -> Asked:
    """Tell the options of the sweep from those of the run."""
    path, *words = argv
    if path.startswith("-"):
        raise UsageError("sweep file", path, "a YAML file before all options")
    chosen, rest, whole, choosing = [], [], False, False
    for word in words:
        flag, equals, value = word.partition("=")
        if flag == "--select":
            choosing = not equals
            chosen += [value] if equals else []
        elif word == "--all":
            whole, choosing = True, False
        elif choosing and not word.startswith("--"):
            chosen.append(word)
        else:
            choosing = False
            rest.append(word)
    return Asked(Path(path), chosen, whole, rest)


def select(sweep: sweeps.Sweep, asked: Asked) -> sweeps.Sweep:
    """Choose one value of each parameter, or all where that is asked for.

    Raises:
        UsageError: for a choice that the file does not offer, or one that nobody can
            be asked for.
    """
    chosen = set()
    for words in asked.select:
        name, equals, value = words.partition("=")
        if not equals:
            raise UsageError("--select", words, "name=value")
        sweep = sweeps.choose(sweep, name, value)
        chosen.add(name)
    seeds = any(word.partition("=")[0] == "--seeds" for word in asked.rest)
    if options.REPETITION not in chosen and (seeds or not asked.whole):
        values = {k: v for k, v in sweep.values.items() if k != options.REPETITION}
        sweep = sweep._replace(values=values)
    open_choices = {} if asked.whole else sweeps.several(sweep)
    if open_choices and not sys.stdin.isatty():
        listed = "; ".join(
            f"{name}={' | '.join(map(options.spell, values))}"
            for name, values in open_choices.items()
        )
        raise UsageError("--select", " ".join(asked.select), f"{listed}; or --all")
    for name, values in open_choices.items():
        sweep = sweep._replace(values={**sweep.values, name: ask(name, values)})
    return sweep


def ask(name: str, values: Sequence[object]) -> tuple[object, ...]:
    """Let the user choose one of the values, or all."""
    print(f"{name}:")
    for number, value in enumerate(values, start=1):
        print(f"  {number}  {options.spell(value)}")
    while True:
        try:
            answer = input(f"1 to {len(values)}, or all: ").strip()
        except EOFError:
            raise UsageError(name, "no answer", f"1 to {len(values)}, or all") from None
        if answer == "all":
            return tuple(values)
        if answer.isdecimal() and 1 <= int(answer) <= len(values):
            return (values[int(answer) - 1],)


def make_request(name: str, configs: Sequence[Config], asked: Asked) -> cli.Request:
    """Return the request for a run of some configs, changed by the run's options."""
    name = name if name in experiments.EXPERIMENTS else "custom"
    known = experiments.EXPERIMENTS[name]
    experiment = Experiment(
        name,
        f"sweep {asked.path.name}",
        tuple(configs),
        experiments.DATA[configs[0].task],
        known.reference,
        known.minutes,
    )
    system = SimpleNamespace(EXPERIMENTS={name: experiment}, scaled=experiments.scaled)
    arguments = [SYSTEM, name, *asked.rest]
    return cli.parse(arguments, {SYSTEM: system}, prog="python -m scripts.train")


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
