"""Small settings for tests: the fields that the numerical core reads."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from jax import Array

from shared.config import split, traced


@dataclass(frozen=True)
class Settings:
    """What the numerical core reads of a config, without its checks."""

    widths: tuple[int, ...] = (12, 12, 12)
    classes: int = 10
    transfer: str = "leaky_relu"
    leaky_slope: float = 0.1
    algorithm: str = "bp"
    form: str = "difference"
    inverse: str = "exact"
    solver: str = "lu"
    ortho_target: str = "offdiag"
    optimizer: str = "adam_nodebias"
    init: str = "orthogonal"
    loss: str = "squared"
    reduction: str = "mean"
    linear_output: bool = False
    first_layer: str = "square"
    gamma: float = traced(1e-3, zero_is_static=True)
    ortho_weight: float = traced(0.0, zero_is_static=True)
    learning_rate: float = traced(1e-3)
    beta1: float = traced(0.9)
    beta2: float = traced(0.99)
    eps: float = traced(1e-8)
    tolerance: float = traced(1e-5)


def settings(**changes: Any) -> tuple[Settings, dict[str, Array]]:
    """Return the static part and the traced values of changed default settings."""
    return split(dataclasses.replace(Settings(), **changes))
