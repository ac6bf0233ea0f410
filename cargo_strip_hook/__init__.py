"""Make the static libraries of cargo-c small and self-contained.

`strip`, `share`, `join`, `check`, `report` and `why` do what the commands of these names do, see
`cargo_strip_hook.api`. They are loaded when they are first used: importing the package costs
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cargo_strip_hook.api import StripHookError, check, join, report, share, strip, why

__version__ = "0.1.0"
__all__ = [
    "StripHookError",
    "__version__",
    "check",
    "join",
    "report",
    "share",
    "strip",
    "why",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cargo_strip_hook import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
