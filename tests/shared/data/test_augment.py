"""Invariants of the augmentations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shared.data import Split, augment
from shared.errors import UsageError

TYPES = [np.uint8, np.float32]
RANDOM = {
    "flip": augment.random_flip,
    "crop": augment.random_crop,
    "shift": augment.random_shift,
    "cutout": partial(augment.random_cutout, size=4),
}


def batch(count=6, height=9, width=8, dtype=np.uint8, seed=0):
    shape = (count, height, width, 3)
    return np.random.default_rng(seed).integers(1, 256, shape).astype(dtype)


def offsets(*values):
    return jnp.array(values, jnp.int32)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", RANDOM)
def test_same_key_same_images_and_shape_and_type_kept(key, name, dtype):
    images = batch(dtype=dtype)
    first, second = RANDOM[name](key, images), RANDOM[name](key, images)
    other = RANDOM[name](jax.random.key(1), images)
    assert first.shape == images.shape and first.dtype == images.dtype
    np.testing.assert_array_equal(first, second)
    assert (np.asarray(first) != np.asarray(other)).any()
    assert (np.asarray(first) != images).any()


@pytest.mark.parametrize("name", RANDOM)
def test_an_image_does_not_depend_on_the_others(key, name):
    images, changed = batch(), batch()
    changed[1:] = batch(5, seed=1)
    first = RANDOM[name](key, images)[0]
    np.testing.assert_array_equal(first, RANDOM[name](key, changed)[0])


@pytest.mark.parametrize("name", RANDOM)
def test_images_get_draws_of_their_own(key, name):
    images = np.repeat(batch(1), 6, axis=0)
    assert len(np.unique(RANDOM[name](key, images), axis=0)) > 1


@pytest.mark.parametrize("dtype", TYPES)
def test_flip_mirrors_columns_and_undoes_itself(dtype):
    images = batch(dtype=dtype)
    where = jnp.arange(6) % 2 == 0
    once = augment.flip(images, where)
    np.testing.assert_array_equal(once[0], images[0, :, ::-1])
    np.testing.assert_array_equal(once[1], images[1])
    np.testing.assert_array_equal(augment.flip(once, where), images)


def test_flip_respects_permission_and_is_fair(key):
    images = batch(2000)
    labels = np.arange(2000) % 2
    may_mirror = jnp.array([False, True])
    out = np.asarray(augment.random_flip(key, images, allowed=may_mirror[labels]))
    flipped = (out == images[:, :, ::-1]).all((1, 2, 3))
    assert not flipped[labels == 0].any()
    assert (out[~flipped] == images[~flipped]).all()
    assert 0.45 < flipped[labels == 1].mean() < 0.55


def test_crop_cuts_the_window_of_the_padded_image():
    images = batch(2)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=7)
    top, left = offsets(0, 3), offsets(4, 1)
    out = augment.crop(images, top, left, pad=2, fill=7)
    np.testing.assert_array_equal(out[0], padded[0, 0:9, 4:12])
    np.testing.assert_array_equal(out[1], padded[1, 3:12, 1:9])


@pytest.mark.parametrize("size", [None, (5, 3), (13, 12)])
def test_crop_shapes(key, size):
    out = augment.random_crop(key, batch(), pad=2, size=size)
    assert out.shape == (6, *(size or (9, 8)), 3)


def test_crop_reaches_every_position(key):
    images = np.arange(1, 10, dtype=np.uint8).reshape(1, 3, 3, 1).repeat(500, 0)
    out = augment.random_crop(key, images, pad=1, size=(3, 3))
    assert len(np.unique(out, axis=0)) == 9
    centre = np.asarray(out)[:, 1, 1, 0]
    assert set(centre.tolist()) == set(range(1, 10))


def test_crop_without_padding_is_the_identity(key):
    images = batch()
    np.testing.assert_array_equal(augment.random_crop(key, images, pad=0), images)


@pytest.mark.parametrize(
    ("pad", "size", "message"),
    [(-1, None, "pad"), (0, (10, 8), "10 x 8.*1 x 1 to 9 x 8"), (0, (0, 3), "size")],
)
def test_crop_refuses_impossible_windows(key, pad, size, message):
    with pytest.raises(UsageError, match=message):
        augment.random_crop(key, batch(), pad=pad, size=size)


@pytest.mark.parametrize("dtype", TYPES)
def test_shift_by_nothing_is_the_identity(dtype):
    images, zeros = batch(dtype=dtype), jnp.zeros(6, jnp.int32)
    np.testing.assert_array_equal(augment.shift(images, zeros, zeros), images)


@pytest.mark.parametrize("dtype", TYPES)
def test_shift_follows_its_formula(dtype):
    images = batch(dtype=dtype)
    rows, columns = offsets(0, 2, -3, 1, -1, 20), offsets(0, -1, 4, 0, -8, 0)
    out = np.asarray(augment.shift(images, rows, columns))
    for i, (du, dv) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        mean = images[i].mean((0, 1), dtype=np.float64)
        mean = np.round(mean) if dtype == np.uint8 else mean
        expected = np.tile(mean, (9, 8, 1))
        for u in range(9):
            for v in range(8):
                if 0 <= u + du < 9 and 0 <= v + dv < 8:
                    expected[u, v] = images[i, u + du, v + dv]
        np.testing.assert_allclose(out[i], expected, rtol=1e-6)


def test_random_shift_covers_its_reach(key):
    images = np.zeros((2000, 7, 7, 1), np.float32)
    images[:, 3, 3] = 49.0
    out = np.asarray(augment.random_shift(key, images, reach=2))
    rows, columns = np.nonzero((out > 40).reshape(2000, 49).any(0).reshape(7, 7))
    assert set(rows.tolist()) == set(columns.tolist()) == {1, 2, 3, 4, 5}
    with pytest.raises(UsageError, match="reach"):
        augment.random_shift(key, images, reach=-1)


def test_cutout_writes_its_square_only():
    images = batch(3)
    out = np.asarray(
        augment.cutout(images, offsets(2, -2, 8), offsets(3, 6, 7), size=4)
    )
    expected = images.copy()
    expected[0, 2:6, 3:7] = 0
    expected[1, 0:2, 6:8] = 0
    expected[2, 8:9, 7:8] = 0
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(("anchor", "least"), [("centre", 4), ("corner", 1)])
def test_cutout_anchors(key, anchor, least):
    images = np.ones((2000, 6, 6, 1), np.float32)
    cut = augment.random_cutout(key, images, size=3, anchor=anchor)
    hidden = np.asarray(cut) == 0
    # The square around any pixel shows at least 2 x 2 pixels of it.
    assert hidden.sum((1, 2, 3)).min() == least
    often = hidden.mean(0)[..., 0]
    symmetric = np.abs(often - often[::-1, ::-1]).max() < 0.06
    assert symmetric == (anchor == "centre")


def test_cutout_anchor_is_checked(key):
    with pytest.raises(UsageError, match="anchor"):
        augment.random_cutout(key, batch(), size=2, anchor="center")


def test_cutout_of_nothing_is_the_identity():
    images, zeros = batch(), jnp.zeros(6, jnp.int32)
    np.testing.assert_array_equal(augment.cutout(images, zeros, zeros, size=0), images)


def test_compose_gives_each_change_a_key_and_keeps_the_labels(key):
    split = Split(jnp.asarray(batch()), jnp.arange(6, dtype=jnp.int32))
    out = augment.compose(augment.random_crop, augment.random_flip)(key, split)
    keys = [jax.random.fold_in(key, i) for i in range(2)]
    cropped = augment.random_crop(keys[0], split.images)
    expected = augment.random_flip(keys[1], cropped)
    np.testing.assert_array_equal(out.images, expected)
    np.testing.assert_array_equal(out.labels, split.labels)
