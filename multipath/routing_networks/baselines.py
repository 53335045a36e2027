"""What routing is compared with: one network for all, one for each, and mixtures.

All of them are `Network`s without decisions: their trajectories have no steps.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from multipath.routing_networks.network import (
    Head,
    Network,
    check_tasks,
    dense,
    init_dense,
    spread,
)
from multipath.routing_networks.trajectory import Trajectory, initialize
from shared import sweep
from shared.errors import UsageError, check_range
from shared.layers import linear as layers
from shared.model import Variables


def perceptron(widths: tuple[int, ...], *, tasks: int = 0) -> Head:
    """Return a perceptron for all tasks.

    Args:
        widths: of its layers, the last one the outputs.
        tasks: if not 0, the task is appended to the features, one-hot among so many.
    """

    def init(key: Array, features: int) -> Variables:
        layers = init_dense(key, (features + tasks, *widths))
        return Variables({"routing": {}, "modules": layers}, {})

    def apply(params: Any, x: Array, trajectory: Trajectory, **options: Any):
        del options
        if tasks:
            x = _with_task(x, trajectory, tasks)
        return dense(params["modules"], x, len(widths)), trajectory

    return Head(init, apply)


def matching_width(count: int, features: int, outputs: int, depth: int) -> int:
    """Return the width of a perceptron that has about so many parameters.

    Args:
        count: of parameters.
        features: of the input.
        outputs: of the last layer.
        depth: layers, 2 at least; all but the last are equally wide.
    """
    check_range("depth", depth, low=2)
    # a w² + b w + outputs = count
    a, b = depth - 2, features + outputs + depth - 1
    rest = max(count - outputs, 0)
    if not a:
        return max(round(rest / b), 1)
    return max(round((math.sqrt(b * b + 4 * a * rest) - b) / (2 * a)), 1)


def _with_task(x: Array, trajectory: Trajectory, count: int) -> Array:
    tasks = trajectory.tasks
    assert tasks is not None
    check_tasks(tasks, count)
    return jnp.concatenate([x, jax.nn.one_hot(tasks, count, dtype=x.dtype)], -1)


def soft_mixture(widths: tuple[int, ...], *, modules: int, tasks: int = 0) -> Head:
    """Return layers that mix all their modules.

    y = Σ_k softmax(g(x))_k m_k(x), g linear; m_k is linear, then ReLU but in the last
    layer. The gates g are the `routing` parameters; they learn by the module loss.

    Args:
        widths: of the layers, the last one the outputs.
        modules: K.
        tasks: if not 0, the gates see the task as well, one-hot among so many.

    Reference:
        Jacobs et al. (1991).
    """
    check_range("modules", modules, low=1)
    depth = len(widths)

    def init(key: Array, features: int) -> Variables:
        keys, inputs = jax.random.split(key, (depth, 2)), (features, *widths)
        gates, mixed = {}, {}
        for i in range(depth):
            gate = init_dense(keys[i, 0], (inputs[i] + tasks, modules))["layer0"]
            gates[f"gate{i}"] = gate
            stack = init_dense(keys[i, 1], inputs[i : i + 2], modules)["layer0"]
            mixed[f"selection{i}"] = stack
        return Variables({"routing": gates, "modules": mixed}, {})

    def apply(params: Any, x: Array, trajectory: Trajectory, **options: Any):
        del options
        for i in range(depth):
            seen = _with_task(x, trajectory, tasks) if tasks else x
            scores = layers.linear(params["routing"][f"gate{i}"], seen)
            y = _all(params["modules"][f"selection{i}"], x[None])
            y = jax.nn.relu(y) if i + 1 < depth else y
            x = jnp.einsum("bk,kbo->bo", jax.nn.softmax(scores), y)
        return x, trajectory

    return Head(init, apply)


def cross_stitch(widths: tuple[int, ...], *, tasks: int) -> Head:
    """Return a perceptron for each task, which exchange their hidden layers.

    h_t <- Σ_s A_ts h_s after each hidden layer. A begins with 0.9 on the diagonal and
    shares the rest out.

    Args:
        widths: of the layers, the last one the outputs.
        tasks: how many perceptrons.

    Reference:
        Misra et al. (2016), equation 1.
    """
    check_range("tasks", tasks, low=1)

    def init(key: Array, features: int) -> Variables:
        columns = init_dense(key, (features, *widths), tasks)
        own = 0.9 if tasks > 1 else 1.0
        other = (1 - own) / max(tasks - 1, 1)
        dtype = jnp.result_type(float)
        first = other + (own - other) * jnp.eye(tasks, dtype=dtype)
        stitches = {f"stitch{i}": first for i in range(len(widths) - 1)}
        return Variables({"routing": {}, "modules": {**columns, **stitches}}, {})

    def apply(params: Any, x: Array, trajectory: Trajectory, **options: Any):
        del options
        rows = trajectory.tasks
        assert rows is not None
        check_tasks(rows, tasks)
        modules, x = params["modules"], x[None]
        for i in range(len(widths)):
            x = _all(modules[f"layer{i}"], x)
            if i + 1 < len(widths):
                x = jax.nn.relu(x)
                x = jnp.einsum("ts,sbo->tbo", modules[f"stitch{i}"], x)
        return x[rows, jnp.arange(len(rows))], trajectory

    return Head(init, apply)


def _all(
    stack: dict[str, Array], x: Float[Array, "_ rows inputs"]
) -> Float[Array, "copies rows outputs"]:
    """Apply each of the stacked linear maps, to all rows or to rows of its own."""
    kernel = stack["kernel"]
    x = jnp.broadcast_to(x, (len(kernel), *x.shape[1:]))
    return jnp.matmul(x, kernel) + stack["bias"][:, None]


def separate(
    network: Network, tasks: int, *, even: bool = False, how: str = "auto"
) -> Network:
    """Return a network of its own for each task, stacked.

    Each sees the rows of its task alone. The work is that of as many rows as there are
    images for each network, since any of them might be of its task.

    Args:
        network: of one task, without decisions.
        tasks: how many.
        even: training batches hold equally many rows of each task, which makes the
            work that of one network. Rows beyond a task's share get NaN.
        how: schedule over networks, see `sweep.fan_out`.
    """

    def init(key: Array) -> Variables:
        params, state = jax.vmap(network.init)(jax.random.split(key, tasks))
        modules = params["modules"]
        return Variables({"routing": {}, "modules": modules}, {**state, "memory": {}})

    def apply(
        variables: Variables,
        inputs: Float[Array, "images ..."],
        tasks_: Int[Array, " rows"],
        *,
        train: bool = False,
        key: Array | None = None,
        **options: Any,
    ) -> tuple[Float[Array, "rows outputs"], Trajectory, Any]:
        del options
        check_tasks(tasks_, tasks)
        _, trajectory, _ = initialize(spread(inputs[:, :0], tasks_), tasks_, {})
        images, rows = len(inputs), len(tasks_)
        room = _share(rows, tasks) if even and train else images
        place, rank, totals = _shared_out(tasks_, tasks, room)
        keys = None if key is None else jax.random.split(key, tasks)

        def one(params, state, place, key):
            own = inputs[place // (rows // images)]
            labels = jnp.zeros(room, tasks_.dtype)
            both = Variables({"routing": {}, "modules": params}, state)
            y, _, after = network.apply(both, own, labels, train=train, key=key)
            return y, after["trunk"]

        in_axes = (0, 0, 0, None if keys is None else 0)
        mapped = sweep.fan_out(one, how=how, in_axes=in_axes)
        y, trunk = mapped(variables.params["modules"], variables.state, place, keys)
        y = y.at[tasks_, rank].get(mode="fill", fill_value=jnp.nan)
        trunk = _kept(variables.state["trunk"], trunk, totals > 0)
        return y, trajectory, {"memory": {}, "trunk": trunk}

    return Network(init, apply)


def _share(rows: int, tasks: int) -> int:
    if rows % tasks:
        allowed = f"a multiple of {tasks}, as many of each task"
        raise UsageError("tasks", f"{rows} rows", allowed)
    return rows // tasks


def _kept(old: Any, new: Any, changed: Bool[Array, " tasks"]) -> Any:
    """Return the old state of the networks that saw no row."""
    wide = lambda a: changed.reshape(-1, *(1,) * (a.ndim - 1))
    return jax.tree.map(lambda a, b: jnp.where(wide(b), b, a), old, new)


def _shared_out(
    tasks: Int[Array, " rows"], count: int, room: int
) -> tuple[Int[Array, "tasks room"], Int[Array, " rows"], Int[Array, " tasks"]]:
    """Give each task its rows, again and again until there is no room.

    Rows that come again, unlike empty places, leave the statistics of a batch almost
    as they are; quite so if all come equally often.

    Returns:
        The rows of each task, the first place of each row among them, and how many
        rows each task has.
    """
    totals = jnp.bincount(tasks, length=count)
    order = jnp.argsort(tasks, stable=True)
    starts = jnp.cumsum(totals) - totals
    turn = jnp.arange(room)[None] % jnp.maximum(totals, 1)[:, None]
    place = order[jnp.minimum(starts[:, None] + turn, len(tasks) - 1)]
    nth = jnp.arange(len(tasks)) - starts[tasks[order]]
    return place, jnp.zeros_like(nth).at[order].set(nth), totals
