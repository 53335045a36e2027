"""Many devices, one meaning: device mesh, data-parallel steps, many processes.

A data-parallel step is written once, for a named axis (`data`), over which it averages
gradients and metrics itself; `data_parallel` and `pmap_step` only give each device its
part of the batch. With noise keyed by `example_keys` and moments pooled over the axis,
the number of devices changes nothing but the rounding.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Key, PyTree

from shared.errors import UsageError

Step = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]


def set_cpu_devices(count: int) -> None:
    """Make JAX show the CPU as `count` devices; call it before anything uses a device.

    Raises:
        UsageError: for a count below 1, or if JAX has started with another count.
    """
    if count < 1:
        raise UsageError("devices", count, "an integer >= 1")
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        started = len(jax.devices("cpu"))
        if started != count:
            hint = "Set the number of devices before the first use of a device."
            raise UsageError("devices", count, f"{started} by now", hint) from None


def mesh(count: int | None = None, *, axis: str = "data") -> Mesh:
    """Return a one-dimensional mesh of devices.

    Args:
        count: how many devices, the first ones; None takes all.
        axis: name of the mesh's axis.

    Raises:
        UsageError: if there are fewer devices.
    """
    devices = jax.devices()
    count = len(devices) if count is None else count
    if not 1 <= count <= len(devices):
        allowed = f"1 to {len(devices)}, the devices that JAX shows"
        hint = "A CPU can show more: --devices N, or parallel.set_cpu_devices(N) first."
        cpu = devices[0].platform == "cpu"
        raise UsageError("devices", count, allowed, hint if cpu else "")
    types = (AxisType.Auto,)
    return jax.make_mesh((count,), (axis,), axis_types=types, devices=devices[:count])


def data_parallel(step: Step, mesh: Mesh) -> Step:
    """Run a step with the batch shared out over a mesh, by `jax.shard_map`.

    Args:
        step: `(train_state, batch) -> (train_state, metrics)`, which averages its
            gradients and metrics over the mesh's axis.
        mesh: one-dimensional, its axis named as in the step.

    Returns:
        The compiled step for the whole batch. The train state and the metrics are
        the same on every device. It may be called inside `jit`, `scan` and the like;
        there, arguments of the outermost function that are committed to one device
        must have been moved (`replicate`).

    Raises:
        UsageError: for a mesh of several dimensions, and at a call if the devices do
            not divide the batch.
    """
    if len(mesh.axis_names) != 1:
        raise UsageError("mesh", mesh, "a mesh of one dimension")
    mesh = Mesh(mesh.devices, mesh.axis_names)
    split = P(mesh.axis_names[0])
    # Unchecked, a psum is its own transpose: each device's gradient holds what its
    # examples did to the others' pooled moments, and the step's own mean is right.
    sharded = jax.jit(
        jax.shard_map(
            step,
            mesh=mesh,
            in_specs=(P(), split),
            out_specs=(P(), P()),
            check_vma=False,
        )
    )

    def parallel_step(train_state: PyTree, batch: PyTree) -> tuple[PyTree, PyTree]:
        _check_divisible(batch, mesh.size)
        # Where it already lies is part of what a program is compiled for.
        batch = jax.device_put(batch, NamedSharding(mesh, split))
        return sharded(replicate(train_state, mesh), batch)

    return parallel_step


def pmap_step(
    step: Step, devices: Sequence[Any] | None = None, *, axis: str = "data"
) -> Step:
    """Run a step with the batch shared out over devices, by `jax.pmap`.

    The same function as `data_parallel`, for code that is built on `jax.pmap`.

    Args:
        step: `(train_state, batch) -> (train_state, metrics)`, which averages its
            gradients and metrics over `axis`.
        devices: None takes all devices of this process.
        axis: name of the axis in the step.

    Raises:
        UsageError: at a call, if the devices do not divide the batch.
    """
    devices = jax.local_devices() if devices is None else list(devices)
    mapped = jax.pmap(
        step, axis_name=axis, in_axes=(None, 0), out_axes=None, devices=devices
    )
    count, mesh = len(devices), Mesh(devices, (axis,))

    def parallel_step(train_state: PyTree, batch: PyTree) -> tuple[PyTree, PyTree]:
        _check_divisible(batch, count)
        parts = lambda x: jnp.reshape(x, (count, x.shape[0] // count, *x.shape[1:]))
        return mapped(replicate(train_state, mesh), jax.tree.map(parts, batch))

    return parallel_step


def _check_divisible(batch: Any, count: int) -> None:
    for leaf in jax.tree.leaves(batch):
        shape = jnp.shape(leaf)
        if not shape or shape[0] % count:
            size = shape[0] if shape else "a scalar"
            raise UsageError("batch size", size, f"a multiple of {count} devices")


def example_keys(
    key: Key[jax.Array, ""], count: int, axis_name: str | None = None
) -> Key[jax.Array, " count"]:
    """Return a key for each example by its place in the global batch.

    Args:
        key: the key of this step's noise, the same on all devices.
        count: examples on this device.
        axis_name: axis over which the batch is shared out, if it is.

    Returns:
        Keys `[count]`; example i of device d has `fold_in(key, d * count + i)`, so
        that the noise does not depend on the number of devices.
    """
    start = 0 if axis_name is None else jax.lax.axis_index(axis_name) * count
    return jax.vmap(jax.random.fold_in, (None, 0))(key, start + jnp.arange(count))


def initialize(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
) -> None:
    """Join the processes of one run; call it before anything uses a device.

    Args:
        coordinator: `host:port` of the first process; `auto` lets JAX find all three
            values (Slurm, Open MPI, TPU pods); None is a run of one process, for
            which there is nothing to do.
        processes: how many processes there are.
        process: this one's number, from 0.

    Raises:
        UsageError: if the values do not fit together, or JAX has already started.
    """
    if coordinator is None:
        if processes not in (None, 1):
            raise UsageError("coordinator", None, "host:port of the first process")
        return
    if coordinator != "auto" and (processes is None or process is None):
        given = (processes, process)
        raise UsageError("processes, process", given, "both, with a coordinator")
    if processes is not None and not 0 <= (process or 0) < processes:
        raise UsageError("process", process, f"0 to {processes - 1}")
    address = None if coordinator == "auto" else coordinator
    try:
        jax.distributed.initialize(address, processes, process)
    except (RuntimeError, ValueError) as error:
        allowed = "a run to join, once, before any device is used"
        raise UsageError("coordinator", coordinator, allowed, str(error)) from error


def is_lead() -> bool:
    """Tell whether this process is the one that writes logs and files."""
    # Asking JAX for the process starts its devices, which may still be configured.
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until all processes of the run have come here."""
    if jax.distributed.is_initialized():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def agree(name: str) -> str:
    """Give all processes the word that the first one chose, of the same length."""
    if not jax.distributed.is_initialized():
        return name
    from jax.experimental import multihost_utils

    letters = np.frombuffer(name.encode(), np.uint8)
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(letters))).decode()


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Put a copy of each array on every device of a mesh.

    With many processes each gives the same tree and holds the copies of its devices.
    """
    sharding = NamedSharding(mesh, P())
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda leaf: _spread(leaf, sharding), tree)


def _spread(leaf: Any, sharding: NamedSharding) -> Any:
    """Replicate one array over processes, of which `device_put` takes global ones."""
    if isinstance(leaf, Tracer):
        return jax.device_put(leaf, sharding)
    if isinstance(leaf, jax.Array):
        if not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = _spread(jax.random.key_data(leaf), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda i: host[i])


def global_batch(mesh: Mesh, local: PyTree) -> PyTree:
    """Join the slices that the processes loaded into one batch over the mesh.

    Args:
        mesh: one-dimensional, over the devices of all processes.
        local: this process's examples, leaves `[batch / processes, ...]`.

    Returns:
        Arrays `[batch, ...]`, split over the mesh in the order of the processes.

    Raises:
        UsageError: if this process's devices do not divide its examples.
    """
    _check_divisible(local, len(mesh.local_devices))
    sharding = NamedSharding(mesh, P(mesh.axis_names[0]))
    join = lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x))
    return jax.tree.map(join, local)
