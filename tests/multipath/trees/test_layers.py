"""Layers without reference values, and where ours differ from the published ones."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from multipath.trees import kinds, layers
from shared.errors import UsageError


def _image(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def _run(layer, x, **run):
    return layers.apply(layer, {}, {}, x, layers.Pass(**run)).x


def test_pooling_takes_window_and_stride_by_their_names():
    x = _image(2, 6, 6, 3)
    pooled = _run(kinds.MaxPool(stride=2, supp=3), x)
    # Windows of three from 0, 2 and 4; the last is cut at the border.
    for i, j in np.ndindex(3, 3):
        window = x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        np.testing.assert_array_equal(pooled[:, i, j], window.max((1, 2)))


def test_global_pooling_is_over_the_image():
    x = _image(2, 4, 6, 3)
    np.testing.assert_array_equal(_run(kinds.GlobalMaxPool(), x), x.max((1, 2)))


def test_dropout_is_off_in_evaluation():
    x, layer = jnp.ones((50, 40)), kinds.Dropout(keep=0.5)
    np.testing.assert_array_equal(_run(layer, x), x)
    noisy = _run(layer, x, train=True, key=jax.random.key(0))
    assert set(np.unique(noisy)) == {0.0, 2.0}
    assert float(noisy.mean()) == pytest.approx(1, abs=0.1)


def test_an_area_pyramid_takes_means_where_decimation_takes_corners():
    x = _image(1, 8, 8, 2)
    area = _run(kinds.ToPyramid(3, "area"), x)
    corner = _run(kinds.ToPyramid(3), x)
    np.testing.assert_allclose(area[2][0, 0, 0], x[0, :4, :4].mean((0, 1)), rtol=1e-5)
    np.testing.assert_array_equal(corner[2], x[:, ::4, ::4])


def test_batch_norm_of_several_scales_takes_its_options():
    layer = kinds.MultiscaleBatchNorm(d=0.5, eps=1.0)
    x = (_image(8, 4, 4, 2), _image(8, 2, 2, 3))
    params, state = layers.init(jnp.zeros(0), layer, x)
    out = layers.apply(layer, params, state, x, layers.Pass(train=True))
    mean, var = x[0].mean((0, 1, 2)), x[0].var((0, 1, 2))
    expected = (x[0] - mean[None, None, None]) / jnp.sqrt(var + 1.0)[None, None, None]
    np.testing.assert_allclose(out.x[0], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out.state["c0"]["m_avg"], 0.5 * mean, rtol=1e-4)


def test_a_pyramid_of_too_many_scales_is_refused():
    with pytest.raises(UsageError, match="n_scales: got 4"):
        _run(kinds.ToPyramid(4), _image(1, 4, 4, 1))


def test_more_scales_than_come_in_are_refused():
    layer = kinds.MultiscaleConvMax((2, 2, 2), supp=3)
    with pytest.raises(UsageError, match="n_chan: .*channels of 1 to 2 scales"):
        layers.init(jnp.zeros(999), layer, (_image(1, 4, 4, 1), _image(1, 2, 2, 1)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kinds.ToPyramid(0), "n_scales: got 0"),
        (lambda: kinds.ToPyramid(2, "mean"), "method: got 'mean'"),
        (lambda: kinds.Dropout(0.0), "keep: got 0.0"),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()
