"""Random changes to images: of digits, by rotation, and as usual for photographs.

Those of digits and by rotation take bytes to bytes, so that they can be made once, when
a set is loaded, or for each batch; every image has a key of its own. Those of
photographs come after the images were turned into numbers, where 0 is the mean.

Reference: DeVries and Taylor (2017) for the square that is cut out.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8

from shared.data import augment
from shared.errors import UsageError, check_choice, check_range

Scalar = float | int | Array
Image = UInt8[Array, "h w c"]
Pixels = Float[Array, "h w c"]
Change = Callable[[Key[Array, ""], Image], Image]
"""`(key, image) -> image`, of one image."""

CHANGES = ("digits", "turns")
"""Names of changes that `change` makes."""

ZOOM, LARGEST_ANGLE, DROPPED = 1.2, 20, 0.1
_BLOCK = 256


def warp(
    image: Pixels, matrix: Float[Array, "2 2"], fill: Scalar = 0
) -> Float[Array, "h w c"]:
    """Return the image whose pixel p is that at `centre + matrix (p - centre)`.

    Args:
        image: one image.
        matrix: on (row, column).
        fill: what lies outside of the image; pixels between are bilinear.
    """
    height, width = image.shape[:2]
    middle = ((height - 1) / 2, (width - 1) / 2)
    row, column = jnp.meshgrid(
        jnp.arange(height) - middle[0], jnp.arange(width) - middle[1], indexing="ij"
    )
    places = (
        m[0] * row + m[1] * column + centre
        for m, centre in zip(matrix, middle, strict=True)
    )
    # A border of one pixel stands for all that is outside.
    padded = jnp.pad(image - fill, ((1, 1), (1, 1), (0, 0)))
    return _between(padded, *(p + 1 for p in places)) + fill


def _between(padded: Array, row: Array, column: Array) -> Array:
    """Interpolate between four pixels; the outermost rows and columns are 0."""
    height, width, channels = padded.shape
    row, column = jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)
    top = jnp.minimum(row.astype(jnp.int32), height - 2)
    left = jnp.minimum(column.astype(jnp.int32), width - 2)
    down, right = ((row - top)[..., None], (column - left)[..., None])
    flat, corner = padded.reshape(-1, channels), top * width + left
    at = lambda step: flat[corner + step]
    upper = at(0) + right * (at(1) - at(0))
    lower = at(width) + right * (at(width + 1) - at(width))
    return upper + down * (lower - upper)


def zoom(image: Pixels, factor: Scalar) -> Float[Array, "h w c"]:
    """Enlarge an image about its centre, keeping its size."""
    return warp(image, jnp.eye(2, dtype=image.dtype) / factor)


def rotate(image: Pixels, degrees: Scalar, fill: Scalar = 0) -> Float[Array, "h w c"]:
    """Rotate an image about its centre, counter-clockwise."""
    angle = jnp.deg2rad(jnp.asarray(degrees, image.dtype))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return warp(image, jnp.array([[cos, sin], [-sin, cos]]), fill)


def translate(
    image: Pixels, rows: Scalar, columns: Scalar, fill: Scalar = 0, *, reach: int = 2
) -> Float[Array, "h w c"]:
    """Move an image down and to the right by whole pixels, at most `reach`."""
    border = ((reach, reach), (reach, reach), (0, 0))
    padded = jnp.pad(image - fill, border) + fill
    start = (reach - rows, reach - columns, 0)
    return jax.lax.dynamic_slice(padded, start, image.shape)


def random_digit(
    key: Key[Array, ""], image: Image, *, scale: int = 255, mirror: bool = False
) -> Image:
    """Change a digit by each of five steps in turn, each with probability 1/2.

    1. Zoom by 1.2.
    2. Rotation by a whole number of degrees in [-20, 20].
    3. a x + b with a ~ U(0.1, 1), but at least 0.7, and b ~ U(6, 32) of 255.
    4. Every pixel is set to 0 with probability 0.1.
    5. Left and right change places, if `mirror`.

    Args:
        key: consumed here.
        image: one image.
        scale: largest pixel value; after each step pixels are whole and in [0, scale].
        mirror: whether the last step is among them.
    """
    dtype, pixels = jnp.result_type(float), image.shape[:2]
    # One draw for all: programs of many generators take seconds to compile.
    draws = jax.random.uniform(key, (8 + math.prod(pixels),), dtype)
    wanted, (turn, gain, light) = draws[:5] < 0.5, draws[5:8]
    angle = _integer(turn, -LARGEST_ANGLE, LARGEST_ANGLE)
    gain = jnp.maximum(0.1 + 0.9 * gain, 0.7)
    light = (6 + 26 * light) * scale / 255
    kept = (draws[8:] >= DROPPED).reshape(*pixels, 1)
    steps = (
        lambda x: zoom(x, ZOOM),
        lambda x: rotate(x, angle),
        lambda x: gain * x + light,
        lambda x: jnp.where(kept, x, 0),
        *((lambda x: x[:, ::-1],) if mirror else ()),
    )
    x = image.astype(dtype)
    for number, step in enumerate(steps):
        x = jnp.where(wanted[number], _whole(step(x), scale), x)
        # Otherwise each of the next step's four neighbours is computed anew.
        x = jax.lax.optimization_barrier(x)
    return x.astype(image.dtype)


def random_turn(key: Key[Array, ""], image: Image, *, scale: int = 255) -> Image:
    """Rotate an image by -15..14 degrees, then move it by -2..1 pixels each way.

    What comes in from outside has the image's median grey level.

    Args:
        key: consumed here.
        image: one image.
        scale: largest pixel value.
    """
    draws = jax.random.uniform(key, (3,), jnp.result_type(float))
    angle = _integer(draws[0], -15, 14)
    rows, columns = (_integer(d, -2, 1).astype(jnp.int32) for d in draws[1:])
    x = image.astype(jnp.result_type(float))
    median = _median(image)
    x = translate(rotate(x, angle, median), rows, columns, median)
    return _whole(x, scale).astype(image.dtype)


def change(name: str, *, scale: int = 255, mirror: bool = False) -> Change:
    """Return the change of one image that has a name.

    Args:
        name: `digits` (see `random_digit`) or `turns` (see `random_turn`).
        scale: largest pixel value.
        mirror: of digits, whether they may be mirrored.
    """
    check_choice("change", name, CHANGES)
    if name == "turns":
        return partial(random_turn, scale=scale)
    return partial(random_digit, scale=scale, mirror=mirror)


def change_all(
    key: Key[Array, ""], images: UInt8[Array, "n h w c"], alter: Change
) -> UInt8[Array, "n h w c"]:
    """Change each image by draws of its own."""
    return jax.vmap(alter)(jax.random.split(key, images.shape[0]), images)


@partial(jax.jit, static_argnames=("times", "alter"))
def with_copies(
    key: Key[Array, ""], images: UInt8[Array, "n h w c"], times: int, alter: Change
) -> UInt8[Array, "rows h w c"]:
    """Return `times - 1` changed copies of each image, followed by the image itself."""
    check_range("copies", times, low=1)

    count, copies = images.shape[0], times - 1
    keys = jax.random.split(key, count * copies)
    owners = jnp.repeat(jnp.arange(count), copies)
    one = lambda pair: alter(pair[0], images[pair[1]])
    made = jax.lax.map(one, (keys, owners), batch_size=_BLOCK)
    made = made.reshape(count, copies, *images.shape[1:])
    together = jnp.concatenate([made, images[:, None]], axis=1)
    return together.reshape(count * times, *images.shape[1:])


def passes(
    random: np.random.Generator, count: int, classes: int, times: int
) -> Int[np.ndarray, " rows"]:
    """Return the order in which the published program takes images and their copies.

    There are as many passes as copies. With quota = count // classes, pass w takes from
    the block of `times quota` rows of each class the w-th `quota`, and shuffles what it
    took. This is right for as many images of each class, sorted by class; otherwise
    blocks hold rows of other classes, and rows at the end are left out.
    """
    quota = count // classes
    first = times * quota * np.arange(classes)[:, None] + np.arange(quota)[None]
    return np.concatenate(
        [random.permutation((first + w * quota).ravel()) for w in range(times)]
    )


class Photographs(NamedTuple):
    """How batches of photographs are changed; all off by default.

    Attributes:
        crop: pixels of 0 on each side, of which a window of the old size is cut.
        flip: whether images are mirrored with probability 1/2.
        cutout: side of a square that is set to 0.
        anchor: what of the square is uniform over the image: its `corner`, at the top
            left as in the published networks, or its `centre`.
    """

    crop: int = 0
    flip: bool = False
    cutout: int = 0
    anchor: str = "corner"


def check_photographs(settings: Photographs, side: int) -> None:
    """Raise a UsageError for settings that do not suit images of `side` pixels."""
    for name in ("crop", "cutout"):
        value = getattr(settings, name)
        if not isinstance(value, int) or not 0 <= value <= side:
            raise UsageError(name, value, f"a whole number from 0 to {side}")
    check_choice("anchor", settings.anchor, ("corner", "centre"))


def change_photographs(
    key: Key[Array, ""], images: Float[Array, "n h w c"], settings: Photographs
) -> Float[Array, "n h w c"]:
    """Crop, mirror and cut out, in this order, by draws of each image's own."""
    keys = jax.random.split(key, 3)
    if settings.crop:
        images = augment.random_crop(keys[0], images, pad=settings.crop)
    if settings.flip:
        images = augment.random_flip(keys[1], images)
    if settings.cutout:
        size, anchor = settings.cutout, settings.anchor
        images = augment.random_cutout(keys[2], images, size=size, anchor=anchor)
    return images


def _integer(draw: Float[Array, ""], low: int, high: int) -> Float[Array, ""]:
    """Turn a draw from [0, 1) into one of the whole numbers low..high."""
    return jnp.floor(low + (high + 1 - low) * draw)


def _median(image: Image) -> Float[Array, ""]:
    """Return the median of bytes, by halving: sorting takes a CPU tens of times longer.

    The k-th smallest byte is the largest v with at most k bytes below it.
    """
    x, middle = image.astype(jnp.int32), (image.size - 1) / 2

    def smallest(k):
        v = jnp.int32(0)
        for bit in (128, 64, 32, 16, 8, 4, 2, 1):
            v = jnp.where(jnp.sum(x < v + bit) <= k, v + bit, v)
        return v

    both = smallest(math.floor(middle)) + smallest(math.ceil(middle))
    return both.astype(jnp.result_type(float)) / 2


def _whole(x: Pixels, scale: int) -> Float[Array, "h w c"]:
    return jnp.clip(jnp.round(x), 0, scale)
