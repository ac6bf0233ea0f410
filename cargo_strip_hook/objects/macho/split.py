"""Cuts the sections of an object into atoms.

Sources: ld64, `macho_relocatable_file.cpp` (`L` labels and `N_ALT_ENTRY` symbols are no borders);
mach-o/loader.h (what the section types hold).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.objects.macho import layouts as mo
from cargo_strip_hook.objects.macho.commands import Commands, File
from cargo_strip_hook.objects.model import ATOM, Array, AtomFlag, Bool, Int64, Place

STEP = 40  # bits of an offset in the key of a place: addresses stay below 1 << 40

COMPACT_UNWIND = (b"__LD", b"__compact_unwind")
EH_FRAME = (b"__TEXT", b"__eh_frame")


@dataclass(frozen=True, slots=True)
class Pieces:
    """The atoms of a file, sorted by section and offset, one behind the other.

    `keys` are the atoms' places, section << STEP | offset. `first` is the first atom of each
    section, and the total. `kept` marks the sections that have atoms.
    """

    atoms: Array
    keys: Int64
    first: Int64
    kept: Bool

    def find(self, section: Array, offset: Array) -> Array:
        """The atom at each place; for places outside of the section the nearest one in it."""
        inside = np.clip(offset, 0, (1 << STEP) - 1)
        key = (section.astype(np.int64) << STEP) + inside
        found: Array = np.searchsorted(self.keys, key, side="right") - 1
        return found


def names_of(sections: Array) -> list[tuple[bytes, bytes]]:
    """(segment, section) name of each section."""
    return list(zip(sections["segname"].tolist(), sections["sectname"].tolist(), strict=True))


def is_dropped(name: tuple[bytes, bytes], flags: int) -> bool:
    """Whether a section is no part of a program: bitcode, debug information, linker's hints."""
    segment, section = name
    if name == COMPACT_UNWIND:
        return False
    return (
        segment in (b"__LLVM", mo.DEBUG_SEGMENT)
        or section == b"__llvm_addrsig"
        or bool(flags & mo.S_ATTR_DEBUG)
    )


def cut(f: File, commands: Commands, frames: dict[int, list[int]]) -> Pieces:
    """Make the atoms. `frames`: the offsets of the records of each `__eh_frame` section.

    Raises `ObjectError` for symbols outside of their section.
    """
    sections = commands.sections
    names = names_of(sections)
    flags = sections["flags"].tolist()
    kept = np.array([not is_dropped(n, fl) for n, fl in zip(names, flags, strict=True)], np.bool_)
    labels, label_section, whole_symbols = _labels(f, commands, kept)
    scatter = bool(commands.flags & mo.MH_SUBSECTIONS_VIA_SYMBOLS)
    parts: list[Array] = []
    first = np.zeros(len(sections) + 1, np.int64)
    for number, name in enumerate(names):
        first[number + 1] = first[number]
        if not kept[number]:
            continue
        size, kind = int(sections["size"][number]), flags[number] & mo.SECTION_TYPE
        borders = np.zeros(1, np.int64)
        atom_flags = 0
        if name == COMPACT_UNWIND:
            if size % mo.COMPACT_UNWIND_SIZE:
                raise f.fail("__compact_unwind is damaged: not a whole number of entries", 0)
            borders = np.arange(0, size, mo.COMPACT_UNWIND_SIZE)
            atom_flags = AtomFlag.SEPARATE
        elif number in frames:
            borders = np.array(frames[number], np.int64)
            atom_flags = AtomFlag.SEPARATE
        elif kind == mo.S_CSTRING_LITERALS:
            borders = _strings(f, sections[number])
            atom_flags = AtomFlag.MERGEABLE
        elif kind in mo.LITERAL_SIZES or kind == mo.S_NON_LAZY_SYMBOL_POINTERS:
            borders = np.arange(0, max(size, 1), mo.LITERAL_SIZES.get(kind, 8))
            atom_flags = AtomFlag.MERGEABLE if kind in mo.LITERAL_SIZES else 0
        elif scatter and kind not in mo.INITIALISER_TYPES:
            mine = labels[label_section == number]
            borders = np.unique(np.concatenate([borders, mine]))
        if kind in mo.INITIALISER_TYPES or kind == mo.S_INTERPOSING:
            atom_flags |= AtomFlag.ROOT
        if flags[number] & mo.S_ATTR_NO_DEAD_STRIP and not atom_flags & AtomFlag.SEPARATE:
            atom_flags |= AtomFlag.ROOT
        atoms = np.zeros(len(borders), ATOM)
        atoms["section"] = number
        atoms["flags"] = atom_flags
        atoms["offset"] = borders
        atoms["size"] = np.diff(np.append(borders, size))
        atoms["align"] = _alignment(borders, 1 << int(sections["align"][number]))
        parts.append(atoms)
        first[number + 1] += len(atoms)
    atoms = np.concatenate(parts) if parts else np.zeros(0, ATOM)
    keys = (atoms["section"].astype(np.int64) << STEP) + atoms["offset"]
    pieces = Pieces(atoms, keys, first, kept)
    if len(whole_symbols):
        section, offset = whole_symbols["sect"].astype(np.int64) - 1, whole_symbols["value"]
        here = kept[section]
        place = offset.astype(np.int64) - sections["addr"][section].astype(np.int64)
        atoms["flags"][pieces.find(section[here], place[here])] |= np.uint32(AtomFlag.ROOT)
    return pieces


def _alignment(offsets: Int64, align: int) -> Int64:
    """What an atom at an offset of a section of this alignment may count on, in bytes."""
    low = offsets & -offsets
    return np.where(offsets == 0, align, np.minimum(low, align))


def _strings(f: File, section: Array) -> Int64:
    start, size = int(section["offset"]), int(section["size"])
    octets = np.frombuffer(f.data, np.uint8, size, start)
    ends = np.flatnonzero(octets == 0) + 1
    return np.concatenate([np.zeros(1, np.int64), ends[ends < size]])


def _labels(f: File, commands: Commands, kept: Bool) -> tuple[Int64, Int64, Array]:
    """(offset, section) of each symbol that begins an atom, and the symbols that must stay."""
    table = commands.symbols
    plain = table["type"] & mo.N_STAB == 0
    placed = plain & (table["type"] & mo.N_TYPE == mo.N_SECT)
    section = table["sect"].astype(np.int64) - 1
    if (placed & ((section < 0) | (section >= len(kept)))).any():
        raise f.fail("a symbol's section is out of range", 0)
    chosen = table[placed]
    section = section[placed]
    offset = chosen["value"].astype(np.int64) - commands.sections["addr"][section].astype(np.int64)
    size = commands.sections["size"][section].astype(np.int64)
    if (((offset < 0) | (offset > size)) & kept[section]).any():
        raise f.fail("a symbol lies outside of its section", 0)
    text = np.frombuffer(commands.strings, np.uint8)
    border = (chosen["desc"] & mo.N_ALT_ENTRY == 0) & (text[chosen["strx"]] != ord("L"))
    stays = chosen["desc"] & (mo.N_NO_DEAD_STRIP | mo.REFERENCED_DYNAMICALLY) != 0
    return offset[border], section[border], chosen[stays]


def symbol_places(commands: Commands, pieces: Pieces, rows: Array) -> tuple[Array, Array]:
    """(atom or Place, value) of the symbol table's `rows`."""
    kind = rows["type"] & mo.N_TYPE
    atom = np.full(len(rows), Place.UNDEFINED, np.int32)
    value = np.zeros(len(rows), np.int64)
    atom[kind == mo.N_ABS] = Place.ABSOLUTE
    value[kind == mo.N_ABS] = rows["value"][kind == mo.N_ABS].astype(np.int64)
    common = (kind == mo.N_UNDF) & (rows["value"] != 0) & (rows["type"] & mo.N_EXT != 0)
    atom[common] = Place.COMMON
    power = (rows["desc"][common] >> 8) & 0xF
    # without a stated alignment a common has that of its size, as in ld64
    natural = [min((int(v) - 1).bit_length(), 12) for v in rows["value"][common].tolist()]
    value[common] = 1 << np.where(power != 0, power, natural).astype(np.int64)
    placed = np.flatnonzero(kind == mo.N_SECT)
    section = rows["sect"][placed].astype(np.int64) - 1
    here = pieces.kept[section]
    atom[placed[~here]] = Place.ELSEWHERE
    placed, section = placed[here], section[here]
    offset = rows["value"][placed].astype(np.int64)
    offset -= commands.sections["addr"][section].astype(np.int64)
    found = pieces.find(section, offset)
    atom[placed] = found
    value[placed] = offset - pieces.atoms["offset"][found]
    return atom, value
