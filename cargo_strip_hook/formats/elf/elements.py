"""Takes sections apart whose elements linkers merge: constants of one size, and strings.

Each element is an atom of its own then, so that unused ones go and equal ones are kept once.
Source: gABI, "Sections", SHF_MERGE and SHF_STRINGS. What a relocation means there is linkers'
agreement: an addend to a section's symbol says which element, any other one a place beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.file import ElfFiles, Symbols
from cargo_strip_hook.formats.elf.machine import TYPES
from cargo_strip_hook.link.arrays import join, rows_of
from cargo_strip_hook.link.model import Array, AtomFlag, Bool, Int64, Program

_SHIFT = 40  # sections and offsets in one number
_REFUSED = (
    elf.SHF_GROUP
    | elf.SHF_LINK_ORDER
    | elf.SHF_GNU_RETAIN
    | elf.SHF_WRITE
    | elf.SHF_EXECINSTR
    | elf.SHF_COMPRESSED
)


@dataclass(frozen=True, slots=True, eq=False)
class Elements:
    """The elements of the sections that are taken apart, in the order of the files.

    `section` (numbered through), `offset` and `size` (bytes) of each; `symbol` are the symbols in
    such sections, `holder` the element that each points into. `synthetic` are the elements that a
    section's symbol may stand for: each gets a symbol of its own, behind those of its file.
    `reference` are the rows of the relocations that refer to an element by its section's symbol:
    `reference_symbol` (counted in its file) is that of the element, and `reference_addend` counts
    from it.
    """

    section: Int64
    offset: Int64
    size: Int64
    symbol: Int64
    holder: Int64
    synthetic: Int64
    reference: Int64
    reference_symbol: Int64
    reference_addend: Int64

    def first(self) -> Int64:
        """For each element the first one of its section."""
        return np.searchsorted(self.section, self.section)


# where elements are, in the order of the sections: bytes
_BOUNDS = np.dtype([("section", "<i8"), ("offset", "<i8"), ("size", "<i8")])
# symbols in sections that are taken apart, numbered through; whether one is the section's own
_INNER = np.dtype([("symbol", "<i8"), ("section", "<i8"), ("is_section", "?")])


@dataclass(frozen=True, slots=True, eq=False)
class _References:
    """Relocations (`row`) to the symbol of a `section` (numbered through) that is taken apart."""

    row: Int64
    section: Int64
    addend: Int64


def find_elements(
    f: ElfFiles, table: Symbols, relocated: Bool, relocations: Array, section: Int64
) -> Elements:
    """Find out which sections can be taken apart, and into what.

    `relocated`: sections that relocations apply to; those stay whole, and so do sections where a
    symbol goes over the end of an element, and those to which there is a distance by their own
    symbol. `section`: that each of `relocations` applies to.
    """
    divided = _candidates(f, relocated)
    if not divided.any():
        none = np.zeros(0, np.int64)
        return Elements(none, none, none, none, none, none, none, none, none)
    inner = _inner_symbols(f, table, divided)
    references = _references(f, table, inner, relocations, section)
    divided &= ~_unclear(f, inner, references, relocations["type"])
    bounds = _cut(f, np.flatnonzero(divided))
    inner = inner[divided[inner["section"]]]
    holder, fits = _holders(f, table, bounds, inner)
    crossed = np.zeros(len(divided), np.bool_)
    crossed[inner["section"][~fits]] = True
    if crossed.any():
        divided &= ~crossed
        kept, sound = divided[bounds["section"]], divided[inner["section"]]
        holder = (np.cumsum(kept) - 1)[holder[sound]]
        bounds, inner = bounds[kept], inner[sound]

    addressed = np.zeros(len(divided), np.bool_)
    addressed[inner["section"][inner["is_section"]]] = True
    synthetic = np.flatnonzero(addressed[bounds["section"]])
    file = f.owner[bounds["section"][synthetic]]
    symbol_of = np.zeros(len(bounds["section"]), np.int64)
    symbol_of[synthetic] = (
        np.diff(table.first)[file] + np.arange(len(synthetic)) - np.searchsorted(file, file)
    )
    mine = divided[references.section]
    addend = references.addend[mine]
    element = _element(bounds, references.section[mine], addend)
    return Elements(
        bounds["section"],
        bounds["offset"],
        bounds["size"],
        inner["symbol"],
        holder,
        synthetic,
        references.row[mine],
        symbol_of[element],
        addend - bounds["offset"][element],
    )


def _candidates(f: ElfFiles, relocated: Bool) -> Bool:
    """Which sections have elements by what their headers say; bool for each section."""
    flags, sizes = f.section_flags, f.sections["size"].astype(np.int64)
    wanted = elf.SHF_MERGE | elf.SHF_ALLOC
    divided: Bool = flags & (wanted | _REFUSED) == wanted
    divided &= (f.types == elf.SHT_PROGBITS) & (sizes > 0) & ~relocated & f.named(b".rodata")
    divided &= f.machine.strings
    sections = np.flatnonzero(divided)
    entry = f.sections["entsize"][sections].astype(np.int64)
    align = np.maximum(f.sections["align"][sections].astype(np.int64), 1)
    strings = flags[sections] & elf.SHF_STRINGS != 0
    divided[sections] = (entry > 0) & (sizes[sections] % np.maximum(entry, 1) == 0)
    # linkers put no padding between constants
    divided[sections] &= strings | (entry % align == 0)
    return divided


def _inner_symbols(f: ElfFiles, table: Symbols, divided: Bool) -> Array:
    """The symbols in the sections that are `divided`: rows of `_INNER`."""
    symbol = np.flatnonzero(~table.reserved & (table.shndx > 0))
    section = (f.first[table.owner[symbol]] + table.shndx[symbol]).astype(np.int64)
    symbol, section = symbol[divided[section]], section[divided[section]]
    is_section = table.table["info"][symbol] & 0xF == elf.STT_SECTION
    return rows_of(_INNER, len(symbol), symbol=symbol, section=section, is_section=is_section)


def _references(
    f: ElfFiles, table: Symbols, inner: Array, relocations: Array, section: Int64
) -> _References:
    """The relocations to symbols that are sections; `section`: that each applies to."""
    row = target = np.zeros(0, np.int64)
    if inner["is_section"].any():
        stands_for = np.full(len(table.table), -1, np.int64)
        stands_for[inner["symbol"][inner["is_section"]]] = inner["section"][inner["is_section"]]
        target = stands_for[table.first[f.owner[section]] + relocations["symbol"]]
        row = np.flatnonzero(target >= 0)
        target = target[row]
    return _References(row, target, relocations["addend"][row])


def _unclear(f: ElfFiles, inner: Array, references: _References, types: Array) -> Bool:
    """Which sections are referred to where no addend says which element; bool for each section.

    `types`: that of each relocation.
    """
    unclear = np.zeros(len(f.sections), np.bool_)
    # the addend of a distance counts from the end of a field, or whatever an instruction wants
    plain = f.machine.addressing_types[np.minimum(types[references.row], TYPES - 1)]
    size = f.sections["size"][references.section].astype(np.int64)
    outside = (references.addend < 0) | (references.addend >= size)
    unclear[references.section[~plain | outside]] = True
    if f.machine.rel:  # addends of some types are not known
        unclear[inner["section"][inner["is_section"]]] = True
    return unclear


def _holders(f: ElfFiles, table: Symbols, bounds: Array, inner: Array) -> tuple[Int64, Bool]:
    """(the element that each symbol points into, whether the symbol ends in it, too)."""
    rows = table.table[inner["symbol"]]
    value, extent = rows["value"].astype(np.uint64), rows["size"].astype(np.uint64)
    room = f.sections["size"][inner["section"]].astype(np.uint64)
    fits = (value < room) & (extent <= room)
    begin = np.where(fits, value, 0).astype(np.int64)
    holder = _element(bounds, inner["section"], begin)
    fits[fits] = (
        begin[fits] + extent[fits].astype(np.int64)
        <= (bounds["offset"] + bounds["size"])[holder[fits]]
    )
    return holder, fits


def _cut(f: ElfFiles, chosen: Int64) -> Array:
    """All elements of the `chosen` sections: rows of `_BOUNDS`."""
    bounds = [np.zeros(0, _BOUNDS)]
    entry = f.sections["entsize"][chosen].astype(np.int64)
    strings = f.section_flags[chosen] & elf.SHF_STRINGS != 0
    for number, width, text in zip(chosen.tolist(), entry.tolist(), strings.tolist(), strict=True):
        contents = np.frombuffer(f.contents(number), np.uint8)
        ends = np.arange(width, len(contents) + 1, width)
        if text:
            zero = contents == 0 if width == 1 else ~contents.reshape(-1, width).any(axis=1)
            ends = ends[zero]
            if not len(ends) or ends[-1] != len(contents):
                ends = np.append(ends, len(contents))  # an unterminated rest
        starts = np.concatenate(([0], ends[:-1]))
        bounds.append(
            rows_of(_BOUNDS, len(ends), section=number, offset=starts, size=ends - starts)
        )
    return join(bounds)


def _element(bounds: Array, section: Array, offset: Array) -> Int64:
    """The element (a row of `_BOUNDS`) that each place in a section taken apart belongs to."""
    begins = (bounds["section"] << _SHIFT) + bounds["offset"]
    return np.searchsorted(begins, (section << _SHIFT) + offset, side="right") - 1


def name_elements(program: Program, symbol: Array, addend: Array) -> tuple[Array, Array]:
    """(symbol, addend) with an element's own symbol in place of its section's.

    Program-wide symbol numbers. Relocations of atoms are so already; those of other sections say
    what the file says.
    """
    symbols, atoms = program.symbols, program.atoms
    atom = symbols["atom"][symbol]
    by_section = (symbols["kind"][symbol] == elf.STT_SECTION) & (atom >= 0)
    by_section &= atoms["flags"][np.maximum(atom, 0)] & AtomFlag.ELEMENT != 0
    rows = np.flatnonzero(by_section)
    if not len(rows):
        return symbol, addend
    elements = np.flatnonzero(atoms["flags"] & AtomFlag.ELEMENT != 0)
    first = np.maximum.accumulate(np.where(atoms["offset"][elements] == 0, elements, 0))
    begins = (first << _SHIFT) + atoms["offset"][elements]
    offset = np.clip(addend[rows], 0, (1 << _SHIFT) - 1).astype(np.int64)
    wanted = (atom[rows].astype(np.int64) << _SHIFT) + offset
    element = elements[np.searchsorted(begins, wanted, side="right") - 1]
    symbol_of = np.zeros(len(atoms), np.int64)
    for end, unit in zip(program.symbol_base[1:].tolist(), program.units, strict=True):
        count = len(unit.symbols) - unit.first_global - len(unit.names)
        numbers = np.arange(end - count, end)
        symbol_of[symbols["atom"][numbers]] = numbers
    symbol, addend = symbol.copy(), addend.copy()
    symbol[rows] = symbol_of[element]
    addend[rows] -= atoms["offset"][element]
    return symbol, addend


__all__ = ["Elements", "find_elements", "name_elements"]
