"""A second reader of Mach-O objects, for the checker: what is referred to, by address or by name.

Sources: mach-o/loader.h, mach-o/nlist.h, mach-o/reloc.h and the processors' reloc.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

X86_64, ARM64 = 0x01000007, 0x0100000C
ALT_ENTRY, WEAK_DEF = 0x0200, 0x0080
ZEROFILL = frozenset({0x1, 0xC, 0x12})
_SUBTRACTOR = {X86_64: 5, ARM64: 1}
TRAILING = {6: 1, 7: 2, 8: 4}
TRAILINGS = np.array([TRAILING.get(kind, 0) for kind in range(16)], np.int64)
Array = npt.NDArray[Any]
_STEP = 40  # bits of an offset in the key of a place


NLIST = np.dtype(
    [("strx", "<u4"), ("type", "<u1"), ("section", "<u1"), ("desc", "<u2"), ("value", "<u8")]
)
REFERENCE = np.dtype(
    [
        ("section", "<i4"),
        ("offset", "<i8"),
        ("kind", "<i4"),
        ("width", "<i4"),
        ("symbol", "<i4"),
        ("addend", "<i8"),
        ("minus", "<i4"),
    ]
)  # the fields of `Reference`


class Damaged(Exception):
    """What is wrong with an object."""


class Section(NamedTuple):
    segment: bytes
    name: bytes
    address: int
    size: int
    offset: int
    align: int
    flags: int
    relocations: int
    relocation_count: int

    @property
    def zerofill(self) -> bool:
        return self.flags & 0xFF in ZEROFILL

    @property
    def loaded(self) -> bool:
        """Whether it is part of a program, unwind information included."""
        if (self.segment, self.name) == (b"__LD", b"__compact_unwind"):
            return True
        debug = self.flags & 0x02000000 or self.segment in (b"__LLVM", b"__DWARF")
        return not debug and self.name != b"__llvm_addrsig"


class Symbol(NamedTuple):
    name: bytes
    type: int
    section: int  # from 1
    desc: int
    value: int

    @property
    def stab(self) -> bool:
        return self.type & 0xE0 != 0

    @property
    def external(self) -> bool:
        return self.type & 1 != 0

    @property
    def defined(self) -> bool:
        """In a section or absolute; a common is not."""
        return self.type & 0xE in (0xE, 0x2)

    @property
    def common(self) -> bool:
        """A tentative definition; its value is its size."""
        return self.external and self.type & 0xE == 0 and self.value > 0

    @property
    def placed(self) -> bool:
        return self.type & 0xE == 0xE


class Reference(NamedTuple):
    """A field that refers to something: `symbol` (a number) + `addend`, or an address.

    `minus` is the symbol that is subtracted, -1 for none. `width` in bytes.
    """

    section: int  # from 1
    offset: int  # of the field in the section
    kind: int
    width: int
    symbol: int
    addend: int  # the address, where `symbol` is -1
    minus: int


class SymbolTable(Sequence[Symbol]):
    """The symbols of a file; their names, which hardly anybody asks for, are found on demand."""

    def __init__(self, entries: Array, text: bytes) -> None:
        self.entries, self._text = entries, text

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, number: int) -> Symbol: ...
    @overload
    def __getitem__(self, number: slice) -> list[Symbol]: ...
    def __getitem__(self, number: int | slice) -> Symbol | list[Symbol]:
        if isinstance(number, slice):
            return self._all[number]
        return self._symbol(self.entries[number].item())

    def __iter__(self) -> Iterator[Symbol]:
        return iter(self._all)

    @cached_property
    def _all(self) -> list[Symbol]:
        return [self._symbol(row) for row in self.entries.tolist()]

    def _symbol(self, row: tuple[int, int, int, int, int]) -> Symbol:
        text = self._text
        return Symbol(text[row[0] : text.index(b"\0", row[0])], *row[1:])


@dataclass
class Object:
    """One object file; see `read`."""

    data: memoryview
    cpu: int = 0
    flags: int = 0
    sections: list[Section] = field(default_factory=list)
    symbols: Sequence[Symbol] = field(default_factory=list)
    entries: Array = field(default_factory=lambda: np.zeros(0, NLIST))  # the symbol table
    text: bytes = b""  # the string table
    groups: tuple[int, int, int, int, int, int] | None = None  # LC_DYSYMTAB
    versions: list[tuple[int, int]] = field(default_factory=list)  # platform, minimum

    def contents(self, section: Section) -> memoryview:
        return self.data[section.offset : section.offset + section.size]

    def externals(self) -> Array:
        """The numbers of the external symbols; none of a debug map is."""
        return np.flatnonzero(self.entries["type"] & 0xE1 == 1)

    def names(self, numbers: Array) -> list[bytes]:
        """The names of symbols."""
        text = self.text
        return [text[s : text.index(b"\0", s)] for s in self.entries["strx"][numbers].tolist()]

    @cached_property
    def undefined(self) -> list[tuple[bytes, int]]:
        """(name, size or 0) of the external symbols without a place, commons among them."""
        numbers = np.flatnonzero(self.entries["type"] & 0xEF == 1)
        return list(zip(self.names(numbers), self.entries["value"][numbers].tolist(), strict=True))

    def section_at(self, address: int) -> int:
        """The number (from 1) of the loaded section that an address is in; 0 for none."""
        for number, s in enumerate(self.sections, start=1):
            if s.address <= address < s.address + s.size and s.loaded:
                return number
        return 0

    def references(self, number: int) -> list[Reference]:
        """The relocations of a section, pairs joined. Raises `Damaged`."""
        return [Reference(*row) for row in self.table([number]).tolist()]

    def table(self, numbers: Sequence[int], within: Places | None = None) -> Array:
        """The same of several sections, as a REFERENCE array; `within`: those in these pieces."""
        parts = [np.zeros((0, 2), np.uint32)]
        for number in numbers:
            section = self.sections[number - 1]
            if section.relocations + 8 * section.relocation_count > len(self.data):
                raise Damaged(f"the relocations of section {number} are cut short")
            raw = np.frombuffer(self.data, "<u4", 2 * section.relocation_count, section.relocations)
            parts.append(raw.reshape(-1, 2))
        address, info = np.concatenate(parts).astype(np.int64).T
        home = np.repeat(np.array(numbers, np.int64), [len(p) for p in parts[1:]])
        if within is not None:
            inside = within.find_all(home, address, np.zeros(1, np.bool_)) >= 0
            address, info, home = address[inside], info[inside], home[inside]
        if not len(address):
            return np.zeros(0, REFERENCE)

        def check(bad: Array, what: str) -> None:
            if bad.any():
                at = int(bad.argmax())
                section = self.sections[int(home[at]) - 1]
                name = (section.segment + b"," + section.name).decode("utf-8", "replace")
                raise Damaged(f"section {name}: a relocation at {int(address[at]):#x} {what}")

        columns = np.array([(s.address, s.size, s.offset) for s in self.sections], np.int64)
        section_address, section_size, section_offset = columns[home - 1].T
        kind, symbol = info >> 28, info & 0xFFFFFF
        width, extern = 1 << (info >> 25 & 3), info >> 27 & 1 == 1
        check((address & 0x80000000 != 0) | (address + width > section_size), "lies outside")
        subtractor = kind == _SUBTRACTOR[self.cpu]
        addend = kind == 10 if self.cpu == ARM64 else np.zeros(len(kind), np.bool_)
        first = subtractor | addend
        after = np.zeros(len(kind), np.bool_)  # the second one of a pair
        after[1:] = first[:-1]
        other = (address[1:] != address[:-1]) | (home[1:] != home[:-1])
        torn = first & np.append(other | first[1:], True)
        torn[1:] |= subtractor[:-1] & (kind[1:] != 0)
        check(torn, "is a pair torn apart")
        check(extern & ~addend & (symbol >= len(self.symbols)), "names no symbol")
        check(subtractor & ~extern, "is a SUBTRACTOR that is malformed")
        outside = (symbol == 0) | (symbol > len(self.sections))
        check(~extern & ~addend & outside, "names no section")

        rows = np.flatnonzero(~first)
        found = np.zeros(len(rows), REFERENCE)
        found["section"], found["offset"], found["kind"] = home[rows], address[rows], kind[rows]
        found["width"], found["minus"] = width[rows], -1
        before = rows[after[rows]] - 1  # the first one of each pair
        found["minus"][after[rows]] = np.where(subtractor[before], symbol[before], -1)
        content = self.stored((section_offset + address)[rows], width[rows])
        if self.cpu == ARM64:
            said = np.zeros(len(rows), np.int64)
            signed = (symbol[before] ^ 0x800000) - 0x800000
            said[after[rows]] = np.where(addend[before], signed, 0)
            content = np.where(kind[rows] != 0, said, content)
        by_address = ~extern[rows]
        relative = by_address & (info[rows] >> 24 & 1 == 1)
        content[relative] += (section_address + address + 4 + TRAILINGS[kind])[rows][relative]
        found["symbol"] = np.where(by_address, -1, symbol[rows])
        found["addend"] = content
        return found

    def loaded_references(self) -> Array:
        """REFERENCE of all sections that are part of a program. Raises `Damaged`."""
        return self.table([n for n, s in enumerate(self.sections, start=1) if s.loaded])

    def stored(self, places: Array, width: Array) -> Array:
        """What is stored at places of the file, with a sign."""
        found = np.zeros(len(places), np.int64)
        if (places + width > len(self.data)).any():
            raise Damaged("a field with a relocation lies beyond the end of the file")
        octets = np.frombuffer(self.data, np.uint8)
        for size in (1, 2, 4, 8):
            mine = np.flatnonzero(width == size)
            if len(mine):
                raw = octets[places[mine, None] + np.arange(size)]
                found[mine] = np.ascontiguousarray(raw).view(f"<i{size}").reshape(-1)
        return found


def read(data: memoryview) -> Object:
    """Read an object. Raises `Damaged`."""
    try:
        return _read(data)
    except (struct.error, IndexError, ValueError) as e:
        raise Damaged(f"the object is cut short: {e}") from e


def _read(data: memoryview) -> Object:
    magic, cpu, _, kind, count, size, flags, _ = struct.unpack_from("<8I", data)
    if magic != 0xFEEDFACF or kind != 1 or cpu not in _SUBTRACTOR:
        raise Damaged("no 64-bit Mach-O object")
    out = Object(data, cpu, flags)
    at = 32
    for _ in range(count):
        command, length = struct.unpack_from("<II", data, at)
        if length < 8 or at + length > 32 + size:
            raise Damaged("the load commands are cut short")
        if command == 0x19:
            (number,) = struct.unpack_from("<I", data, at + 64)
            if 72 + 80 * number > length:
                raise Damaged("the section headers are cut short")
            for i in range(number):
                out.sections.append(_section(data, at + 72 + 80 * i))
        elif command == 0x2:
            _symbols(out, *struct.unpack_from("<4I", data, at + 8))
        elif command == 0xB:
            out.groups = struct.unpack_from("<6I", data, at + 8)
        elif command == 0x32:
            out.versions.append(struct.unpack_from("<II", data, at + 8))
        elif command in (0x24, 0x25, 0x2F, 0x30):
            platform = {0x24: 1, 0x25: 2, 0x2F: 3, 0x30: 4}[command]
            if cpu == X86_64:  # which was in no device: the simulator
                platform = {2: 7, 3: 8, 4: 9}.get(platform, platform)
            out.versions.append((platform, *struct.unpack_from("<I", data, at + 8)))
        at += length
    return out


def _section(data: memoryview, at: int) -> Section:
    name, segment, address, size, offset, align, relocations, count, flags = struct.unpack_from(
        "<16s16sQQ5I", data, at
    )
    out = Section(
        segment.rstrip(b"\0"),
        name.rstrip(b"\0"),
        address,
        size,
        offset,
        align,
        flags,
        relocations,
        count,
    )
    if not out.zerofill and offset + size > len(data):
        raise Damaged(
            f"section {out.name.decode('utf-8', 'replace')} reaches beyond the end of the file"
        )
    return out


def _symbols(out: Object, table: int, count: int, strings: int, size: int) -> None:
    if strings + size > len(out.data) or table + 16 * count > len(out.data):
        raise Damaged("the symbol table reaches beyond the end of the file")
    text = bytes(out.data[strings : strings + size])
    out.text, out.entries = text, np.frombuffer(out.data, NLIST, count, table)
    if count and out.entries["strx"].max() > text.rfind(b"\0"):
        raise Damaged("the name of a symbol does not end")
    out.symbols = SymbolTable(out.entries, text)


class Places:
    """Where pieces of one member went: (section, offset) -> address in the result.

    `section` (from 1), `start`, `size`, `home` (the result's section) and `address` are arrays, by
    section and offset in order.
    """

    def __init__(
        self, section: Array, start: Array, size: Array, home: Array, address: Array
    ) -> None:
        self.section, self.start, self.size = section, start, size
        self.home, self.address = home, address
        self._keys = (section.astype(np.int64) << _STEP) + start

    def find(self, section: int, offset: int, end: bool = False) -> int | None:
        """The address in the result; None for what is not there.

        With `end` the place may be just behind a piece.
        """
        found = int(self.find_all(np.array([section]), np.array([offset]), np.array([end]))[0])
        return None if found < 0 else found

    def piece(self, section: Array, offset: Array) -> Array:
        """The last piece that begins at each place or before it; 0 where there is none."""
        inside = (offset >= 0) & (offset < 1 << _STEP)
        keys = (section.astype(np.int64) << _STEP) + np.where(inside, offset, 0)
        return np.maximum(np.searchsorted(self._keys, keys, side="right") - 1, 0)

    def find_all(self, section: Array, offset: Array, end: Array) -> Array:
        """As `find`, for many; -1 for what is not there."""
        at = self.piece(section, offset)
        within, size = offset - self.start[at], self.size[at]
        inside = (self.section[at] == section) & (within >= 0)
        inside &= (within < size) | ((within == size) & (end | (size == 0)))
        return np.where(inside, self.address[at] + within, -1)

    def of_symbols(self, o: Object, numbers: Array) -> Array:
        """The addresses of the member's symbols in the result, -1 for those that are not there."""
        section = o.entries["section"][numbers].astype(np.int64)
        inside = (section > 0) & (section <= len(o.sections))
        section[~inside] = 0
        starts, sizes = np.array([(0, 0), *((s.address, s.size) for s in o.sections)]).T
        offset = o.entries["value"][numbers].astype(np.int64) - starts[section]
        found = self.find_all(section, offset, offset == sizes[section])
        return np.where(inside, found, -1)

    def of_addresses(self, o: Object, addresses: Array) -> Array:
        """The same of addresses in the member; the shape is theirs."""
        loaded = [
            (s.address, s.size, n) for n, s in enumerate(o.sections, 1) if s.loaded and s.size
        ]
        if not loaded:
            return np.full(addresses.shape, -1, np.int64)
        start, size, number = np.array(sorted(loaded), np.int64).T
        at = np.maximum(np.searchsorted(start, addresses, side="right") - 1, 0)
        offset = addresses - start[at]
        found = self.find_all(number[at], offset, np.zeros(1, np.bool_))
        return np.where((offset >= 0) & (offset < size[at]), found, -1)
