"""Where everything is in the new object; unwind entries stand in the order of their code."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cargo_strip_hook.formats.coff import kinds
from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.kinds import SectionKind
from cargo_strip_hook.link.addresses import Addresses, begin_of
from cargo_strip_hook.link.arrays import runs
from cargo_strip_hook.link.model import (
    AtomFlag,
    Bool,
    Layout,
    OutputSection,
    Program,
    Reach,
    SectionKey,
)


@dataclass(frozen=True, slots=True, eq=False)
class Placed(Addresses):
    """`kinds` tell what the output sections are."""

    kinds: tuple[SectionKind, ...]


def with_entries(program: Program, live: Bool, layout: Layout) -> Layout:
    """The layout with a table of unwind entries more for each section of code that has any.

    The entries stand in the order of their functions.
    """
    flags = program.atoms["flags"]
    is_entry = live & (flags & AtomFlag.ORDERED != 0)
    rows = program.relocations
    first = rows[is_entry[rows["atom"]] & (rows["reach"] == Reach.REVERSE) & (rows["offset"] == 0)]
    code = program.symbols["atom"][program.definition[first["symbol"]]]
    entry = first["atom"]
    placed = np.flatnonzero((code >= 0) & (layout.section[np.maximum(code, 0)] >= 0))
    entry, code = entry[placed], code[placed]
    order = np.lexsort((entry, layout.offset[code], layout.section[code]))
    entry, owner = entry[order], layout.section[code[order]]
    if not len(entry):
        return layout
    section, offset = layout.section.copy(), layout.offset.copy()
    sections, section_keys = list(layout.sections), list(layout.section_keys)
    size = int(program.atoms["size"][entry[0]])
    for begin, end in runs(owner):
        mine = entry[begin:end]
        section[mine] = len(sections)
        offset[mine] = size * np.arange(len(mine))
        sections.append(OutputSection(len(section_keys), mine, size * len(mine), 4))
        section_keys.append(
            SectionKey(SectionKind(kinds.PDATA, coff.RDATA, parent=int(owner[begin])))
        )
    return replace(
        layout,
        section_keys=tuple(section_keys),
        sections=tuple(sections),
        section=section,
        offset=offset,
    )


def place(program: Program, layout: Layout) -> Placed:
    """Where every live atom goes."""
    kinds = tuple(layout.section_keys[s.section_key].descriptor for s in layout.sections)
    flags = np.array([k.flags for k in kinds], np.int64)
    size = np.array([s.size for s in layout.sections], np.int64)
    stored = flags & coff.SCN_CNT_UNINITIALIZED_DATA == 0
    kept = np.zeros(len(program.symbols), np.bool_)
    kept[list(program.exported)] = True
    code = flags & coff.SCN_CNT_CODE != 0
    start = begin_of(size, stored)
    return Placed(layout.section, layout.offset, size, stored, code, start, kept, kinds)
