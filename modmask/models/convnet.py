"""Small convolutional network."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from shared.errors import check_range
from shared.layers.conv import conv, init_conv
from shared.layers.dropout import active_key
from shared.layers.dropout import dropout as dropout_layer
from shared.layers.linear import init_linear, linear
from shared.layers.pooling import global_avg_pool, max_pool
from shared.model import Model, Variables

# Names of the convolutions, after their places in the published program's sequence.
PLACES = ("0", "3", "6", "10")
RATES = (0.25, 0.5)


def convnet(
    channels: int,
    classes: int,
    *,
    dropout: bool = True,
    widths: tuple[int, int, int, int] = (32, 64, 128, 256),
    dtype: DTypeLike = jnp.float32,
) -> Model:
    """Return four 3x3 convolutions with ReLU, three of them pooled, and a linear map.

    Its parameters are `{"features": {"0", "3", "6", "10": {"kernel", "bias"}},
    "out_layer": {"kernel", "bias"}}`; it maps `[batch, height, width, channels]`, at
    least 8 by 8, to `[batch, classes]`. The output layer reads the mean over the image.

    Args:
        channels: of the images.
        classes: of the outputs.
        dropout: whether 1/4 of the third and 1/2 of the last convolution's outputs are
            dropped in training, which then needs a key.
        widths: channels of the convolutions.
        dtype: of the parameters.

    Reference:
        Csordás et al. (2021), the CIFAR-10 experiments.
    """
    for name, size in (("channels", channels), ("classes", classes)):
        check_range(name, size, low=1)
    sizes = (channels, *widths)

    def init(key: Array) -> Variables:
        *keys, last = jax.random.split(key, len(PLACES) + 1)
        features = {
            place: init_conv(keys[i], 3, sizes[i], sizes[i + 1], dtype=dtype)
            for i, place in enumerate(PLACES)
        }
        out = init_linear(last, sizes[-1], classes, dtype=dtype)
        return Variables({"features": features, "out_layer": out})

    def apply(
        variables: Variables,
        x: Float[Array, "batch height width channels"],
        *,
        train: bool = False,
        key: Array | None = None,
    ) -> tuple[Float[Array, "batch classes"], PyTree]:
        key = active_key(key, max(RATES) if dropout else 0, train=train)
        active = key is not None
        keys = (None, None) if key is None else jax.random.split(key, 2)
        params = variables.params
        first, second, third, fourth = (params["features"][place] for place in PLACES)
        x = max_pool(jax.nn.relu(conv(first, x)), 2)
        x = max_pool(jax.nn.relu(conv(second, x)), 2)
        x = dropout_layer(conv(third, x), RATES[0], train=active, key=keys[0])
        x = max_pool(jax.nn.relu(x), 2)
        x = jax.nn.relu(conv(fourth, x))
        x = dropout_layer(x, RATES[1], train=active, key=keys[1])
        return linear(params["out_layer"], global_avg_pool(x)), variables.state

    return Model(init, apply)
