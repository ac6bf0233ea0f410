"""Encodes one ELF relocatable object: relocations, groups and tables, behind the sections it has.

Source: gABI, "Object Files".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.attributes import joined_identity
from cargo_strip_hook.formats.elf.file import ElfUnit, elf_unit
from cargo_strip_hook.formats.elf.groups import Kept, group_sections
from cargo_strip_hook.formats.elf.output import Batches, Section, holding, write_file
from cargo_strip_hook.link.arrays import rows_of
from cargo_strip_hook.link.model import Array, Chunk
from cargo_strip_hook.link.output import OutputObject, SymbolTable, octets


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ElfOutput(OutputObject):
    """`sections`: those of the program, of debug information, and notes, in this order.

    `debug_relocations`: those of each section of debug information. `wide`: the contents of
    `.symtab_shndx`, empty where no index of a section needs it. `flags`: e_flags.
    """

    sections: Sequence[Section]
    debug_relocations: Sequence[Batches]
    groups: Sequence[Kept]
    wide: bytes
    flags: int

    def encode(self) -> tuple[int, Iterator[Chunk]]:
        """See `OutputObject`."""
        native = elf_unit(self.program.units[0])
        tables = _relocations(self, native)
        first = len(self.groups) + len(self.sections) + 1  # header index of the first of these
        symtab_index = first + len(tables)
        grouped, group_headers = _groups(self, [n for n, _, _ in tables], symtab_index)
        sections = [
            replace(section, flags=section.flags | elf.SHF_GROUP) if n in grouped else section
            for n, section in enumerate(self.sections)
        ]
        rel, record = native.machine.rel, native.relocation
        sections += [
            Section(
                (b".rel" if rel else b".rela") + sections[number].name,
                elf.SHT_REL if rel else elf.SHT_RELA,
                elf.SHF_INFO_LINK | (elf.SHF_GROUP if number in grouped else 0),
                size,
                native.records.size,
                record.itemsize,
                symtab_index,
                len(self.groups) + 1 + number,
                chunks,
            )
            for number, size, chunks in tables
        ]
        sections += _symbol_sections(self, native.records, symtab_index)
        identity = joined_identity(self.program.units)
        return write_file([*group_headers, *sections], native, self.flags, identity)


def _relocations(o: ElfOutput, native: ElfUnit) -> list[tuple[int, int, Iterable[Chunk]]]:
    """(number of the section, bytes, chunks) of the relocations of each section that has any."""
    records, table = native.records, o.symbols
    if len(table.records) > 1 << (records.bits - records.symbol_shift):
        raise LinkError(
            f"{len(table.records)} symbols are too many for a {records.bits}-bit object",
            help="export less, or strip with `--strip symbols`",
        )
    record, shift = native.relocation, np.uint64(records.symbol_shift)
    symbol = table.numbers(o.relocations).astype(np.uint64)
    columns = {"info": symbol << shift | o.relocations.type.astype(np.uint64)}
    if not native.machine.rel:
        columns["addend"] = o.relocations.addend
    rows = rows_of(record, len(symbol), offset=o.relocations.offset, **columns)
    count = len(o.placed.sections.size)
    tables: list[tuple[int, int, Iterable[Chunk]]] = [
        (number, rows[mine].nbytes, [octets(rows[mine])])
        for number, mine in enumerate(o.relocations.by_section(count))
        if mine.start < mine.stop
    ]
    for number, batches in enumerate(o.debug_relocations, start=count):
        if batches:
            size = sum(rows.nbytes for rows, _ in batches)
            tables.append((number, size, _bound(table, batches, shift)))
    return tables


def _bound(table: SymbolTable, batches: Batches, shift: np.uint64) -> Iterator[Chunk]:
    """The entries of debug information with their symbols, a batch at a time: there are many."""
    for rows, target in batches:
        entries = rows.copy()
        entries["info"] |= _targets(table, target).astype(np.uint64) << shift
        yield octets(entries)


def _targets(table: SymbolTable, targets: Array) -> Array:
    """The number of the symbol of each target: a program-wide symbol, or ~section."""
    by_name = targets >= 0
    symbol = table.index.of_symbol[np.where(by_name, targets, 0)]
    return np.where(by_name, symbol, table.of_section[np.where(by_name, 0, ~targets)])


def _groups(
    o: ElfOutput, relocated: Sequence[int], symtab_index: int
) -> tuple[set[int], list[Section]]:
    """(the numbers of the sections in groups, the sections of the groups, which come first).

    `relocated`: the numbers of the sections with relocations, whose sections stand before the
    symbol table.
    """
    inside = [set(o.placed.section[list(group.atoms)].tolist()) for group in o.groups]
    tables = range(symtab_index - len(relocated), symtab_index)
    members = [
        [len(o.groups) + 1 + number for number in sorted(mine)]
        + [index for index, number in zip(tables, relocated, strict=True) if number in mine]
        for mine in inside
    ]
    order = elf_unit(o.program.units[0]).records.order
    headers = group_sections(o.groups, members, o.symbols.index.of_symbol, symtab_index, order)
    return set().union(*inside), headers


def _symbol_sections(o: ElfOutput, records: elf.Records, symtab_index: int) -> list[Section]:
    """The symbol table, its section indices where they are wide, and its names."""
    sections = [
        holding(
            b".symtab",
            elf.SHT_SYMTAB,
            0,
            octets(o.symbols.records),
            records.size,
            entsize=records.symbol.itemsize,
            link=symtab_index + (2 if o.wide else 1),
            info=o.symbols.locals,
        )
    ]
    if o.wide:
        kind = elf.SHT_SYMTAB_SHNDX
        sections.append(holding(b".symtab_shndx", kind, 0, o.wide, 4, entsize=4, link=symtab_index))
    return [*sections, holding(b".strtab", elf.SHT_STRTAB, 0, o.symbols.strings)]


__all__ = ["ElfOutput"]
