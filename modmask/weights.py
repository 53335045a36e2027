"""Training the weights of a network: optimiser, schedules and program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from modmask.task import Task
from shared import training
from shared.model import Variables

PEAK = 4000
"""Step at which the inverse-root schedule is highest (Vaswani et al. 2017)."""


def make_schedule(static: Any) -> Callable[[Array, PyTree], Array]:
    """Return `(step, hyper) -> learning rate`.

    Either lr gamma^(number of lr_steps <= step), or with `lr_inverse_root`
    lr √4000 min((step + 1) 4000^(-3/2), (step + 1)^(-1/2)). During the first
    `lr_warmup` steps the former is multiplied by (step + 1) / lr_warmup.
    """

    def schedule(step: Array, hyper: PyTree) -> Array:
        rate, i = hyper["lr"], (step + 1).astype(hyper["lr"].dtype)
        if static.lr_inverse_root:
            return rate * PEAK**0.5 * jnp.minimum(i * PEAK**-1.5, i**-0.5)
        for boundary in static.lr_steps:
            rate = rate * jnp.where(step >= boundary, static.lr_gamma, 1.0)
        return rate * jnp.minimum(1.0, i / jnp.maximum(hyper["lr_warmup"], 1))

    return schedule


def make_optimizer(static: Any) -> training.Optimizer:
    """Return `hyper -> optimiser`: L2 decay, then Adam or momentum, then the rate."""
    schedule = make_schedule(static)

    def optimizer(hyper: PyTree) -> optax.GradientTransformation:
        if static.optimizer == "sgd":
            direction = optax.trace(decay=0.9)
        else:
            direction = optax.scale_by_adam(0.9, static.adam_b2, static.adam_eps)
        return optax.chain(
            optax.add_decayed_weights(hyper["weight_decay"]),
            direction,
            optax.scale_by_schedule(lambda step: -schedule(jnp.asarray(step), hyper)),
        )

    return optimizer


def build(task: Task, static: Any, *, axis_name: str | None = None) -> training.Program:
    """Return the program that trains the weights of a task's network.

    Args:
        task: network and losses.
        static: static part of a `Config`.
        axis_name: mesh axis over which batches are shared out.
    """
    optimizer, model = make_optimizer(static), task.model

    def loss_fn(params, state, batch, key, hyper):
        forward, changed = _training_forward(task, Variables(params, state), key)
        loss_key = jax.random.fold_in(key, 0)
        setting = hyper["setting"]
        if static.tuple_delay:
            setting = jnp.where(hyper["step"] < static.tuple_delay, 0, setting)
        loss, metrics = task.loss(forward, batch, loss_key, setting)
        return loss, (changed(), metrics)

    def init(key, hyper):
        params, state = model.init(training.init_key(key))
        return training.init_state(params, state, key, hyper, optimizer)

    def evaluate(train_state, batch):
        variables = Variables(train_state.params, train_state.state)
        metrics = task.evaluate(plain_forward(task, variables), batch)
        return {name: value for name, value in metrics.items() if value.ndim == 0}

    step = training.make_train_step(
        training.from_loss(loss_fn),
        optimizer,
        clip_norm=(static.grad_clip or None) if static.clip_weights else None,
        axis_name=axis_name,
        timed=True,
    )
    return training.Program(init, step, evaluate)


def plain_forward(task: Task, variables: Variables) -> Callable[[PyTree], PyTree]:
    """Return the forward function of a network in evaluation."""
    return lambda x: task.model.apply(variables, x)[0]


def _training_forward(task: Task, variables: Variables, key: Array) -> tuple:
    """Return a forward function that counts its calls and passes the state on."""
    calls, states = [], [variables.state]

    def forward(x):
        calls.append(None)
        own = jax.random.fold_in(key, len(calls))
        current = variables._replace(state=states[-1])
        outputs, state = task.model.apply(current, x, train=True, key=own)
        states.append(state)
        return outputs

    return forward, lambda: states[-1]
