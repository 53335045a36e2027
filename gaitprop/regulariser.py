"""Orthogonality regulariser, `R(W) = ||W W^T - T||_F^2`.

The target T is the diagonal of `W W^T` (`offdiag`: rows orthogonal, their norms free)
or the unit matrix (`identity`). The gradient is `4 (W W^T - T) W` in both cases.
"""

from jax import numpy as jnp
from jaxtyping import Array, Float

from shared.errors import check_choice

ORTHO_TARGETS = ("offdiag", "identity")


def gram(kernel: Float[Array, "n m"]) -> Float[Array, "n n"]:
    """Return `G = W W^T`."""
    return kernel @ kernel.T


def excess(gram_: Float[Array, "n n"], target: str) -> Float[Array, "n n"]:
    """Return `G - T`, what the regulariser drives to zero."""
    check_choice("ortho_target", target, ORTHO_TARGETS)
    diagonal = jnp.eye(gram_.shape[0], dtype=bool)
    if target == "offdiag":
        return jnp.where(diagonal, 0, gram_)
    return jnp.where(diagonal, gram_ - 1, gram_)


def penalty(kernel: Float[Array, "n m"], target: str = "offdiag") -> Float[Array, ""]:
    """Return `R(W)`."""
    return jnp.sum(excess(gram(kernel), target) ** 2)


def gradient(
    kernel: Float[Array, "n m"],
    target: str = "offdiag",
    *,
    gram_: Float[Array, "n n"] | None = None,
) -> Float[Array, "n m"]:
    """Return the gradient of `R`, `4 (G - T) W`.

    Args:
        kernel: the kernel W.
        target: `offdiag` or `identity`.
        gram_: `W W^T` where the caller has it already.
    """
    gram_ = gram(kernel) if gram_ is None else gram_
    return 4 * (excess(gram_, target) @ kernel)
