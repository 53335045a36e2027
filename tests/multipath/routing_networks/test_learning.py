"""Rates, schedules and clipping of the two groups of parameters."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from multipath.routing_networks import learning, networks
from multipath.routing_networks.config import Config
from shared.config import split
from shared.errors import UsageError

CONFIG = Config(lr=0.5, routing_lr=0.1, lr_epochs=(2,), lr_factors=(0.5,), clip=0.0)
PARAMS = {"modules": {"w": jnp.zeros(2)}, "routing": {"d": jnp.zeros(3)}}
GRADS = {"modules": {"w": jnp.array([3.0, 4])}, "routing": {"d": jnp.full(3, 4.0)}}


def updates(step=0, **changes):
    """Return the norms of the updates of one step of gradients 5 and √48."""
    static, hyper = split(dataclasses.replace(CONFIG, **changes))
    make = learning.make_optimizer(static, 10)
    state = make(hyper).init(PARAMS)
    told = {**hyper, "step": jnp.asarray(step)}
    found, _ = make(told).update(GRADS, state, PARAMS)
    return {name: float(optax.tree.norm(part)) for name, part in found.items()}


def test_decisions_have_their_share_of_the_rate_in_every_epoch():
    for step, factor in ((0, 1), (19, 1), (20, 0.5), (99, 0.5)):
        made = updates(step)
        assert made["modules"] == pytest.approx(2.5 * factor)
        assert made["routing"] == pytest.approx(0.05 * 48**0.5 * factor)


@pytest.mark.parametrize(
    ("over", "modules", "routing"),
    [
        ("all", 5 / 73**0.5, (48 / 73) ** 0.5),
        ("groups", 1, 1),
        ("modules", 1, 48**0.5),
    ],
)
def test_clipping_is_over_what_it_says(over, modules, routing):
    made = updates(clip=1.0, clip_over=over, routing_lr=1.0)
    assert made["modules"] == pytest.approx(0.5 * modules)
    assert made["routing"] == pytest.approx(0.5 * routing)


def test_small_gradients_are_not_clipped():
    assert updates(clip=100.0) == pytest.approx(updates())


def test_groups_learn_in_their_epochs_alone():
    assert updates(9, routing_from=1)["routing"] == 0
    assert updates(10, routing_from=1)["routing"] > 0
    assert updates(9, modules_until=1)["modules"] > 0
    assert updates(10, modules_until=1)["modules"] == 0


def test_exploration_falls_on_a_line():
    static, hyper = split(
        Config(algorithm="qlearning", exploration=0.9, exploration_end=0.1)
    )
    at = [
        float(learning.exploration(static, {**hyper, "step": jnp.asarray(s)}, 5))
        for s in (0, 2, 4, 9)
    ]
    np.testing.assert_allclose(at, [0.9, 0.5, 0.1, 0.1], rtol=1e-6)


def test_exploration_is_what_the_published_examples_have():
    """They never hand it over, which would triple that of ε-greedy REINFORCE."""
    settings = Config(algorithm="egreedy_reinforce", compat=True)
    static, hyper = split(settings)
    told = {**hyper, "step": jnp.asarray(0)}
    assert float(learning.exploration(static, told, 5)) == pytest.approx(0.1 / 3)
    for name, temper, temperature in (
        ("relax", False, 0.5),
        ("relax", True, None),
        ("reinforce", False, None),
    ):
        router = networks.router(Config(algorithm=name, temper=temper), 2, 1)
        assert (router.temperature, router.temper) == (temperature, temper)


def test_tables_learn_at_the_rate_of_decisions():
    settings = Config(lr=0.1, routing_lr=0.5, lr_epochs=(1,), lr_factors=(0.1,))
    static, hyper = split(dataclasses.replace(settings, algorithm="wpl"))
    rates = [
        learning.objective(static, {**hyper, "step": jnp.asarray(step)}, 10).rate
        for step in (0, 10)
    ]
    np.testing.assert_allclose(rates, [0.05, 0.005], rtol=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("algorithm", "reinforc"),
        ("model", "routed"),
        ("clip_over", "none"),
        ("lr_epochs", (5, 5)),
        ("lr_factors", (0.1,)),
        ("exploration", 1.5),
        ("routing_lr", -1.0),
        ("entropy_bonus", -0.1),
        ("depth", 0),
    ],
)
def test_settings_that_cannot_be_are_refused(field, value):
    with pytest.raises(UsageError) as error:
        Config(**{field: value})
    assert field in str(error.value)


def test_remedies_need_a_policy():
    for remedy in ("entropy_bonus", "balance_loss", "z_loss"):
        with pytest.raises(UsageError, match=remedy):
            Config(algorithm="qlearning", **{remedy: 0.1})


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("entropy_bonus", {"algorithm": "wpl", "entropy_bonus": 0.1}),
        ("z_loss", {"algorithm": "wpl", "z_loss": 0.1, "storage": "approximate"}),
        ("exploration", {"algorithm": "aac", "exploration": 1.0}),
        ("temper", {"exploration": 1.0}),
        ("temper", {"algorithm": "aac", "temper": True}),
        ("mode", {"mode": "full"}),
        ("router_hidden", {"router_hidden": (3,)}),
        ("agents", {"agents": 3}),
        ("tell_task", {"tell_task": True}),
        ("modules", {"model": "shared", "algorithm": "", "modules": 3}),
        ("labels", {"labels": "mod5"}),
        ("routing_lr", {"model": "shared", "algorithm": "", "routing_lr": 1.0}),
        ("history", {"model": "shared", "algorithm": "", "history": "zero"}),
        ("window", {"history": "zero", "window": 3}),
        ("final_reward", {"dataset": "conflict", "final_reward": "correct"}),
    ],
)
def test_settings_that_would_do_nothing_are_refused(field, settings):
    with pytest.raises(UsageError, match=field):
        Config(**settings)


def test_baselines_take_no_algorithm():
    with pytest.raises(UsageError, match="algorithm"):
        Config(model="shared")
    assert Config(model="shared", algorithm="").depth == 3
