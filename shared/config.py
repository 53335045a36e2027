"""Experiment settings: one frozen dataclass, part static and part traced.

A field made by `traced` becomes a leaf of `hyper`, so that a sweep over it is one
compiled program. Everything else stays in the static, hashable part, which decides
shapes and code paths.
"""

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array

from shared.errors import UsageError

VERSION = 1
"""Version of the written form of a config; a newer one is refused on reading."""


class _Traced:
    """Stands in the static part where a value lives in `hyper`."""

    def __repr__(self) -> str:
        return "<traced>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Traced)

    def __hash__(self) -> int:
        return hash(_Traced)


TRACED: Any = _Traced()


def traced(default: Any, *, zero_is_static: bool = False) -> Any:
    """Declare a dataclass field whose value is an array in the compiled program.

    Args:
        default: the field's default, a Python number.
        zero_is_static: keep an exact zero in the static part, so that a program can
            leave out what the zero switches off (a regulariser, say).
    """
    metadata = {"traced": True, "zero_is_static": zero_is_static}
    return dataclasses.field(default=default, metadata=metadata)


def split(config: Any) -> tuple[Any, dict[str, Array]]:
    """Split a config into its static part and its traced values.

    Returns:
        The config with `TRACED` in place of every traced value (hashable, equal for
        configs that share one compiled program), and `hyper`, a dict of scalars.
        Floats take JAX's default float dtype, integers int32.
    """
    static, hyper = copy.copy(config), {}
    for field in dataclasses.fields(config):
        if not field.metadata.get("traced"):
            continue
        value = getattr(config, field.name)
        # By the field's kind: a whole number given for a float stays a float.
        whole = isinstance(field.default, int)
        dtype = jnp.int32 if whole else jnp.result_type(float)
        hyper[field.name] = jnp.asarray(value, dtype)
        if not (field.metadata["zero_is_static"] and value == 0):
            # __post_init__ has already validated the values.
            object.__setattr__(static, field.name, TRACED)
    return static, hyper


def to_dict(config: Any) -> dict[str, Any]:
    """Return the config as plain JSON types."""
    values = dataclasses.asdict(config)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def from_dict(config_type: type, values: dict[str, Any]) -> Any:
    """Rebuild a config written by `to_dict`.

    Raises:
        UsageError: for a field that this version does not know.
    """
    known = {field.name for field in dataclasses.fields(config_type)}
    for name in values:
        if name not in known:
            raise UsageError("config field", name, f"one of {', '.join(sorted(known))}")
    restored = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return config_type(**restored)


@dataclass(frozen=True)
class Experiment:
    """One row of a paper's tables, by name.

    Attributes:
        name: what the user types.
        summary: one line for `--list`.
        configs: one config, or several that are trained as members of one run.
        data: name of the data set.
        reference: paper, table or section it comes from, and what to expect.
        minutes: rough time on two CPU cores at full scale.
        kind: whether it trains networks or only analyses them.
    """

    name: str
    summary: str
    configs: tuple[Any, ...]
    data: str
    reference: str
    minutes: float | int
    kind: Literal["train", "analysis"] = "train"
