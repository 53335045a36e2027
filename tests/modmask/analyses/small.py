"""A small task for tests of analyses: which of three directions is a point in?"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modmask.config import Config
from modmask.find import cross_entropy
from modmask.task import Problem, Stage, Task
from shared.layers.linear import init_linear, linear
from shared.model import Model, Variables

ROWS, INPUTS, CLASSES = 48, 6, 3
CONFIG: dict[str, Any] = {
    "steps": 4,
    "mask_steps": 4,
    "mask_lr": 0.5,
    "batch_size": 16,
    "mask_loss_weight": 1.0,
    "eval_every": 0,
}


def config(task: str, **changes: Any) -> Config:
    """Return settings under which a mask changes within a few steps."""
    return Config(**{**CONFIG, "task": task, **changes})


@functools.cache
def model() -> Model:
    """Return a network whose parameters have the names of the image networks."""

    def init(key):
        first, second, last = jax.random.split(key, 3)
        features = {
            "0": init_linear(first, INPUTS, 8),
            "3": init_linear(second, 8, 8),
        }
        out = init_linear(last, 8, CLASSES)
        return Variables({"features": features, "out_layer": out})

    def apply(variables, x, *, train=False, key=None):
        params = variables.params
        for layer in params["features"].values():
            x = jax.nn.relu(linear(layer, x))
        return linear(params["out_layer"], x), variables.state

    return Model(init, apply)


def evaluate(forward, batch):
    """Return accuracy and confusion, `[predicted, true]` shares of all rows."""
    x, labels = batch
    logits = forward(x)
    predicted = jax.nn.one_hot(jnp.argmax(logits, -1), CLASSES)
    table = predicted.T @ jax.nn.one_hot(labels, CLASSES) / len(labels)
    losses = -jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels]
    return {
        "accuracy": jnp.trace(table),
        "confusion": table,
        "loss": jnp.mean(losses),
    }


def arrays(seed: int = 0):
    """Return points, and labels that a linear function of them gives."""
    random = np.random.RandomState(seed)
    x = random.randn(ROWS, INPUTS).astype(np.float32)
    labels = np.argmax(x @ random.randn(INPUTS, CLASSES), axis=1)
    return jnp.asarray(x), jnp.asarray(labels, jnp.int32)


@functools.cache
def problem() -> Problem:
    """Return the task with a stage for all classes, and one without each."""
    data = arrays()
    labels = np.asarray(data[1])
    without = [Stage(str(c), np.flatnonzero(labels != c)) for c in range(CLASSES)]
    stages = (Stage("baseline"), *without)
    task = Task(model(), cross_entropy, evaluate)
    return Problem(task, data, Stage("weights"), stages, {"iid": data, "other": data})


def network(seed: int = 0) -> Variables:
    """Return weights as they are drawn."""
    return model().init(jax.random.key(seed))


def logits(seed: int, variables: Variables):
    """Return logits at random, about half of them positive."""
    leaves, structure = jax.tree.flatten(variables.params)
    random = np.random.RandomState(seed)
    drawn = [jnp.asarray(random.randn(*leaf.shape), leaf.dtype) for leaf in leaves]
    return structure.unflatten(drawn)


def like(logits, value: float):
    """Return logits that all have one value."""
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, value), logits)


def with_seed(config: Config, seed: int) -> Config:
    """Return the settings of another repetition."""
    return dataclasses.replace(config, seed=seed)


def untrained(calls: list):
    """Return a stand-in for `phases.train_stages` that draws logits, and notes calls.

    It takes the output layer from the control as that does.
    """

    def train_stages(problem, configs, networks, place, stages, **options):
        names = [stage.name for stage in stages]
        calls.append((options["phase"], options["offset"], names))
        found = []
        for i, (config, variables) in enumerate(zip(configs, networks, strict=True)):
            drawn = {
                stage.name: logits(1 + len(calls) + 7 * k, variables)
                for k, stage in enumerate(stages)
            }
            if config.keep_last_layer and options.get("control"):
                for own in drawn.values():
                    own["out_layer"] = options["control"][i]["out_layer"]
            found.append(drawn)
        return found

    return train_stages
