"""Public symbols by the name of the framework that calls them."""

from __future__ import annotations

from cargo_strip_hook.core.errors import UsageError
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.patterns import Pattern
from cargo_strip_hook.exports.presets import PRESETS
from cargo_strip_hook.exports.sources import Named


def read(name: str, target: Target) -> Named:  # noqa: ARG001 - the same for all targets
    """The patterns of a preset, of which one must match. Raises `UsageError` for an unknown one."""
    if name not in PRESETS:
        raise UsageError(f"there is no preset `{name}`", help=f"presets: {', '.join(PRESETS)}")
    patterns = tuple(Pattern(text, "preset", f"{name}: {text}") for text in PRESETS[name])
    return Named(f"the preset {name}", patterns, each=False)
