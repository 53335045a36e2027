"""The Mathematics Dataset: its files, what is held out, and what is generated."""

import gzip
import io
import re
import tarfile
from decimal import Decimal

import numpy as np
import pytest

from modmask.config import Config
from modmask.tasks import mathematics, mathematics_files, mathematics_sums
from modmask.tasks.mathematics_files import ARCHIVE, PLACES, RELEASE
from shared.errors import UsageError

MODULE = "comparison__sort"
TINY = {"state_size": 4, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}


def config(**changes):
    given = {"math_task": MODULE, "tied_embeddings": True, **TINY, **changes}
    return Config(task="deepmind_math", **given)


def contents():
    """Return questions and answers by place; every place repeats one of the first."""
    made = {}
    for number, place in enumerate(PLACES):
        fresh = [(f"Sort {number}, {i}.", f"{i}") for i in range(20)]
        made[place] = [("Sort 0, 0.", "0"), *fresh]
    return made


def text(pairs):
    return "".join(f"{question}\n{answer}\n" for question, answer in pairs)


def name_of(place):
    return f"{MODULE}_more.txt" if place == "extrapolate" else f"{MODULE}.txt"


def write_folder(folder):
    for place, pairs in contents().items():
        (folder / place).mkdir(parents=True)
        (folder / place / name_of(place)).write_text(text(pairs))
        (folder / place / "numbers__gcd.txt").write_text("never read")


def write_archive(path, places=PLACES):
    with tarfile.open(path, "w:gz") as archive:
        # In the order of a release, which is none in particular.
        for place in reversed(places):
            for name, body in (
                ("numbers__gcd.txt", "never read"),
                (name_of(place), text(contents()[place])),
            ):
                member = tarfile.TarInfo(f"{RELEASE}/{place}/{name}")
                member.size = len(body)
                archive.addfile(member, io.BytesIO(body.encode()))


def test_archive_and_folders_hold_the_same(tmp_path):
    write_archive(tmp_path / ARCHIVE)
    from_archive = mathematics_files.read(MODULE, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [ARCHIVE]
    for place in ("own", "release"):
        folder = tmp_path / place
        write_folder(folder if place == "own" else folder / RELEASE)
        assert mathematics_files.read(MODULE, folder) == from_archive == contents()


def test_extrapolation_is_optional_and_its_own(tmp_path):
    write_archive(tmp_path / ARCHIVE, PLACES[:4])
    assert list(mathematics_files.read(MODULE, tmp_path)) == list(PLACES[:4])
    problem = mathematics.load(config(), tmp_path)
    assert list(problem.valid)[-1] == "interpolate"
    write_archive(tmp_path / ARCHIVE)
    beyond = mathematics.load(config(), tmp_path).valid
    first = lambda name: beyond[name]["source"][0, len("Sort ")]
    assert (
        chr(32 + first("extrapolate")) == "4" and chr(32 + first("interpolate")) == "3"
    )


def test_repeated_questions_count_where_they_come_first(tmp_path):
    write_folder(tmp_path)
    unique = mathematics.without_repetition(mathematics_files.read(MODULE, tmp_path))
    assert [len(pairs) for pairs in unique.values()] == [20] * 5
    assert ("Sort 0, 0.", "0") in unique["train-easy"]
    assert ("Sort 0, 0.", "0") not in unique["interpolate"]


def test_stages_and_sets(tmp_path):
    write_folder(tmp_path)
    problem = mathematics.load(config(math_mask_splits=("easy",)), tmp_path)
    assert [stage.name for stage in problem.stages] == ["verify", "easy"]
    assert problem.weights is problem.stages[0]
    assert [len(stage.rows) for stage in problem.stages] == [3 * 18, 18]
    sets = ["iid", "test_easy", "test_medium", "test_hard"]
    assert list(problem.valid) == [*sets, "interpolate", "extrapolate"]
    held = problem.valid["test_medium"]["source"]
    rows = problem.train["source"]
    assert len(held) == 2 and not (held[:, None] == rows[None]).all(-1).any()
    medium = mathematics.load(config(math_mask_splits=("medium",)), tmp_path)
    questions = medium.train["source"][medium.stages[1].rows]
    assert {chr(32 + row[len("Sort ")]) for row in questions} == {"1"}
    baseline = mathematics.load(config(train_baseline=True), tmp_path)
    assert baseline.weights.name == "easy"


def test_held_out_rows_are_those_of_the_published_program():
    inside, outside = mathematics.hold_out(200_000)
    expected = np.random.RandomState(1234).choice(200_000, 10_000, replace=False)
    np.testing.assert_array_equal(outside, expected)
    assert len(inside) == 190_000 and not set(inside) & set(outside)
    assert len(mathematics.hold_out(500)[1]) == 50


def test_encoding_and_its_vocabularies():
    texts = ["a b", "~"]
    ids, lengths = mathematics.encode(texts)
    np.testing.assert_array_equal(ids, [[65, 0, 66], [94, 0, 0]])
    np.testing.assert_array_equal(lengths, [3, 1])
    smallest = mathematics.minimal_vocabulary(texts)
    assert smallest == " ab~"
    ids, _ = mathematics.encode(texts, smallest, width=4)
    np.testing.assert_array_equal(ids, [[1, 0, 2, 0], [3, 0, 0, 0]])
    assert ids.dtype == np.uint8


@pytest.mark.parametrize("wrong", ("é", "c", "\t"))
def test_characters_outside_the_vocabulary_are_named(wrong):
    with pytest.raises(UsageError, match="vocabulary") as caught:
        mathematics.encode(["ab", f"b{wrong}"], "ab")
    assert caught.value.given == wrong


def evaluate(question):
    """Solve a question by its words."""
    numbers = [Decimal(n) for n in re.findall(r"(?<![\d.])-?\d+(?:\.\d+)?", question)]
    if "less than" in question or question.startswith("Subtract"):
        numbers.reverse()
    minus = ("minus", "take away", "less than", "Subtract", " - ")
    first, second = numbers
    return first - second if any(m in question for m in minus) else first + second


def test_generated_answers_are_right():
    made = mathematics_sums.generate(200)
    assert [len(pairs) for pairs in made.values()] == [200, 200, 200, 20, 20]
    for pairs in made.values():
        for question, answer in pairs:
            assert evaluate(question) == Decimal(answer), question
            assert answer == format(Decimal(answer).normalize() + 0, "f")
            assert len(question) <= 57 and len(answer) <= 18
    assert made == mathematics_sums.generate(200)
    wordings = {re.sub(r"[-\d.]+", "#", q) for q, _ in made["train-easy"]}
    assert len(wordings) >= 10


def test_generated_problem_needs_no_files():
    given = config(math_task="arithmetic__add_or_sub", math_items=100)
    problem = mathematics.load(given)
    assert len(problem.train["source"]) == 270
    assert problem.train["source"].dtype == np.uint8
    assert (
        problem.valid["extrapolate"]["target"].shape[1]
        == (problem.train["target"].shape[1])
    )


def test_other_modules_need_files(tmp_path):
    with pytest.raises(UsageError, match="train-easy/comparison__sort.txt"):
        mathematics.load(config())
    with pytest.raises(UsageError, match=ARCHIVE):
        mathematics.load(config(), tmp_path)
    write_folder(tmp_path)
    with pytest.raises(UsageError, match="Did you mean 'comparison__sort'"):
        mathematics.load(config(math_task="comparison__sorts"), tmp_path)


def damage(change):
    """Return (what to do with a file, what the message says)."""
    return {
        "cut": (lambda path: path.write_text(path.read_text()[:-2]), "truncated"),
        "odd": (
            lambda path: path.write_text(path.read_text() + "Sort.\n"),
            "truncated",
        ),
        "empty": (lambda path: path.write_text(""), "0 lines"),
        "long": (lambda path: path.write_text("a" * 161 + "\n1\n"), "161 characters"),
        "binary": (lambda path: path.write_bytes(b"\xe9\n1\n"), "ASCII"),
        "absent": (lambda path: path.unlink(), "no train-medium"),
        "all repeated": (
            lambda path: path.write_text("Sort 0, 0.\n0\n"),
            "no question of its own",
        ),
    }[change]


@pytest.mark.parametrize(
    "change", "cut,odd,empty,long,binary,absent,all repeated".split(",")
)
def test_damaged_files_are_one_error(tmp_path, change):
    write_folder(tmp_path)
    spoil, message = damage(change)
    spoil(tmp_path / "train-medium" / f"{MODULE}.txt")
    with pytest.raises(UsageError, match=message):
        mathematics.load(config(), tmp_path)


@pytest.mark.parametrize("kind", ("cut", "not a tar", "not gzip"))
def test_damaged_archives_are_one_error(tmp_path, kind):
    path = tmp_path / ARCHIVE
    write_archive(path)
    whole = path.read_bytes()
    broken = {"cut": whole[:-60], "not a tar": gzip.compress(b"x" * 999)}
    path.write_bytes(broken.get(kind, b"text"))
    with pytest.raises(UsageError, match="download it again"):
        mathematics.load(config(), tmp_path)
