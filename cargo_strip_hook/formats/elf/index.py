"""Unwind indices that stand in the order of the code they describe: `.ARM.exidx`.

Source: EHABI32, section 5 (index table entries), and 4.4.1 (linking of index tables).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.file import section_name
from cargo_strip_hook.formats.elf.section_keys import SectionKind, kind_of_name
from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.model import (
    AtomFlag,
    Bool,
    Int32,
    Int64,
    Layout,
    OutputSection,
    Program,
    SectionKey,
)


def is_ordered(program: Program) -> Bool:
    """Which atoms are pieces of such a table."""
    ordered: Bool = program.atoms["flags"] & AtomFlag.ORDERED != 0
    return ordered


def add_tables(program: Program, live: Bool, layout: Layout) -> Layout:
    """The layout with one table more for each section of code that has any.

    The pieces stand in the order of their code, and the table is linked to the section.
    """
    pieces = np.flatnonzero(live & is_ordered(program)).astype(np.int32)
    if not len(pieces):
        return layout
    code = _described(program, pieces)
    placed = code >= 0
    placed[placed] = layout.section[code[placed]] >= 0
    pieces, code = pieces[placed], code[placed]
    order = np.lexsort((pieces, layout.offset[code], layout.section[code]))
    pieces, code = pieces[order], code[order]
    owner = layout.section[code]
    section, offset = layout.section.copy(), layout.offset.copy()
    sections, section_keys = list(layout.sections), list(layout.section_keys)
    borders = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]] if len(owner) else []).tolist()
    for first, end in zip(borders, [*borders[1:], len(pieces)], strict=True):
        mine = pieces[first:end]
        sizes = program.atoms["size"][mine]
        section[mine] = len(sections)
        offset[mine] = np.cumsum(sizes) - sizes
        align = int(program.atoms["align"][mine].max())
        sections.append(OutputSection(len(section_keys), mine, int(sizes.sum()), align))
        section_keys.append(SectionKey(_kind(program, int(mine[0]), int(code[first])), single=True))
    return replace(
        layout,
        section_keys=tuple(section_keys),
        sections=tuple(sections),
        section=section,
        offset=offset,
    )


def _described(program: Program, pieces: Int32) -> Int64:
    """The atom of the code that each piece describes, -1 for none."""
    units = program.unit_of(pieces)
    out = np.full(len(pieces), -1, np.int64)
    for number in unique(units).tolist():
        mine = np.flatnonzero(units == number)
        native = program.units[number].native
        links = native.sections["link"][program.atoms["section"][pieces[mine]]]
        atoms = native.section_atom[links].astype(np.int64)
        out[mine] = np.where(atoms >= 0, atoms + program.atom_base[number], -1)
    return out


def _kind(program: Program, piece: int, code: int) -> SectionKind:
    unit = program.units[int(program.unit_of(np.array([piece]))[0])].native
    section = int(program.atoms["section"][piece])
    return SectionKind(
        kind_of_name(section_name(unit, section)),
        int(unit.sections["type"][section]),
        elf.SHF_ALLOC | elf.SHF_LINK_ORDER,
        0,
        code,
    )
