"""The SCAN grammar, its splits, and the published files."""

import numpy as np
import pytest

from shared.data import catalog, scan
from shared.errors import UsageError

SIZES = {
    "simple": (16_728, 4_182),
    "length": (16_990, 3_920),
    "jump": (14_670, 7_706),
    "turn_left": (21_890, 1_208),
}


@pytest.mark.parametrize(
    ("command", "actions"),
    (
        ("walk", "WALK"),
        ("turn right", "TURN_RIGHT"),
        ("run left twice", "TURN_LEFT RUN TURN_LEFT RUN"),
        ("look opposite right", "TURN_RIGHT TURN_RIGHT LOOK"),
        ("turn opposite left", "TURN_LEFT TURN_LEFT"),
        ("turn around right", "TURN_RIGHT " * 4),
        ("jump around left", "TURN_LEFT JUMP " * 4),
        ("jump thrice and walk", "JUMP JUMP JUMP WALK"),
        ("jump twice after turn left", "TURN_LEFT JUMP JUMP"),
    ),
)
def test_commands_mean_what_the_paper_says(command, actions):
    expected = tuple(f"I_{action}" for action in actions.split())
    assert scan.interpret(command) == expected


@pytest.mark.parametrize(
    "command", ("", "jump jump", "turn", "walk and", "twice", "run and run and run")
)
def test_other_texts_are_refused(command):
    with pytest.raises(UsageError, match="SCAN grammar"):
        scan.interpret(command)


def test_table_holds_every_command_once():
    table = scan.table()
    assert len(set(scan.commands())) == len(scan.commands()) == 20_910
    assert table.source_length.max() == table.source.shape[1]
    assert table.target_length.max() == table.target.shape[1]
    row = scan.commands().index("jump left after walk")
    words = [scan.WORDS[i] for i in table.source[row, : table.source_length[row]]]
    assert words == ["jump", "left", "after", "walk"]
    actions = [scan.ACTIONS[i] for i in table.target[row, : table.target_length[row]]]
    assert actions == ["I_WALK", "I_TURN_LEFT", "I_JUMP"]


@pytest.mark.parametrize("name", scan.SPLITS)
def test_splits_by_rule(name):
    split = scan.split(name)
    assert (len(split.train), len(split.test)) == SIZES[name]
    assert not set(split.train) & set(split.test)
    assert len({*split.train, *split.test}) == 20_910
    again = scan.split(name)
    np.testing.assert_array_equal(split.train, again.train)


def test_rules_of_the_splits():
    texts, lengths = np.array(scan.commands()), scan.table().target_length
    length = scan.split("length")
    assert lengths[length.train].max() == 22 and lengths[length.test].min() == 24
    jump = texts[scan.split("jump").train]
    assert (jump == "jump").sum() == 1_467
    assert not any("jump" in text for text in jump if text != "jump")
    left = texts[scan.split("turn_left").train]
    assert (left == "turn left").sum() == 2_189
    assert all("turn left" in text for text in texts[scan.split("turn_left").test])


@pytest.fixture(scope="module")
def lines():
    """The line of each command as in the published files."""
    texts = scan.commands()
    return [f"IN: {text} OUT: {' '.join(scan.interpret(text))}" for text in texts]


def write(directory, name, lines, split=None):
    """Write the files of a split in another order; return them."""
    split = split or scan.split(name)
    paths = [directory / "scan" / file for file in catalog.SCAN[name]]
    for path, rows in zip(paths, (split.train, split.test), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{lines[row]}\n" for row in rows[::-1])
        path.write_text(text)
    return paths


def test_files_are_read_in_their_order(tmp_path, lines):
    write(tmp_path, "jump", lines)
    found, rule = scan.split("jump", tmp_path), scan.split("jump")
    np.testing.assert_array_equal(found.train, rule.train[::-1])
    np.testing.assert_array_equal(found.test, rule.test[::-1])
    assert found.source == str(tmp_path / "scan")


def test_another_random_split_is_noticed(tmp_path, lines):
    write(tmp_path, "simple", lines)
    with pytest.warns(UserWarning, match="another checksum") as told:
        found = scan.split("simple", tmp_path)
    assert len(told) == 2 and len(found.train) == 16_728


def damaged(change):
    """Return (what to do with the training file, what the message says)."""
    return {
        "absent": (lambda path: path.unlink(), "no file"),
        "cut": (lambda path: path.write_text(path.read_text()[:-5]), "line 14670"),
        "short": (lambda path: _keep(path, slice(100)), "100 commands"),
        "empty": (lambda path: path.write_text(""), "0 commands"),
        "binary": (lambda path: path.write_bytes(b"\xff\xfe"), "no text"),
        "other word": (lambda path: _replace(path, "walk", "hop"), "line "),
        "other meaning": (lambda path: _replace(path, "I_LOOK", "I_RUN"), "line "),
        "repeated": (_repeat, "other commands than those of the split"),
    }[change]


def _keep(path, rows):
    path.write_text("\n".join(path.read_text().splitlines()[rows]) + "\n")


def _replace(path, old, new):
    path.write_text(path.read_text().replace(old, new, 1))


def _repeat(path):
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[-1], *rows[1:]]) + "\n")


@pytest.mark.parametrize(
    "change",
    "absent,cut,short,empty,binary,other word,other meaning,repeated".split(","),
)
def test_damaged_files_are_one_error(tmp_path, lines, change):
    path, _ = write(tmp_path, "jump", lines)
    damage, message = damaged(change)
    damage(path)
    with pytest.raises(UsageError, match=message) as caught:
        scan.split("jump", tmp_path)
    assert "scripts.prepare_data scan" in str(caught.value)
    assert path.name in str(caught.value)


def test_files_of_another_split_are_refused(tmp_path, lines):
    both = scan.split("simple")
    mixed = both._replace(test=both.train[: len(both.test)])
    write(tmp_path, "simple", lines, mixed)
    with pytest.raises(UsageError, match="each command in one file"):
        scan.split("simple", tmp_path)
    with pytest.raises(UsageError, match="Did you mean 'length'"):
        scan.split("lenght")


def test_downloads_are_all_files():
    remote = {file.path for file in catalog.DOWNLOADS["scan"]}
    names = [file for files in catalog.SCAN.values() for file in files]
    assert remote == {f"scan/{name}" for name in names} and len(names) == 8
