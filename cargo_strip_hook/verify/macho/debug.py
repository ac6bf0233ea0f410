"""DWARF that is kept: each byte is the original's but for what counts from somewhere else.

A member's sections are there whole, behind those of other members; what counts from the start of
one is as much more, and what is an address means the same place. Sources: mach-o/loader.h and
mach-o/reloc.h; see `dwarf.py` for DWARF.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.verify.arrays import Array, gather, is_among, put, spread, unique
from cargo_strip_hook.verify.expectation import Findings
from cargo_strip_hook.verify.kit.names import shown
from cargo_strip_hook.verify.macho import dwarf
from cargo_strip_hook.verify.macho.definitions import Definitions
from cargo_strip_hook.verify.macho.locations import Locations
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
    where: Locations,
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
    numbers = _numbers(before, len(told.used))
    raw = _raw(before, np.array([n for own in numbers for n in own.values()], np.int64))
    bad = raw.odd | _nowhere(before, raw)
    odd = unique(before.table["file"][raw.section[bad] - 1]).tolist()
    parts: list[_Part] = []
    placed: list[dict[bytes, tuple[int, int]]] = [{} for _ in told.titles]
    for (file, name), location in homes.items():
        placed[file][name] = location
    for file, title in enumerate(told.titles):
        mine = placed[file]
        views = {name: _view(before, number) for name, number in numbers[file].items()}
        if _INFO not in views:
            views = {}
        if not mine and not (any(map(len, views.values())) and _has_code(sides, file)):
            continue
        try:
            if file in odd and views:
                raise dwarf.Unknown("it has relocations that are no addresses of 8 bytes")
            shifts = dwarf.fields(views)
        except dwarf.Unknown as e:
            if mine:
                findings.add("debug information", f"of {title} cannot be followed: {e}")
            continue
        if not mine:
            findings.add("debug information", f"of {title} is lost")
            continue
        lost = [name for name, view in views.items() if len(view) and name not in mine]
        for name in lost:
            findings.add("debug information", f"{shown(name)} of {title} is lost")
        if lost:
            continue
        for name, (home, start) in mine.items():
            fields = [
                (at, mine[to][1] if to in mine else 0)
                for (holder, to), at in shifts.items()
                if holder == name
            ]
            parts.append(_Part(numbers[file][name], home, start, fields))
    locations = _addresses(sides, raw, parts)
    _compare(sides, locations, parts, findings)


@dataclass(frozen=True, slots=True)
class _Part:
    """A section `number` of a member, at `start` of the result's section `home`.

    `shifts`: places of fields of 4 bytes, with what is added there.
    """

    number: int
    home: int
    start: int
    shifts: list[tuple[Array, int]]


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
    where: Locations
    definitions: Definitions
    regions: _Regions


class _Regions:
    """Code that debug information counts in, which has to stay as it was in its section.

    By section of the members (from 0): whether it is such, and what is added to an offset in it.
    """

    def __init__(
        self, before: Object, where: Locations, homes: dict[tuple[int, bytes], tuple[int, int]]
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


def _numbers(before: Object, files: int) -> list[dict[bytes, int]]:
    """The sections that are kept of each file, by name."""
    found: list[dict[bytes, int]] = [{} for _ in range(files)]
    rows = np.flatnonzero(before.table["segment"] == _SEGMENT)
    names, files_of = (before.table[column][rows].tolist() for column in ("name", "file"))
    for row, name, file in zip(rows.tolist(), names, files_of, strict=True):
        if name in dwarf.SECTIONS:
            found[file][name] = row + 1
    return found


def _view(o: Object, number: int) -> memoryview:
    begin, size = (int(o.table[column][number - 1]) for column in ("offset", "size"))
    return o.data[begin : begin + size]


def _has_code(sides: _Sides, file: int) -> bool:
    """Whether code is from a file: only then its debug information is missed."""
    first, end = sides.before.section_first[file : file + 2].tolist()
    code = sides.before.table["flags"][first:end] & _CODE != 0
    used = np.zeros(len(sides.before.table) + 1, np.bool_)
    used[sides.where.section] = True
    return bool((code & used[first + 1 : end + 1]).any())


@dataclass(frozen=True, slots=True)
class _Raw:
    """The relocations of sections, int64: section, place in it, r_info, and the 8 bytes there.

    `odd` is bool: those that are no address of 8 bytes that lies in the section.
    """

    section: Array
    offset: Array
    info: Array
    value: Array
    odd: Array


def _raw(o: Object, numbers: Array) -> _Raw:
    first, count, size, begin = (
        o.table[column][numbers - 1] for column in ("relocations", "count", "size", "offset")
    )
    raw = gather(o.octets, spread(first, count, 8), ENTRY)
    offset, info = (raw[column].astype(np.int64) for column in ("address", "info"))
    inside = offset + 8 <= np.repeat(size, count)
    value = np.zeros(len(offset), np.int64)
    value[inside] = gather(o.octets, (np.repeat(begin, count) + offset)[inside], np.dtype("<i8"))
    odd = (info >> 24 & 0xF7 != _ADDRESS) | ~inside
    return _Raw(np.repeat(numbers, count), offset, info, value, odd)


def _nowhere(o: Object, raw: _Raw) -> Array:
    """bool for each relocation: whether it names a symbol or section that its file has not."""
    file, number = o.table["file"][raw.section - 1], raw.info & 0xFFFFFF
    beyond = number >= np.diff(o.symbol_first)[file]
    outside = (number < 1) | (number > np.diff(o.section_first)[file])
    return np.asarray(np.where(raw.info >> 27 & 1 == 1, beyond, outside))


def _addresses(sides: _Sides, raw: _Raw, parts: Sequence[_Part]) -> Array:
    """(place of the field, address, its section) of each address, int64; address -1 of the gone.

    `raw`: the relocations of all members' debug information, of which that in `parts` counts.
    """
    before = sides.before
    home = np.zeros(len(before.table) + 1, np.int64)
    start = home.copy()
    for part in parts:
        home[part.number], start[part.number] = part.home, part.start
    rows = np.flatnonzero(home[raw.section] > 0)
    holder, info, value = raw.section[rows], raw.info[rows], raw.value[rows]
    file = before.table["file"][holder - 1].astype(np.int64)
    extern, number = info >> 27 & 1 == 1, info & 0xFFFFFF
    address, target = np.full(len(rows), -1, np.int64), np.zeros(len(rows), np.int64)
    here = np.flatnonzero(extern)
    symbols = before.symbol_first[file[here]] + number[here]
    address[here] = _of_symbols(sides, symbols, value[here])
    here = np.flatnonzero(~extern)
    section = before.section_first[file[here]] + number[here]
    within = value[here] + (file[here] << STEP) - before.table["address"][section - 1]
    address[here], target[here] = _of_sections(sides, section, within)
    location = (home[holder] << STEP) + start[holder] + raw.offset[rows]
    return np.stack([location, address, target])


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


def _compare(sides: _Sides, fields: Array, parts: Sequence[_Part], findings: Findings) -> None:
    """`fields`: see `_addresses`."""
    after = sides.after
    fields = _in_order(fields)
    location, address, home = fields
    alive = address >= 0
    numbers = np.flatnonzero(_kept(after)) + 1
    raw = _raw(after, numbers)
    if raw.odd.any():
        findings.add("debug information", "has a relocation that is no address of 8 bytes")
        return
    if _nowhere(after, raw).any():
        findings.add("debug information", "has a relocation to what is not there")
        return
    index = raw.info & 0xFFFFFF
    extern = raw.info >> 27 & 1 == 1
    symbol = np.where(extern, index, 0)
    base = after.entries["value"][symbol] if extern.any() else np.zeros(len(symbol), np.int64)
    where = (raw.section << STEP) + raw.offset
    target = np.where(extern, base + raw.value, raw.value)
    there = _in_order(np.stack([where, target, np.where(extern, 0, index)]))
    if len(there[0]) != int(alive.sum()) or (there[0] != location[alive]).any():
        findings.add("debug information", "has other relocations than in the original")
        return
    differ = there[1] != address[alive]
    differ |= (there[2] != home[alive]) & (there[2] > 0) & (home[alive] > 0)
    for at in location[alive][differ].tolist():
        findings.add("debug information", f"at {_shown(after, at)} refers to another place")
    for number in numbers.tolist():
        mine = np.flatnonzero(location >> STEP == number)
        own = [part for part in parts if part.home == number]
        at = _first_difference(sides, number, own, (location[mine], alive[mine]))
        if at >= 0:
            text = f"at {_shown(after, (number << STEP) + at)} differs from the original"
            findings.add("debug information", text)


def _in_order(fields: Array) -> Array:
    """The columns by the first row, as they mostly are."""
    if (fields[0][1:] >= fields[0][:-1]).all():
        return fields
    return np.asarray(fields[:, np.argsort(fields[0], kind="stable")])


def _first_difference(
    sides: _Sides, number: int, parts: Sequence[_Part], addresses: tuple[Array, Array]
) -> int:
    """The first place of a section that is not as it should be, -1 for none.

    `parts` are what is in it; `addresses`: the places of addresses, and whether there is a
    relocation, which says all. An address of what is gone is zero.
    """
    row = sides.after.table[number - 1]
    begin, size = int(row["offset"]), int(row["size"])
    found = sides.after.octets[begin : begin + size]
    sources = [np.frombuffer(_view(sides.before, part.number), np.uint8) for part in parts]
    shifts = [(at + part.start, more) for part in parts for at, more in part.shifts if more]
    location, alive = addresses
    if not shifts and not len(location):
        for part, octets in zip(parts, sources, strict=True):
            differ = found[part.start : part.start + len(octets)] != octets
            if differ.any():
                return part.start + int(differ.argmax())
        return -1
    wanted = np.zeros(size, np.uint8)
    for part, octets in zip(parts, sources, strict=True):
        wanted[part.start : part.start + len(octets)] = octets
    if shifts:
        at = np.concatenate([at for at, _ in shifts])
        more = np.repeat(np.array([m for _, m in shifts], np.uint32), [len(a) for a, _ in shifts])
        put(wanted, at, gather(wanted, at, np.dtype("<u4")) + more)
    if len(location):
        offset = location & ((1 << STEP) - 1)
        put(wanted, offset, np.zeros(len(offset), np.uint64))
        found = np.array(found)
        put(found, offset[alive], np.zeros(int(alive.sum()), np.uint64))
    differ = found != wanted
    return int(differ.argmax()) if differ.any() else -1


def _shown(after: Object, location: int) -> str:
    name = bytes(after.table["name"][(location >> STEP) - 1]).decode("utf-8", "replace")
    return f"{name}+{location & ((1 << STEP) - 1):#x}"
