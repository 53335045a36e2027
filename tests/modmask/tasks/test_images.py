"""Image tasks, on tiny files in the official formats."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modmask.config import Config
from modmask.tasks import images, samplers
from shared.errors import UsageError
from shared.model import Model, Variables
from tests.quick import quick
from tests.shared.data import official

PER_FILE = 10
LABELS = np.tile(official.labels(PER_FILE), 5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    _, files = official.cifar_files("cifar10", 0, rows=PER_FILE)
    official.write_folder(path, "cifar10", files)
    official.write_idx(path, "mnist", train=24)
    return path


@pytest.fixture(scope="module")
def archive():
    parts, _ = official.cifar_files("cifar10", 0, rows=PER_FILE)
    train = np.concatenate([image for _, image in parts.values()])[: 5 * PER_FILE]
    return train.transpose(0, 2, 3, 1)


@pytest.fixture
def load(folder):
    def load(task, **changes):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*partial", UserWarning)
            return images.load(Config(task=task, **changes), folder)

    return load


def test_the_training_archive_is_divided_and_nothing_is_lost(load, archive):
    problem = load("cifar10_class_removal")
    rows = samplers.training_rows(len(archive))
    for arrays, own in ((problem.train, rows), (problem.valid["iid"], ~rows)):
        np.testing.assert_array_equal(arrays["image"], archive[own])
        np.testing.assert_array_equal(arrays["label"], LABELS[own])
        assert arrays["image"].dtype == jnp.uint8
    assert problem.augment is None and list(problem.valid) == ["iid"]


def test_a_limit_takes_the_first_images(load, archive):
    problem = load("cifar10_class_removal", data_limit=12)
    rows = samplers.training_rows(12)
    np.testing.assert_array_equal(problem.train["image"], archive[:12][rows])
    np.testing.assert_array_equal(problem.valid["iid"]["image"], archive[:12][~rows])


def test_inputs_are_normalised_over_the_whole_archive(load, archive):
    """Shown all images of the archive, a network sees means of 0, deviations of 1."""
    seen = []
    problem = load("cifar10_class_removal")

    def forward(x):
        seen.append(x)
        return jnp.zeros((len(x), 10))

    for arrays in (problem.train, problem.valid["iid"]):
        problem.task.loss(forward, arrays, jax.random.key(0), ())
    x = np.concatenate(seen).reshape(-1, 3).astype("float64")
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(0), 1, rtol=1e-5)


def test_class_removal_has_a_control_and_leaves_out_one_class_each(load):
    problem = load("cifar10_class_removal")
    control, *others = problem.stages
    labels = np.asarray(problem.train["label"])
    assert control.name == "baseline" and control.rows is None
    assert [stage.name for stage in others] == [str(c) for c in range(10)]
    for c, stage in enumerate(others):
        assert sorted(stage.rows) == [i for i in range(len(labels)) if labels[i] != c]


def test_stability_shows_two_classes_that_the_seed_draws(load):
    problem = load("cifar10_mask_stability", seed=4)
    control, *others = problem.stages
    labels = np.asarray(problem.train["label"])
    assert control.rows is None and len(others) == 10
    for (i, j), stage in zip(samplers.stability_pairs(4), others, strict=True):
        assert stage.name == f"pair_{i}_{j}"
        assert set(labels[stage.rows]) == {i, j} & set(labels)
        assert len(stage.rows) == np.sum((labels == i) | (labels == j))


def test_stability_on_all_has_the_classes_of_class_removal(load):
    problem = load("cifar10_mask_stability", stability_on="all")
    names = [stage.name for stage in problem.stages]
    assert names == ["baseline", *map(str, range(10))]


def test_the_gradient_cosine_has_one_mask_without_the_first_class(load):
    problem = load("cifar10_grad_cosine")
    (stage,) = problem.stages
    labels = np.asarray(problem.train["label"])
    assert stage.name == "0" and set(labels[stage.rows]) == set(range(1, 10))


def test_the_residual_network_takes_all_images_and_the_official_test(load, archive):
    problem = load("cifar10_resnet_class_removal", resnet_depth=8)
    np.testing.assert_array_equal(problem.train["image"], archive)
    assert len(problem.valid["iid"]["label"]) == PER_FILE
    white = jnp.full((1, 2, 2, 3), 255, jnp.uint8)
    seen = []
    forward = lambda x: (seen.append(x), jnp.zeros((1, 10)))[1]
    batch = {"image": white, "label": jnp.zeros(1, jnp.int32)}
    problem.task.loss(forward, batch, jax.random.key(0), ())
    mean, std = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2023, 0.1994, 0.2010])
    np.testing.assert_allclose(seen[0][0, 0, 0], (1 - mean) / std, rtol=1e-5)


def test_augmented_images_are_windows_on_a_black_border(load, archive):
    change = load("cifar10_resnet_class_removal", resnet_depth=8).augment
    batch = {"image": jnp.asarray(archive[:20]), "label": jnp.arange(20)}
    changed = change(jax.random.key(0), batch)
    np.testing.assert_array_equal(changed["label"], batch["label"])
    padded = np.pad(archive, ((0, 0), (4, 4), (4, 4), (0, 0)))
    kinds = set()
    for image, around in zip(np.asarray(changed["image"]), padded, strict=False):
        places = [
            (top, left, flip)
            for top in range(9)
            for left in range(9)
            for flip in (1, -1)
            if np.array_equal(
                image[:, ::flip], around[top : top + 32, left : left + 32]
            )
        ]
        assert len(places) == 1
        kinds.add(places[0])
    assert len(kinds) > 10 and {flip for *_, flip in kinds} == {1, -1}


def test_metrics_of_known_predictions():
    model = Model(lambda key: Variables(()), lambda variables, x, **_: (x, ()))
    task = images.make_task(model, images.Inputs((0.0,), (1.0,)), 3)
    labels = jnp.array([0, 1, 1, 2])
    logits = jnp.log(jnp.array([[8, 1, 1], [1, 8, 1], [8, 1, 1], [2, 2, 6]]) / 10)
    batch = {"image": jnp.zeros((4, 1, 1, 1), jnp.uint8), "label": labels}
    found = task.evaluate(lambda x: logits, batch)
    assert float(found["accuracy"]) == 0.75
    loss = -np.mean(np.log([0.8, 0.8, 0.1, 0.6]))
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-6)
    expected = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]]) / 4
    np.testing.assert_array_equal(found["confusion"], expected)
    value, metrics = task.loss(lambda x: logits, batch, jax.random.key(0), ())
    np.testing.assert_allclose((value, metrics["loss"]), loss, rtol=1e-6)


def test_permutations_are_those_of_their_number(load):
    problem = load("permuted_mnist", transfer_tasks=3, layer_sizes=(4,))
    image, label = problem.valid["perm_0"]["image"], problem.valid["perm_0"]["label"]
    show = lambda x: x[:, :10]
    rate = quick(lambda batch: problem.task.evaluate(show, batch)["loss"])
    of_number = quick(
        lambda batch, p: problem.task.loss(show, batch, jax.random.key(0), p)[0]
    )
    for p in range(3):
        order = samplers.pixel_permutation(p)
        moved = np.asarray(image).reshape(len(image), -1)[:, order].reshape(image.shape)
        expected = rate({"image": jnp.asarray(moved), "label": label})
        found = rate(problem.valid[f"perm_{p}"])
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        setting = problem.stages[p].setting
        plain = {"image": image, "label": label}
        np.testing.assert_allclose(of_number(plain, setting), expected, rtol=1e-5)
    assert [stage.name for stage in problem.stages] == list(problem.valid)


def test_permuted_images_are_for_a_network_with_zero_biases(load, key):
    problem = load("permuted_mnist", transfer_tasks=1, layer_sizes=(4,))
    layers = problem.task.model.init(key).params["layers"]
    assert [layer["kernel"].shape for layer in layers] == [(784, 4), (4, 10)]
    assert not any(np.any(layer["bias"]) for layer in layers)


def test_missing_data_and_wrong_settings_are_refused(load, tmp_path):
    with pytest.raises(UsageError, match="prepare_data cifar10"):
        images.load(Config(task="cifar10_class_removal"), tmp_path)
    with pytest.raises(UsageError, match="data_limit"):
        load("cifar10_class_removal", data_limit=1)
    with pytest.raises(UsageError, match="task"):
        load("scan")
