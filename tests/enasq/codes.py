"""Codes, and what integer NumPy makes of them."""

import numpy as np
from hypothesis import strategies as st

from enasq import packing

KINDS = [("binary", 1), ("ternary", 1), ("signed", 3), ("unsigned", 2)]
"""Kinds of codes with a width each."""

seeds = st.integers(0, 2**16)
kinds = st.sampled_from(KINDS)


def draw(seed, kind, bits, shape):
    """Return random codes, int32, with both ends of their span among them."""
    rng = np.random.default_rng(seed)
    low, high = packing.span(kind, bits)
    if kind == "binary":
        return rng.choice([-1, 1], shape).astype(np.int32)
    return rng.integers(low, high + 1, shape).astype(np.int32)


def convolve(x, w, strides, padding, fill=0):
    """Convolve integers `[images, height, width, channels]`, one window at a time.

    A kernel of rank 3 stands for one of each channel.
    """
    rows, columns = w.shape[:2]
    if padding == "same":
        need = [
            max((-(-n // strides) - 1) * strides + k - n, 0)
            for n, k in zip(x.shape[1:3], (rows, columns), strict=True)
        ]
        around = [(0, 0), *[(n // 2, n - n // 2) for n in need], (0, 0)]
        x = np.pad(x, around, constant_values=fill)
    high = (x.shape[1] - rows) // strides + 1
    wide = (x.shape[2] - columns) // strides + 1
    outputs = w.shape[-1]
    y = np.zeros((len(x), high, wide, outputs), np.int64)
    for i in range(high):
        for j in range(wide):
            top, left = i * strides, j * strides
            seen = x[:, top : top + rows, left : left + columns].astype(np.int64)
            if w.ndim == 3:
                y[:, i, j] = np.sum(seen * w[None], axis=(1, 2))
            else:
                y[:, i, j] = np.tensordot(seen, w, axes=3)
    return y
