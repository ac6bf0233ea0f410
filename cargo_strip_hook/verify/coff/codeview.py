"""CodeView that is kept: each live function has its lines and its record, and no other has any.

Types and what is said of variables are not compared. Sources: Microsoft's microsoft-pdb, `cvinfo.h`
(PROCSYM32, CV_DebugSSubsectionHeader_t, CV_DebugSLinesHeader_t); LLVM, "The PDB File Format",
"CodeView Symbol Records" and "CodeView Type Records" for what they leave out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from cargo_strip_hook.verify.coff.places import PLACE, STEP, Definitions, Pair, meanings
from cargo_strip_hook.verify.coff.read import Array, Damaged, Object
from cargo_strip_hook.verify.kit.names import shown

_SYMBOLS, _LINES, _STRINGS, _FILES = 0xF1, 0xF2, 0xF3, 0xF4
# S_LPROC32, S_GPROC32, S_LPROC32_ID, S_GPROC32_ID, and what they are without a table of ids
_PROCEDURES = {0x110F: 0x110F, 0x1110: 0x1110, 0x1146: 0x110F, 0x1147: 0x1110}
_SECREL = {0x14C: 0xB, 0x8664: 0xB, 0xAA64: 0x8}
_ADDRESS = 0x7
_SECTION = {0x14C: 0xA, 0x8664: 0xA, 0xAA64: 0xD}

# Of a function: its lines, or its record, told without places.
_Told = tuple[object, ...]
# Symbols and what is added to each: the places in the result, -1 for none.
_Places = Callable[[Array, Array], Array]


def check(pair: Pair, found: Definitions) -> None:
    """Compare what is told of functions. A file's CodeView may be left out, but as a whole."""
    after = pair.after
    _check_pairs(pair)

    def there(symbol: Array, added: Array) -> Array:
        section, value = after.symbols["section"][symbol], after.symbols["value"][symbol]
        return np.asarray((section.astype(np.int64) << STEP) + value + added)

    try:
        result = _read(after, there)
    except (Damaged, struct.error, IndexError) as e:
        pair.findings.add("CodeView", f"is damaged: {e}")
        return
    known: set[int] = set()
    for member, o in enumerate(pair.objects):
        try:
            wanted = _read(o, partial(_found, pair, found, member))
        except (Damaged, struct.error, IndexError):
            continue  # it is left out
        mine = wanted.keys() - {-1}
        if not mine & result.keys():
            continue
        known |= mine
        for place in sorted(mine):
            if result.get(place) != wanted[place]:
                what = "differs" if place in result else "is lost"
                text = f"of {pair.where(place)} from {pair.titles[member]} {what}"
                pair.findings.add("CodeView", text)
    for place in sorted(result.keys() - known):
        pair.findings.add("CodeView", f"of {pair.where(place)} is not the original's")


def _check_pairs(pair: Pair) -> None:
    """References are the offset of a symbol in its section and, mostly behind it, that section."""
    o = pair.after
    secrel, number = _SECREL[o.machine], _SECTION[o.machine]
    for section in range(1, len(o.names)):
        rows = o.relocations[o.relocations["section"] == section]
        if not len(rows) or o.names[section] not in (b".debug$S", b".debug$T"):
            continue
        rows = rows[np.argsort(rows["offset"], kind="stable")]
        offset, kind = rows["offset"], rows["type"]
        # on i686 what is told of frames is by address
        frames = kind == _ADDRESS if o.machine == 0x14C else np.zeros(len(kind), np.bool_)
        bad = (kind != secrel) & (kind != number) & ~frames
        end = offset + np.where(kind == number, 2, 4)
        beside = (kind[:-1] == secrel) & (kind[1:] == number) & (offset[1:] == end[:-1])
        # a table of jumps has two of each, side by side
        beside[1:] &= (kind[:-2] != secrel) | (end[:-2] != offset[1:-1])
        bad[1:] |= offset[1:] < end[:-1]
        bad[1:] |= beside & (rows["symbol"][1:] != rows["symbol"][:-1])
        if o.names[section] != b".debug$S" or bad.any():
            text = f"of {shown(o.names[section])}[{section}] are not as they are made"
            pair.findings.add("CodeView: references", text)


def _found(pair: Pair, found: Definitions, member: int, symbol: Array, added: Array) -> Array:
    """Places of a member's symbols in the result; of a name what it stands for.

    What is said of a weak function is said of the member's own, whoever else defines it.
    """
    o = pair.objects[member]
    section, value = o.symbols["section"].astype(np.int64), o.symbols["value"].astype(np.int64)
    for i, other in _weak_functions(pair, member):
        section[i], value[i] = section[other], value[other]
    section, value = section[symbol], value[symbol]
    meaning = meanings(pair, found, member)
    elsewhere = np.where(meaning.kind[symbol] == PLACE, meaning.base[symbol] + added, -1)
    return np.where(section > 0, pair.find(member, section, value + added), elsewhere)


def _weak_functions(pair: Pair, member: int) -> list[tuple[int, int]]:
    """(weak external, what the member itself defines for it)."""
    o, ext = pair.objects[member], pair.before[member]
    rows = zip(ext.index[ext.weak].tolist(), ext.fallback, strict=True)
    known = [(i, other) for i, other in rows if other < len(o.symbols) and not o.auxiliary[other]]
    return [(i, other) for i, other in known if o.symbols["section"][other] > 0]


def _read(o: Object, places: _Places) -> dict[int, list[_Told]]:
    """What is told of the function at each place, sorted; -1 for those that are nowhere."""
    tables = [n for n in range(1, len(o.names)) if o.names[n] == b".debug$S"]
    parts = [(n, kind, begin, data) for n in tables for kind, begin, data in _parts(o.contents(n))]
    strings = b"".join(data for _, kind, _, data in parts if kind == _STRINGS)
    files = b"".join(data for _, kind, _, data in parts if kind == _FILES)
    found: dict[int, list[_Told]] = {}
    of_section: dict[int, dict[int, int]] = {}
    for number, kind, begin, data in parts:
        if kind not in (_LINES, _SYMBOLS):
            continue
        if number not in of_section:
            of_section[number] = _targets(o, number, places)
        read = _lines(data, strings, files) if kind == _LINES else _procedures(data)
        for field, told in read:
            target = of_section[number].get(begin + field)
            if target is None:
                raise Damaged("a function has no relocation")
            found.setdefault(target, []).append(told)
    return {at: sorted(told, key=repr) for at, told in found.items()}


def _parts(contents: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(kind, where the contents begin, contents) of each subsection."""
    if contents[:4] != b"\4\0\0\0":
        raise Damaged("a .debug$S of another version")
    at = 4
    while at < len(contents):
        kind, size = struct.unpack_from("<II", contents, at)
        if at + 8 + size > len(contents):
            raise Damaged("a subsection is cut short")
        yield kind, at + 8, contents[at + 8 : at + 8 + size]
        at += 8 + -(-size // 4) * 4


def _targets(o: Object, section: int, places: _Places) -> dict[int, int]:
    """The place that each field with an offset in a section refers to."""
    rows = o.relocations[o.relocations["section"] == section]
    rows = rows[rows["type"] == _SECREL[o.machine]]
    added = (rows["field"] & np.uint64(0xFFFF_FFFF)).astype(np.int64)
    return dict(zip(rows["offset"].tolist(), places(rows["symbol"], added).tolist(), strict=True))


def _file(number: int, strings: bytes, files: bytes) -> tuple[bytes, bytes]:
    """Name and checksum of a file."""
    name, size, kind = struct.unpack_from("<IBB", files, number)
    end = strings.index(b"\0", name) if name < len(strings) else -1
    if end < 0:
        raise Damaged("a file has no name")
    return strings[name:end], bytes([kind]) + files[number + 6 : number + 6 + size]


def _lines(data: bytes, strings: bytes, files: bytes) -> Iterator[tuple[int, _Told]]:
    """The lines of one function: where it is told of which one, and its rows by file."""
    flags, size = struct.unpack_from("<HI", data, 6)
    blocks: list[object] = []
    at = 12
    while at < len(data):
        number, count, length = struct.unpack_from("<III", data, at)
        if length < 12 + 8 * count or at + length > len(data):
            raise Damaged("lines are cut short")
        blocks.append((_file(number, strings, files), data[at + 12 : at + length]))
        at += length
    yield 0, ("lines", flags, size, *blocks)


def _procedures(data: bytes) -> Iterator[tuple[int, _Told]]:
    """The records of functions: where each says which one it is of, and what it says besides."""
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("<HH", data, at)
        if length < 2 or at + 2 + length > len(data):
            raise Damaged("a symbol record is cut short")
        if kind in _PROCEDURES:
            size, begin, end = struct.unpack_from("<III", data, at + 16)
            flags = data[at + 38]
            name = data[at + 39 : at + 2 + length].split(b"\0", 1)[0]
            yield at + 32, ("function", _PROCEDURES[kind], size, begin, end, flags, shown(name))
        at += 2 + length
