"""Checks look at values that count, where they can be looked at."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from multipath.routing_networks import checks
from multipath.routing_networks.network import check_tasks
from shared.errors import UsageError

GIVEN = jnp.array([[0, 5], [1, -2]])
INSIDE = jnp.array([[True, False], [True, False]])


def test_indices_count_where_the_mask_says_so():
    checks.check_indices("a", GIVEN, 2, INSIDE)
    checks.check_indices("a", None, 2)
    with pytest.raises(UsageError, match="a: got 5, expected integers from 0 to 1. H"):
        checks.check_indices("a", GIVEN, 2, hint="Hm.")
    with pytest.raises(UsageError, match="a: got -2"):
        checks.check_indices("a", GIVEN, 6)
    with pytest.raises(UsageError, match="tasks: got 3, expected integers from 0 to 2"):
        check_tasks(jnp.arange(4), 3)


def test_traced_values_pass_and_constants_of_a_program_do_not():
    def traced(given, mask):
        checks.check_indices("a", given, 2)
        checks.check_indices("a", GIVEN, 2, mask)
        checks.check_some(mask)

    jax.eval_shape(traced, GIVEN, INSIDE & False)
    for check in (
        lambda given: checks.check_indices("a", GIVEN, 2),
        lambda given: checks.check_some(np.zeros(2, bool)),
        lambda given: checks.check_lengths(3, a=given),
    ):
        with pytest.raises(UsageError):
            jax.eval_shape(check, GIVEN)
