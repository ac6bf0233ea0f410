"""The symbols of the result: where exports are, what n_type and n_desc say, and local names.

Source: mach-o/nlist.h.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np

from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.verify.arrays import Array, gather, is_among, unique
from cargo_strip_hook.verify.expectation import Findings
from cargo_strip_hook.verify.kit.names import shown
from cargo_strip_hook.verify.macho.locations import Locations
from cargo_strip_hook.verify.macho.read import ALT_ENTRY, STEP, WEAK_DEF, Object
from cargo_strip_hook.verify.macho.sections import Borders

_EXTERNAL = 0x01
_CODE = 0x80000400
_WEAK_REF, _KEPT, _DYNAMIC, _COLD = 0x40, 0x20, 0x10, 0x400
# of an export: weak definitions (also those that may be hidden), resolvers, cold functions
_OF_DEFINITIONS = 0x05D0
_OF_LOCALS = 0x0100 | ALT_ENTRY | _KEPT | _DYNAMIC | _COLD


def check_externals(
    before: Object,
    after: Object,
    chosen: Callable[[bytes], tuple[int, int]],
    personalities: Collection[bytes],
    findings: Findings,
) -> None:
    """Each external definition is the original's: its place or value, and its marks.

    `chosen`: name -> (its address in the result, the symbol of the original that counts), -1 for
    none.
    `personalities` are only there to be coalesced.
    """
    numbers = after.externals()
    names = after.names(numbers)
    if len(set(names)) != len(names):
        findings.add("defined twice", "an external name")
    absolute = _absolute(before)
    rows = after.entries[numbers]
    for name, row in zip(names, rows, strict=True):
        kind, desc, value = int(row["type"]), int(row["desc"]), int(row["value"])
        if kind & 0xE == 0xE:
            address, symbol = chosen(name)
            if address < 0:
                text = f"{shown(name)}, which no member that is used defines"
                findings.add("an export is at another place", text)
                continue
            if address != value:
                findings.add("an export is at another place", shown(name))
            old = before.entries[symbol]
            wanted = int(old["type"]) & 0x1F, int(old["desc"]) & _OF_DEFINITIONS
            if name in personalities:
                wanted = 0x1F, WEAK_DEF
            if (kind, desc & ~(ALT_ENTRY | _KEPT)) != wanted:
                findings.add("an export changed", f"type or marks of {shown(name)}")
        elif kind in (0x3, 0x13):
            if absolute.get(name) != value:
                findings.add("an export changed", f"value of {shown(name)}")
        elif kind != _EXTERNAL:
            findings.add("a symbol of unknown type", f"{shown(name)}: {kind:#x}")


def _absolute(o: Object) -> dict[bytes, int]:
    numbers = np.flatnonzero(o.entries["type"] & 0xEF == 0x3)
    return dict(zip(o.names(numbers), o.entries["value"][numbers].tolist(), strict=True))


def check_outside(
    before: Object, after: Object, others: Callable[[], list[Object]], findings: Findings
) -> None:
    """Undefined and common symbols: as weak, as large and as aligned as in the members.

    `others` gives all members of the original: one may be loaded and have no part in the result.
    """
    numbers = np.flatnonzero(after.entries["type"] & 0xEE == 0)
    names = after.names(numbers)
    rows = after.entries[numbers]
    odd = (rows["type"] != _EXTERNAL) | (rows["section"] != 0)
    for n in np.flatnonzero(odd).tolist():
        findings.add("a symbol of unknown type", f"{shown(names[n])}: {int(rows['type'][n]):#x}")
    wanted = frozenset(names)
    mine = _Outside([before], wanted)
    every: _Outside | None = None
    for name, row in zip(names, rows, strict=True):
        told = int(row["value"]), int(row["desc"])
        if told in mine.said(name):
            continue
        every = every or _Outside(others(), wanted)
        if told not in every.said(name):
            findings.add("an undefined or common symbol changed", shown(name))


class _Outside:
    """What objects say of the names that they do not define in a section, if these are `wanted`."""

    def __init__(self, objects: list[Object], wanted: Collection[bytes]) -> None:
        self._size: dict[bytes, int] = {}
        self._align: dict[bytes, int] = {}
        self._strong: set[bytes] = set()
        for o in objects:
            numbers = np.flatnonzero(o.entries["type"] & 0xEF == _EXTERNAL)
            said = o.entries["desc"][numbers].tolist()
            for (name, size), desc in zip(o.undefined, said, strict=True):
                if name not in wanted:
                    continue
                self._size[name] = max(size, self._size.get(name, 0))
                if size:
                    power = desc >> 8 & 0xF or min((size - 1).bit_length(), 12)
                    self._align[name] = max(power, self._align.get(name, 0))
                elif not desc & _WEAK_REF:
                    self._strong.add(name)

    def said(self, name: bytes) -> tuple[tuple[int, int], ...]:
        """(n_value, n_desc) that one symbol for all may have."""
        size = self._size.get(name, 0)
        if size:
            return ((size, self._align[name] << 8),)
        return ((0, 0 if name in self._strong else _WEAK_REF),)


def check_locals(
    before: Object,
    after: Object,
    where: Locations,
    read_of_it: tuple[Mapping[bytes, Collection[int]], Array, tuple[Array, Array]],
    strip: Strip,
    findings: Findings,
) -> None:
    """Local symbols: types and marks, and names that the members have for the place.

    `read_of_it`: name -> the places of commons that got one, the result's references, and what
    always lives (see `roots.living`).
    """
    commons, references, alive = read_of_it
    e = after.entries
    numbers = np.flatnonzero(e["type"] & _EXTERNAL == 0)
    rows = e[numbers]
    odd = ~is_among(rows["type"], np.array([0x0E, 0x02], np.uint8)) | (
        rows["desc"].astype(np.int64) & ~_OF_LOCALS != 0
    )
    odd |= (rows["type"] == 0x02) & ((rows["section"] != 0) | (rows["desc"] != 0))
    for name in after.names(numbers[odd]):
        findings.add("a local symbol changed", f"type or marks of {shown(name)}")
    _check_marks(before, after, where, findings)
    _check_kept(after, where, alive, findings)
    there = {(at, name) for name, locations in commons.items() for at in locations}
    _check_names(before, after, where, numbers, there, findings)
    _check_locations(before, after, where, numbers, references, findings)
    if strip is not Strip.SYMBOLS:
        _check_kept_names(before, after, where, findings)


def _check_locations(
    before: Object,
    after: Object,
    where: Locations,
    numbers: Array,
    references: Array,
    findings: Findings,
) -> None:
    """A local symbol is at a piece, at a symbol of the members, or somebody refers to it."""
    rest = unneeded(before, after, where, numbers, references)
    for at in after.entries["value"][rest].tolist():
        findings.add("a local symbol that nothing needs", f"at {at:#x}")


def unneeded(
    before: Object, after: Object, where: Locations, numbers: Array, references: Array
) -> Array:
    """Of these symbols of the result those that are at no piece, and nobody refers to."""
    numbers = numbers[after.placed[numbers]]
    values = after.entries["value"][numbers]
    named = np.zeros(len(after.entries), np.bool_)
    for column in ("symbol", "minus"):
        named[references[column][references[column] >= 0]] = True
    rest = ~named[numbers] & ~is_among(values, where.address)
    if rest.any():
        placed = np.flatnonzero(before.placed)
        rest &= ~is_among(values, where.address + where.size)
        rest &= ~is_among(values, where.of_symbols(placed))
        rest &= ~is_among(values, _in_holes(before, where, placed))
    return np.asarray(numbers[rest])


def _in_holes(before: Object, where: Locations, placed: Array) -> Array:
    """Where symbols of dead code would be, in sections that kept their order.

    Of a set each object may have a part of a section.
    """
    section = before.entries["section"][placed]
    offset = before.entries["value"][placed] - before.table["address"][np.maximum(section, 1) - 1]
    file = where.address >> STEP
    found = [np.zeros(0, np.int64)]
    for number in unique(file).tolist():
        mine = file == number
        delta = np.full(len(before.table) + 1, -1, np.int64)
        delta[where.section[mine]] = where.address[mine] - where.start[mine]
        found.append(np.where(delta[section] >= 0, delta[section] + offset, -1))
    return np.concatenate(found)


def _check_kept_names(before: Object, after: Object, where: Locations, findings: Findings) -> None:
    """Functions that had a local name have one, by which backtraces and debuggers know them."""
    text = np.frombuffer(before.text, np.uint8)
    e = before.entries
    old = np.flatnonzero(before.placed & (e["type"] & 0xE1 == 0))
    old = old[before.table["flags"][np.maximum(e["section"][old], 1) - 1] & _CODE != 0]
    first = text[e["name"][old]]
    named = (first != 0) & (first != ord("L")) & (first != ord("l"))
    at = where.of_symbols(old[named])
    new = np.flatnonzero(after.placed)
    unnamed = gather(
        np.frombuffer(after.text + bytes(2), np.uint8), after.entries["name"][new], np.dtype("S2")
    )
    has = after.entries["value"][new[unnamed != b"l"]]
    lost = (at >= 0) & ~is_among(at, has)
    for name in before.names(old[named][lost]):
        findings.add("a local name is lost", shown(name))


def _check_marks(before: Object, after: Object, where: Locations, findings: Findings) -> None:
    """Marks of definitions stay at their places, and only what is kept is said to be."""
    value, desc = after.entries["value"], after.entries["desc"]
    placed = np.flatnonzero(after.placed)
    old = np.flatnonzero(before.placed & (before.entries["desc"] & (_DYNAMIC | _COLD) != 0))
    at = where.of_symbols(old)
    for bit in (_DYNAMIC, _COLD):
        marked = unique(at[(at >= 0) & (before.entries["desc"][old] & bit != 0)])
        wanted = is_among(value[placed], marked)
        for n in placed[wanted != (desc[placed] & bit != 0)].tolist():
            findings.add("a mark changed", f"{bit:#x} at {int(value[n]):#x}")


def _check_kept(
    after: Object, where: Locations, alive: tuple[Array, Array], findings: Findings
) -> None:
    """A subsection that linkers must keep has something in it that they had to keep."""
    root, numbers = alive
    at = where.of_symbols(numbers)
    borders = Borders(after)
    kept = np.concatenate([where.address[root], at[at >= 0]])
    homes = after.sections_at(kept)
    homes = np.where(homes > 0, homes, 1)
    begins = unique(borders.before(homes, kept))
    marked = np.flatnonzero(after.placed & (after.entries["desc"] & _KEPT != 0))
    home = np.maximum(after.entries["section"][marked].astype(np.int64), 1)
    value = after.entries["value"][marked]
    good = is_among(borders.before(home, value), begins) | is_among(value, kept)
    for location in value[~good].tolist():
        findings.add("could be dropped before", f"what is at {location:#x}")


def _check_names(
    before: Object,
    after: Object,
    where: Locations,
    numbers: Array,
    there: set[tuple[int, bytes]],
    findings: Findings,
) -> None:
    """A local name is one that a member has for the place; repeated ones have a number behind."""
    numbers = numbers[after.placed[numbers]]
    names = after.names(numbers)
    named = np.array([name != b"l" for name in names], np.bool_)
    if not named.any():
        return
    numbers, names = numbers[named], [name for name in names if name != b"l"]
    values = after.entries["value"][numbers]
    old = np.flatnonzero(before.placed & (before.entries["type"] & 0xE0 == 0))
    piece, at = where.pieces_of_symbols(old)
    old, piece, at = old[at >= 0], piece[at >= 0], at[at >= 0]
    order = np.argsort(at, kind="stable")
    old, home, at = old[order], where.home[piece[order]], at[order]
    # most places have one name, and it is the same
    likely, here = [b""] * len(names), [False] * len(names)
    if len(at):
        first = np.minimum(np.searchsorted(at, values), len(at) - 1)
        likely, here = before.names(old[first]), (at[first] == values).tolist()
        section = after.entries["section"][numbers]
        # where one section ends and another begins, an address does not say which is meant
        for row in np.flatnonzero((at[first] == values) & (home[first] != section)).tolist():
            if section[row] not in home[at == values[row]]:
                findings.add("a local symbol changed", f"section of {shown(names[row])}")
    unequal = [
        (n, name)
        for n, name, one, there_too in zip(numbers.tolist(), names, likely, here, strict=True)
        if name != one or not there_too or name[:1] == b"L"
    ]
    if not unequal:
        return
    locations = after.entries["value"][[n for n, _ in unequal]]
    chosen = np.flatnonzero(is_among(at, locations))
    there.update(zip(at[chosen].tolist(), before.names(old[chosen]), strict=True))
    for (_, name), location in zip(unequal, locations.tolist(), strict=True):
        start, dot, count = name.rpartition(b".")
        again = bool(dot) and count.isdigit() and (location, start) in there
        if name[:1] == b"L" or not ((location, name) in there or again):
            findings.add(
                "a local name that the original has not", f"{shown(name)} at {location:#x}"
            )
