"""Seconds of architectures are sums of measured steps."""

import numpy as np
import pytest

from enasq import cell, latency, plan, policy

NETWORK = plan.Network("fixed", 0, 2, 1, 8, 1, pool_positions=(0,))


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves by the number of elements of what a step reads."""
    asked = []

    def timed(program, own, given):
        asked.append(given)
        sizes = [np.size(leaf) for leaf in latency.jax.tree.leaves(given)]
        return 1e-6 * sum(sizes)

    monkeypatch.setattr(latency, "_timed", timed)
    return asked


def test_equal_steps_are_measured_once(clock):
    own = policy.preset("deployable")
    measure = latency.measured(NETWORK, own, batch=2)
    arc = cell.parse("0 0 1 3 | 1 1 0 4")
    seconds, count = measure(arc), len(clock)
    assert seconds > 0 and measure(arc) == seconds
    steps = len(latency.untrained(NETWORK, own, arc).steps)
    assert count == len(clock) < steps
    # The reduction cell has the same convolutions of 5x5.
    assert measure(cell.parse("0 1 1 3 | 1 1 0 4")) > 0 and len(clock) == count
    assert measure(cell.parse("0 2 1 3 | 1 1 0 4")) > 0 and len(clock) > count


def test_a_step_is_really_timed():
    own = policy.preset("deployable")
    graph = latency.untrained(NETWORK, own, cell.parse("0 4 1 4 | 1 4 0 4"))
    found = latency._seconds(graph, 2, {})
    assert len(found) == len(graph.steps) and 0 < min(found) and max(found) < 1
