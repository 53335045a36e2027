"""Exported networks compute what the simulation and the training code compute."""

import os
import subprocess
import sys

import numpy as np
import pytest
from jax import numpy as jnp

import enasq
from enasq import (
    accounting,
    blueprint,
    cell,
    exact,
    export,
    fixed,
    packed,
    packing,
    parts,
    planar,
    running,
    sessions,
    simulation,
    stored,
)
from enasq import plan as plans
from enasq import policy as policies
from enasq.config import changed
from shared.errors import UsageError
from shared.model import Variables
from tests.enasq.networks import EVERY, images, network, variables
from tests.enasq.tiny import FIXED
from tests.quick import quick

IMAGE = {"mean": [120.0], "std": [100.0]}
COLOURS = {"mean": [120.0, 90.0, 101.0], "std": [100.0, 80.0, 64.0]}
MIXED = cell.parse("0 5 1 11 1 2 0 9 | 1 3 1 14 2 0 1 6", ops=15)
CASES = {
    "binary": (6, {}),
    "ternary": (4, {}),
    "kbit": (4, {}),
    # Rows of two words, the second one not full, of colour images.
    "wide": (35, {"channels": 3, "size": 4}),
    # Every operation with another quantiser than its neighbour's.
    "mixed": (6, {"arc": MIXED}),
}


def policy_of(name):
    """Return a deployable policy."""
    if name == "mixed":
        return policies.preset(
            "deployable", choices=("approx_sign", "ternary", "2-bit")
        )
    return "deployable" if name in ("binary", "wide") else f"deployable_{name}"


def norm_of(net):
    """Return how the bytes of a network's images become numbers."""
    return COLOURS if net.plan.network.channels == 3 else IMAGE


def plain(value):
    """Return a value of packed execution as the simulation has it."""
    if isinstance(value, packing.Packed):
        return np.asarray(packing.unpack(planar.turned(value)))
    return np.moveaxis(np.asarray(value), (0, 3), (3, 0))


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """A network, what it computes by the simulation, and its file."""
    filters, shape = CASES[request.param]
    net = network(policy_of(request.param), filters, **shape)
    own, x = variables(net), images(net)
    path = tmp_path_factory.mktemp("export") / "network.npz"
    norm = norm_of(net)
    export.export(net, own, path, **norm, labels=["a", "b", "c"])
    plan = blueprint.blueprint(net, own, **norm)
    return net, own, x, path, plan, simulation.evaluate(plan, x)


def test_packed_execution_is_the_simulation_bit_for_bit(case):
    _, _, x, path, plan, expected = case
    graph = running.load(path).graph
    assert {step.op for step in plan.steps} == {
        *("image", "activate", "conv", "halve", "depthwise", "add", "average"),
        *("largest", "join", "head"),
    }
    arrays = [step.arrays for step in graph.steps]
    found = quick(lambda arrays, x: running.trace(graph, arrays, x))(arrays, x)
    for number, step in enumerate(plan.steps[:-1]):
        for ours, theirs in (
            (found.values[number], expected.values[number]),
            (found.sums[number], expected.sums[number]),
        ):
            if theirs is not None:
                np.testing.assert_array_equal(plain(ours), theirs, step.name)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=0, atol=1e-5)


def test_the_training_code_evaluates_what_is_exported(case):
    net, own, x, _, plan, expected = case
    mean, std = (np.float32(norm_of(net)[name]) for name in ("mean", "std"))
    pixels = (x.astype(np.float32) - mean) / std
    run = quick(lambda own, x: fixed.run(net, own, x, train=False))
    found = run(own, pixels)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=0, atol=1e-5)
    joined = [n for n, step in enumerate(plan.steps) if step.op == "join"]
    for output, number in zip(found.outputs, joined, strict=True):
        np.testing.assert_array_equal(output * 256, expected.values[number])


def test_labels_are_those_of_the_simulation_whatever_the_batch(tmp_path):
    net = network("deployable", 2)
    own, x = variables(net), images(net, 5)
    path = tmp_path / "network.npz"
    export.export(net, own, path, **IMAGE)
    loaded = enasq.load(path)
    # Of five images the second batch is filled up.
    found = enasq.run_packed(loaded, x, batch=4)
    expected = simulation.simulate(net, own, x, **IMAGE).logits
    np.testing.assert_array_equal(found.labels, np.argmax(expected, -1))
    np.testing.assert_allclose(found.logits, expected, atol=1e-5)
    assert enasq.run_packed(loaded, x[:0]).logits.shape == (0, 3)
    for wrong in (x[..., 0], x.astype(np.float32), x[:, :4]):
        with pytest.raises(UsageError, match="uint8 of shape"):
            enasq.run_packed(loaded, wrong)
    with pytest.raises(UsageError, match="batch"):
        enasq.run_packed(loaded, x, batch=0)


def test_files_run_without_the_code_that_trains():
    code = (
        "import sys, enasq; enasq.run_packed;"
        "names = ('fixed', 'child', 'units', 'policy', 'quantization', 'supernet');"
        "print([n for n in names if f'enasq.{n}' in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_binary_file_is_a_seventh_of_its_twins(tmp_path):
    net = plans.Network("fixed", 1, 32, 2, 8, 1, 10, pool_positions=(1,))
    sizes = []
    for name, write in (
        ("deployable", export.export),
        ("float", export.export_float),
    ):
        described = fixed.describe(net, policies.preset(name), EVERY)
        path = tmp_path / name
        write(described, variables(described), path, **IMAGE)
        sizes.append(os.path.getsize(path))
    assert 7 * sizes[0] <= sizes[1], sizes


def test_the_twin_is_the_network_in_floats(tmp_path):
    net = network("float", 2)
    own, x = variables(net), images(net)
    path = tmp_path / "twin.npz"
    export.export_float(net, own, path, **IMAGE)
    pixels = (x.astype(np.float32) - IMAGE["mean"][0]) / np.float32(IMAGE["std"][0])
    expected = quick(lambda own, x: fixed.run(net, own, x, train=False))(own, pixels)
    found = enasq.run_packed(path, x)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-3, atol=1e-3)


def test_the_table_counts_what_the_accounting_counts(case):
    net, _, _, path, _, _ = case
    found = stored.layers(running.load(path).graph)
    expected = accounting.totals(
        accounting.records(net.plan.network, net.policy, net.arc)
    )
    assert sum(layer.macs for layer in found) == expected.macs
    assert sum(layer.bit_operations for layer in found) == expected.bit_operations
    text = stored.describe(path)
    assert f"{expected.bit_operations:,} bit-operations" in text and "a, b, c" in text


def test_sums_that_float32_would_round_are_refused():
    shape = lambda filters: plans.Network(
        "fixed", 0, filters, 2, 8, 1, pool_positions=()
    )
    wide, words = policies.deployable("8-bit"), "channels of 8 x 8 bits reach 2"
    assert words in (exact.obstacle(shape(1024), wide, EVERY) or "")
    assert exact.obstacle(shape(128), wide, EVERY) is None
    assert exact.obstacle(shape(1024), policies.deployable("4-bit"), EVERY) is None
    net, nothing = fixed.describe(shape(1024), wide, EVERY), Variables({}, {})
    with pytest.raises(UsageError, match=words):
        blueprint.blueprint(net, nothing, **IMAGE)
    with pytest.raises(UsageError, match=words):
        fixed.run(net, nothing, jnp.zeros((1, 8, 8, 1)), train=False, rule="exact")


def test_a_file_of_floats_is_told(tmp_path, monkeypatch):
    own = changed(FIXED, policy="reference")
    sets = parts.load(own, None)
    training = sessions.training_of(own, sets, parts.architecture(own))
    monkeypatch.setattr(packed.export, "export_float", {}.__getitem__)
    with (
        pytest.warns(UserWarning, match="net.enasq is written in float32: image_bits"),
        pytest.raises(TypeError),
    ):
        packed.write(training, Variables({}, {}), tmp_path / "net.enasq", sets)


def test_networks_that_read_floats_are_refused(tmp_path):
    path = tmp_path / "network.npz"
    for name, words in (("reference", "image_bits"), ("all_binary", "image_bits")):
        net = network(name, 2)
        with pytest.raises(UsageError, match=words):
            export.export(net, variables(net), path, **IMAGE)
    wide = policies.deployable("12-bit")
    assert "12 bits" in (policies.obstacle(wide) or "")
    net = network("deployable", 2)
    own = variables(net)
    with pytest.raises(UsageError, match="mean"):
        export.export(net, own, path, mean=[1.0, 2.0], std=[1.0])
    with pytest.raises(UsageError, match="3 names"):
        export.export(net, own, path, **IMAGE, labels=["one"])
    own.state["stem"]["norm"]["var"][0] = np.nan
    with pytest.raises(UsageError, match="finite"):
        export.export(net, own, path, **IMAGE)
    assert not path.exists()
    with pytest.raises(UsageError, match="'float', for"):
        reference = network("reference", 2)
        own, x = variables(reference), jnp.zeros((1, 8, 8, 1))
        fixed.run(reference, own, x, train=False, rule="exact")
