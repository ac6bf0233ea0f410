"""CodeView that is kept: each record is the original's, and none of what lives is lost.

Records are compared with numbers for what they refer to (`cvrecords`), and with the places in the
result of what they are about. Those of one scope belong together; what is of something that is not
in the result is left out. Sources: those of `cvrecords`; LLVM's lld, `COFF/PDB.cpp`, for which
parts of an object it reads; Microsoft PE/COFF specification, "COMDAT Sections (Object Only)".
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from cargo_strip_hook.verify.arrays import rows_of, unique
from cargo_strip_hook.verify.coff import cvrecords as cv
from cargo_strip_hook.verify.coff.compare import Made, references_after
from cargo_strip_hook.verify.coff.cvrecords import Numbers, Tables, UnreadableError
from cargo_strip_hook.verify.coff.locations import (
    LOCATION,
    NAME,
    NOWHERE,
    STEP,
    Definitions,
    Pair,
    fallback,
    meanings,
)
from cargo_strip_hook.verify.coff.read import ASSOCIATIVE, CODE, Array, Object

_SYMBOLS, _TYPES, _PRECOMPILED = b".debug$S", b".debug$T", b".debug$P"
# IMAGE_REL_*_SECTION: the number of a section, in two bytes
_SECTION = {0x14C: 0xA, 0x8664: 0xA, 0xAA64: 0xD}
_GONE, _ALWAYS = -1, 0  # homes that are no section of the result

# what is told: the section whose COMDAT it goes with, the place it is of or -1, and the records
_Told = tuple[int, int, bytes]


@dataclass
class _Refers:
    """The relocations of one `.debug$S`, sorted by offset.

    `about`: the place in the result that each refers to, -1 for what is no place; `gone`: whether
    what it refers to is not there; `said`: all of it, for comparing.
    """

    offset: list[int]
    width: list[int]
    about: list[int]
    gone: list[bool]
    said: list[bytes]
    read: int = 0  # how many were in records

    def within(self, start: int, stop: int) -> range:
        return range(bisect_left(self.offset, start), bisect_left(self.offset, stop))


@dataclass
class _File:
    """What the CodeView of one file says; `types`, `files` and `inlinees` by their numbers."""

    told: Counter[_Told] = field(default_factory=Counter)
    names: set[bytes] = field(default_factory=set)  # of objects: one is enough
    types: set[int] = field(default_factory=set)
    files: set[int] = field(default_factory=set)
    inlinees: set[bytes] = field(default_factory=set)
    fault: str = ""  # why it cannot be read

    def add(self, other: _File) -> None:
        self.told += other.told
        self.names |= other.names
        self.types |= other.types
        self.files |= other.files
        self.inlinees |= other.inlinees


def check(pair: Pair, definitions: Definitions, made: Made) -> None:
    """A member's CodeView is there as a whole, but that of members which cannot be read is not."""
    numbers, after = Numbers(), pair.after
    refers = _refers_after(pair)
    result = _read(after, numbers, refers, _homes_after(after), whole=True)
    if result.fault:
        pair.findings.add("CodeView: damaged", result.fault)
        return
    _check_location(pair, refers)
    wanted, allowed = _File(), _File()
    origin: dict[_Told, int] = {}
    comdats = after.selections
    placed = set(unique(pair.position).tolist())
    for m, o in enumerate(pair.objects):
        if not _has_codeview(o):
            continue
        refers, homes = _refers_before(pair, definitions, made, m), _homes_before(pair, m)
        mine = _read(o, numbers, refers, homes)
        mine.told = Counter({_at_home(one, comdats): n for one, n in mine.told.items()})
        if mine.fault or m not in placed:
            allowed.types |= mine.types
            allowed.files |= mine.files
        if not mine.fault:
            (wanted if m in placed else allowed).add(mine)
            for one in mine.told:
                origin.setdefault(one, m)
    _check_tables(pair, result, wanted, allowed)
    _check_told(pair, result, wanted, allowed, origin)


def _has_codeview(o: Object) -> bool:
    return _SYMBOLS in o.names or _TYPES in o.names


def _check_location(pair: Pair, refers: dict[int, _Refers]) -> None:
    """References are in records."""
    o = pair.after
    for n, mine in refers.items():
        if mine.read != len(mine.offset):
            pair.findings.add("CodeView: references", f"of {pair.where(n << STEP)} are of nothing")
    rows = unique(o.relocations["section"]).tolist()
    if any(o.names[n].startswith(b".debug$") and o.names[n] != _SYMBOLS for n in rows):
        pair.findings.add("CodeView: references", "are where there are no symbols")


def _at_home(one: _Told, comdats: dict[int, tuple[int, int, int]]) -> _Told:
    """Where a linker drops it with what it is of: what goes with no COMDAT goes with none."""
    home, about, records = one
    home = home or max(about, 0) >> STEP
    return (home if home in comdats else _ALWAYS), about, records


def _check_tables(pair: Pair, result: _File, wanted: _File, allowed: _File) -> None:
    for what in ("types", "files", "inlinees"):
        have, must = getattr(result, what), getattr(wanted, what)
        lost, more = len(must - have), len(have - must - getattr(allowed, what))
        if lost:
            pair.findings.add(f"CodeView: {what}", f"{lost} of the original's are lost")
        if more:
            pair.findings.add(f"CodeView: {what}", f"{more} are not the original's")
    if result.names - wanted.names - allowed.names or (wanted.names and not result.names):
        pair.findings.add("CodeView: the object's name", "is another one")


def _check_told(
    pair: Pair, result: _File, wanted: _File, allowed: _File, origin: dict[_Told, int]
) -> None:
    """`origin`: the member that each thing is told in."""
    there = {(home, about) for home, about, _ in result.told}
    for one, count in wanted.told.items():
        home, about, _ = one
        # what goes with no section is told once where it is the same
        if result.told[one] < (count if home != _ALWAYS else 1):
            what = "differs" if (home, about) in there else "is lost"
            text = f"of {_location(pair, about)} from {pair.titles[origin[one]]} {what}"
            pair.findings.add("CodeView", text)
    for one, count in result.told.items():
        if count > wanted.told[one] + allowed.told[one]:
            text = f"of {_location(pair, one[1])} is not the original's"
            pair.findings.add("CodeView", text)


def _location(pair: Pair, about: int) -> str:
    return pair.where(about) if about >= 0 else "the library"


# what records refer to


def _refers_after(pair: Pair) -> dict[int, _Refers]:
    o = pair.after
    rows = _relocations(o)
    meant = references_after(pair, rows)
    gone = np.zeros(len(rows), np.bool_)
    return _by_section(o, rows, meant.kind, meant.base, gone)


def _relocations(o: Object) -> Array:
    """Those of `.debug$S` that say anything, by section and offset."""
    mine = np.array([name == _SYMBOLS for name in o.names], np.bool_)
    rows = rows_of(o.relocations, mine[o.relocations["section"]] & (o.relocations["type"] != 0))
    return rows_of(rows, np.lexsort((rows["offset"], rows["section"])))


def _refers_before(
    pair: Pair, definitions: Definitions, made: Made, member: int
) -> dict[int, _Refers]:
    o = pair.objects[member]
    rows = _relocations(o)
    symbol, which = np.unique(rows["symbol"], return_inverse=True)
    kind, base, gone = _meant(pair, definitions, made, member, symbol)
    return _by_section(o, rows, kind[which], base[which], gone[which])


def _meant(
    pair: Pair, definitions: Definitions, made: Made, member: int, symbol: Array
) -> tuple[Array, Array, Array]:
    """(kind, base, whether it is not in the result) of what symbols of a member mean.

    What is said of a member's own definition holds for that, and for another one that a linker took
    instead only if it is as large.
    """
    o = pair.objects[member]
    meaning = meanings(pair, definitions, member)
    kind, base = meaning.kind[symbol].astype(np.int64), meaning.base[symbol].copy()
    section = o.symbols["section"][symbol].astype(np.int64)
    value = o.symbols["value"][symbol].astype(np.int64)
    own = np.flatnonzero(section > 0)
    location = np.full(len(symbol), -1, np.int64)
    location[own] = pair.find(member, section[own], value[own])
    gone = (section > 0) & (location < 0)
    for i in np.flatnonzero(gone & (kind == LOCATION)).tolist():
        gone[i] = not _as_large(pair, member, int(section[i]), int(base[i]) - int(value[i]))
    kind[location >= 0], base[location >= 0] = LOCATION, location[location >= 0]
    for i, other in _weak_functions(pair, member):
        if (row := int(np.searchsorted(symbol, i))) < len(symbol) and symbol[row] == i:
            numbers = o.symbols["section"][[other]], o.symbols["value"][[other]].astype(np.int64)
            base[row] = pair.find(member, *numbers)[0]
            kind[row], gone[row] = LOCATION, base[row] < 0
    for i in np.flatnonzero((kind == NAME) & ~gone).tolist():
        kind[i], base[i], gone[i] = _named(pair, definitions, made, int(base[i]))
    return kind, base, gone | (kind == NOWHERE)


def _as_large(pair: Pair, member: int, section: int, begin: int) -> bool:
    """Whether the piece that begins at a place has the size of a member's section."""
    row = np.flatnonzero(pair.location == begin)
    size = int(pair.objects[member].sections["size"][section])
    return bool((pair.rows["size"][row] == size).any())


def _weak_functions(pair: Pair, member: int) -> Iterator[tuple[int, int]]:
    """(weak external, what the member itself defines for it): lines are of the member's own."""
    o, ext = pair.objects[member], pair.before[member]
    for i, other in zip(ext.index[ext.weak].tolist(), ext.fallback, strict=True):
        if other < len(o.symbols) and not o.auxiliary[other]:
            section = int(o.symbols["section"][other])
            if section > 0 and int(o.sections["flags"][section]) & CODE:
                yield i, other


def _named(pair: Pair, definitions: Definitions, made: Made, name: int) -> tuple[int, int, bool]:
    """(kind, base, whether it is not in the result) of a name that no member's section defines."""
    if name in made.common:
        return LOCATION, made.common[name], False
    if name in definitions.common:
        ext, symbols = pair.result, pair.after.symbols
        rows = ext.index[ext.name == name]
        for section, value in symbols[["section", "value"]][rows].tolist():
            if section > 0:
                return LOCATION, (section << STEP) + value, False
            return NAME, name, False
        return NAME, name, True
    if name in definitions.defined:
        return NAME, name, True
    if name in definitions.fallback:
        return *fallback(pair, definitions, name), False
    return NAME, name, False


def _by_section(
    o: Object, rows: Array, kind: Array, base: Array, gone: Array
) -> dict[int, _Refers]:
    """By `.debug$S`; arrays by row of `rows`, which are sorted."""
    short = rows["type"] == _SECTION[o.machine]
    number = rows["field"] & np.where(short, np.uint64(0xFFFF), np.uint64(0xFFFF_FFFF))
    number = number.astype(np.int64)
    placed = kind == LOCATION
    # of a section's number the place in it does not matter
    first = np.where(short, np.where(placed, base >> STEP, base), base + number)
    second = np.where(short, number, 0)
    first, second = (
        np.where(kind == NAME, base, first),
        np.where(kind == NAME, number, second),
    )
    about = np.where(placed & ~short & ~gone, base + number, -1)
    columns = (rows["type"], kind, first, second)
    said = [struct.pack("<HBqq", *row) for row in zip(*(c.tolist() for c in columns), strict=True)]
    starts = np.searchsorted(rows["section"], np.arange(len(o.names) + 1)).tolist()
    return {
        n: _Refers(
            rows["offset"][a:b].tolist(),
            np.where(short, 2, 4)[a:b].tolist(),
            about[a:b].tolist(),
            gone[a:b].tolist(),
            said[a:b],
        )
        for n in range(1, len(o.names))
        if o.names[n] == _SYMBOLS
        for a, b in [starts[n : n + 2]]
    }


# where it is kept


def _homes_after(o: Object) -> dict[int, int]:
    """The section that each `.debug$S` goes with."""
    homes = {n: _ALWAYS for n in range(1, len(o.names)) if o.names[n] == _SYMBOLS}
    for n in homes:
        selection, parent, _ = o.selections.get(n, (0, 0, -1))
        homes[n] = parent if selection == ASSOCIATIVE else _GONE if selection else _ALWAYS
    return homes


def _homes_before(pair: Pair, member: int) -> dict[int, int]:
    """The same in the result, of a member's; `_GONE` for what goes with what is not there."""
    homes = _homes_after(pair.objects[member])
    for n, parent in homes.items():
        if parent > 0:
            size = len(pair.objects[member].sections)
            section = np.array([parent if parent < size else 0], np.int64)
            location = int(pair.find(member, section, np.zeros(1, np.int64))[0])
            homes[n] = location >> STEP if location >= 0 else _GONE
    return homes


# reading


def _read(
    o: Object,
    numbers: Numbers,
    refers: dict[int, _Refers],
    homes: dict[int, int],
    *,
    whole: bool = False,
) -> _File:
    """What a file says. `fault` tells why it cannot be read; types and files may be known then.

    `whole`: all that is said of inlined functions counts, and what linkers take one of has to be
    where they do not drop it.
    """
    out = _File()
    try:
        _read_into(out, o, numbers, refers, homes, whole)
    except (UnreadableError, struct.error, IndexError) as e:
        out.fault = str(e)
    return out


def _read_into(
    out: _File,
    o: Object,
    numbers: Numbers,
    refers: dict[int, _Refers],
    homes: dict[int, int],
    whole: bool,
) -> None:
    tables = [n for n in range(1, len(o.names)) if o.names[n] == _TYPES]
    if len(tables) > 1 or _PRECOMPILED in o.names:
        raise UnreadableError("types in another place")
    types: list[int] = []
    fault: UnreadableError | None = None
    try:
        types = cv.types(o.contents(tables[0]), numbers) if tables else []
    except UnreadableError as e:
        fault = e  # its files may be told of all the same
    out.types = set(types)
    sections = {n: o.contents(n) for n, home in homes.items() if home != _GONE}
    stay = {n: data for n, data in sections.items() if homes[n] == _ALWAYS or not whole}
    known = cv.tables_of(stay, numbers, types)
    out.files = set(known.files.values())
    if fault is not None:
        raise fault
    inlined: set[int] = set()
    inlinees: list[bytes] = []
    for n, data in sections.items():
        for kind, start, end in cv.parts(data):
            if kind == cv.SYMBOLS:
                _add_symbols(out, known, (homes[n], data, refers[n]), (start, end), inlined)
            elif kind in (cv.LINES, cv.FRAMES):
                _add_lines(out, known, (homes[n], data, refers[n]), (kind, start, end))
            elif kind == cv.INLINEES and n in stay:
                inlinees.append(data[start:end])
            elif kind not in cv.KINDS and not kind & cv.IGNORED:
                raise UnreadableError(f"a part of the kind {kind:#x}")
    out.inlinees = {
        one for part in inlinees for n, one in known.inlinees(part) if whole or n in inlined
    }


_Source = tuple[int, bytes, _Refers]


def _add_lines(out: _File, known: Tables, source: _Source, part: tuple[int, int, int]) -> None:
    home, data, refers = source
    kind, start, end = part
    about, gone = _first(refers, start, end)
    if gone:
        return
    text, said = _cleared(data, refers, start, end)
    text = known.lines(text) if kind == cv.LINES else known.frames(text)
    out.told[home, about, bytes([kind]) + text + said] += 1


def _add_symbols(
    out: _File, known: Tables, source: _Source, part: tuple[int, int], inlined: set[int]
) -> None:
    """Add what is at the top and is not gone, each with all of its scope."""
    home, data, refers = source
    depth = dead = 0  # dead: the depth of the scope that is left out
    scope: list[bytes] = []
    about, leaf = -1, 0
    for kind, start, end in cv.records(data, *part):
        opens = kind in cv.OPENING
        top = depth == 0
        location, gone = -1, False
        if top or opens or kind in cv.VARIABLES:
            location, gone = _first(refers, start, end)
        depth += opens
        if gone and opens and not dead:
            dead = depth
        if not gone and not dead:
            if top:
                about, leaf, scope = location, kind, []
            record, said = _cleared(data, refers, start, end)
            scope += (known.symbol(kind, record), said)
            if kind in cv.ANNOTATED:
                inlined.add(cv.word(record, 12))
        if kind in cv.CLOSING:
            if depth == dead:
                dead = 0
            depth -= 1
            if depth < 0:
                raise UnreadableError("the end of a scope that has none")
        if depth == 0 and scope:
            if leaf == cv.NAME and home == _ALWAYS:
                out.names.add(b"".join(scope))
            else:
                out.told[home, about, b"".join(scope)] += 1
            scope = []
    if depth:
        raise UnreadableError("a scope has no end")


def _first(refers: _Refers, start: int, end: int) -> tuple[int, bool]:
    """(place, whether it is gone) of what a record refers to first."""
    for i in refers.within(start, end):
        return refers.about[i], refers.gone[i]
    return -1, False


def _cleared(data: bytes, refers: _Refers, start: int, end: int) -> tuple[bytes, bytes]:
    """(a record without what relocations decide, what these say)."""
    rows = refers.within(start, end)
    if not rows:
        return data[start:end], b""
    record = bytearray(data[start:end])
    said: list[bytes] = []
    for i in rows:
        begin = refers.offset[i] - start
        record[begin : begin + refers.width[i]] = bytes(refers.width[i])
        if not refers.gone[i]:
            said += (begin.to_bytes(4, "little"), refers.said[i])
    refers.read += len(rows)
    return bytes(record), b"".join(said)


__all__ = ["check"]
