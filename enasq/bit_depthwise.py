"""Depthwise convolutions of packed images, 32 channels at a time.

A channel's sum has as many terms as the window has taps, too few to count along the
channels. So the words stay as they are: every tap gives words of products, and adders
made of word operations count them for all 32 channels of a word at once. The sums come
out as planes of two's complement, ready for a product with more bits or for a
comparison with thresholds.
"""

import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Int32

from enasq import bit_conv, packing
from enasq.packing import Packed
from shared.errors import UsageError, check_choice

Buckets = dict[int, list[Array]]


def add_up(buckets: Buckets, width: int) -> list[Array]:
    """Add bits of many weights, modulo 2^width.

    Three bits of weight 2^i become a sum of that weight and a carry of the next, two
    likewise at the end, until one is left of each.

    Args:
        buckets: words of bits of weight 2^i, under i.
        width: planes of the result.

    Returns:
        The planes, the least first.
    """
    waiting = {i: list(buckets.get(i, ())) for i in range(width + 1)}
    planes = []
    for i in range(width):
        bits = waiting[i]
        while len(bits) > 1:
            a, b = bits.pop(0), bits.pop(0)
            if bits:
                c = bits.pop(0)
                half = a ^ b
                bits.append(half ^ c)
                waiting[i + 1].append((a & b) | (half & c))
            else:
                bits.append(a ^ b)
                waiting[i + 1].append(a & b)
        planes.append(bits[0] if bits else None)
    like = next(plane for plane in planes if plane is not None)
    return [jnp.zeros_like(like) if plane is None else plane for plane in planes]


def depthwise(
    x: Packed,
    kernel: Packed,
    *,
    strides: int = 1,
    padding: str = "same",
    fill: str = "zero",
) -> Packed:
    """Convolve each channel by itself, exactly.

    Args:
        x: an image, planes `[planes, images, height, width, words]`.
        kernel: planes `[planes, rows, columns, words]`.
        strides, padding, fill: as at `bit_conv.conv`.

    Returns:
        The sums as "signed" codes, of as many planes as the largest needs.

    Raises:
        UsageError: for other options, or if channels differ.
    """
    pads = _check(x, kernel, strides, padding, fill)
    window = (kernel.planes.shape[1], kernel.planes.shape[2])
    low, high = bounds(x, kernel)
    width = max((-low - 1).bit_length(), high.bit_length()) + 1
    fills = [
        bit_conv.ones_words(x.length) if fill == "one" and i == 0 else 0
        for i in range(x.planes.shape[0])
    ]
    seen = [
        bit_conv.taps(plane, window, strides, pads, value)
        for plane, value in zip(x.planes, fills, strict=True)
    ]
    weights = kernel.planes.reshape(
        kernel.planes.shape[0], -1, 1, 1, 1, x.planes.shape[-1]
    )
    within = None
    if x.kind == "binary" and fill == "zero" and any(map(any, pads)):
        within = bit_conv.inside(x.planes.shape[2:4], window, strides, pads)
    buckets: Buckets = {}
    constant = np.zeros((1, 1), np.int64)
    for t in range(weights.shape[1]):
        valid = None if within is None else within[..., t]
        a, b = [plane[t] for plane in seen], list(weights[:, t])
        constant = constant + tap(a, x.kind, b, kernel.kind, valid, buckets)
    words = bit_conv.ones_words(x.length)
    _add_constant(buckets, constant, width, words)
    tail = jnp.asarray(words).reshape(1, 1, 1, -1)
    # A plane that no tap reaches has the shape of a constant.
    planes = jnp.broadcast_arrays(*add_up(buckets, width))
    planes = [plane & tail for plane in planes]
    return Packed(jnp.stack(planes), "signed", x.length)


def _check(
    x: Packed, kernel: Packed, strides: int, padding: str, fill: str
) -> bit_conv.Pads:
    bit_conv.check_fill(x, fill)
    if x.planes.ndim != 5 or kernel.planes.ndim != 4 or x.length != kernel.length:
        allowed = f"images of {kernel.length} channels"
        raise UsageError("x", (*x.planes.shape[1:-1], x.length), allowed)
    window = (kernel.planes.shape[1], kernel.planes.shape[2])
    return bit_conv.pads_of(padding, x.planes.shape[2:4], window, strides)


def bounds(x: Packed, kernel: Packed) -> tuple[int, int]:
    """Return the least and the largest possible sum."""
    one, two = (packing.span(p.kind, p.planes.shape[0]) for p in (x, kernel))
    products = [a * b for a in one for b in two]
    count = kernel.planes.shape[1] * kernel.planes.shape[2]
    return count * min(products), count * max(products)


def _put(buckets: Buckets, factor: int, bits: Array) -> int:
    """Add bits of a weight ±2^i; return the constant that goes with them.

    -b is (not b) - 1, so bits are only ever added.
    """
    place = abs(factor).bit_length() - 1
    buckets.setdefault(place, []).append(bits if factor > 0 else ~bits)
    return 0 if factor > 0 else factor


def tap(
    a: list[Array],
    a_kind: str,
    b: list[Array],
    b_kind: str,
    valid: np.ndarray | None,
    buckets: Buckets,
) -> np.ndarray:
    """Add one tap's product to the buckets; return its constant `[high, wide]`.

    Args:
        a: planes of the image under this tap.
        b: planes of the weight.
        valid: where the tap lies in the image, if it does not everywhere.
    """
    (c, cs), (d, ds) = (
        packing.weights_of(kind, len(planes))
        for kind, planes in ((a_kind, a), (b_kind, b))
    )
    here = np.ones((1, 1), np.int64) if valid is None else valid.astype(np.int64)
    mask = None if valid is None else _words_of(valid)
    cut = lambda bits: bits if mask is None else bits & mask
    if a_kind == b_kind == "binary":
        return _put(buckets, 2, cut(~(a[0] ^ b[0]))) - here
    if b_kind == "ternary":
        m = b[0] if a_kind != "ternary" else a[0] & b[0]
        if a_kind == "binary":
            return _signed(buckets, cut(m), cut(m & (a[0] ^ b[1])))
        if a_kind == "ternary":
            return _signed(buckets, m, m & (a[1] ^ b[1]))
    if a_kind == "ternary" and b_kind == "binary":
        return _signed(buckets, a[0], a[0] & ~(a[1] ^ b[0]))
    total = c * d * here
    for f, bits in zip(cs, a, strict=True):
        for g, more in zip(ds, b, strict=True):
            total = total + _put(buckets, f * g, cut(bits & more))
        total = total + (_put(buckets, d * f, bits) if d else 0)
    for g, bits in zip(ds, b, strict=True):
        total = total + (_put(buckets, c * g, cut(bits)) if c else 0)
    return total


def _signed(buckets: Buckets, mask: Array, negative: Array) -> np.ndarray:
    found = _put(buckets, 1, mask) + _put(buckets, -2, negative)
    return np.full((1, 1), found, np.int64)


def _words_of(valid: np.ndarray) -> Array:
    words = np.where(valid, np.uint32(2**32 - 1), np.uint32(0))
    return jnp.asarray(words[None, :, :, None])


def _add_constant(
    buckets: Buckets, constant: np.ndarray, width: int, words: np.ndarray
) -> None:
    """Add a number of each position, modulo 2^width, in all channels."""
    for i in range(width):
        bits = (constant >> i) & 1
        if bits.any():
            here = bits[None, :, :, None].astype(np.uint32) * words
            buckets.setdefault(i, []).append(jnp.asarray(here, jnp.uint32))


def depthwise_numbers(
    x: Int32[Array, "images height width channels"],
    kernel: Int32[Array, "rows columns channels"],
    *,
    strides: int = 1,
    padding: str = "same",
    fill: str = "zero",
) -> Int32[Array, "images high wide channels"]:
    """Convolve each channel of unpacked codes: shifted products and their sum.

    Args:
        x, kernel: codes.
        strides, padding, fill: as at `bit_conv.conv`.
    """
    window = (kernel.shape[0], kernel.shape[1])
    check_choice("fill", fill, bit_conv.FILLS)
    pads = bit_conv.pads_of(padding, x.shape[1:3], window, strides)
    seen = bit_conv.taps(x, window, strides, pads, int(fill == "one"))
    weights = kernel.reshape(-1, 1, 1, 1, kernel.shape[-1])
    total = seen[0] * weights[0]
    for a, w in zip(seen[1:], weights[1:], strict=True):
        total = total + a * w
    return total
