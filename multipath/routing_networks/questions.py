"""What multi-task sets ask about images: which tasks, with which labels.

Reference: Rosenbaum et al. (2018), section 4.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from shared.data.catalog import SETS as IMAGE_SETS
from shared.errors import check_choice, check_range

LABELS = ("rank", "mod5")
"""How the classes of a superclass of CIFAR-100 are numbered."""

PERMUTED_SEED = 0
"""Seed of the names that permuted tasks give digits."""

SUPERCLASSES = (
    *("aquatic mammals", "fish", "flowers", "food containers"),
    *("fruit and vegetables", "household electrical devices", "household furniture"),
    *("insects", "large carnivores", "large man-made outdoor things"),
    *("large natural outdoor scenes", "large omnivores and herbivores"),
    *("medium-sized mammals", "non-insect invertebrates", "people", "reptiles"),
    *("small mammals", "trees", "vehicles 1", "vehicles 2"),
)


class Questions(NamedTuple):
    """What a set asks about an image of each class of its source.

    Attributes:
        tasks, labels: of each slot.
        names: of the tasks.
        classes: names of the labels of each task.
    """

    tasks: Int[np.ndarray, "classes slots"]
    labels: Int[np.ndarray, "classes slots"]
    names: tuple[str, ...]
    classes: tuple[tuple[str, ...], ...]


def superclass_labels(labels: str = "rank") -> Int[np.ndarray, "100"]:
    """Return the label of each class of CIFAR-100 within its superclass.

    Args:
        labels: "rank" gives the five classes of a superclass 0 to 4 in the order of
            their numbers. "mod5" gives the number modulo 5, which is no numbering
            of them, since classes are numbered by name: on average 3.3 labels remain,
            and the most frequent one is right in 48 % of cases.
    """
    check_choice("labels", labels, LABELS)
    fine = np.arange(100)
    if labels == "mod5":
        return fine % 5
    coarse = np.asarray(IMAGE_SETS["cifar100"].coarse)
    return np.array([np.sum(coarse[:c] == coarse[c]) for c in fine])


def permutations(count: int = 10) -> Int[np.ndarray, "tasks 10"]:
    """Return the label that each task of `digits_mtl_permuted` gives each digit.

    No two tasks give a digit the same label, so that an answer that does not depend on
    the task is right in one of ten cases at best.
    """
    names = np.random.RandomState(PERMUTED_SEED).permutation(10)
    digits, tasks = np.arange(10), np.arange(count)
    return names[(digits[None] + tasks[:, None]) % 10]


def superclasses(labels: str) -> Questions:
    """Ask of CIFAR-100 which class of its superclass an image is of."""
    spec = IMAGE_SETS["cifar100"]
    tasks, own = np.asarray(spec.coarse), superclass_labels(labels)
    names = lambda t, l: "/".join(
        spec.class_names[c] for c in np.flatnonzero((tasks == t) & (own == l))
    )
    classes = tuple(tuple(names(t, l) for l in range(5)) for t in range(20))
    return Questions(tasks[:, None], own[:, None], SUPERCLASSES, classes)


def one_versus_rest(labels: str) -> Questions:
    """Ask of a digit ten times whether it is this one."""
    del labels
    digits = IMAGE_SETS["digits"].class_names
    tasks = np.tile(np.arange(10), (10, 1))
    classes = tuple(("another", digit) for digit in digits)
    return Questions(tasks, np.eye(10, dtype=int), digits, classes)


def permuted(labels: str) -> Questions:
    """Ask which digit it is, each task with its own names for the ten."""
    del labels
    digits, table = IMAGE_SETS["digits"].class_names, permutations()
    tasks = np.tile(np.arange(10), (10, 1))
    classes = tuple(tuple(digits[d] for d in np.argsort(own)) for own in table)
    names = tuple(f"permutation {t}" for t in range(10))
    return Questions(tasks, table.T, names, classes)


def first_tasks(questions: Questions, count: int) -> Questions:
    """Keep the first tasks; classes about which nothing is asked have slots of -1."""
    check_range("tasks", count, low=0, high=len(questions.names))
    if not count:
        return questions
    tasks, labels = questions.tasks, questions.labels
    if tasks.shape[1] > 1:
        tasks, labels = tasks[:, :count], labels[:, :count]
    tasks = np.where(tasks < count, tasks, -1)
    return Questions(tasks, labels, questions.names[:count], questions.classes[:count])
