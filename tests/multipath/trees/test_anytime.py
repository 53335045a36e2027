"""Thresholds within a budget."""

import dataclasses
import itertools

import numpy as np
import pytest

from multipath.trees import anytime, budgets, graph, inference
from multipath.trees.graph import layout
from multipath.trees.stages import Thresholds, path_operations
from shared.errors import UsageError
from tests.multipath.trees import toy

IMAGES = 60


@pytest.fixture(scope="module")
def chain():
    net = toy.network()
    return net, toy.variables(net, seed=2)


@pytest.fixture(scope="module")
def valid():
    images, targets = toy.images(IMAGES)
    return images, np.asarray(targets).argmax(-1)


def evidence(seed, images=14):
    """Make up decisions of the chain's two switches."""
    plan, rng = layout(toy.network().root), np.random.default_rng(seed)
    onward = [[plan.sinks[i][1]] * images for i in plan.switches]
    return budgets.Evidence(
        correct=rng.random((3, images)) < np.array([[0.4], [0.6], [0.9]]),
        sure=np.round(rng.random((2, images)), 1),
        onward=np.array(onward),
        costs=np.array([1.0, 2.5, 6.0]),
    )


@pytest.mark.parametrize("seed", range(3))
def test_nothing_within_the_budget_is_better(seed):
    plan, found = layout(toy.network().root), evidence(seed)
    levels = [*np.unique(found.sure), budgets.NEVER]
    every = [
        budgets.outcome(plan, found, np.array(pair))
        for pair in itertools.product(levels, levels)
    ]
    for budget in (1.7, 2.5, 4.0):
        best = max(accuracy for accuracy, cost in every if cost <= budget)
        chosen = budgets.best(plan, found, "confidence", budget)
        assert chosen.cost <= budget
        assert chosen.accuracy == pytest.approx(best)


@pytest.mark.parametrize(
    "topology, rule", [("chain", "confidence"), ("tree", "margin")]
)
def test_the_promise_is_kept_on_the_images_it_was_made_for(valid, topology, rule):
    net = toy.network(topology=topology)
    variables, images = toy.variables(net, seed=2), valid[0]
    never = Thresholds(rule, (budgets.NEVER,) * len(layout(net.root).switches))
    # What the ends of the longest ways say: stopping can only make it worse.
    labels = inference.make_predict(net, variables, thresholds=never)(images).labels
    costs = path_operations(net, rule)
    accuracies = []
    for share in (0.0, 0.3, 1.0):
        budget = float(costs.min() + share * np.ptp(costs))
        found = anytime.calibrate(
            net, variables, images, labels, budget=budget, rule=rule
        )
        predict = inference.make_predict(net, variables, thresholds=found.thresholds)
        answer = predict(images)
        assert answer.operations.mean() == pytest.approx(found.cost)
        assert np.mean(answer.labels == labels) == pytest.approx(found.accuracy)
        assert found.cost <= budget
        accuracies.append(found.accuracy)
    assert accuracies == sorted(accuracies)
    assert accuracies[0] < accuracies[-1] == 1


def test_a_budget_below_the_cheapest_way_is_refused_before_anything_runs(chain, valid):
    net, variables = chain
    least = path_operations(net, "confidence").min()
    with pytest.raises(UsageError, match=f"budget: .* at least {least} operations"):
        anytime.calibrate(net, variables, *valid, budget=float(least) - 1)
    with pytest.raises(UsageError, match="^budget: "):
        anytime.calibrate(net, variables, *valid, budget=float("nan"))


def test_routers_without_a_cheap_way_are_told(chain):
    plan, found = layout(chain[0].root), evidence(0)
    with pytest.raises(UsageError, match="^budget: "):
        budgets.best(plan, found, "confidence", 0.9)


def test_milliseconds_add_up_along_the_way(chain, valid):
    net, variables = chain
    images, labels = np.asarray(valid[0]), valid[1]
    costs = anytime.path_milliseconds(net, variables, images, "confidence", repeats=2)
    assert costs[0] > 0
    assert np.all(np.diff(costs) > 0)
    budget = 1e3
    found = anytime.calibrate(
        net, variables, images, labels, budget=budget, unit="milliseconds"
    )
    free = anytime.calibrate(net, variables, images, labels, budget=1e12)
    assert found.accuracy == free.accuracy
    assert 0 < found.cost < budget
    with pytest.raises(UsageError, match="milliseconds"):
        anytime.calibrate(
            net, variables, images, labels, budget=1e-6, unit="milliseconds"
        )


def test_a_budget_may_be_any_kind_of_number(chain, valid):
    net, variables = chain
    least = path_operations(net, "confidence").min()
    found = anytime.calibrate(net, variables, *valid, budget=least)
    assert found.cost == least


def test_each_image_may_have_a_price_of_its_own(valid):
    net = toy.network(dyn_k_cpt=True)
    prices = np.linspace(0, 1e-7, IMAGES)
    told = {"unit": "milliseconds", "budget": 1e3, "batch": 7, "k_cpt": prices}
    assert anytime.calibrate(net, toy.variables(net), *valid, **told).cost > 0


def test_prices_reach_the_routers(valid):
    net = toy.network(dyn_k_cpt=True)
    variables, (images, labels) = toy.variables(net), valid
    told = {"rule": "margin", "budget": 1e9}
    found = anytime.calibrate(net, variables, images, labels, k_cpt=1e-7, **told)
    predict = inference.make_predict(net, variables, thresholds=found.thresholds)
    answer = predict(images, 1e-7)
    assert np.mean(answer.labels == labels) == pytest.approx(found.accuracy)
    with pytest.raises(UsageError, match="^k_cpt: "):
        anytime.calibrate(net, variables, images, labels, **told)


def undecided():
    """Return a net whose switch leads to no classifier at once."""
    net = toy.network()
    static = toy.network("sr", depth=2).root.sinks[0].sinks[0]
    switch = dataclasses.replace(net.root.sinks[0], sinks=(static, static))
    return dataclasses.replace(net, root=graph.Node("in", net.root.chain, (switch,)))


@pytest.mark.parametrize(
    "change, argument",
    [
        ({"unit": "joules"}, "unit"),
        ({"rule": "luck"}, "rule"),
        ({"labels": np.zeros(1, int)}, "images"),
        ({"net": toy.network(family="sr")}, "net"),
        ({"net": undecided()}, "net"),
        ({"batch": 0}, "batch"),
        ({"budget": "1e9"}, "budget"),
        ({"labels": np.eye(toy.CLASSES)[np.zeros(IMAGES, int)]}, "labels"),
        ({"labels": np.full(IMAGES, toy.CLASSES)}, "labels"),
        ({"labels": np.zeros(IMAGES)}, "labels"),
        ({"images": np.zeros((IMAGES, 4, 4, 3))}, "images"),
        ({"net": toy.network(dyn_k_cpt=True), "k_cpt": -1e-9}, "k_cpt"),
    ],
)
def test_wrong_use_is_told(chain, valid, change, argument):
    net, variables = chain
    asked = {"net": net, "images": valid[0], "labels": valid[1], "budget": 1e9}
    asked |= {"variables": variables, **change}
    with pytest.raises(UsageError, match=f"^{argument}: "):
        anytime.calibrate(**asked)
