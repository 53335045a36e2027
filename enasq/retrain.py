"""Training of one architecture from the start, with running statistics.

Reference: Pham et al. (2018), section 3.
"""

import functools
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp

from enasq import data, fixed, learning, losses
from shared import training
from shared.model import Variables


class Training(NamedTuple):
    """What a training is made of.

    Attributes:
        static: static part of a config.
        net: the network.
        info: of the data.
        per_epoch: updates of an epoch.
        steps: of the whole training.
    """

    static: Any
    net: fixed.Fixed
    info: data.Info
    per_epoch: int
    steps: int

    @property
    def epochs(self) -> int:
        """Epochs of the whole training, the last one perhaps in part."""
        return -(-self.steps // self.per_epoch)


def build(own: Training, *, axis_name: str | None = None) -> training.Program:
    """Return the program that trains one architecture.

    Args:
        own: what the training is made of.
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
        dtype = jnp.result_type(float)
        variables = fixed.init(own.net, training.init_key(key), dtype=dtype)
        return training.init_state(*variables, key, hyper, optimizer)

    def step(before, batch):
        after, metrics = update(before, batch)
        params = learning.kept(own.static, own.net.policy, before.params, after.params)
        return after._replace(params=params), metrics

    return training.Program(init, step, functools.partial(_evaluate, own))


def _update(own: Training, params, state, batch: data.Batch, key, hyper):
    images, labels = batch

    def loss(params):
        found = fixed.run(
            own.net,
            Variables(params, state),
            images,
            train=True,
            key=key,
            step=hyper["step"],
        )
        value, metrics = learning.objective(own.static, found.logits, found.aux, labels)
        return value, (found.state, metrics)

    (value, (state, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(params)
    noted = {
        "rate": learning.rate(
            own.static, hyper["step"], hyper, own.per_epoch, own.epochs
        ),
        "gradient_norm": learning.gradient_norm(own.static, params, grads, hyper),
    }
    return grads, (state, {"loss": value, **metrics, **noted})


def _evaluate(own: Training, train_state: training.TrainState, split: data.Batch):
    variables = Variables(train_state.params, train_state.state)
    logits = fixed.run(own.net, variables, split.images, train=False).logits
    return {
        "accuracy": losses.correct(logits, split.labels) / len(split.labels),
        "loss": losses.loss(own.static.loss, logits, split.labels),
    }


def splits(sets: data.Sets) -> dict[str, data.Batch]:
    """Return the sets that have images, as a network takes them."""
    counts = sets.info.counts
    return {
        name: data.whole(sets, name)
        for name in ("valid", "test")
        if getattr(counts, name)
    }


def headline(records: list[training.Record]) -> dict[str, float]:
    """Return the last accuracies."""
    last = next((r for r in reversed(records) if "test/accuracy" in r), {})
    return {k: v for k, v in last.items() if k.endswith("/accuracy")}
