"""Sizes, channels, statistics and the numbers that a network is shown."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from enasq import pixels
from shared.errors import UsageError


def batch(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("size", [5, 9, 14])
def test_resize_interpolates_between_the_centres_of_pixels(size):
    images = batch(2, 7, 9, 1)
    place = lambda old: np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
    rows, columns = place(7), place(9)
    once = lambda values, at: np.interp(at, np.arange(len(values)), values)
    resized = pixels.resize(jnp.asarray(images), size)
    for image, out in zip(images[..., 0], resized, strict=True):
        wide = np.stack([once(row, columns) for row in image])
        wanted = np.stack([once(column, rows) for column in wide.T], axis=1)
        # Halves may be rounded either way.
        assert np.abs(np.asarray(out[..., 0], float) - wanted).max() <= 0.5 + 1e-3


def test_resize_keeps_constants_channels_and_every_block():
    levels = batch(2049, 1, 1, 3)
    images = jnp.asarray(np.broadcast_to(levels, (2049, 2, 2, 3)))
    out = pixels.resize(images, 3)
    assert out.shape == (2049, 3, 3, 3) and out.dtype == jnp.uint8
    np.testing.assert_array_equal(out, np.broadcast_to(levels, out.shape))


def test_statistics_of_all_pixels_and_of_the_images_own():
    images = batch(1500, 4, 3, 2)
    images[700:] //= 3
    norm = pixels.standard(images)
    np.testing.assert_allclose(norm.mean, images.mean((0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(norm.std, images.std((0, 1, 2)), rtol=1e-9)
    own = pixels.per_image(images)
    np.testing.assert_allclose(own.mean, [images.mean()] * 2, rtol=1e-9)
    np.testing.assert_allclose(own.std, [images.std((1, 2, 3)).mean()] * 2, rtol=1e-9)
    assert own.std[0] < np.mean(norm.std)


def test_constant_images_do_not_divide_by_zero():
    images = np.full((2, 3, 3, 1), 7, np.uint8)
    for norm in (pixels.standard(images), pixels.per_image(images)):
        np.testing.assert_array_equal(pixels.scaled(jnp.asarray(images), norm), 0)


@pytest.mark.parametrize("double", [False, True])
def test_scaled_images_have_mean_0_and_deviation_1(double):
    images = batch(40, 4, 3, 3)
    with jax.enable_x64(double):
        out = pixels.scaled(jnp.asarray(images), pixels.standard(images))
        assert out.dtype == (jnp.float64 if double else jnp.float32)
        out = np.asarray(out)
    np.testing.assert_allclose(out.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(out.std((0, 1, 2)), 1, atol=1e-6)


@pytest.mark.parametrize(("scale", "half"), [(255, 128), (16, 8)])
def test_fixed_point_numbers_are_codes_of_eight_bits(scale, half):
    levels = jnp.arange(scale + 1, dtype=jnp.uint8)[:, None, None, None]
    out = np.asarray(pixels.scaled(levels, pixels.fixed_point(scale, 1))).ravel()
    codes = out * half
    np.testing.assert_array_equal(codes, np.arange(scale + 1) - half)
    assert (codes >= -128).all() and (codes <= 127).all()
    assert np.log2(half) % 1 == 0 and np.abs(out).max() <= 1


def test_centred_numbers_end_at_one_half():
    ends = jnp.array([0, 255], jnp.uint8)[:, None, None, None]
    out = pixels.scaled(ends, pixels.centred(255, 1)).ravel()
    np.testing.assert_array_equal(out, [-0.5, 0.5])


def test_channels_are_repeated_or_weighted():
    grey, colour = batch(2, 3, 3, 1), batch(2, 3, 3, 3)
    np.testing.assert_array_equal(pixels.with_channels(grey, 3), grey.repeat(3, -1))
    out = pixels.with_channels(colour, 1)[..., 0]
    np.testing.assert_allclose(out, colour @ [0.299, 0.587, 0.114], atol=0.51)
    assert pixels.with_channels(colour, 3) is colour
    with pytest.raises(UsageError, match="channels: got 4"):
        pixels.with_channels(grey.repeat(3, -1), 4)
