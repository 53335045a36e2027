"""Mathematics Dataset: questions and answers as sequences of characters.

Reference:
    Saxton et al. (2019), Analysing mathematical reasoning abilities of neural models.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from modmask.config import Config
from modmask.task import Problem, Stage
from modmask.tasks import sequences
from modmask.tasks.mathematics_files import DIFFICULTIES, PLACES, read
from modmask.tasks.mathematics_sums import GENERATED, generate
from shared.errors import UsageError, check_range

HELD_OUT = 10_000
HELD_OUT_SEED = 1234
REMAT_FROM = 2048
"""Layers times width from which activities are computed twice rather than kept."""

Pairs = Sequence[tuple[str, str]]


class Module(NamedTuple):
    """The data of one module.

    Attributes:
        train, test: rows of each difficulty.
        beyond: rows of `interpolate` and `extrapolate`, where there are such.
        longest: characters of the longest answer.
    """

    train: dict[str, dict[str, np.ndarray]]
    test: dict[str, dict[str, np.ndarray]]
    beyond: dict[str, dict[str, np.ndarray]]
    longest: int


def load(config: Config, data_dir: str | os.PathLike | None = None) -> Problem:
    """Return the problem of the task `deepmind_math`.

    The control mask ("verify") is trained on the data of the weights, the other one on
    `config.math_mask_splits`, whose names it has. "iid" holds equal parts of
    what is held out of all difficulties.

    Args:
        config: see `Config`.
        data_dir: holds `mathematics_dataset-v1.0.tar.gz`, or generated files in
            `train-easy/` and so on, in itself or in `mathematics_dataset-v1.0/`.
            Without it, questions of arithmetic__add_or_sub are generated.

    Raises:
        UsageError: for files that are missing or damaged, or characters that are not in
            the vocabulary.
    """
    if data_dir is not None:
        texts = read(config.math_task, data_dir)
    elif config.math_task == GENERATED:
        texts = generate(config.math_items)
    else:
        hint = f"Pass --data-dir DIR; without files there is {GENERATED} alone"
        files = ", ".join(f"{place}/{config.math_task}.txt" for place in PLACES[:4])
        needed = f"a directory with mathematics_dataset-v1.0.tar.gz, or with {files}"
        raise UsageError("data_dir", None, needed, hint)
    module = prepare(texts)
    train = sequences.join([module.train[name] for name in DIFFICULTIES])
    weights = Stage("verify", _rows(module, config.math_train_splits))
    easy = Stage(
        "_".join(config.math_mask_splits), _rows(module, config.math_mask_splits)
    )
    symbols = len(printable_ascii())
    model = sequences.transformer_of(
        config,
        symbols,
        symbols,
        max_out=module.longest,
        remat=config.state_size * config.encoder_layers >= REMAT_FROM,
    )
    tests = {f"test_{name}": module.test[name] for name in DIFFICULTIES}
    return Problem(
        task=sequences.task(model),
        train=train,
        weights=easy if config.train_baseline else weights,
        stages=(weights, easy),
        valid={"iid": _mixture(list(tests.values())), **tests, **module.beyond},
        info={"vocabulary": printable_ascii(), "source": str(data_dir or "generated")},
    )


def prepare(texts: Mapping[str, Pairs], vocabulary: str | None = None) -> Module:
    """Drop repeated questions, hold some out, and encode everything.

    A question counts where it comes first, in the order easy, medium, hard,
    interpolate, extrapolate. Of each difficulty 10,000 are held out, or a tenth where
    that is less.

    Args:
        texts: questions and answers by place, see `PLACES`.
        vocabulary: all characters; those of printable ASCII by default.
    """
    unique = without_repetition(texts)
    sides = {place: tuple(zip(*pairs, strict=True)) for place, pairs in unique.items()}
    widths = [
        max(len(text) for both in sides.values() for text in both[side])
        for side in (0, 1)
    ]
    rows = {
        place: sequences.arrays(
            *(
                encode(texts, vocabulary, width=width)
                for texts, width in zip(both, widths, strict=True)
            )
        )
        for place, both in sides.items()
    }
    train, test = {}, {}
    for name, place in zip(DIFFICULTIES, PLACES, strict=False):
        inside, outside = hold_out(len(unique[place]))
        train[name] = sequences.take(rows[place], inside)
        test[name] = sequences.take(rows[place], outside)
    beyond = {place: rows[place] for place in PLACES[3:] if place in rows}
    return Module(train, test, beyond, widths[1])


def without_repetition(texts: Mapping[str, Pairs]) -> dict[str, Pairs]:
    """Keep each question where it comes first.

    Raises:
        UsageError: if nothing is left of a difficulty that networks are trained on.
    """
    seen: set[str] = set()
    unique: dict[str, Pairs] = {}
    for place in (place for place in PLACES if place in texts):
        kept = []
        for question, answer in texts[place]:
            if question not in seen:
                seen.add(question)
                kept.append((question, answer))
        if kept:
            unique[place] = kept
        elif place in PLACES[:3]:
            raise UsageError(place, "no question of its own", "at least one question")
    return unique


def hold_out(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the rows stay for training, and which are held out."""
    size = min(HELD_OUT, max(count // 10, 1))
    chosen = np.random.RandomState(HELD_OUT_SEED).choice(count, size, replace=False)
    inside = np.ones(count, bool)
    inside[chosen] = False
    return np.flatnonzero(inside), chosen


def _rows(module: Module, names: Iterable[str]) -> np.ndarray:
    """Return where the difficulties lie among all training data."""
    sizes = [len(module.train[name]["source"]) for name in DIFFICULTIES]
    starts = np.cumsum([0, *sizes])
    where = {
        name: np.arange(starts[i], starts[i + 1], dtype=np.int32)
        for i, name in enumerate(DIFFICULTIES)
    }
    return np.concatenate([where[name] for name in dict.fromkeys(names)])


def _mixture(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    sizes = [len(part["source"]) for part in parts]
    some = max(min(sizes) // len(parts), 1)
    return sequences.join([sequences.take(part, slice(some)) for part in parts])


def printable_ascii() -> str:
    """Return the 95 printable characters of ASCII, the vocabulary of all modules."""
    return "".join(map(chr, range(32, 127)))


def minimal_vocabulary(texts: Iterable[str]) -> str:
    """Return the characters that occur, sorted."""
    return "".join(sorted(set().union(*texts)))


def encode(
    texts: Sequence[str], vocabulary: str | None = None, *, width: int | None = None
) -> tuple[UInt8[np.ndarray, "rows width"], Int32[np.ndarray, " rows"]]:
    """Return texts as ids of their characters, padded with 0, and their lengths.

    Args:
        texts: none of them empty.
        vocabulary: characters by id; those of printable ASCII by default.
        width: of the rows, by default that of the longest text.

    Raises:
        UsageError: for a character that is not in the vocabulary.
    """
    vocabulary = vocabulary or printable_ascii()
    check_range("vocabulary", len(vocabulary), low=1, high=255)
    lengths = np.array([len(text) for text in texts], np.int32)
    width = int(lengths.max()) if width is None else width
    unknown, last = len(vocabulary), max(map(ord, vocabulary)) + 1
    number = np.full(last + 1, unknown, np.uint8)
    number[[ord(character) for character in vocabulary]] = range(unknown)
    ids = np.zeros((len(texts), width), np.uint8)
    # NumPy's characters take four bytes: a part of millions of texts at a time.
    for start in range(0, len(texts), 100_000):
        rows = slice(start, start + 100_000)
        codes = np.array(texts[rows], f"U{width}").reshape(-1, 1).view(np.uint32)
        inside = np.arange(width) < lengths[rows, None]
        ids[rows] = np.where(inside, number[np.minimum(codes, last)], 0)
        wrong = np.argwhere(inside & (ids[rows] == unknown))
        if len(wrong):
            allowed = f"a vocabulary with this character; it has {vocabulary!r}"
            raise UsageError("vocabulary", chr(codes[tuple(wrong[0])]), allowed)
    return ids, lengths
