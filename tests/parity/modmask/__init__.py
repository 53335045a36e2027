"""The weight-mask study against reference files."""

from tests.parity.modmask import (
    arithmetic,
    images,
    layers,
    sequences,
    statistics,
    training,
)

CASES = (
    *layers.CASES,
    *images.CASES,
    *arithmetic.CASES,
    *sequences.CASES,
    *statistics.CASES,
    *training.CASES,
)
