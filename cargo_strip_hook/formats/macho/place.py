"""Where everything goes: blocks of atoms into sections, sections to addresses, bytes copied.

A *block* is an output section of the layout phase; here it becomes a subsection, which a linker
keeps or drops as a whole: a plain symbol begins it, `N_ALT_ENTRY` symbols stand inside of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.file import STEP
from cargo_strip_hook.formats.macho.objc import IMAGE_INFO, merged_info
from cargo_strip_hook.formats.macho.section_keys import SectionKind
from cargo_strip_hook.formats.macho.unwind_output import Part
from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.model import Array, Bool, Int32, Int64, Layout, Program

_NAMELESS = (mo.S_CSTRING_LITERALS, *mo.LITERAL_SIZES, *mo.INITIALISER_TYPES)


@dataclass(frozen=True, slots=True)
class OutSection:
    """One section of the output. `start` is where its bytes begin in the blob."""

    segment: bytes
    section: bytes
    flags: int
    align: int
    size: int
    address: int
    start: int

    @property
    def zerofill(self) -> bool:
        return self.flags & mo.SECTION_TYPE in mo.ZEROFILL_TYPES


@dataclass(frozen=True, slots=True)
class Placed:
    """`section`, `offset` and `block` are indexed by atom; -1 is nowhere (block: a record).

    `blocks` are the places, section << STEP | offset, where a plain symbol begins a subsection;
    `block_place` is that of each block, whether it needs a symbol or not. `plain` marks sections
    that linkers take apart by themselves: no symbol in them is an alternate entry.
    """

    sections: tuple[OutSection, ...]
    section: Int32
    offset: Int64
    block: Int32
    block_place: Int64
    blocks: Int64
    plain: Bool
    regions: dict[tuple[int, int], int]  # (unit, section) -> place, where code stays as it was
    blob: Array  # uint8
    address: Int64  # of each section
    start: Int64

    def key(self, atoms: Array) -> Int64:
        """The place of each atom."""
        keys: Int64 = (self.section[atoms].astype(np.int64) << STEP) + self.offset[atoms]
        return keys


def _marker(marker: bytes) -> Part:
    """The mark of a finished library, in a section that linkers take for debug information."""
    contents = np.frombuffer(marker, np.uint8)
    nowhere = np.zeros(0, np.int64)
    flags = mo.S_ATTR_DEBUG
    return Part(
        mo.DEBUG_SEGMENT, mo.MARKER_SECTION, flags, contents, nowhere.astype(np.int32), nowhere
    )


def place(
    program: Program,
    layout: Layout,
    parts: Sequence[Part],
    marker: bytes,
    regions: Mapping[int, tuple[int, int]],
) -> Placed:
    """Put the blocks into sections, and `parts` behind them.

    `regions`: blocks in which each atom is a subsection of its own, with the (unit, section) they
    are. Raises `LinkError` for more sections than there can be.
    """
    order: dict[tuple[bytes, bytes, int], int] = {}
    kinds: list[SectionKind] = []
    block_kind = np.zeros(len(layout.sections), np.int64)
    for number, out in enumerate(layout.sections):
        kind: SectionKind = layout.section_keys[out.section_key].descriptor
        key = (kind.segment, kind.section, kind.type)
        if key not in order:
            order[key] = len(order)
            kinds.append(kind)
        block_kind[number] = order[key]
    # contents first, what has none at the end: addresses follow the file
    rank = sorted(range(len(kinds)), key=lambda k: kinds[k].type in mo.ZEROFILL_TYPES)
    filled = sum(1 for k in kinds if k.type not in mo.ZEROFILL_TYPES)
    extra = [p for p in (*parts, _marker(marker)) if len(p.contents)]
    final = np.zeros(max(len(kinds), 1), np.int64)
    for position, k in enumerate(rank):
        final[k] = position if position < filled else position + len(extra)
    total = len(kinds) + len(extra)
    if total > mo.MAX_SECTIONS:
        raise LinkError(f"the library needs {total} sections, more than a Mach-O file can have")

    sizes = [0] * total
    aligns = [1] * total
    block_place = np.zeros(len(layout.sections), np.int64)
    for number, out in enumerate(layout.sections):
        kind = layout.section_keys[out.section_key].descriptor
        s = int(final[block_kind[number]])
        at = -(-sizes[s] // out.align) * out.align
        if kind.section == IMAGE_INFO:
            at = 0  # a file has one
        block_place[number] = (s << STEP) + at
        # the symbol at the end of a set must not be the start of what follows
        sizes[s] = max(sizes[s], at + out.size + (max(out.align, 8) if kind.set else 0))
        aligns[s] = max(aligns[s], out.align)
    block = layout.section.copy()
    inside = np.where(block >= 0, block, 0)
    base = block_place[inside] if len(block_place) else np.zeros(len(block), np.int64)
    section = np.where(block >= 0, base >> STEP, -1).astype(np.int32)
    offset = np.where(block >= 0, (base & ((1 << STEP) - 1)) + layout.offset, 0)
    headers: list[tuple[bytes, bytes, int]] = [(b"", b"", 0)] * total
    for k, kind in enumerate(kinds):
        headers[int(final[k])] = (kind.segment, kind.section, kind.type | kind.attributes)
    for position, part in enumerate(extra, start=filled):
        headers[position] = (part.segment, part.section, part.flags)
        sizes[position] = len(part.contents)
        aligns[position] = 1 if part.segment == mo.DEBUG_SEGMENT else 8
        section[part.atoms] = position
        offset[part.atoms] = part.offset

    sections: list[OutSection] = []
    address, start = 0, 0
    for (segment, name, flags), size, align in zip(headers, sizes, aligns, strict=True):
        address = -(-address // align) * align
        sections.append(OutSection(segment, name, flags, align, size, address, start))
        address += size
        if not sections[-1].zerofill:
            start += -(-size // 8) * 8
    blob = np.zeros(start, np.uint8)
    starts = np.array([s.start for s in sections], np.int64)
    _fill(program, layout, sections, section, offset, blob)
    for position, part in enumerate(extra, start=filled):
        begin = int(starts[position])
        blob[begin : begin + len(part.contents)] = part.contents
    plain = [s.flags & mo.SECTION_TYPE in _NAMELESS for s in sections]
    for position in range(filled, filled + len(extra)):
        plain[position] = True
    named = np.array([kinds[k].type not in _NAMELESS for k in block_kind.tolist()], np.bool_)
    starts_here = [block_place[named]]
    where: dict[tuple[int, int], int] = {}
    for number, (unit, home) in regions.items():
        where[unit, home] = int(block_place[number])
        own = program.units[unit].atoms
        starts_here.append(block_place[number] + own["offset"][own["section"] == home])
        atoms = layout.sections[number].atoms
        block[atoms] = len(block_place) + np.arange(len(atoms), dtype=np.int32)
        block_place = np.append(block_place, block_place[number] + program.atoms["offset"][atoms])
    return Placed(
        tuple(sections),
        section,
        offset,
        block,
        block_place,
        unique(np.concatenate(starts_here)),
        np.array(plain, np.bool_),
        where,
        blob,
        np.array([s.address for s in sections], np.int64),
        starts,
    )


def _fill(
    program: Program,
    layout: Layout,
    sections: list[OutSection],
    section: Int32,
    offset: Int64,
    blob: Array,
) -> None:
    """Copy the contents of every placed atom."""
    if not len(blob) or not layout.sections:
        return
    target = memoryview(blob.data)
    atoms = np.concatenate([out.atoms for out in layout.sections])
    start = np.array([-1 if home.zerofill else home.start for home in sections], np.int64)
    rows = program.atoms[atoms]
    held = (start[section[atoms]] >= 0) & (rows["section"] >= 0) & (rows["size"] > 0)
    atoms, rows = atoms[held], rows[held]
    for unit_number, number, begin, size, where in zip(
        program.unit_of(atoms).tolist(),
        *(rows[name].tolist() for name in ("section", "offset", "size")),
        (start[section[atoms]] + offset[atoms]).tolist(),
        strict=True,
    ):
        unit = program.units[unit_number]
        first, stored = unit.native.headers[number]
        if stored:
            source = first + begin
            target[where : where + size] = unit.data[source : source + size]
    for number, home in enumerate(sections):
        if home.section == IMAGE_INFO:
            mine = np.flatnonzero(section[atoms] == number)
            infos = [_info(program, int(atoms[n])) for n in mine.tolist() if rows["size"][n] >= 8]
            if infos:
                target[home.start : home.start + 8] = merged_info(infos)


def _info(program: Program, atom: int) -> tuple[str, bytes]:
    """The member's name and its contents of an atom of 8 bytes."""
    unit = program.units[int(program.unit_of(np.array([atom]))[0])]
    row = program.atoms[atom]
    begin = unit.native.headers[int(row["section"])][0] + int(row["offset"])
    return unit.name, bytes(unit.data[begin : begin + 8])
