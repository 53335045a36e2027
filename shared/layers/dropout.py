"""Dropout, of single values, whole channels or whole examples."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from shared.errors import UsageError, check_range


def dropout(
    x: Float[Array, "*shape"],
    rate: float | int | Float[Array, ""],
    *,
    train: bool,
    key: Array | None = None,
    keep: Bool[Array, "..."] | None = None,
    shared_axes: tuple[int, ...] = (),
    rescale: bool = True,
) -> Float[Array, "*shape"]:
    """Set values to zero with probability `rate`, in training.

    y = x m / (1 - rate), m ~ Bernoulli(1 - rate).

    Args:
        x: any shape.
        rate: in [0, 1); may be traced.
        train: if false, x is returned as it is.
        key: draws m; consumed.
        keep: m itself, in place of a key; of the rank of x, with axes of 1 or of the
            size in x.
        shared_axes: axes along which all values share one m (all but the first: a
            whole example is dropped or kept).
        rescale: whether to divide by 1 - rate.

    Raises:
        UsageError: in training, for a rate outside [0, 1) or no source of m.

    Reference:
        Srivastava et al. (2014).
    """
    if not isinstance(rate, jax.Array):
        check_range("rate", rate, low=0, high=1, high_open=True)
    if not train or (not isinstance(rate, jax.Array) and rate == 0):
        return x
    kept = 1 - jnp.asarray(rate, x.dtype)
    if keep is None:
        if key is None:
            raise UsageError("key", key, "a key, or `keep`, for dropout in training")
        shared = {axis % x.ndim for axis in shared_axes}
        shape = [1 if axis in shared else size for axis, size in enumerate(x.shape)]
        keep = jax.random.bernoulli(key, kept, shape)
    scaled = x / kept if rescale else x
    return jnp.where(keep, scaled, jnp.zeros_like(x))


def active_key(key: Array | None, rate: float | int, *, train: bool) -> Array | None:
    """Return the key of a network that drops at this rate, None if it does not now.

    Raises:
        UsageError: in training, if a key is needed and there is none.
    """
    if not train or rate == 0:
        return None
    if key is None:
        raise UsageError("key", key, "a random key, for dropout in training")
    return key
