"""Deciding what is public: header, shared library, patterns, or the crate's own symbols."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cargo_strip_hook.core.errors import ExportsError
from cargo_strip_hook.core.requests import DefinedSymbol, Export, ExportSet, Origin
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.declarations import Declared
from cargo_strip_hook.exports.matching import Names
from cargo_strip_hook.exports.patterns import Pattern, select_all
from cargo_strip_hook.exports.sources import SOURCES, Named, Values

if TYPE_CHECKING:
    from cargo_strip_hook.exports.cxxnames import CxxName

Origins = dict[str, list[Origin]]
LISTED = 10  # names in a warning

_RUST = {
    "__stdcall": ', which extern "system" of Rust is',
    "__fastcall": ', which extern "fastcall" of Rust is',
    "__vectorcall": ', which extern "vectorcall" of Rust is',
    "__cdecl": ', which extern "C" of Rust is',
}


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """The sources that say which symbols are public.

    `named`: by the sources of `SOURCES`. A header or cdylib that is not `…_explicit` was only found
    beside the library: what is named replaces it instead of adding to it. `every_crate`: where no
    source says what is public, it is what a cdylib would export, including the crate's
    dependencies.
    """

    target: Target
    headers: tuple[Path, ...] = ()
    include_dirs: tuple[Path, ...] = ()
    defines: tuple[str, ...] = ()
    cdylib: Path | None = None
    named: Values = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    crate_name: str | None = None
    every_crate: bool = False
    allow_missing: bool = False
    headers_explicit: bool = False
    cdylib_explicit: bool = False


@dataclass(frozen=True, slots=True)
class Index:
    """An archive's symbol index, read when it is needed.

    `names` is a cheap test for a name. `listed` returns all global definitions, None where the
    index may be incomplete. `confirmed` asks the objects which of some names they define.
    """

    names: Callable[[], Container[str]]
    listed: Callable[[], Collection[str] | None]
    confirmed: Callable[[Collection[str]], bool] = lambda names: True  # noqa: ARG005


def decide(
    request: ExportRequest,
    defined: Callable[[], Mapping[str, DefinedSymbol]],
    index: Index | None = None,
) -> ExportSet:
    """The public symbols of an archive.

    `defined` lists the archive's global definitions in member order, and is called only where they
    are needed; `index` is the archive's own symbol index. Raises `HeaderError`, `ExportsError`,
    `InputError` or `UsageError`.
    """
    return _Decision(request, defined, index).made()


def remembered(request: ExportRequest, marker: bytes | None, library: str) -> ExportSet | None:
    """The public symbols in a stripped library's marker, where the request names no source.

    Else None. `marker` is that of the `library`, None where it has none.
    """
    given = (request.headers, request.cdylib, *request.named.values())
    if marker is None or any(given) or request.keep:
        return None
    try:
        names = [str(name) for name in json.loads(marker)["exports"]]
    except (ValueError, LookupError, TypeError):
        return None
    origins = (Origin("file", library),)
    exports = tuple(Export(name, origins) for name in names)
    return ExportSet(exports, source=f"{_count(len(names))} from the library's own mark")


def object_name(declared: Declared, target: Target) -> str:
    """The symbol that the C compiler makes of a declaration; an asm label is taken verbatim.

    Decorations of i686 Windows (``_f@8``) depend on the size of the arguments: see `_decorated`.
    """
    return declared.name if declared.label else target.symbol_prefix + declared.name


class _Decision:
    def __init__(
        self,
        request: ExportRequest,
        defined: Callable[[], Mapping[str, DefinedSymbol]],
        index: Index | None,
    ) -> None:
        self.request, self.target = request, request.target
        self._defined, self._index = defined, index
        self._all: Mapping[str, DefinedSymbol] | None = None
        self._names: Names | None = None
        self._listed: Names | None = None
        self.cxx: tuple[str, ...] = ()  # a message about C++ names, and what to do
        self.origins: Origins = {}
        self.keep: Origins = {}
        self.missing: Origins = {}
        self.sources: list[str] = []
        self.warnings: list[str] = []
        self.not_found: list[str] = []  # included files, for which macros may be missing

    def defined(self) -> Mapping[str, DefinedSymbol]:
        if self._all is None:
            self._all = self._defined()
        return self._all

    def names(self) -> Names:
        if self._names is None:
            self._names = Names(self.defined(), self.target)
        return self._names

    def select(
        self, patterns: Sequence[Pattern], *, each: bool = True
    ) -> tuple[dict[str, list[Pattern]], list[Pattern]]:
        """What patterns choose by the index, or by the objects where that is nothing.

        `each`: by the objects where it is nothing for any one of them.
        """
        if self._names is None and self._listed is None and self._index is not None:
            listed = self._index.listed()
            self._listed = None if listed is None else Names(listed, self.target)
        if self._names is None and self._listed is not None:
            chosen, idle = select_all(patterns, self._listed)
            if chosen and not (each and idle) and self._index and self._index.confirmed(chosen):
                return chosen, idle
        return select_all(patterns, self.names())

    def made(self) -> ExportSet:
        request = self.request
        by_hand = any(request.named.values())
        use_header = bool(request.headers) and (not by_hand or request.headers_explicit)
        use_cdylib = request.cdylib is not None and (
            (not by_hand and not use_header) or (by_hand and request.cdylib_explicit)
        )
        if use_header:
            self.from_headers()
        if use_cdylib:
            self.from_cdylib()
        if by_hand:
            self.from_named()
        if not (use_header or use_cdylib or by_hand):
            self.from_crate()
        if request.keep:
            wanted = [Pattern(text, "keep", text) for text in request.keep]
            self.keep = self.selected(wanted, "--keep")
        if not self.origins:
            what, *helps = self.cxx or ("",)
            raise ExportsError(
                f"no public symbol was found ({'; '.join(self.sources)}){what and '; '}{what}",
                help=(*helps, "name the public symbols with --export PATTERN or --header FILE"),
            )
        return ExportSet(
            _exports(self.origins),
            _exports({n: o for n, o in self.keep.items() if n not in self.origins}),
            _exports(self.missing),
            " and ".join(self.sources),
            tuple(self.warnings),
        )

    def add(self, names: Iterable[tuple[str, Origin]]) -> None:
        new: Origins = {}
        for name, origin in names:
            new.setdefault(name, []).append(origin)
        for name, origins in new.items():
            # a list may repeat a name thousands of times
            self.origins[name] = list(dict.fromkeys([*self.origins.get(name, ()), *origins]))

    # Headers ----------------------------------------------------------------------------------

    def from_headers(self) -> None:
        from cargo_strip_hook.exports.headers import read_header

        request = self.request
        declared: list[Declared] = []
        foreign: list[CxxName] = []
        for header in request.headers:
            seen = read_header(
                header,
                target=self.target,
                include_dirs=request.include_dirs,
                defines=request.defines,
            )
            declared += seen.symbols
            foreign += seen.foreign
            self.warnings += seen.warnings
            self.not_found += seen.not_found
        names: Origins = {}
        for symbol in declared:
            origin = Origin("header", symbol.where)
            origins = names.setdefault(self.spelled(symbol), [])
            if origin not in origins:
                origins.append(origin)
        known: Container[str] = self._index.names() if self._index else self.defined()
        missing = {n: o for n, o in names.items() if n not in known}
        if missing and self._index:
            # a stale index must not cause an error
            missing = {n: o for n, o in missing.items() if n not in self.defined()}
        if foreign:
            self.of_cxx(foreign)
        if missing:
            self.missing_symbols(missing)
        self.origins |= {n: o for n, o in names.items() if n not in missing}
        files = ", ".join(header.name for header in request.headers)
        self.sources.append(f"{_count(len(names) - len(missing))} from {files}")
        if request.cdylib is not None:
            self.compare_with_cdylib(request.cdylib, names)

    def of_cxx(self, names: Sequence[CxxName]) -> None:
        """Warn of C++ functions and methods, which become private unless patterns keep them."""
        from cargo_strip_hook.exports.cxxnames import pattern_of, symbols_of

        definitions = symbols_of(names, self.defined(), self.target)
        others = [n for n in names if n not in definitions]
        if definitions:
            symbols = dict.fromkeys(s for those in definitions.values() for s in those)
            patterns = dict.fromkeys(pattern_of(s, self.target) for s in symbols)
            shown = [f"{n.text} ({n.where})" for n in definitions]
            self.cxx = (
                f"C++ functions of the header that the library defines are no C symbols: "
                f"{', '.join(shown)}",
                "they stay public with " + " ".join(f"--export '{p}'" for p in patterns),
            )
            kept = [Pattern(str(t)) for t in self.request.named.get("export", ())]
            chosen = select_all(kept, self.names())[0] if kept else {}
            if any(s not in chosen for s in symbols):
                self.warnings.append("; ".join(self.cxx).replace("no C symbols", "made private", 1))
        if others and not definitions:
            shown = [f"{n.text} ({n.where})" for n in others[:8]] + ["…"] * (len(others) > 8)
            self.warnings.append(
                f'not extern "C" and not defined in the library: {", ".join(shown)}'
            )

    def spelled(self, symbol: Declared) -> str:
        plain = object_name(symbol, self.target)
        if symbol.label or symbol.convention == "cdecl" or self.target.object_format != "coff":
            return plain
        # on x86_64 only vectorcall is a convention of its own
        if self.target.symbol_prefix != "_" and symbol.convention != "vectorcall":
            return plain
        return self._decorated(symbol) or plain

    def _decorated(self, symbol: Declared) -> str | None:
        """The archive's ``_f@8`` (stdcall), ``@f@8`` (fastcall) or ``f@@8`` (vectorcall)."""
        starts = {"stdcall": f"_{symbol.name}@", "fastcall": f"@{symbol.name}@"}
        start = starts.get(symbol.convention, f"{symbol.name}@@")
        if symbol.convention not in {*starts, "vectorcall"}:
            return None
        decorations = self.names().decorations_of(symbol.name)
        return next((n for n in decorations if n.startswith(start)), None)

    def missing_symbols(self, missing: Origins) -> None:
        self.missing = missing
        lines = [
            f"{name} ({', '.join(o.where for o in origins)})"
            for name, origins in sorted(missing.items())
        ]
        what = f"{_count(len(missing))} declared but not defined in the archive:"
        if not self.request.allow_missing:
            raise ExportsError(
                what,
                lines=lines,
                help=(
                    *self.other_spellings(missing),
                    *(
                        f"{file} was not found: what looks like a declaration may be a macro "
                        "that it defines; -I DIR names its folder"
                        for file in self.not_found[:1]
                    ),
                    "a declaration for another configuration is left out with -D NAME[=VALUE]",
                    "--allow-missing makes this a warning",
                ),
                absent=True,
            )
        self.warnings.append(f"{what} {_listed(lines)}")

    def other_spellings(self, missing: Iterable[str]) -> Iterator[str]:
        """Definitions with another calling convention that a missing name may mean."""
        names, prefix = self.names(), self.target.symbol_prefix
        for name in list(missing)[:3]:
            plain = names.undecorated(name) or name.removeprefix(prefix)
            decorated = names.decorations_of(plain)
            for other in (prefix + plain, *decorated):
                if other == name or other not in names.defined:
                    continue
                kind = _convention(other) if other in decorated else "__cdecl"
                yield f"`{other}` is defined: declare `{plain}` with {kind}{_RUST.get(kind, '')}"

    def compare_with_cdylib(self, cdylib: Path, names: Origins) -> None:
        from cargo_strip_hook.exports.dynamic import exported_names

        more = [name for name in exported_names(cdylib, self.target) if name not in names]
        if more:
            self.warnings.append(
                f"{_count(len(more))} exported by {cdylib.name} but not declared in the header "
                f"and therefore hidden: {_listed(more)}"
            )

    # Other sources ----------------------------------------------------------------------------

    def from_cdylib(self) -> None:
        from cargo_strip_hook.exports.dynamic import exported_names

        cdylib = self.request.cdylib
        assert cdylib is not None
        names = exported_names(cdylib, self.target)
        known: Container[str] = self._index.names() if self._index else self.defined()
        missing = [n for n in names if n not in known]
        if missing and self._index:
            missing = [n for n in missing if n not in self.defined()]
        if missing and self.target.object_format == "coff":
            # a DLL's table may have decorated functions by their plain names
            plain = {n: n.removeprefix(self.target.symbol_prefix) for n in missing}
            by_name = {n: self.names().decorations_of(plain[n]) for n in missing}
            names = tuple(m for n in names for m in (by_name.get(n) or [n]))
            missing = [n for n in missing if not by_name[n]]
        if missing:
            self.missing_symbols({n: [Origin("cdylib", cdylib.name)] for n in missing})
        gone = set(missing)
        self.add((n, Origin("cdylib", cdylib.name)) for n in names if n not in gone)
        self.sources.append(f"{_count(len(names) - len(gone))} from {cdylib.name}")

    def from_named(self) -> None:
        named = [
            s.read(v, self.target) for s in SOURCES for v in self.request.named.get(s.name, ())
        ]
        each = [p for one in named if one.each for p in one.patterns]
        chosen = self.selected(each, "--export")
        excluded = [p for one in named for p in one.excluded]
        if excluded:
            hidden, _ = select_all(excluded, Names(chosen, self.target))
            # a list takes back only what lists name, and nothing that is named in full
            files_only = {n for n in hidden if all(o.kind == "file" for o in chosen[n])}
            exact = {p.text for p in each if p.exact}
            for name in files_only:
                if name.removeprefix(self.target.symbol_prefix) not in exact:
                    del chosen[name]
        for one in named:
            if not one.each:
                for symbol, origins in self.any_of(one).items():
                    chosen.setdefault(symbol, []).extend(origins)
        for symbol, origins in chosen.items():
            self.add((symbol, origin) for origin in origins)
        shown = ", ".join(one.shown for one in named[:4]) + (", …" if len(named) > 4 else "")
        self.sources.append(f"{_count(len(chosen))} from {shown}")

    def any_of(self, named: Named) -> Origins:
        """What matches at least one of the patterns. Raises `ExportsError` where nothing does."""
        chosen, _ = self.select(named.patterns, each=False)
        if not chosen:
            texts = ", ".join(p.text for p in named.patterns)
            raise ExportsError(
                f"no pattern of {named.shown} matches a symbol of the archive ({texts})",
                absent=True,
            )
        return {n: [Origin(p.kind, p.where) for p in matching] for n, matching in chosen.items()}

    def selected(self, wanted: list[Pattern], option: str) -> Origins:
        """Names by pattern. Raises `ExportsError` listing every pattern that matches nothing."""
        if not wanted:
            return {}
        chosen, idle = self.select(wanted)
        if idle:
            raise ExportsError(
                f"{option} names symbols that the archive does not define:",
                lines=[f"{p.text} ({p.where})" if p.kind == "file" else p.text for p in idle],
                help=_suggestions(idle, self.names()),
                absent=True,
            )
        return {n: [Origin(p.kind, p.where) for p in matching] for n, matching in chosen.items()}

    def from_crate(self) -> None:
        from cargo_strip_hook.exports.crate import crate_symbols, every_crate_symbols

        symbols = self.defined().values()
        if self.request.every_crate:
            own = every_crate_symbols(symbols, self.request.crate_name, self.target.symbol_prefix)
            self.add((s.name, Origin("crate", s.member)) for s in own)
            self.sources.append(f"{_count(len(own))} that a cdylib would export")
            return
        crate, own = crate_symbols(symbols, self.request.crate_name, self.target.symbol_prefix)
        self.add((s.name, Origin("crate", s.member)) for s in own)
        self.sources.append(f"{_count(len(own))} of the crate {crate} (no header, no cdylib)")


def _convention(decorated: str) -> str:
    if "@@" in decorated:
        return "__vectorcall"
    return "__fastcall" if decorated[0] == "@" else "__stdcall"


def _suggestions(idle: list[Pattern], names: Names) -> tuple[str, ...]:
    """A ``did you mean`` for exact names that are nearly right."""
    exact = [p for p in idle if p.exact][:3]
    if not exact:
        return ()
    import difflib

    people = [n for n in names.defined if not n.startswith((f"{names.prefix}_ZN", "_R"))]
    plain = [spelling for n in people for spelling in names.spellings(n)]
    out = []
    for pattern in exact:
        near = [n for n in difflib.get_close_matches(pattern.text, plain, 2) if n != pattern.text]
        if near:
            out.append(f"`{near[0]}` is defined: did you mean that for `{pattern.text}`?")
    return tuple(out)


def _listed(names: Sequence[str]) -> str:
    """The first few names. (JSON has them all in a field.)"""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _count(number: int) -> str:
    return f"{number} symbol" if number == 1 else f"{number} symbols"


def _exports(origins: Origins) -> tuple[Export, ...]:
    return tuple(Export(name, tuple(sorted(origins[name]))) for name in sorted(origins))
