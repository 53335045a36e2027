"""The number of devices and of processes changes nothing but the rounding."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from shared import parallel
from shared.errors import UsageError
from tests.shared import pooled_net

ROOT = Path(__file__).parents[2]
TOLERANCES = {"float32": 1e-5, "float64": 1e-12}


def start_worker(*args):
    module = "tests.shared.parallel_worker"
    command = [sys.executable, "-W", "error", "-m", module, *map(str, args)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(workers):
    """Wait for all; none outlives the test."""
    try:
        for worker in workers:
            output, _ = worker.communicate(timeout=120)
            assert worker.returncode == 0, output[-3000:]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """The numbers of one process with four devices, by dtype and way."""
    out = tmp_path_factory.mktemp("one")
    finish([start_worker("one", out)])
    with np.load(out / "one.npz") as found:
        return dict(found)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_one_two_and_four_devices_train_alike(one_process, dtype):
    alone = one_process[f"{dtype}/alone"]
    start = pooled_net.numbers(pooled_net.init("float32"), {})
    assert np.abs(alone[: start.size] - start).max() > 0.1
    ways = [name for name in one_process if name.startswith(dtype)]
    assert len(ways) == 7
    for name in ways:
        tolerance = TOLERANCES[dtype]
        np.testing.assert_allclose(
            one_process[name], alone, rtol=tolerance, atol=tolerance, err_msg=name
        )


def test_two_processes_train_as_one_and_share_a_checkpoint(one_process, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    finish([start_worker("many", tmp_path, port, process) for process in (0, 1)])
    for process in (0, 1):
        found = np.load(tmp_path / f"many{process}.npz")
        for dtype, tolerance in TOLERANCES.items():
            np.testing.assert_allclose(
                found[dtype],
                one_process[f"{dtype}/shard_map/4"],
                rtol=tolerance,
                atol=tolerance,
            )


def test_a_data_parallel_step_may_be_scanned():
    step = parallel.data_parallel(pooled_net.make_step("data"), parallel.mesh(2))
    whole = jax.jit(lambda state, batches: jax.lax.scan(step, state, batches))
    state, metrics = whole(pooled_net.init("float32"), pooled_net.batches("float32"))
    last = jax.tree.map(lambda x: x[-1], metrics)
    alone = pooled_net.train(jax.jit(pooled_net.make_step()), "float32")
    np.testing.assert_allclose(
        pooled_net.numbers(state, last), pooled_net.numbers(*alone), atol=1e-5
    )


def explicit_mesh():
    return jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))


def test_steps_compile_once():
    traces = 0

    def step(state, batch):
        nonlocal traces
        traces += 1
        return state + jax.lax.pmean(jnp.mean(batch), "data"), {}

    for make in (
        lambda: parallel.data_parallel(step, parallel.mesh(2)),
        # What jax.make_mesh gives unasked.
        lambda: parallel.data_parallel(step, explicit_mesh()),
        lambda: parallel.pmap_step(step),
    ):
        traces, run, state = 0, make(), jnp.float32(0)
        for _ in range(3):
            state, _ = run(state, np.ones(4, np.float32))
        assert traces == 1 and state == 3


def test_example_keys_follow_the_global_index(key):
    whole = parallel.example_keys(key, 6)
    assert len({tuple(row) for row in jax.random.key_data(whole).tolist()}) == 6
    mesh = parallel.mesh(2)
    own = lambda _: parallel.example_keys(key, 3, "data")
    parts = jax.shard_map(own, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    found = parts(jnp.zeros(6))
    chex.assert_trees_all_equal(
        np.asarray(jax.random.key_data(found)), np.asarray(jax.random.key_data(whole))
    )


def test_placement_of_arrays(key):
    mesh = parallel.mesh(2)
    batch = parallel.global_batch(mesh, {"x": np.arange(8).reshape(4, 2)})
    assert batch["x"].sharding.spec == P("data")
    assert (batch["x"] == np.arange(8).reshape(4, 2)).all()
    tree = parallel.replicate({"key": key, "flag": np.bool_(True)}, mesh)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(tree))
    assert len(tree["key"].devices()) == 2 and tree["flag"]
    assert parallel.is_lead()


def test_a_run_of_one_process_needs_no_start():
    parallel.initialize()
    parallel.initialize(processes=1)
    assert jax.process_count() == 1


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: parallel.mesh(3), "1 to 2.*set_cpu_devices"),
        (lambda: parallel.mesh(0), "1 to 2"),
        (lambda: parallel.set_cpu_devices(0), ">= 1"),
        (lambda: parallel.set_cpu_devices(3), "2 by now"),
        (lambda: parallel.initialize(processes=2), "host:port"),
        (lambda: parallel.initialize("localhost:1"), "both"),
        (lambda: parallel.initialize("localhost:1", 2, 2), "0 to 1"),
        (lambda: parallel.initialize("localhost:1", 2, 1), "before any device"),
        (lambda: parallel.global_batch(parallel.mesh(2), np.ones(3)), "multiple of 2"),
        (
            lambda: parallel.data_parallel(
                lambda s, b: (s, b), jax.sharding.Mesh([jax.devices()], ("a", "b"))
            ),
            "one dimension",
        ),
    ],
)
def test_wrong_use_is_told(call, words):
    with pytest.raises(UsageError, match=words):
        call()


def test_a_batch_that_does_not_divide_is_refused():
    step = lambda state, batch: (state, {})
    state, batch = jnp.zeros(()), {"x": np.ones((5, 2))}
    for run in (
        parallel.data_parallel(step, parallel.mesh(2)),
        parallel.pmap_step(step),
    ):
        with pytest.raises(UsageError, match="got 5, expected a multiple of 2"):
            run(state, batch)
        with pytest.raises(UsageError, match="got 5, expected a multiple of 2"):
            jax.jit(run)(state, batch)


def test_the_number_of_devices_may_be_confirmed_later():
    jax.devices()
    parallel.set_cpu_devices(2)
    assert jax.device_count() == 2
