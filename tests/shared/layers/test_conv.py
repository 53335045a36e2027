"""Convolutions against sums written out, for all strides, paddings and groups."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shared.errors import UsageError
from shared.layers.conv import conv, depthwise_conv, init_conv, init_depthwise_conv


def written_out(x, kernel, stride, pads, groups, dilation=1):
    """Sum over windows in NumPy."""
    x = np.pad(np.asarray(x, np.float64), [(0, 0), *pads, (0, 0)])
    kernel = np.asarray(kernel, np.float64)
    rows, columns, inputs, outputs = kernel.shape
    reach = [(n - 1) * dilation + 1 for n in (rows, columns)]
    high, wide = ((x.shape[a] - reach[a - 1]) // stride + 1 for a in (1, 2))
    y = np.zeros((x.shape[0], high, wide, outputs))
    for o in range(outputs):
        g = o // (outputs // groups)
        own = x[..., g * inputs : (g + 1) * inputs]
        for i in range(high):
            for j in range(wide):
                window = own[
                    :,
                    i * stride : i * stride + reach[0] : dilation,
                    j * stride : j * stride + reach[1] : dilation,
                ]
                y[:, i, j, o] = np.sum(window * kernel[..., o], axis=(1, 2, 3))
    return y


CASES = [
    (1, "SAME", ((1, 1), (1, 1)), 1, 1),
    (2, "SAME", ((0, 1), (1, 1)), 1, 1),
    (2, "VALID", ((0, 0), (0, 0)), 2, 1),
    (1, 2, ((2, 2), (2, 2)), 2, 2),
    (2, ((1, 0), (0, 2)), ((1, 0), (0, 2)), 1, 1),
]


@pytest.mark.parametrize(("stride", "padding", "pads", "groups", "dilation"), CASES)
def test_conv_is_the_sum_over_windows(draw, stride, padding, pads, groups, dilation):
    params = {"kernel": draw(3, 3, 4 // groups, 6), "bias": draw(6)}
    x = draw(2, 6, 7, 4)
    y = conv(
        params, x, stride=stride, padding=padding, groups=groups, dilation=dilation
    )
    expected = written_out(x, params["kernel"], stride, pads, groups, dilation)
    expected = expected + np.asarray(params["bias"])
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_leading_axes(draw):
    params = {"kernel": draw(3, 1, 2, 3)}
    x = draw(2, 3, 5, 5, 2)
    y = conv(params, x)
    np.testing.assert_allclose(y[1, 2], conv(params, x[1, 2]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("stride", "padding"), [(1, "SAME"), (2, "VALID")])
def test_depthwise_sees_each_channel_alone(draw, stride, padding):
    """As sum of shifted products and as grouped convolution, with gradients."""
    params = {"kernel": draw(3, 3, 1, 6), "bias": draw(6)}
    x = draw(2, 6, 7, 3)

    def loss(params, x, how):
        y = depthwise_conv(params, x, stride=stride, padding=padding, how=how)
        return jnp.sum(jnp.sin(y)), y

    pads = ((1, 1), (1, 1)) if padding == "SAME" else ((0, 0), (0, 0))
    expected = written_out(x, params["kernel"], stride, pads, 3)
    expected = expected + np.asarray(params["bias"])
    gradient = jax.jit(jax.grad(loss, (0, 1), has_aux=True), static_argnums=2)
    by_shift, y = gradient(params, x, "shift")
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    grouped, y = gradient(params, x, "grouped")
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(by_shift, grouped, rtol=1e-4, atol=1e-5)


def test_depthwise_takes_shifts_on_a_cpu(draw):
    params = {"kernel": draw(3, 3, 1, 3)}
    apply = lambda how: lambda x: depthwise_conv(params, x, how=how)
    programs = [
        str(jax.make_jaxpr(apply(how))(draw(1, 5, 5, 3))) for how in ("auto", "grouped")
    ]
    assert ["conv_general" in program for program in programs] == [False, True]


def test_parameters_have_the_shapes_of_their_groups(key):
    shapes = jax.eval_shape(lambda: init_conv(key, (3, 1), 4, 6, groups=2))
    assert shapes["kernel"].shape == (3, 1, 2, 6) and shapes["bias"].shape == (6,)
    shapes = jax.eval_shape(
        lambda: init_depthwise_conv(key, 3, 4, multiplier=2, bias=False)
    )
    assert {n: s.shape for n, s in shapes.items()} == {"kernel": (3, 3, 1, 8)}


def test_wrong_arguments(key, draw):
    x = draw(1, 4, 4, 3)
    params = {"kernel": draw(3, 3, 3, 4)}
    with pytest.raises(UsageError, match="groups: got 2"):
        init_conv(key, 3, 3, 4, groups=2)
    with pytest.raises(UsageError, match="groups: got 3"):
        conv(params, x, groups=3)
    with pytest.raises(UsageError, match="padding: got 'same'"):
        conv(params, x, padding="same")
    with pytest.raises(UsageError, match="stride: got 0"):
        conv(params, x, stride=0)
    with pytest.raises(UsageError, match="how"):
        depthwise_conv(params, x, how="fast")
    with pytest.raises(UsageError, match="kernel"):
        depthwise_conv(params, x, how="shift")
