"""Training of weights: the delay of double addition, the state of batch norm."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modmask import tasks, weights
from modmask.config import Config
from modmask.task import Task
from modmask.tasks import samplers
from shared.config import split
from shared.errors import UsageError
from shared.model import Model, Variables


def counting_model():
    """A model whose state counts its training passes."""

    def apply(variables, x, *, train=False, key=None):
        state = {"passes": variables.state["passes"] + train}
        return variables.params["w"] * x, state

    init = lambda key: Variables({"w": jnp.ones(())}, {"passes": jnp.zeros((), int)})
    return Model(init, apply)


def loss(forward, batch, key, setting):
    value = jnp.sum(forward(batch)) + jnp.sum(forward(batch))
    return value, {"setting": jnp.asarray(setting, float)}


def steps_of(count, **changes):
    static, hyper = split(Config(task="tuple", **changes))
    task = Task(counting_model(), loss, lambda forward, batch: {})
    program = weights.build(task, static)
    hyper = {**hyper, "setting": jnp.int32(-1)}
    state = program.init(jax.random.key(0), hyper)
    seen = []
    for _ in range(count):
        state, metrics = program.step(state, jnp.ones(2))
        seen.append(int(metrics["setting"]))
    return state, seen


def test_state_passes_from_one_pass_of_a_step_to_the_next():
    state, _ = steps_of(3)
    assert state.state["passes"] == 6


def test_delay_trains_on_the_first_pair_alone():
    assert steps_of(4, tuple_delay=2)[1] == [0, 0, -1, -1]


def test_decay_is_added_after_clipping_and_before_momentum():
    changes = {"optimizer": "sgd", "lr": 0.5, "weight_decay": 0.1, "grad_clip": 1.0}
    state, _ = steps_of(2, **changes)
    # Gradient 4, clipped to 1.
    momentum, w = 0.0, 1.0
    for _ in range(2):
        momentum = 0.9 * momentum + 1.0 + 0.1 * w
        w -= 0.5 * momentum
    np.testing.assert_allclose(state.params["w"], w, rtol=1e-5)


def test_weights_are_not_clipped_where_the_experiment_says_so():
    state, _ = steps_of(1, optimizer="sgd", lr=0.5, clip_weights=False)
    np.testing.assert_allclose(state.params["w"], 1 - 0.5 * 4, rtol=1e-6)
    assert optax.tree.norm(state.params) == pytest.approx(1.0)


def test_delay_is_for_recurrent_pairs_alone():
    with pytest.raises(UsageError, match="tuple_delay: got 3"):
        Config(task="addmul", tuple_delay=3)


def test_validation_sets_shrink_to_the_same_rows_each_time():
    config = Config(task="addmul_ff", layer_sizes=(4,), digits=1)
    whole = tasks.load(config).valid["iid"]
    few = tasks.load(dataclasses.replace(config, valid_limit=50)).valid["iid"]
    rows = samplers.subset(len(whole["operation"]), 50)
    np.testing.assert_array_equal(few["operation"], whole["operation"][rows])
    assert len(few["input"]) == 50
