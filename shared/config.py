"""Experiment settings: one frozen dataclass, part static and part traced.

A field made by `traced` becomes a leaf of `hyper`, so that a sweep over it is one
compiled program. Everything else stays in the static, hashable part, which decides
shapes and code paths.
"""

import copy
import dataclasses
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array

from shared.errors import UsageError, check_choice, check_range

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


def check_choices(config: Any, **allowed: Iterable[str]) -> None:
    """Raise a UsageError unless each word of a config is one that is allowed.

    Args:
        config: whose fields that are annotated `Literal` are checked.
        allowed: the words of further fields, by name; all of a tuple are checked.
    """
    for name, hint in typing.get_type_hints(type(config)).items():
        if typing.get_origin(hint) is Literal:
            check_choice(name, getattr(config, name), typing.get_args(hint))
    for name, choices in allowed.items():
        for value in _each(getattr(config, name)):
            check_choice(name, value, choices)


def check_ranges(config: Any, *names: str, **bounds: Any) -> None:
    """Raise a UsageError unless numbers of a config are inside an interval.

    Args:
        config: whose fields are checked.
        names: of the fields; all numbers of a tuple are checked.
        bounds: see `errors.check_range`.
    """
    for name in names:
        for value in _each(getattr(config, name)):
            check_range(name, value, **bounds)


def _each(value: Any) -> tuple:
    return value if isinstance(value, tuple) else (value,)


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
    return config_type(**{name: _tuples(value) for name, value in values.items()})


def _tuples(value: Any) -> Any:
    """JSON has lists where a config has tuples, at any depth."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


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
