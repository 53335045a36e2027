"""Seconds of architectures are sums of measured steps."""

import numpy as np
import pytest

from enasq import cell, latency, plan, policy
from enasq.config import Config
from shared.errors import UsageError

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


def test_what_cannot_be_packed_goes_in_floats_or_is_refused_by_name():
    arc = cell.parse("0 4 1 4 | 1 4 0 4")
    expected = {"12-bit": ["signed", 12], "xnor": ["binary", 1]}
    for name, codes in expected.items():
        graph = latency.untrained(NETWORK, policy.deployable(name), arc)
        assert graph.form == "float"
        assert codes in [step.options.get("codes") for step in graph.steps]
    for name in ("swish_sign", "approx_sign"):
        assert policy.obstacle(policy.deployable(name)) is None
    for name in ("dorefa", "lsq"):
        with pytest.raises(UsageError, match=f"activations: got '{name}'"):
            latency.untrained(NETWORK, policy.deployable(name), arc)
        with pytest.raises(UsageError, match=f"got '{name}'"):
            Config(choices=(name,), budget_of="seconds", budget=1.0)


def test_a_step_is_really_timed():
    own = policy.preset("deployable")
    graph = latency.untrained(NETWORK, own, cell.parse("0 4 1 4 | 1 4 0 4"))
    found = latency._seconds(graph, 2, {})
    assert len(found) == len(graph.steps) and 0 < min(found) and max(found) < 1
