"""Sections of the result: what they say of themselves is what the pieces in them were promised.

Sources: mach-o/loader.h (types and attributes); ld64.lld, `InputFiles.cpp` (`parseSections`: what
is aligned is a subsection, by its offset in the section and no more than that).
"""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.verify.arrays import Array, is_among, unique
from cargo_strip_hook.verify.expectation import Findings
from cargo_strip_hook.verify.macho.locations import NOWHERE, Locations, Ranges
from cargo_strip_hook.verify.macho.read import ALT_ENTRY, STEP, Object

_SETS = (b"section$start$", b"section$end$")
_SET_SUFFIX = b"$set"
# attributes that a section has only if all in it have them: NO_DEAD_STRIP and LIVE_SUPPORT
_BY_ALL = 0x18000000
_POINTERS = 0x6  # S_NON_LAZY_SYMBOL_POINTERS: become data, for their relocations say it all
INITIALISERS = np.array([0x9, 0xA, 0x15, 0x16], np.uint32)
# what linkers take apart by itself, whatever symbols there are: literals and initialisers
_BY_ITSELF = np.array([0x2, 0x3, 0x4, 0x5, 0x9, 0xA, 0xE, 0x15, 0x16], np.uint32)
_ALONE = np.zeros(256, np.bool_)
_ALONE[_BY_ITSELF] = True
_LISTS = (b"__objc_", b"__swift5_")
COMMON = (b"__DATA", b"__common")
_CODE = 0x80000400
_DEBUG = 0x02000000
# (flags, alignment as a power of two) of sections that hold nothing of a member's sections
_MADE = {
    (b"__LD", b"__compact_unwind"): (_DEBUG, 3),
    (b"__TEXT", b"__eh_frame"): (0x6800000B, 3),
    (b"__DWARF", b"__strip_hook"): (_DEBUG, 0),
}


def check_sections(
    before: Object,
    after: Object,
    where: Locations,
    debug: bool,
    findings: Findings,
    apart: Ranges = NOWHERE,
) -> None:
    """Name, type, attributes and alignment; `debug`: whether debug information is kept.

    `apart`: what is compared for another library of a set, with all of the sections that it is in.
    """
    _check_names(before, after, where, findings)
    _check_attributes(before, after, where, apart, findings)
    _check_made(after, where, apart, debug, findings)
    _check_whole(before, where, findings)
    borders = Borders(after)
    _check_alignment(before, after, where, borders, (debug, apart), findings)
    _check_cuts(after, where, borders, findings)
    _check_gaps(after, where, apart, debug, findings)


def _tell(o: Object, rows: Array, kind: str, findings: Findings) -> None:
    for row in unique(rows).tolist():
        one = o.table[row]
        name = (bytes(one["segment"]) + b"," + bytes(one["name"])).decode("utf-8", "replace")
        findings.add(kind, name)


def _sets(before: Object) -> list[tuple[bytes, bytes]]:
    """(segment, section) of the sets of elements whose ends somebody wants."""
    names = [name.split(b"$") for name, _ in before.undefined if name.startswith(_SETS)]
    return [(words[2], words[3]) for words in names if len(words) == 4]


def _check_names(before: Object, after: Object, where: Locations, findings: Findings) -> None:
    old, new = where.section - 1, where.home - 1
    both = unique(old << 16 | new)
    old, new = both >> 16, both & 0xFFFF
    b, a = before.table[old], after.table[new]
    kind = b["flags"] & 0xFF
    pointers = kind == _POINTERS
    segment, name = b["segment"].copy(), b["name"].copy()
    segment[pointers], name[pointers], kind[pointers] = b"__DATA", b"__data", 0
    same = (segment == a["segment"]) & (name == a["name"]) & (kind == a["flags"] & 0xFF)
    for location in np.flatnonzero(~same).tolist():
        plain = (bytes(b["segment"][location]), bytes(b["name"][location]))
        own = plain[0], plain[1][: 16 - len(_SET_SUFFIX)] + _SET_SUFFIX
        there = (bytes(a["segment"][location]), bytes(a["name"][location]))
        is_set = there == own and not int(a["flags"][location]) & 0xFF and plain in _sets(before)
        if not is_set:
            said = ",".join(w.decode("utf-8", "replace") for w in plain)
            findings.add("a piece is in a section of another name or type", f"it was in {said}")


def are_alone(types: Array) -> Array:
    """bool for each section type: whether linkers take apart such a section by itself."""
    return np.asarray(_ALONE[types])


def _is_set(after: Object) -> Array:
    return np.array([bytes(n).endswith(_SET_SUFFIX) for n in after.table["name"]], np.bool_)


def _check_attributes(
    before: Object, after: Object, where: Locations, apart: Ranges, findings: Findings
) -> None:
    old, new = before.table["flags"][where.section - 1], where.home - 1
    some = np.zeros(len(after.table), np.uint32)
    every = np.full(len(after.table), 0xFFFFFFFF, np.uint32)
    np.bitwise_or.at(some, new, old)
    np.bitwise_and.at(every, new, old)
    every[_is_set(after)] = 0
    wanted = (some & ~np.uint32(_BY_ALL)) | (every & some & np.uint32(_BY_ALL))
    differ = (wanted ^ after.table["flags"]) & np.uint32(0xFFFFFF00)
    # commons say nothing of attributes
    differ[after.named(*COMMON) - 1] &= ~np.uint32(_BY_ALL)
    held = np.zeros(len(after.table), np.bool_)
    held[new] = True
    held[apart.home - 1] = False
    _tell(after, np.flatnonzero(held & (differ != 0)), "a section has other attributes", findings)


def _check_made(
    after: Object, where: Locations, apart: Ranges, debug: bool, findings: Findings
) -> None:
    """Sections that no piece is in."""
    empty = np.ones(len(after.table), np.bool_)
    empty[where.home - 1] = False
    empty[apart.home - 1] = False
    for row in np.flatnonzero(empty).tolist():
        one = after.table[row]
        name = bytes(one["segment"]), bytes(one["name"])
        flags, align = int(one["flags"]), int(one["align"])
        if name == COMMON:
            good = flags == 1
        elif name in _MADE:
            good = (flags, align) == _MADE[name]
        else:
            good = debug and name[0] == b"__DWARF" and (flags, align) == (_DEBUG, 0)
        if not good:
            _tell(after, np.array([row]), "a section that no input explains", findings)


def _check_whole(before: Object, where: Locations, findings: Findings) -> None:
    """A piece goes on to where something else begins: the next piece, a symbol, a literal."""
    rows = np.flatnonzero(where.size > 0)
    section = where.section[rows].astype(np.int64)
    end = where.start[rows] + where.size[rows]
    good = end == before.table["size"][section - 1]
    keys = (section << STEP) + end
    good |= is_among(keys, (where.section.astype(np.int64) << STEP) + where.start)
    e = before.entries
    label = np.flatnonzero(before.placed & (e["desc"] & ALT_ENTRY == 0) & (e["section"] > 0))
    home = e["section"][label].astype(np.int64)
    good |= is_among(keys, (home << STEP) + e["value"][label] - before.table["address"][home - 1])
    kind = before.table["flags"][section - 1] & 0xFF
    width = np.zeros(256, np.int64)
    width[[0x3, 0x4, 0x5, 0xE]] = 4, 8, 8, 16
    step = width[kind]
    good |= (step > 0) & (end % np.maximum(step, 1) == 0)
    rest = np.flatnonzero(~good)
    strings = before.octets[before.table["offset"][section[rest] - 1] + end[rest] - 1] == 0
    for n in rest[~(strings & (kind[rest] == 0x2))].tolist():
        findings.add("a piece is not whole", f"at {int(where.address[rows[n]]):#x}")


class Borders:
    """Where the subsections of the result begin: at symbols that are no alternate entries."""

    def __init__(self, after: Object) -> None:
        e = after.entries
        mine = np.flatnonzero(after.placed & (e["desc"] & ALT_ENTRY == 0) & (e["section"] > 0))
        order = np.lexsort((e["value"][mine], e["section"][mine]))
        self.section = e["section"][mine][order].astype(np.int64)
        self.value = e["value"][mine][order]
        self._object = after

    def before(self, home: Array, address: Array) -> Array:
        """The address at which the subsection of each place begins."""
        start = self._object.table["address"][home - 1]
        if not len(self.value):
            return np.asarray(start)
        # sections do not overlap: by address they are in order, and so are all borders
        order = np.argsort(self.value, kind="stable")
        value, section = self.value[order], self.section[order]
        at = np.searchsorted(value, address, side="right") - 1
        near = np.maximum(at, 0)
        found = np.where((at >= 0) & (value[near] >= start), value[near], start)
        # one at the end of the section before is none of this one
        wrong = (found == start) | (section[near] == home)
        return np.where(wrong, found, start)


def _check_alignment(
    before: Object,
    after: Object,
    where: Locations,
    borders: Borders,
    tolerated: tuple[bool, Ranges],
    findings: Findings,
) -> None:
    """A linker aligns a subsection as its place in the section is, as far as that is aligned."""
    old, new = where.section - 1, where.home - 1
    kind, align, start = (after.table[column][new] for column in ("flags", "align", "address"))
    most = np.int64(1) << np.minimum(before.table["align"][old], 40)
    wanted = np.where(where.start == 0, most, np.minimum(where.start & -where.start, most))
    begin = borders.before(where.home, where.address)
    alone = _ALONE[kind & 0xFF]
    begin = np.where(alone, where.address, begin)
    offset = begin - start
    room = np.int64(1) << np.minimum(align, 40)
    given = np.where(offset == 0, room, np.minimum(offset & -offset, room))
    bad = (where.size > 0) & ((given < wanted) | ((where.address - begin) % wanted != 0))
    for at in where.address[bad].tolist():
        findings.add("a piece lost its alignment", f"at {at:#x}")
    limit = np.zeros(len(after.table), np.int64)
    # the place of a hole may be aligned
    debug, apart = tolerated
    holes = debug & (before.table["flags"][old] & _CODE != 0)
    np.maximum.at(limit, where.home - 1, np.where(holes, most, wanted))
    over = (np.int64(1) << np.minimum(after.table["align"], 40)) > limit
    over[after.named(*COMMON) - 1] = False
    over &= (limit > 0) & ~_is_set(after)
    over[apart.home - 1] = False
    _tell(after, np.flatnonzero(over), "a section is more aligned than what is in it", findings)


def _check_cuts(after: Object, where: Locations, borders: Borders, findings: Findings) -> None:
    """No subsection begins within a piece: linkers could take it apart."""
    kinds = after.table["flags"][borders.section - 1] & 0xFF
    value = borders.value[~is_among(kinds, _BY_ITSELF)]
    order = np.flatnonzero(where.size > 0)
    order = order[np.argsort(where.address[order], kind="stable")]
    if not len(order):
        return
    start, end = where.address[order], (where.address + where.size)[order]
    at = np.searchsorted(start, value, side="right") - 1
    near = np.maximum(at, 0)
    for location in value[(at >= 0) & (start[near] < value) & (value < end[near])].tolist():
        findings.add("a subsection begins within a piece", f"at {location:#x}")


def _check_gaps(
    after: Object, where: Locations, apart: Ranges, debug: bool, findings: Findings
) -> None:
    """Between pieces is what aligns them, and nothing in lists that somebody walks over.

    Where debug information is kept, dead code leaves holes.
    """
    address = np.concatenate([where.address, apart.start])
    home = np.concatenate([where.home, apart.home])
    size = np.concatenate([where.size, apart.end - apart.start])
    order = np.lexsort((address, home))
    home, address, size = home[order], address[order], size[order]
    table = after.table
    room = np.int64(1) << np.minimum(table["align"], 40)
    dense = is_among(table["flags"] & 0xFF, INITIALISERS)
    dense |= np.array([bytes(n).startswith(_LISTS) for n in table["name"]], np.bool_)
    allowed = np.where(dense, 1, room)
    # the end of a set has room for its symbol
    ends = np.where(_is_set(after), np.maximum(room, 8) + 1, 1)
    holes = np.zeros(len(table), np.bool_)
    if debug:
        holes = table["flags"] & _CODE != 0
    holes[after.named(*COMMON) - 1] = True
    first = np.append(True, home[1:] != home[:-1])[: len(home)]
    stop = np.maximum.accumulate(address + size) if len(home) else address
    last = np.where(first, table["address"][home - 1], np.append(0, stop[:-1])[: len(home)])
    gap = address - last
    bad = (gap >= allowed[home - 1]) & ~holes[home - 1] & (gap > 0)
    _tell(after, home[bad] - 1, "bytes that no input explains", findings)
    final = np.append(home[1:] != home[:-1], True)[: len(home)]
    rest = (table["address"] + table["size"])[home[final] - 1] - stop[final]
    bad = (rest >= ends[home[final] - 1]) & ~holes[home[final] - 1]
    _tell(after, home[final][bad] - 1, "bytes that no input explains", findings)
