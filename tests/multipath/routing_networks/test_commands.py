"""Commands as arrays."""

import numpy as np
import pytest

from multipath.routing_networks import commands
from shared.data import scan
from shared.errors import UsageError

TEXTS = ("walk and jump", "walk after jump", "jump twice", "look", "turn left")


def test_targets_end_with_an_end_and_are_read_one_step_later():
    asked = commands.batch(scan.encode(TEXTS), np.arange(len(TEXTS)))
    assert asked.tasks.tolist() == [1, 2, 0, 0, 0]
    for text, row, before in zip(
        TEXTS, asked.targets.tolist(), asked.inputs.before.tolist(), strict=True
    ):
        end = row.index(commands.END)
        assert tuple(scan.ACTIONS[a] for a in row[:end]) == scan.interpret(text)
        assert set(row[end + 1 :]) == {commands.NOTHING}
        assert before[: end + 1] == [commands.END, *row[:end]]


def test_sets_share_no_command_and_keep_what_is_short():
    sets = commands.load("jump", longest=8)
    # The word 0 and padding look alike.
    texts = [np.c_[b.inputs.words, b.inputs.length].tolist() for b in sets[:3]]
    rows = [set(map(tuple, text)) for text in texts]
    assert not (rows[0] & rows[1] or rows[0] & rows[2] or rows[1] & rows[2])
    assert all(b.targets.shape[1] == 9 for b in sets[:3])
    whole = scan.table()
    jumps = scan.split("jump").test
    assert len(sets.test.tasks) == np.sum(whole.target_length[jumps] <= 8)
    # The command that is trained on in isolation is repeated.
    assert len(sets.train.tasks) > len(rows[0]) + 1000


@pytest.mark.parametrize(
    ("values", "message"),
    (
        ({"split": "simpel"}, "Did you mean 'simple'"),
        ({"longest": 0}, "longest"),
        ({"valid_fraction": 1.0}, "valid_fraction"),
    ),
)
def test_wrong_settings_are_errors(values, message):
    with pytest.raises(UsageError, match=message):
        commands.load(**values)
