"""Fronts of candidates, random architectures of equal cost, agreement of rankings."""

import jax
import numpy as np
import pytest

from enasq import cell, costs, pareto
from enasq.plan import Network
from enasq.policy import preset
from shared.errors import UsageError


@pytest.fixture(scope="module")
def setting():
    """Return tables of a small network and the exact measure."""
    network, policy = (
        Network("fixed", 1, 4, 3, size=8, pool_positions=(1,)),
        preset("deployable"),
    )
    ask = costs.accounted(network, policy, "bits")
    return costs.tables(network, policy, ask), ask


def beaten(losses):
    """Tell which rows another one is nowhere worse than and somewhere better."""
    return [
        any((other <= one).all() and (other < one).any() for other in losses)
        for one in losses
    ]


@pytest.mark.parametrize("kinds", (1, 2, 3))
def test_front_by_the_definition(kinds):
    rng = np.random.default_rng(kinds)
    prices = rng.integers(0, 6, (60, kinds)).astype(float)
    accuracies = rng.integers(0, 6, 60) / 5
    losses = np.column_stack([prices, -accuracies])
    kept = pareto.front(prices, accuracies)
    expected = {tuple(row) for row in losses[~np.array(beaten(losses))]}
    assert [tuple(row) for row in losses[kept]] == sorted(expected)
    first = [int(np.flatnonzero((losses == losses[i]).all(1))[0]) for i in kept]
    assert kept.tolist() == first


def test_what_is_not_a_number_is_on_no_front():
    accuracies = np.array([np.nan, 0.5, 0.4])
    assert pareto.front(np.array([1.0, 2.0, 3.0]), accuracies).tolist() == [1]
    assert pareto.front(np.zeros(1), accuracies[:1]).tolist() == []


def test_random_architectures_of_equal_cost(setting):
    tables, ask = setting
    wanted = ask(np.asarray(cell.random(jax.random.key(5), 3)))
    found = pareto.matched(jax.random.key(0), tables, wanted, 0.02, 8, 3)
    assert found.shape == (8, 2, 3, 4)
    assert all(abs(ask(arc) / wanted - 1) <= 0.0201 for arc in found)
    assert len(np.unique(found.reshape(8, -1), axis=0)) == 8
    again = pareto.matched(jax.random.key(0), tables, wanted, 0.02, 8, 3)
    np.testing.assert_array_equal(found, again)
    other = pareto.matched(jax.random.key(1), tables, wanted, 0.02, 8, 3)
    assert (found != other).any()


def test_nothing_costs_so_little(setting, monkeypatch):
    monkeypatch.setattr(pareto, "BATCHES", 2)
    tables, _ = setting
    found = pareto.matched(jax.random.key(0), tables, 10, 0.01, 1, 3)
    assert found.shape == (0, 2, 3, 4)


def test_agreement_of_rankings():
    shared = np.array([0.1, 0.4, 0.2, 0.3])
    assert pareto.agreement(shared, 2 * shared).tau == pytest.approx(1)
    # One of six pairs is in another order.
    found = pareto.agreement(shared, np.array([0.5, 0.8, 0.7, 0.6]))
    assert found.tau == pytest.approx(4 / 6) and found.count == 4 and 0 < found.p < 1
    assert np.isnan(pareto.agreement(shared, np.ones(4)).tau)
    with pytest.raises(UsageError, match="1 architectures"):
        pareto.agreement(shared[:1], shared[:1])
