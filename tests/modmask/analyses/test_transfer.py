"""Transfer: what a task takes over, what stays as it is, and going on after a stop."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modmask import mask_update
from modmask.analyses import outcome, transfer
from modmask.find import cross_entropy
from modmask.models.feedforward import feedforward
from modmask.task import Problem, Stage, Task
from shared import masking, training
from shared.config import split
from shared.errors import UsageError
from shared.groups import Place
from tests.modmask.analyses import small

STEPS = 6


@pytest.fixture(scope="module")
def problem():
    """Three tasks on the same rows."""
    model = feedforward(small.INPUTS, small.CLASSES, (8, 8))
    task, data = Task(model, cross_entropy, small.evaluate), small.arrays()
    stages = tuple(Stage(f"perm_{i}") for i in range(3))
    valid = {stage.name: data for stage in stages}
    return Problem(task, data, Stage("weights"), stages, valid)


def config(**changes):
    settings = {"steps": STEPS, "eval_every": 3, "mask_lr": 0.05, **changes}
    settings = {"mask_loss_weight": 1e-3, "transfer_new_init": 0.0, **settings}
    return small.config("permuted_mnist", **settings)


CONFIGS = [config(), config(seed=1)]


def test_kept_weights_stay_and_all_others_are_fresh():
    params = {"layers": [{"kernel": jnp.ones((2, 2))}, {"kernel": jnp.ones((2, 3))}]}
    fresh = jax.tree.map(lambda leaf: 0 * leaf + 5, params)
    earlier = [
        {"layers": [{"kernel": jnp.eye(2) > 0}, {"kernel": jnp.eye(2, 3) > 0}]},
        {"layers": [{"kernel": jnp.eye(2) < 0}, {"kernel": jnp.eye(2, 3, 1) > 0}]},
    ]
    reinit = lambda first: transfer.reinit(
        params, fresh, earlier, new_init=-1, used_init=2.0, reset_first_layer=first
    )
    kept = np.array([[True, True, False], [False, True, True]])
    for start, layer in ((reinit(True), 0), (reinit(False), 1)):
        np.testing.assert_array_equal(start.kept["layers"][1]["kernel"], kept)
        weights = start.params["layers"][1]["kernel"]
        np.testing.assert_array_equal(weights, np.where(kept, 1, 5))
        logits = start.logits["layers"][1]["kernel"]
        np.testing.assert_array_equal(logits, np.where(kept, 2, -1))
        first = start.kept["layers"][0]["kernel"]
        np.testing.assert_array_equal(first, np.eye(2) * layer > 0)
        changed = start.logits["layers"][0]["kernel"]
        np.testing.assert_array_equal(changed, np.where(first, 2, -1))
    nothing = transfer.reinit(
        params, fresh, [], new_init=0.5, used_init=2, reset_first_layer=False
    )
    assert bool(jnp.all(nothing.logits["layers"][0]["kernel"] == 0.5))
    assert not bool(jnp.any(nothing.kept["layers"][1]["kernel"]))
    gradient = transfer.freeze(fresh, reinit(True).kept)["layers"][1]["kernel"]
    np.testing.assert_array_equal(gradient, np.where(kept, 0, 5))


def test_frozen_weights_do_not_move(problem):
    network = problem.task.model.init(jax.random.key(0))
    fresh = problem.task.model.init(jax.random.key(1)).params
    mask = masking.threshold(small.logits(0, network))
    start = transfer.reinit(
        network.params,
        fresh,
        [mask],
        new_init=0.0,
        used_init=2.0,
        reset_first_layer=True,
    )
    static, hyper = split(config())
    params = {"weights": start.params, "logits": start.logits}
    state = training.init_state(
        params,
        start.kept,
        jax.random.key(2),
        {**hyper, "setting": ()},
        mask_update.make_optimizer,
    )
    step = jax.jit(transfer.make_step(problem.task, static))
    batch = jax.tree.map(lambda a: a[:16], problem.train)
    for _ in range(3):
        state, _ = step(state, batch)
    changed = lambda one, two: np.asarray(one != two)
    moved = jax.tree.map(changed, state.params, params)
    for kept, weights in zip(
        jax.tree.leaves(start.kept), jax.tree.leaves(moved["weights"]), strict=True
    ):
        assert not weights[np.asarray(kept)].any()
        assert weights[~np.asarray(kept)].any() or bool(kept.all())
    assert all(logits.any() for logits in jax.tree.leaves(moved["logits"]))


@pytest.fixture(scope="module")
def learnt(problem, tmp_path_factory):
    """Two networks on three tasks, and where their checkpoints are."""
    folder = tmp_path_factory.mktemp("transfer")
    place = Place(progress=False, checkpoints=folder)
    return transfer.run(problem, CONFIGS, place), folder


def test_going_on_after_a_stop(problem, learnt, tmp_path):
    whole, folder = learnt
    shutil.copytree(folder, tmp_path / "some")
    shutil.rmtree(tmp_path / "some" / "perm_2")
    place = Place(progress=False, checkpoints=tmp_path / "some")
    resumed = transfer.run(problem, CONFIGS, place)
    for one, two in zip(whole, resumed, strict=True):
        assert one.results == two.results
        assert one.steps == two.steps == 3 * STEPS
        for name, arrays in one.exports.items():
            for key, value in arrays.items():
                np.testing.assert_array_equal(value, two.exports[name][key])
    assert whole[0].results != whole[1].results


def test_figures_of_each_task(learnt):
    found = learnt[0][0]
    results = found.results
    kernels = [
        found.exports[f"stage_final_masks/stage_{i}"]["layers_1_weight"] > 0
        for i in range(3)
    ]
    assert results["permuted_mnist/perm_0/mask_stat/shared/total"] == 0
    kept = kernels[2].sum()
    assert 0 < kept < kernels[2].size
    shared = (kernels[2] & (kernels[0] | kernels[1])).sum() / kept
    place = "permuted_mnist/perm_2/mask_stat"
    assert results[f"{place}/counts/layers_1_weight"] == kept
    assert results[f"{place}/shared/layers_1_weight"] == pytest.approx(shared)
    assert f"chance_low/{place}/shared/total" in results
    assert "permuted_mnist/perm_2/perm_0/accuracy" in results
    assert "permuted_mnist/perm_1/perm_2/accuracy" not in results


def test_biases_must_have_masks(problem):
    with pytest.raises(UsageError, match="mask_biases"):
        transfer.run(problem, [config(mask_biases=False)], Place())


def test_masks_of_numbers_from_the_host_are_arrays():
    network = small.network()
    host = jax.device_get(small.logits(0, network))
    found = outcome.masks_of(host, network.params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(found))
