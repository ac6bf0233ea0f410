"""Where everything goes: blocks of atoms into sections, and sections to addresses.

A *block* is an output section of the layout phase; here it becomes a subsection, which a linker
keeps or drops as a whole: a plain symbol begins it, `N_ALT_ENTRY` symbols stand inside of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.objc import IMAGE_INFO, merged_info
from cargo_strip_hook.formats.macho.section_keys import SectionKind
from cargo_strip_hook.formats.macho.unwind_output import OwnSection
from cargo_strip_hook.link.addresses import STEP, Addresses, Sections
from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.contents import read_input
from cargo_strip_hook.link.model import Array, Bool, Int32, Int64, Layout, Program

_NAMELESS = (mo.S_CSTRING_LITERALS, *mo.LITERAL_SIZES, *mo.INITIALISER_TYPES)


@dataclass(frozen=True, slots=True)
class OutSection:
    """The header of one section of the output."""

    segment: bytes
    section: bytes
    flags: int
    align: int
    size: int
    address: int

    @property
    def zerofill(self) -> bool:
        return self.flags & mo.SECTION_TYPE in mo.ZEROFILL_TYPES


@dataclass(frozen=True, slots=True, eq=False)
class Placed(Addresses):
    """`block` is indexed by atom; -1 is nowhere, or a record of unwind information.

    `blocks` are the locations, section << STEP | offset, where a plain symbol begins a subsection;
    `block_start` is that of each block, whether it needs a symbol or not. `plain` marks sections
    that linkers take apart by themselves: no symbol in them is an alternate entry.
    """

    headers: tuple[OutSection, ...]
    block: Int32
    block_start: Int64
    blocks: Int64
    plain: Bool
    regions: dict[tuple[int, int], int]  # (unit, section) -> location, where code stays as it was
    address: Int64  # of each section


def marker_section(marker: bytes) -> OwnSection:
    """The mark of a finished library, in a section that linkers take for debug information."""
    contents = np.frombuffer(marker, np.uint8)
    return OwnSection(mo.DEBUG_SEGMENT, mo.MARKER_SECTION, mo.S_ATTR_DEBUG, len(contents), contents)


def assign(
    program: Program,
    layout: Layout,
    own_sections: Sequence[OwnSection],
    regions: Mapping[int, tuple[int, int]],
    kept: Bool,
) -> tuple[Placed, list[tuple[int, Array]]]:
    """(blocks in their sections with `own_sections` behind them, what has no input).

    `regions`: blocks in which each atom is a subsection of its own, with the (unit, section) they
    are. Raises `LinkError` for more sections than there can be.
    """
    kinds, kind_of_block = _section_kinds(layout)
    extra = [s for s in own_sections if s.size]
    total = len(kinds) + len(extra)
    if total > mo.MAX_SECTIONS:
        raise LinkError(f"the library needs {total} sections, more than a Mach-O file can have")
    empty = np.array([kind.type in mo.ZEROFILL_TYPES for kind in kinds], np.bool_)
    own = dict(enumerate(extra, start=int((~empty).sum())))  # by section
    number = _numbers(empty, len(extra))
    sizes, aligns, block_start = _stacked(layout, number[kind_of_block], total)
    section, offset = _atom_addresses(layout, block_start, own)
    kind_of = dict(zip(number.tolist(), kinds, strict=True))  # by section
    sections = _sections(kind_of, own, sizes, aligns)
    named = np.array([k.type not in _NAMELESS for k in kinds], np.bool_)[kind_of_block]
    atom_block, locations, begins = _subsections(program, layout, block_start, regions)
    plain = [n in own or s.flags & mo.SECTION_TYPE in _NAMELESS for n, s in enumerate(sections)]
    size = np.array([s.size for s in sections], np.int64)
    stored = np.array([not s.zerofill for s in sections], np.bool_)
    align, no_code = np.array([s.align for s in sections], np.int64), np.zeros(total, np.bool_)
    table = Sections.following(size, align, stored, no_code, 8)
    start = table.start
    blocks = [(int(start[n]), one.contents) for n, one in own.items()]
    for home, info in _infos(program, layout, sections, section).items():
        blocks.append((int(start[home]), info))
    return Placed(
        section,
        offset,
        table,
        kept,
        sections,
        atom_block,
        locations,
        unique(np.concatenate([block_start[named], begins])),
        np.array(plain, np.bool_),
        {home: int(block_start[block]) for block, home in regions.items()},
        np.array([s.address for s in sections], np.int64),
    ), blocks


def _block_kinds(layout: Layout) -> list[SectionKind]:
    return cast("list[SectionKind]", layout.descriptors)


def _section_kinds(layout: Layout) -> tuple[list[SectionKind], Int64]:
    """(the different sections that blocks need, the one of each block as an index of these)."""
    order: dict[tuple[bytes, bytes, int], int] = {}
    kinds: list[SectionKind] = []
    of_block = np.zeros(len(layout.sections), np.int64)
    for block, kind in enumerate(_block_kinds(layout)):
        key = (kind.segment, kind.section, kind.type)
        if key not in order:
            order[key] = len(order)
            kinds.append(kind)
        of_block[block] = order[key]
    return kinds, of_block


def _numbers(empty: Bool, own: int) -> Int64:
    """The number of each kind's section, from 0: int64, by kind.

    `own` sections stand between what has contents and what is `empty`: addresses follow the file.
    """
    order = np.argsort(empty, kind="stable")
    number = np.zeros(len(empty), np.int64)
    number[order] = np.arange(len(empty)) + own * empty[order]
    return number


def _stacked(layout: Layout, home: Int64, total: int) -> tuple[list[int], list[int], Int64]:
    """Put each block behind the others of its section, which is `home` (int64, by block).

    Returns sizes and alignments by section, 0 and 1 where there are no blocks, and the location of
    each block (int64, section << STEP | offset).
    """
    sizes = [0] * total
    aligns = [1] * total
    block_start = np.zeros(len(layout.sections), np.int64)
    blocks = zip(layout.sections, _block_kinds(layout), home.tolist(), strict=True)
    for block, (out, kind, section) in enumerate(blocks):
        begin = -(-sizes[section] // out.align) * out.align
        if kind.section == IMAGE_INFO:
            begin = 0  # a file has one
        block_start[block] = (section << STEP) + begin
        # the symbol at the end of a set must not be the start of what follows
        end = begin + out.size + (max(out.align, 8) if kind.set else 0)
        sizes[section] = max(sizes[section], end)
        aligns[section] = max(aligns[section], out.align)
    return sizes, aligns, block_start


def _atom_addresses(
    layout: Layout, block_start: Int64, own: Mapping[int, OwnSection]
) -> tuple[Int32, Int64]:
    """(section, offset) of each atom; the section is -1 for those that are nowhere."""
    placed = layout.section >= 0
    base = np.zeros(len(placed), np.int64)
    base[placed] = block_start[layout.section[placed]]
    section = np.where(placed, base >> STEP, -1).astype(np.int32)
    offset = np.where(placed, (base & ((1 << STEP) - 1)) + layout.offset, 0)
    for number, one in own.items():
        section[one.atoms] = number
        offset[one.atoms] = one.offset
    return section, offset


def _sections(
    kind_of: Mapping[int, SectionKind],
    own: Mapping[int, OwnSection],
    sizes: list[int],
    aligns: list[int],
) -> tuple[OutSection, ...]:
    """Headers and addresses: a section is of a kind, with this size and alignment, or our own."""
    sections: list[OutSection] = []
    address = 0
    for number, (size, align) in enumerate(zip(sizes, aligns, strict=True)):
        if number in own:
            one = own[number]
            header = one.segment, one.section, one.flags
            size, align = one.size, 1 if one.segment == mo.DEBUG_SEGMENT else 8
        else:
            kind = kind_of[number]
            header = kind.segment, kind.section, kind.type | kind.attributes
        address = -(-address // align) * align
        sections.append(OutSection(*header, align, size, address))
        address += size
    return tuple(sections)


def _subsections(
    program: Program,
    layout: Layout,
    block_start: Int64,
    regions: Mapping[int, tuple[int, int]],
) -> tuple[Int32, Int64, Int64]:
    """The atoms of `regions` get blocks of their own, behind all others.

    Returns the block of each atom (int32, -1 for none), the location of each block (int64), and the
    locations of all atoms of these regions, dead ones, too (int64).
    """
    block = layout.section.copy()
    locations, begins = [block_start], [np.zeros(0, np.int64)]
    count = len(block_start)
    for number, (unit, home) in regions.items():
        own = program.units[unit].atoms
        begins.append(block_start[number] + own["offset"][own["section"] == home])
        atoms = layout.sections[number].atoms
        block[atoms] = count + np.arange(len(atoms), dtype=np.int32)
        locations.append(block_start[number] + program.atoms["offset"][atoms])
        count += len(atoms)
    return block, np.concatenate(locations), np.concatenate(begins)


def _infos(
    program: Program, layout: Layout, sections: Sequence[OutSection], section: Int32
) -> dict[int, Array]:
    """The one `__objc_imageinfo` of all members: 8 bytes, by section."""
    homes = [n for n, s in enumerate(sections) if s.section == IMAGE_INFO and not s.zerofill]
    atoms = layout.atoms if homes else np.zeros(0, np.int32)
    rows = program.atoms[atoms]
    atoms = atoms[(rows["contents"] >= 0) & (rows["size"] >= 8)]
    merged = {}
    for home in homes:
        mine = atoms[section[atoms] == home]
        units = [program.units[n].name for n in program.unit_of(mine).tolist()]
        raw = read_input(program, mine, np.zeros(len(mine), np.int64), 8)
        infos = [(name, octets.tobytes()) for name, octets in zip(units, raw, strict=True)]
        if infos:
            merged[home] = np.frombuffer(merged_info(infos), np.uint8)
    return merged
