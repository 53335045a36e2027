"""What a network does beside its plan and its quantisers."""

from dataclasses import dataclass

from enasq import norm
from shared.config import check_ranges


@dataclass(frozen=True)
class Behaviour:
    """Choices in which the published program differs from what is recommended.

    What differs by quantisers is in `enasq.policy`: there, "published" is its policy.

    Attributes:
        train_aux_head: train the auxiliary head; otherwise it stays as it was drawn,
            and only passes gradients on.
        rescale: multiply the gradients of k-bit separable kernels by the Glorot factor
            of their learning rates.
        head_range: quantised networks start from classifiers of U(-range, range). With
            the published 1 first logits are so large that little is learned.
        momentum: of running statistics.
        epsilon: added to variances.
        keep: probability to keep a value that goes into the classifier, in training.
        drop_path_keep: probability to keep a branch of the last cell at the end of
            training; others are kept more often.
        drop_path_steps: of the whole training.
    """

    train_aux_head: bool = True
    rescale: bool = False
    head_range: float | int = 0.1
    momentum: float | int = 0.9
    epsilon: float | int = norm.EPSILON
    keep: float | int = 1.0
    drop_path_keep: float | int = 1.0
    drop_path_steps: int = 1

    def __post_init__(self):
        check_ranges(self, "momentum", low=0, high=1)
        check_ranges(self, "epsilon", "head_range", low=0, low_open=True)
        check_ranges(self, "keep", "drop_path_keep", low=0, high=1, low_open=True)
        check_ranges(self, "drop_path_steps", low=1)


def clean(**changes: float | int | bool) -> Behaviour:
    """Return the recommended behaviour, with fields changed."""
    return Behaviour(**changes)  # type: ignore[arg-type]


def compat(**changes: float | int | bool) -> Behaviour:
    """Return that of the published program, with fields changed."""
    quirks = {"train_aux_head": False, "rescale": True, "head_range": 1.0}
    return Behaviour(**(quirks | changes))  # type: ignore[arg-type]
