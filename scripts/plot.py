"""Draw the figures of runs: python -m scripts.plot RUN... [--figure NAME] [--out DIR].

Without names all figures that the runs have records for are drawn; the others are
skipped with a note. Pictures go to the run's own `figures/`, or to DIR.

    python -m scripts.plot SYSTEM NAME [RUN...] [--out DIR]

draws one figure of a system, from all its runs under `runs/` unless some are named.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts import systems
from shared import cli, plotting
from shared.errors import UsageError, check_choice


@dataclass(frozen=True)
class Options:
    """Draw the figures of runs.

    Attributes:
        paths: run directories, or directories of runs; all go into each figure.
        figure: names of figures; none means all.
        out: where pictures go (default: `figures/` of the only run, or of the
            directory given).
    """

    paths: tuple[Path, ...]
    figure: tuple[str, ...] = ()
    out: Path | None = None


def main(argv: Sequence[str]) -> None:
    """Parse, draw, name the pictures."""
    options = cli.parse_into(Options, _spelled(argv), prog="python -m scripts.plot")
    for system, found in systems.runs_by_system(list(options.paths)).items():
        folder = found[0] if len(found) == 1 else options.paths[0]
        draw(system, found, options.out or folder / "figures", options.figure)


def _spelled(argv: Sequence[str]) -> list[str]:
    """Turn SYSTEM NAME [RUN...] into RUN... --figure NAME."""
    system, *rest = [*argv, ""]
    if system not in systems.PACKAGES:
        return list(argv)
    name, *rest = rest[:-1] or ["--help"]
    if name in ("-h", "--help"):
        return ["--help"]
    check_choice("figure", name, systems.load(system, "figures").FIGURES)
    named = bool(rest) and not rest[0].startswith("-")
    where = [] if named else [str(Path("runs") / system)]
    return [*where, *rest, "--figure", name]


def draw(
    system: str, found: Sequence[Path], out: Path, names: Sequence[str] = ()
) -> None:
    """Draw figures of runs into a folder, all that have records by default.

    Raises:
        UsageError: for an unknown figure, or if there is nothing to draw at all.
    """
    figures = systems.load(system, "figures").FIGURES
    for name in names:
        check_choice("--figure", name, figures)
    drawn = 0
    for name in names or figures:
        try:
            figure = figures[name](found)
        except plotting.NothingToDraw as missing:
            print(f"{name}: skipped, {missing.reason}")
            continue
        except UsageError as error:
            if names:
                raise
            # It needs a checkpoint or data that are not there; the others may not.
            print(f"{name}: skipped, {error}")
            continue
        png, *_ = plotting.save(figure, out / name)
        print(f"{name}: {png}")
        drawn += 1
    if not drawn:
        raise UsageError("runs", [str(p) for p in found], "runs with records")


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
