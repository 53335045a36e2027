"""Residual network of basic blocks, for small images."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from shared.errors import UsageError, check_range
from shared.layers.conv import conv, init_conv
from shared.layers.initializers import variance_scaling
from shared.layers.linear import init_linear, linear
from shared.layers.norm import AxisName, batch_norm, init_batch_norm
from shared.layers.pooling import global_avg_pool
from shared.model import Model, Variables

# Names of the three stages, after their places in the published program's sequence.
STAGES = ("3", "4", "5")


def resnet(
    depth: int,
    channels: int,
    classes: int,
    *,
    width: int = 16,
    axis_name: AxisName | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Model:
    """Return a residual network for images such as CIFAR's.

    A 3x3 convolution is followed by three stages of (depth - 2) / 6 basic blocks, of
    which the second and third halve the image and double the channels, and a linear map
    of the mean over the image. A block adds [convolution, norm, ReLU, convolution,
    norm](x) to x, or to a 1x1 convolution and norm of x where the shape changes, and
    ends in a ReLU.

    Its parameters are `{"features": {"0": conv, "1": norm, "3", "4", "5": [block,
    ...]}, "out_layer"}` with blocks `{"layers": {"0": conv, "1": norm, "3": conv, "4":
    norm}, "downsample": {"0": conv, "1": norm}}`; its state has the norms' running
    statistics at the same places. It maps `[batch, height, width, channels]` to
    `[batch, classes]`.

    Args:
        depth: layers with kernels, 6 n + 2.
        channels: of the images.
        classes: of the outputs.
        width: channels of the first stage.
        axis_name: mapped axes over which norms pool the batch in training.
        dtype: of parameters and state.

    Raises:
        UsageError: for another depth.

    Reference:
        He et al. (2016), section 4.2.
    """
    if depth < 8 or depth % 6 != 2:
        raise UsageError("depth", depth, "6 n + 2, n >= 1")
    for name, size in (("channels", channels), ("classes", classes), ("width", width)):
        check_range(name, size, low=1)

    def init(key: Array) -> Variables:
        first, out, *keys = jax.random.split(key, 2 + len(STAGES))
        params: dict[str, Any] = {"0": _init_conv(first, 3, channels, width, dtype)}
        state: dict[str, Any] = {}
        params["1"], state["1"] = init_batch_norm(width, dtype=dtype)
        for i, (stage, key) in enumerate(zip(STAGES, keys, strict=True)):
            sizes = width * 2 ** max(i - 1, 0), width * 2**i
            blocks = _init_stage(key, (depth - 2) // 6, *sizes, dtype)
            params[stage] = [block.params for block in blocks]
            state[stage] = [block.state for block in blocks]
        out_layer = init_linear(out, 4 * width, classes, dtype=dtype)
        return Variables({"features": params, "out_layer": out_layer}, state)

    def apply(
        variables: Variables,
        x: Float[Array, "batch height width channels"],
        *,
        train: bool = False,
        key: Array | None = None,
    ) -> tuple[Float[Array, "batch classes"], PyTree]:
        del key
        features, old = variables.params["features"], variables.state
        new: dict[str, Any] = {}
        x = conv(features["0"], x)
        options: dict[str, Any] = {"train": train, "axis_name": axis_name}
        x, new["1"] = batch_norm(features["1"], old["1"], x, **options)
        x = jax.nn.relu(x)
        for stage in STAGES:
            new[stage] = []
            for block, state in zip(features[stage], old[stage], strict=True):
                first = stage != STAGES[0] and not new[stage]
                stride = 2 if first else 1
                x, state = _block(block, state, x, stride, **options)
                new[stage].append(state)
        return linear(variables.params["out_layer"], global_avg_pool(x)), new

    return Model(init, apply)


def _init_conv(
    key: Array, window: int, inputs: int, outputs: int, dtype: DTypeLike
) -> dict[str, Array]:
    draw = variance_scaling(2.0, "fan_out", "normal")
    return init_conv(
        key, window, inputs, outputs, bias=False, kernel_init=draw, dtype=dtype
    )


def _init_stage(
    key: Array, blocks: int, inputs: int, outputs: int, dtype: DTypeLike
) -> list[Variables]:
    first, rest = jax.random.split(key)
    # One draw for all equal blocks: compiling a hundred draws takes half a minute.
    init_block = lambda key: _init_block(key, outputs, outputs, dtype)
    alike = jax.vmap(init_block)(jax.random.split(rest, blocks - 1))
    take = lambda i: jax.tree.map(lambda leaf: leaf[i], alike)
    return [
        _init_block(first, inputs, outputs, dtype),
        *(take(i) for i in range(blocks - 1)),
    ]


def _init_block(key: Array, inputs: int, outputs: int, dtype: DTypeLike) -> Variables:
    keys = jax.random.split(key, 3)
    norm = init_batch_norm(outputs, dtype=dtype)
    layers = {
        "0": _init_conv(keys[0], 3, inputs, outputs, dtype),
        "1": norm.params,
        "3": _init_conv(keys[1], 3, outputs, outputs, dtype),
        "4": norm.params,
    }
    params = {"layers": layers}
    state = {"layers": {"1": norm.state, "4": norm.state}}
    if inputs != outputs:
        shortcut = _init_conv(keys[2], 1, inputs, outputs, dtype)
        params["downsample"] = {"0": shortcut, "1": norm.params}
        state["downsample"] = {"1": norm.state}
    return Variables(params, state)


def _block(
    params: PyTree, state: PyTree, x: Array, stride: int, **options: Any
) -> tuple[Array, PyTree]:
    """Apply a basic block; return its outputs and new running statistics."""
    layers, old, new = params["layers"], state["layers"], {}
    # Padding on both sides: "SAME" would pad after only where the stride is 2.
    y = conv(layers["0"], x, stride=stride, padding=1)
    y, new["1"] = batch_norm(layers["1"], old["1"], y, **options)
    y = conv(layers["3"], jax.nn.relu(y), padding=1)
    y, new["4"] = batch_norm(layers["4"], old["4"], y, **options)
    state = {**state, "layers": new}
    if "downsample" in params:
        shortcut, running = params["downsample"], state["downsample"]["1"]
        x = conv(shortcut["0"], x, stride=stride, padding=0)
        x, running = batch_norm(shortcut["1"], running, x, **options)
        state["downsample"] = {"1": running}
    return jax.nn.relu(x + y), state
