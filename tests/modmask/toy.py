"""A small task for tests: which of two linear functions is asked for?"""

import jax
import jax.numpy as jnp
import numpy as np

from modmask.find import accuracy, cross_entropy
from modmask.models.feedforward import feedforward
from modmask.task import Stage, Task
from shared import masking
from shared.model import Variables

ROWS = 64


def task(sizes=()) -> Task:
    """Return a network of 6 inputs and 3 classes with the default losses."""
    return Task(feedforward(6, 3, sizes), cross_entropy, accuracy)


def network(sizes=(), seed=0) -> Variables:
    return task(sizes).model.init(jax.random.key(seed))


def arrays(seed=0):
    """Return inputs, and labels that a linear function of them gives."""
    random = np.random.RandomState(seed)
    x = random.randn(ROWS, 6).astype(np.float32)
    labels = np.argmax(x @ random.randn(6, 3), axis=1)
    return jnp.asarray(x), jnp.asarray(labels, jnp.int32)


def logits(variables, value=0.5):
    return masking.init_logits(variables.params, None, value)


STAGES = (
    Stage("all"),
    Stage("first half", np.arange(ROWS // 2)),
    Stage("few rows", np.arange(5)),
)
