"""A stand-in for the hybrid of MNIST and CIFAR-10 that needs no files.

Real digits under synthetic difficulty, all of them light on dark in random colours:
those of half the classes are large, centred and clean; those of the other half are
smaller, turned, sheared, bent and moved, among fragments of other digits and under
noise. The first are easy, the second hard, so that depth pays on some images and is
wasted on others. Scores on this set compare networks with each other and say nothing
about photographs.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from multipath.trees.recolouring import recolour
from shared.data.dataset import HostSplit

SIDE = 32
EASY = 5
"""Digits below this are the easy ones."""

VARIANTS = 6
"""Images made from each digit."""

FRAGMENTS = 2
NOISE = 0.02
"""Standard deviation."""

MOVE = 5
"""Pixels by which hard digits move at most."""

BEND = 0.5
SEEDS = {"train": 0, "test": 1}

Pictures = Float[np.ndarray, "n height width"]
Others = Float[np.ndarray, "others height width"]
Places = Float[np.ndarray, "n rows columns"]


def digits_hybrid(
    train: HostSplit, test: HostSplit, *, variants: int = VARIANTS
) -> tuple[HostSplit, HostSplit]:
    """Make both parts of the set, each from its own digits alone.

    Args:
        train, test: grey images in [0, 1] `[n, h, w, 1]` and their labels.
        variants: images made from each of them; the i-th of the n digits makes the
            rows i, n + i, 2 n + i, ...

    Returns:
        float32 images in [0, 1] `[variants n, 32, 32, 3]` and labels, always the same.
    """
    return (
        _made(train, SEEDS["train"], variants),
        _made(test, SEEDS["test"], variants),
    )


def _made(digits: HostSplit, seed: int, variants: int) -> HostSplit:
    # NumPy's legacy stream never changes, unlike those of JAX between versions.
    random = np.random.RandomState(seed)
    shapes = digits.images[..., 0].astype(np.float32)
    labels = np.tile(digits.labels, variants)
    which = np.tile(np.arange(len(shapes)), variants)
    easy = labels < EASY
    images = np.empty((len(labels), SIDE, SIDE, 3), np.float32)
    images[easy] = clean(shapes[which[easy]], random)
    images[~easy] = cluttered(shapes[which[~easy]], shapes, random)
    return HostSplit(images, labels)


def clean(
    shapes: Pictures, random: np.random.RandomState
) -> Float32[np.ndarray, "n 32 32 3"]:
    """Draw each shape large and centred, in a light colour on a dark one."""
    paper, ink = _light_on_dark(random, len(shapes))
    shown = paint(shapes, *_places(_placed(len(shapes), 3.5), shapes))
    return recolour(shown[..., None], paper, ink).astype(np.float32)


def cluttered(
    shapes: Pictures, others: Others, random: np.random.RandomState
) -> Float32[np.ndarray, "n 32 32 3"]:
    """Draw each shape warped, over fragments of others and under noise.

    Args:
        shapes: what the images show, 1 where there is ink.
        others: what the fragments are cut from.
        random: consumed.
    """
    count = len(shapes)
    paper, light = _light_on_dark(random, count)
    images = np.repeat(paper[:, None], SIDE * SIDE, 1)
    images = images.reshape(count, SIDE, SIDE, 3)
    for _ in range(FRAGMENTS):
        ink = _fragments(others, count, random)
        _, colour = _light_on_dark(random, count)
        images = _over(images, ink, colour)
    where = _placed(
        count,
        _uniform(random, 2.4, 3.2, count),
        angle=_uniform(random, -0.5, 0.5, count),
        shear=_uniform(random, -0.3, 0.3, count),
        move=_uniform(random, -MOVE, MOVE, count, 2),
    )
    rows, columns = _places(where, shapes)
    rows, columns = rows + _bend(random, count), columns + _bend(random, count)
    images = _over(images, paint(shapes, rows, columns), light)
    noise = random.standard_normal(images.shape).astype(np.float32)
    return np.clip(images + NOISE * noise, 0, 1).astype(np.float32)


def paint(
    shapes: Pictures, rows: Places, columns: Places
) -> Float[np.ndarray, "n rows columns"]:
    """Read each shape between its pixels, bilinearly; outside it is 0.

    Args:
        shapes: `[n, h, w]`.
        rows, columns: where to read, 0 to h - 1 and w - 1 inside.
    """
    height, width = shapes.shape[1:]
    padded = np.pad(shapes, ((0, 0), (1, 2), (1, 2)))
    row, column = np.clip(rows + 1, 0, height + 1), np.clip(columns + 1, 0, width + 1)
    top, left = row.astype(np.int32), column.astype(np.int32)
    down, right = row - top, column - left
    # One index into the flat array: several times faster than three.
    first = np.arange(len(shapes), dtype=np.int32) * ((height + 3) * (width + 3))
    place = first[:, None, None] + top * (width + 3) + left
    read = lambda step: padded.ravel().take(place + step)
    above = read(0) + right * (read(1) - read(0))
    below = read(width + 3) + right * (read(width + 4) - read(width + 3))
    return above + down * (below - above)


class _Placement(NamedTuple):
    """How shapes lie in the image: zoom, turn, shear, and the move from its centre."""

    zoom: np.ndarray
    angle: np.ndarray
    shear: np.ndarray
    move: np.ndarray


def _placed(
    count: int, zoom: Any, *, angle: Any = 0.0, shear: Any = 0.0, move: Any = 0.0
) -> _Placement:
    whole = lambda value, *shape: np.broadcast_to(np.float32(value), shape)
    return _Placement(
        whole(zoom, count),
        whole(angle, count),
        whole(shear, count),
        whole(move, count, 2),
    )


def _places(where: _Placement, shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which place of its shape each pixel shows: rows and columns."""
    centre = np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2
    each = lambda values: values[:, None, None]
    rows = centre[None, :, None] - each(where.move[:, 0])
    columns = centre[None, None, :] - each(where.move[:, 1])
    cos, sin = np.cos(each(where.angle)), np.sin(each(where.angle))
    turned = cos * rows - sin * columns, sin * rows + cos * columns
    slanted = turned[0], turned[1] + each(where.shear) * turned[0]
    height, width = shapes.shape[1:]
    zoom = each(where.zoom)
    return slanted[0] / zoom + (height - 1) / 2, slanted[1] / zoom + (width - 1) / 2


def _fragments(
    others: np.ndarray, count: int, random: np.random.RandomState
) -> np.ndarray:
    """Draw half of a random shape off the centre of each image."""
    shapes = others[random.randint(0, len(others), count)]
    way, distance = (
        _uniform(random, 0, 2 * np.pi, count),
        _uniform(random, 13, 16, count),
    )
    where = _placed(
        count,
        _uniform(random, 1.6, 2.4, count),
        angle=_uniform(random, -np.pi, np.pi, count),
        move=np.stack([distance * np.sin(way), distance * np.cos(way)], 1),
    )
    rows, columns = _places(where, shapes)
    ink = paint(shapes, rows, columns)
    return np.where(rows < (shapes.shape[1] - 1) / 2, ink, 0)


def _bend(random: np.random.RandomState, count: int) -> np.ndarray:
    """Return smooth random moves of every pixel, up to `BEND` of a shape's pixels."""
    knots = _uniform(random, -BEND, BEND, count, 5, 5)
    along = np.linspace(0, 4, SIDE, dtype=np.float32)
    near = np.maximum(0, 1 - np.abs(along[:, None] - np.arange(5, dtype=np.float32)))
    return near @ knots @ near.T


def _light_on_dark(
    random: np.random.RandomState, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a paper and an ink for each image."""
    dark, light = (_uniform(random, low, low + 0.4, count, 3) for low in (0, 0.6))
    return dark, light


def _over(images: np.ndarray, ink: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return images + (colour[:, None, None] - images) * ink[..., None]


def _uniform(random: np.random.RandomState, low, high, *shape) -> np.ndarray:
    return random.uniform(low, high, shape).astype(np.float32)
