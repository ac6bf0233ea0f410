"""Debug information of live members: sections joined by name, offsets and addresses rewritten.

Line tables, ranges and locations are relative to the start of a member's code. So where debug
information is kept, the code of a member keeps its places: what is dead leaves a hole, which is
a subsection of its own that no symbol names, and which linkers drop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cargo_strip_hook.errors import ObjectError
from cargo_strip_hook.objects.arrays import unique
from cargo_strip_hook.objects.macho import dwarf
from cargo_strip_hook.objects.macho import layouts as mo
from cargo_strip_hook.objects.macho.file import STEP
from cargo_strip_hook.objects.macho.joined import Part
from cargo_strip_hook.objects.macho.place import Placed
from cargo_strip_hook.objects.macho.reader import MachoUnit
from cargo_strip_hook.objects.macho.relocate import Rewritten
from cargo_strip_hook.objects.model import (
    Array,
    AtomFlag,
    Bool,
    Int64,
    Layout,
    OutputSection,
    Program,
    Unit,
)

_NOWHERE = "a relocation of debug information means a place outside of its section"
_CODE = mo.S_ATTR_PURE_INSTRUCTIONS | mo.S_ATTR_SOME_INSTRUCTIONS


@dataclass(frozen=True, slots=True)
class Piece:
    """One input section: (unit, section) and where it went in its part."""

    unit: int
    section: int
    part: int
    offset: int


@dataclass(frozen=True, slots=True)
class Debug:
    """The new sections, whose addresses are not filled in yet, and what went into them."""

    parts: tuple[Part, ...]
    pieces: tuple[Piece, ...]
    units: frozenset[int]
    warnings: tuple[str, ...]


def _sections(unit: Unit) -> dict[bytes, int]:
    """The debug sections that are kept, by name."""
    native: MachoUnit = unit.native
    return {
        name: number
        for number, (segment, name) in enumerate(native.names)
        if segment == mo.DEBUG_SEGMENT and name in dwarf.KEPT
    }


def _contents(unit: Unit, section: int) -> memoryview:
    header = unit.native.sections[section]
    start = int(header["offset"])
    return unit.data[start : start + int(header["size"])]


def collect(program: Program, live: Bool) -> Debug:
    """Join the debug sections of all members with live code."""
    code = live & (program.atoms["section"] >= 0)
    code &= program.atoms["flags"] & AtomFlag.SEPARATE == 0
    order: dict[bytes, int] = {}
    chunks: list[list[bytes | bytearray]] = []
    ends: list[int] = []
    pieces: list[Piece] = []
    chosen: set[int] = set()
    warnings: list[str] = []
    for number in program.live_units(code):
        unit = program.units[number]
        own = _sections(unit) if unit.index >= 0 else {}
        if dwarf.INFO not in own or not _has_code(program, code, number):
            continue
        views = {name: _contents(unit, section) for name, section in own.items()}
        try:
            patches = dwarf.find(views)
        except dwarf.UnknownDwarf as e:
            warnings.append(f"the debug information of {unit.name} is left out: {e}")
            continue
        base: dict[bytes, int] = {}
        changed: dict[bytes, bytearray] = {n: bytearray(v) for n, v in views.items()}
        for name in own:
            part = order.setdefault(name, len(order))
            if part == len(ends):
                ends.append(0)
                chunks.append([])
            base[name] = ends[part]
        for patch in patches:
            octets = np.frombuffer(changed[patch.holder], np.uint8)
            where = patch.offsets[:, None] + np.arange(4)
            words = np.ascontiguousarray(octets[where]).view("<u4").reshape(-1)
            moved = (words + np.uint32(base[patch.target])).astype("<u4")
            octets[where] = moved.view(np.uint8).reshape(-1, 4)
        for name, section in own.items():
            part = order[name]
            pieces.append(Piece(number, section, part, base[name]))
            chunks[part].append(changed[name])
            ends[part] += len(changed[name])
        chosen.add(number)
    none = np.zeros(0, np.int64)
    parts = tuple(
        Part(
            mo.DEBUG_SEGMENT,
            name,
            mo.S_ATTR_DEBUG,
            np.frombuffer(b"".join(chunks[n]), np.uint8),
            none.astype(np.int32),
            none,
        )
        for name, n in order.items()
    )
    return Debug(parts, tuple(pieces), frozenset(chosen), tuple(warnings))


def _has_code(program: Program, live: Bool, number: int) -> bool:
    first, end = int(program.atom_base[number]), int(program.atom_base[number + 1])
    flags = program.units[number].native.sections["flags"]
    sections = program.atoms["section"][first:end][live[first:end]]
    return bool((flags[sections] & _CODE != 0).any())


def keep_places(
    program: Program, layout: Layout, units: frozenset[int]
) -> tuple[Layout, dict[int, tuple[int, int]]]:
    """The layout with the code of `units` as it was; block -> (unit, section) of those regions."""
    regions: dict[tuple[int, int], int] = {}
    section, offset = layout.section.copy(), layout.offset.copy()
    blocks: list[OutputSection] = []
    members: list[list[Array]] = []
    for out in layout.sections:
        numbers = program.unit_of(out.atoms)
        origin = program.atoms["section"][out.atoms]
        stays = np.zeros(len(out.atoms), np.bool_)
        for i, (number, home) in enumerate(zip(numbers.tolist(), origin.tolist(), strict=True)):
            if number in units and home >= 0:
                stays[i] = bool(int(program.units[number].native.sections["flags"][home]) & _CODE)
        for number, home in sorted(set(zip(numbers[stays], origin[stays], strict=True))):
            key = (int(number), int(home))
            mine = out.atoms[stays & (numbers == number) & (origin == home)]
            if key not in regions:
                regions[key] = len(blocks)
                header = program.units[key[0]].native.sections[key[1]]
                align = 1 << int(header["align"])
                blocks.append(OutputSection(out.bucket, mine, int(header["size"]), align))
                members.append([])
            members[regions[key]].append(mine)
        rest = out.atoms[~stays]
        if len(rest):
            section[rest] = len(blocks)
            size = out.size
            if stays.any():
                size = _close_gaps(program, rest, offset)
            blocks.append(OutputSection(out.bucket, rest, size, out.align))
            members.append([])
    for number in regions.values():
        atoms = np.concatenate(members[number])
        blocks[number] = replace(blocks[number], atoms=atoms)
        section[atoms] = number
        offset[atoms] = program.atoms["offset"][atoms]
    return (
        Layout(layout.buckets, tuple(blocks), section, offset),
        {number: key for key, number in regions.items()},
    )


def _close_gaps(program: Program, atoms: Array, offset: Int64) -> int:
    """Lay the atoms out anew, one behind the other; changes `offset` and gives the size."""
    at = 0
    rows = program.atoms[atoms]
    for atom, size, align in zip(
        atoms.tolist(), rows["size"].tolist(), rows["align"].tolist(), strict=True
    ):
        at = -(-at // align) * align
        offset[atom] = at
        at += size
    return at


def relocate(program: Program, live: Bool, placed: Placed, debug: Debug) -> Rewritten:
    """Fill in the addresses; entries for those that are still there. Changes `placed.blob`.

    Raises `ObjectError` for fields of relocations that overlap, or mean no place.
    """
    home = {
        part: next(
            n
            for n, s in enumerate(placed.sections)
            if (s.segment, s.section) == (mo.DEBUG_SEGMENT, debug.parts[part].section)
        )
        for part in range(len(debug.parts))
    }
    columns: list[tuple[Int64, Int64, Int64]] = []  # section, offset, target
    for piece in debug.pieces:
        unit = program.units[piece.unit]
        header = unit.native.sections[piece.section]
        count = int(header["nreloc"])
        if not count:
            continue
        rows = np.frombuffer(unit.data, mo.RELOC, count, int(header["reloff"]))
        info = rows["info"].astype(np.int64)
        wide = (info >> 25 & 3 == 3) & (info >> 28 == mo.UNSIGNED)
        where = rows["address"].astype(np.int64)
        good = wide & (where >= 0) & (where + 8 <= int(header["size"]))
        where, info = where[good], info[good]
        if (np.diff(np.sort(where)) < 8).any():
            raise _error("two relocations of debug information overlap", unit, piece.section)
        number = home[piece.part]
        start = int(placed.start[number]) + piece.offset + where
        fields = start[:, None] + np.arange(8)
        value = np.ascontiguousarray(placed.blob[fields]).view("<i8").reshape(-1)
        target = _targets(program, live, placed, piece, info, value)
        section = np.where(target >= 0, target >> STEP, 0)
        address = placed.address[section] + (target & ((1 << STEP) - 1))
        # a tombstone for what is gone: no code is at 0
        stored = np.where(target >= 0, address, 0).astype("<i8")
        placed.blob[fields] = stored.view(np.uint8).reshape(-1, 8)
        alive = target >= 0
        columns.append(
            (np.full(int(alive.sum()), number), piece.offset + where[alive], target[alive])
        )
    none = np.zeros(0, np.int64)
    section, offset, target = (np.concatenate([none, *(c[i] for c in columns)]) for i in range(3))
    order = np.lexsort((-offset, section))
    count = len(order)
    return Rewritten(
        section[order],
        offset[order],
        np.full(count, 3 << 5, np.int64),
        target[order],
        np.zeros(count, np.int64),
        np.zeros(count, np.bool_),
    )


def _error(what: str, unit: Unit, section: int) -> ObjectError:
    offset = int(unit.native.sections["reloff"][section])
    return ObjectError(what, member=unit.name, offset=offset, help="use `--strip debuginfo`")


def _targets(
    program: Program, live: Bool, placed: Placed, piece: Piece, info: Int64, value: Int64
) -> Int64:
    """The place that each field means, -1 for what is gone."""
    number = piece.unit
    unit = program.units[number]
    native: MachoUnit = unit.native
    base = int(program.atom_base[number])
    sections = native.sections
    extern = info >> 27 & 1 != 0
    index = info & 0xFFFFFF
    out = np.full(len(info), -1, np.int64)
    section = np.where(extern, 0, index - 1)
    address = value.copy()
    if extern.any():
        symbol = native.numbers[np.minimum(index[extern], len(native.numbers) - 1)]
        definition = program.definition[program.symbol_base[number] + np.maximum(symbol, 0)]
        atom = program.symbols["atom"][definition]
        here = (symbol >= 0) & (atom >= 0)
        at = np.where(here, atom, 0)
        here &= live[at] & (placed.section[at] >= 0)
        start = placed.key(at) + program.symbols["value"][definition]
        place = start + value[extern]
        if (here & (place >> STEP != start >> STEP)).any():
            raise _error(_NOWHERE, unit, piece.section)
        out[extern] = np.where(here, place, -1)
    rows = np.flatnonzero(~extern & (section >= 0) & (section < len(sections)))
    first = np.append(0, np.cumsum(np.bincount(unit.atoms["section"], minlength=len(sections))))
    for s in unique(section[rows]).tolist():
        mine = rows[section[rows] == s]
        offset = address[mine] - int(sections["addr"][s])
        if ((offset < 0) | (offset > int(sections["size"][s]))).any():
            raise _error(_NOWHERE, unit, piece.section)
        region = placed.regions.get((number, s))
        if region is not None:
            out[mine] = region + offset
            continue
        atoms = unit.atoms["offset"][first[s] : first[s + 1]]
        if not len(atoms):
            continue
        local = np.clip(np.searchsorted(atoms, offset, side="right") - 1, 0, None) + first[s]
        alive = live[base + local] & (placed.section[base + local] >= 0)
        place = placed.key(base + local) + offset - unit.atoms["offset"][local]
        out[mine] = np.where(alive, place, -1)
    return out
