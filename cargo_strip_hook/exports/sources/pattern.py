"""Public symbols by name, shell pattern or regular expression."""

from __future__ import annotations

from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.patterns import Pattern
from cargo_strip_hook.exports.sources import Named


def read(text: str, target: Target) -> Named:  # noqa: ARG001 - the same for all targets
    """The pattern itself."""
    return Named(f"`{text}`", (Pattern(text, "pattern", text),))
