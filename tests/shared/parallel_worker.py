"""The processes that the parallel tests start: they need their own sets of devices.

python -m tests.shared.parallel_worker one OUT
python -m tests.shared.parallel_worker many OUT PORT PROCESS
"""

import sys
from pathlib import Path

import jax
import numpy as np

from shared import parallel
from tests.shared import pooled_net

DTYPES = ("float32", "float64")


def one(out: Path) -> None:
    """Train on 1, 2 and 4 devices of one process, in each way."""
    parallel.set_cpu_devices(4)
    found = {}
    for dtype in DTYPES:
        with jax.enable_x64(dtype == "float64"):
            ways = {"alone": jax.jit(pooled_net.make_step())}
            step = pooled_net.make_step("data")
            for count in (1, 2, 4):
                mesh = parallel.mesh(count)
                devices = jax.devices()[:count]
                ways[f"shard_map/{count}"] = parallel.data_parallel(step, mesh)
                ways[f"pmap/{count}"] = parallel.pmap_step(step, devices)
            for name, way in ways.items():
                result = pooled_net.train(way, dtype)
                found[f"{dtype}/{name}"] = pooled_net.numbers(*result)
    np.savez(out / "one.npz", **found)


def many(out: Path, port: int, process: int) -> None:
    """Train on four devices of two processes; save and restore what they hold."""
    parallel.set_cpu_devices(2)
    parallel.initialize(f"127.0.0.1:{port}", 2, process)
    assert parallel.is_lead() == (process == 0)
    mesh = parallel.mesh()
    assert mesh.size == 4 and len(mesh.local_devices) == 2
    step = parallel.data_parallel(pooled_net.make_step("data"), mesh)
    half = pooled_net.BATCH // 2
    own = slice(process * half, (process + 1) * half)

    def prepare(batch):
        return parallel.global_batch(mesh, {k: v[own] for k, v in batch.items()})

    def place(state):
        return parallel.replicate(state, mesh)

    found = {}
    for dtype in DTYPES:
        with jax.enable_x64(dtype == "float64"):
            result = pooled_net.train(step, dtype, prepare=prepare, place=place)
            found[dtype] = pooled_net.numbers(*result)
    state, _ = pooled_net.train(step, "float32", prepare=prepare, place=place)
    rows = prepare(pooled_net.batch("float32", 0))
    tree = {"state": state, "rows": rows, "local": jax.numpy.arange(3)}
    check_checkpoint(out / "checkpoints", tree)
    np.savez(out / f"many{process}.npz", **found)


def check_checkpoint(directory: Path, tree) -> None:
    """Save a tree of sharded and replicated arrays, and restore it as it was."""
    from shared import checkpoint

    checkpoint.save(directory, 3, tree)
    blank = jax.tree.map(lambda x: x if is_key(x) else x * 0, tree)
    step, restored = checkpoint.restore(directory, blank)
    assert step == 3
    for before, after in zip(*map(jax.tree.leaves, (tree, restored)), strict=True):
        assert before.sharding.is_equivalent_to(after.sharding, before.ndim)
        for ours, again in zip(
            before.addressable_shards, after.addressable_shards, strict=True
        ):
            assert np.array_equal(values(ours.data), values(again.data))


def is_key(x) -> bool:
    return jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)


def values(x):
    return np.asarray(jax.random.key_data(x) if is_key(x) else x)


if __name__ == "__main__":
    # Compiling is nearly all of the work here.
    jax.config.update("jax_disable_most_optimizations", True)
    directory = Path(sys.argv[2])
    if sys.argv[1] == "one":
        one(directory)
    else:
        many(directory, int(sys.argv[3]), int(sys.argv[4]))
