"""Random changes to batches of images, compiled and pure.

Each change comes twice: with the draws as arguments (`flip`, `crop`, `shift`,
`cutout`), and drawing them from a key (`random_flip`, ...). Images are `[n, h, w, c]`
of any number type; every image is changed by draws of its own. To augment training
batches, combine the random forms with `compose`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray, Shaped

from shared.errors import UsageError, check_choice, check_range

Images = Shaped[Array, "n h w c"]
Windows = Shaped[Array, "n height width c"]
Offsets = Int[Array, " n"]
Change = Callable[[PRNGKeyArray, Images], Images]
"""`(key, images) -> images`."""


def compose(*changes: Change) -> Callable[[PRNGKeyArray, Any], Any]:
    """Return `(key, batch) -> batch` that applies the changes in turn.

    The batch is a NamedTuple with a field `images`, a `Split` say; the rest of it is
    left alone. Each change gets a key of its own.
    """

    def augment(key: PRNGKeyArray, batch: Any) -> Any:
        images = batch.images
        for number, change in enumerate(changes):
            images = change(jax.random.fold_in(key, number), images)
        return batch._replace(images=images)

    return augment


@jax.jit
def flip(images: Images, where: Bool[Array, " n"]) -> Images:
    """Mirror the images that `where` marks, left to right."""
    chex.assert_rank([images, where], [4, 1])
    return jnp.where(where[:, None, None, None], images[:, :, ::-1], images)


@jax.jit
def random_flip(
    key: PRNGKeyArray, images: Images, *, allowed: Bool[Array, " n"] | None = None
) -> Images:
    """Mirror each image with probability 1/2.

    Args:
        key: consumed here.
        images: `[n, h, w, c]`.
        allowed: which images may be mirrored; with a permission for each class, pass
            `may_mirror[labels]`. None allows all.
    """
    where = jax.random.bernoulli(key, shape=(images.shape[0],))
    return flip(images, where if allowed is None else where & allowed)


@partial(jax.jit, static_argnames=("pad", "size"))
def crop(
    images: Images,
    top: Offsets,
    left: Offsets,
    *,
    pad: int = 0,
    size: tuple[int, int] | None = None,
    fill: float | int | Array = 0,
) -> Windows:
    """Cut one window from each padded image.

    Args:
        images: `[n, h, w, c]`.
        top, left: the window's first row and column in the padded image, from 0 to
            `h + 2 pad - height` and `w + 2 pad - width`.
        pad: pixels added on each side.
        size: height and width of the window, those of the image by default.
        fill: value of the added pixels.

    Raises:
        UsageError: if the window is larger than the padded image.
    """
    chex.assert_rank([images, top, left], [4, 1, 1])
    height, width = _window(images, pad, size)
    border = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    padded = jnp.pad(images, border, constant_values=fill)

    def cut(image, row, column):
        window = (height, width, image.shape[-1])
        return jax.lax.dynamic_slice(image, (row, column, 0), window)

    return jax.vmap(cut)(padded, top, left)


@partial(jax.jit, static_argnames=("pad", "size"))
def random_crop(
    key: PRNGKeyArray,
    images: Images,
    *,
    pad: int = 4,
    size: tuple[int, int] | None = None,
    fill: float | int | Array = 0,
) -> Windows:
    """Cut one window from each padded image, every position equally likely.

    Args are those of `crop`; `key` is consumed here.
    """
    height, width = _window(images, pad, size)
    count, rows, columns = images.shape[:3]
    top_key, left_key = jax.random.split(key)
    top = jax.random.randint(top_key, (count,), 0, rows + 2 * pad - height + 1)
    left = jax.random.randint(left_key, (count,), 0, columns + 2 * pad - width + 1)
    return crop(images, top, left, pad=pad, size=size, fill=fill)


@jax.jit
def shift(images: Images, rows: Offsets, columns: Offsets) -> Images:
    """Move each image; what comes in from outside has the image's mean colour.

    out[u, v] = image[u + rows, v + columns] inside the image, elsewhere the mean of
    the channel over that image (rounded for whole-number types).

    Args:
        images: `[n, h, w, c]`.
        rows, columns: how far each image moves up and to the left.
    """
    chex.assert_rank([images, rows, columns], [4, 1, 1])
    height, width = images.shape[1:3]
    row = jnp.arange(height)[None, :] + rows[:, None]
    column = jnp.arange(width)[None, :] + columns[:, None]
    moved = _take(images, jnp.clip(row, 0, height - 1), 1)
    moved = _take(moved, jnp.clip(column, 0, width - 1), 2)
    inside = ((row >= 0) & (row < height))[:, :, None, None]
    inside &= ((column >= 0) & (column < width))[:, None, :, None]
    return jnp.where(inside, moved, _mean_colour(images))


@partial(jax.jit, static_argnames="reach")
def random_shift(key: PRNGKeyArray, images: Images, *, reach: int = 4) -> Images:
    """Move each image by -reach..reach rows and columns, filled with its mean.

    Args:
        key: consumed here.
        images: `[n, h, w, c]`.
        reach: largest move, at least 0.
    """
    check_range("reach", reach, low=0)
    row_key, column_key = jax.random.split(key)
    shape = (images.shape[0],)
    rows = jax.random.randint(row_key, shape, -reach, reach + 1)
    columns = jax.random.randint(column_key, shape, -reach, reach + 1)
    return shift(images, rows, columns)


@partial(jax.jit, static_argnames="size")
def cutout(
    images: Images,
    top: Offsets,
    left: Offsets,
    *,
    size: int,
    fill: float | int | Array = 0,
) -> Images:
    """Overwrite one square of each image, cut off at the borders.

    Args:
        images: `[n, h, w, c]`.
        top, left: first row and column of the square, may lie outside.
        size: side of the square, at least 0.
        fill: the value written.

    Reference: DeVries and Taylor, 2017.
    """
    chex.assert_rank([images, top, left], [4, 1, 1])
    check_range("size", size, low=0)
    row = jnp.arange(images.shape[1])[None, :] - top[:, None]
    column = jnp.arange(images.shape[2])[None, :] - left[:, None]
    hidden = ((row >= 0) & (row < size))[:, :, None, None]
    hidden &= ((column >= 0) & (column < size))[:, None, :, None]
    return jnp.where(hidden, jnp.asarray(fill, images.dtype), images)


@partial(jax.jit, static_argnames=("size", "anchor"))
def random_cutout(
    key: PRNGKeyArray,
    images: Images,
    *,
    size: int,
    fill: float | int | Array = 0,
    anchor: str = "centre",
) -> Images:
    """Overwrite one square at a random place of each image.

    Args:
        key: consumed here.
        images: `[n, h, w, c]`.
        size: side of the square.
        fill: the value written.
        anchor: `centre` or `corner`: whether the square's centre (as in the
            reference) or its top left corner is uniform over the pixels.

    Reference: DeVries and Taylor, 2017.
    """
    check_choice("anchor", anchor, ("centre", "corner"))
    count, height, width = images.shape[:3]
    row_key, column_key = jax.random.split(key)
    back = size // 2 if anchor == "centre" else 0
    top = jax.random.randint(row_key, (count,), 0, height) - back
    left = jax.random.randint(column_key, (count,), 0, width) - back
    return cutout(images, top, left, size=size, fill=fill)


def _window(images: Images, pad: int, size: tuple[int, int] | None) -> tuple[int, int]:
    check_range("pad", pad, low=0)
    full = images.shape[1:3]
    height, width = full if size is None else size
    largest = (full[0] + 2 * pad, full[1] + 2 * pad)
    if not (1 <= height <= largest[0] and 1 <= width <= largest[1]):
        allowed = f"1 x 1 to {largest[0]} x {largest[1]}, the padded image"
        raise UsageError("size", f"{height} x {width}", allowed)
    return height, width


def _take(images: Images, index: Int[Array, "n k"], axis: int) -> Array:
    others = tuple(a for a in (1, 2, 3) if a != axis)
    return jnp.take_along_axis(images, jnp.expand_dims(index, others), axis=axis)


def _mean_colour(images: Images) -> Array:
    """Return the mean of each image and channel in the images' own type."""
    mean = images.astype(jnp.promote_types(images.dtype, jnp.float32))
    mean = mean.mean((1, 2), keepdims=True)
    if jnp.issubdtype(images.dtype, jnp.integer):
        mean = jnp.round(mean)
    return mean.astype(images.dtype)
