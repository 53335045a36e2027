"""Checks of arrays, made before anything is computed.

Values that are traced cannot be looked at: they pass.
"""

from typing import Any

import numpy as np
from jax.core import Tracer

from shared.errors import UsageError


def known(array: Any) -> bool:
    """Return whether an array's values can be looked at."""
    return not isinstance(array, Tracer)


def check_lengths(batch: int, **arrays: Any) -> None:
    """Raise a UsageError for an array that is not one number for each sample."""
    for name, array in arrays.items():
        if array is not None and array.shape != (batch,):
            allowed = f"{batch} numbers, one for each sample"
            raise UsageError(name, f"shape {array.shape}", allowed)


def check_some(mask: Any) -> None:
    """Raise a UsageError for a mask without any sample."""
    # `np.any` of an array of JAX would be traced inside `jit`.
    if mask is not None and known(mask) and not np.asarray(mask).any():
        raise UsageError("mask", "no sample", "at least one that takes the step")


def check_indices(
    argument: str, given: Any, size: int, mask: Any = None, *, hint: str = ""
) -> None:
    """Raise a UsageError for an index that is out of range.

    Args:
        argument: name to report.
        given: indices of any shape, or None.
        size: one more than the largest index.
        mask: of the same shape: where they count; None means everywhere.
        hint: of the error.
    """
    if given is None or not known(given) or not known(mask):
        return
    counted = np.asarray(given)
    counted = counted if mask is None else counted[np.asarray(mask)]
    wrong = counted[(counted < 0) | (counted >= size)]
    if wrong.size:
        allowed = f"integers from 0 to {size - 1}"
        raise UsageError(argument, int(wrong.flat[0]), allowed, hint)
