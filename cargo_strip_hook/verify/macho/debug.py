"""DWARF that is kept: each byte is the original's but for what counts from somewhere else.

A member's sections are there whole, behind those of other members; what counts from the start of
one is as much more, and what is an address means the same place. Sources: mach-o/loader.h and
mach-o/reloc.h; see `dwarf.py` for DWARF.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.verify.arrays import Array, gather, is_among, spread, unique
from cargo_strip_hook.verify.expectation import Findings
from cargo_strip_hook.verify.kit.names import shown
from cargo_strip_hook.verify.macho import dwarf
from cargo_strip_hook.verify.macho.definitions import Definitions
from cargo_strip_hook.verify.macho.places import Places
from cargo_strip_hook.verify.macho.read import ALT_ENTRY, BY_SYMBOLS, ENTRY, STEP, Object
from cargo_strip_hook.verify.macho.sections import Borders

_SEGMENT, _MARKER, _INFO = b"__DWARF", b"__strip_hook", b"__debug_info"
_CODE = 0x80000400
_ADDRESS = 0b0000_0110  # of r_info the last byte: an unsigned address of 8 bytes


@dataclass(frozen=True, slots=True)
class Told:
    """What is told of debug information: PLACEMENT `rows` of whole sections.

    `titles` and numbers (`used`) of the members that pieces are from, which ascend.
    """

    rows: Array
    titles: Sequence[str]
    used: Sequence[int]


def part(after: Object, link_map: Array) -> tuple[Array, Array]:
    """(rows of code and data, rows of debug information)."""
    out = link_map["out_section"]
    debug = np.append(False, after.table["segment"] == _SEGMENT)
    about = debug[np.where((out > 0) & (out < len(debug)), out, 0)]
    return link_map[~about], link_map[about]


def check(
    before: Object,
    after: Object,
    where: Places,
    told: Told,
    definitions: Definitions,
    findings: Findings,
) -> None:
    """Compare all debug information. Raises `Damaged`."""
    homes = _homes(before, after, told, findings)
    if homes is None:
        return
    sides = _Sides(before, after, where, definitions, _Regions(before, where, homes))
    for row in sides.regions.moved.tolist():
        title = told.titles[int(before.table["file"][row])]
        text = f"{shown(bytes(before.table['name'][row]))} of {title}, which it counts in, moved"
        findings.add("debug information", text)
    _check_apart(sides, findings)
    numbers = np.flatnonzero(_kept(after)) + 1
    wanted = {n: np.zeros(int(after.table["size"][n - 1]), np.uint8) for n in numbers.tolist()}
    fields = [np.zeros((3, 0), np.int64)]
    for file in range(len(told.used)):
        mine = {name: place for (f, name), place in homes.items() if f == file}
        try:
            shifts, sections = _fields(before, file)
        except dwarf.Unknown as e:
            if mine:
                text = f"of {told.titles[file]} cannot be followed: {e}"
                findings.add("debug information", text)
            continue
        if not mine:
            _check_left_out(sides, file, sections, told.titles[file], findings)
            continue
        lost = [name for name, text in sections.items() if text and name not in mine]
        for name in lost:
            findings.add("debug information", f"{shown(name)} of {told.titles[file]} is lost")
        if lost:
            continue
        for (holder, to), at in shifts.items():
            octets = np.frombuffer(sections[holder], np.uint8)
            words = gather(octets, at, np.dtype("<u4")) + np.uint32(mine.get(to, (0, 0))[1])
            octets = octets.copy()
            octets[at[:, None] + np.arange(4)] = words.astype("<u4").view(np.uint8).reshape(-1, 4)
            sections[holder] = octets.tobytes()
        for name, (home, offset) in mine.items():
            room = wanted[home][offset : offset + len(sections[name])]
            room[:] = np.frombuffer(sections[name], np.uint8)
        fields.append(_addresses(sides, file, mine))
    _compare(sides, numbers, wanted, np.concatenate(fields, 1), findings)


def _check_apart(sides: _Sides, findings: Findings) -> None:
    """Code that stays where it was is in subsections of its own: dead code between can go."""
    where, before, regions = sides.where, sides.before, sides.regions
    mine = regions.known[where.section - 1] & (where.size > 0)
    e, table = before.entries, before.table
    labels = np.flatnonzero(before.placed & (e["desc"] & ALT_ENTRY == 0) & (e["section"] > 0))
    labels = labels[regions.known[e["section"][labels] - 1]]
    row = e["section"][labels] - 1
    offset = e["value"][labels] - table["address"][row]
    flags = np.array([c.flags for c in before.commands], np.int64)[table["file"][row]]
    begins = (offset < table["size"][row]) & (flags & BY_SYMBOLS != 0)
    begins &= np.frombuffer(before.text, np.uint8)[e["name"][labels]] != ord("L")
    address = np.append(where.address[mine], (regions.delta[row] + offset)[begins])
    for at in unique(address[~is_among(address, Borders(sides.after).value)]).tolist():
        findings.add("code is in another's subsection", f"at {at:#x}")


@dataclass(frozen=True, slots=True)
class _Sides:
    before: Object
    after: Object
    where: Places
    definitions: Definitions
    regions: _Regions


class _Regions:
    """Code that debug information counts in, which has to stay as it was in its section.

    By section of the members (from 0): whether it is such, and what is added to an offset in it.
    """

    def __init__(
        self, before: Object, where: Places, homes: dict[tuple[int, bytes], tuple[int, int]]
    ) -> None:
        table = before.table
        files = unique(np.array([file for file, _ in homes], np.int64))
        code = (table["flags"] & _CODE != 0) & is_among(table["file"], files)
        row = where.section - 1
        mine = code[row]
        self.known = np.zeros(len(table), np.bool_)
        self.known[row[mine]] = True
        self.delta = np.zeros(len(table), np.int64)
        self.home = np.zeros(len(table), np.int64)
        self.delta[row[mine]] = (where.address - where.start)[mine]
        self.home[row[mine]] = where.home[mine]
        moved = mine & (where.address - where.start != self.delta[row])
        self.moved = unique(row[moved])


def _kept(o: Object) -> Array:
    """bool for each section: whether it is debug information."""
    return np.asarray((o.table["segment"] == _SEGMENT) & (o.table["name"] != _MARKER))


def _homes(
    before: Object, after: Object, told: Told, findings: Findings
) -> dict[tuple[int, bytes], tuple[int, int]] | None:
    """(file, section's name) -> (section of the result, offset there); None where that is wrong."""
    found: dict[tuple[int, bytes], tuple[int, int]] = {}
    ends: dict[int, int] = dict.fromkeys((np.flatnonzero(_kept(after)) + 1).tolist(), 0)
    position = {member: file for file, member in enumerate(told.used)}
    order = np.lexsort((told.rows["size"], told.rows["out_offset"], told.rows["out_section"]))
    for member, number, offset, size, home, start in told.rows[order].tolist():
        file = position.get(member, -1)
        first, last = (
            (int(n) for n in before.section_first[file : file + 2]) if file >= 0 else (0, 0)
        )
        good = file >= 0 and 0 < number <= last - first and ends.get(home) == start
        if good:
            old, new = before.table[first + number - 1], after.table[home - 1]
            same = old["segment"] == new["segment"] and old["name"] == new["name"]
            good = bool(same) and offset == 0 and size == int(old["size"])
            good = good and (file, bytes(old["name"])) not in found
        if not good:
            findings.add("debug information", f"of member {member} is in a wrong place")
            return None
        found[file, bytes(old["name"])] = home, start
        ends[home] = start + size
    for home, end in ends.items():
        if end != int(after.table["size"][home - 1]):
            name = bytes(after.table["name"][home - 1]).decode("utf-8", "replace")
            findings.add("debug information", f"{name} is longer than what is in it")
            return None
    return found


def _numbers(before: Object, file: int) -> dict[bytes, int]:
    """The sections of a file that are kept, by name."""
    first, end = before.section_first[file : file + 2].tolist()
    rows = before.table[first:end]
    names = [(n, bytes(row["name"])) for n, row in enumerate(rows) if row["segment"] == _SEGMENT]
    return {name: first + n + 1 for n, name in names if name in dwarf.SECTIONS}


def _fields(
    before: Object, file: int
) -> tuple[dict[tuple[bytes, bytes], Array], dict[bytes, bytes]]:
    """(what counts from another section, contents) of a file's debug information.

    Raises `Unknown`.
    """
    numbers = _numbers(before, file)
    if _INFO not in numbers:
        return {}, {}
    sections = {}
    for name, number in numbers.items():
        row = before.table[number - 1]
        begin = int(row["offset"])
        sections[name] = bytes(before.data[begin : begin + int(row["size"])])
        info = _raw(before, number)[1] >> 24 & 0xF7
        if (info != _ADDRESS).any():
            raise dwarf.Unknown("it has relocations that are no addresses of 8 bytes")
    return dwarf.fields(sections), sections


def _check_left_out(
    sides: _Sides, file: int, sections: dict[bytes, bytes], title: str, findings: Findings
) -> None:
    """A member's debug information is only left out where no code is from it."""
    first, end = sides.before.section_first[file : file + 2].tolist()
    code = sides.before.table["flags"][first:end] & _CODE != 0
    used = np.zeros(len(sides.before.table) + 1, np.bool_)
    used[sides.where.section] = True
    if sections and (code & used[first + 1 : end + 1]).any():
        findings.add("debug information", f"of {title} is lost")


def _raw(o: Object, number: int) -> tuple[Array, Array, Array]:
    """(offset, r_info, the eight bytes there) of the relocations of a section, int64."""
    row = o.table[number - 1]
    starts = spread(row["relocations"].reshape(1), row["count"].reshape(1), 8)
    raw = gather(o.octets, starts, ENTRY)
    offset = raw["address"].astype(np.int64)
    inside = np.where(offset + 8 <= row["size"], offset, 0)
    if len(inside) and int(row["size"]) < 8:
        return offset, raw["info"].astype(np.int64), np.zeros(len(offset), np.int64)
    value = gather(o.octets, int(row["offset"]) + inside, np.dtype("<i8"))
    return offset, raw["info"].astype(np.int64), value


def _addresses(sides: _Sides, file: int, mine: dict[bytes, tuple[int, int]]) -> Array:
    """(place of the field, address, its section) of each address, int64; address -1 of the gone."""
    before = sides.before
    numbers = _numbers(before, file)
    found = [np.zeros((3, 0), np.int64)]
    for name, (home, start) in mine.items():
        offset, info, value = _raw(before, numbers[name])
        extern, number = info >> 27 & 1 == 1, info & 0xFFFFFF
        address, target = np.full(len(offset), -1, np.int64), np.zeros(len(offset), np.int64)
        rows = np.flatnonzero(extern)
        symbols = before.symbol_first[file] + number[rows]
        address[rows] = _of_symbols(sides, symbols, value[rows])
        rows = np.flatnonzero(~extern)
        section = before.section_first[file] + number[rows]
        within = value[rows] + (file << STEP) - before.table["address"][section - 1]
        address[rows], target[rows] = _of_sections(sides, section, within)
        place = (home << STEP) + start + offset
        found.append(np.stack([place, address, target]))
    return np.concatenate(found, 1)


def _of_symbols(sides: _Sides, symbols: Array, added: Array) -> Array:
    before, definitions = sides.before, sides.definitions
    address = sides.where.of_symbols(symbols)
    external = np.flatnonzero(before.entries["type"][symbols] & 0xE1 == 1)
    for n, name in zip(external.tolist(), before.names(symbols[external]), strict=True):
        made = definitions.made.found.get(name)
        address[n] = min(made) if made else definitions.of(name)
    return np.where(address >= 0, address + added, -1)


def _of_sections(sides: _Sides, section: Array, offset: Array) -> tuple[Array, Array]:
    where, regions = sides.where, sides.regions
    size = sides.before.table["size"][section - 1]
    address = where.find(section, offset, offset == size)
    home = where.home[where.piece(section, offset)] if len(where.home) else np.zeros(0, np.int64)
    kept = regions.known[section - 1]
    address = np.where(kept, regions.delta[section - 1] + offset, address)
    return address, np.where(kept, regions.home[section - 1], home)


def _compare(
    sides: _Sides,
    numbers: Array,
    wanted: dict[int, Array],
    fields: Array,
    findings: Findings,
) -> None:
    """`wanted`: the bytes of each section; `fields`: see `_addresses`."""
    after = sides.after
    fields = fields[:, np.argsort(fields[0], kind="stable")]
    place, address, home = fields
    alive = address >= 0
    found = [np.zeros((3, 0), np.int64)]
    for number in numbers.tolist():
        offset, info, value = _raw(after, number)
        row = after.table[number - 1]
        if ((info >> 24 & 0xF7 != _ADDRESS) | (offset + 8 > row["size"])).any():
            findings.add("debug information", "has a relocation that is no address of 8 bytes")
            return
        index = info & 0xFFFFFF
        extern = info >> 27 & 1 == 1
        symbol = np.where(extern, index, 0)
        if (
            (symbol >= len(after.entries)) | (~extern & ((index < 1) | (index > len(after.table))))
        ).any():
            findings.add("debug information", "has a relocation to what is not there")
            return
        base = after.entries["value"][symbol] if extern.any() else np.zeros(len(symbol), np.int64)
        target = np.where(extern, base + value, value)
        found.append(np.stack([(number << STEP) + offset, target, np.where(extern, 0, index)]))
    there = np.concatenate(found, 1)
    there = there[:, np.argsort(there[0], kind="stable")]
    if len(there[0]) != int(alive.sum()) or (there[0] != place[alive]).any():
        findings.add("debug information", "has other relocations than in the original")
        return
    differ = there[1] != address[alive]
    differ |= (there[2] != home[alive]) & (there[2] > 0) & (home[alive] > 0)
    for at in place[alive][differ].tolist():
        findings.add("debug information", f"at {_shown(after, at)} refers to another place")
    for number in numbers.tolist():
        row = after.table[number - 1]
        begin = int(row["offset"])
        octets = np.array(after.octets[begin : begin + int(row["size"])])
        mine = (place >> STEP) == number
        offset = place[mine] & ((1 << STEP) - 1)
        wanted[number][offset[:, None] + np.arange(8)] = 0
        alive_here = offset[alive[mine]]
        octets[alive_here[:, None] + np.arange(8)] = 0
        for at in np.flatnonzero(octets != wanted[number])[:1].tolist():
            text = f"at {_shown(after, (number << STEP) + at)} differs from the original"
            findings.add("debug information", text)


def _shown(after: Object, place: int) -> str:
    name = bytes(after.table["name"][(place >> STEP) - 1]).decode("utf-8", "replace")
    return f"{name}+{place & ((1 << STEP) - 1):#x}"
