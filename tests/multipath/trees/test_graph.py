"""Topologies, numbering, and the counts that the paper's networks must have."""

import dataclasses

import jax
import numpy as np
import pytest

from multipath.trees import graph, kinds
from multipath.trees import net as networks
from shared.errors import UsageError

BLOCKS = graph.Blocks(classes=10)
IMAGE = (32, 32, 3)
LEAVING = (
    *(1_368_608, 5_280_576, 7_577_184, 11_419_520),
    *(13_505_696, 17_061_312, 18_284_256, 20_643_552),
)


def _net(family, root, **options):
    return networks.Net(family, root, IMAGE, 10, **options)


def _trainable(net):
    tree = jax.eval_shape(lambda: networks.init(jax.random.key(0), net))
    return sum(leaf.size for leaf in jax.tree.leaves(tree.params))


def _paths_cost(net):
    """Return the operations of an image that leaves at each leaf."""
    plan, count = graph.layout(net.root), sum(networks.operations(net))
    costs = []
    for leaf in plan.leaves:
        total, node = 0, leaf
        while node >= 0:
            total, node = total + count[node], plan.parents[node]
        costs.append(total)
    return costs


def test_leaving_the_chain_costs_what_the_paper_counts():
    net = _net("actor", graph.dr_chain(BLOCKS))
    assert _paths_cost(net) == list(LEAVING)


def test_prices_as_inputs_cost_sixteen_operations_a_router():
    static = _net("actor", graph.dr_chain(BLOCKS))
    dynamic = _net("actor", static.root, dyn_k_cpt=True)
    gap = networks.operations(dynamic)[1] - networks.operations(static)[1]
    switches = list(graph.layout(static.root).switches)
    assert set(gap[switches]) == {16} and gap.sum() == 16 * 7


@pytest.mark.parametrize(
    ("depth", "total"), [(1, 1_364_224), (4, 11_393_792), (8, 20_551_424)]
)
def test_static_nets_have_the_published_operations(depth, total):
    assert sum(sum(networks.operations(_net("sr", graph.sr_chain(BLOCKS, depth))))) == (
        total
    )


def test_the_tree_has_the_published_size():
    net = _net("actor", graph.dr_tree(BLOCKS))
    plan = graph.layout(net.root)
    three_way = [i for i in plan.switches if len(plan.sinks[i]) == 3]
    assert (len(plan.nodes), len(plan.leaves)) == (95, 47)
    assert (len(plan.switches), len(three_way)) == (39, 7)
    assert [int(sum(part)) for part in networks.operations(net)] == (
        [122_688_768, 646_224]
    )
    assert _trainable(net) == 5_010_075


def test_parameters_are_as_many_as_published():
    chain = graph.dr_chain(BLOCKS)
    assert _trainable(_net("sr", graph.sr_chain(BLOCKS, 8))) == 531_594
    assert _trainable(_net("critic", chain)) == 680_798
    assert _trainable(_net("critic", chain, dyn_k_cpt=True)) == 680_910


def test_width_multiplies_channels():
    assert graph.widened(((16, 8), (4,)), 3) == ((48, 24), (12,))


def test_nodes_are_numbered_in_pre_order_with_classifiers_first():
    plan = graph.layout(graph.dr_tree(BLOCKS))
    assert plan.parents[0] == -1 and plan.paths[:3] == ("root", "root.s0", "root.s0.s0")
    for node, sinks in enumerate(plan.sinks):
        assert all(plan.parents[sink] == node for sink in sinks)
        if plan.nodes[node].name == "ReConvMax":
            assert plan.nodes[sinks[0]].name == "LogReg"
            assert sinks[0] == node + 1
    assert plan.leaf_counts[0] == len(plan.leaves)


def test_equal_nodes_of_one_depth_are_one_group():
    plan = graph.layout(graph.dr_tree(BLOCKS))
    widths = [len(g.members) for g in plan.groups if g.node.name == "ReConvMax"]
    assert widths == [1, 2, 4, 8, 8, 8, 8, 8]
    for number, (group, place) in enumerate(plan.grouped):
        assert plan.groups[group].members[place] == number
        parent = plan.groups[group].parent
        if parent >= 0:
            source = plan.groups[group].sources[place]
            assert plan.groups[parent].members[source] == plan.parents[number]


def test_a_switch_needs_a_router_and_nothing_else_has_one():
    leaf = graph.Node("LogReg", kinds.Chain((kinds.NoOp(),)))
    with pytest.raises(UsageError, match="router: got None, expected one for the 2"):
        graph.Node("ReConvMax", kinds.Chain(), (leaf, leaf))
    with pytest.raises(UsageError, match="router: .*none for a node of 1 sinks"):
        graph.Node("ReConvMax", kinds.Chain(), (leaf,), kinds.Chain())


def test_a_router_has_a_score_for_each_sink():
    leaf = graph.Node("LogReg", kinds.Chain((kinds.NoOp(),)))
    router = kinds.Chain((kinds.Chain((kinds.LinTrans(3),)), kinds.Rect()))
    with pytest.raises(UsageError, match="router: got '3 scores', expected 2, one"):
        graph.Node("ReConvMax", kinds.Chain(), (leaf, leaf), router)


@pytest.mark.parametrize("arch", [(), ((2,), (2, 2)), ((2,), ())])
def test_scales_never_grow(arch):
    with pytest.raises(UsageError, match="arch: "):
        graph.Blocks(classes=3, arch=arch)


def test_images_must_halve_as_often_as_there_are_scales():
    with pytest.raises(UsageError, match="image: got '28 x 30', .*divisible by 8"):
        networks.Net("actor", graph.dr_chain(BLOCKS), (28, 30, 3), 10)


def test_a_pyramid_within_a_chain_halves_too():
    root = graph.dr_chain(BLOCKS)
    inner = dataclasses.replace(root, chain=kinds.Chain((kinds.NoOp(), root.chain)))
    with pytest.raises(UsageError, match="image: got '28 x 30', .*divisible by 8"):
        networks.Net("actor", inner, (28, 30, 3), 10)


def test_a_static_net_has_no_switch():
    with pytest.raises(UsageError, match="family: got 'sr', .*7 switches"):
        _net("sr", graph.dr_chain(BLOCKS))


def test_a_net_without_switches_has_nothing_to_learn_of_routing():
    with pytest.raises(UsageError, match="family: got 'critic', expected sr"):
        _net("critic", graph.sr_chain(BLOCKS, 2))


def test_counts_are_whole_numbers_by_node():
    nodes, routers = networks.operations(_net("actor", graph.dr_chain(BLOCKS)))
    assert nodes.dtype == routers.dtype == np.dtype(int)
    assert (routers > 0).sum() == 7
