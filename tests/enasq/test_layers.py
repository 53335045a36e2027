"""Quantised layers, depthwise convolution and normalisation."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from enasq import depthwise, drop_path, layers, norm
from enasq.quantization import Quantizer, quantize
from shared.errors import UsageError
from tests.quick import quick

BINARY, FLOAT = Quantizer("binary"), Quantizer("float")


def convolution(x, kernel, stride, padding, groups=1):
    """Convolve by XLA, in its own words for padding."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding.upper(),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def gradients(function, *args):
    """Return outputs and gradients, from one program."""

    def program(*args):
        y, back = jax.vjp(function, *args)
        return y, *back(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    return quick(program)(*args)


@pytest.mark.parametrize(
    ("window", "stride", "padding", "size"),
    [
        ((3, 3), 1, "same", (7, 6)),
        ((5, 5), 1, "same", (3, 4)),
        ((4, 3), 1, "valid", (6, 5)),
        ((3, 3), 2, "same", (8, 7)),
        ((2, 5), 3, "valid", (9, 8)),
        ((1, 1), 3, "same", (5, 4)),
    ],
)
def test_shifted_products_are_a_grouped_convolution(
    key, monkeypatch, window, stride, padding, size
):
    # So small that the last part of the batch and of the columns are filled up.
    monkeypatch.setattr(depthwise, "WIDTH", 1)
    monkeypatch.setattr(depthwise, "LANES", 9)
    monkeypatch.setattr(depthwise, "POINTS", 3)
    with jax.enable_x64(True):
        keys = jax.random.split(key)
        x = jax.random.normal(keys[0], (5, *size, 3), jnp.float64)
        kernel = jax.random.normal(keys[1], (*window, 3, 1), jnp.float64)
        place = {"stride": stride, "padding": padding}
        ours = gradients(
            lambda w, x: depthwise.depthwise_conv(w, x, how="shift", **place), kernel, x
        )
        grouped = gradients(
            lambda w, x: depthwise.depthwise_conv(w, x, how="grouped", **place),
            kernel,
            x,
        )
        plain = convolution(x, kernel.transpose(0, 1, 3, 2), stride, padding, groups=3)
        np.testing.assert_allclose(grouped[0], plain, rtol=1e-12, atol=1e-12)
        for a, b in zip(ours, grouped, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_shifted_products_inside_maps_scans_and_branches(key):
    keys = jax.random.split(key)
    kernels = jax.random.normal(keys[0], (2, 3, 3, 4, 1))
    x = jax.random.normal(keys[1], (2, 3, 5, 5, 4))
    loss = lambda w, x: jnp.sum(jnp.sin(depthwise.depthwise_conv(w, x, how="shift")))
    both = jax.value_and_grad(loss, (0, 1))

    def chosen(index, w, x):
        branches = (lambda w, x: 0 * jnp.sum(w) + jnp.sum(x), loss)
        return jax.value_and_grad(
            lambda w, x: lax.switch(index, branches, w, x), (0, 1)
        )(w, x)

    def program(kernels, x):
        return (
            both(kernels[1], x[1]),
            jax.vmap(both)(kernels, x),
            lax.map(lambda a: chosen(1, *a), (kernels, x)),
        )

    single, mapped, switched = quick(program)(kernels, x)
    for several in (mapped, switched):
        for a, b in zip(jax.tree.leaves(single), jax.tree.leaves(several), strict=True):
            np.testing.assert_allclose(a, b[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("window", "stride", "padding"), [(3, 2, "same"), (1, 2, "same"), (4, 1, "valid")]
)
def test_layers_convolve_with_the_quantised_kernel(key, window, stride, padding):
    x = jax.random.normal(key, (2, 7, 6, 3))
    params = layers.init_conv(key, window, 3, 4, BINARY, bias=True)
    params["bias"] = jnp.arange(4.0)
    ours = gradients(
        lambda w, x: layers.conv(
            params | {"kernel": w}, x, BINARY, stride=stride, padding=padding
        ),
        params["kernel"],
        x,
    )
    xla = gradients(
        lambda w, x: (
            convolution(x, quantize(BINARY, {}, w), stride, padding)
            + params["bias"].reshape(1, 1, 1, 4)
        ),
        params["kernel"],
        x,
    )
    for a, b in zip(ours, xla, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_separable_convolution_is_its_two_stages(key):
    quantizer = Quantizer("kbit", 3)
    x = jax.random.normal(key, (2, 5, 5, 3))
    params = layers.init_separable_conv(key, 3, 3, 8, quantizer, bias=True)
    run = lambda rescale: gradients(
        lambda p, x: layers.separable_conv(p, x, quantizer, rescale=rescale), params, x
    )
    (y, grads, by_x), (same, scaled, same_x) = run(False), run(True)
    deep = layers.depthwise(params["depthwise"], x, quantizer)
    stages = layers.conv(params["pointwise"], deep, quantizer)
    np.testing.assert_allclose(y, stages, rtol=1e-5, atol=1e-5)
    # κ = √((3 * 9 + 8 * 9) / 1.5), for kernels alone.
    kappa = (99 / 1.5) ** 0.5
    for stage in ("depthwise", "pointwise"):
        kernel = grads[stage]["kernel"]
        assert np.any(kernel)
        np.testing.assert_allclose(scaled[stage]["kernel"], kappa * kernel, rtol=1e-5)
    np.testing.assert_array_equal(y, same)
    np.testing.assert_array_equal(by_x, same_x)


def test_dense_layer_and_learned_scales(key):
    x = jax.random.normal(key, (2, 3, 5))
    quantizer = Quantizer("ttq")
    params = layers.init_dense(key, 5, 4, quantizer, bias=True)
    y, grads, _ = gradients(lambda p, x: layers.dense(p, x, quantizer), params, x)
    kernel = quantize(quantizer, params["quantizer"], params["kernel"])
    np.testing.assert_allclose(y, x @ kernel, rtol=1e-5, atol=1e-6)
    assert all(np.any(g) for g in jax.tree.leaves(grads))


def test_initial_kernels_fill_the_range_of_their_quantiser(key):
    glorot = Quantizer("binary", high="Glorot")
    kernel = layers.init_conv(key, 3, 20, 30, glorot)["kernel"]
    high = (1.5 / (9 * 50)) ** 0.5
    assert 0.98 * high < float(jnp.abs(kernel).max()) <= high
    deep = layers.init_depthwise(key, 5, 200, FLOAT, bias=True)
    assert abs(float(jnp.std(deep["kernel"])) - (2 / 25) ** 0.5) < 0.01
    assert deep["bias"].shape == (200,)
    np.testing.assert_allclose(layers.rate_multiplier((3, 3, 20, 30)), 1 / high)
    assert [layers.rate_multiplier((1,), s) for s in (None, 3)] == [1.0, 3.0]


def test_projection_keeps_weights_where_gradients_reach(key):
    tree = {"a": jnp.array([-3.0, 0.2]), "b": {"c": jnp.array([1.5])}}
    ours = layers.project(tree, (-0.5, 0.5))
    np.testing.assert_array_equal(ours["a"], jnp.array([-0.5, 0.2]))
    np.testing.assert_array_equal(ours["b"]["c"], jnp.array([0.5]))
    assert layers.project(tree, None) is tree
    grads = jax.grad(lambda w: jnp.sum(quantize(BINARY, {}, w)))
    outside = {"w": jnp.array([-3.0, 3.0])}
    assert not np.any(grads(outside["w"]))
    assert np.all(grads(layers.project(outside, (-1, 1))["w"]))


def test_dropout_leaves_levels(key):
    x = jnp.ones((50, 50))
    y = layers.dropout_no_scale(x, 0.3, train=True, key=key)
    assert set(np.unique(y)) == {0.0, 1.0}
    assert abs(float(y.mean()) - 0.7) < 0.03
    assert layers.dropout_no_scale(x, 0.3, train=False) is x


def test_running_statistics_are_corrected_averages(key):
    batches = 3 + 2 * jax.random.normal(key, (3, 4, 2, 2, 5))
    params, state = norm.init(5)
    mean, var = np.zeros(5), np.zeros(5)
    for t, x in enumerate(batches, 1):
        y, state = norm.batch_norm(params, state, x, mode="train")
        flat = np.asarray(x, np.float64).reshape(-1, 5)
        mean = 0.9 * mean + 0.1 * flat.mean(0)
        var = 0.9 * var + 0.1 * flat.var(0, ddof=1)
        np.testing.assert_allclose(state["mean"], mean / (1 - 0.9**t), rtol=1e-5)
        np.testing.assert_allclose(state["var"], var / (1 - 0.9**t), rtol=1e-5)
    by_hand = (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1.001e-5)
    np.testing.assert_allclose(y.reshape(-1, 5), by_hand, rtol=1e-4, atol=1e-5)
    evaluated, kept = norm.batch_norm(params, state, batches[0], mode="eval")
    assert kept is state
    first = (batches[0] - state["mean"].reshape(1, 1, 1, 5)) / jnp.sqrt(
        state["var"].reshape(1, 1, 1, 5) + 1.001e-5
    )
    np.testing.assert_allclose(evaluated, first, rtol=1e-4, atol=1e-5)


def test_statistics_of_the_batch_alone_and_over_devices(key):
    x = jax.random.normal(key, (4, 3, 5))
    params, nothing = norm.init(5, running=False)
    assert nothing == {}
    whole, state = norm.batch_norm(params, nothing, x, mode="batch")
    assert state == {}
    split = jax.vmap(
        lambda x: norm.batch_norm(params, {}, x, mode="batch", axis_name="i")[0],
        axis_name="i",
    )(x.reshape(2, 2, 3, 5))
    np.testing.assert_allclose(split.reshape(4, 3, 5), whole, rtol=1e-4, atol=1e-5)


def test_branches_are_dropped_by_examples_and_more_so_later_and_deeper(key):
    x = jnp.ones((400, 2, 3))
    y = np.asarray(drop_path.drop_path(x, 0.8, key))
    assert np.ptp(y, axis=(1, 2)).max() == 0
    np.testing.assert_allclose(np.unique(y), [0, 1.25])
    assert abs(y.mean() - 1) < 0.1
    rate = lambda cell, step: float(drop_path.keep_rate(0.6, cell, 4, step, 10))
    np.testing.assert_allclose(rate(3, 9), 0.6, rtol=1e-6)
    np.testing.assert_allclose(rate(3, 99), 0.6, rtol=1e-6)
    assert rate(3, 0) > rate(3, 5) < rate(0, 5) < 1


def test_wrong_input_is_refused(key):
    x = jnp.zeros((1, 4, 4, 3))
    params = layers.init_conv(key, 3, 3, 2, BINARY)
    with pytest.raises(UsageError, match="Did you mean 'same'"):
        layers.conv(params, x, BINARY, padding="sane")
    with pytest.raises(UsageError, match="3 channels"):
        layers.conv(params, x[..., :2], BINARY)
    with pytest.raises(UsageError, match="stride"):
        layers.conv(params, x, BINARY, stride=0)
    with pytest.raises(UsageError, match="not padded"):
        layers.conv(params, x[:, :2], BINARY, padding="valid")
    with pytest.raises(UsageError, match="Glorot"):
        layers.rate_multiplier((3, 3, 1, 1), "glorot")
    with pytest.raises(UsageError, match="one of train, eval, batch"):
        norm.batch_norm(*norm.init(3), x, mode="test")
