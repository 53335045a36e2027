"""The search: shared weights and the controller that proposes architectures, in turn.

Every update of the weights takes one training batch and a newly drawn architecture.
After an epoch the controller makes its updates, each from several architectures that
are judged on validation batches; all of it is one step of one program. Ten
architectures are then drawn and judged on the whole validation set.

Reference: Pham et al. (2018), section 2.2.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array

from enasq import (
    controller,
    costs,
    data,
    judging,
    learning,
    losses,
    parts,
    pixels,
    reinforce,
    supernet,
)
from shared import training
from shared.data import Split, batching
from shared.model import Variables

PHASE = ("loss", "reward", "entropy", "baseline", "grad_norm", "accuracy")
"""What is recorded of each update of a phase of the controller."""


class Judges(NamedTuple):
    """A training batch, and the validation images that judge architectures.

    Attributes:
        batch: as a network takes it.
        valid: as stored.
    """

    batch: data.Batch
    valid: Split


def build(own: judging.Searching, *, axis_name: str | None = None) -> training.Program:
    """Return the program of a search.

    The state holds the controller, and what its last phase recorded.

    Args:
        own: what it is made of.
        axis_name: mesh axis over which batches are shared out.
    """
    optimizer = learning.make_optimizer(
        own.static, own.net.policy, own.per_epoch, own.epochs
    )
    shared = own._replace(net=own.net._replace(axis_name=axis_name))
    update = training.make_train_step(
        functools.partial(_update, shared), optimizer, axis_name=axis_name, timed=True
    )

    def init(key, hyper):
        weights, other = jax.random.split(training.init_key(key))
        params = supernet.init(own.net, weights, dtype=jnp.result_type(float)).params
        told = parts.controller_hyper(hyper)
        zeros = jnp.zeros(own.static.controller_updates)
        state = {
            "controller": reinforce.init(other, own.settings, told),
            "phase": dict.fromkeys(PHASE, zeros),
        }
        return training.init_state(params, state, key, hyper, optimizer)

    def step(before, given):
        after, metrics = update(before, given)
        params = learning.kept(own.static, own.net.policy, before.params, after.params)
        after = after._replace(params=params)
        if own.static.controller:
            due = after.step % (own.per_epoch * own.static.controller_every) == 0
            run = functools.partial(_phase, shared, valid=given.valid)
            after = lax.cond(due, run, lambda same: same, after)
        return after, metrics

    return training.Program(init, step, functools.partial(judging.judge, own))


def batches(static: Any, sets: data.Sets) -> batching.Batches:
    """Return how batches are drawn from `(sets.train, sets.valid)`."""
    inner = parts.batches(static, sets)

    def take(arrays, plan, index, key):
        train, valid = arrays
        return Judges(inner.take(train, plan, index, key), valid)

    return inner._replace(take=take)


def _update(own: judging.Searching, params, state, given: Judges, key, hyper):
    arc_key, drop = jax.random.split(key)
    told = parts.controller_hyper(hyper)
    drawn = controller.sample(state["controller"].params, arc_key, own.settings, told)
    images, labels = given.batch

    def loss(params):
        found = supernet.run(
            own.net, Variables(params, {}), drawn.arc, images, train=True, key=drop
        )
        return learning.objective(own.static, found.logits, found.aux, labels)

    (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params)
    noted = {
        "rate": learning.rate(
            own.static, hyper["step"], hyper, own.per_epoch, own.epochs
        ),
        "gradient_norm": learning.gradient_norm(own.static, params, grads, hyper),
    }
    return grads, (state, {"loss": value, **metrics, **noted})


def _phase(
    own: judging.Searching,
    train_state: training.TrainState,
    valid: Split,
) -> training.TrainState:
    """Make the controller's updates of one epoch."""
    static, variables = own.static, Variables(train_state.params, {})
    told = parts.controller_hyper(train_state.hyper)
    count, number = len(valid.labels), static.controller_samples
    # Devices share the images and the batches alike.
    size = min(static.batch_size // own.devices, count)
    key = training.noise_key(train_state.key, train_state.step)
    order_key, key = jax.random.split(jax.random.fold_in(key, 1))
    # All validation images come before any comes again.
    order = jax.random.permutation(order_key, count)

    def accuracy(given):
        arc, place = given
        rows = order[(place * size + jnp.arange(size)) % count]
        images = pixels.scaled(valid.images[rows], own.info.norms.valid)
        logits = supernet.run(own.net, variables, arc, images).logits
        right = losses.correct(logits, valid.labels[rows])
        return right.astype(logits.dtype) / size

    def update(state, turn):
        keys = jax.random.split(jax.random.fold_in(key, turn), number)
        draw = lambda key: controller.sample(state.params, key, own.settings, told).arc
        arcs = jax.vmap(draw)(keys)
        found = lax.map(accuracy, (arcs, turn * number + jnp.arange(number)))
        if own.net.axis_name is not None:
            found = lax.pmean(found, own.net.axis_name)
        worth = _worth(own, found, arcs, train_state.hyper)
        state, metrics = reinforce.update(state, arcs, worth, own.settings, told)
        return state, metrics | {"accuracy": jnp.mean(found)}

    turns = jnp.arange(static.controller_updates)
    state, metrics = lax.scan(update, train_state.state["controller"], turns)
    noted = {name: metrics[name] for name in PHASE}
    return train_state._replace(state={"controller": state, "phase": noted})


def _worth(
    own: judging.Searching, accuracies: Array, arcs: Array, hyper: Mapping[str, Any]
) -> Array:
    """Return the rewards: accuracies, less what goes beyond a budget."""
    if own.static.budget == 0:
        return accuracies
    tables = own.tables[own.static.budget_of]
    spent = jax.vmap(functools.partial(costs.cost, tables))(arcs)
    return costs.reward(accuracies, spent, hyper["budget"], hyper["budget_weight"])


def probe(own: judging.Searching, train_state: training.TrainState) -> training.Metrics:
    """Return the drawn architectures and their costs, and the controller's phase."""
    arcs = judging.candidates(own, train_state)
    spent = {
        f"costs/{name}": jax.vmap(functools.partial(costs.cost, tables))(arcs)
        for name, tables in own.tables.items()
    }
    phase = train_state.state["phase"]
    means = {
        name: jnp.mean(phase[name]) for name in ("reward", "entropy", "accuracy")
    } | {"baseline": phase["baseline"][-1]}
    listed = {f"controller/{name}": values for name, values in phase.items()}
    return {"arcs": arcs, **spent, **means, **listed}
