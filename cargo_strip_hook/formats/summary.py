"""A list of what an archive defines, for patterns and checks; no liveness, no linking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.core.requests import DefinedSymbol
from cargo_strip_hook.formats.members import objects_of
from cargo_strip_hook.link.batch import read_all
from cargo_strip_hook.link.model import Binding, Contents, Format, SpecialIndex, SymbolKind, Unit
from cargo_strip_hook.link.symbols import local_names


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What is in an archive besides its API: number of objects, bytes of debug information and of
    bitcode, number of initialisers and finalisers, names of local symbols.

    `unasked`: the members that linkers load whatever refers to them.
    """

    objects: int
    debug: int
    bitcode: int
    initialisers: int
    locals: tuple[str, ...]
    unasked: tuple[str, ...]


def defined_symbols(archive: Archive) -> dict[str, DefinedSymbol]:
    """All global definitions, by name; the first member that defines a name strongly counts.

    Those of the C library's objects that Rust puts into a library are among them; members that
    are no objects are passed over. Raises `ObjectError` for a damaged member.
    """
    symbols: dict[str, DefinedSymbol] = {}
    for format, unit in _units(archive, bundled=True):
        _enter(symbols, format, unit)
    return symbols


def _enter(symbols: dict[str, DefinedSymbol], format: Format, unit: Unit) -> None:
    for symbol in _definitions(unit, format.symbol_kinds):
        old = symbols.get(symbol.name)
        if old is None or (old.weak and not symbol.weak):
            symbols[symbol.name] = symbol


def contents(archive: Archive) -> tuple[dict[str, DefinedSymbol], Leftovers]:
    """The definitions, as `defined_symbols` has them, and what else there is, in one reading.

    Without bundled objects. Raises `ObjectError` for a damaged member.
    """
    symbols: dict[str, DefinedSymbol] = {}
    objects = debug = bitcode = initialisers = 0
    names: set[str] = set()
    for format, unit in _units(archive, bundled=False):
        _enter(symbols, format, unit)
        size, entries = format.leftovers(unit)
        sizes = format.sizes(unit)
        objects, debug, initialisers = objects + 1, debug + size, initialisers + entries
        bitcode += int(sizes["stored"][sizes["kind"] == Contents.BITCODE].sum())
        names.update(n.decode(errors="replace") for n in local_names(unit))
    unasked = _unasked(archive)
    rest = Leftovers(objects, debug, bitcode, initialisers, tuple(sorted(names)), unasked)
    return symbols, rest


def _unasked(archive: Archive) -> tuple[str, ...]:
    """The names of the members that linkers load whatever refers to them."""
    called: list[str] = []
    index = archive.symbols() or {}
    for format, inputs in objects_of(archive):
        names = {item.index: item.name for item in inputs}
        called += [names[n] for n in format.loaded_always(inputs, index.items())]
    return tuple(called)


def _units(archive: Archive, *, bundled: bool) -> Iterator[tuple[Format, Unit]]:
    for format, inputs in objects_of(archive, bundled=bundled):
        for unit in read_all(format, inputs):
            yield format, unit


def _definitions(unit: Unit, kinds: Mapping[int, SymbolKind]) -> Iterator[DefinedSymbol]:
    symbols = unit.globals
    for name, atom, binding, kind, visibility in zip(
        unit.names,
        symbols["atom"].tolist(),
        symbols["binding"].tolist(),
        symbols["kind"].tolist(),
        symbols["visibility"].tolist(),
        strict=True,
    ):
        if atom in (SpecialIndex.UNDEFINED, SpecialIndex.ELSEWHERE):
            continue
        yield DefinedSymbol(
            name.decode(errors="surrogateescape"),
            unit.name,
            weak=binding != Binding.GLOBAL,
            hidden=visibility in (1, 2),
            kind="common" if atom == SpecialIndex.COMMON else kinds.get(kind, "unknown"),
        )
