"""The first training images of a run, with their labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import UInt8

from enasq import parts
from enasq.config import Config
from shared import plotting, runs
from shared.plotting import NothingToDraw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 8
"""Images in a row, and rows."""


class Samples(NamedTuple):
    """Some images.

    Attributes:
        images: as stored.
        labels: names of their classes.
    """

    images: UInt8[np.ndarray, "count h w c"]
    labels: list[str]


def read(paths: Sequence[Path]) -> Samples:
    """Return the first training images of the first run."""
    options = runs.read_config(paths[0])["options"]
    configs = runs.read_configs(paths[0], Config)
    if "data_dir" not in options or not configs:
        raise NothingToDraw("no run whose data are known")
    sets = parts.load(configs[0], options["data_dir"])
    count = SIDE**2
    labels = np.asarray(sets.train.labels[:count])
    names = [sets.info.class_names[label] for label in labels]
    return Samples(np.asarray(sets.train.images[:count]), names)


def draw(found: Samples) -> "Figure":
    """Draw images in rows, each with its label below."""
    rows = -(-len(found.images) // SIDE)
    figure, axes = plotting.figure(rows, SIDE, width=0.9, height=1.05)
    scale = max(int(found.images.max()), 1)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image, label in zip(axes.flat, found.images, found.labels, strict=False):
        colours = np.broadcast_to(image, (*image.shape[:2], 3)) / scale
        axis.imshow(colours, interpolation="nearest")
        axis.set_title(f"label: {label}", fontsize=6, y=-0.22)
    return figure
