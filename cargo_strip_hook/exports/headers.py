"""The public symbols of a header file, in C or C++."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cargo_strip_hook.core.errors import HeaderError
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.cheader import NotC, c_symbols
from cargo_strip_hook.exports.ctokens import HELP_EXPORT
from cargo_strip_hook.exports.declarations import Declared
from cargo_strip_hook.exports.preprocess import preprocess, with_missing

if TYPE_CHECKING:
    from cargo_strip_hook.exports.cxxnames import CxxName

_CXX_SUFFIXES = frozenset({".hpp", ".hh", ".hxx", ".h++", ".H"})


@dataclass(frozen=True, slots=True)
class HeaderSymbols:
    """What a header declares with C linkage, in the header's order; `foreign`: with C++ linkage."""

    symbols: tuple[Declared, ...]
    warnings: tuple[str, ...]
    language: str  # "C" or "C++"
    foreign: tuple[CxxName, ...] = ()
    not_found: tuple[str, ...] = ()  # included files that do not exist, as ``FILE (where)``


def read_header(
    header: Path,
    *,
    target: Target,
    include_dirs: Sequence[Path] = (),
    defines: Sequence[str] = (),
) -> HeaderSymbols:
    """The functions and variables that `header` declares for consumers on `target`.

    It is read as C, unless its name or its text says C++. Raises `HeaderError` with file and line.
    """
    try:
        return _read(header, target, include_dirs, defines)
    except RecursionError:
        raise HeaderError(f"{header}: its brackets nest too deeply", help=HELP_EXPORT) from None


def _read(
    header: Path, target: Target, include_dirs: Sequence[Path], defines: Sequence[str]
) -> HeaderSymbols:
    if header.suffix not in _CXX_SUFFIXES:
        seen = preprocess(header, target=target, include_dirs=include_dirs, defines=defines)
        try:
            declared = _renamed(c_symbols(seen.tokens), seen.renamed)
            return HeaderSymbols(declared, seen.warnings, "C", not_found=seen.not_found)
        except NotC:
            pass
        except HeaderError as e:
            raise with_missing(e, seen.not_found) from None
    from cargo_strip_hook.exports.cxxheader import cxx_symbols

    seen = preprocess(header, target=target, include_dirs=include_dirs, defines=defines, cxx=True)
    try:
        symbols, foreign = cxx_symbols(seen.tokens)
    except HeaderError as e:
        raise with_missing(e, seen.not_found) from None
    declared = _renamed(symbols, seen.renamed)
    return HeaderSymbols(declared, seen.warnings, "C++", tuple(foreign), seen.not_found)


def _renamed(symbols: Sequence[Declared], names: Mapping[str, str]) -> tuple[Declared, ...]:
    """The symbols by the names that ``#pragma redefine_extname`` gave them."""
    return tuple(
        replace(s, name=names[s.name]) if s.name in names and not s.label else s for s in symbols
    )
