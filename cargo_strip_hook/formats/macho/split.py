"""Cuts the sections of objects into atoms.

Sources: ld64, `macho_relocatable_file.cpp` (`L` labels and `N_ALT_ENTRY` symbols are no borders);
mach-o/loader.h (what the section types hold).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.file import STEP, MachoFiles
from cargo_strip_hook.formats.macho.objc import is_list
from cargo_strip_hook.link.arrays import isin, ramps, unique
from cargo_strip_hook.link.model import ATOM, Array, AtomFlag, Bool, Int64, SpecialIndex

# nobody calls it: it makes linkers load the runtime that writes a profile (LLVM, InstrProfData.inc)
_PROFILE_HOOK = b"___llvm_profile_runtime_user\0"
_ZEROFILL = np.array(mo.ZEROFILL_TYPES, np.uint32)
_INITIALISERS = np.array(mo.INITIALISER_TYPES, np.uint32)
# of each section type: the size of an element, 0 for what has no fixed one
_ELEMENTS = np.zeros(256, np.int64)
_ELEMENTS[list(mo.LITERAL_SIZES)] = list(mo.LITERAL_SIZES.values())
_LITERAL = _ELEMENTS > 0
_ELEMENTS[mo.S_NON_LAZY_SYMBOL_POINTERS] = 8


@dataclass(frozen=True, slots=True)
class AtomTable:
    """The atoms of several files, sorted by section and offset, one behind the other.

    `atoms` have the files' sections numbered through. `keys` are the atoms' locations,
    section << STEP | offset. `first` is the first atom of each file, and the total.
    """

    atoms: Array
    keys: Int64
    first: Int64

    def find(self, section: Array, offset: Array) -> Array:
        """The atom at each location; for those outside of the section the nearest one in it."""
        inside = np.clip(offset, 0, (1 << STEP) - 1)
        key = (section.astype(np.int64) << STEP) + inside
        atoms: Array = np.searchsorted(self.keys, key, side="right") - 1
        return atoms


def cut(f: MachoFiles, records: Int64) -> AtomTable:
    """Make the atoms. `records`: the keys of the records of `__eh_frame`. Raises `ObjectError`."""
    kept, types = f.kept, f.types
    compact = f.compact & kept
    bad = compact & (f.size % mo.COMPACT_UNWIND_SIZE != 0)
    f.check(bad, f.owner, "__compact_unwind is damaged: not a whole number of entries")
    other = kept & ~compact & ~f.eh_frame
    strings = other & (types == mo.S_CSTRING_LITERALS)
    step = np.where(other, _ELEMENTS[types], np.where(compact, mo.COMPACT_UNWIND_SIZE, 0))
    fixed = np.flatnonzero(step)
    initialisers = isin(types, _INITIALISERS)
    by_symbol = other & ~strings & (step == 0) & f.scatter[f.owner] & ~initialisers

    labels = np.flatnonzero(f.placed & (f.symbols["desc"] & mo.N_ALT_ENTRY == 0))
    labels = labels[by_symbol[f.symbol_section[labels]]]
    labels = labels[f.initials(labels) != ord("L")]
    counts = -(-f.size[fixed] // step[fixed])
    keys = unique(
        np.concatenate(
            [
                np.flatnonzero(kept & ~compact) << STEP,
                records,
                (f.symbol_section[labels] << STEP) + f.symbol_offset[labels],
                ramps(fixed << STEP, counts, step[fixed]),
                *(_strings(f, number) for number in np.flatnonzero(strings).tolist()),
            ]
        )
    )
    section, offset = keys >> STEP, keys & ((1 << STEP) - 1)

    flags = np.zeros(len(types), np.uint32)  # of the atoms of each section
    flags[compact | f.eh_frame] = AtomFlag.SEPARATE
    flags[strings | (other & _LITERAL[types])] = AtomFlag.MERGEABLE
    roots = initialisers | (types == mo.S_INTERPOSING)
    roots |= np.array([is_list(name) for name in f.names], np.bool_)
    # what Swift's runtime looks for by the name of its section, conditional records apart
    swift = [section.startswith(b"__swift5_") for _, section in f.names]
    roots |= np.array(swift, np.bool_) & (f.flags & mo.S_ATTR_LIVE_SUPPORT == 0)
    roots |= (f.flags & mo.S_ATTR_NO_DEAD_STRIP != 0) & (flags != AtomFlag.SEPARATE)
    flags[roots] |= np.uint32(AtomFlag.ROOT)

    atoms = np.zeros(len(keys), ATOM)
    atoms["section"], atoms["offset"], atoms["flags"] = section, offset, flags[section]
    atoms["contents"] = f.sections["offset"][section] + offset
    atoms["contents"][isin(types, _ZEROFILL)[section]] = -1
    ends = f.size[section]
    inner = section[1:] == section[:-1]
    ends[:-1][inner] = offset[1:][inner]
    atoms["size"] = ends - offset
    # what an atom at an offset of a section may count on
    align = np.int64(1) << f.sections["align"][section].astype(np.int64)
    atoms["align"] = np.where(offset == 0, align, np.minimum(offset & -offset, align))
    table = AtomTable(atoms, keys, np.searchsorted(section, f.first))
    stays = f.symbols["desc"] & (mo.N_NO_DEAD_STRIP | mo.REFERENCED_DYNAMICALLY) != 0
    stays |= _named(f, _PROFILE_HOOK)
    rows = np.flatnonzero(f.placed & stays & kept[f.symbol_section])
    here = table.find(f.symbol_section[rows], f.symbol_offset[rows])
    atoms["flags"][here] |= np.uint32(AtomFlag.ROOT)
    return table


def _named(f: MachoFiles, name: bytes) -> Bool:
    """Which symbols have a name that hardly any file has."""
    named = np.zeros(len(f.symbols), np.bool_)
    for number, commands in enumerate(f.commands):
        offset = bytes(commands.strings).find(name)
        if offset >= 0:
            mine = slice(int(f.symbol_first[number]), int(f.symbol_first[number + 1]))
            named[mine] = commands.symbols["strx"] == offset
    return named


def _strings(f: MachoFiles, section: int) -> Int64:
    """The keys of all strings of a section but the first."""
    start, size = int(f.start[section]), int(f.size[section])
    ends = np.flatnonzero(f.octets[start : start + size] == 0) + 1
    keys: Int64 = (section << STEP) + ends[ends < size]
    return keys


def symbol_atoms(f: MachoFiles, table: AtomTable, rows: Int64) -> tuple[Array, Array]:
    """(atom or SpecialIndex, value) of `rows` of the symbol table."""
    entries = f.symbols[rows]
    kind = entries["type"] & mo.N_TYPE
    atom = np.full(len(rows), SpecialIndex.UNDEFINED, np.int32)
    value = np.zeros(len(rows), np.int64)
    absolute = kind == mo.N_ABS
    atom[absolute] = SpecialIndex.ABSOLUTE
    value[absolute] = entries["value"][absolute].astype(np.int64)
    common: Bool = (kind == mo.N_UNDF) & (entries["value"] != 0) & (entries["type"] & mo.N_EXT != 0)
    atom[common] = SpecialIndex.COMMON
    power = (entries["desc"][common] >> 8) & 0xF
    # without a stated alignment a common has that of its size, as in ld64
    natural = [min((int(v) - 1).bit_length(), 12) for v in entries["value"][common].tolist()]
    value[common] = 1 << np.where(power != 0, power, natural).astype(np.int64)
    placed = np.flatnonzero(kind == mo.N_SECT)
    section = f.symbol_section[rows[placed]]
    here = f.kept[section]
    atom[placed[~here]] = SpecialIndex.ELSEWHERE
    placed, section = placed[here], section[here]
    offset = f.symbol_offset[rows[placed]]
    home = table.find(section, offset)
    atom[placed] = home
    value[placed] = offset - table.atoms["offset"][home]
    return atom, value
