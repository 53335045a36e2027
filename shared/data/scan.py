"""SCAN: 20,910 commands, the actions they mean, and four splits into training and test.

    C -> S and S | S after S | S      S -> V twice | V thrice | V
    V -> u | u dir | u opposite dir | u around dir
       | turn dir | turn opposite dir | turn around dir

with u of walk, look, run, jump and dir of left, right. Commands, their meaning and
three of the splits follow from rules; the split `simple` is random and needs its files.

Reference:
    Lake and Baroni (2018), Generalization without systematicity.
"""

import functools
import os
import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int8, Int32

from shared.data.catalog import SCAN
from shared.data.fetch import checksum
from shared.errors import UsageError, check_choice

WORDS = tuple(
    "left right twice thrice opposite around and after jump run walk look turn".split()
)
"""Words of commands in the order of their ids: by count in the published files."""

ACTIONS = tuple(
    f"I_{name}" for name in "TURN_LEFT TURN_RIGHT JUMP WALK RUN LOOK".split()
)
"""Actions in the order of their ids."""

SPLITS = ("simple", "length", "jump", "turn_left")
LONGEST_COMMAND, MOST_ACTIONS = 9, 48
LONGEST_IN_TRAINING = 22
TRAINING_SHARE = 16_728
REPEATED = {"jump": ("jump", 1_467), "turn_left": ("turn left", 2_189)}
"""What each split adds in isolation, and how often."""


class Sequences(NamedTuple):
    """Commands and actions as ids, padded with 0.

    Attributes:
        source, source_length: commands `[rows, 9]`.
        target, target_length: actions `[rows, 48]`.
    """

    source: Int8[np.ndarray, "rows words"]
    source_length: Int32[np.ndarray, " rows"]
    target: Int8[np.ndarray, "rows actions"]
    target_length: Int32[np.ndarray, " rows"]


class Split(NamedTuple):
    """Rows of `table()`.

    Attributes:
        train: with repetition where the data repeat.
        test: each once.
        source: the directory of the files, or "the grammar".
    """

    train: Int32[np.ndarray, " train"]
    test: Int32[np.ndarray, " test"]
    source: str


@functools.cache
def commands() -> tuple[str, ...]:
    """Return all commands of the grammar, in a fixed order."""
    sentences = [
        f"{phrase} {times}".strip()
        for phrase in _meanings()
        for times in ("", "twice", "thrice")
    ]
    pairs = [
        f"{first} {joint} {second}"
        for joint in ("and", "after")
        for first in sentences
        for second in sentences
    ]
    return (*sentences, *pairs)


@functools.cache
def _meanings() -> dict[str, tuple[str, ...]]:
    """Return what each phrase V means."""
    found = {}
    for verb in ("walk", "look", "run", "jump", "turn"):
        own = () if verb == "turn" else (f"I_{verb.upper()}",)
        if own:
            found[verb] = own
        for side in ("left", "right"):
            turn = (f"I_TURN_{side.upper()}",)
            found[f"{verb} {side}"] = turn + own
            found[f"{verb} opposite {side}"] = turn * 2 + own
            found[f"{verb} around {side}"] = (turn + own) * 4
    return found


def interpret(command: str) -> tuple[str, ...]:
    """Return the actions that a command means.

    Raises:
        UsageError: for what is no command of the grammar.
    """
    for joint in (" and ", " after "):
        first, found, second = command.partition(joint)
        if found:
            parts = _sentence(first, command), _sentence(second, command)
            return parts[0] + parts[1] if joint == " and " else parts[1] + parts[0]
    return _sentence(command, command)


def _sentence(text: str, command: str) -> tuple[str, ...]:
    phrase, _, last = text.rpartition(" ")
    times = {"twice": 2, "thrice": 3}.get(last, 1)
    meaning = _meanings().get(phrase if times > 1 else text)
    if meaning is None:
        raise UsageError("command", command, "a command of the SCAN grammar")
    return meaning * times


def encode(commands: Sequence[str]) -> Sequences:
    """Return commands and what they mean as ids."""
    words = [command.split() for command in commands]
    actions = [interpret(command) for command in commands]
    source = _ids(words, WORDS, LONGEST_COMMAND)
    return Sequences(*source, *_ids(actions, ACTIONS, MOST_ACTIONS))


def _ids(
    texts: Sequence[Sequence[str]], vocabulary: tuple[str, ...], longest: int
) -> tuple[np.ndarray, np.ndarray]:
    number = {word: i for i, word in enumerate(vocabulary)}
    ids = np.zeros((len(texts), longest), np.int8)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = [number[word] for word in text]
    return ids, np.array([len(text) for text in texts], np.int32)


def table() -> Sequences:
    """Return all commands, in the order of `commands()`."""
    return encode(commands())


def split(name: str, data_dir: str | os.PathLike | None = None) -> Split:
    """Return which commands a split trains and tests on.

    Args:
        name: `simple`; `length`, which trains on up to 22 actions; `jump` or
            `turn_left`, which train on that command in isolation and on all commands
            without it.
        data_dir: the directory that holds the published files in `scan/`, from which
            the rows are taken in the files' order. Without it they follow from
            the rules; those of `simple` are a random substitute, always the same.

    Raises:
        UsageError: for an unknown name, and naming the file that is missing, truncated
            or not that of the split.
    """
    check_choice("SCAN split", name, SPLITS)
    train, test = _by_rule(name)
    if data_dir is None:
        return Split(train, test, "the grammar")
    folder = Path(data_dir) / "scan"
    where = shlex.quote(str(data_dir))
    hint = f"Fetch it: python -m scripts.prepare_data scan --data-dir {where}"
    found = [_read(folder / file, hint) for file in SCAN[name]]
    for file, own, rule in zip(SCAN[name], found, (train, test), strict=True):
        if len(own) != len(rule):
            given, allowed = f"{len(own):,} commands", f"{len(rule):,} commands"
            raise UsageError(str(folder / file), given, allowed, hint)
    _check_rows(name, folder, found, (train, test), hint)
    return Split(found[0], found[1], str(folder))


def _by_rule(name: str) -> tuple[np.ndarray, np.ndarray]:
    texts = commands()
    everything = np.arange(len(texts), dtype=np.int32)
    if name == "simple":
        order = np.random.RandomState(0).permutation(everything)
        return order[:TRAINING_SHARE], order[TRAINING_SHARE:]
    if name == "length":
        lengths = np.array([len(interpret(text)) for text in texts])
        trained = lengths <= LONGEST_IN_TRAINING
        return everything[trained], everything[~trained]
    alone, times = REPEATED[name]
    trained = np.array([alone not in text for text in texts])
    single = np.int32(texts.index(alone))
    train = np.concatenate([everything[trained], np.full(times, single)])
    return train, everything[~trained & (everything != single)]


def _read(path: Path, hint: str) -> np.ndarray:
    """Return the rows of a file's commands, each line of which is checked."""
    if not path.is_file():
        raise UsageError("data_dir", f"no file {path}", "the published files", hint)
    row = {command: i for i, command in enumerate(commands())}
    rows = []
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "bytes that are no text"
        raise UsageError(str(path), reason, "a readable text file", hint) from None
    for number, line in enumerate(lines, 1):
        start, _, actions = line.partition(" OUT: ")
        command = start.removeprefix("IN: ")
        known = start.startswith("IN: ") and command in row
        if not known or " ".join(interpret(command)) != actions.strip():
            where = f"{path}, line {number}"
            allowed = "IN: a command OUT: the actions that it means"
            raise UsageError(where, line[:120], allowed, hint)
        rows.append(row[command])
    return np.array(rows, np.int32)


def _check_rows(
    name: str,
    folder: Path,
    found: list[np.ndarray],
    rule: tuple[np.ndarray, np.ndarray],
    hint: str,
) -> None:
    """Compare with the rule; of `simple` it is known that both parts are the whole."""
    if name == "simple":
        both = np.sort(np.concatenate(found))
        if not np.array_equal(both, np.arange(len(both))):
            given, allowed = "files with common commands", "each command in one file"
            raise UsageError(str(folder), given, allowed, hint)
        for file, md5 in SCAN[name].items():
            if checksum(folder / file) != md5:
                message = f"{folder / file} has another checksum than the official file"
                warnings.warn(message, UserWarning, stacklevel=3)
        return
    for file, own, expected in zip(SCAN[name], found, rule, strict=True):
        if not np.array_equal(np.sort(own), np.sort(expected)):
            given = "other commands than those of the split"
            raise UsageError(str(folder / file), given, f"the published {file}", hint)
