"""Figures of runs; each function reads run directories and returns a figure."""

import functools

from gaitprop.figures import accuracy, layers
from gaitprop.figures.records import is_linear, is_tower

FIGURES = {
    "learning-curves": accuracy.learning_curves,
    "linear-networks": functools.partial(accuracy.learning_curves, where=is_linear),
    "tower-networks": functools.partial(accuracy.learning_curves, where=is_tower),
    "peak-final": accuracy.peak_and_final,
    "grid": accuracy.grid,
    "depth": accuracy.depth,
    "angle": layers.angle,
    "orthogonality": layers.orthogonality,
    "roundoff": layers.roundoff,
    "scatter": layers.scatter,
}
"""Figures by name; each takes run directories."""
