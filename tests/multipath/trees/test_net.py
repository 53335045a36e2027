"""Properties of a whole pass: schedules, dead scales, prices, the first policy."""

import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from multipath.trees import forward, graph, policy, statistics
from multipath.trees import net as networks
from multipath.trees.graph import layout
from shared.errors import UsageError
from tests.multipath.trees import toy
from tests.quick import quick

TREE = toy.network(topology="tree")
DYNAMIC = toy.network(dyn_k_cpt=True)


@functools.lru_cache
def _program(net, how, train):
    run = lambda tree, x, y, k: forward.apply(
        net, *tree, x, y=y, train=train, k_cpt=k, alpha_cpt=1e4, how=how
    )
    return quick(run)


def _run(net, tree, x, y, *, k_cpt=0.0, how="auto", train=False):
    return _program(net, how, train)(tree, x, y, jnp.asarray(k_cpt))


@pytest.fixture(scope="module")
def batch():
    return toy.images()


@pytest.mark.parametrize("train", [False, True])
def test_convolving_in_turn_or_as_one_is_the_same(batch, train):
    tree = toy.variables(TREE)
    loop, vmap = (
        _run(TREE, tree, *batch, how=h, train=train) for h in ("loop", "vmap")
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5), loop, vmap
    )


def test_members_of_a_group_have_weights_of_their_own(batch):
    tree = toy.variables(TREE)
    record, _ = _run(TREE, tree, *batch)
    plan = layout(TREE.root)
    # The first leaf aside, leaves come in pairs of equal kind.
    depths = [plan.paths[i].count(".") for i in plan.leaves]
    twins = [i for i, depth in enumerate(depths) if depths.count(depth) == 2][:2]
    a, b = record.probabilities[jnp.array(twins)]
    assert float(jnp.max(jnp.abs(a - b))) > 1e-3


def test_what_nothing_reads_is_not_normalised(batch):
    tree = toy.variables(DYNAMIC)
    _, state = _run(DYNAMIC, tree, *batch, train=True)
    plan = layout(DYNAMIC.root)
    # The second transformation has two scales, the third reads one.
    second = next(p for p in plan.paths if p.endswith("s0.s1"))
    new, old = state[second]["c1"], tree.state[second]["c1"]
    np.testing.assert_array_equal(new["c0"]["m_avg"], old["c0"]["m_avg"])
    assert float(jnp.max(jnp.abs(new["c1"]["m_avg"] - old["c1"]["m_avg"]))) > 1e-3


def test_evaluation_leaves_the_running_statistics_alone(batch):
    tree = toy.variables(TREE)
    _, state = _run(TREE, tree, *batch)
    jax.tree.map(np.testing.assert_array_equal, state, tree.state)


def test_a_price_moves_routers_in_evaluation_and_not_in_training(batch):
    tree = toy.variables(DYNAMIC)
    ev, tr = (
        [_run(DYNAMIC, tree, *batch, k_cpt=k, train=t)[0].scores for k in (0.0, 1e-4)]
        for t in (False, True)
    )
    assert float(jnp.max(jnp.abs(ev[0] - ev[1]))) > 1e-3
    # Batch normalisation takes out what all images share.
    np.testing.assert_allclose(*tr, atol=1e-4)


def test_a_constant_price_is_a_shift_of_the_first_router_bias(batch):
    static = toy.network()
    tree = toy.variables(DYNAMIC)
    k_cpt, alpha = 1e-4, 1e4
    nodes = networks.node_variables(DYNAMIC, tree)
    for own in nodes.values():
        if "r" not in own.params:
            continue
        first = own.params["r"]["c1"]
        first["b"] = first["b"] + alpha * k_cpt * first["w"][-1]
        first["w"] = first["w"][:-1]
    expected, _ = _run(static, networks.from_node_variables(static, nodes), *batch)
    found, _ = _run(DYNAMIC, tree, *batch, k_cpt=k_cpt)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4, atol=1e-5)


def test_the_first_policy_halves_at_each_switch_and_stops_first(batch):
    net = toy.network()
    tree = quick(lambda: networks.init(jax.random.key(0), net))()
    record, _ = _run(net, tree, *batch)
    plan = layout(net.root)
    np.testing.assert_array_equal(record.scores, 0)
    reach = policy.reach(plan, record.scores, 1.0, 0.0, batch=6)
    p = reach.p[np.array(plan.leaves)][:, 0]
    np.testing.assert_allclose(p, [0.5, 0.25, 0.25])
    found = statistics.means(net, record, reach, batch[1])
    first = np.mean(record.correct[0])
    assert float(found["accuracy"]) == pytest.approx(first)


def test_published_chain_begins_with_the_cheapest_path():
    blocks = graph.Blocks(classes=10)
    net = networks.Net("actor", graph.dr_chain(blocks), (32, 32, 3), 10)
    plan, count = layout(net.root), sum(networks.operations(net))
    scores = jnp.zeros((len(plan.switches), 1, plan.max_sinks))
    q = policy.reach(plan, scores, 1.0, 0.0, batch=1).q
    assert float(jnp.sum(q[:, 0] * count)) == 1_368_608


def test_weights_begin_with_the_spread_of_their_inputs():
    blocks = graph.Blocks(classes=10, sigma_w=2.0)
    net = networks.Net("actor", graph.dr_chain(blocks), (32, 32, 3), 10)
    params = quick(lambda: networks.init(jax.random.key(0), net))().params
    last = next(v for k, v in params.items() if k.count(".s1") == 7)
    kernel = last["c0"]["w_horz_0"]
    expected = 2 / (3 * np.sqrt(kernel.shape[-2]))
    assert float(jnp.std(kernel)) == pytest.approx(expected, rel=0.01)
    assert not np.any(params["root.s0"]["r"]["c7"]["w"])
    assert not np.any(last["c0"]["b_0"])


def test_node_variables_come_back_whole():
    tree = toy.variables(TREE)
    again = networks.from_node_variables(TREE, networks.node_variables(TREE, tree))
    jax.tree.map(np.testing.assert_array_equal, tree, again)


@pytest.mark.parametrize(
    ("images", "one", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.uint8), False, "'uint8', expected an array of fl"),
        ([[0.5]], False, "'list', expected an array of floats"),
        (np.zeros((2, 8, 4, 3)), False, "'2 x 8 x 4 x 3', expected a batch x 8 x 8 x"),
        (np.zeros((8, 8, 3)), False, "'8 x 8 x 3', expected a batch x 8 x 8 x 3"),
        (np.zeros((1, 8, 8, 3)), True, "'1 x 8 x 8 x 3', expected one of 8 x 8 x 3"),
    ],
)
def test_what_are_no_images_of_the_net_is_refused(images, one, message):
    with pytest.raises(UsageError, match=f"^images: got {message}"):
        networks.check_images(TREE, images, one=one)


def test_a_pass_takes_images_of_the_net_alone(batch):
    for images in (batch[0][:, :4], (255 * batch[0]).astype(jnp.uint8)):
        with pytest.raises(UsageError, match="^images: "):
            forward.apply(TREE, *toy.variables(TREE), images)


def test_a_dynamic_net_needs_prices(batch):
    with pytest.raises(UsageError, match="k_cpt: got None"):
        forward.apply(DYNAMIC, *toy.variables(DYNAMIC), batch[0])
    with pytest.raises(UsageError, match="k_cpt: got -1.0"):
        forward.apply(DYNAMIC, *toy.variables(DYNAMIC), batch[0], k_cpt=jnp.float32(-1))
