"""Flags: the fields of dataclasses on the command line, mistakes in words."""

import contextlib
import dataclasses
import io
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from shared.errors import UsageError, closest

T = TypeVar("T")


def split(argv: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Group words under the flag they follow, flags as field names.

    Raises:
        UsageError: for a word before the first flag.
    """
    found: list[tuple[str, list[str]]] = []
    for word in argv:
        # A minus before a digit is a value; one dash before a word is a flag too.
        if re.match(r"--?[A-Za-z]", word):
            name, equals, value = word.partition("=")
            name = "help" if word == "-h" else name.lstrip("-").replace("-", "_")
            found.append((name, [value] if equals else []))
        elif found:
            found[-1][1].append(word)
        else:
            raise UsageError("argument", word, "a flag such as --seeds 3")
    return found


def overrides(
    words: list[tuple[str, list[str]]],
    defaults: Mapping[str, Any],
    *,
    prog: str,
    description: str,
) -> dict[str, dict[str, Any]]:
    """Return, for each of some dataclass instances, the fields that flags change.

    Args:
        words: flags and their values, from `split`.
        defaults: the instances; all their fields are flags in one flat namespace.
        prog, description: for `--help`.

    Raises:
        UsageError: for an unknown flag, or a value that does not fit.
    """
    import tyro

    kinds = {part: hints(type(value)) for part, value in defaults.items()}
    known = {name: kind for fields in kinds.values() for name, kind in fields.items()}
    args = []
    for name, values in words:
        name, values = _spelled(name, values, known)
        if name not in known and name != "help":
            near = closest(name, known)
            hint = f"Did you mean {flag(near)}?" if near else ""
            raise UsageError("flag", flag(name), f"one that {prog} --help lists", hint)
        args += (
            [flag(name), *values] if len(values) != 1 else [f"{flag(name)}={values[0]}"]
        )
    plain = {part: _unchecked(type(value)) for part, value in defaults.items()}
    instances = {
        part: plain[part](**{n: getattr(value, n) for n in kinds[part]})
        for part, value in defaults.items()
    }
    everything = dataclasses.make_dataclass("Settings", list(plain.items()))
    parsed = read(
        everything,
        args,
        default=everything(**instances),
        prog=prog,
        description=description,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagConversionOff),
    )
    given = {_spelled(name, values, known)[0] for name, values in words}
    return {
        part: {n: getattr(getattr(parsed, part), n) for n in kinds[part] if n in given}
        for part in defaults
    }


def _spelled(
    name: str, values: list[str], known: Mapping[str, Any]
) -> tuple[str, list[str]]:
    """Allow `--shuffle`, `--no-shuffle` and `--shuffle false` for `--shuffle False`."""
    if known.get(name) is bool:
        named = {"true": "True", "false": "False"}
        return name, [named.get(v.lower(), v) for v in values] or ["True"]
    if name.startswith("no_") and known.get(name[3:]) is bool and not values:
        return name[3:], ["False"]
    return name, values


def flag(name: str) -> str:
    """Spell a field as a flag."""
    return "--" + name.replace("_", "-")


def hints(kind: type) -> dict[str, Any]:
    """Return the type annotations of a dataclass, by field."""
    found = typing.get_type_hints(kind)
    return {field.name: found[field.name] for field in dataclasses.fields(kind)}


def _unchecked(kind: type) -> type:
    """Return a copy of a dataclass for tyro, which would swallow what its checks say.

    Tuples of tuples are read as one Python literal.
    """
    from tyro.conf import UsePythonSyntaxForLiteralCollections as Literally

    nested = {
        name: Literally[hint]
        for name, hint in hints(kind).items()
        if any(typing.get_origin(inner) is tuple for inner in typing.get_args(hint))
    }
    body = {
        "__annotations__": nested,
        "__post_init__": lambda self: None,
        "__doc__": kind.__doc__,
        "__module__": kind.__module__,
    }
    return dataclass(frozen=True, kw_only=True)(type(kind.__name__, (kind,), body))


def read(kind: type[T], args: list[str], **settings: Any) -> T:
    """Read words into a dataclass; a mistake is a UsageError, not tyro's box.

    Args:
        kind: the dataclass.
        args: what the user typed.
        settings: further arguments of `tyro.cli`.
    """
    import tyro

    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(kind, args=args, **settings)
    except SystemExit as stop:
        if not stop.code:
            raise
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue())
    lines = [line.strip("│ ") for line in text.splitlines()[1:]]
    end = next((i for i, line in enumerate(lines) if set(line) <= set("─╰╯")), None)
    message = " ".join(lines[:end])
    allowed = {}
    for name, hint in hints(kind).items():
        parts = isinstance(hint, type) and dataclasses.is_dataclass(hint)
        allowed.update(hints(hint) if parts else {name: hint})
    words = {} if args and not args[0].startswith("--") else dict(split(args))
    for name in re.findall(r"--([a-z][\w-]*)", message):
        name = name.replace("-", "_")
        if name in allowed and name in words:
            given = " ".join(words[name])
            raise UsageError(flag(name), given, _expected(allowed[name])) from None
    raise UsageError(
        "arguments", " ".join(args), "what --help shows", message
    ) from None


def _expected(hint: Any) -> str:
    """Say in words which values a type annotation allows."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_expected(each) for each in inner)
    if origin is tuple and typing.get_origin(inner[0]) is tuple:
        return "nested tuples as one word, such as ((8, 8), (16,))"
    if origin is tuple and inner[-1] is Ellipsis:
        return f"any number of values, each {_expected(inner[0])}"
    if origin is tuple:
        return f"{len(inner)} values: {', '.join(map(_expected, inner))}"
    words = {
        float: "a number",
        int: "an integer",
        bool: "True or False",
        str: "a word",
        Path: "a path",
        type(None): "None",
    }
    return words.get(hint, str(hint))
