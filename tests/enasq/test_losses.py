"""Losses."""

import numpy as np
import pytest
from jax import numpy as jnp

from enasq import losses
from shared.errors import UsageError
from tests.quick import quick

LOGITS = jnp.array([[2.0, 0.5, -3.0], [0.2, -0.1, 0.4]])
LABELS = jnp.array([0, 1])


@pytest.mark.parametrize(
    ("name", "expected"),
    (
        # Margins 1 - s z: (-1, 1.5, -2) and (1.2, 1.1, 1.4).
        ("hinge", (1.5 + 1.2 + 1.1 + 1.4) / 6),
        ("squared_hinge", (1.5**2 + 1.2**2 + 1.1**2 + 1.4**2) / 6),
        # 1 + 3 z for wrong classes.
        ("published_hinge", (2.5 + 1.6 + 1.1 + 2.2) / 6),
    ),
)
def test_hinges(name, expected):
    assert float(losses.loss(name, LOGITS, LABELS)) == pytest.approx(expected, 1e-6)


def test_rows_that_fill_a_batch_up_do_not_count():
    weights = jnp.array([1.0, 0.0])

    @quick
    def run(logits, weights):
        return {
            name: (
                losses.loss(name, logits, LABELS, weights=weights),
                losses.loss(name, logits[:1], LABELS[:1]),
            )
            for name in losses.LOSSES
        }

    for ours, alone in run(LOGITS, weights).values():
        np.testing.assert_allclose(ours, alone, rtol=1e-6)


def test_counts_of_right_answers_and_unknown_names():
    assert int(losses.correct(LOGITS, LABELS)) == 1
    with pytest.raises(UsageError, match="Did you mean 'squared_hinge'"):
        losses.loss("square_hinge", LOGITS, LABELS)
