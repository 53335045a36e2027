"""Units of convolution and batch normalisation, of which networks are made.

A unit takes params and state, dicts of the same names. In mode "batch" it normalises by
the batch alone, and its state is empty. Images are `[batch, height, width, channels]`.

Reference: Pham et al. (2018), section 2.4; Courbariaux et al. (2016).
"""

from typing import Any, NamedTuple

import jax
from jax import numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from enasq import exact, layers, norm, quantization
from enasq.policy import Precision
from enasq.quantization import Quantizer
from shared.model import Variables

Tree = dict[str, Any]
Images = Float[Array, "batch height width channels"]
Outputs = Float[Array, "batch high wide outputs"]

SAMPLES = 256
"""Draws of a normal distribution to which learned steps of activations are fitted."""


class Norms(NamedTuple):
    """How a pass normalises; arguments of `enasq.norm.batch_norm`.

    The mode may be "exact" too: running statistics, by the rules of `enasq.exact`.
    """

    mode: str
    momentum: float | int = 0.9
    epsilon: float | int = norm.EPSILON
    axis_name: str | None = None


class Kind(NamedTuple):
    """How the convolutions of a unit work.

    Attributes:
        precision: the quantisers.
        inner: normalise and quantise between the stages of separable convolutions.
        rescale: multiply the gradients of k-bit separable kernels by the Glorot factor.
    """

    precision: Precision
    inner: bool = False
    rescale: bool = False


def activate(params: Tree, quantizer: Quantizer, x: Images) -> Images:
    """Quantise what a convolution reads; params may hold `activation`, what it learns.

    Quantisers that draw take the likelier value.
    """
    own = params.get("activation", {})
    return quantization.quantize(quantizer, own, x, role="activations")


def learned(
    key: Array, quantizer: Quantizer | None, channels: int, dtype: DTypeLike
) -> Tree:
    """Return `activation` if the quantiser of what is read learns anything."""
    if quantizer is None:
        return {}
    sample = jax.random.normal(key, (SAMPLES, channels), dtype)
    own = quantization.init(quantizer, sample, role="activations")
    return {"activation": own} if own else {}


def _with_norm(
    params: Tree, channels: int, running: bool, dtype: DTypeLike
) -> Variables:
    own = norm.init(channels, running=running, dtype=dtype)
    state = {"norm": own.state} if running else {}
    return Variables(params | {"norm": own.params}, state)


def normalize(
    params: Tree,
    state: Tree,
    x: Images,
    norms: Norms,
    sums: exact.Sums | None = None,
    *,
    node: bool = True,
) -> tuple[Images, Tree]:
    """Normalise by the unit's `norm`; return the outputs and the new state.

    Args:
        params, state: of the unit.
        x: sums of a convolution.
        norms: how.
        sums: what is known of the sums, for mode "exact".
        node: whether the outputs go into nodes; that mode rounds them then.
    """
    if norms.mode == "exact" and sums is not None:
        own = params["norm"], state["norm"], x, norms.epsilon
        return exact.normalize(*own, sums, node=node), state
    y, changed = norm.batch_norm(
        params["norm"],
        state.get("norm", {}),
        x,
        mode=norms.mode,
        momentum=norms.momentum,
        epsilon=norms.epsilon,
        axis_name=norms.axis_name,
    )
    return y, state | ({"norm": changed} if changed else {})


def init_unit(
    key: Key[Array, ""],
    window: int,
    inputs: int,
    outputs: int,
    weights: Quantizer,
    activations: Quantizer | None,
    *,
    running: bool,
    dtype: DTypeLike = jnp.float32,
) -> Variables:
    """Return the variables of `unit`.

    Args:
        key: consumed.
        window: rows and columns of the kernel.
        inputs, outputs: channels.
        weights: quantiser of the kernel.
        activations: of what it reads; None for units without activation.
        running: whether there are running statistics.
        dtype: of all of them.
    """
    key, other = jax.random.split(key)
    params: Tree = {
        "conv": layers.init_conv(key, window, inputs, outputs, weights, dtype=dtype)
    }
    params |= learned(other, activations, inputs, dtype)
    return _with_norm(params, outputs, running, dtype)


def unit(
    params: Tree,
    state: Tree,
    x: Images,
    weights: Quantizer,
    activations: Quantizer | None,
    norms: Norms,
) -> tuple[Outputs, Tree]:
    """Activate, convolve, normalise; without activation if that is None."""
    if activations is not None:
        x = activate(params, activations, x)
    y = layers.conv(params["conv"], x, weights)
    return normalize(
        params, state, y, norms, _sums(params["conv"], norms, weights, activations)
    )


def _sums(
    conv: Tree,
    norms: Norms,
    weights: Quantizer,
    read: Quantizer | None,
    *,
    deep: bool = False,
) -> exact.Sums | None:
    """Return what mode "exact" has to know of the sums of a convolution."""
    if norms.mode != "exact" or read is None:
        return None
    return exact.sums_of(weights, conv["kernel"].shape, read, deep=deep)


def init_reduction(
    key: Key[Array, ""],
    inputs: int,
    outputs: int,
    weights: Quantizer,
    activations: Quantizer | None,
    *,
    running: bool,
    dtype: DTypeLike = jnp.float32,
) -> Variables:
    """Return the variables of `reduction`; arguments as of `init_unit`."""
    first, second, other = jax.random.split(key, 3)
    half = outputs // 2
    params: Tree = {
        "path_1": layers.init_conv(first, 1, inputs, half, weights, dtype=dtype),
        "path_2": layers.init_conv(
            second, 1, inputs, outputs - half, weights, dtype=dtype
        ),
    }
    params |= learned(other, activations, inputs, dtype)
    return _with_norm(params, outputs, running, dtype)


def reduction(
    params: Tree,
    state: Tree,
    x: Images,
    weights: Quantizer,
    activations: Quantizer | None,
    norms: Norms,
) -> tuple[Outputs, Tree]:
    """Halve height and width: two 1x1 convolutions with stride 2, one shifted by one.

    Each gives half of the channels; they are normalised together.
    """
    y = halve(params, x, weights, activations)
    sums = _sums(params["path_1"], norms, weights, activations)
    return normalize(params, state, y, norms, sums)


def halve(
    params: Tree, x: Images, weights: Quantizer, activations: Quantizer | None
) -> Outputs:
    """Return the convolutions of `reduction`, not normalised."""
    if activations is not None:
        x = activate(params, activations, x)
    paths = ("path_1", x[:, ::2, ::2]), ("path_2", x[:, 1::2, 1::2])
    halves = [layers.conv(params[name], part, weights) for name, part in paths]
    return jnp.concatenate(halves, -1)


def init_separable(
    key: Key[Array, ""],
    window: int,
    channels: int,
    kind: Kind,
    *,
    running: bool,
    dtype: DTypeLike = jnp.float32,
) -> Variables:
    """Return the variables of `separable`; arguments as of `init_unit`."""
    deep, point, outer, inner = jax.random.split(key, 4)
    weights, activations = kind.precision.weights, kind.precision.activations
    params: Tree = {
        "depthwise": layers.init_depthwise(
            deep, window, channels, weights, dtype=dtype
        ),
        "pointwise": layers.init_conv(
            point, 1, channels, channels, weights, dtype=dtype
        ),
    }
    params |= learned(outer, activations, channels, dtype)
    params, state = _with_norm(params, channels, running, dtype)
    if kind.inner:
        own = learned(inner, activations, channels, dtype)
        between = _with_norm(own, channels, running, dtype)
        params |= {"inner": between.params}
        state |= {"inner": between.state} if running else {}
    return Variables(params, state)


def separable(
    params: Tree,
    state: Tree,
    x: Images,
    kind: Kind,
    norms: Norms,
    *,
    stride: int = 1,
    node: bool = True,
) -> tuple[Outputs, Tree]:
    """Activate, convolve each channel by itself, then point by point; normalise.

    The outputs go into a node, or into one activation alone.
    """
    y = spread(params, x, kind, stride=stride)
    y, state = mix(params, state, y, kind, norms)
    own = kind.precision
    sums = _sums(params["pointwise"], norms, own.weights, own.activations)
    return normalize(params, state, y, norms, sums, node=node)


def spread(params: Tree, x: Images, kind: Kind, *, stride: int = 1) -> Outputs:
    """Return the depthwise stage of `separable`."""
    x = activate(params, kind.precision.activations, x)
    own, weights = params["depthwise"], kind.precision.weights
    return layers.depthwise(
        own, x, weights, stride=stride, factor=_factor(params, kind)
    )


def mix(
    params: Tree, state: Tree, x: Images, kind: Kind, norms: Norms
) -> tuple[Outputs, Tree]:
    """Return the pointwise stage of `separable`, and the new state."""
    if kind.inner:
        inner, own = params["inner"], state.get("inner", {})
        pair = kind.precision.weights, kind.precision.activations
        sums = _sums(params["depthwise"], norms, *pair, deep=True)
        x, own = normalize(inner, own, x, norms, sums, node=False)
        x = activate(inner, kind.precision.activations, x)
        state = state | ({"inner": own} if own else {})
    factor = _factor(params, kind)
    y = layers.conv(params["pointwise"], x, kind.precision.weights, factor=factor)
    return y, state


def _factor(params: Tree, kind: Kind) -> float | int:
    if not kind.rescale or kind.precision.weights.name != "kbit":
        return 1
    window = params["depthwise"]["kernel"].shape[:2]
    return layers.rate_multiplier((*window, *params["pointwise"]["kernel"].shape[2:]))
