"""What a network has to do: the contract between tasks, networks and mask training."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, PyTree

from shared.data.batching import Augment
from shared.model import Model

Forward = Callable[..., PyTree]
"""`forward(x) -> outputs`, one pass of a network.

All leaves of `x` and of the outputs have their batch axis first. In mask training each
call of one forward function draws masks of its own.
"""

Loss = Callable[[Forward, PyTree, Array, PyTree], tuple[Array, dict[str, Array]]]
Evaluate = Callable[[Forward, PyTree], dict[str, Array]]


class Task(NamedTuple):
    """A network and what it is trained on.

    Attributes:
        model: one pass of the network.
        loss: `(forward, batch, key, setting) -> (loss, metrics)`, means over the rows
            of the batch, so that losses of equal parts of a batch average to its own.
            `setting` is that of a `Stage`.
        evaluate: `(forward, batch) -> metrics`, means over the rows of the batch of
            numbers or arrays (a confusion matrix is the mean of one-hot matrices).
    """

    model: Model
    loss: Loss
    evaluate: Evaluate


class Stage(NamedTuple):
    """One mask to be trained: a sub-function of the task.

    Attributes:
        name: what it is called in records and figures.
        rows: rows of the training arrays that show the sub-function, with repetition
            where the data repeat; None means all.
        setting: scalars for the loss; the same structure in all stages of a task.
    """

    name: str
    rows: np.ndarray | None = None
    setting: PyTree = ()


class Problem(NamedTuple):
    """A task with its data and the masks that are trained for it.

    Attributes:
        task: the network and its losses.
        train: arrays `[rows, ...]` of all training data, of all stages.
        weights: what the weights are trained on, in the form of a stage.
        stages: masks to train; the first is the control, on the full problem.
        valid: arrays to evaluate on, by name; "iid" first.
        augment: `(key, batch) -> batch`, applied to each training batch.
        info: facts for analyses and exports (class names, vocabularies, ...).
    """

    task: Task
    train: PyTree
    weights: Stage
    stages: tuple[Stage, ...]
    valid: dict[str, PyTree]
    augment: Augment | None = None
    info: dict[str, Any] = {}
