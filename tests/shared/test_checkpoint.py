"""Checkpoints: exact round trips, and a previous one after any damage."""

import os
import signal
import socket
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from shared import checkpoint, runs
from shared.errors import UsageError


class State(NamedTuple):
    params: dict
    optimizer: tuple
    key: jax.Array
    other: list


def _state(seed=0):
    key = jax.random.key(seed)
    params = {"w": jax.random.normal(key, (3, 4)), "b": jnp.ones(2, jnp.bfloat16)}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    keys = [jax.random.key(7, impl="rbg"), jax.random.split(key, 3)]
    numbers = [3, True, 1.5, None, np.arange(4), np.float32(2), jnp.int32(5)]
    return State(params, optimizer.init(params), key, [keys, numbers])


def _assert_equal(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert type(a) is type(b)
        if hasattr(b, "dtype"):
            assert a.dtype == b.dtype and a.shape == b.shape
            if jnp.issubdtype(b.dtype, jax.dtypes.prng_key):
                a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def test_every_kind_of_leaf_comes_back_unchanged(tmp_path):
    state = _state()
    checkpoint.save(tmp_path, 12, state)
    step, restored = checkpoint.restore(tmp_path, _state(seed=1))
    assert step == 12
    _assert_equal(restored, state)


def test_abstract_like_and_float64(tmp_path):
    with jax.enable_x64(True):
        state = {"x": jnp.asarray(1 / 3), "key": jax.random.key(3)}
        checkpoint.save(tmp_path, 0, state)
        like = jax.eval_shape(lambda: state)
        _assert_equal(checkpoint.restore(tmp_path, like)[1], state)


def test_placement_follows_like(tmp_path):
    mesh = Mesh(np.array(jax.devices()), ("member",))
    split = NamedSharding(mesh, PartitionSpec("member"))
    state = {
        "w": jax.device_put(jnp.arange(8.0), split),
        "key": jax.device_put(jax.random.split(jax.random.key(0), 4), split),
        "loose": jnp.ones(3),
        "second": jax.device_put(jnp.ones(2), jax.devices()[1]),
    }
    checkpoint.save(tmp_path, 1, state)
    restored = checkpoint.restore(tmp_path, state)[1]
    _assert_equal(restored, state)
    for name in state:
        assert restored[name].sharding == state[name].sharding
        assert restored[name].committed == state[name].committed


def test_the_newest_are_kept_and_a_step_can_be_written_again(tmp_path):
    for step in (1, 2, 3, 4):
        checkpoint.save(tmp_path, step, {"x": jnp.float32(step)}, keep=2)
    assert checkpoint.steps(tmp_path) == [3, 4]
    checkpoint.save(tmp_path, 4, {"x": jnp.float32(-4)}, keep=2)
    step, restored = checkpoint.restore(tmp_path, {"x": jnp.float32(0)})
    assert (step, float(restored["x"])) == (4, -4.0)
    assert checkpoint.steps(tmp_path) == [3, 4]
    assert len(list(tmp_path.iterdir())) == 2


def test_nothing_to_restore(tmp_path):
    assert checkpoint.steps(tmp_path / "absent") == []
    assert checkpoint.restore(tmp_path / "absent", {"x": jnp.ones(2)}) is None


def _largest(path):
    files = [p for p in (path / "tree").rglob("*") if p.is_file()]
    return max(files, key=lambda p: p.stat().st_size)


def _truncate(path):
    file = _largest(path)
    file.write_bytes(file.read_bytes()[:-7])


def _flip(path):
    file = _largest(path)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _flip_manifest(path):
    file = path / "manifest.json"
    file.write_text(file.read_text().replace("float32[3]", "float32[4]"))


DAMAGE = {
    "bytes instead of": _truncate,
    "checksum": _flip,
    "is missing": lambda path: _largest(path).unlink(),
    "cannot be read": lambda path: (path / "manifest.json").unlink(),
    "was altered": _flip_manifest,
}


@pytest.mark.parametrize("reason", DAMAGE)
def test_damage_falls_back_to_the_one_before_and_says_so(tmp_path, reason):
    for step in (10, 20):
        checkpoint.save(tmp_path, step, {"x": jnp.full(3, step, float)})
    DAMAGE[reason](tmp_path / "00000020")
    with pytest.warns(UserWarning, match=f"00000020 is damaged .*{reason}"):
        step, restored = checkpoint.restore(tmp_path, {"x": jnp.zeros(3)})
    assert step == 10
    np.testing.assert_array_equal(restored["x"], np.full(3, 10.0))
    # The run goes on from 10: what it saves next must not be pushed out by the
    # damaged 20, which is replaced when it gets there.
    checkpoint.save(tmp_path, 15, {"x": jnp.full(3, 15.0)}, keep=1)
    assert checkpoint.steps(tmp_path) == [15, 20]
    checkpoint.save(tmp_path, 20, {"x": jnp.full(3, 20.5)}, keep=1)
    step, restored = checkpoint.restore(tmp_path, {"x": jnp.zeros(3)})
    assert (step, float(restored["x"][0])) == (20, 20.5)


def test_only_damaged_ones_is_like_none(tmp_path):
    checkpoint.save(tmp_path, 3, {"x": jnp.ones(3)})
    _truncate(tmp_path / "00000003")
    with pytest.warns(UserWarning, match="damaged"):
        assert checkpoint.restore(tmp_path, {"x": jnp.zeros(3)}) is None


@pytest.mark.parametrize(
    ("like", "leaf"),
    [
        ({"x": jnp.ones(4), "y": [1]}, r"\['x'\]: got 'float32\[3\]'"),
        ({"x": jnp.ones(3, int), "y": [1]}, r"\['x'\]: got 'float32\[3\]'"),
        ({"x": jnp.ones(3), "y": [1.0]}, r"\['y'\]\[0\]: got 'int'"),
        ({"x": jnp.ones(3), "y": [1], "z": 1}, r"\['z'\]: got 'nothing'"),
        ({"x": jnp.ones(3)}, r"\['y'\]\[0\]: got 'int', expected nothing"),
    ],
)
def test_another_tree_is_refused_by_leaf(tmp_path, like, leaf):
    checkpoint.save(tmp_path, 1, {"x": jnp.ones(3), "y": [1]})
    with pytest.raises(UsageError, match=leaf):
        checkpoint.restore(tmp_path, like)


def test_bad_arguments(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="checkpoint directory"):
        checkpoint.save(tmp_path / "file" / "deeper", 1, {"x": 1})
    with pytest.raises(UsageError, match="keep"):
        checkpoint.save(tmp_path, 1, {"x": 1}, keep=0)
    with pytest.raises(UsageError, match=r"leaf \['x'\]: got 'str'"):
        checkpoint.save(tmp_path, 1, {"x": "text"})


def test_a_newer_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "VERSION", checkpoint.VERSION + 1)
    checkpoint.save(tmp_path, 1, {"x": 1})
    monkeypatch.undo()
    with pytest.raises(UsageError, match="version"):
        checkpoint.restore(tmp_path, {"x": 1})


SAVE_FOREVER = """
import sys, jax.numpy as jnp
from shared import checkpoint
for step in range(1, 10**6):
    checkpoint.save(sys.argv[1], step, {"x": jnp.full(200_000, step, float)}, keep=2)
    print(step, flush=True)
"""


def test_a_kill_in_the_middle_of_a_save_loses_nothing(tmp_path):
    """SIGKILL at several moments of a save; the last finished one is always there."""
    like = {"x": jnp.zeros(200_000)}
    process = subprocess.Popen(
        [sys.executable, "-c", SAVE_FOREVER, str(tmp_path)], stdout=subprocess.PIPE
    )
    half_written = False
    for _ in range(3):
        process.stdout.readline()
    # The moment at which the next save has its directory but not its name.
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not half_written:
        half_written = any(tmp_path.glob(".writing-*/tree*/*"))
    os.kill(process.pid, signal.SIGKILL)
    printed = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    assert half_written
    finished = checkpoint.steps(tmp_path)
    assert finished[-1] >= max([3, *map(int, printed)])
    step, restored = checkpoint.restore(tmp_path, like)
    assert step == finished[-1]
    np.testing.assert_array_equal(restored["x"], np.full(200_000, float(step)))
    # What was half written is swept up by the next save.
    checkpoint.save(tmp_path, step + 1, like)
    assert not list(tmp_path.glob(".*"))


TWO_PROCESSES = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
rank, port, directory = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update("jax_num_cpu_devices", 1)
jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
from shared import checkpoint, runs
run = runs.create(directory, "system", "experiment", {}, {})
run.log(1, {"loss": 0.5})
directory = run.checkpoints
mesh = Mesh(jax.devices(), ("data",))
def place(x, spec):
    sharding = NamedSharding(mesh, spec)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])
tree = {
    "split": place(np.arange(6.0), P("data")),
    "everywhere": place(np.arange(3.0), P()),
    "here": jnp.arange(4.0),
    "key": jax.random.key(5),
    "count": 3,
    "numpy": np.arange(2),
}
checkpoint.save(directory, 1, tree)
checkpoint.save(directory, 2, tree)
step, back = checkpoint.restore(directory, tree)
assert step == 2 and back["count"] == 3
assert back["split"].sharding == tree["split"].sharding
assert back["here"].sharding == tree["here"].sharding
assert float(jnp.sum(back["split"])) == 15 and float(back["here"][3]) == 3
np.testing.assert_array_equal(back["everywhere"].addressable_data(0), np.arange(3.0))
assert jnp.array_equal(*map(jax.random.key_data, (back["key"], tree["key"])))
run.finish({})
run.close()
"""


def test_two_processes_with_one_device_each_write_one_run(tmp_path):
    """Split, replicated and process-local arrays are written once, into one run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, str(rank), port, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        printed = [process.communicate(timeout=60)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], printed
    (run,) = runs.find(tmp_path)
    assert [record["step"] for record in runs.read_metrics(run)] == [1]
    saved = run / "checkpoints"
    assert sorted(p.name for p in saved.iterdir()) == ["00000001", "00000002"]
    like = {"split": np.zeros(6, np.float32), "everywhere": np.zeros(3, np.float32)}
    like |= {"here": jnp.zeros(4), "key": jax.random.key(0), "count": 0}
    like |= {"numpy": np.zeros(2, int)}
    step, tree = checkpoint.restore(saved, like)
    np.testing.assert_array_equal(tree["split"], np.arange(6.0))
