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
from cargo_strip_hook.link.arrays import unique
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
    such sections, `holder` the element that each points into. `made` are the elements that a
    section's symbol may stand for: each gets a symbol of its own, behind those of its file.
    """

    section: Int64
    offset: Int64
    size: Int64
    symbol: Int64
    holder: Int64
    made: Int64

    def first(self) -> Int64:
        """For each element the first one of its section."""
        return np.searchsorted(self.section, self.section)


def find_elements(
    f: ElfFiles, table: Symbols, relocated: Bool, relocations: Array, section: Int64
) -> Elements:
    """Which sections can be taken apart, and into what. Changes the `relocations` into them.

    `relocated`: sections that relocations apply to; those stay whole, and so do sections where a
    symbol goes over the end of an element, and those to which there is a distance by their own
    symbol. `section`: that each of `relocations` applies to.
    """
    none = np.zeros(0, np.int64)
    flags, sizes = f.section_flags, f.sections["size"].astype(np.int64)
    found = flags & (elf.SHF_MERGE | elf.SHF_ALLOC | _REFUSED) == elf.SHF_MERGE | elf.SHF_ALLOC
    found &= (f.types == elf.SHT_PROGBITS) & (sizes > 0) & ~relocated & f.named(b".rodata")
    if not f.machine.strings or not found.any():
        return Elements(none, none, none, none, none, none)
    sections = np.flatnonzero(found)
    entry = f.sections["entsize"][sections].astype(np.int64)
    align = np.maximum(f.sections["align"][sections].astype(np.int64), 1)
    strings = flags[sections] & elf.SHF_STRINGS != 0
    found[sections] = (entry > 0) & (sizes[sections] % np.maximum(entry, 1) == 0)
    # linkers put no padding between constants
    found[sections] &= strings | (entry % align == 0)

    symbol = np.flatnonzero(~table.reserved & (table.shndx > 0))
    home = f.first[table.owner[symbol]] + table.shndx[symbol]
    symbol, home = symbol[found[home]], home[found[home]]
    rows = table.table[symbol]
    of_section = rows["info"] & 0xF == elf.STT_SECTION
    by_section = target = none
    if of_section.any():
        stands_for = np.full(len(table.table), -1, np.int64)
        stands_for[symbol[of_section]] = home[of_section]
        target = stands_for[table.first[f.owner[section]] + relocations["symbol"]]
        by_section = np.flatnonzero(target >= 0)
        target = target[by_section]
    addend = relocations["addend"][by_section]
    # the addend of a distance counts from the end of a field, or whatever an instruction wants
    plain = f.machine.addressing_types[np.minimum(relocations["type"][by_section], TYPES - 1)]
    found[target[~plain | (addend < 0) | (addend >= sizes[target])]] = False
    if f.machine.rel:  # addends of some types are not known
        found[home[of_section]] = False

    at, offset, size = _cut(f, np.flatnonzero(found), sections, entry, strings)
    kept = found[home]
    symbol, home, rows, of_section = symbol[kept], home[kept], rows[kept], of_section[kept]
    value, extent = rows["value"].astype(np.uint64), rows["size"].astype(np.uint64)
    room = sizes[home].astype(np.uint64)
    fits = (value < room) & (extent <= room)
    value, extent = np.where(fits, value, 0).astype(np.int64), extent.astype(np.int64)
    begins = (at << _SHIFT) + offset
    holder = np.searchsorted(begins, (home << _SHIFT) + value, side="right") - 1
    fits[fits] = value[fits] + extent[fits] <= (offset + size)[holder[fits]]
    crossed = unique(home[~fits])
    if len(crossed):
        found[crossed] = False
        mine, good = found[at], found[home]
        moved = np.cumsum(mine) - 1
        at, offset, size, begins = at[mine], offset[mine], size[mine], begins[mine]
        symbol, home, of_section = symbol[good], home[good], of_section[good]
        holder = moved[holder[good]]

    addressed = np.zeros(len(found), np.bool_)
    addressed[home[of_section]] = True
    made = np.flatnonzero(addressed[at])
    file = f.owner[at[made]]
    number = np.diff(table.first)[file] + np.arange(len(made)) - np.searchsorted(file, file)
    by_section, target, addend = (a[found[target]] for a in (by_section, target, addend))
    element = np.searchsorted(begins, (target << _SHIFT) + addend, side="right") - 1
    number_of = np.zeros(len(at), np.int64)
    number_of[made] = number
    relocations["symbol"][by_section] = number_of[element]
    relocations["addend"][by_section] -= offset[element]
    return Elements(at, offset, size, symbol, holder, made)


def _cut(
    f: ElfFiles, chosen: Int64, sections: Int64, entry: Array, strings: Array
) -> tuple[Int64, Int64, Int64]:
    """(section, offset, size) of all elements of the `chosen` sections.

    `entry` and `strings` tell entry size and kind of each of `sections`.
    """
    parts: list[tuple[Array, Array]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    which = np.searchsorted(sections, chosen)
    for number, width, text in zip(
        chosen.tolist(), entry[which].tolist(), strings[which].tolist(), strict=True
    ):
        contents = np.frombuffer(f.contents(number), np.uint8)
        ends = np.arange(width, len(contents) + 1, width)
        if text:
            zero = contents == 0 if width == 1 else ~contents.reshape(-1, width).any(axis=1)
            ends = ends[zero]
            if not len(ends) or ends[-1] != len(contents):
                ends = np.append(ends, len(contents))  # an unterminated rest
        starts = np.concatenate(([0], ends[:-1]))
        parts.append((starts, ends - starts))
    return (
        np.repeat(chosen, [len(starts) for starts, _ in parts[1:]]),
        np.concatenate([starts for starts, _ in parts]),
        np.concatenate([sizes for _, sizes in parts]),
    )


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
        made = np.arange(end - count, end)
        symbol_of[symbols["atom"][made]] = made
    symbol, addend = symbol.copy(), addend.copy()
    symbol[rows] = symbol_of[element]
    addend[rows] -= atoms["offset"][element]
    return symbol, addend


__all__ = ["Elements", "find_elements", "name_elements"]
