"""Debug information of live members: sections joined by name, offsets and addresses rewritten.

Line tables, ranges and locations are relative to the start of a member's code. So where debug
information is kept, the code of a member keeps its places: what is dead leaves a hole, which is
a subsection of its own that no symbol names, and which linkers drop.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from cargo_strip_hook.formats import dwarf
from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.addresses import Placed
from cargo_strip_hook.formats.macho.file import STEP
from cargo_strip_hook.formats.macho.reader import macho_unit
from cargo_strip_hook.formats.macho.unwind_output import OwnSection
from cargo_strip_hook.link import fields
from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.contents import Patch
from cargo_strip_hook.link.fields import Field
from cargo_strip_hook.link.model import (
    LINK_MAP,
    Array,
    AtomFlag,
    Bool,
    Int64,
    Layout,
    OutputSection,
    Program,
    Unit,
)
from cargo_strip_hook.link.output import Relocations
from cargo_strip_hook.link.reading import InputFile

_BEYOND = "refers to a place outside of its section"
_CODE = mo.S_ATTR_PURE_INSTRUCTIONS | mo.S_ATTR_SOME_INSTRUCTIONS


@dataclass(frozen=True, slots=True)
class Contribution:
    """One input section, and where it begins in the new one. `name`: see `dwarf`."""

    unit: int
    section: int
    name: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class Debug:
    """The new sections, whose addresses are not filled in yet, and what went into them."""

    sections: tuple[OwnSection, ...]
    contributions: tuple[Contribution, ...]
    units: frozenset[int]
    warnings: tuple[str, ...]


def _sections(unit: Unit) -> dict[bytes, int]:
    """The debug sections that are kept, by the names of `dwarf`."""
    native = macho_unit(unit)
    names = {_section_name(name): name for name in dwarf.KEPT}
    return {
        names[name]: number
        for number, (segment, name) in enumerate(native.names)
        if segment == mo.DEBUG_SEGMENT and name in names
    }


def _section_name(name: bytes) -> bytes:
    """What Mach-O calls a section of DWARF; a header has room for 16 bytes."""
    return (b"__debug_" + name)[:16]


def _contents(unit: Unit, section: int) -> memoryview:
    header = macho_unit(unit).sections[section]
    start = int(header["offset"])
    return unit.data[start : start + int(header["size"])]


def collect(program: Program, live: Bool) -> Debug:
    """Join the debug sections of all members with live code."""
    code = live & (program.atoms["section"] >= 0)
    code &= program.atoms["flags"] & AtomFlag.SEPARATE == 0
    code &= _in_code(program, [n for n, unit in enumerate(program.units) if unit.index >= 0])
    chunks: dict[bytes, list[bytearray]] = {}
    ends: dict[bytes, int] = {}
    contributions: list[Contribution] = []
    warnings: list[str] = []
    for number in program.live_units(code):
        unit = program.units[number]
        own = _sections(unit)
        if dwarf.INFO not in own:
            continue
        views = {name: _contents(unit, section) for name, section in own.items()}
        try:
            for section in own.values():
                _check_kinds(unit, section)
            patches = dwarf.find(views)
            for patch in patches:
                if patch.target not in own:
                    raise dwarf.UnknownDwarf(f"{_section_name(patch.target).decode()} is missing")
        except dwarf.UnknownDwarf as e:
            warnings.append(f"the debug information of {unit.name} is left out: {e}")
            continue
        changed = {name: bytearray(view) for name, view in views.items()}
        for patch in patches:
            octets = np.frombuffer(changed[patch.holder], np.uint8)
            where = patch.offsets[:, None] + np.arange(4)
            words = np.ascontiguousarray(octets[where]).view("<u4").reshape(-1)
            moved = (words + np.uint32(ends.get(patch.target, 0))).astype("<u4")
            octets[where] = moved.view(np.uint8).reshape(-1, 4)
        for name, section in own.items():
            end = ends.get(name, 0)
            contributions.append(Contribution(number, section, name, end))
            chunks.setdefault(name, []).append(changed[name])
            ends[name] = end + len(changed[name])
    joined = {
        _section_name(name): np.frombuffer(b"".join(every), np.uint8)
        for name, every in chunks.items()
    }
    sections = tuple(
        OwnSection(mo.DEBUG_SEGMENT, name, mo.S_ATTR_DEBUG, len(contents), contents)
        for name, contents in joined.items()
    )
    units = frozenset(one.unit for one in contributions)
    return Debug(sections, tuple(contributions), units, tuple(warnings))


def _in_code(program: Program, units: Iterable[int]) -> Bool:
    """bool for each atom: whether it is in code of one of the units, which are of files."""
    inside = np.zeros(len(program.atoms), np.bool_)
    for number in units:
        mine = slice(int(program.atom_base[number]), int(program.atom_base[number + 1]))
        flags = macho_unit(program.units[number]).sections["flags"]
        inside[mine] = flags[program.atoms["section"][mine]] & _CODE != 0
    return inside


def keep_code(
    program: Program, layout: Layout, units: frozenset[int]
) -> tuple[Layout, dict[int, tuple[int, int]]]:
    """The layout with the code of `units` as it was; block -> (unit, section) of those regions."""
    regions: dict[tuple[int, int], int] = {}
    section, offset = layout.section.copy(), layout.offset.copy()
    blocks: list[OutputSection] = []
    members: list[list[Array]] = []
    code = _in_code(program, units)
    for out in layout.sections:
        numbers = program.unit_of(out.atoms)
        origin = program.atoms["section"][out.atoms]
        stays = code[out.atoms]
        for number, home in sorted(set(zip(numbers[stays], origin[stays], strict=True))):
            key = (int(number), int(home))
            mine = out.atoms[stays & (numbers == number) & (origin == home)]
            if key not in regions:
                regions[key] = len(blocks)
                header = macho_unit(program.units[key[0]]).sections[key[1]]
                align = 1 << int(header["align"])
                blocks.append(OutputSection(out.section_key, mine, int(header["size"]), align))
                members.append([])
            members[regions[key]].append(mine)
        rest = out.atoms[~stays]
        if len(rest):
            section[rest] = len(blocks)
            size = out.size
            if stays.any():
                offset[rest], size = _closed(program, rest)
            blocks.append(OutputSection(out.section_key, rest, size, out.align))
            members.append([])
    for number in regions.values():
        atoms = np.concatenate(members[number])
        blocks[number] = replace(blocks[number], atoms=atoms)
        section[atoms] = number
        offset[atoms] = program.atoms["offset"][atoms]
    return (
        Layout(layout.section_keys, tuple(blocks), section, offset),
        {number: key for key, number in regions.items()},
    )


def _closed(program: Program, atoms: Array) -> tuple[Int64, int]:
    """(offset of each of the atoms when they stand behind one another, the size of all)."""
    end, offsets = 0, []
    rows = program.atoms[atoms]
    for size, align in zip(rows["size"].tolist(), rows["align"].tolist(), strict=True):
        offsets.append(-(-end // align) * align)
        end = offsets[-1] + size
    return np.array(offsets, np.int64), end


def relocate(
    program: Program, live: Bool, placed: Placed, debug: Debug
) -> tuple[Relocations, list[Patch]]:
    """(entries for the addresses that are still there, patches that fill in all of them).

    Raises `ObjectError` for fields of relocations that overlap, or mean no location.
    """
    home = _homes(placed)
    contents = {s.section: s.contents for s in debug.sections}
    columns = [np.zeros((3, 0), np.int64)]  # section, offset, target
    patches: list[Patch] = []
    for one in debug.contributions:
        unit = program.units[one.unit]
        if not macho_unit(unit).sections["nreloc"][one.section]:
            continue
        entries = _read_entries(unit, one.section)
        where = entries.where
        name = _section_name(one.name)
        number, offset = home[name], one.offset + where
        value = fields.load(contents[name], offset, Field.BITS64, "<")
        target = _targets(program, live, placed, one.unit, entries, value)
        section = np.where(target >= 0, target >> STEP, 0)
        address = placed.address[section] + (target & ((1 << STEP) - 1))
        # a tombstone for what is gone: no code is at 0
        alive = target >= 0
        patches.append(
            Patch(Field.BITS64, placed.sections.start[number] + offset, np.where(alive, address, 0))
        )
        locations = np.broadcast_to(np.int64(number), where.shape), offset, target
        columns.append(np.stack(locations)[:, alive])
    section, offset, target = np.concatenate(columns, axis=1)
    order = np.lexsort((-offset, section))
    section, offset, target = section[order], offset[order], target[order]
    nothing = np.zeros(len(order), np.int64)
    return Relocations(
        section.astype(np.int32),
        offset,
        np.full(len(order), 3 << 5, np.int64),
        np.full(len(order), -1, np.int32),
        (target >> STEP).astype(np.int32),
        target & ((1 << STEP) - 1),
        nothing,
        nothing != 0,
    ), patches


def _homes(placed: Placed) -> dict[bytes, int]:
    """The number of each section of debug information, by its name."""
    numbered = enumerate(placed.headers)
    return {s.section: n for n, s in numbered if s.segment == mo.DEBUG_SEGMENT}


def debug_rows(program: Program, placed: Placed, debug: Debug) -> Array:
    """LINK_MAP of debug information: whole sections."""
    home = _homes(placed)
    rows = []
    for one in debug.contributions:
        unit, out = program.units[one.unit], home.get(_section_name(one.name), -1) + 1
        size = int(macho_unit(unit).sections["size"][one.section])
        if out > 0:  # an empty section gets none
            rows.append((unit.index, one.section + 1, 0, size, out, one.offset))
    return np.array(rows, LINK_MAP)


@dataclass(frozen=True, slots=True)
class _Entries:
    """The relocations of a debug section; arrays by relocation.

    `position` is where each begins in the file, `where` its field in the section, `info` what it
    says.
    """

    file: InputFile
    position: Int64
    where: Int64
    info: Int64

    def check(self, bad: Bool, what: str) -> None:
        """Raise `ObjectError` for the first that is bad."""
        self.file.check(bad, f"a relocation of debug information {what}", self.position)


def _rows(unit: Unit, section: int) -> Array:
    """The relocation entries of a section."""
    header = macho_unit(unit).sections[section]
    count = int(header["nreloc"])
    if not count:  # and then it does not matter where they would be
        return np.zeros(0, mo.RELOC)
    return np.frombuffer(unit.data, mo.RELOC, count, int(header["reloff"]))


def _check_kinds(unit: Unit, section: int) -> None:
    """All relocations of a debug section are addresses of 8 bytes. Raises `UnknownDwarf`."""
    info = _rows(unit, section)["info"]
    wide = (info >> 25 & 3 == 3) & (info >> 28 == mo.UNSIGNED) & (info >> 24 & 1 == 0)
    if not wide.all():
        raise dwarf.UnknownDwarf("it has relocations that are no addresses of 8 bytes")


def _read_entries(unit: Unit, section: int) -> _Entries:
    """See `_check_kinds` for which there can be. Raises `ObjectError`."""
    native = macho_unit(unit)
    rows, header = _rows(unit, section), native.sections[section]
    info = rows["info"].astype(np.int64)
    position = int(header["reloff"]) + mo.RELOC.itemsize * np.arange(len(rows))
    where = rows["address"].astype(np.int64)
    entries = _Entries(InputFile(unit.name, unit.data), position, where, info)
    size = int(header["size"])
    entries.check((where < 0) | (where + 8 > size), "lies outside of its section")
    order = np.argsort(where, kind="stable")
    twice = np.zeros(len(where), np.bool_)
    twice[order[1:][np.diff(where[order]) < 8]] = True
    entries.check(twice, "overlaps another one")
    index, extern = info & 0xFFFFFF, info >> 27 & 1 != 0
    entries.check(extern & (index >= len(native.numbers)), "has no symbol")
    sections = len(native.sections)
    entries.check(~extern & ((index == 0) | (index > sections)), "names no section")
    return entries


def _targets(
    program: Program, live: Bool, placed: Placed, number: int, entries: _Entries, value: Int64
) -> Int64:
    """The location that each field means, -1 for what is gone. Raises `ObjectError`."""
    unit = program.units[number]
    native = macho_unit(unit)
    base = int(program.atom_base[number])
    sections = native.sections
    extern = entries.info >> 27 & 1 != 0
    index = entries.info & 0xFFFFFF
    out = np.full(len(index), -1, np.int64)
    if extern.any():
        symbol = native.numbers[index[extern]]
        definition = program.definition[program.symbol_base[number] + np.maximum(symbol, 0)]
        atom = program.symbols["atom"][definition]
        here = (symbol >= 0) & (atom >= 0)
        atom = np.where(here, atom, 0)
        here &= live[atom] & (placed.section[atom] >= 0)
        offset = program.symbols["value"][definition] + value[extern]
        beyond = np.zeros(len(index), np.bool_)
        beyond[extern] = here & _outside(program, atom, offset)
        entries.check(beyond, _BEYOND)
        out[extern] = np.where(here, placed.location(atom) + offset, -1)
    rows = np.flatnonzero(~extern)
    section = np.where(extern, 0, index - 1)
    within = value - sections["addr"].astype(np.int64)[section]
    size = sections["size"].astype(np.int64)[section]
    entries.check(~extern & ((within < 0) | (within > size)), _BEYOND)
    first = np.append(0, np.cumsum(np.bincount(unit.atoms["section"], minlength=len(sections))))
    for s in unique(section[rows]).tolist():
        mine = rows[section[rows] == s]
        offset = within[mine]
        region = placed.regions.get((number, s))
        if region is not None:
            out[mine] = region + offset
            continue
        atoms = unit.atoms["offset"][first[s] : first[s + 1]]
        if not len(atoms):
            continue
        local = np.clip(np.searchsorted(atoms, offset, side="right") - 1, 0, None) + first[s]
        alive = live[base + local] & (placed.section[base + local] >= 0)
        moved = placed.location(base + local) + offset - unit.atoms["offset"][local]
        out[mine] = np.where(alive, moved, -1)
    return out


def _outside(program: Program, atoms: Array, offset: Int64) -> Bool:
    """Whether locations, `offset` bytes from the begin of atoms, lie outside of their sections."""
    within = program.atoms["offset"][atoms] + offset
    bad: Bool = np.zeros(len(atoms), np.bool_)
    numbers = program.unit_of(atoms)
    for number in unique(numbers).tolist():
        mine = numbers == number
        sizes = macho_unit(program.units[number]).sections["size"].astype(np.int64)
        section = program.atoms["section"][atoms[mine]]
        # what was made for commons is in no section of a file
        own = np.append(sizes, 0)[section]
        size = np.where(section >= 0, own, program.atoms["size"][atoms[mine]])
        bad[mine] = (within[mine] < 0) | (within[mine] > size)
    return bad
