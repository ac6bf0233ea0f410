"""A second reader of Mach-O objects, for the checker: what is referred to, by address or by name.

Sources: mach-o/loader.h, mach-o/nlist.h, mach-o/reloc.h and the processors' reloc.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, overload

import numpy as np

from cargo_strip_hook.verify.arrays import Array, gather, is_among, rows_of, spread
from cargo_strip_hook.verify.macho.commands import (
    ARM64,
    X86_64,
    Commands,
    Damaged,
    read_commands,
)

ALT_ENTRY, WEAK_DEF = 0x0200, 0x0080
BY_SYMBOLS = 0x2000  # MH_SUBSECTIONS_VIA_SYMBOLS
SUBTRACTOR = {X86_64: 5, ARM64: 1}
TRAILINGS = np.zeros(16, np.int64)  # what lies between a field and the end of its instruction
TRAILINGS[[6, 7, 8]] = 1, 2, 4
STEP = 40  # bits of an address within one file, or of an offset in the key of a place

_ZEROFILL = np.array([0x1, 0xC, 0x12], np.uint32)
_POINTERS = 0x6  # S_NON_LAZY_SYMBOL_POINTERS
_NLIST = np.dtype(
    [("strx", "<u4"), ("type", "<u1"), ("section", "<u1"), ("desc", "<u2"), ("value", "<u8")]
)
_HEADER = np.dtype(
    [("name", "S16"), ("segment", "S16"), ("address", "<u8"), ("size", "<u8"), ("offset", "<u4")]
    + [(name, "<u4") for name in ("align", "relocations", "count", "flags", "r1", "r2", "r3")]
)
ENTRY = np.dtype([("address", "<u4"), ("info", "<u4")])

SECTION = np.dtype(
    [
        ("file", "<i4"),
        ("segment", "S16"),
        ("name", "S16"),
        ("address", "<i8"),
        ("size", "<i8"),
        ("offset", "<i8"),  # in `Object.octets`
        ("align", "<i8"),
        ("flags", "<u4"),
        ("relocations", "<i8"),  # in `Object.octets`
        ("count", "<i8"),
        ("zerofill", "?"),
        ("loaded", "?"),  # a part of a program, unwind information included
        ("first", "<i8"),  # reserved1: of pointers the first entry of the indirect symbol table
    ]
)
SYMBOL = np.dtype(
    [
        ("name", "<i8"),  # in `Object.text`
        ("type", "<u1"),
        ("section", "<i4"),  # from 1 over all files; 0 for none, or for one that is not there
        ("desc", "<u2"),
        ("value", "<i8"),
    ]
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


class Section(NamedTuple):
    """A row of SECTION, but for its file and its last column."""

    segment: bytes
    name: bytes
    address: int
    size: int
    offset: int
    align: int
    flags: int
    relocations: int
    relocation_count: int
    zerofill: bool
    loaded: bool


class Symbol(NamedTuple):
    """A row of SYMBOL, with its name."""

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
            return [self._symbol(row) for row in self.entries[number].tolist()]
        return self._symbol(self.entries[number].item())

    def __iter__(self) -> Iterator[Symbol]:
        return iter(self[:])

    def _symbol(self, row: tuple[int, int, int, int, int]) -> Symbol:
        text = self._text
        return Symbol(text[row[0] : text.index(b"\0", row[0])], *row[1:])


@dataclass
class Object:
    """One object file, or several; see `read`.

    Of several, sections and symbols are numbered through, and each file's addresses are its own:
    that of number n begin at n << STEP.
    """

    octets: Array  # uint8: all files
    cpu: int = 0
    flags: int = 0
    table: Array = field(default_factory=lambda: np.zeros(0, SECTION))
    entries: Array = field(default_factory=lambda: np.zeros(0, SYMBOL))
    text: bytes = b""  # the string tables
    section_first: Array = field(default_factory=lambda: np.zeros(2, np.int64))  # of each file,
    symbol_first: Array = field(default_factory=lambda: np.zeros(2, np.int64))  # and the total
    groups: tuple[int, int, int, int, int, int] | None = None  # LC_DYSYMTAB
    versions: list[tuple[int, int, int]] = field(default_factory=list)  # platform, minimum, SDK
    commands: tuple[Commands, ...] = ()  # of each file
    base: Array = field(default_factory=lambda: np.zeros(1, np.int64))  # where each begins
    renumbered: Array | None = None  # of each symbol of the files the one that stands for it

    @cached_property
    def sections(self) -> list[Section]:
        return [Section(*row[1:-1]) for row in self.table.tolist()]

    @property
    def symbols(self) -> SymbolTable:
        return SymbolTable(self.entries, self.text)

    @property
    def data(self) -> memoryview:
        return memoryview(self.octets.data)

    def contents(self, section: Section) -> memoryview:
        return self.data[section.offset : section.offset + section.size]

    def named(self, segment: bytes, name: bytes) -> Array:
        """The numbers (from 1) of the sections of that name."""
        s = self.table
        return np.flatnonzero((s["segment"] == segment) & (s["name"] == name)) + 1

    @cached_property
    def placed(self) -> Array:
        """bool for each symbol: whether it lies in a section."""
        return np.asarray(self.entries["type"] & 0xEE == 0xE)

    def externals(self) -> Array:
        """The numbers of the external symbols; none of a debug map is."""
        return np.flatnonzero(self.entries["type"] & 0xE1 == 1)

    def names(self, numbers: Array) -> list[bytes]:
        """The names of symbols."""
        text = self.text
        find = text.index
        return [text[s : find(b"\0", s)] for s in self.entries["name"][numbers].tolist()]

    @cached_property
    def undefined(self) -> list[tuple[bytes, int]]:
        """(name, size or 0) of the external symbols without a place, commons among them."""
        numbers = np.flatnonzero(self.entries["type"] & 0xEF == 1)
        return list(zip(self.names(numbers), self.entries["value"][numbers].tolist(), strict=True))

    @cached_property
    def _ranges(self) -> tuple[Array, Array]:
        """The addresses at which loaded sections begin, in order, and their numbers from 1."""
        number = np.flatnonzero(self.table["loaded"] & (self.table["size"] > 0))
        start = self.table["address"][number]
        order = np.argsort(start, kind="stable")
        return start[order], number[order] + 1

    def sections_at(self, addresses: Array) -> Array:
        """The number (from 1) of the loaded section that each address is in; 0 for none."""
        start, number = self._ranges
        if not len(start):
            return np.zeros(addresses.shape, np.int64)
        at = np.maximum(np.searchsorted(start, addresses, side="right") - 1, 0)
        offset = addresses - start[at]
        inside = (offset >= 0) & (offset < self.table["size"][number[at] - 1])
        return np.where(inside, number[at], 0)

    def section_at(self, address: int) -> int:
        """The same of one address."""
        return int(self.sections_at(np.array([address], np.int64))[0])

    def references(self, number: int) -> list[Reference]:
        """The relocations of a section, pairs joined. Raises `Damaged`."""
        return [Reference(*row) for row in self.relocations(np.array([number])).tolist()]

    def relocations(
        self, numbers: Array, choose: Callable[[Array, Array], Array] | None = None
    ) -> Array:
        """The same of several sections, as a REFERENCE array.

        `choose` says which are wanted, told the (section, offset) of each; all where it is None.
        """
        first, count = (self.table[name][numbers - 1] for name in ("relocations", "count"))
        raw = gather(self.octets, spread(first, count, 8), ENTRY)
        home, address = np.repeat(numbers, count), raw["address"].astype(np.int64)
        if choose is not None:
            chosen = np.flatnonzero(choose(home, address))
            home, address, raw = home[chosen], address[chosen], rows_of(raw, chosen)
        if not len(raw):
            return np.zeros(0, REFERENCE)
        return self._joined(home, address, raw["info"].astype(np.int64))

    def _joined(self, home: Array, address: Array, info: Array) -> Array:
        names = ("file", "address", "size", "offset", "zerofill")
        row = home - 1
        file, begin, size, offset, zerofill = (
            np.ascontiguousarray(self.table[name])[row] for name in names
        )

        def check(bad: Array, what: str) -> None:
            if bad.any():
                at = int(bad.argmax())
                row = self.table[home[at] - 1]
                name = (bytes(row["segment"]) + b"," + bytes(row["name"])).decode(errors="replace")
                what = f"section {name}: a relocation at {int(address[at]):#x} {what}"
                raise Damaged(what, int(row["file"]))

        kind, number = info >> 28, info & 0xFFFFFF
        width, extern = 1 << (info >> 25 & 3), info >> 27 & 1 == 1
        check((address & 0x80000000 != 0) | (address + width > size) | zerofill, "lies outside")
        subtractor = kind == SUBTRACTOR[self.cpu]
        addend = kind == 10 if self.cpu == ARM64 else np.zeros(len(kind), np.bool_)
        first = subtractor | addend
        after = np.zeros(len(kind), np.bool_)  # the second one of a pair
        after[1:] = first[:-1]
        other = (address[1:] != address[:-1]) | (home[1:] != home[:-1])
        torn = first & np.append(other | first[1:], True)
        torn[1:] |= subtractor[:-1] & (kind[1:] != 0)
        check(torn, "is a pair torn apart")
        symbols = np.diff(self.symbol_first)[file]
        check(extern & ~addend & (number >= symbols), "names no symbol")
        check(subtractor & ~extern, "is a SUBTRACTOR that is malformed")
        outside = (number == 0) | (number > np.diff(self.section_first)[file])
        check(~extern & ~addend & outside, "names no section")

        rows = np.flatnonzero(~first)
        found = np.zeros(len(rows), REFERENCE)
        found["section"], found["offset"], found["kind"] = home[rows], address[rows], kind[rows]
        found["width"], found["minus"] = width[rows], -1
        symbol = self.symbol_first[file] + number
        if self.renumbered is not None:
            symbol = self.renumbered[np.minimum(symbol, len(self.renumbered) - 1)]
        second = after[rows]
        before = rows[second] - 1  # the first one of each pair
        found["minus"][second] = np.where(subtractor[before], symbol[before], -1)
        content = self.stored((offset + address)[rows], width[rows])
        if self.cpu == ARM64:
            said = np.zeros(len(rows), np.int64)
            signed = (number[before] ^ 0x800000) - 0x800000
            said[second] = np.where(addend[before], signed, 0)
            content = np.where(kind[rows] != 0, said, content)
        local = np.flatnonzero(~extern[rows])
        at = rows[local]
        relative = info[at] >> 24 & 1 == 1
        here = (begin + address + 4 + TRAILINGS[kind])[at]
        content[local] += np.where(relative, here, file[at].astype(np.int64) << STEP)
        found["symbol"] = np.where(extern[rows], symbol[rows], -1)
        found["addend"] = content
        return found

    def loaded_references(self) -> Array:
        """REFERENCE of all sections that are part of a program. Raises `Damaged`."""
        return self.relocations(np.flatnonzero(self.table["loaded"]) + 1)

    def pointers(self) -> Array:
        """REFERENCE of what indirect symbol tables say of sections of pointers. Raises `Damaged`.

        A pointer to what is local, or has no symbol, has a relocation of its own.
        """
        found = [np.zeros(0, REFERENCE)]
        for number in (np.flatnonzero(self.table["flags"] & 0xFF == _POINTERS) + 1).tolist():
            row = self.table[number - 1]
            file = int(row["file"])
            start, count = self.commands[file].indirect
            where = int(self.base[file]) + start + 4 * int(row["first"])
            rows = np.zeros(int(row["size"]) // 8, REFERENCE)
            if int(row["first"]) + len(rows) > count:
                raise Damaged("the indirect symbol table is too short", file)
            try:
                table = gather(self.octets, where + 4 * np.arange(len(rows)), np.dtype("<u4"))
            except IndexError as e:
                raise Damaged("the indirect symbol table is cut short", file) from e
            rows["section"], rows["offset"] = number, 8 * np.arange(len(rows))
            rows["width"], rows["minus"] = 8, -1
            rows["symbol"] = self.symbol_first[file] + (table & 0xFFFFFF)
            known = table & 0xC0000000 == 0
            if (table[known] >= np.diff(self.symbol_first)[file]).any():
                raise Damaged("the indirect symbol table names no symbol", file)
            found.append(rows[known])
        return np.concatenate(found)

    def stored(self, locations: Array, width: Array) -> Array:
        """What is stored at places of `octets`, with a sign. Raises `IndexError`."""
        found = np.zeros(len(locations), np.int64)
        for size in (1, 2, 4, 8):
            mine = np.flatnonzero(width == size)
            found[mine] = gather(self.octets, locations[mine], np.dtype(f"<i{size}"))
        return found


def read(*parts: memoryview) -> Object:
    """Read objects for one processor. Raises `Damaged`."""
    commands = []
    for number, part in enumerate(parts):
        try:
            commands.append(read_commands(part))
            if commands[number].cpu != commands[0].cpu:
                raise Damaged("the object is for another processor than the first")
        except Damaged as e:
            raise Damaged(str(e), number) from e
        except (struct.error, IndexError, ValueError) as e:
            raise Damaged(f"the object is cut short: {e}", number) from e
    octets, base = _together(parts)
    room = np.array([len(p) for p in parts], np.int64)
    out = Object(octets, commands[0].cpu, commands[0].flags, groups=commands[0].groups)
    out.commands, out.base = tuple(commands), base
    out.versions = [v for c in commands for v in c.versions]
    out.table, out.section_first = _sections(octets, base, room, commands)
    _symbols(out, base, parts, commands)
    return out


def _together(parts: Sequence[memoryview]) -> tuple[Array, Array]:
    """(uint8 array, where in it each part begins): of parts of one mapped file without a copy."""
    if len(parts) > 1 and all(p.obj is parts[0].obj for p in parts):
        whole = np.frombuffer(memoryview(parts[0].obj), np.uint8)
        begin = whole.__array_interface__["data"][0]
        locations = [np.frombuffer(p, np.uint8).__array_interface__["data"][0] for p in parts]
        return whole, np.array(locations, np.int64) - begin
    octets = np.frombuffer(parts[0] if len(parts) == 1 else b"".join(parts), np.uint8)
    return octets, np.cumsum([0, *(len(p) for p in parts)])[:-1]


def _sections(
    octets: Array, base: Array, room: Array, commands: Sequence[Commands]
) -> tuple[Array, Array]:
    """SECTION of all files, and the first one of each."""
    counts = np.array([c.section_count for c in commands], np.int64)
    starts = base + np.array([c.sections for c in commands], np.int64)
    raw = gather(octets, spread(starts, counts, _HEADER.itemsize), _HEADER)
    file = np.repeat(np.arange(len(commands)), counts)
    found = np.zeros(len(raw), SECTION)
    found["file"] = file
    for name in ("segment", "name", "size", "align", "flags", "count"):
        found[name] = raw[name]
    found["address"] = raw["address"].astype(np.int64) + (file << STEP)
    for name in ("offset", "relocations"):
        found[name] = base[file] + raw[name]
    found["first"] = raw["r1"]
    zerofill = found["zerofill"] = is_among(raw["flags"] & 0xFF, _ZEROFILL)
    compact = (raw["segment"] == b"__LD") & (raw["name"] == b"__compact_unwind")
    debug = raw["flags"] & 0x02000000 != 0
    debug |= (raw["segment"] == b"__LLVM") | (raw["segment"] == b"__DWARF")
    found["loaded"] = compact | (~debug & (raw["name"] != b"__llvm_addrsig"))

    def check(bad: Array, what: str) -> None:
        if bad.any():
            row = raw[int(bad.argmax())]
            name = bytes(row["name"]).decode("utf-8", "replace")
            raise Damaged(f"section {name} {what}", int(file[int(bad.argmax())]))

    limit = np.uint64(1 << STEP - 1)
    high = (raw["address"] >= limit) | (raw["size"] >= limit)
    check(high, "has an impossible address or size")
    end = raw["offset"] + found["size"]
    check(~zerofill & (end > room[file]), "reaches beyond the end of the file")
    end = raw["relocations"] + 8 * found["count"]
    check((found["count"] > 0) & (end > room[file]), "has relocations that are cut short")
    return found, np.concatenate([[0], np.cumsum(counts)])


def _symbols(
    out: Object, base: Array, parts: Sequence[memoryview], commands: Sequence[Commands]
) -> None:
    texts, last = [], []
    for number, (part, c) in enumerate(zip(parts, commands, strict=True)):
        table, count, strings, size = c.symbols
        if strings + size > len(part) or table + 16 * count > len(part):
            raise Damaged("the symbol table reaches beyond the end of the file", number)
        texts.append(bytes(part[strings : strings + size]))
        last.append(texts[number].rfind(b"\0"))
    counts = np.array([c.symbols[1] for c in commands], np.int64)
    starts = base + np.array([c.symbols[0] for c in commands], np.int64)
    raw = gather(out.octets, spread(starts, counts, _NLIST.itemsize), _NLIST)
    file = np.repeat(np.arange(len(parts)), counts)
    bad = raw["strx"] > np.array(last, np.int64)[file]
    if bad.any():
        raise Damaged("the name of a symbol does not end", int(file[int(bad.argmax())]))
    out.text = b"".join(texts)
    out.symbol_first = np.concatenate([[0], np.cumsum(counts)])
    entries = out.entries = np.zeros(len(raw), SYMBOL)
    text_first = np.cumsum([0, *(len(t) for t in texts)])
    entries["name"] = text_first[file] + raw["strx"]
    entries["type"], entries["desc"] = raw["type"], raw["desc"]
    section = raw["section"].astype(np.int64)
    inside = (section > 0) & (section <= np.diff(out.section_first)[file])
    entries["section"] = np.where(inside, out.section_first[file] + section, 0)
    entries["value"] = raw["value"].astype(np.int64)
    entries["value"][out.placed] += file[out.placed] << STEP


__all__ = [
    "ALT_ENTRY",
    "ARM64",
    "BY_SYMBOLS",
    "ENTRY",
    "REFERENCE",
    "SECTION",
    "STEP",
    "SUBTRACTOR",
    "SYMBOL",
    "TRAILINGS",
    "WEAK_DEF",
    "X86_64",
    "Damaged",
    "Object",
    "Reference",
    "Section",
    "Symbol",
    "read",
]
