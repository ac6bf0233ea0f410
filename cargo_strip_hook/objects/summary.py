"""A list of what an archive defines, for patterns and checks; no liveness, no linking."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.job import DefinedSymbol
from cargo_strip_hook.objects import format_for
from cargo_strip_hook.objects.model import Binding, Input, Place, Unit
from cargo_strip_hook.objects.sniff import sniff

Kind = Literal["function", "data", "tls", "common", "unknown"]


def defined_symbols(archive: Archive) -> dict[str, DefinedSymbol]:
    """All global definitions, by name; the first member that defines a name strongly counts.

    Raises `ObjectError` for a damaged member; members that are no objects are passed over.
    """
    found: dict[str, DefinedSymbol] = {}
    for member in archive.members:
        data = archive.data(member)
        contents = sniff(bytes(data[:20]))
        if contents not in ("elf", "macho", "coff"):
            continue
        format = format_for(contents)
        [unit] = format.read([Input(member.index, member.name, data)])
        for symbol in _definitions(unit, format.symbol_kinds()):
            old = found.get(symbol.name)
            if old is None or (old.weak and not symbol.weak):
                found[symbol.name] = symbol
    return found


def _definitions(unit: Unit, kinds: dict[int, Kind]) -> Iterator[DefinedSymbol]:
    symbols = unit.globals
    for name, atom, binding, kind, visibility in zip(
        unit.names,
        symbols["atom"].tolist(),
        symbols["binding"].tolist(),
        symbols["kind"].tolist(),
        symbols["visibility"].tolist(),
        strict=True,
    ):
        if atom in (Place.UNDEFINED, Place.ELSEWHERE):
            continue
        yield DefinedSymbol(
            name.decode(errors="replace"),
            unit.name,
            weak=binding != Binding.GLOBAL,
            hidden=visibility in (1, 2),
            kind="common" if atom == Place.COMMON else kinds.get(kind, "unknown"),
        )
