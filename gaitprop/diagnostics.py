"""Statistics of outputs, updates and kernels."""

from collections.abc import Sequence

import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from gaitprop import regulariser
from gaitprop.networks import Params, onehot
from shared.errors import UsageError
from shared.metrics import angle

CONDITION_LIMIT = 0.1
"""A kernel is singular when its condition number times machine epsilon passes this."""


def metrics(
    output: Float[Array, "batch units"], labels: Int[Array, " batch"], classes: int
) -> dict[str, Array]:
    """Return means over the rows of a batch.

    Args:
        output: h_L; units beyond `classes` are ignored.
        labels: the right classes.
        classes: number of classes.

    Returns:
        `accuracy` (the first of equal maxima counts) and `mse`, the squared error
        summed over classes.
    """
    scores = output[:, :classes]
    error = scores - onehot(labels, classes, scores.dtype)
    right = jnp.argmax(scores, axis=1) == labels
    return {
        "accuracy": jnp.mean(right, dtype=scores.dtype),
        "mse": jnp.mean(jnp.sum(error**2, axis=1)),
    }


def upstream_losses(
    output: Float[Array, "batch units"], labels: Int[Array, " batch"], classes: int
) -> dict[str, Array]:
    """Return the two numbers that the published program calls loss.

    Neither is the training objective; they serve to compare files. With o the scores
    and y the one-hot labels: `loss_upstream_cpu = mean(o - y)^2` and
    `loss_upstream_gpu = sum((mean(o) - y)^2)`.
    """
    scores = output[:, :classes]
    wanted = onehot(labels, classes, scores.dtype)
    return {
        "loss_upstream_cpu": jnp.mean(scores - wanted) ** 2,
        "loss_upstream_gpu": jnp.sum((jnp.mean(scores) - wanted) ** 2),
    }


def peak_final(series: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Return the largest and the last value of a series.

    Raises:
        UsageError: if the series is empty.
    """
    values = np.asarray(series, float)
    if values.size == 0:
        raise UsageError("series", "an empty one", "at least one value")
    return float(np.nanmax(values)), float(values[-1])


def angles(first: Params, second: Params) -> Float[Array, " layers"]:
    """Return the angle between two sets of updates for each layer's kernel, in degrees.

    For the angle to BP both come from the same parameters and batch, without the
    regulariser.
    """
    pairs = zip(first, second, strict=True)
    return jnp.stack([angle(f["kernel"], s["kernel"]) for f, s in pairs])


def orthogonality(params: Params) -> dict[str, Float[Array, " layers"]]:
    """Return how far each layer's kernel is from orthogonal.

    Returns:
        `off_norm`, `||off(W W^T)||_F`; `row_norm_mean` and `row_norm_sd`; and
        `condition`, the 2-norm condition number. The last needs singular values, which
        take far longer than a training step.
    """
    columns = [kernel_statistics(layer["kernel"]) for layer in params]
    return jax.tree.map(lambda *values: jnp.stack(values), *columns)


def kernel_statistics(kernel: Float[Array, "n m"]) -> dict[str, Array]:
    """Return the entries of `orthogonality` for one kernel."""
    norms = jnp.linalg.norm(kernel, axis=1)
    off = regulariser.excess(regulariser.gram(kernel), "offdiag")
    values = jnp.linalg.svd(kernel, compute_uv=False)
    return {
        "off_norm": jnp.linalg.norm(off),
        "row_norm_mean": jnp.mean(norms),
        "row_norm_sd": jnp.std(norms),
        "condition": values[0] / values[-1],
    }


def find_singular(params: Params) -> str | None:
    """Name the inverted kernels that cannot be inverted at their precision.

    Layer 1 is never inverted, so its kernel may be singular.

    Returns:
        One sentence naming each such layer and its condition number, or None.
    """
    found = []
    for number, layer in enumerate(params[1:], start=2):
        kernel = np.asarray(layer["kernel"], np.float64)
        epsilon = float(np.finfo(np.asarray(layer["kernel"]).dtype).eps)
        if not np.isfinite(kernel).all():
            found.append(f"layer {number} (not finite)")
            continue
        condition = float(np.linalg.cond(kernel))
        if not condition * epsilon < CONDITION_LIMIT:
            found.append(f"layer {number} (condition number {condition:.1e})")
    return f"singular kernel: {', '.join(found)}" if found else None
