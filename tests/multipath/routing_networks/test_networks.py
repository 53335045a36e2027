"""Networks: sizes, who decides, what depends on what, and bad input."""

import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from multipath.routing_networks import algorithms, losses, network, networks
from multipath.routing_networks import trajectory as trajectories
from multipath.routing_networks.config import Config
from multipath.routing_networks.decision import Decision
from shared.errors import UsageError
from shared.model import Variables
from tests.multipath.routing_networks.drawing import drawn
from tests.quick import quick

TASKS, FEATURES, OUTPUTS = 3, 6, 2
ROUTED = ("routed_all_fc", "dispatched", "per_decision_single_agent", "paper_large")
IMAGE = (16, 16, 1)


@functools.cache
def build(model, shape=(FEATURES,), tasks=TASKS, outputs=OUTPUTS, **options):
    options = {"width": 5, "depth": 2, "algorithm": "reinforce", **options}
    if model not in ROUTED:
        options["algorithm"] = ""
    return networks.build(Config(model=model, **options), shape, outputs, tasks)


def shapes(net, rows=6, shape=(FEATURES,), **options):
    """Return variables and what a pass gives, in shapes."""

    def run(key):
        variables = net.init(key)
        tasks = jnp.arange(rows, dtype=jnp.int32) % TASKS
        x = jnp.ones((rows, *shape), jnp.result_type(float))
        return variables, net.apply(variables, x, tasks, key=key, **options)

    return jax.eval_shape(run, jax.random.key(0))


def close(a, b, **options):
    options = {"rtol": 2e-5, "atol": 2e-6, **options}
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **options), a, b)


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(2)
    x = random.normal(size=(8, FEATURES)).astype(np.float32)
    tasks = np.array([0, 2, 1, 0, 2, 2, 1, 0], np.int32)
    return x, tasks, random.normal(size=(8, OUTPUTS)).astype(np.float32)


@functools.cache
def program(net):
    def loss(params, state, x, tasks, y, forced):
        variables = Variables(params, state)
        # Gumbel draws numbers whatever the actions.
        options = {"train": True, "key": jax.random.key(0), "forced": forced}
        out, record, _ = net.apply(variables, x, tasks, **options)
        got = losses.total(params["routing"], record, out, y)
        return jnp.mean(got.module) + jnp.mean(got.routing), out

    return quick(jax.grad(loss, has_aux=True))


def run(net, variables, x, tasks, y, forced=None):
    """Return the outputs and gradients of a pass with known actions."""
    grads, out = program(net)(*variables, x, tasks, y, forced)
    return np.asarray(out), jax.tree.map(np.asarray, grads)


@pytest.mark.parametrize(
    ("algorithm", "values"), [("reinforce", 0), ("actor_critic", 1200), ("aac", 60)]
)
def test_a_routed_network_has_the_parameters_it_uses(algorithm, values):
    options = {"algorithm": algorithm, "depth": 3, "width": 48}
    net = build("routed_all_fc", (32, 32, 3), 20, 5, **options)
    params = jax.eval_shape(net.init, jax.random.key(0)).params
    layers = 123_840 + 47_040 + 4_900
    assert network.sizes(params) == {
        "routing": 3 * 400 + values,
        "modules": 28_704 + layers,
    }


@pytest.mark.parametrize("model", networks.MODELS)
def test_every_network_keeps_its_form(model):
    net = build(model)
    variables, (out, record, state) = shapes(net, train=True)
    assert out.shape == (6, OUTPUTS) and out.dtype == jnp.float32
    assert set(variables.params) == {"routing", "modules"}
    like = lambda tree: jax.tree.map(lambda a: (a.shape, a.dtype), tree)
    assert like(state) == like(variables.state)
    decisions = [steps.decision for steps in record.steps]
    assert tuple(decisions) == net.decisions
    assert len(decisions) == (model in ROUTED) * (2 + (model == "dispatched"))
    if decisions:
        assert set(variables.params["routing"]) == {d.name for d in decisions}


def test_images_are_normalised_by_the_trunk_and_all_is_double():
    net = build("dispatched", IMAGE, depth=1, algorithm="aac")
    with jax.enable_x64(True):
        variables, (out, _, state) = shapes(net, shape=IMAGE, train=True)
    leaves = jax.tree.leaves((variables.params, out, state["trunk"]))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float64")}
    assert set(variables.state["trunk"]) == {"mean", "var", "count"}


@pytest.mark.parametrize("algorithm", sorted(algorithms.ALGORITHMS))
def test_every_algorithm_fits(algorithm):
    # A function of the input and a table.
    net = build("dispatched", depth=1, algorithm=algorithm)
    variables, (_, record, state) = shapes(net, train=True)
    routed = lambda p, t: losses.routing_loss(p, t, jnp.zeros(6)).memory
    after = jax.eval_shape(routed, variables.params["routing"], record)
    like = lambda tree: jax.tree.map(lambda a: (a.shape, a.dtype), tree)
    assert like(after) == like(state["memory"]) == like(variables.state["memory"])


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("dispatched", {}),
        ("per_decision_single_agent", {}),
        ("routed_all_fc", {}),
        ("paper_large", {}),
        ("dispatched", {"algorithm": "gumbel", "mode": "full"}),
    ],
)
def test_one_module_is_the_plain_network(batch, model, options):
    plain, net = build("shared"), build(model, modules=1, **options)
    variables, single = drawn(net), drawn(plain)
    stacked = jax.tree.map(lambda a: a[None], single.params["modules"])
    for i in range(2):
        variables.params["modules"][f"selection{i}"] = stacked[f"layer{i}"]
    forced = np.zeros((len(net.decisions), 8), np.int32)
    out, grads = run(net, variables, *batch, forced)
    wanted, plain_grads = run(plain, single, *batch)
    close(out, wanted)
    for i in range(2):
        own = jax.tree.map(lambda a: a[0], grads["modules"][f"selection{i}"])
        close(own, plain_grads["modules"][f"layer{i}"])
        # A choice among one is none.
        policy = grads["routing"][f"decision{i}"]["policy"]
        assert not any(map(np.any, jax.tree.leaves(policy)))


@pytest.fixture(scope="module")
def passed(batch):
    """A pass through four modules with known actions."""
    net = build("routed_all_fc", modules=4)
    forced = np.random.default_rng(3).integers(0, 3, (2, 8)).astype(np.int32)
    variables = drawn(net)
    return net, variables, forced, *run(net, variables, *batch, forced)


def test_modules_may_change_places_with_their_actions(batch, passed):
    net, variables, forced, out, grads = passed
    order = np.array([2, 0, 3, 1])
    moved = jax.tree.map(lambda a: a, variables)
    for i in range(2):
        name = f"selection{i}"
        own = variables.params["modules"][name]
        moved.params["modules"][name] = jax.tree.map(lambda a: a[order], own)
    again, other = run(net, moved, *batch, np.argsort(order)[forced].astype(np.int32))
    close(again, out)
    for i in range(2):
        own = grads["modules"][f"selection{i}"]
        wanted = jax.tree.map(lambda a: a[order], own)
        close(other["modules"][f"selection{i}"], wanted)


def test_modules_that_no_sample_chose_learn_nothing(passed):
    _, _, forced, _, grads = passed
    for i in range(2):
        kernel = grads["modules"][f"selection{i}"]["kernel"]
        used = [k in forced[i] for k in range(4)]
        assert [bool(np.any(k)) for k in kernel] == used and not used[3]


def test_samples_may_change_places(batch, passed):
    net, variables, forced, out, _ = passed
    order = np.random.default_rng(4).permutation(8)
    x, tasks, y = (a[order] for a in batch)
    again, _ = run(net, variables, x, tasks, y, forced[:, order])
    close(again, out[order])


def agents(net, batch, key):
    """Return who acted and what was chosen, all policies being even."""
    variables = drawn(net)
    variables = variables._replace(params=jax.tree.map(np.zeros_like, variables.params))

    @quick
    def passing(variables, x, tasks):
        record = net.apply(variables, x, tasks, train=True, key=key)[1]
        return trajectories.agents(record), trajectories.actions(record)

    return jax.tree.map(np.asarray, passing(variables, *batch[:2]))


def test_the_agent_is_the_task_the_dispatched_one_or_the_only_one(batch, key):
    own, _ = agents(build("routed_all_fc"), batch, key)
    assert (own == batch[1]).all()
    own, actions = agents(build("dispatched", agents=2, modules=5), batch, key)
    assert (own[0] == 0).all() and (own[1:] == actions[0]).all()
    assert set(actions[0]) == {0, 1} and (actions[1] != actions[2]).any()
    single = build("per_decision_single_agent").decisions
    assert {(d.agents, d.storage) for d in single} == {(1, "approximate")}


def test_a_dispatcher_sees_its_input_unless_as_published():
    dispatcher = build("dispatched").decisions[0]
    assert dispatcher.storage == "approximate" and dispatcher.reward.kind == "zero"
    published = build("dispatched", compat=True).decisions
    assert published[0].storage == "tabular"
    assert {d.reward.ratio_power for d in published} == {2}
    full = build("dispatched", algorithm="gumbel", mode="full").decisions
    assert [d.mode for d in full] == ["selected", "full", "full"]


def test_tasks_have_layers_of_their_own(batch):
    x, tasks, _ = batch
    for model, common in (("per_task_all_fc", 0), ("per_task_1_fc", 1)):
        net = build(model)
        variables = drawn(net)
        out = quick(lambda *a: net.apply(*a)[0])(variables, x, tasks)  # noqa: B023
        modules, wanted = variables.params["modules"], []
        for row, task in zip(x, tasks, strict=True):
            for i in range(2):
                layer = modules.get(f"layer{i}")
                if i >= common:
                    own = modules[f"selection{i - common}"]
                    layer = jax.tree.map(lambda a: a[task], own)  # noqa: B023
                row = row @ layer["kernel"] + layer["bias"]
                row = np.maximum(row, 0) if i < 1 else row
            wanted.append(row)
        close(out, np.stack(wanted))


@pytest.mark.parametrize(
    ("shape", "tasks", "options"),
    [
        ((32, 32, 3), 20, {"width": 48, "depth": 3}),
        (IMAGE, 10, {"width": 48, "modules": 3, "depth": 3}),
        ((32,), 10, {"width": 48, "storage": "approximate"}),
    ],
)
def test_the_shared_network_is_as_large_as_the_routed_one(shape, tasks, options):
    routed = build("routed_all_fc", shape, tasks, **options)
    shared = build("shared_one_hot", shape, tasks, **options)
    whole = network.count(routed)
    assert network.count(shared) == pytest.approx(whole, rel=0.02)


def test_large_networks_have_layers_of_the_paper():
    net = build("paper_large", (32, 32, 3), 20, 5, width=320, depth=3)
    params = jax.eval_shape(net.init, jax.random.key(0)).params["modules"]
    kernels = [params[f"selection{i}"]["kernel"].shape for i in (0, 1, 2)]
    assert kernels == [(20, 2560, 320), (20, 320, 320), (20, 320, 5)]


def test_bad_networks(batch):
    router = Decision("decision", "reinforce", 2, 1, agents=3)
    dispatcher = Decision("dispatcher", "reinforce", 2, 1)
    with pytest.raises(UsageError, match="dispatcher.actions: got 2, expected 3"):
        networks.routed((4, 2), router, dispatcher=dispatcher)
    with pytest.raises(UsageError, match="common: got 2"):
        networks.per_task((4, 2), 3, common=2)
    with pytest.raises(UsageError, match="at least 16 x 16"):
        build("routed_all_fc", (8, 8, 1))
    settings = Config()
    object.__setattr__(settings, "model", "routed")
    with pytest.raises(UsageError, match="Did you mean 'routed_all_fc'"):
        networks.build(settings, IMAGE, 2, 3)


@pytest.mark.parametrize(
    ("tasks", "forced", "message"),
    [
        ([0, 1, 3, 0], None, "actions: got 3, expected integers from 0 to 2"),
        ([0, 1, 2], None, "a multiple of the 4 images"),
        ([0, 1, 2, 0], [[0] * 4] * 3, "forced: got '3 rows', expected 2"),
    ],
)
def test_bad_passes(batch, tasks, forced, message):
    net, x = build("routed_all_fc"), jnp.asarray(batch[0][:4])
    tasks = jnp.asarray(tasks, jnp.int32)
    forced = None if forced is None else jnp.asarray(forced, jnp.int32)
    with pytest.raises(UsageError, match=message):
        jax.eval_shape(lambda v: net.apply(v, x, tasks, forced=forced)[0], drawn(net))
