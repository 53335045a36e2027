"""Questions about images: their labels and the names of their tasks."""

import numpy as np
import pytest

from multipath.routing_networks import questions
from shared.data.catalog import SETS

DISTINCT = (3, 3, 3, 4, 4, 4, 2, 4, 2, 3, 4, 4, 4, 4, 4, 3, 3, 3, 2, 3)
COARSE = np.asarray(SETS["cifar100"].coarse)


def test_ranks_number_the_classes_of_every_superclass():
    rank = questions.superclass_labels("rank")
    for task in range(20):
        assert rank[COARSE == task].tolist() == [0, 1, 2, 3, 4]


def test_numbers_modulo_five_run_together():
    own = questions.superclass_labels("mod5")
    assert tuple(len(set(own[COARSE == t])) for t in range(20)) == DISTINCT
    most = [np.bincount(own[COARSE == t]).max() / 5 for t in range(20)]
    assert np.mean(most) == pytest.approx(0.48)


def test_no_two_permutations_agree_on_a_digit():
    table = questions.permutations()
    for axis in (0, 1):
        np.testing.assert_array_equal(np.sort(table, axis).take(3, 1 - axis), range(10))
