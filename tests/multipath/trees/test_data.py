"""Data sets of multipath.trees: their images, labels, colours and augmentation."""

import jax
import jax.image
import jax.numpy as jnp
import numpy as np
import pytest

from multipath.trees import data, recolouring, synthetic
from shared.data import batching
from shared.data import load as load_source
from shared.data.dataset import HostSplit
from shared.errors import UsageError
from tests.shared.data import official

pytestmark = pytest.mark.filterwarnings("ignore:.*is partial")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny MNIST and a tiny CIFAR-10 in their official formats."""
    path = tmp_path_factory.mktemp("sources")
    official.write_idx(path, train=40, test=20)
    _, files = official.cifar_files("cifar10", 0, rows=10)
    official.write_folder(path, "cifar10", files)
    return path


@pytest.fixture(scope="module")
def stand_in():
    """The whole embedded hybrid, with a validation set."""
    return data.load("digits-hybrid", valid_fraction=0.1)


def arrays(split):
    return np.asarray(split.images), np.asarray(split.labels)


def test_mnist_is_sorted_enlarged_and_linear(folder):
    source = load_source("mnist", folder).train
    raw, labels = arrays(source)
    order = [i for c in range(10) for i in np.flatnonzero(labels == c)]
    images, found = arrays(data.load("mnist", folder).train)
    assert found.tolist() == labels[order].tolist()
    x = jnp.asarray(raw[order, ..., 0] / 255, jnp.float32)
    expected = jax.image.resize(x, (40, 32, 32), "bilinear")
    np.testing.assert_allclose(images[..., 0], expected, atol=1e-6)


def test_resize_keeps_plain_images_plain_and_reaches_any_size():
    bytes_ = np.full((1, 5, 7), 51, np.uint8)
    np.testing.assert_allclose(data.resize(bytes_, 9), np.full((1, 9, 9), 0.2))


def test_pictures_are_decoded_in_the_order_of_the_files(folder):
    raw, labels = arrays(load_source("cifar10", folder).test)
    found = data.load("cifar10", folder)
    images, own = arrays(found.test)
    np.testing.assert_allclose(images, (raw / 255) ** 2.2, rtol=1e-6)
    assert own.tolist() == labels.tolist() and images.dtype == np.float32
    assert bool(found.mirrored.all()) and found.names[7] == "Horse"


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("cifar5", ("Cat", "Deer", "Dog", "Horse", "Other")),
        ("cifar2", ("Horse", "Other")),
    ],
)
def test_superclasses_agree_with_their_names(folder, name, names):
    _, fine = arrays(data.load("cifar10", folder).train)
    found = data.load(name, folder)
    assert found.names == names and found.classes == len(found.mirrored) == len(names)
    picture = np.array(data.PICTURES)[fine]
    expected = [names.index(p) if p in names else len(names) - 1 for p in picture]
    assert np.asarray(found.train.labels).tolist() == expected


def test_hybrid_colours_follow_one_stream_over_all_digits(folder):
    digits, found = data.prepare("mnist", folder), data.prepare("hybrid", folder)
    random = np.random.RandomState(0)
    for own, made in ((digits.train, found.train), (digits.test, found.test)):
        at = 0
        for image, label in zip(*own, strict=True):
            paper, ink = (random.rand(3).astype(np.float32) for _ in range(2))
            while np.linalg.norm(ink - paper) < 0.3:
                ink = random.rand(3).astype(np.float32)
            if label < 5:
                expected = paper + (ink - paper) * image
                np.testing.assert_array_equal(made.images[at], expected)
                assert made.labels[at] == label
                at += 1
        assert np.all(made.labels[at:] >= 5)


def test_hybrid_is_sorted_and_mirrors_pictures_alone(folder):
    found, pictures = data.load("hybrid", folder), data.load("cifar10", folder)
    images, labels = arrays(found.train)
    assert np.all(np.diff(labels) >= 0)
    assert found.names[4:6] == ("4", "Airplane") and found.names[-1] == "Horse"
    assert np.asarray(found.mirrored).tolist() == [False] * 5 + [True] * 5
    source, classes = arrays(pictures.train)
    for label, name in enumerate(found.names[5:], 5):
        chosen = source[classes == data.PICTURES.index(name)]
        np.testing.assert_array_equal(images[labels == label], chosen)


def test_colours_stand_out_and_count_their_tries():
    drawn = recolouring.colours(200, np.random.RandomState(3))
    assert np.all(np.linalg.norm(drawn.ink - drawn.paper, axis=1) >= 0.3)
    stream = np.random.RandomState(3).rand(200 + drawn.tries.sum(), 3)
    last = np.cumsum(1 + drawn.tries) - 1
    np.testing.assert_array_equal(drawn.ink, stream[last].astype(np.float32))
    assert drawn.tries.max() > 1


def test_digits_are_the_shipped_ones():
    source, found = load_source("digits"), data.load("digits")
    np.testing.assert_array_equal(found.test.images * 16, source.test.images)
    assert found.valid.labels.shape == (0,) and not bool(found.mirrored.any())


def test_validation_rows_leave_the_training_set_once_and_for_all():
    whole, one, two = (
        data.load("digits", valid_fraction=f).train for f in (0, 0.25, 0.25)
    )
    held = data.load("digits", valid_fraction=0.25).valid
    np.testing.assert_array_equal(one.images, two.images)
    assert len(held.labels) == round(0.25 * len(whole.labels))
    both = np.concatenate([one.images, held.images]).reshape(len(whole.labels), -1)
    rows = np.asarray(whole.images).reshape(both.shape)
    key = lambda a: sorted(map(bytes, a))
    assert key(both) == key(rows)
    # At random: all classes are there, and not the last rows alone.
    assert len(set(held.labels.tolist())) == 10
    assert not np.array_equal(held.labels, whole.labels[-len(held.labels) :])


def test_stand_in_is_large_enough_and_in_range(stand_in):
    assert stand_in.test.images.shape == (2160, 32, 32, 3)
    count = len(stand_in.train.labels) + len(stand_in.valid.labels)
    assert count == 8622
    for split in (stand_in.train, stand_in.valid, stand_in.test):
        assert split.images.dtype == jnp.float32
        assert 0 <= float(split.images.min()) and float(split.images.max()) <= 1


def test_stand_in_keeps_all_images_of_a_digit_on_one_side(stand_in):
    digits = np.asarray(load_source("digits").train.labels)
    kept, held = data._held_out(8622, synthetic.VARIANTS, 0.1)
    assert set(kept % 1437).isdisjoint(held % 1437)
    np.testing.assert_array_equal(stand_in.train.labels, digits[kept % 1437])
    np.testing.assert_array_equal(stand_in.valid.labels, digits[held % 1437])


def pieces():
    """A few digits on the host, in two parts."""
    images, labels = arrays(load_source("digits").train)
    images = images.astype(np.float32) / 16
    return HostSplit(images[:20], labels[:20]), HostSplit(images[20:40], labels[20:40])


def test_stand_in_is_always_the_same_and_its_parts_share_no_digit():
    train, test = pieces()
    blank = HostSplit(np.zeros_like(train.images), train.labels)
    first = synthetic.digits_hybrid(train, test, variants=2)
    assert len(first[0].labels) == 40
    again = synthetic.digits_hybrid(train, blank, variants=2)
    np.testing.assert_array_equal(first[0].images, again[0].images)
    other = synthetic.digits_hybrid(blank, test, variants=2)
    np.testing.assert_array_equal(first[1].images, other[1].images)
    assert not np.array_equal(first[1].images, again[1].images)
    assert not np.array_equal(first[1].images[:20], first[1].images[20:])


def test_stand_in_is_the_one_that_results_were_measured_on(stand_in):
    images = np.asarray(stand_in.test.images, np.float64)
    means, spreads = images.mean((0, 1, 2)), images.std((0, 1, 2))
    np.testing.assert_allclose(means, [0.33144, 0.329563, 0.329741], atol=2e-6)
    np.testing.assert_allclose(spreads, [0.209451, 0.209473, 0.210593], atol=2e-6)


def test_stand_in_is_clean_on_one_half_and_cluttered_on_the_other():
    (images, labels), _ = synthetic.digits_hybrid(*pieces(), variants=1)
    pixels = images.reshape(len(images), -1, 3)
    spread = np.linalg.svd(pixels - pixels.mean(1, keepdims=True), compute_uv=False)
    # Two colours and their mixtures lie on a line.
    off_line = spread[:, 1] / spread[:, 0]
    easy = labels < synthetic.EASY
    assert off_line[easy].max() < 1e-4 and off_line[~easy].min() > 0.05


def test_paint_reads_between_pixels_and_zero_outside():
    shape = np.array([[[1.0, 3.0], [5.0, 7.0]]])
    at = lambda *values: np.array([[list(values)]])
    found = synthetic.paint(shape, at(0, 0.5, 1, -0.5, 9, 1), at(0, 0.5, 1, 0, 0, 1.25))
    np.testing.assert_allclose(found[0, 0], [1, 4, 7, 0.5, 0, 5.25])


def test_augment_mirrors_by_class_and_moves_within_reach(key):
    images = jnp.zeros((400, 9, 9, 1)).at[:, 4, 2].set(1.0)
    rows = data.Split(images, jnp.arange(400, dtype=jnp.int32) % 2)
    change = data.augment(jnp.array([False, True]), 1)
    draw = batching.with_replacement(400, 300, augment=change)
    batch = jax.jit(draw.take)(rows, (), 0, key)
    place = np.argwhere(np.asarray(batch.images[..., 0]) == 1)
    assert len(place) == 300
    row, column, labels = place[:, 1], place[:, 2], np.asarray(batch.labels)
    assert set(row) == {3, 4, 5} and set(column[labels == 0]) == {1, 2, 3}
    assert set(column[labels == 1]) == {1, 2, 3, 5, 6, 7}
    assert 0.4 < np.mean(column[labels == 1] > 4) < 0.6


def test_augment_may_do_nothing(key):
    rows = data.Split(jnp.ones((2, 3, 3, 1)), jnp.array([0, 1]))
    changed = data.augment(jnp.array([False, False]), 0)(key, rows)
    assert changed.images is rows.images
    with pytest.raises(UsageError, match="reach"):
        data.augment(jnp.array([True]), -1)


def test_archive_holds_the_set(folder, tmp_path):
    path = tmp_path / "deep" / "cifar-5.npz"
    data.write("cifar5", folder, path)
    found = data.load("cifar5", folder)
    with np.load(path, allow_pickle=False) as archive:
        assert sorted(archive) == ["m_sym", "x0_tr", "x0_ts", "y_tr", "y_ts"]
        np.testing.assert_array_equal(archive["x0_ts"], found.test.images)
        assert archive["y_tr"].dtype == np.float32
        np.testing.assert_array_equal(archive["y_tr"].argmax(1), found.train.labels)
        assert archive["m_sym"].tolist() == [1] * 5
    assert [file.name for file in path.parent.iterdir()] == ["cifar-5.npz"]


def test_failed_archive_leaves_nothing(tmp_path, monkeypatch):
    def full(stream, **arrays):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(UsageError, match="No space left"):
        data.write("digits", None, tmp_path / "digits.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cifar-3", {}, "one of mnist, cifar10"),
        ("hybrid", {}, "data_dir"),
        ("digits", {"valid_fraction": 1.0}, "valid_fraction"),
        ("digits", {"valid_fraction": -0.1}, "valid_fraction"),
        ("digits", {"valid_fraction": 0.9999}, "leaves a training image"),
    ],
)
def test_bad_requests(name, options, message):
    with pytest.raises(UsageError, match=message):
        data.load(name, **options)
