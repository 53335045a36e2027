"""Convolutions of packed images, as products of packed patches.

Images are `[images, height, width, channels]`, kernels `[rows, columns, channels,
outputs]`. With the padding "same" an output has `ceil(size / stride)` rows, the larger
half of the padding after. Zeros are a code of all kinds but the binary one: a padded
position of a binary image counts as -1 in the product, and what that adds, which
depends on the position alone, is taken out again.
"""

import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Int32, UInt32

from enasq import bitwise, packing, products
from enasq.packing import Codes, Columns, Packed
from shared.errors import UsageError, check_choice

Pads = tuple[tuple[int, int], tuple[int, int]]

PADDINGS = ("same", "valid")
FILLS = ("zero", "one")


def check_fill(x: Packed, fill: str) -> None:
    """Raise a UsageError unless `fill` names a code that the image has, or no code."""
    check_choice("fill", fill, FILLS)
    if fill == "one" and packing.span(x.kind, x.planes.shape[0])[1] < 1:
        raise UsageError("fill", fill, "zero: codes of one bit, signed, have no +1")


def pads_of(
    padding: str, size: tuple[int, ...], window: tuple[int, int], strides: int
) -> Pads:
    """Return the rows and columns to put before and after an image.

    Args:
        padding: "same" or "valid".
        size: height and width.
        window: rows and columns of the kernel.
        strides: step along both.

    Raises:
        UsageError: for another padding, for strides below 1, or if the window does not
            fit into an image that is not padded.
    """
    check_choice("padding", padding, PADDINGS)
    if strides < 1:
        raise UsageError("strides", strides, "an integer >= 1")
    if padding == "valid":
        if any(n < w for n, w in zip(size, window, strict=True)):
            raise UsageError("window", window, f"at most the image, {tuple(size)}")
        return (0, 0), (0, 0)
    total = [
        max((-(-n // strides) - 1) * strides + w - n, 0)
        for n, w in zip(size, window, strict=True)
    ]
    high, wide = total
    return (high // 2, high - high // 2), (wide // 2, wide - wide // 2)


def taps(
    x: Array,
    window: tuple[int, int],
    strides: int,
    pads: Pads,
    fill: np.ndarray | int = 0,
) -> list[Array]:
    """Return what each tap of a window sees, `[..., high, wide, last]`, row by row.

    Args:
        x: `[..., height, width, last]`.
        window, strides, pads: as at `pads_of`.
        fill: what stands outside: a number, or words `[last]`.
    """
    around = [(0, 0)] * (x.ndim - 3) + [*pads, (0, 0)]
    if isinstance(fill, int):
        x = jnp.pad(x, around, constant_values=fill)
    else:
        flip = packing.along_last(fill, x)
        x = jnp.pad(x ^ flip, around) ^ flip
    high = (x.shape[-3] - window[0]) // strides + 1
    wide = (x.shape[-2] - window[1]) // strides + 1
    return [
        x[
            ...,
            i : i + (high - 1) * strides + 1 : strides,
            j : j + (wide - 1) * strides + 1 : strides,
            :,
        ]
        for i in range(window[0])
        for j in range(window[1])
    ]


def inside(
    size: tuple[int, ...], window: tuple[int, int], strides: int, pads: Pads
) -> np.ndarray:
    """Tell which taps lie in the image, `[high, wide, taps]`."""
    found = []
    for n, w, (before, after) in zip(size, window, pads, strict=True):
        starts = np.arange((n + before + after - w) // strides + 1) * strides - before
        at = starts[:, None] + np.arange(w)[None]
        found.append((at >= 0) & (at < n))
    rows, columns = found
    both = rows[:, None, :, None] & columns[None, :, None, :]
    return both.reshape(*both.shape[:2], -1)


def ones_words(length: int) -> np.ndarray:
    """Return words whose first bits are 1, so many as are given."""
    words = np.zeros(packing.words_for(length), np.uint32)
    words[: length // packing.WORD] = 2**32 - 1
    if length % packing.WORD:
        words[-1] = 2 ** (length % packing.WORD) - 1
    return words


def patches(
    x: Packed, window: tuple[int, int], strides: int, pads: Pads, fill: str = "zero"
) -> UInt32[Array, "planes images high wide words"]:
    """Return the words that a window sees, behind each other.

    Args:
        x: an image with packed channels.
        window, strides, pads: as at `taps`.
        fill: "zero" pads with words of 0, "one" with the code +1.
    """
    if window == (1, 1) and strides == 1:
        return x.planes
    # +1 has its first plane set in every kind, and no other.
    fills = [ones_words(x.length) if fill == "one" and not i else 0 for i in _range(x)]
    seen = [
        jnp.concatenate(taps(plane, window, strides, pads, value), axis=-1)
        for plane, value in zip(x.planes, fills, strict=True)
    ]
    return jnp.stack(seen)


def _range(x: Packed) -> range:
    return range(x.planes.shape[0])


def border(
    kernel: Columns, size: tuple[int, ...], strides: int, pads: Pads
) -> Int32[Array, "high wide outputs"]:
    """Return Σ of the weights of the taps that lie outside, for every position.

    Positions with the same taps inside share one sum, so few sums are formed whatever
    the size of the image.
    """
    seen = inside(size, kernel.window, strides, pads)
    classes, which = np.unique(
        seen.reshape(-1, seen.shape[-1]), axis=0, return_inverse=True
    )
    sums = jnp.sum(packing.unpack_columns(kernel), axis=-2, dtype=jnp.int32)
    sums = sums.reshape(-1, sums.shape[-1])
    total = jnp.asarray(~classes, jnp.int32) @ sums
    return total[which.reshape(seen.shape[:2])]


def conv(
    x: Packed,
    kernel: Columns,
    *,
    strides: int = 1,
    padding: str = "same",
    fill: str = "zero",
    how: str = "auto",
) -> Int32[Array, "images high wide outputs"]:
    """Convolve packed images exactly.

    Args:
        x: planes `[planes, images, height, width, words]`.
        kernel: from `packing.pack_columns`.
        strides: step of the window.
        padding: "same" or "valid".
        fill: "zero" or "one", the code outside the image.
        how: as at `products.matmul`.

    Raises:
        UsageError: for other options, or if channels differ.
    """
    check_choice("how", how, products.HOW)
    check_fill(x, fill)
    if x.planes.ndim != 5 or x.length != kernel.length:
        allowed = f"images of {kernel.length} channels"
        raise UsageError("x", (*x.planes.shape[1:-1], x.length), allowed)
    size = x.planes.shape[2:4]
    pads = pads_of(padding, size, kernel.window, strides)
    if how == "auto":
        how = _choose(x, kernel, size, strides)
    if how in ("int8", "float"):
        return _by_numbers(x, kernel, strides, pads, fill, how)
    seen = patches(x, kernel.window, strides, pads, fill)
    rows = seen.reshape(seen.shape[0], -1, seen.shape[-1])
    total = bitwise.product(Packed(rows, x.kind, x.length), kernel, form=how)
    total = total.reshape(*seen.shape[1:-1], -1)
    if x.kind == "binary" and fill == "zero" and any(map(any, pads)):
        total = total + border(kernel, size, strides, pads)[None]
    return total


def _choose(x: Packed, kernel: Columns, size: tuple[int, ...], strides: int) -> str:
    """Return what `products.fastest` says of the product that a convolution is."""
    count = kernel.window[0] * kernel.window[1]
    rows = x.planes.shape[1] * size[0] * size[1] // strides**2
    outputs = kernel.planes.shape[-1]
    pairs = len(bitwise.plan(x, kernel).pairs)
    backend = jax.default_backend()
    how = products.fastest(backend, rows, count * x.length, outputs, pairs, packed=True)
    reach = [packing.span(p.kind, p.planes.shape[0]) for p in (x, kernel)]
    largest = count * x.length * max(map(abs, reach[0])) * max(map(abs, reach[1]))
    return "words" if how == "float" and largest >= products.EXACT else how


def _by_numbers(
    x: Packed, kernel: Columns, strides: int, pads: Pads, fill: str, how: str
) -> Array:
    """Convolve numbers; those that float32 would round are multiplied as integers."""
    codes, window = packing.unpack(x), kernel.window
    value = 1 if fill == "one" else 0
    seen = jnp.concatenate(taps(codes, window, strides, pads, value), axis=-1)
    matrix = packing.unpack_columns(kernel)
    matrix = matrix.reshape(-1, matrix.shape[-1])
    kind = lambda p: "signed" if p.kind in ("binary", "ternary") else p.kind
    bits = lambda p: max(p.planes.shape[0], 2)
    return products.matmul(
        Codes(seen, kind(x), bits(x)),
        Codes(matrix, kind(kernel), bits(kernel)),
        how=how,
    )
