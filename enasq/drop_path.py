"""Dropping whole branches of a cell, an example at a time.

Reference: Larsson et al. (2017), FractalNet; the schedule is that of Zoph et al. (2018)
and Pham et al. (2018).
"""

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int, Key


def keep_rate(
    keep: float | int,
    cell: int,
    cells: int,
    step: int | Int[Array, "..."],
    steps: int,
) -> Float[Array, "..."]:
    """Return how likely the branches of a cell are kept at a step of training.

    1 - min(1, (step + 1) / steps) (cell + 1) / cells (1 - keep): the last cell at the
    end of training has `keep`.

    Args:
        keep: in (0, 1].
        cell: index from 0.
        cells: number of cells.
        step: steps done; may be traced.
        steps: of the whole training.
    """
    done = (jnp.asarray(step) + 1) / steps
    deep = (cell + 1) / cells * (1 - keep)
    return 1 - jnp.minimum(1, done) * deep


def drop_path(
    x: Float[Array, "*shape"],
    keep: float | int | Float[Array, ""],
    key: Key[Array, ""],
) -> Float[Array, "*shape"]:
    """Return x / keep or 0, by one draw for each example.

    Args:
        x: outputs of a branch, whose leading axis counts examples.
        keep: probability to stay, in (0, 1]; may be traced.
        key: consumed.
    """
    keep = jnp.asarray(keep, x.dtype)
    draws = jax.random.uniform(key, (len(x), *[1] * (x.ndim - 1)), x.dtype)
    return x * (jnp.floor(keep + draws) / keep)
