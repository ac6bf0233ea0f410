"""Where everything is in the new object: contents copied, unwind entries behind their code."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cargo_strip_hook.formats.coff import kinds
from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.kinds import SectionKind
from cargo_strip_hook.formats.coff.machine import Machine
from cargo_strip_hook.formats.coff.reader import CoffUnit
from cargo_strip_hook.link.model import (
    Array,
    AtomFlag,
    Bool,
    Int32,
    Int64,
    Layout,
    OutputSection,
    Program,
    Reach,
    SectionKey,
)


@dataclass(frozen=True, slots=True)
class Placed:
    """Where everything is.

    `section` and `offset` are indexed by atom (output section number from 0, bytes; -1 is
    nowhere). `start` is where each output section begins in `blob`, the contents of all of them,
    which is followed by its end. `kinds` tell what they are; `kept` marks the symbols that stay
    global.
    """

    section: Int32
    offset: Int64
    start: Int64
    blob: Array  # uint8
    kinds: tuple[SectionKind, ...]
    kept: Bool


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
    borders = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]]).tolist()
    for begin, end in zip(borders, [*borders[1:], len(entry)], strict=True):
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


def place(program: Program, machine: Machine, layout: Layout) -> Placed:
    """Copy the contents of every live atom to where it goes."""
    found = tuple(layout.section_keys[s.section_key].descriptor for s in layout.sections)
    flags = np.array([k.flags for k in found], np.int64)
    sizes = np.array([s.size for s in layout.sections], np.int64)
    stored = flags & coff.SCN_CNT_UNINITIALIZED_DATA == 0
    start = np.zeros(len(found) + 1, np.int64)
    np.cumsum(np.where(stored, sizes, 0), out=start[1:])
    blob = np.zeros(int(start[-1]), np.uint8)
    target = memoryview(blob.data)
    if machine.padding:
        code = flags & coff.SCN_CNT_CODE != 0
        for number in np.flatnonzero(code & stored).tolist():
            blob[start[number] : start[number + 1]] = machine.padding
    atoms = np.flatnonzero((layout.section >= 0) & (program.atoms["section"] >= 0))
    atoms = atoms[stored[layout.section[atoms]]]
    where = start[layout.section[atoms]] + layout.offset[atoms]
    _copy(program, atoms, where, target)
    kept = np.zeros(len(program.symbols), np.bool_)
    kept[list(program.exported)] = True
    return Placed(layout.section, layout.offset, start, blob, found, kept)


def _copy(program: Program, atoms: Array, where: Int64, target: memoryview) -> None:
    if not len(atoms):
        return
    rows = program.atoms[atoms]
    units = program.unit_of(atoms)
    borders = np.flatnonzero(np.r_[True, units[1:] != units[:-1]]).tolist()
    for first, end in zip(borders, [*borders[1:], len(atoms)], strict=True):
        unit = program.units[int(units[first])]
        native: CoffUnit = unit.native
        headers = native.sections[rows["section"][first:end]]
        none = headers["flags"] & coff.SCN_CNT_UNINITIALIZED_DATA != 0
        starts = headers["offset"].astype(np.int64)
        sizes = np.where(none | (starts == 0), 0, rows["size"][first:end])
        data = unit.data
        for start, size, to in zip(
            (starts + rows["offset"][first:end]).tolist(),
            sizes.tolist(),
            where[first:end].tolist(),
            strict=True,
        ):
            target[to : to + size] = data[start : start + size]
