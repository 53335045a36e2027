"""Matrix products of the last axis, with their gradient by hand.

The automatic gradient by the kernel is that of its transpose, for which XLA writes a
transposed copy of what comes back, by all that has made it: half of the time of a
normalised 1x1 convolution on a CPU. Here rows are one axis, and both products plain.
"""

from typing import Any

import jax
from jax import lax
from jaxtyping import Array, Float


def pointwise(
    x: Float[Array, "*lead inputs"], kernel: Float[Array, "inputs outputs"]
) -> Float[Array, "*lead outputs"]:
    """Return x W."""
    y: Any = _product(x, kernel)
    return y


@jax.custom_vjp
def _product(x: Array, kernel: Array) -> Array:
    return x @ kernel


def _backward(kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = kept
    rows = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
    return g @ kernel.T, lax.dot_general(*rows, (((0,), (0,)), ((), ())))


_product.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _backward)
