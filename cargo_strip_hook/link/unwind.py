"""Lays out unwind information: `.eh_frame` of all units as one, and tables in the order of code.

Source: Linux Standard Base 5.0, section 10.6.1 (the .eh_frame section).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cargo_strip_hook.link.addresses import Addresses
from cargo_strip_hook.link.arrays import runs
from cargo_strip_hook.link.contents import Patch
from cargo_strip_hook.link.fields import Field
from cargo_strip_hook.link.model import (
    Array,
    AtomFlag,
    Bool,
    Int32,
    Int64,
    Layout,
    OutputSection,
    Program,
    SectionKey,
)


@dataclass(frozen=True, slots=True, eq=False)
class JoinedFrames:
    """The live records of `.eh_frame`, by their program-wide atom numbers.

    `offset[i]`, in the one section of `size` bytes, belongs to `records[i]`. `written` are the
    records that it consists of, `shared` the CIEs that an equal one stands for, at its offset:
    their relocations are not written. `cies` are all CIEs; `links` are EDGE, from FDE to CIE.
    """

    records: Int32
    offset: Int64
    size: int
    written: Int32
    shared: Int32
    cies: Int32
    links: Array

    def cie_pointers(self, placed: Addresses) -> Patch:
        """What each FDE has to say: how far before the field its CIE is."""
        fde, cie = self.links["source"], self.links["target"]
        offset = placed.offset[fde] + 4
        position = placed.sections.start[placed.section[fde]] + offset
        return Patch(Field.BITS32, position, offset - placed.offset[cie])


def is_frame(program: Program) -> Bool:
    """bool for each atom: whether it is a record of `.eh_frame`, live or not."""
    flags = program.atoms["flags"] & (AtomFlag.SEPARATE | AtomFlag.ORDERED)
    return np.asarray(flags == AtomFlag.SEPARATE)


def is_cie(program: Program) -> Bool:
    """bool for each atom: whether it is a CIE, live or not."""
    cie = is_frame(program)
    cie[program.edges["source"][cie[program.edges["source"]]]] = False
    return cie


def join_frames(program: Program, frames: Bool, *, merge: bool) -> JoinedFrames:
    """Put the records that `frames` marks (by atom) behind one another.

    Equal CIEs are written once if `merge` is set.
    """
    records = np.flatnonzero(frames).astype(np.int32)
    links = program.edges[frames[program.edges["source"]] & frames[program.edges["target"]]]
    position = np.full(len(frames), -1, np.int64)
    position[records] = np.arange(len(records))
    is_fde = np.zeros(len(records), np.bool_)
    is_fde[position[links["source"]]] = True
    cies = records[~is_fde]
    stands_for = np.arange(len(records))
    if merge:
        stands_for[~is_fde] = position[_prevailing_cies(program, cies)]
    is_written = stands_for == np.arange(len(records))
    sizes = np.where(is_written, program.atoms["size"][records], 0)
    return JoinedFrames(
        records,
        (np.cumsum(sizes) - sizes)[stands_for],
        int(sizes.sum()),
        records[is_written],
        records[~is_written],
        cies,
        links,
    )


def with_frames(
    program: Program, layout: Layout, frames: JoinedFrames, key: SectionKey, align: int
) -> Layout:
    """The layout with one section more, of this key and alignment in bytes: all records."""
    layout = with_sections(program, layout, [(key, frames.written)], align)
    section, offset = layout.section.copy(), layout.offset.copy()
    section[frames.records], offset[frames.records] = len(layout.sections) - 1, frames.offset
    return replace(layout, section=section, offset=offset)


def _prevailing_cies(program: Program, cies: Int32) -> list[int]:
    """For each CIE the first that equals it: contents and relocations must agree."""
    of_cie: dict[int, list[tuple[int, int, int, int]]] = {cie: [] for cie in cies.tolist()}
    wanted = np.zeros(len(program.atoms), np.bool_)
    wanted[cies] = True
    rows = program.relocations[wanted[program.relocations["atom"]]]
    definition = program.definition[rows["symbol"]]
    homes = program.symbols[definition]
    columns = (rows["atom"], rows["offset"], rows["type"], rows["addend"], definition)
    columns_of_homes = (homes["atom"], homes["value"])
    for cie, offset, kind, addend, symbol, home, value in zip(
        *(column.tolist() for column in (*columns, *columns_of_homes)), strict=True
    ):
        # what is defined is known by its address, others by themselves
        target = (home, value + addend) if home >= 0 else (-1 - symbol, addend)
        of_cie[cie].append((offset, kind, *target))
    atoms = program.atoms[cies]
    data = [program.units[unit].data for unit in program.unit_of(cies).tolist()]
    first: dict[tuple[bytes, tuple[tuple[int, int, int, int], ...]], int] = {}
    return [
        first.setdefault((bytes(octets[begin : begin + size]), tuple(of_cie[cie])), cie)
        for cie, octets, begin, size in zip(
            cies.tolist(), data, atoms["contents"].tolist(), atoms["size"].tolist(), strict=True
        )
    ]


def add_tables(
    program: Program,
    layout: Layout,
    entries: Int32,
    code: Int64,
    key_of: Callable[[int, int], SectionKey],
) -> Layout:
    """The layout with a table of entries more for each section of code that has any.

    `code` is the atom that each of `entries` describes, -1 for none; entries whose code is nowhere
    are left out. They stand in the order of their code. `key_of(entry, code)` is the section key of
    the table that begins with them.
    """
    placed = code >= 0
    placed[placed] = layout.section[code[placed]] >= 0
    entries, code = entries[placed], code[placed]
    order = np.lexsort((entries, layout.offset[code], layout.section[code]))
    entries, code = entries[order], code[order]
    tables = [
        (key_of(int(entries[first]), int(code[first])), entries[first:end])
        for first, end in runs(layout.section[code])
    ]
    return with_sections(program, layout, tables)


def with_sections(
    program: Program, layout: Layout, added: Sequence[tuple[SectionKey, Int32]], align: int = 1
) -> Layout:
    """The layout with sections more: the key of each, and its atoms, one right behind the other.

    Each is aligned to `align` bytes at least.
    """
    if not added:
        return layout
    section, offset = layout.section.copy(), layout.offset.copy()
    sections, keys = list(layout.sections), list(layout.section_keys)
    for key, atoms in added:
        rows = program.atoms[atoms]
        section[atoms] = len(sections)
        offset[atoms] = np.cumsum(rows["size"]) - rows["size"]
        most = max(align, int(rows["align"].max()))
        sections.append(OutputSection(len(keys), atoms, int(rows["size"].sum()), most))
        keys.append(key)
    return Layout(tuple(keys), tuple(sections), section, offset)


__all__ = [
    "JoinedFrames",
    "add_tables",
    "is_cie",
    "is_frame",
    "join_frames",
    "with_frames",
    "with_sections",
]
