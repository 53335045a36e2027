"""Multi-task sets: what is asked, what is held out and left out, how rows are drawn."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from multipath.routing_networks import data, questions
from shared.data import load as load_source
from shared.data.catalog import SETS
from shared.errors import UsageError
from tests.quick import quick
from tests.shared.data import official

pytestmark = pytest.mark.filterwarnings("ignore:.*is partial")

COARSE = np.asarray(SETS["cifar100"].coarse)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny MNIST and a tiny CIFAR-100 in their official formats."""
    path = tmp_path_factory.mktemp("sources")
    official.write_idx(path, train=40, test=20)
    _, files = official.cifar_files("cifar100", 0, rows=200)
    official.write_folder(path, "cifar100", files)
    return path


@pytest.fixture(scope="module")
def digits():
    return data.load("digits_mtl", valid_fraction=0.1)


def host(split):
    return [np.asarray(a) for a in split]


@pytest.mark.parametrize("labels", ["rank", "mod5"])
def test_pictures_are_asked_about_within_their_superclass(folder, labels):
    source = load_source("cifar100", folder).test
    found = data.load("cifar100_mtl", folder, labels=labels)
    images, own, tasks = host(found.test)
    fine = np.asarray(source.labels)
    np.testing.assert_array_equal(images, source.images)
    assert tasks[:, 0].tolist() == COARSE[fine].tolist()
    assert own[:, 0].tolist() == questions.superclass_labels(labels)[fine].tolist()
    classes, names = found.info.classes, SETS["cifar100"].class_names
    for label, task, f in zip(own[:, 0], tasks[:, 0], fine, strict=True):
        assert names[f] in classes[task][label].split("/")
    assert found.info.tasks[COARSE[names.index("shark")]] == "fish"
    assert found.info.outputs == 5


def test_each_digit_is_asked_for_under_every_task(digits):
    source = load_source("digits").test
    images, labels, tasks = host(digits.test)
    np.testing.assert_array_equal(images[:, ::2, 1::2], source.images)
    assert images.shape == (360, 16, 16, 1)
    assert (tasks == np.arange(10)).all()
    np.testing.assert_array_equal(labels, np.asarray(source.labels)[:, None] == tasks)
    assert digits.info.outputs == 2 and digits.info.classes[7] == ("another", "7")
    assert digits.info.rows == (12940, 1430, 3600)


def test_no_two_permuted_tasks_agree_on_a_digit():
    source = load_source("digits").test
    found = data.load("digits_mtl_permuted")
    _, labels, tasks = host(found.test)
    digits = np.asarray(source.labels)
    assert all(len(set(row)) == 10 for row in labels)
    for t in range(10):
        names = np.array(found.info.classes[t])
        assert names[labels[:, t]].astype(int).tolist() == digits.tolist()
    assert sorted(questions.permutations()[3]) == list(range(10)) and tasks[0, 3] == 3


def test_validation_takes_a_tenth_of_each_class_once_and_for_all(digits):
    source = np.asarray(load_source("digits").train.labels)
    again = data.load("digits_mtl", valid_fraction=0.1)
    np.testing.assert_array_equal(again.valid.images, digits.valid.images)
    held, kept = (np.asarray(s.labels).argmax(1) for s in (digits.valid, digits.train))
    for digit in range(10):
        total = np.sum(source == digit)
        assert np.sum(held == digit) == round(0.1 * total)
        assert np.sum(kept == digit) == total - round(0.1 * total)
    kept, held = data._held_out(source, 0.1)
    assert sorted([*kept, *held]) == list(range(len(source)))
    whole = data.load("digits_mtl", valid_fraction=0)
    assert len(whole.train.images) == len(source) and not len(whole.valid.images)


def rows_of(found):
    labels, tasks = (np.asarray(a).ravel() for a in found.train[1:])
    chosen = np.asarray(found.chosen)
    assert len(set(chosen.tolist())) == len(chosen) == found.info.rows.train
    return labels[chosen], tasks[chosen]


def test_balanced_tasks_have_as_many_negatives_as_positives(digits):
    positives = np.asarray(digits.train.labels).sum(0)
    labels, tasks = rows_of(data.load("digits_mtl", balance=True))
    np.testing.assert_array_equal(np.bincount(tasks[labels == 1]), positives)
    np.testing.assert_array_equal(np.bincount(tasks[labels == 0]), positives)


def test_tasks_may_be_cut_to_some_rows():
    labels, tasks = rows_of(data.load("digits_mtl", per_task=20, tasks=3))
    assert np.bincount(tasks).tolist() == [20] * 3
    labels, tasks = rows_of(data.load("digits_mtl", per_task=20, balance=True))
    assert np.bincount(tasks).tolist() == [20] * 10 and labels.sum() == 100


def test_fewer_tasks_drop_their_images_or_their_slots(folder):
    found = data.load("cifar100_mtl", folder, tasks=4)
    assert set(host(found.train)[2].ravel()) == set(range(4))
    source = np.asarray(load_source("cifar100", folder).test.labels)
    assert len(found.test.images) == np.sum(COARSE[source] < 4)
    found = data.load("mnist_mtl", folder, tasks=4)
    assert found.test.tasks.shape == (20, 4) and len(found.info.tasks) == 4


def test_standard_images_have_mean_zero_and_deviation_one(folder):
    for name in ("cifar100_mtl", "mnist_mtl"):
        found = data.load(name, folder, valid_fraction=0)
        images = np.asarray(data.every_row(found.train, found.info).images, float)
        np.testing.assert_allclose(images.mean((0, 1, 2)), 0, atol=1e-5)
        np.testing.assert_allclose(images.std((0, 1, 2)), 1, atol=1e-5)
        for scale, largest in (("unit", 1), ("raw", 255)):
            info = data.load(name, folder, scale=scale).info
            images = np.asarray(data.scaled(found.train.images, info))
            raw = np.asarray(found.train.images, np.float32)
            np.testing.assert_allclose(images, raw / 255 * largest, rtol=1e-6)


def test_every_chosen_row_comes_once_an_epoch_with_its_image(key):
    found = data.load("digits_mtl", balance=True, per_task=6, tasks=5)
    draw, seen = data.batches(found, 10), []

    @quick
    def epoch(arrays, key):
        plan = draw.plan(key, 0, ())
        return [draw.take(arrays, plan, i, key) for i in range(draw.per_epoch)]

    for batch in epoch((found.train, found.chosen), key):
        assert batch.images.shape == (10, 16, 16, 1)
        for image, label, task in zip(*host(batch), strict=True):
            seen.append((image.tobytes(), int(label), int(task)))
    whole = data.select(found.train, found.chosen, found.info)
    rows = zip(*host(whole), strict=True)
    wanted = [(i.tobytes(), int(l), int(t)) for i, l, t in rows]
    assert sorted(seen) == sorted(wanted) and len(seen) == 30


def test_rows_belong_to_their_images(digits):
    part = jax.tree.map(lambda a: a[:3], digits.test)
    whole = data.every_row(part, digits.info)
    rows = data.select(part, jnp.arange(30), digits.info)
    np.testing.assert_array_equal(rows.images, whole.images.repeat(10, 0))
    np.testing.assert_array_equal(rows.labels, whole.labels)
    np.testing.assert_array_equal(rows.tasks, whole.tasks)


def test_stratified_batches_hold_each_task_alike(folder, key):
    found = data.load("cifar100_mtl", folder, per_task=4, tasks=6)
    draw = data.batches(found, 18, stratify=True)
    batch = quick(draw.take)((found.train, found.chosen), (), 0, key)
    assert np.asarray(batch.tasks).tolist() == np.repeat(np.arange(6), 3).tolist()
    chosen = data.select(found.train, found.chosen, found.info)
    known = {i.tobytes(): int(t) for i, _, t in zip(*host(chosen), strict=True)}
    for image, _, task in zip(*host(batch), strict=True):
        assert known[image.tobytes()] == task


def test_images_stay_bytes_and_stand_there_once(folder):
    found = data.load("mnist_mtl", folder)
    assert found.train.images.dtype == np.uint8
    assert len(found.train.images) + len(found.valid.images) == 40
    assert len(found.chosen) == 10 * len(found.train.images)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digit_mtl", {}, "Did you mean 'digits_mtl'"),
        ("cifar100_mtl", {}, "data_dir"),
        ("digits_mtl", {"labels": "mod5"}, "labels: got 'mod5'"),
        ("digits_mtl", {"labels": "ranks"}, "Did you mean 'rank'"),
        ("digits_mtl", {"scale": "bytes"}, "one of standard, unit, raw"),
        ("digits_mtl", {"valid_fraction": 1.0}, "valid_fraction"),
        ("digits_mtl", {"valid_fraction": 0.9999}, "leaves a training image"),
        ("digits_mtl_permuted", {"balance": True}, "mnist_mtl, digits_mtl"),
        ("digits_mtl", {"tasks": 11}, "tasks: got 11"),
        ("digits_mtl", {"per_task": 1295}, "1 to 1294"),
        ("digits_mtl", {"per_task": 1, "balance": True}, "per_task: got 1"),
    ],
)
def test_bad_requests(name, options, message):
    with pytest.raises(UsageError, match=message):
        data.load(name, **options)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UsageError, match="cifar-100-binary/train.bin"):
        data.load("cifar100_mtl", tmp_path)


def test_bad_batches(digits):
    with pytest.raises(UsageError, match="batch_size: got 0"):
        data.batches(digits, 0)
    with pytest.raises(UsageError, match="a multiple of the 10 tasks"):
        data.batches(digits, 64, stratify=True)
