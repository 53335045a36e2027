"""Costs of architectures as functions of their codes."""

import itertools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from enasq import accounting, cell, costs
from enasq.costs import Tables
from enasq.plan import Network
from enasq.policy import preset
from enasq.records import records
from shared.errors import UsageError
from tests.quick import quick

CASES = {
    "plain": (Network("fixed", 1, 8, 3, pool_positions=(1,)), preset("all_ternary")),
    "published": (
        Network("fixed", 2, 6, 2, channels=1, pool_positions=(0, 3)),
        preset("published"),
    ),
    "choices": (
        Network("fixed", 1, 10, 4, size=8, pool_positions=(1,)),
        preset("deployable", choices=("binary", "4-bit")),
    ),
    "one block": (Network("fixed", 2, 4, 1), preset("reference")),
    "no reduction": (
        Network("fixed", 0, 4, 2, pool_positions=()),
        preset("deployable_kbit"),
    ),
    "strides inside": (
        Network("search", 1, 8, 3, pool_positions=(1,), stride_inside=True),
        preset("deployable_ternary"),
    ),
}
CHEAP = cell.parse("0 2 1 2 2 2 2 2 " * 2)


def draw(seed, blocks, *, ops=5, count=1):
    """Return random architectures."""
    keys = jax.random.split(jax.random.key(seed), count)
    return np.array(jax.vmap(lambda k: cell.random(k, blocks, ops=ops))(keys))


@pytest.fixture(scope="module")
def arithmetic():
    """Return a network, its policy and the tables of its multiply-accumulates."""
    network, policy = CASES["plain"]
    ask = costs.accounted(network, policy, "macs")
    return network, policy, costs.tables(network, policy, ask)


def extremes(blocks, ops):
    """Return architectures whose cells have the fewest and the most loose ends."""
    for wide in itertools.product((False, True), repeat=2):
        codes = draw(7, blocks, ops=ops)[0]
        for code, all_loose in zip(codes, wide, strict=True):
            before = np.arange(1, blocks + 1)
            code[:, 0] = code[:, 2] = 1 if all_loose else before
            code[0, 0] = int(all_loose)
        yield codes


def remembering(measure):
    """Return a measure that is computed once for each architecture."""
    known = {}

    def ask(arc):
        if arc.tobytes() not in known:
            known[arc.tobytes()] = measure(arc)
        return known[arc.tobytes()]

    return ask


@pytest.mark.parametrize("name", CASES)
def test_costs_are_those_of_the_account(name):
    network, policy = CASES[name]
    count = remembering(lambda a: accounting.totals(records(network, policy, a)))
    for field in ("model_bits", "bit_operations", "macs"):
        ask = lambda arc: getattr(count(arc), field)  # noqa: B023
        found = costs.tables(network, policy, ask)
        assert found.ops == 5 * max(len(policy.choices), 1)
        arcs = [*draw(1, network.blocks, ops=found.ops, count=8)]
        for arc in [*arcs, *extremes(network.blocks, found.ops)]:
            assert costs.cost(found, arc) == ask(arc)


def test_measures_by_name(arithmetic):
    network, policy, _ = arithmetic
    arc = draw(4, network.blocks)[0]
    sums = accounting.totals(records(network, policy, arc))
    found = [costs.accounted(network, policy, name)(arc) for name in costs.MEASURES]
    assert found == [sums.model_bits, sums.bit_operations, sums.macs]


def test_one_program_gives_the_costs_of_all_architectures(arithmetic):
    network, _, found = arithmetic
    arcs = draw(2, network.blocks, count=20)
    traces = []

    def one(tables, arc):
        traces.append(arc)
        return costs.cost(tables, arc)

    run = quick(jax.vmap(one, (None, 0)))
    expected = [costs.cost(found, arc) for arc in arcs]
    for half in range(2):
        own = run(found, jnp.asarray(arcs[half::2]))
        np.testing.assert_allclose(own, expected[half::2], rtol=1e-6)
    assert len(traces) == 1


@pytest.mark.parametrize("seed", range(4))
def test_the_cheapest_of_all_architectures(seed):
    rng = np.random.default_rng(seed)
    found = Tables(
        rng.normal(size=(4, 4)) * 3, rng.normal(size=(2, 2, 2, 2)), rng.normal(size=2)
    )
    highs = itertools.product(*(range(n) for n in (2, 2, 2, 2, 3, 2, 3, 2)))
    codes = np.array(list(highs), np.int32).reshape(-1, 2, 4)
    normal = np.stack([codes, np.broadcast_to(codes[:1], codes.shape)], 1)
    reduction = normal[:, ::-1]
    # What is inside a cell adds up; what is between them depends on both.
    inside = [
        [costs.cost(found._replace(widths=np.zeros((4, 4))), arc) for arc in arcs]
        for arcs in (normal, reduction)
    ]
    ends = np.array([cell.loose_ends(code).sum() for code in codes])
    common = [part[0] for part in inside]
    whole = np.add.outer(inside[0], inside[1]) - np.mean(common)
    whole += found.widths[ends[:, None], ends[None]]
    assert common[0] == common[1]
    assert costs.cheapest(found) == pytest.approx(whole.min())


def test_a_budget_that_nothing_can_meet():
    network, policy = (
        Network("fixed", 1, 4, 2, size=8, pool_positions=(1,)),
        preset("deployable"),
    )
    ask = costs.accounted(network, policy, "bits")
    found = costs.tables(network, policy, ask)
    least = costs.cheapest(found)
    # Pools hold no weights, and one loose end a cell needs the fewest projections.
    assert least == ask(CHEAP) and least > 1000
    costs.check_budget(found, least)
    with pytest.raises(
        UsageError, match=rf"budget: got 1000, expected at least {least:.0f}"
    ):
        costs.check_budget(found, 1000)
    with pytest.raises(UsageError, match="budget: got nan"):
        costs.check_budget(found, float("nan"))
    with pytest.raises(UsageError, match="cost: got 'bit'.*Did you mean"):
        costs.accounted(network, policy, "bit")


def test_reward_is_the_accuracy_within_the_budget():
    prices = jnp.array([10.0, 100.0, 150.0, 200.0])
    found = costs.reward(0.9, prices, 100.0, 0.2)
    np.testing.assert_allclose(found, [0.9, 0.9, 0.8, 0.7], rtol=1e-6)
