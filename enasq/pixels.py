"""Images before a network sees them: sizes, channels, and how bytes become numbers.

Images stay bytes until a batch is drawn. Then every number is (pixel - mean) / std,
with one pair for each channel: so the pair is all that a deployed network needs to
take raw images.
"""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Float, UInt8

from shared.data.dataset import channel_statistics
from shared.errors import UsageError

_BLOCK = 1024
_LUMINANCE = (0.299, 0.587, 0.114)


class Norm(NamedTuple):
    """What turns pixels into numbers, (pixel - mean) / std, one entry for each channel.

    Attributes:
        mean, std: in units of pixels as stored.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


def scaled(images: UInt8[Array, "*batch h w c"], norm: Norm) -> Float[Array, "..."]:
    """Return (pixel - mean) / std in the default precision."""
    dtype = jnp.result_type(float)
    shape = (1,) * (images.ndim - 1) + (-1,)
    mean, std = (jnp.asarray(v, dtype).reshape(shape) for v in norm)
    return (images.astype(dtype) - mean) / std


def standard(images: UInt8[np.ndarray, "n h w c"]) -> Norm:
    """Return mean and population deviation of each channel over all images."""
    mean, std = channel_statistics(images, 1)
    return Norm(mean, _positive(std))


def per_image(images: UInt8[np.ndarray, "n h w c"]) -> Norm:
    """Return the mean of the images' means and of the images' own deviations.

    One pair for all channels, as in the published program. The deviation is smaller
    than that over all images, which also counts how images differ.
    """
    means, stds = [], []
    for start in range(0, len(images), _BLOCK):
        rows = images[start : start + _BLOCK].reshape(-1, images[0].size)
        block = rows.astype(np.float64)
        means.append(block.mean(1))
        stds.append(block.std(1))
    channels = images.shape[-1]
    mean = float(np.concatenate(means).mean())
    std = float(np.concatenate(stds).mean())
    return Norm((mean,) * channels, _positive((std,) * channels))


def centred(scale: int, channels: int) -> Norm:
    """Return the pair that maps pixels to [-1/2, 1/2]."""
    return Norm((scale / 2,) * channels, (float(scale),) * channels)


def fixed_point(scale: int, channels: int) -> Norm:
    """Return the pair that maps bytes to fixed point in [-1, 1], exactly.

    The byte u becomes (u - m) / m with m = (scale + 1) // 2, a power of two (128 for
    bytes to 255): so u - m is the code of an 8-bit number in two's complement, and 0,
    with which convolutions pad, is one of the codes.
    """
    half = float((scale + 1) // 2)
    return Norm((half,) * channels, (half,) * channels)


@partial(jax.jit, static_argnames="size")
def resize(
    images: UInt8[Array, "n h w c"], size: int
) -> UInt8[Array, "n {size} {size} c"]:
    """Resize bilinearly between the centres of pixels, rounded to whole grey levels.

    New pixel i lies at `(i + 1/2) old / size - 1/2`, at the nearest border if that is
    outside. Nothing is smoothed before images are made smaller.
    """
    rows, columns = (_between(old, size) for old in images.shape[1:3])

    def one(image):
        x = image.astype(rows.dtype)
        # Coarser products, as accelerators choose them, would shift grey levels.
        x = jnp.einsum("ph,hwc,qw->pqc", rows, x, columns, precision="highest")
        return jnp.round(x).astype(images.dtype)

    return jax.lax.map(one, images, batch_size=_BLOCK)


def with_channels(
    images: UInt8[np.ndarray, "n h w c"], channels: int
) -> UInt8[np.ndarray, "n h w {channels}"]:
    """Repeat grey images for three channels, or turn colours into their luminance."""
    found = images.shape[-1]
    if found == channels:
        return images
    if found == 1:
        return images.repeat(channels, axis=-1)
    if (found, channels) != (3, 1):
        raise UsageError("channels", channels, f"1 or {found}")
    grey = np.zeros(images.shape[:-1], np.float32)
    for channel, weight in enumerate(_LUMINANCE):
        grey += np.float32(weight) * images[..., channel]
    return np.rint(grey).astype(np.uint8)[..., None]


def _positive(std: tuple[float, ...]) -> tuple[float, ...]:
    # A channel may be constant where few images are there.
    return tuple(s or 1.0 for s in std)


def _between(old: int, new: int) -> Float[Array, "{new} {old}"]:
    """Return the shares of the old pixels in each new one, as a matrix."""
    place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    low = place.astype(int)
    matrix = np.zeros((new, old))
    matrix[np.arange(new), low] += 1 - (place - low)
    matrix[np.arange(new), np.minimum(low + 1, old - 1)] += place - low
    return jnp.asarray(matrix, jnp.result_type(float))
