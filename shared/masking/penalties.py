"""What pushes masks towards keeping less."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from shared.errors import check_choice
from shared.masking.logits import block_sizes
from shared.masking.samples import BETA, GAMMA, KINDS, ZETA, steepness

Number = float | int | Float[Array, ""]


def linear_penalty(
    logits: PyTree, scales: PyTree | None = None, params: PyTree | None = None
) -> Float[Array, ""]:
    """Return Σ_p s_p Σ_j l_pj: each logit is pushed down with constant force.

    Args:
        logits: tree with None where there is no mask.
        scales: s_p, a tree of numbers like `logits`; 1 by default.
        params: if given, each logit counts once for each weight that it covers.
    """
    sums = _weighted(jax.tree.map(jnp.sum, logits), logits, params)
    if scales is not None:
        sums = jax.tree.map(jnp.multiply, sums, scales)
    return jax.tree.reduce(jnp.add, sums)


def expected_l0(
    logits: PyTree,
    kind: str = "gumbel",
    *,
    tau: Number = 1.0,
    progress: Number = 0.0,
    params: PyTree | None = None,
) -> Float[Array, ""]:
    """Return the expected number of weights that samples keep, at least in part.

    Σ σ(l) for "gumbel", Σ σ(l - β log(-γ/ζ)) for "hard_concrete", whose samples are
    above 0 with that probability, and Σ σ(βl), the sum of the masks themselves, for
    "annealed".

    Args:
        logits: tree with None where there is no mask.
        kind, tau, progress: see `draw`.
        params: if given, each logit counts once for each weight that it covers.

    Reference:
        Louizos et al. (2018), equation 12; Savarese et al. (2020), equation 6.
    """
    check_choice("kind", kind, KINDS)

    def kept(leaf: Array) -> Array:
        if kind == "hard_concrete":
            leaf = leaf + (BETA * jnp.log(-ZETA / GAMMA) * tau).astype(leaf.dtype)
        if kind == "annealed":
            leaf = leaf * steepness(progress, leaf.dtype)
        return jnp.sum(jax.nn.sigmoid(leaf))

    counts = _weighted(jax.tree.map(kept, logits), logits, params)
    return jax.tree.reduce(jnp.add, counts)


def target_density(
    progress: Number, target: Number, *, ramp: float | int = 1.0
) -> Float[Array, ""]:
    """Return the density to have by now: linear from 1 to the target, then constant.

    Args:
        progress: of the training, in [0, 1].
        target: density at the end.
        ramp: progress at which the target is reached, in (0, 1].
    """
    passed = jnp.clip(jnp.asarray(progress) / ramp, 0, 1)
    return 1 + (jnp.asarray(target) - 1) * passed


def density_penalty(
    logits: PyTree,
    target: Number,
    kind: str = "gumbel",
    *,
    tau: Number = 1.0,
    progress: Number = 0.0,
    params: PyTree | None = None,
) -> Float[Array, ""]:
    """Return W (d - target)², d = expected_l0 / W of W masked weights.

    The factor W makes the force on a logit 2 (d - target) times that of `expected_l0`,
    whatever the size of the network.

    Args:
        logits: tree with None where there is no mask.
        target: density to approach from either side, see `target_density`.
        kind, tau, progress, params: see `expected_l0`.
    """
    kept = expected_l0(logits, kind, tau=tau, progress=progress, params=params)
    sizes = _weighted(jax.tree.map(lambda leaf: leaf.size, logits), logits, params)
    weights = sum(jax.tree.leaves(sizes))
    return weights * (kept / weights - target) ** 2


def _weighted(sums: PyTree, logits: PyTree, params: PyTree | None) -> PyTree:
    if params is None:
        return sums
    return jax.tree.map(lambda s, size: s * size, sums, block_sizes(logits, params))
