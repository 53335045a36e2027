"""Colours for grey digits, drawn as the published program draws them.

Reference: McGill and Perona (2017), section 4.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

LEAST_CONTRAST = 0.3


class Colours(NamedTuple):
    """Two colours for each image.

    Attributes:
        paper, ink: of what is 0 and of what is 1.
        tries: inks that were drawn until one stood out.
    """

    paper: Float32[np.ndarray, "n 3"]
    ink: Float32[np.ndarray, "n 3"]
    tries: Int[np.ndarray, " n"]


def colours(count: int, random: np.random.RandomState) -> Colours:
    """Draw a paper for each image, then inks until |ink - paper| >= 0.3.

    Args:
        count: number of images.
        random: consumed, three uniform numbers a colour; seeded with 0 it gives the
            colours of the published hybrid.
    """
    paper, ink = np.empty((2, count, 3), np.float32)
    tries = np.zeros(count, int)
    for i in range(count):
        paper[i] = random.random_sample(3)
        contrast = -1.0
        while contrast < LEAST_CONTRAST:
            ink[i] = random.random_sample(3)
            tries[i] += 1
            gap = ink[i] - paper[i]
            contrast = np.sqrt(gap.dot(gap))
    return Colours(paper, ink, tries)


def recolour(
    images: Float[np.ndarray, "n h w 1"],
    paper: Float[np.ndarray, "n 3"],
    ink: Float[np.ndarray, "n 3"],
) -> Float[np.ndarray, "n h w 3"]:
    """Return paper + (ink - paper) x at every pixel."""
    each = lambda colour: colour[:, None, None, :]
    return each(paper) + each(ink - paper) * images
