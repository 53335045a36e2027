"""Stored networks come back bit for bit, and what is not one is refused."""

import dataclasses
import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multipath.trees import files, graph, kinds
from multipath.trees import net as networks
from multipath.trees.net import Net
from shared.errors import UsageError

BLOCKS = graph.Blocks(classes=3, arch=((2, 2), (2,)), router_n_chan=4)
IMAGE = (8, 8, 3)
CHAIN = Net("actor", graph.dr_chain(BLOCKS), IMAGE, 3)
TREE = Net("critic", graph.dr_tree(BLOCKS, 1), IMAGE, 3, dyn_k_cpt=True, talr=False)
OTHER = graph.Node(
    "Root",
    kinds.Chain(
        (
            kinds.Chain((kinds.Conv(2, 3, res=True), kinds.BatchNorm(d=0.5))),
            kinds.LinTrans(3),
            kinds.Softmax(),
            kinds.SuperclassCrossEntropyError(((1.0, 0.0), (0.0, 1.0), (0.0, 1.0))),
        )
    ),
)


def random(net, dtype=jnp.float32):
    """Return variables of random numbers, without compiling."""
    shapes = jax.eval_shape(lambda key: networks.init(key, net), jax.random.key(0))
    draw = np.random.default_rng(0).standard_normal
    return jax.tree.map(lambda leaf: jnp.asarray(draw(leaf.shape), dtype), shapes)


def assert_same(ours, expected):
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize(
    ("net", "dtype"),
    (
        (CHAIN, jnp.float32),
        (TREE, jnp.bfloat16),
        (Net("sr", OTHER, IMAGE, 3), jnp.float32),
    ),
    ids=("chain", "tree", "other"),
)
def test_a_network_comes_back_bit_for_bit(tmp_path, net, dtype):
    variables, extra = random(net, dtype), {"step": 7, "k_cpt": 1e-9}
    path = files.write(tmp_path / "nets" / "0001", net, variables, extra)
    assert path.name == "0001.json"
    for given in (tmp_path / "nets" / "0001", path, path.with_suffix(".npz")):
        stored = files.read(given, expected=net)
        assert stored.net == net and stored.extra == extra
        assert_same(stored.variables, variables)


def test_double_precision_is_kept_or_refused(tmp_path):
    with jax.enable_x64(True):
        variables = random(CHAIN, jnp.float64)
        files.write(tmp_path / "net", CHAIN, variables)
        assert_same(files.read(tmp_path / "net").variables, variables)
    with pytest.raises(UsageError, match="jax_enable_x64"):
        files.read(tmp_path / "net")


def test_arrays_are_named_by_their_nodes(tmp_path):
    variables = random(TREE)
    path = files.write(tmp_path / "net", TREE, variables)
    with np.load(path.with_suffix(".npz")) as archive:
        own = networks.node_variables(TREE, variables)["root.s0.s2"].params
        np.testing.assert_array_equal(
            archive["root.s0.s2.c0/w_horz_0"], own["c0"]["w_horz_0"]
        )
        assert {"root.s0.r.c2/m_avg", "root.s0.c1.c1/gamma"} <= set(archive.files)


@pytest.fixture
def stored(tmp_path):
    """The structure of a stored chain, and a function that reads it back changed."""
    path = files.write(tmp_path / "net", CHAIN, random(CHAIN))
    document = json.loads(path.read_text())

    def read(expected=None, **changes):
        path.write_text(json.dumps(document | changes))
        return files.read(path, expected=expected)

    return path, document, read


def first_layer(document):
    return document["root"]["sinks"][0]["chain"]["hypers"]["comps"][0]


def test_another_network_than_expected_is_refused(stored):
    _, _, read = stored
    with pytest.raises(UsageError, match="talr True instead of False"):
        read(expected=dataclasses.replace(CHAIN, talr=False))
    deeper = graph.Blocks(classes=3, arch=((2, 2), (2,)), router_n_chan=4, k_l2=0.1)
    with pytest.raises(UsageError, match="other layers"):
        read(expected=dataclasses.replace(CHAIN, root=graph.dr_chain(deeper)))


def test_unknown_kinds_and_options_are_refused(stored):
    _, document, read = stored
    first_layer(document)["type"] = "MultiscaleConvMix"
    with pytest.raises(UsageError, match="Did you mean 'MultiscaleConvMax'"):
        read()
    first_layer(document)["type"] = "MultiscaleConvMax"
    first_layer(document)["hypers"]["colour"] = first_layer(document)["hypers"].pop(
        "supp"
    )
    with pytest.raises(UsageError, match="missing supp; unknown colour"):
        read()


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"version": 2}, "newer version"),
        ({"version": None}, "JSON with a version"),
        ({"type": "ActionNet"}, "Did you mean 'ActorNet'"),
        ({"hypers": {}}, "missing classes, dyn_k_cpt, image, optimistic ..."),
        ({"root": None}, "network's structure"),
        ({"checksum": "0"}, "that its .json was written with"),
        ({"arrays": {}}, "list of arrays"),
    ),
)
def test_a_damaged_structure_is_refused(stored, changes, message):
    with pytest.raises(UsageError, match=message):
        stored[2](**changes)


def test_other_arrays_are_refused(stored):
    path, document, read = stored
    numbers = path.with_suffix(".npz")
    with np.load(numbers) as archive:
        arrays = dict(archive)

    def checksum(**changes):
        np.savez(numbers, **{k: v for k, v in (arrays | changes).items() if len(v)})
        return hashlib.sha256(numbers.read_bytes()).hexdigest()

    with pytest.raises(UsageError, match=r"missing root\.s0\.c0/b_0"):
        read(checksum=checksum(**{"root.s0.c0/b_0": ()}))
    with pytest.raises(UsageError, match=r"root\.s0\.c0/b_0: got \(5,\)"):
        read(checksum=checksum(**{"root.s0.c0/b_0": np.ones(5)}))
    numbers.write_bytes(b"no archive")
    with pytest.raises(UsageError, match="arrays of a network"):
        read(checksum=hashlib.sha256(b"no archive").hexdigest())
    numbers.unlink()
    with pytest.raises(UsageError, match="arrays of a network"):
        read()
    with pytest.raises(UsageError, match="stored network"):
        files.read(path.with_name("none"))


def test_a_failed_write_leaves_the_old_network(tmp_path):
    variables = random(CHAIN)
    path = files.write(tmp_path / "net", CHAIN, variables, {"step": 1})
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(UsageError, match="extra"):
        files.write(path, CHAIN, variables, {"step": float("nan")})
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before
    with pytest.raises(UsageError, match="can be written"):
        files.write(path / "inside", CHAIN, variables)
