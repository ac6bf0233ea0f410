"""The checker's own reading of COFF objects.

Sources: Microsoft PE/COFF specification, "COFF File Header", "Section Table", "COFF Relocations",
"COFF Symbol Table"; winnt.h, `ANON_OBJECT_HEADER_BIGOBJ`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cargo_strip_hook.verify.arrays import spread

Array = npt.NDArray[Any]

I386, AMD64, ARM64 = 0x14C, 0x8664, 0xAA64
# characteristics of sections
NO_PAD, CODE, DATA, BSS = 0x8, 0x20, 0x40, 0x80
INFO, REMOVE, COMDAT, OVERFLOW = 0x200, 0x800, 0x1000, 0x0100_0000
ALIGN, RIGHTS = 0x00F0_0000, 0xE200_0000
# storage classes
EXTERNAL, STATIC, LABEL, WEAK = 2, 3, 6, 105
# selections of COMDATs
NODUPLICATES, ANY, SAME_SIZE, EXACT_MATCH, ASSOCIATIVE, LARGEST = range(1, 7)
UNDEFINED, ABSOLUTE = 0, -1

_SECTION = np.dtype(
    [
        ("name", "S8"),
        ("memory", "<u4", 2),
        ("size", "<u4"),
        ("offset", "<u4"),
        ("relocations", "<u4"),
        ("lines", "<u4"),
        ("count", "<u2"),
        ("line_count", "<u2"),
        ("flags", "<u4"),
    ]
)
_HEAD = [("zeros", "<u4"), ("name", "<u4"), ("value", "<u4")]
_TAIL = [("type", "<u2"), ("class", "<u1"), ("aux", "<u1")]
_SYMBOL = np.dtype([*_HEAD, ("section", "<i2"), *_TAIL])
_BIG_SYMBOL = np.dtype([*_HEAD, ("section", "<i4"), *_TAIL])
_BIG = bytes.fromhex("c7a1bad1eebaa94baf20faf66aa4dcb8")
RELOCATION = np.dtype(
    [("section", "<i4"), ("offset", "<i8"), ("symbol", "<i8"), ("type", "<i4"), ("field", "<u8")]
)


class Damaged(Exception):
    """What is wrong with an object."""


@dataclass(eq=False)
class Object:
    """One object. Sections are numbered from 1; symbols by record, auxiliary ones included.

    `raw`: the file with some zeros behind its end. `auxiliary`: which records are such.
    `relocations`: `RELOCATION` of all sections in their order; `field`: the eight bytes at each.
    `home`: of several objects that are read as one, the number of each section's; else None.
    `guarded`: whether that one has tables of control flow guard. `apart`: places and sizes of what
    is other libraries' only, see `apart.py`.
    """

    raw: Array
    machine: int
    sections: Array
    names: list[bytes]  # of the sections; the first is empty
    symbols: Array
    auxiliary: Array
    table: int  # where the symbols are in the file
    strings: bytes
    relocations: Array
    home: Array | None = None
    guarded: Array | None = None
    apart: tuple[Array, Array] | None = None

    @property
    def record(self) -> int:
        """The size of a symbol's record in bytes."""
        return int(self.symbols.dtype.itemsize)

    def name(self, symbol: int) -> bytes:
        """A symbol's name. Raises `Damaged`."""
        row = self.symbols[symbol]
        if row["zeros"]:
            return bytes(row.tobytes()[:8].rstrip(b"\0"))
        return _string(self.strings, int(row["name"]))

    def names_of(self, symbols: Array) -> list[bytes]:
        """The names of symbols. Raises `Damaged`."""
        rows = self.symbols[symbols]
        octets = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), self.record)[:, :8]
        found: list[bytes] = np.ascontiguousarray(octets).view("S8").ravel().tolist()
        long = np.flatnonzero(rows["zeros"] == 0)
        locations, strings = rows["name"][long], self.strings
        if len(long) and strings[-1:] == b"\0" and locations.min() >= 4:
            if locations.max() >= len(strings):
                raise Damaged(f"no name at {int(locations.max())} of the string table")
            for n, at in zip(long.tolist(), locations.tolist(), strict=True):
                found[n] = strings[at : strings.index(b"\0", at)]
        else:
            for n, at in zip(long.tolist(), locations.tolist(), strict=True):
                found[n] = _string(strings, at)
        return found

    def spans_of(self, symbols: Array, head: bytes) -> tuple[Array, Array]:
        """(whether the name is in the string table and begins with `head`, its length)."""
        rows = self.symbols[symbols]
        text = np.frombuffer(self.strings + bytes(len(head)), np.uint8)
        start = np.where(rows["zeros"] == 0, rows["name"], 0).astype(np.int64)
        good = (start >= 4) & (start < len(self.strings))
        start = np.where(good, start, 0)
        for n, letter in enumerate(head):
            good &= text[start + n] == letter
        ends = np.append(np.flatnonzero(text[: len(self.strings)] == 0), len(self.strings))
        return good, ends[np.searchsorted(ends, start)] - start

    def auxiliary_of(self, symbol: int) -> bytes:
        """The first auxiliary record of a symbol."""
        start = self.table + self.record * (symbol + 1)
        return self.raw[start : start + self.record].tobytes()

    def contents(self, section: int) -> bytes:
        row = self.sections[section]
        return self.raw[int(row["offset"]) : int(row["offset"]) + int(row["size"])].tobytes()

    def bare(self, section: int) -> bytes:
        """A section's name up to the dollar."""
        return self.names[section].split(b"$", 1)[0]

    @cached_property
    def unwind_records(self) -> Array:
        """bool for each section: whether it is `.xdata`, whatever it is called behind that.

        MSVC's compilers write `.xdata$f`, and GCC `.xdata.startup`.
        """
        return self._called(b".xdata")

    @cached_property
    def unwind_tables(self) -> Array:
        """bool for each section: whether it is `.pdata`, whatever it is called behind that."""
        return self._called(b".pdata")

    def _called(self, base: bytes) -> Array:
        begins = (base + b"$", base + b".")
        return np.array([n == base or n.startswith(begins) for n in self.names], np.bool_)

    @cached_property
    def directives(self) -> list[bytes]:
        """The words of `.drectve`."""
        words: list[bytes] = []
        for number in range(1, len(self.names)):
            if self.names[number] != b".drectve":
                continue
            text = self.contents(number).lstrip(b"\xef\xbb\xbf").replace(b"\0", b" ")
            word, quoted = b"", False
            for part in text.split(b'"'):
                if quoted:
                    word += b'"' + part + b'"'
                else:
                    first, *rest = part.split(b" ")
                    word += first
                    for following in rest:
                        words.append(word)
                        word = following
                quoted = not quoted
            words.append(word)
        return [w for w in words if w]

    @cached_property
    def selections(self) -> dict[int, tuple[int, int, int]]:
        """COMDAT sections: (selection, the section it is associated to, the leader or -1).

        A COMDAT's first symbol is the section's, with the definition; the next one leads.
        """
        section, *columns = (c.tolist() for c in self._comdats)
        return dict(zip(section, zip(*columns, strict=True), strict=True))

    @cached_property
    def leaders(self) -> tuple[Array, Array]:
        """(selection, the leader or -1) of each section, 0 and -1 for what is no COMDAT."""
        section, kind, _, leader = self._comdats
        selections = np.zeros(len(self.sections), np.int64)
        leaders = np.full(len(self.sections), -1, np.int64)
        selections[section], leaders[section] = kind, leader
        return selections, leaders

    @cached_property
    def _comdats(self) -> tuple[Array, Array, Array, Array]:
        """The columns of `selections`."""
        mine = self.in_sections(self.sections["flags"] & COMDAT != 0)
        home = self.symbols["section"][mine]
        order = np.argsort(home, kind="stable")
        mine, home = mine[order], home[order].astype(np.int64)
        first = np.flatnonzero(np.append(True, home[1:] != home[:-1])[: len(home)])
        leads = np.append(first[1:], len(home)) - first > 1
        leader = np.where(leads, mine[np.minimum(first + 1, len(mine) - 1)], -1)
        symbol = mine[first]
        at = self.table + self.record * (symbol + 1)
        octets = self.raw[at[:, None] + np.arange(12, 18)].astype(np.int64)
        number = octets[:, 0] | octets[:, 1] << 8
        if self.record == 20:
            number |= (octets[:, 4] | octets[:, 5] << 8) << 16
        has = (self.symbols["aux"][symbol] > 0) & (self.symbols["class"][symbol] == STATIC)
        return home[first], np.where(has, octets[:, 2], 0), number, leader

    def in_sections(self, chosen: Array) -> Array:
        """The symbols that are in one of the sections for which `chosen` (bool) is true."""
        section = self.symbols["section"]
        inside = np.flatnonzero((section > 0) & ~self.auxiliary)
        return np.asarray(inside[chosen[section[inside]]])


def _string(strings: bytes, at: int) -> bytes:
    if not 4 <= at < len(strings):
        raise Damaged(f"no name at {at} of the string table")
    end = strings.find(b"\0", at)
    if end < 0:
        raise Damaged(f"the name at {at} of the string table has no end")
    return strings[at:end]


def _long(name: bytes, strings: bytes) -> bytes:
    """A section's name: `/123` and `//BASE64` are places in the string table."""
    if not name.startswith(b"/"):
        return name
    if name.startswith(b"//"):
        letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        at = 0
        for letter in name[2:]:
            at = at * 64 + letters.find(letter)
    elif name[1:].isdigit():
        at = int(name[1:])
    else:
        raise Damaged(f"a section called {name!r}")
    return _string(strings, at)


def read_symbols(data: memoryview) -> Object:
    """Read the symbols of an object, and nothing of its sections. Raises `Damaged`."""
    machine, _, _, dtype, table, number, strings = _tables(data)
    symbols = np.frombuffer(data, dtype, number, table)
    raw, sections, relocations = (np.zeros(0, t) for t in (np.uint8, _SECTION, RELOCATION))
    auxiliary = _auxiliary(symbols)
    return Object(raw, machine, sections, [], symbols, auxiliary, table, strings, relocations)


def _tables(data: memoryview) -> tuple[int, int, int, np.dtype[Any], int, int, bytes]:
    """(machine, sections and where they are, symbols' form, where and how many, strings)."""
    head = bytes(data[:56])
    big = head[:4] == b"\0\0\xff\xff" and head[12:28] == _BIG
    if big:
        machine = int.from_bytes(head[6:8], "little")
        count, table, number = (int.from_bytes(head[i : i + 4], "little") for i in (44, 48, 52))
        start = 56
    else:
        machine, count = (int.from_bytes(head[i : i + 2], "little") for i in (0, 2))
        table, number = (int.from_bytes(head[i : i + 4], "little") for i in (8, 12))
        start = 20 + int.from_bytes(head[16:18], "little")
    if machine not in (I386, AMD64, ARM64):
        raise Damaged(f"an object for the machine {machine:#x}")
    dtype = _BIG_SYMBOL if big else _SYMBOL
    end = table + dtype.itemsize * number
    if start + 40 * count > len(data) or end + 4 > len(data):
        raise Damaged("the section or symbol table reaches beyond the end of the file")
    size = int.from_bytes(data[end : end + 4], "little")
    if size < 4 or end + size > len(data):
        raise Damaged("the string table reaches beyond the end of the file")
    return machine, count, start, dtype, table, number, bytes(data[end : end + size])


def read(data: memoryview) -> Object:
    """Read an object. Raises `Damaged`."""
    machine, count, start, dtype, table, number, strings = _tables(data)
    raw = np.zeros(len(data) + 32, np.uint8)
    raw[: len(data)] = np.frombuffer(data, np.uint8)
    sections = np.zeros(count + 1, _SECTION)
    sections[1:] = np.frombuffer(data, _SECTION, count, start)
    names = [b"", *(_long(n, strings) for n in sections["name"][1:].tolist())]
    symbols = np.frombuffer(data, dtype, number, table)
    auxiliary = _auxiliary(symbols)
    own = symbols["section"][~auxiliary]
    if own.size and (own.max() > count or own.min() < -2):
        raise Damaged("a symbol is in a section that is not there")
    stored = (sections["flags"] & BSS == 0) & (sections["offset"] > 0)
    ends = sections["offset"].astype(np.int64) + sections["size"]
    if (ends[stored] > len(data)).any():
        raise Damaged("a section reaches beyond the end of the file")
    relocations = _relocations(raw, len(data), sections)
    if relocations.size:
        bad = relocations["symbol"] >= number
        if bad.any() or auxiliary[relocations["symbol"]].any():
            raise Damaged("a relocation names no symbol")
        sizes = sections["size"][relocations["section"]].astype(np.int64)
        if (relocations["offset"] >= sizes).any():
            raise Damaged("a relocation lies outside of its section")
    return Object(raw, machine, sections, names, symbols, auxiliary, table, strings, relocations)


def _auxiliary(symbols: Array) -> Array:
    """Which records are auxiliary ones of the symbol before."""
    auxiliary = np.zeros(len(symbols), np.bool_)
    counts = symbols["aux"]
    owners = np.flatnonzero(counts)
    ends = owners + 1 + counts[owners]
    for _ in range(4):  # the name of a file looks like a number, too
        clash = np.flatnonzero(owners[1:] < ends[:-1])[:1]
        if not len(clash):
            if (ends[-1:] > len(symbols)).any():
                raise Damaged("auxiliary records reach beyond the symbol table")
            auxiliary[spread(owners + 1, counts[owners], 1)] = True
            return auxiliary
        apart = (owners <= owners[clash]) | (owners >= ends[clash])
        owners, ends = owners[apart], ends[apart]
    at = 0
    for i in owners.tolist():
        if i < at:  # a number in an auxiliary record
            continue
        at = i + 1 + int(counts[i])
        if at > len(symbols):
            raise Damaged("auxiliary records reach beyond the symbol table")
        auxiliary[i + 1 : at] = True
    return auxiliary


def _relocations(raw: Array, end: int, sections: Array) -> Array:
    """All relocations. The first of a section with too many has their number (NRELOC_OVFL)."""
    counts = sections["count"].astype(np.int64)
    starts = sections["relocations"].astype(np.int64)
    for s in np.flatnonzero((sections["flags"] & OVERFLOW != 0) & (counts == 0xFFFF)).tolist():
        at = int(starts[s])
        total = int.from_bytes(raw[at : at + 4].tobytes(), "little")
        if total < 1:
            raise Damaged("a section with too many relocations says that it has none")
        counts[s], starts[s] = total - 1, at + 10
    if (starts + 10 * counts > end)[counts > 0].any():
        raise Damaged("relocations reach beyond the end of the file")
    section = np.repeat(np.arange(len(sections)), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    where = np.repeat(starts, counts) + 10 * (np.arange(len(section)) - first)
    rows = raw[where[:, None] + np.arange(10)]
    out = np.zeros(len(section), RELOCATION)
    out["section"] = section
    out["offset"] = np.ascontiguousarray(rows[:, :4]).view("<u4").ravel()
    out["symbol"] = np.ascontiguousarray(rows[:, 4:8]).view("<u4").ravel()
    out["type"] = np.ascontiguousarray(rows[:, 8:]).view("<u2").ravel()
    location = np.minimum(sections["offset"][section] + out["offset"], end)
    out["field"] = np.ascontiguousarray(raw[location[:, None] + np.arange(8)]).view("<u8").ravel()
    return out
