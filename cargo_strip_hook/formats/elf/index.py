"""Unwind indices that stand in the order of the code they describe: `.ARM.exidx`.

Source: EHABI32, section 5 (index table entries), and 4.4.1 (linking of index tables).
"""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.file import elf_unit, section_name
from cargo_strip_hook.formats.elf.section_keys import SectionKind, kind_of_name
from cargo_strip_hook.link.arrays import runs
from cargo_strip_hook.link.model import (
    AtomFlag,
    Bool,
    Int32,
    Int64,
    Layout,
    Program,
    SectionKey,
)
from cargo_strip_hook.link.unwind import add_tables


def is_ordered(program: Program) -> Bool:
    """bool for each atom: whether it is an entry of such a table, or several."""
    ordered: Bool = program.atoms["flags"] & AtomFlag.ORDERED != 0
    return ordered


def with_indices(program: Program, live: Bool, layout: Layout) -> Layout:
    """The layout with an index more for each section of code that has any, linked to it."""
    entries = np.flatnonzero(live & is_ordered(program)).astype(np.int32)

    def key_of(entry: int, code: int) -> SectionKey:
        return SectionKey(_kind(program, entry, code), single=True)

    return add_tables(program, layout, entries, _described(program, entries), key_of)


def _described(program: Program, entries: Int32) -> Int64:
    """The atom of the code that each entry describes, -1 for none."""
    units = program.unit_of(entries)
    out = np.full(len(entries), -1, np.int64)
    for first, end in runs(units):
        number, mine = int(units[first]), slice(first, end)
        native = elf_unit(program.units[number])
        links = native.sections["link"][program.atoms["section"][entries[mine]]]
        atoms = native.section_atom[links].astype(np.int64)
        out[mine] = np.where(atoms >= 0, atoms + program.atom_base[number], -1)
    return out


def _kind(program: Program, entry: int, code: int) -> SectionKind:
    unit = elf_unit(program.units[int(program.unit_of(np.array([entry]))[0])])
    section = int(program.atoms["section"][entry])
    return SectionKind(
        kind_of_name(section_name(unit, section)),
        int(unit.sections["type"][section]),
        elf.SHF_ALLOC | elf.SHF_LINK_ORDER,
        0,
        code,
    )
