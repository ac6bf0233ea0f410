"""Deciding what is public: header, shared library, patterns, or the crate's own symbols."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cargo_strip_hook.errors import ExportsError
from cargo_strip_hook.exports.declarations import Declared
from cargo_strip_hook.exports.patterns import Pattern, preset, read_list, select_all
from cargo_strip_hook.job import DefinedSymbol, Export, ExportSet, Origin
from cargo_strip_hook.target import Target

Origins = dict[str, list[Origin]]


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """Where the public symbols are to be taken from.

    A header or cdylib that is not `…_explicit` was only found beside the library: patterns,
    presets and files then replace it instead of adding to it.
    """

    target: Target
    headers: tuple[Path, ...] = ()
    include_dirs: tuple[Path, ...] = ()
    defines: tuple[str, ...] = ()
    cdylib: Path | None = None
    patterns: tuple[str, ...] = ()
    presets: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    keep: tuple[str, ...] = ()
    crate_name: str | None = None
    allow_missing: bool = False
    headers_explicit: bool = False
    cdylib_explicit: bool = False


def decide(
    request: ExportRequest,
    defined: Callable[[], Mapping[str, DefinedSymbol]],
    index: Callable[[], Container[str]] | None = None,
) -> ExportSet:
    """The public symbols of an archive.

    `defined` lists the archive's global definitions in member order and is only called where it
    has to be; `index` is a cheap test for a name, the archive's own symbol index. Raises
    `HeaderError`, `ExportsError`, `InputError` or `UsageError`.
    """
    return _Decision(request, defined, index).made()


def object_name(declared: Declared, target: Target) -> str:
    """How the C compiler spells a declaration in an object file; asm labels are verbatim.

    i686 Windows decorations (``_f@8``) need the size of the arguments: see `_decorated`.
    """
    return declared.name if declared.label else target.symbol_prefix + declared.name


class _Decision:
    def __init__(
        self,
        request: ExportRequest,
        defined: Callable[[], Mapping[str, DefinedSymbol]],
        index: Callable[[], Container[str]] | None,
    ) -> None:
        self.request, self.target = request, request.target
        self._defined, self._index = defined, index
        self._all: Mapping[str, DefinedSymbol] | None = None
        self.origins: Origins = {}
        self.keep: Origins = {}
        self.missing: Origins = {}
        self.sources: list[str] = []
        self.warnings: list[str] = []

    def defined(self) -> Mapping[str, DefinedSymbol]:
        if self._all is None:
            self._all = self._defined()
        return self._all

    def made(self) -> ExportSet:
        request = self.request
        by_hand = bool(request.patterns or request.presets or request.files)
        use_header = bool(request.headers) and (not by_hand or request.headers_explicit)
        use_cdylib = request.cdylib is not None and (
            (not by_hand and not use_header) or (by_hand and request.cdylib_explicit)
        )
        if use_header:
            self.from_headers()
        if use_cdylib:
            self.from_cdylib()
        if by_hand:
            self.from_patterns()
        if not (use_header or use_cdylib or by_hand):
            self.from_crate()
        if request.keep:
            wanted = [Pattern(text, "keep", text) for text in request.keep]
            self.keep = self.selected(wanted, "--keep")
        if not self.origins:
            raise ExportsError(
                f"no public symbol was found ({'; '.join(self.sources)})",
                help="name the public symbols with --export PATTERN or --header FILE",
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
            # a list may name the same thousands of times
            self.origins[name] = list(dict.fromkeys([*self.origins.get(name, ()), *origins]))

    # Headers ----------------------------------------------------------------------------------

    def from_headers(self) -> None:
        from cargo_strip_hook.exports.headers import read_header

        request = self.request
        declared: list[Declared] = []
        for header in request.headers:
            seen = read_header(
                header,
                target=self.target,
                include_dirs=request.include_dirs,
                defines=request.defines,
            )
            declared += seen.symbols
            self.warnings += seen.warnings
        names: Origins = {}
        for symbol in declared:
            origin = Origin("header", symbol.where)
            places = names.setdefault(self.spelled(symbol), [])
            if origin not in places:
                places.append(origin)
        known: Container[str] = self._index() if self._index else self.defined()
        missing = {n: o for n, o in names.items() if n not in known}
        if missing and self._index:
            # A stale index must not make an error.
            missing = {n: o for n, o in missing.items() if n not in self.defined()}
        if missing:
            self.missing_symbols(missing)
        self.origins |= {n: o for n, o in names.items() if n not in missing}
        files = ", ".join(header.name for header in request.headers)
        self.sources.append(f"{_count(len(names) - len(missing))} from {files}")
        if request.cdylib is not None:
            self.compare_with_cdylib(request.cdylib, names)

    def spelled(self, symbol: Declared) -> str:
        plain = object_name(symbol, self.target)
        if symbol.label or symbol.convention == "cdecl" or self.target.object_format != "coff":
            return plain
        # on x86_64 only vectorcall is a convention of its own
        if self.target.symbol_prefix != "_" and symbol.convention != "vectorcall":
            return plain
        return self._decorated(symbol) or plain

    def _decorated(self, symbol: Declared) -> str | None:
        """``_f@8`` (stdcall), ``@f@8`` (fastcall), ``f@@8`` (vectorcall), as the archive has it."""
        starts = {
            "stdcall": f"_{symbol.name}@",
            "fastcall": f"@{symbol.name}@",
            "vectorcall": f"{symbol.name}@@",
        }
        start = starts.get(symbol.convention)
        if start is None:
            return None
        return next(
            (n for n in self.defined() if n.startswith(start) and n[len(start) :].isdigit()), None
        )

    def missing_symbols(self, missing: Origins) -> None:
        self.missing = missing
        lines = [
            f"  {name} ({', '.join(o.where for o in places)})"
            for name, places in sorted(missing.items())
        ]
        what = f"{_count(len(missing))} declared but not defined in the archive:"
        text = "\n".join([what, *lines])
        if not self.request.allow_missing:
            raise ExportsError(
                text,
                help=(
                    "a declaration for another configuration is left out with -D NAME[=VALUE]",
                    "--allow-missing makes this a warning",
                ),
                absent=True,
            )
        self.warnings.append(text)

    def compare_with_cdylib(self, cdylib: Path, names: Origins) -> None:
        from cargo_strip_hook.exports.dynamic import exported_names

        more = [name for name in exported_names(cdylib, self.target) if name not in names]
        if more:
            self.warnings.append(
                f"{_count(len(more))} exported by {cdylib.name} but not declared in the header "
                f"and therefore hidden: {', '.join(more)}"
            )

    # Other sources ----------------------------------------------------------------------------

    def from_cdylib(self) -> None:
        from cargo_strip_hook.exports.dynamic import exported_names

        cdylib = self.request.cdylib
        assert cdylib is not None
        names = exported_names(cdylib, self.target)
        known: Container[str] = self._index() if self._index else self.defined()
        missing = [n for n in names if n not in known]
        if missing and self._index:
            missing = [n for n in missing if n not in self.defined()]
        if missing:
            self.missing_symbols({n: [Origin("cdylib", cdylib.name)] for n in missing})
        gone = set(missing)
        self.add((n, Origin("cdylib", cdylib.name)) for n in names if n not in gone)
        self.sources.append(f"{_count(len(names) - len(gone))} from {cdylib.name}")

    def from_patterns(self) -> None:
        request = self.request
        wanted = [Pattern(text, "pattern", text) for text in request.patterns]
        excluded: list[Pattern] = []
        for file in request.files:
            found = read_list(file, self.target)
            wanted += found.patterns
            excluded += found.excluded
        chosen = self.selected(wanted, "--export")
        if excluded:
            hidden, _ = select_all(excluded, chosen, self.target.symbol_prefix)
            files_only = {n for n in hidden if all(o.kind == "file" for o in chosen[n])}
            exact = {p.text for p in wanted if p.exact}
            for name in files_only:
                if name.removeprefix(self.target.symbol_prefix) not in exact:
                    del chosen[name]
        for name in request.presets:
            for symbol, origins in self.preset(name).items():
                chosen.setdefault(symbol, []).extend(origins)
        for symbol, origins in chosen.items():
            self.add((symbol, origin) for origin in origins)
        parts = [f"`{text}`" for text in request.patterns]
        parts += [f"the preset {name}" for name in request.presets]
        parts += [file.name for file in request.files]
        shown = ", ".join(parts[:4]) + (", …" if len(parts) > 4 else "")
        self.sources.append(f"{_count(len(chosen))} from {shown}")

    def preset(self, name: str) -> Origins:
        """Only a preset of which nothing at all matches is an error."""
        patterns = preset(name)
        chosen, _ = select_all(patterns, self.defined().keys(), self.target.symbol_prefix)
        if not chosen:
            texts = ", ".join(p.text for p in patterns)
            raise ExportsError(
                f"the preset `{name}` matches no symbol of the archive ({texts})", absent=True
            )
        return {n: [Origin(p.kind, p.where) for p in found] for n, found in chosen.items()}

    def selected(self, wanted: list[Pattern], option: str) -> Origins:
        """Names by pattern. Raises `ExportsError` listing every pattern that matches nothing."""
        if not wanted:
            return {}
        names = self.defined().keys()
        chosen, idle = select_all(wanted, names, self.target.symbol_prefix)
        if idle:
            lines = [f"  {p.text} ({p.where})" if p.kind == "file" else f"  {p.text}" for p in idle]
            raise ExportsError(
                "\n".join([f"{option} names symbols that the archive does not define:", *lines]),
                help=_suggestions(idle, names, self.target.symbol_prefix),
                absent=True,
            )
        return {n: [Origin(p.kind, p.where) for p in found] for n, found in chosen.items()}

    def from_crate(self) -> None:
        from cargo_strip_hook.exports.crate import crate_symbols

        symbols = self.defined().values()
        crate, own = crate_symbols(symbols, self.request.crate_name, self.target.symbol_prefix)
        self.add((s.name, Origin("crate", s.member)) for s in own)
        self.sources.append(f"{_count(len(own))} of the crate {crate} (no header, no cdylib)")


def _suggestions(idle: list[Pattern], names: Iterable[str], prefix: str) -> tuple[str, ...]:
    """``did you mean`` for exact names that are nearly right."""
    exact = [p for p in idle if p.exact][:3]
    if not exact:
        return ()
    import difflib

    plain = [n.removeprefix(prefix) for n in names if not n.startswith((f"{prefix}_ZN", "_R"))]
    out = []
    for pattern in exact:
        near = difflib.get_close_matches(pattern.text, plain, 1)
        if near:
            out.append(f"`{near[0]}` is defined: did you mean that for `{pattern.text}`?")
    return tuple(out)


def _count(number: int) -> str:
    return f"{number} symbol" if number == 1 else f"{number} symbols"


def _exports(origins: Origins) -> tuple[Export, ...]:
    return tuple(Export(name, tuple(sorted(origins[name]))) for name in sorted(origins))
