"""The sources that name public symbols by hand: one row of `SOURCES` for each, and a module here.

A row makes the option, the key of the settings and the keyword of the Python API; the module's
`read(value, target)` says what one value of it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from cargo_strip_hook.exports.presets import PRESETS

if TYPE_CHECKING:
    from cargo_strip_hook.core.target import Target
    from cargo_strip_hook.exports.patterns import Pattern


@dataclass(frozen=True, slots=True)
class Named:
    """What one value of a source names.

    `shown` is how the value is spoken of. `each`: every pattern has to match something, else one
    of them. What only sources with `excluded` patterns chose, and these match, is not public.
    """

    shown: str
    patterns: tuple[Pattern, ...]
    excluded: tuple[Pattern, ...] = ()
    each: bool = True


@dataclass(frozen=True, slots=True)
class Source:
    """One way to name public symbols. It may be repeated, and its values are texts or paths.

    `name`: of the option and of the key in the settings; `keyword`: in the Python API; `noun`: of
    a value that is a file. `choices`: the only values, where there are not others.
    """

    name: str
    keyword: str
    module: str
    kind: type[str] | type[Path]
    metavar: str
    help: str
    noun: str = ""
    choices: tuple[str, ...] = ()

    def read(self, value: str | Path, target: Target) -> Named:
        """What a value names. Raises `ExportsError` or `UsageError` for one without a meaning."""
        named: Named = import_module(f"{__name__}.{self.module}").read(value, target)
        return named


SOURCES = (
    Source(
        "export",
        "exports",
        "pattern",
        str,
        "PATTERN",
        "symbols by name, shell pattern (`foo_*`) or regular expression (`/foo_.+/`)",
    ),
    Source(
        "exports-file",
        "exports_files",
        "symbol_list",
        Path,
        "F",
        "a list of names or patterns, a .def file or a version script",
        noun="a list of symbols",
    ),
    Source(
        "preset",
        "presets",
        "preset",
        str,
        "P",
        f"what a framework makes public: {', '.join(PRESETS)}",
        choices=tuple(PRESETS),
    ),
)

Values = Mapping[str, tuple[str | Path, ...]]  # by the name of the source


def named_files(values: Values) -> dict[Path, str]:
    """The files among the values of all sources, and what each is."""
    return {v: s.noun for s in SOURCES for v in values.get(s.name, ()) if isinstance(v, Path)}


__all__ = ["SOURCES", "Named", "Source", "Values", "named_files"]
