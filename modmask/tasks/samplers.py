"""Rows and splits in the order in which the published program drew them.

Everything here is drawn on the host from NumPy's `RandomState`, whose streams never
change. Training itself draws its batches on the device, see `shared.data.batching`.
"""

import numpy as np

from shared.errors import check_range

ORDER_SEED = 0xB0C1FA53
SPLIT_SEED = 0xC1CAFA52
VALID_SHARE = 0.2


def infinite(rows: int, count: int, *, seed: int) -> np.ndarray:
    """Return `count` rows out of `rows`, drawn with replacement."""
    _check_rows(rows)
    return np.random.RandomState(seed).randint(0, rows, count)


def without_replacement(rows: int, count: int, *, seed: int) -> np.ndarray:
    """Return `count` rows, every one of `rows` once before any comes again."""
    _check_rows(rows)
    random = np.random.RandomState(seed)
    epochs = [random.permutation(rows) for _ in range(-(-count // rows))]
    return np.concatenate([np.arange(0), *epochs])[:count]


def subset(rows: int, most: int) -> np.ndarray:
    """Return at most so many of the rows, always the same, each once."""
    random = np.random.RandomState(ORDER_SEED)
    return random.choice(rows, min(rows, most), replace=False)


def fixed_order(rows: int) -> np.ndarray:
    """Return all rows in a random order that is always the same."""
    return np.random.RandomState(ORDER_SEED).permutation(rows)


def training_rows(rows: int) -> np.ndarray:
    """Tell for each image of a training archive whether it is for training.

    The others, one in five, are for validation. Whether an image is does not depend on
    how many there are after it.
    """
    return np.random.RandomState(SPLIT_SEED).rand(rows) > VALID_SHARE


def held_out(rows: int, count: int, *, seed: int) -> np.ndarray:
    """Return the rows of a set that are held out, in rising order."""
    check_range("count", count, low=0, high=rows)
    return np.sort(np.random.RandomState(seed).choice(rows, count, replace=False))


def pixel_permutation(number: int, pixels: int = 784) -> np.ndarray:
    """Return where each pixel of permutation `number` is taken from; 0 moves none."""
    check_range("number", number, low=0)
    if number == 0:
        return np.arange(pixels)
    return np.random.RandomState(number).permutation(pixels)


def class_pair(number: int, classes: int = 10) -> tuple[int, int]:
    """Return the ordered pair of distinct classes that has this number."""
    check_range("number", number, low=0, high=classes * (classes - 1) - 1)
    first, second = divmod(number, classes)
    return first + (second <= first), second


def pair_numbers(seed: int, *, count: int = 10, classes: int = 10) -> np.ndarray:
    """Return the numbers of `count` random pairs of classes, all different."""
    pairs = classes * (classes - 1)
    check_range("count", count, low=1, high=pairs)
    return np.random.RandomState(seed).choice(pairs, count, replace=False)


def stability_pairs(
    seed: int, *, count: int = 10, classes: int = 10
) -> list[tuple[int, int]]:
    """Return the pairs of classes whose masks are trained twice.

    Reference:
        Csordás et al. (2021), appendix on the stability of masks.
    """
    numbers = pair_numbers(seed, count=count, classes=classes)
    return [class_pair(int(number), classes) for number in numbers]


def _check_rows(rows: int) -> None:
    check_range("rows", rows, low=1)
