"""A tiny net whose examples meet: pooled batch norm, dropout, momentum."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from shared import parallel, training
from shared.layers import norm

BATCH, INPUTS, HIDDEN, CLASSES = 16, 6, 8, 4
STEPS = 5


def sgd(hyper):
    return optax.sgd(hyper["rate"], momentum=0.9)


def make_step(axis_name=None):
    """Return the training step for one device, or for an axis of devices."""

    def loss_fn(params, state, batch, key, hyper):
        hidden = batch["x"] @ params["in"]
        hidden, state = norm.batch_norm(
            params["norm"], state, hidden, train=True, axis_name=axis_name
        )
        keys = parallel.example_keys(key, len(hidden), axis_name)
        keep = lambda key: jax.random.bernoulli(key, 0.7, (HIDDEN,))
        hidden = jnp.maximum(hidden, 0) * jax.vmap(keep)(keys)
        logits = hidden @ params["out"]
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
        return jnp.mean(loss), (state, {"largest": jnp.mean(jnp.max(logits, axis=1))})

    update = training.from_loss(loss_fn)
    return training.make_train_step(update, sgd, axis_name=axis_name)


def init(dtype) -> training.TrainState:
    """Return the state to start from."""
    random = np.random.default_rng(0)
    weights = lambda *shape: jnp.asarray(random.normal(size=shape), dtype)
    params = {"in": weights(INPUTS, HIDDEN), "out": weights(HIDDEN, CLASSES)}
    params["norm"], state = norm.init_batch_norm(HIDDEN, dtype=dtype)
    hyper = {"rate": jnp.asarray(0.1, dtype)}
    return training.init_state(params, state, jax.random.key(1), hyper, sgd)


def batches(dtype):
    """Return the batches of all steps, stacked: leaves `[steps, batch, ...]`."""
    random = np.random.default_rng(1)
    x = random.normal(size=(STEPS, BATCH, INPUTS)).astype(dtype)
    return {"x": x, "y": random.integers(0, CLASSES, (STEPS, BATCH)).astype("int32")}


def batch(dtype, index):
    return {name: rows[index] for name, rows in batches(dtype).items()}


def numbers(train_state, metrics) -> np.ndarray:
    """Return all that training computed, as one vector."""
    leaves = jax.tree.leaves((train_state._replace(key=0, hyper=0), metrics))
    return np.concatenate([np.ravel(leaf).astype("float64") for leaf in leaves])


def train(step, dtype, *, prepare=lambda batch: batch, place=lambda state: state):
    """Train for all steps; return the last state and metrics."""
    state, metrics = place(init(dtype)), None
    for index in range(STEPS):
        state, metrics = step(state, prepare(batch(dtype, index)))
    return state, metrics
