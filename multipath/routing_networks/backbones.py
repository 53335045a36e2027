"""Convolutional trunks that turn images into the features that are routed."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from shared.errors import UsageError, check_range
from shared.layers import conv, norm, pooling
from shared.model import Model, Variables

Shape = tuple[int, int, int]


def convnet(shape: Shape, *, channels: int = 32, blocks: int = 4) -> Model:
    """Return a trunk of convolutions.

    Each block is a 3x3 convolution with bias, ReLU and 2x2 max-pooling, which leaves
    out an odd row or column. Then come batch normalisation, whose running variance
    takes the unbiased estimate with weight 0.1, and flattening, channels first.

    Args:
        shape: height, width and channels of an image; 32x32 gives 128 features,
            28x28 and 16x16 give 32.
        channels: of each block.
        blocks: how many.

    Raises:
        UsageError: if the image is too small for so many blocks.
    """
    check_range("channels", channels, low=1)
    check_range("blocks", blocks, low=1)
    if min(shape) < 1 or min(shape[:2]) < 2**blocks:
        side = 2**blocks
        raise UsageError("image", shape, f"at least {side} x {side} pixels")

    def init(key: Array) -> Variables:
        dtype, inputs, params = jnp.result_type(float), shape[-1], {}
        for i, own in enumerate(jax.random.split(key, blocks)):
            params[f"conv{i}"] = conv.init_conv(own, 3, inputs, channels, dtype=dtype)
            inputs = channels
        params["norm"], state = norm.init_batch_norm(channels, dtype=dtype)
        return Variables(params, state)

    def apply(
        variables: Variables,
        x: Float[Array, "batch height width inputs"],
        *,
        train: bool = False,
        key: Array | None = None,
    ) -> tuple[Float[Array, "batch features"], dict]:
        del key
        params, state = variables
        for i in range(blocks):
            x = jax.nn.relu(conv.conv(params[f"conv{i}"], x))
            high, wide = (side // 2 * 2 for side in x.shape[1:3])
            x = pooling.max_pool(x[:, :high, :wide], 2)
        x, state = norm.batch_norm(params["norm"], state, x, train=train)
        return x.transpose(0, 3, 1, 2).reshape(len(x), -1), state

    return Model(init, apply)


def paper_large(shape: Shape) -> Model:
    """Return the trunk of the published comparison: 3 blocks of 160 channels.

    Reference:
        Rosenbaum et al. (2018), as described by Yu et al. (2020), appendix J.1, who
        name filters and layers; pooling and normalisation are those of `convnet`.
    """
    return convnet(shape, channels=160, blocks=3)


def identity() -> Model:
    """Return a trunk that does nothing, for inputs that are features."""
    return Model(
        lambda key: Variables({}, {}),
        lambda variables, x, *, train=False, key=None: (x, variables.state),
    )


def width(trunk: Model, shape: tuple[int, ...]) -> int:
    """Return the number of features that a trunk makes of an input of this shape."""

    def features(key):
        x = jnp.zeros((1, *shape), jnp.result_type(float))
        return trunk.apply(trunk.init(key), x)[0]

    out = jax.eval_shape(features, jax.random.key(0))
    if out.ndim != 2:
        raise UsageError("trunk", out.shape, "a Model that gives [batch, features]")
    return out.shape[1]
