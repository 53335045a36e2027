"""Architecture search over quantised cells, and execution of what it finds on bits."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enasq.running import load as load
    from enasq.running import run_packed as run_packed

LATER = ("load", "run_packed")
"""Imported when they are asked for."""


def __getattr__(name: str) -> Any:
    if name in LATER:
        from enasq import running

        return getattr(running, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
