"""The engines, which turn an archive into one with a single object. Loaded when needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cargo_strip_hook.core.errors import UsageError

if TYPE_CHECKING:
    from cargo_strip_hook.core.requests import Engine

ENGINES = ("native", "system")


def engine(name: str) -> Engine:
    """The engine called `name`, one of `ENGINES`. Raises `UsageError` for another name."""
    if name == "native":
        from cargo_strip_hook.engines.native import NativeEngine

        return NativeEngine()
    if name == "system":
        from cargo_strip_hook.engines.system import SystemEngine

        return SystemEngine()
    raise UsageError(f"there is no engine `{name}`", help=f"engines are {' and '.join(ENGINES)}")
