"""Diagrams in the course of training, as pictures and as one animation."""

import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from multipath.trees.figures import diagrams, records
from shared import disk, plotting
from shared.plotting import NothingToDraw

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Film(NamedTuple):
    """Frames that are drawn when they are written.

    Attributes:
        frames: what draws each into an empty figure of its own.
        fps: frames a second of the animation.
        dpi: of the pictures.
        small_dpi: of the animation.
    """

    frames: Sequence[Callable[["Figure"], Any]]
    fps: int = 4
    dpi: int = 100
    small_dpi: int = 60

    def save(self, path: str | os.PathLike) -> list[Path]:
        """Write `PATH.gif`, and the frames as `PATH/nld-0000.png`, ...

        Each file is complete or not there at all.

        Returns:
            The animation, then the frames.

        Raises:
            UsageError: if the directory cannot be written.
        """
        from matplotlib.animation import PillowWriter
        from matplotlib.figure import Figure

        path = Path(path)
        film, pictures = path.with_name(f"{path.name}.gif"), []
        figure, writer = Figure(), PillowWriter(fps=self.fps)
        with (
            disk.writable("figure file", film),
            disk.replacing(film) as draft,
            tempfile.TemporaryDirectory() as folder,
        ):
            path.mkdir(parents=True, exist_ok=True)
            # The size of a film is that of its first frame.
            self.frames[0](figure)
            # Pillow tells the format by the name.
            named = Path(folder) / film.name
            with writer.saving(figure, str(named), self.small_dpi):
                for number, draw in enumerate(self.frames):
                    figure.clear()
                    draw(figure)
                    writer.grab_frame()
                    pictures.append(path / f"nld-{number:04d}.png")
                    _save(figure, pictures[-1], self.dpi)
            shutil.copyfile(named, draft)
        return [film, *pictures]


def chains(paths: Sequence[Path], *, kind: str) -> Film:
    """Chains of one kind at each log, rows by price as in `diagrams.chains`."""
    shown = diagrams.find(paths, kind)
    return _film(
        shown,
        lambda figure, step: diagrams.draw_chains(figure, shown, step=step),
    )


def tree(paths: Sequence[Path], *, number: int) -> Film:
    """A tree of actors at each log."""
    shown = diagrams.find(paths, "ac-tree")
    if number >= len(shown.points):
        raise NothingToDraw(f"no tree number {number}")
    one = shown._replace(points=shown.points[number : number + 1])
    return _film(one, lambda figure, step: diagrams.draw_tree(figure, one, step=step))


VIDEOS: dict[str, Callable[[Sequence[Path]], Any]] = {
    "video-ac": functools.partial(chains, kind="ac"),
    "video-cr": functools.partial(chains, kind="cr"),
    "video-cr-opt": functools.partial(chains, kind="cr-opt"),
    "video-ac-tree-0": functools.partial(tree, number=0),
    "video-ac-tree-1": functools.partial(tree, number=1),
}


def _film(shown: diagrams.Shown, draw: Callable[["Figure", int], Any]) -> Film:
    steps = records.steps(shown.points)
    if not steps:
        raise NothingToDraw("no iteration that all networks have a record of")
    return Film([functools.partial(_at, draw=draw, step=step) for step in steps])


def _at(figure: "Figure", *, draw: Callable[["Figure", int], Any], step: int) -> None:
    draw(figure, step)


def _save(figure: "Figure", path: Path, dpi: int) -> None:
    with disk.replacing(path) as draft, plotting.style():
        figure.savefig(draft, format="png", dpi=dpi)
