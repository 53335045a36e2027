"""Skipping layers changes nothing but the time."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from multipath.trees import compaction, forward, graph, inference, kinds, policy
from multipath.trees import net as networks
from multipath.trees.graph import layout
from multipath.trees.stages import Thresholds, path_operations, stages
from shared.errors import UsageError
from tests.multipath.trees import toy
from tests.quick import quick

BATCH = 21
NETS = {
    "sr": (0, dict(family="sr")),
    "chain": (3, dict()),
    "tree": (5, dict(family="critic", topology="tree")),
    "dynamic tree": (4, dict(topology="tree", dyn_k_cpt=True)),
}
"""Networks, with seeds by which every leaf gets images."""


class Case:
    """A network whose routes all carry images, and what every node says of them."""

    def __init__(self, name):
        seed, options = NETS[name]
        self.net = toy.network(**options)
        self.plan = layout(self.net.root)
        self.images, self.targets = toy.images(BATCH)
        self.k_cpt = jnp.linspace(0, 1e-7, BATCH) if self.net.dyn_k_cpt else None
        self.variables = centred(self, toy.variables(self.net, seed))
        self.record = self.everything(self.variables)

    def everything(self, variables):
        run = lambda v, x: forward.apply(self.net, *v, x, k_cpt=self.k_cpt)[0]
        return jax.jit(run)(tuple(variables), self.images)


def centred(case, variables):
    """Move the scores so that every sink is the best one of some images."""
    if not case.plan.switches:
        return variables
    nodes = networks.node_variables(case.net, variables)
    means = np.asarray(case.everything(variables).scores).mean(1)
    for place, switch in enumerate(case.plan.switches):
        path, sinks = case.plan.paths[switch], len(case.plan.sinks[switch])
        last = nodes[path].params["r"]["c7"]
        last["b"] = last["b"] - means[place, :sinks]
    return networks.from_node_variables(case.net, nodes)


@pytest.fixture(scope="module")
def cases():
    return functools.cache(Case)


def sure(case, rule, place, image):
    """Return what a rule compares to the threshold of a switch."""
    sinks = case.plan.sinks[case.plan.switches[place]]
    if rule == "confidence":
        leaf = case.plan.leaves.index(sinks[0])
        return np.asarray(case.record.probabilities)[leaf, image].max()
    scores = np.asarray(case.record.scores)[place, image, : len(sinks)]
    return scores[0] - scores[1:].max()


def median(case, rule):
    """Return thresholds that stop half of the images that come."""
    middle = lambda place: np.mean(
        np.sort([sure(case, rule, place, image) for image in range(BATCH)])[10:12]
    )
    values = tuple(float(middle(i)) for i in range(len(case.plan.switches)))
    return Thresholds(rule, values)


def way(case, thresholds, image):
    """Return the nodes that an image takes, by the record of all nodes."""
    plan, node, taken = case.plan, 0, []
    while plan.sinks[node]:
        taken.append(node)
        sinks, position = plan.sinks[node], 0
        if len(sinks) > 1:
            place = plan.switches.index(node)
            scores = np.asarray(case.record.scores)[place, image, : len(sinks)]
            position = int(scores.argmax())
            if thresholds is not None:
                best = int(scores[1:].argmax()) + 1
                stops = sure(case, thresholds.rule, place, image)
                position = best * int(stops < thresholds.values[place])
        node = sinks[position]
    return [*taken, node]


@pytest.mark.parametrize("name", NETS)
def test_a_batch_gets_what_the_greedy_policy_says(cases, name):
    case = cases(name)
    plan, record = case.plan, case.record
    if plan.switches:
        q = np.asarray(policy.reach(plan, record.scores, 1.0, 0.0, batch=BATCH).q)
        assert q[list(plan.leaves)].sum(1).min() > 0
    else:
        q = np.ones((len(plan.nodes), BATCH))
    here = q[list(plan.leaves)]
    answer = inference.make_predict(case.net, case.variables)(case.images, case.k_cpt)
    wanted = np.einsum("lb,lbc->bc", here, record.probabilities)
    np.testing.assert_allclose(answer.probabilities, wanted, atol=1e-5)
    np.testing.assert_array_equal(answer.labels, wanted.argmax(-1))
    np.testing.assert_array_equal(answer.leaves, here.argmax(0))
    spent = sum(networks.operations(case.net)) @ q
    np.testing.assert_array_equal(answer.operations, spent)


@pytest.mark.parametrize(
    "name, rule", [("chain", None), ("dynamic tree", None), ("tree", "confidence")]
)
def test_one_image_goes_the_way_that_it_goes_in_a_batch(cases, name, rule):
    case = cases(name)
    thresholds = median(case, rule) if rule else None
    predict = inference.make_predict(case.net, case.variables, thresholds=thresholds)
    batch = predict(case.images, case.k_cpt)
    one = jax.jit(
        lambda variables, image, k_cpt: inference.predict_one(
            case.net, variables, image, k_cpt=k_cpt, thresholds=thresholds
        )
    )
    assert len(set(batch.leaves)) > 1
    for i in range(BATCH):
        price = None if case.k_cpt is None else case.k_cpt[i]
        answer = one(case.variables, case.images[i], price)
        assert (answer.leaves, answer.operations) == (
            batch.leaves[i],
            batch.operations[i],
        )
        np.testing.assert_allclose(
            answer.probabilities, batch.probabilities[i], atol=1e-5
        )


@pytest.mark.parametrize("rule", ["confidence", "margin"])
@pytest.mark.parametrize("name", ["chain", "tree"])
def test_thresholds_stop_images_that_are_sure(cases, name, rule):
    case = cases(name)
    thresholds = median(case, rule)
    predict = inference.make_predict(case.net, case.variables, thresholds=thresholds)
    answer = predict(case.images)
    ways = [way(case, thresholds, image) for image in range(BATCH)]
    ends = [case.plan.leaves.index(taken[-1]) for taken in ways]
    np.testing.assert_array_equal(answer.leaves, ends)
    probabilities = np.asarray(case.record.probabilities)[ends, np.arange(BATCH)]
    np.testing.assert_allclose(answer.probabilities, probabilities, atol=1e-5)
    assert 1 < len(set(ends))


def test_a_margin_of_zero_is_the_policy_of_the_routers(cases):
    case = cases("tree")
    zeros = Thresholds("margin", (0.0,) * len(case.plan.switches))
    ways = [way(case, zeros, image)[-1] for image in range(BATCH)]
    assert ways == [way(case, None, image)[-1] for image in range(BATCH)]


def test_confidence_pays_for_the_classifiers_that_it_asks(cases):
    net, plan = cases("chain").net, cases("chain").plan
    nodes, routers = networks.operations(net)
    by_name = lambda name: [i for i in range(len(nodes)) if plan.nodes[i].name == name]
    blocks, leaves = by_name("ReConvMax"), by_name("LogReg")
    cost = np.cumsum(nodes[blocks] + nodes[leaves])
    np.testing.assert_array_equal(path_operations(net, "confidence"), cost)
    policy_cost = np.cumsum(nodes[blocks] + routers[blocks]) + nodes[leaves]
    np.testing.assert_array_equal(path_operations(net), policy_cost)


def biased(case, position):
    """Send all images to one sink of every switch."""
    nodes = networks.node_variables(case.net, case.variables)
    for switch in case.plan.switches:
        last = nodes[case.plan.paths[switch]].params["r"]["c7"]
        last["b"] = last["b"].at[position].set(1e4)
    return networks.from_node_variables(case.net, nodes)


@pytest.mark.parametrize("how", ["host", "device"])
@pytest.mark.parametrize("position, leaf", [(0, 0), (1, 2)])
def test_all_images_may_take_one_way(cases, how, position, leaf):
    case = cases("chain")
    variables = biased(case, position)
    answer = inference.make_predict(case.net, variables, how=how)(case.images)
    assert set(answer.leaves) == {leaf}
    wanted = case.everything(variables).probabilities[leaf]
    np.testing.assert_allclose(answer.probabilities, wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["chain", "dynamic tree"])
def test_blocks_and_the_place_of_moving_change_nothing(cases, name):
    case = cases(name)
    make = functools.partial(inference.make_predict, case.net, case.variables)
    whole = make(how="host")(case.images, case.k_cpt)
    parts = make(how="device", block=8)(np.asarray(case.images), case.k_cpt)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def predicted(case, images, k_cpt):
    return inference.make_predict(case.net, case.variables)(images, k_cpt)


def one(case, image, k_cpt):
    return inference.predict_one(case.net, case.variables, image, k_cpt=k_cpt)


def test_no_images_get_no_answers(cases):
    case = cases("chain")
    answer = inference.make_predict(case.net, case.variables)(case.images[:0])
    assert answer.probabilities.shape == (0, toy.CLASSES)
    assert answer.operations.shape == (0,)


def test_layers_run_on_the_images_that_reach_them(cases):
    case = cases("tree")
    q = policy.reach(case.plan, case.record.scores, 1.0, 0.0, batch=BATCH).q
    levels, seen = np.zeros(len(case.plan.nodes)), {}
    tasks = compaction.make_tasks(case.net, case.variables, None, levels, "host")

    def counted(key, task):
        def run(pieces):
            pieces = pieces._replace(signals=list(pieces.signals))
            sizes = [len(signal[0][-1]) for signal in pieces.signals]
            assert sum(sizes) < sum(pieces.counts) + compaction.STEP
            number, member = key
            for level in stages(case.net.root)[number].members:
                seen[level[member]] = sum(pieces.counts)
            return task.run(pieces)

        return task._replace(run=run)

    tasks = {key: counted(key, task) for key, task in tasks.items()}
    x = np.asarray(case.images), None
    compaction.run_tasks(case.net, tasks, x, "host")
    reached = np.asarray(q).sum(1)
    assert seen == {i: n for i, n in enumerate(reached) if n}
    assert len(set(reached)) > 2


def test_equal_branches_are_one_program(cases):
    found = stages(cases("tree").net.root)
    numbers = sorted(i for stage in found for level in stage.members for i in level)
    assert numbers == list(range(len(cases("tree").plan.nodes)))
    assert max(len(stage.members[0]) for stage in found) == 2


@pytest.mark.parametrize("limit", [16, 64, None])
def test_few_sizes_hold_all_counts(limit):
    counts = range(1, (limit or 512) + 1)
    sizes = [compaction.padded(count, limit) for count in counts]
    assert all(size >= count for size, count in zip(sizes, counts, strict=True))
    assert len(set(sizes)) <= 11


def test_pieces_keep_the_order_of_images():
    signal = np.arange(40.0).reshape(20, 2)
    source = compaction.Pieces([(signal[:8], None), (signal[8:], None)], [7, 12])
    rows = np.array([0, 6, 7, 8, 18])
    for how in ("host", "device"):
        pieces = compaction.gather(source, rows, 4, how)
        kept = [np.asarray(own[0])[:count] for own, count in zip(*pieces, strict=True)]
        wanted = np.concatenate([signal[:7], signal[8:]])[rows]
        np.testing.assert_array_equal(np.concatenate(kept), wanted)


@pytest.mark.parametrize("how, limit", [("host", 8), ("device", None)])
def test_pieces_that_all_go_on_stay_where_they_are(how, limit):
    signals = [(np.zeros((8, 2)), None)] * (2 if limit else 1)
    source = compaction.Pieces(signals, [8, 8] if limit else [8])
    every = np.arange(sum(source.counts))
    assert compaction.gather(source, every, limit, how) is source
    assert compaction.gather(source, every[1:], limit, how) is not source


def test_a_leaf_may_tell_fewer_classes_than_others():
    net = toy.network(arch=((2, 2), (3,)))
    first = net.root.sinks[0]
    few = kinds.Chain((kinds.Select(-1), kinds.LinTrans(2), kinds.Softmax()))
    first = dataclasses.replace(
        first, sinks=(graph.Node("LogReg", few), *first.sinks[1:])
    )
    root = dataclasses.replace(net.root, sinks=(first,))
    net = dataclasses.replace(net, root=root)
    variables, (images, _) = toy.variables(net, 1), toy.images(8)
    record = quick(lambda v, x: forward.apply(net, *v, x)[0])(tuple(variables), images)
    middle = float(np.median(np.asarray(record.probabilities[0]).max(-1)))
    told = {"thresholds": Thresholds("confidence", (middle,))}
    answer = inference.make_predict(net, variables, **told)(images)
    assert set(answer.leaves) == {0, 1}
    wanted = np.asarray(record.probabilities)[answer.leaves, np.arange(8)]
    np.testing.assert_allclose(answer.probabilities, wanted, atol=1e-5)
    image = images[np.flatnonzero(answer.leaves == 0)[0]]
    run = quick(lambda v, x: inference.predict_one(net, v, x, **told))
    probabilities = run(variables, image).probabilities
    assert probabilities.shape == (3,) and probabilities[2] == 0


def test_double_precision_stays():
    with jax.enable_x64(True):
        net = toy.network()
        variables, images = toy.variables(net), toy.images(3)[0]
        answer = inference.make_predict(net, variables)(images)
        assert answer.probabilities.dtype == np.float64


@pytest.mark.parametrize(
    "act, argument",
    [
        (lambda c: inference.make_predict(c.net, c.variables, how="cloud"), "how"),
        (lambda c: inference.make_predict(c.net, c.variables, block=0), "block"),
        (lambda c: inference.make_predict(c.net, c.variables)(c.images), "k_cpt"),
        (
            lambda c: inference.predict_one(c.net, c.variables, c.images[0]),
            "k_cpt",
        ),
        (lambda c: predicted(c, c.images, -1e-9), "k_cpt"),
        (lambda c: predicted(c, c.images, np.zeros(2)), "k_cpt"),
        (lambda c: predicted(c, np.zeros((2, 8, 8, 3), np.uint8), 0.0), "images"),
        (lambda c: predicted(c, np.zeros((2, 8, 16, 3)), 0.0), "images"),
        (lambda c: one(c, c.images[0], -1.0), "k_cpt"),
        (lambda c: one(c, jnp.zeros((8, 8, 3), int), 0.0), "images"),
        (lambda c: one(c, c.images[0, :, :4], 0.0), "images"),
        (
            lambda c: inference.make_predict(
                c.net, c.variables, thresholds=Thresholds("margin", (0.5,))
            ),
            "thresholds",
        ),
        (lambda c: Thresholds("luck", (0.5,)), "rule"),
    ],
)
def test_wrong_use_is_told(cases, act, argument):
    with pytest.raises(UsageError, match=f"^{argument}: "):
        act(cases("dynamic tree"))
