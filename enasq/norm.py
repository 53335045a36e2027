"""Batch normalisation of quantised networks.

Running statistics are averages over the updates, corrected for their start, so the
first update replaces the initial values; the running variance is the unbiased one.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from enasq.batch_gradient import normalize_batch
from shared.errors import check_choice
from shared.layers import norm
from shared.model import Variables

EPSILON = 1.001e-5
"""What the published program adds to variances, whatever it asks for."""

MODES = ("train", "eval", "batch")


def init(
    channels: int, *, running: bool = True, dtype: DTypeLike = jnp.float32
) -> Variables:
    """Return params (`scale` 1, `offset` 0) and state (`mean` 0, `var` 1, `count` 0).

    Args:
        channels: size of the last axis.
        running: whether there are running statistics; without, the state is empty.
        dtype: of all of them.
    """
    variables = norm.init_batch_norm(channels, dtype=dtype)
    return variables if running else Variables(variables.params, {})


def batch_norm(
    params: dict[str, Array],
    state: dict[str, Array],
    x: Float[Array, "*lead channels"],
    *,
    mode: Literal["train", "eval", "batch"] | str,
    momentum: float | int = 0.9,
    epsilon: float | int = EPSILON,
    axis_name: norm.AxisName | None = None,
) -> tuple[Float[Array, "*lead channels"], dict[str, Array]]:
    """Normalise each channel: y = scale (x - mean) / √(var + epsilon) + offset.

    Update t of a running statistic r by that of a batch b is
    r <- r + (1 - momentum) / (1 - momentum^t) (b - r).

    Args:
        params: `scale` and `offset`.
        state: `mean`, `var` and `count` (of updates); may be empty for "batch".
        x: any leading axes.
        mode: "train" uses the batch's mean and biased variance and updates the state,
            "eval" uses the running ones, "batch" the batch's and leaves the state.
        momentum: weight of the old statistics.
        epsilon: added to the variance.
        axis_name: mapped axes to pool the batch's statistics over.

    Returns:
        The outputs, and the new state.

    Reference:
        Ioffe and Szegedy (2015).
    """
    check_choice("mode", mode, MODES)
    running = functools.partial(
        norm.batch_norm,
        params,
        state,
        decay=float(momentum),
        epsilon=float(epsilon),
        average="debiased",
        axis_name=axis_name,
    )
    if mode == "eval":
        return running(x, train=False)
    y = normalize_batch(params, x, epsilon=float(epsilon), axis_name=axis_name)
    if mode == "train":
        # The same moments again, which a compiler computes once.
        _, state = running(jax.lax.stop_gradient(x), train=True)
    return y, state
