"""Mask training: schedules agree, penalties push, frozen and resting masks stay."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modmask import mask_update, masks
from modmask.config import MaskConfig
from modmask.masks import Member
from modmask.task import Stage, Task
from shared import masking, parallel
from shared.config import split
from shared.errors import UsageError
from tests.modmask import toy
from tests.quick import quick

CONFIG = MaskConfig(
    mask_steps=3,
    mask_samples=2,
    batch_size=16,
    mask_lr=0.1,
    mask_loss_weight=1.0,
    eval_every=0,
)


def train(members, task=None, **changes):
    return masks.train_masks(
        task or toy.task(), toy.arrays(), members, progress=False, **changes
    )


def member(stage=toy.STAGES[0], config=CONFIG, **changes) -> Member:
    network = toy.network()
    return Member(config, network, stage, toy.logits(network), **changes)


@pytest.fixture(scope="module")
def together():
    return train([member(stage) for stage in toy.STAGES])


def test_a_mask_trained_with_others_is_the_mask_trained_alone(together):
    alone = train([member(toy.STAGES[2])])
    chex.assert_trees_all_close(alone.logits[0], together.logits[2], atol=2e-6)


def test_stages_seeds_and_penalties_give_different_masks(together):
    other = [
        dataclasses.replace(CONFIG, seed=1),
        dataclasses.replace(CONFIG, mask_loss_weight=100.0),
    ]
    found = train([member(config=config) for config in other]).logits
    kernels = [tree["layers"][0]["kernel"] for tree in (*together.logits, *found)]
    for i, kernel in enumerate(kernels):
        assert not any(np.allclose(kernel, later) for later in kernels[i + 1 :])


@pytest.mark.parametrize("how", ("vmap", "loop"))
def test_schedules_over_members_agree(together, how):
    found = train([member(stage) for stage in toy.STAGES], how=how)
    chex.assert_trees_all_close(found.logits, together.logits, atol=2e-6)


def test_devices_share_the_members(together):
    mesh = parallel.mesh(2, axis="member")
    found = train([member(stage) for stage in toy.STAGES], mesh=mesh)
    chex.assert_trees_all_close(found.logits, together.logits, atol=2e-6)


@pytest.mark.parametrize("how", ("loop", "shard"))
def test_samples_one_by_one_give_the_update_of_all_at_once(together, how):
    config = dataclasses.replace(CONFIG, mask_how=how)
    found = train([member(config=config)], how="loop")
    chex.assert_trees_all_close(found.logits[0], together.logits[0], atol=2e-6)


def step_of(config, task=None, draw=mask_update.draw):
    static, _ = split(config)
    state = masks.start(member(config=config))
    batch = jax.tree.map(lambda a: a[:16], toy.arrays())
    return quick(mask_update.make_step(task or toy.task(), static, draw))(state, batch)


def test_each_group_of_rows_sees_its_own_mask():
    """Masks that keep nothing in all groups but one leave the others no gradient."""

    def draw(static, logits, hyper, key, first, n):
        only = jnp.arange(n) == 1
        return jax.tree.map(
            lambda leaf: leaf[None] * only.reshape(-1, *(1,) * leaf.ndim), logits
        )

    def gradient(x):
        network, (_, labels) = toy.network(), toy.arrays()
        static, _ = split(CONFIG)
        loss = mask_update.make_loss(toy.task(), static, draw)
        keys = jax.random.split(jax.random.key(0))
        batch = (x, labels[:16])
        hyper = {"setting": ()}
        return loss(toy.logits(network), network, batch, 0, 4, keys, hyper, "vmap")[0]

    moved = jax.grad(gradient)(toy.arrays()[0][:16])
    assert np.any(moved[4:8] != 0)
    assert not np.any(moved[:4]) and not np.any(moved[8:])


def test_equal_noise_makes_the_result_independent_of_the_number_of_samples():
    def draw(static, logits, hyper, key, first, n):
        one = masking.sample(logits, key=jax.random.key(5))
        if n is None:
            return one
        return jax.tree.map(lambda m: jnp.broadcast_to(m, (n, *m.shape)), one)

    found = [
        step_of(dataclasses.replace(CONFIG, mask_samples=n), draw=draw)[0].params
        for n in (1, 8)
    ]
    chex.assert_trees_all_close(*found, atol=1e-6)


def test_parameters_that_are_not_trained_keep_their_logits(together):
    network = toy.network()
    trained = jax.tree.map(lambda _: True, network.params)
    trained["layers"][0] = {"kernel": False, "bias": True}
    found = train([member(trained=trained)]).logits[0]["layers"]
    assert np.all(found[0]["kernel"] == 0.5)
    assert not np.any(found[0]["bias"] == 0.5)


@pytest.mark.parametrize(
    "changes",
    (
        {"mask_kind": "hard_concrete", "mask_penalty": "l0"},
        {"mask_kind": "annealed"},
        {"scale_mask_loss": True, "mask_noise": "threefry"},
    ),
)
def test_kinds_and_penalties_change_the_update(together, changes):
    config = dataclasses.replace(CONFIG, **changes, mask_steps=3)
    state, metrics = step_of(config)
    plain, _ = step_of(CONFIG)
    assert np.isfinite(metrics["loss"])
    same = jax.tree.map(
        lambda a, b: bool(jnp.all(a == b)), state.opt_state, plain.opt_state
    )
    assert not all(jax.tree.leaves(same))


def test_density_penalty_reaches_the_density_that_was_asked_for():
    idle = Task(toy.task().model, lambda f, b, k, s: (jnp.zeros(()), {}), None)
    config = dataclasses.replace(
        CONFIG,
        mask_penalty="density",
        mask_density=0.3,
        mask_loss_weight=1000.0,
        mask_steps=300,
        grad_clip=0.0,
    )
    # The expected density is that of samples, not of the threshold.
    found = train([member(config=config)], idle).logits[0]
    kept = [1 / (1 + np.exp(-leaf)) for leaf in jax.tree.leaves(found)]
    mean = sum(k.sum() for k in kept) / sum(k.size for k in kept)
    assert mean == pytest.approx(0.3, abs=0.02)


def test_warm_up_raises_the_rate_in_equal_steps():
    config = dataclasses.replace(CONFIG, mask_warmup=4)
    first, plain = step_of(config)[0], step_of(CONFIG)[0]
    moved = lambda state: state.params["layers"][0]["kernel"] - 0.5
    np.testing.assert_allclose(moved(first), moved(plain) / 4, rtol=1e-3, atol=1e-6)


def test_a_mask_at_rest_stays_and_ends_its_training():
    config = dataclasses.replace(
        CONFIG, mask_patience=5, mask_steps=400, mask_lr=1e-4, mask_loss_weight=0.0
    )
    # Logits far from 0 never change sign at this rate.
    network = toy.network()
    start = Member(config, network, toy.STAGES[0], toy.logits(network, 3.0))
    seen = []
    log = lambda step, m, record: seen.append(step)
    valid = {"iid": toy.arrays()}
    rested = train([start], log=log, log_every=10, valid=valid).logits[0]
    assert max(seen) == 10
    short = dataclasses.replace(config, mask_patience=0, mask_steps=5)
    five = train([start._replace(config=short)]).logits[0]
    chex.assert_trees_all_close(rested, five, atol=1e-6)


def test_large_logits_leave_the_network_whole():
    network, task = toy.network(), toy.task()
    state = masks.start(member())
    full = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 50.0), state.params)
    state = state._replace(params=full)
    masked = mask_update.make_evaluate(task)(state, toy.arrays())
    plain = task.evaluate(lambda x: task.model.apply(network, x)[0], toy.arrays())
    chex.assert_trees_all_equal(masked, plain)
    assert mask_update.density(state)["density"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    (
        (lambda m: m._replace(stage=Stage("none", np.arange(0))), "stage 'none'"),
        (lambda m: m._replace(stage=Stage("far", np.array([64]))), "0 to 63"),
        (
            lambda m: m._replace(logits=jax.tree.map(lambda a: a * np.nan, m.logits)),
            "logits: got 'non-finite",
        ),
        (
            lambda m: m._replace(logits=jax.tree.map(lambda a: a[:-1], m.logits)),
            "layers/0/bias",
        ),
    ),
)
def test_members_that_do_not_fit_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        train([change(member())])


def test_members_of_different_programs_are_refused():
    other = dataclasses.replace(CONFIG, mask_samples=4)
    with pytest.raises(UsageError, match="2 kinds of settings"):
        train([member(), member(config=other)])


def test_batch_that_the_samples_do_not_divide_is_refused():
    with pytest.raises(UsageError, match="batch_size: got 10, .* multiple of"):
        MaskConfig(batch_size=10)
