"""Figures of searches, trainings and studies; each takes run directories.

`records` finds the data, and the other modules draw plain data. Curves are means over
seeds with a standard deviation each side.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from enasq import drawing
from enasq.figures import curves, fronts, latent, maps, records, samples


def _of(draw: Callable[[Any], Any], read: Callable[[Sequence[Path]], Any]) -> Callable:
    """Return a figure that draws what it reads from run directories."""

    def figure(paths: Sequence[Path]) -> Any:
        return draw(read(paths))

    figure.__doc__ = draw.__doc__
    return figure


def _cells(best: records.Best) -> Any:
    """Draw the cells that a study chose, or else the best of the last candidates."""
    return drawing.draw(best.arc, choices=best.choices)


FIGURES = {
    "search": _of(curves.search, records.searches),
    "entropy": _of(curves.entropy, records.entropies),
    "cells": _of(_cells, records.best),
    "operations": _of(maps.operations, records.sampled),
    "pareto": _of(fronts.pareto, records.candidates),
    "training": _of(curves.training, records.trainings),
    "bits": _of(fronts.bits, records.entries),
    "samples": _of(samples.draw, samples.read),
    "weights": _of(latent.draw, latent.read),
    "ranking": _of(fronts.ranking, records.rankings),
}
"""Figures by name; each takes run directories."""
