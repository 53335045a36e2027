"""Sweep files of the published program, read as experiments.

A file names a program, a command, the method `grid`, a metric, and parameters
`{name: {value: V}}` or `{name: {values: [...]}}` by the options of the published
program. Its profiles, bundles of options, hold where a file does not say otherwise.
"""

import itertools
from pathlib import Path
from typing import Any, NamedTuple

from modmask import options
from modmask.config import Config
from shared.errors import UsageError, check_choice


class Sweep(NamedTuple):
    """What a sweep file says.

    Attributes:
        name: of the sweep; that of the file unless it has the parameter `name`.
        values: of each parameter, one or several.
    """

    name: str
    values: dict[str, tuple[Any, ...]]


class Members(NamedTuple):
    """The runs of a sweep.

    Attributes:
        configs: one per combination of values.
        notes: what was left out, and what to use instead.
    """

    configs: tuple[Config, ...]
    notes: tuple[str, ...]


def read(path: Path) -> Sweep:
    """Read a sweep file.

    Raises:
        UsageError: for a file that is no sweep, another method than a grid, a parameter
            without values, or an option that the published program does not have.
    """
    import yaml

    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        reason = error.strerror or "not readable"
        raise UsageError("sweep file", str(path), f"a file ({reason})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError("sweep file", str(path), "YAML", str(error)) from error
    given = document.get("parameters") if isinstance(document, dict) else None
    if not isinstance(given, dict):
        raise UsageError("sweep file", str(path), "a mapping with 'parameters'")
    check_choice("method", document.get("method", "grid"), ("grid",))
    values = {
        options.full_name(str(name)): _values(str(name), value)
        for name, value in given.items()
    }
    (name,) = values.pop("name", (path.stem,))[:1]
    return Sweep(str(name), values)


def several(sweep: Sweep) -> dict[str, tuple[Any, ...]]:
    """Return the parameters that have a choice of values, repetitions not counted."""
    return {
        name: values
        for name, values in sweep.values.items()
        if len(values) > 1 and name != options.REPETITION
    }


def choose(sweep: Sweep, name: str, text: str) -> Sweep:
    """Restrict a parameter to the one of its values that is spelled `text`.

    Raises:
        UsageError: for a parameter that the file does not have, or another value.
    """
    check_choice("--select", name, sweep.values)
    found = [value for value in sweep.values[name] if _same(value, text)]
    if not found:
        check_choice(f"--select {name}", text, map(options.spell, sweep.values[name]))
    return sweep._replace(values={**sweep.values, name: tuple(found[:1])})


def members(sweep: Sweep) -> Members:
    """Return a config for each combination of values, the last parameter fastest.

    Equal combinations count once: a list of values may name one of them twice.

    Raises:
        UsageError: for a value that its option does not allow.
    """
    grid = itertools.product(*sweep.values.values())
    given = [dict(zip(sweep.values, choice, strict=True)) for choice in grid]
    notes = [note for each in given for note in options.notes(each)]
    configs = [options.to_config(each) for each in given]
    return Members(tuple(dict.fromkeys(configs)), tuple(dict.fromkeys(notes)))


def _same(value: Any, text: str) -> bool:
    if options.spell(value) == text:
        return True
    try:
        return float(options.spell(value)) == float(text)
    except ValueError:
        return False


def _values(name: str, given: Any) -> tuple[Any, ...]:
    if isinstance(given, dict) and "value" in given:
        return (given["value"],)
    if isinstance(given, dict) and isinstance(given.get("values"), list):
        if given["values"]:
            return tuple(given["values"])
    raise UsageError(f"parameter {name}", given, "'value', or 'values' with a list")
