"""Convolution whose kernel gradient is fast on a CPU.

XLA computes the gradient by a kernel as a convolution with the image as its window, at
a third of the speed of its other convolutions. Here it is a matrix product.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from shared.layers import conv as convolutions

CHUNK = 2**22
"""Bytes of the factors of a product, about: what a core's cache holds."""

Image = Float[Array, "batch height width _"]
Kernel = Float[Array, "rows columns inputs outputs"]


def convolve(kernel: Kernel, x: Image) -> Image:
    """Convolve with stride 1, zeros around and the size kept."""
    if jax.default_backend() != "cpu":
        return _convolve(kernel, x)
    return _on_cpu(kernel, x)


def _convolve(kernel: Array, x: Array) -> Array:
    return convolutions.conv({"kernel": kernel}, x)


@jax.custom_vjp
def _on_cpu(kernel: Array, x: Array) -> Array:
    return _convolve(kernel, x)


def _forward(kernel: Array, x: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(kernel, x), (kernel, x)


def _backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    kernel, x = saved
    (dx,) = jax.vjp(lambda x: _convolve(kernel, x), x)[1](g)
    rows, columns = kernel.shape[:2]
    return kernel_gradient(x, g, (rows, columns)), dx


_on_cpu.defvjp(_forward, _backward)


def kernel_gradient(x: Image, g: Image, window: tuple[int, int]) -> Kernel:
    """Return the gradient by the kernel, given that by the outputs.

    dW[u, v] = Σ_ij x[i + u - a, j + v - b] g[i, j], where i and j run over the image,
    is Σ_ij x[i + u - a, j] g[i, j - v + b]. With rows of x and columns of g shifted,
    all u and v are one product, taken over parts of the batch that stay in the cache.

    Args:
        x: inputs of the convolution.
        g: gradient by its outputs.
        window: rows and columns of the kernel.
    """
    rows, columns = window
    batch, height, width, inputs = x.shape
    outputs = g.shape[-1]
    above, before = (rows - 1) // 2, (columns - 1) // 2
    after = columns - 1 - before

    def product(x, g):
        x = jnp.pad(x, ((0, 0), (above, rows - 1 - above), (0, 0), (0, 0)))
        g = jnp.pad(g, ((0, 0), (0, 0), (after, before), (0, 0)))
        shifted_x = [x[:, u : u + height] for u in range(rows)]
        shifted_g = [
            g[:, :, columns - 1 - v : columns - 1 - v + width] for v in range(columns)
        ]
        left = jnp.concatenate(shifted_x, -1).reshape(-1, rows * inputs)
        right = jnp.concatenate(shifted_g, -1).reshape(-1, columns * outputs)
        return left.T @ right

    size = x.size * rows + g.size * columns
    parts = _parts(batch, size * x.dtype.itemsize / CHUNK)
    if parts == 1:
        total = product(x, g)
    else:
        split = lambda a: a.reshape(parts, batch // parts, *a.shape[1:])
        add = lambda total, pair: (total + product(*pair), None)
        start = jnp.zeros((rows * inputs, columns * outputs), x.dtype)
        total, _ = jax.lax.scan(add, start, (split(x), split(g)))
    total = total.reshape(rows, inputs, columns, outputs)
    return total.transpose(0, 2, 1, 3)


def _parts(batch: int, wanted: float) -> int:
    """Return the least divisor of the batch that is at least as large as wanted."""
    return next(
        n for n in range(1, batch + 1) if batch % n == 0 and n >= min(wanted, batch)
    )
