"""Sets as a search takes them: sources, splits, norms, batches, blocks."""

import re

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from enasq import data
from enasq.augmentation import Photographs
from shared.errors import UsageError
from tests.enasq import images
from tests.shared.data import official


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def load_partial(*args, **kwargs):
    with pytest.warns(UserWarning, match="is partial"):
        return data.load(*args, **kwargs)


def test_digits_keep_their_size_and_hold_out_the_last(digits):
    assert digits.info.counts == (1150, 287, 360)
    assert digits.info.shape == (8, 8, 1) and digits.info.classes == 10
    both = data.load("digits", valid=0)
    rows = np.concatenate([digits.train.images, digits.valid.images])
    np.testing.assert_array_equal(rows, both.train.images)
    assert both.valid.images.shape == (0, 8, 8, 1)


def test_clean_statistics_are_those_of_the_training_images(digits):
    train = data.whole(digits, "train").images
    np.testing.assert_allclose(train.mean(), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(), 1, atol=1e-5)
    assert len(set(digits.info.norms)) == 1


def test_compat_statistics_are_each_splits_own():
    sets = data.load("digits", compat=True)
    for split in ("train", "valid", "test"):
        out = np.asarray(data.whole(sets, split).images)
        np.testing.assert_allclose(out.mean(), 0, atol=1e-5)
        np.testing.assert_allclose(out.std((1, 2, 3)).mean(), 1, atol=1e-5)
        assert out.std() > 1.001
    assert len(set(sets.info.norms)) == 3


def test_a_deployed_network_can_take_raw_images():
    sets = data.load("digits", inputs="fixed")
    norm = sets.info.norms.test
    raw = np.asarray(sets.test.images, np.float32)
    ours = data.whole(sets, "test").images
    np.testing.assert_array_equal(ours, (raw - norm.mean[0]) / norm.std[0])


def test_mnist_in_official_files(tmp_path):
    arrays = official.write_idx(tmp_path, train=40)
    sets = load_partial("mnist", tmp_path, image_size=28, valid=10)
    np.testing.assert_array_equal(sets.train.images[..., 0], arrays[0][:30])
    np.testing.assert_array_equal(sets.valid.labels, arrays[1][30:])
    usual = load_partial("mnist", tmp_path)
    assert usual.info.shape == (32, 32, 1) and usual.info.counts.valid == 8
    compat = load_partial("mnist", tmp_path, valid=20, compat=True)
    np.testing.assert_array_equal(np.bincount(compat.valid.labels), 2)
    # Official files go before folders.
    images.write_set(tmp_path / "mnist")
    assert load_partial("mnist", tmp_path).info.counts.test == 8


def test_mnist_in_folders(tmp_path):
    images.write_set(tmp_path / "mnist")
    sets = data.load("mnist", tmp_path, image_size=28)
    assert sets.info.counts == (30, 10, 20)
    np.testing.assert_array_equal(
        sets.valid.images[3, ..., 0], images.pixels("valid", 3, 0)
    )
    assert data.load("mnist", tmp_path, valid=0).info.counts == (30, 0, 20)
    with pytest.raises(UsageError, match="valid: got 5"):
        data.load("mnist", tmp_path, valid=5)
    dirs = {split: tmp_path / "mnist" / split for split in ("train", "test")}
    named = data.load("mnist", split_dirs=dirs, image_size=28)
    assert named.info.counts == (24, 6, 20)


def test_colours_of_compat_are_blue_green_red(tmp_path):
    images.write_set(tmp_path, (8, 8, 3))
    clean, compat = (
        data.load("mnist", tmp_path, image_size=8, channels=3, compat=compat)
        for compat in (False, True)
    )
    np.testing.assert_array_equal(clean.test.images, compat.test.images[..., ::-1])
    np.testing.assert_array_equal(
        clean.test.images[0], images.pixels("test", 0, 0, (8, 8, 3))
    )


@pytest.mark.parametrize("below", ["", "cifar10", "cifar-10-batches-py"])
def test_cifar_in_pickled_batches(tmp_path, below):
    planes = images.write_cifar(tmp_path / below)
    sets = load_partial("cifar10", tmp_path, valid=4)
    assert sets.info.counts == (16, 4, 4)
    np.testing.assert_array_equal(sets.valid.labels, [4, 5, 6, 7])
    last = planes["data_batch_5"][-1].reshape(3, 32, 32)
    np.testing.assert_array_equal(sets.valid.images[-1], last.transpose(1, 2, 0))
    # Statistics are of what is left to train on.
    mean = np.asarray(sets.train.images, float).mean((0, 1, 2))
    np.testing.assert_allclose(sets.info.norms.test.mean, mean, rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    (
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"\x80\x02}q\x00.", "data_batch_2.*'data' and 'labels'"),
    ),
)
def test_damaged_cifar_batches_are_named(tmp_path, content, message):
    images.write_cifar(tmp_path)
    (tmp_path / "data_batch_2").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        data.load("cifar10", tmp_path)


def test_copies_multiply_the_training_images_alone():
    clean = data.load("digits", valid=1400, copies=3)
    assert clean.info.counts == (111, 1400, 360)
    original = data.load("digits", valid=1400)
    np.testing.assert_array_equal(clean.train.images[2::3], original.train.images)
    np.testing.assert_array_equal(clean.train.labels[1::3], original.train.labels)
    # 37 images are 3 of each of 10 classes in 3 passes.
    compat = data.load("digits", valid=1400, copies=3, compat=True)
    assert compat.info.counts.train == 90


def test_an_epoch_shows_every_image_once_and_changes_its_order(digits, key):
    sets = digits._replace(train=digits.train)
    batches = data.batches(sets, 230)
    take = jax.jit(batches.take)
    seen = []
    for epoch in (0, 1):
        plan = batches.plan(key, jnp.int32(epoch), None)
        parts = [take(sets.train, plan, i, key) for i in range(batches.per_epoch)]
        seen.append(np.concatenate([part.labels for part in parts]))
        total = sum(float(part.images.sum()) for part in parts)
        np.testing.assert_allclose(total, 0, atol=0.5)
    np.testing.assert_array_equal(np.bincount(seen[0]), np.bincount(sets.train.labels))
    assert (seen[0] != seen[1]).any()


def test_batches_of_a_step_are_changed_by_its_key_alone(digits):
    photographs = Photographs(crop=1, cutout=3)
    batches = data.batches(digits, 16, change="turns", photographs=photographs)
    plain = data.batches(digits, 16)
    plan = batches.plan(jax.random.key(0), 0, None)
    take = jax.jit(batches.take)
    first, again, other = (
        take(digits.train, plan, 2, jax.random.key(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.labels, other.labels)
    assert (first.images != other.images).any((1, 2, 3)).all()
    bare = plain.take(digits.train, plan, 2, jax.random.key(1))
    assert (bare.images != first.images).any((1, 2, 3)).all()
    # A square of zeros is in every image.
    assert ((first.images == 0).sum((1, 2, 3)) >= 1).all()


def test_validation_batches_have_validation_images(digits, key):
    batches = data.batches(digits, 287, split="valid")
    plan = batches.plan(key, 0, None)
    out = batches.take(digits.valid, plan, 0, key)
    np.testing.assert_array_equal(np.sort(out.labels), np.sort(digits.valid.labels))


@pytest.mark.parametrize("size", [100, 500])
def test_blocks_hold_each_image_once(digits, size):
    found = data.blocks(digits.test, size)
    assert found.real.shape == (-(-360 // size), size) and found.real.sum() == 360
    real = np.asarray(found.real)
    np.testing.assert_array_equal(np.asarray(found.images)[real], digits.test.images)
    np.testing.assert_array_equal(np.asarray(found.labels)[real], digits.test.labels)


BAD = (
    ({"name": "minst"}, "Did you mean 'mnist'"),
    ({"image_size": 3}, "image_size: got 3, expected a whole number from 4 to 256"),
    ({"image_size": True}, "image_size: got True"),
    ({"channels": 2}, "channels: got 2, expected 1 or 3"),
    ({"copies": 0}, "copies: got 0"),
    ({"change": "turn"}, "Did you mean 'turns'"),
    ({"inputs": "fix"}, "Did you mean 'fixed'"),
    ({"valid": 1437}, "valid: got 1437, expected a whole number from 0 to 1436"),
    ({"split_dirs": {"train": "a"}}, "split_dirs: got 'digits'"),
    ({"name": "mnist", "split_dirs": {"train": "a"}}, "train and test at least"),
    ({"name": "mnist"}, re.escape("PNG files in folders 0 to 9 (or their .zip)")),
    ({"name": "cifar10"}, "data_batch_1 to 5 and test_batch"),
)


@pytest.mark.parametrize(("options", "message"), BAD)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        data.load(**{"name": "digits", **options})


def test_a_search_needs_validation_images(digits):
    data.check_search(digits)
    with pytest.raises(UsageError, match="at least 1 validation image"):
        data.check_search(data.load("digits", valid=0))


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"size": 1151}, "batch_size: got 1151"),
        ({"size": 8, "split": "test"}, "split: got 'test'"),
        ({"size": 8, "change": "all"}, "change: got 'all'"),
        ({"size": 8, "photographs": Photographs(cutout=9)}, "cutout: got 9"),
    ),
)
def test_wrong_batches_are_refused(digits, options, message):
    with pytest.raises(UsageError, match=message):
        data.batches(digits, **options)
    with pytest.raises(UsageError, match="evaluation batch"):
        data.blocks(digits.test, 0)
