"""Evaluation of a network in training by the rules of its packed form.

Sums of convolutions are whole numbers of steps. What feeds one activation is normalised
in float32, in the order of `enasq.thresholds`; what feeds a node is rounded as in
`enasq.fixed_point`. So an exported network gives the very same activations.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp
from jaxtyping import Array

from enasq import fixed_point, packing, policy, pools, schemes, thresholds
from enasq.cell import Architecture
from enasq.plan import Network
from enasq.policy import QuantPolicy, kind_of
from enasq.quantization import Quantizer
from enasq.records import records
from shared.errors import UsageError

STEP = 2.0**-fixed_point.FRACTION
WIDEST = 2**24
"""float32 holds all whole numbers up to this one."""


class Sums(NamedTuple):
    """What is known of the sums of a convolution.

    Attributes:
        alpha: value of one step of them.
        bound: of their size, in steps.
    """

    alpha: float
    bound: int


def obstacle(network: Network, own: QuantPolicy, arc: Architecture) -> str | None:
    """Return why a network cannot run on integers alone, None if it can.

    Beside what `policy.obstacle` tells, float32 must hold every sum of codes, else
    neither training nor simulation would find the sums of packed execution.

    Args:
        network: fixed.
        own: its quantisers.
        arc: its architecture.
    """
    if why := policy.obstacle(own):
        return why
    for layer in records(network, own, arc):
        if layer.kind == "dense":
            continue
        inputs = 1 if layer.kind == "depthwise" else layer.inputs
        bits = layer.weight_bits, layer.activation_bits
        if layer.kernel**2 * inputs * 2 ** (sum(bits) - 2) >= WIDEST:
            where = f"{layer.name}: sums over {inputs} channels"
            return f"{where} of {bits[0]} x {bits[1]} bits reach 2^24"
    return None


class Coded(NamedTuple):
    """Codes of weights or of what they meet: value of a step, and the largest."""

    step: float
    most: int


def coded(quantizer: Quantizer, shape: Sequence[int] = ()) -> Coded:
    """Return what the codes of a quantiser are like.

    Args:
        quantizer: of weights, or of activations.
        shape: of the weights; activations have none, and no range.

    Raises:
        UsageError: if its codes cannot be packed.
    """
    kind = kind_of(quantizer)
    if kind is None:
        raise UsageError("quantizer", quantizer.name, "one whose codes are packed")
    if kind[0] == "signed":
        return fixed(kind[1])
    return Coded(float(schemes.bound(quantizer, shape)) if shape else 1.0, 1)


def fixed(bits: int) -> Coded:
    """Return what fixed-point numbers in [-1, 1) are like."""
    return Coded(2.0 ** (1 - bits), -packing.span("signed", bits)[0])


def sums_of(
    weights: Quantizer,
    shape: Sequence[int],
    read: Quantizer | int,
    *,
    deep: bool = False,
) -> Sums:
    """Return what is known of the sums of a convolution.

    Args:
        weights: quantiser of the kernel.
        shape: of the kernel.
        read: quantiser of what it reads, or the bits of fixed-point numbers.
        deep: whether each channel is convolved by itself.
    """
    own = coded(weights, shape)
    other = fixed(read) if isinstance(read, int) else coded(read)
    taps = shape[0] * shape[1] * (1 if deep else shape[2])
    return Sums(own.step * other.step, taps * own.most * other.most)


def normalize(
    params: dict[str, Any],
    state: dict[str, Any],
    x: Array,
    epsilon: float | int,
    sums: Sums,
    *,
    node: bool,
) -> Array:
    """Normalise sums by running statistics.

    Args:
        params, state: of the norm.
        x: sums of a convolution, float32.
        epsilon: added to variances.
        sums: what is known of them.
        node: round to a multiple of 2^-8, as nodes are.
    """
    norm = _affine(params, state, epsilon)
    acc = jnp.round(x / jnp.asarray(sums.alpha, x.dtype)).astype(jnp.int32)
    if not node:
        return thresholds.normalise(acc, norm, sums.alpha)
    multiplier, start, shift, _ = fixed_point.numbers(
        norm, sums.bound, sums.alpha, fixed_point.FRACTION, jnp
    )
    return fixed_point.value(acc, multiplier, start, shift).astype(x.dtype) * STEP


def _affine(
    params: dict[str, Any], state: dict[str, Any], epsilon: float | int
) -> thresholds.Affine:
    """Return a norm, rounded as NumPy does it: a / sqrt(b) would be a rsqrt(b)."""
    alone = jax.lax.optimization_barrier
    root = alone(jnp.sqrt(alone(state["var"] + jnp.asarray(epsilon, jnp.float32))))
    factor = alone(params["scale"] / root)
    return thresholds.Affine(state["mean"], factor, params["offset"])  # type: ignore[arg-type]


def avg_pool(x: Array, *, stride: int) -> Array:
    """Take means of nodes, to the nearest multiple of 2^-8."""
    whole = jnp.round(x / STEP).astype(jnp.int32)
    return pools.whole_means(whole, stride=stride).astype(x.dtype) * STEP
