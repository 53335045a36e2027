"""Changes of images: what they do, and that each image has draws of its own."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from scipy import ndimage

from enasq import augmentation
from enasq.augmentation import Photographs
from shared.errors import UsageError
from tests.quick import quick


def batch(count=6, shape=(9, 8, 1), low=0):
    random = np.random.default_rng(0)
    return jnp.asarray(random.integers(low, 256, (count, *shape)).astype(np.uint8))


def image():
    return batch(1)[0].astype(jnp.result_type(float))


SHAPE = (12, 10, 1)


@pytest.fixture(scope="module")
def programs():
    """`(key, images [600, 12, 10, 1]) -> images` of each change, compiled once."""

    def program(name, **settings):
        alter = augmentation.change(name, **settings)
        return quick(lambda key, images: augmentation.change_all(key, images, alter))

    return {
        "digits": program("digits"),
        "turns": program("turns"),
        "coarse": program("digits", scale=16),
        "mirrored": program("digits", mirror=True),
    }


@pytest.fixture(scope="module")
def many(programs):
    """A ramp, and what each change made of 600 copies of it."""
    one = jnp.arange(40, 160, dtype=jnp.uint8).reshape(SHAPE)
    copies = jnp.stack([one] * 600)
    names = augmentation.CHANGES
    changed = {n: np.asarray(programs[n](jax.random.key(0), copies)) for n in names}
    return np.asarray(one), changed


def test_rotation_is_about_the_centre_and_counter_clockwise():
    x = image()[:, :, 0]
    square = jnp.pad(x, ((0, 0), (0, 1)))[..., None]
    turn = quick(augmentation.rotate)
    turned = turn(square, 90)
    np.testing.assert_allclose(turned, np.rot90(square), atol=1e-3)
    tilted = turn(square, 20)[..., 0]
    wanted = ndimage.rotate(
        np.pad(square[..., 0], 1), 20, order=1, reshape=False, mode="constant"
    )
    np.testing.assert_allclose(tilted, wanted[1:-1, 1:-1], atol=0.02)


def test_zoom_keeps_the_centre_and_enlarges_by_its_factor():
    ramp = jnp.broadcast_to(jnp.arange(9.0)[:, None, None], (9, 7, 2))
    out = quick(augmentation.zoom)(ramp, 2)
    wanted = 4 + (np.arange(9) - 4) / 2
    expected = np.broadcast_to(wanted[:, None, None], (9, 7, 2))
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_warps_fill_what_comes_in_from_outside():
    x = image()
    shrunk = quick(augmentation.warp)(x, 4 * jnp.eye(2), 7)
    assert (shrunk[0] == 7).all() and (shrunk[:, 0] == 7).all()
    np.testing.assert_allclose(
        shrunk[4, 3:5].ravel(), [x[4, 1:3].mean(), x[4, 5:7].mean()]
    )
    moved = quick(augmentation.translate)(x, 2, -1, 7)
    np.testing.assert_array_equal(moved[2:, :-1], x[:-2, 1:])
    assert (moved[:2] == 7).all() and (moved[:, -1] == 7).all()


@pytest.mark.parametrize("name", augmentation.CHANGES)
def test_images_get_draws_of_their_own_from_the_key(many, programs, key, name):
    one, changed = many
    assert changed[name].shape[1:] == one.shape and changed[name].dtype == np.uint8
    assert len(np.unique(changed[name], axis=0)) > 250
    images, others = batch(600, SHAPE), batch(600, SHAPE)[::-1]
    first = programs[name](key, images)
    np.testing.assert_array_equal(first, programs[name](key, images))
    mixed = programs[name](key, others.at[0].set(images[0]))
    np.testing.assert_array_equal(first[0], mixed[0])


def test_each_step_happens_to_half_of_the_digits(many):
    one, changed = many
    # All four leave 1 of 2^4 alone, and rotation by 0 a few more.
    untouched = (changed["digits"] == one).all((1, 2, 3)).mean()
    assert 0.03 < untouched < 0.1


@pytest.mark.parametrize(
    ("name", "level", "scale"), [("digits", 100, 255), ("coarse", 16, 16)]
)
def test_light_and_dropped_pixels(programs, key, name, level, scale):
    flat = jnp.full((600, *SHAPE), level, jnp.uint8)
    out = np.asarray(programs[name](key, flat))
    # The middle of a flat image is changed by light and by dropping alone.
    middle = out[:, 4:8, 4:6, 0]
    assert 0.03 < (middle == 0).mean() < 0.07
    light = middle.max((1, 2))
    assert light.min() >= round(0.7 * level + 6 * scale / 255)
    assert light.max() <= min(level + 32 * scale / 255, scale)
    assert 0.4 < (light == level).mean() < 0.65
    # Rotation lets the darkness of outside into the corners.
    assert 0.4 < (out[:, 0, 0, 0] < light * 0.97).mean() < 0.65


def test_only_mirrored_digits_are_mirrored(programs, key):
    half = jnp.zeros((600, *SHAPE), jnp.uint8).at[:, :, 5:].set(200)
    shown = {}
    for name in ("digits", "mirrored"):
        left = np.asarray(programs[name](key, half))[:, 5:7, :2]
        shown[name] = (left.mean((1, 2, 3)) > 90).mean()
    assert shown["digits"] == 0 and 0.4 < shown["mirrored"] < 0.6


def test_turns_are_filled_with_the_median_and_stay_within_reach(many):
    one, changed = many
    turned = changed["turns"].astype(int)
    # Corners come from outside now and then, and nothing else is a new grey level.
    corner = turned[:, 0, 0, 0]
    assert (np.abs(corner - 99.5) <= 0.5).mean() > 0.3
    assert turned.min() >= one.min() and turned.max() <= one.max()
    # Down by -2..1 rows, of 10 levels each, and by as many columns, of 1 each.
    moved = turned[:, 5:7, 4:6, 0].mean((1, 2)) - one[5:7, 4:6, 0].mean()
    assert 18 < moved.max() < 27 and -15 < moved.min() < -9


def test_median_of_bytes():
    for shape in ((3, 3, 1), (4, 5, 1)):
        one = batch(1, shape)[0]
        assert quick(augmentation._median)(one) == np.median(one)


def test_copies_come_before_their_image_and_differ(key):
    # Flat but for noise, each of another grey level.
    images = batch(5) // 16 + 50 * jnp.arange(5, dtype=jnp.uint8).reshape(5, 1, 1, 1)
    alter = augmentation.change("turns")
    out = np.asarray(augmentation.with_copies(key, images, 3, alter))
    assert out.shape == (15, 9, 8, 1)
    np.testing.assert_array_equal(out[2::3], images)
    copies = out.reshape(5, 3, 9, 8, 1)[:, :2].astype(int)
    assert (copies[:, 0] != copies[:, 1]).any((1, 2, 3)).all()
    # A copy is nearer to its own image than to the next.
    own = np.abs(copies - np.asarray(images)[:, None]).mean((1, 2, 3, 4))
    next_one = np.abs(copies - np.roll(images, 1, 0)[:, None]).mean((1, 2, 3, 4))
    assert (own < next_one).all()


def test_passes_visit_an_equal_share_of_every_class():
    random = np.random.default_rng(0)
    order = augmentation.passes(random, 8, 2, 3)
    assert sorted(order) == list(range(24))
    # Class 0 is rows 0..11; the first pass takes rows 0..3 of it, then 4..7.
    parts = order.reshape(3, 8)
    assert [sorted(part) for part in parts] == [
        [*range(4 * w, 4 * w + 4), *range(12 + 4 * w, 16 + 4 * w)] for w in range(3)
    ]
    assert list(parts[0]) != sorted(parts[0])
    assert len(augmentation.passes(random, 9, 2, 3)) == 24


def test_photographs_have_the_mean_around_and_cut_out(key):
    images = jnp.ones((64, 8, 8, 3))
    change = lambda **s: np.asarray(
        augmentation.change_photographs(key, images, Photographs(**s))
    )
    np.testing.assert_array_equal(change(), images)
    cropped = change(crop=2)
    assert cropped.shape == images.shape and 0.5 < cropped.mean() < 0.95
    hidden = {
        a: (change(cutout=4, anchor=a) == 0).mean((0, 3)) for a in ("corner", "centre")
    }
    # From its corner the square is cut off at the right and the bottom only.
    assert hidden["corner"][:2, :2].mean() < 0.1 < hidden["corner"][-2:, -2:].mean()
    assert hidden["centre"].mean() > hidden["corner"].mean()
    ramp = jnp.broadcast_to(jnp.arange(8.0)[:, None], (64, 8, 8, 1))
    flipped = augmentation.change_photographs(key, ramp, Photographs(flip=True))
    assert 0.3 < (np.asarray(flipped)[:, 0, 0, 0] == 7).mean() < 0.7


@pytest.mark.parametrize(
    ("settings", "message"),
    (
        (Photographs(crop=9), "crop: got 9"),
        (Photographs(cutout=-1), "cutout: got -1"),
        (Photographs(anchor="center"), "Did you mean 'centre'"),
    ),
)
def test_settings_that_do_not_suit_the_images(settings, message):
    with pytest.raises(UsageError, match=message):
        augmentation.check_photographs(settings, 8)


def test_unknown_change_and_no_copies():
    with pytest.raises(UsageError, match="Did you mean 'turns'"):
        augmentation.change("turn")
