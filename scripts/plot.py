"""Draw the figures of runs: python -m scripts.plot RUN... [--figure NAME] [--out DIR].

Without names all figures that the runs have records for are drawn; the others are
skipped with a note. Pictures go to the run's own `figures/`, or to DIR.

    python -m scripts.plot SYSTEM NAME [RUN...] [--out DIR]

draws one figure of a system, from all its runs under `runs/` unless some are named.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import systems
from shared import cli, plotting
from shared.errors import UsageError, check_choice


@dataclass(frozen=True)
class Options:
    """Draw the figures of runs.

    Attributes:
        paths: run directories, or directories of runs; all go into each figure.
        figure: names of figures, or of sets of figures; none means all.
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
    check_choice("figure", name, _choices(systems.load(system, "figures").FIGURES))
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
    choices = _choices(figures)
    for name in names:
        check_choice("--figure", name, choices)
    drawn = 0
    for label, draw_one in _each(choices, names or figures):
        try:
            picture = draw_one(found)
        except plotting.NothingToDraw as missing:
            print(f"{label}: skipped, {missing.reason}")
            continue
        except UsageError as error:
            if names:
                raise
            # It needs a checkpoint or data that are not there; the others may not.
            print(f"{label}: skipped, {error}")
            continue
        file, *_ = _save(picture, out / label)
        print(f"{label}: {file}{_note(picture)}")
        drawn += 1
    if not drawn:
        raise UsageError("runs", [str(p) for p in found], "runs with records")


def _choices(figures: Mapping[str, Any]) -> dict[str, dict[str, Callable]]:
    """Return what each name stands for: a figure, a set of them, or one of a set."""
    choices: dict[str, dict[str, Callable]] = {}
    for name, value in figures.items():
        parts = value if isinstance(value, Mapping) else {name: value}
        choices |= {name: dict(parts)}
        choices |= {part: {part: draw_one} for part, draw_one in parts.items()}
    return choices


def _each(
    choices: Mapping[str, dict[str, Callable]], names: Iterable[str]
) -> list[tuple[str, Callable]]:
    """Return the figures that names stand for, each once."""
    return list({k: v for name in names for k, v in choices[name].items()}.items())


def _save(picture: Any, path: Path) -> list[Path]:
    # A film knows how to write its frames.
    own = getattr(picture, "save", None)
    return plotting.save(picture, path) if own is None else own(path)


def _note(picture: Any) -> str:
    """Return what a picture says of itself, such as which runs it lacks."""
    title = getattr(picture, "get_suptitle", str)()
    return f" ({' '.join(title.split())})" if "no runs of" in title else ""


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
