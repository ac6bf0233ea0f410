"""A second reader of Mach-O objects, for the checker: what is referred to, by address or by name.

Sources: mach-o/loader.h, mach-o/nlist.h, mach-o/reloc.h and the processors' reloc.h.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

X86_64, ARM64 = 0x01000007, 0x0100000C
ALT_ENTRY, WEAK_DEF = 0x0200, 0x0080
ZEROFILL = frozenset({0x1, 0xC, 0x12})
_SUBTRACTOR = {X86_64: 5, ARM64: 1}
TRAILING = {6: 1, 7: 2, 8: 4}


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


@dataclass
class Object:
    """One object file; see `read`."""

    data: memoryview
    cpu: int = 0
    flags: int = 0
    sections: list[Section] = field(default_factory=list)
    symbols: list[Symbol] = field(default_factory=list)
    groups: tuple[int, int, int, int, int, int] | None = None  # LC_DYSYMTAB
    versions: list[tuple[int, int]] = field(default_factory=list)  # platform, minimum

    def contents(self, section: Section) -> memoryview:
        return self.data[section.offset : section.offset + section.size]

    def section_at(self, address: int) -> int:
        """The number (from 1) of the loaded section that an address is in; 0 for none."""
        for number, s in enumerate(self.sections, start=1):
            if s.address <= address < s.address + s.size and s.loaded:
                return number
        return 0

    def references(
        self, number: int, within: Sequence[tuple[int, int]] | None = None
    ) -> list[Reference]:
        """The relocations of a section, pairs joined. Raises `Damaged`.

        `within`: only those in these pieces, (offset, size) in order.
        """
        section = self.sections[number - 1]
        end = section.relocations + 8 * section.relocation_count
        if end > len(self.data):
            raise Damaged(f"the relocations of section {number} are cut short")
        table = np.frombuffer(
            self.data, "<u4", 2 * section.relocation_count, section.relocations
        ).reshape(-1, 2)
        if within is not None:
            starts, sizes = np.array(within, np.int64).reshape(-1, 2).T
            piece = np.searchsorted(starts, table[:, 0], side="right") - 1
            table = table[(piece >= 0) & (table[:, 0] < (starts + sizes)[piece])]
        found: list[Reference] = []
        minus, add, pending = -1, 0, None
        arm = self.cpu == ARM64
        where = f"section {(section.segment + b',' + section.name).decode('utf-8', 'replace')}"
        for address, info in table.tolist():
            symbol, kind, width = info & 0xFFFFFF, info >> 28, 1 << (info >> 25 & 3)
            extern, pcrel = info >> 27 & 1, info >> 24 & 1
            if address & 0x80000000 or address + width > section.size:
                raise Damaged(f"{where}: a relocation at {address:#x} lies outside")
            if pending is not None and pending != address:
                raise Damaged(f"{where}: a pair of relocations at {pending:#x} is torn apart")
            if arm and kind == 10:
                add, pending = (symbol ^ 0x800000) - 0x800000, address
                continue
            if extern and symbol >= len(self.symbols):
                raise Damaged(f"{where}: a relocation at {address:#x} names no symbol")
            if kind == _SUBTRACTOR[self.cpu]:
                if not extern or minus >= 0:
                    raise Damaged(f"{where}: a SUBTRACTOR at {address:#x} is malformed")
                minus, pending = symbol, address
                continue
            if minus >= 0 and kind != 0:
                raise Damaged(f"{where}: a pair of relocations at {address:#x} is torn apart")
            at = section.offset + address
            content = int.from_bytes(self.data[at : at + width], "little", signed=True)
            if arm and kind != 0:
                content = add
            if not extern:
                if not 0 < symbol <= len(self.sections):
                    raise Damaged(f"{where}: a relocation at {address:#x} names no section")
                if pcrel:
                    content += section.address + address + 4 + TRAILING.get(kind, 0)
                symbol = -1
            found.append(Reference(number, address, kind, width, symbol, content, minus))
            minus, add, pending = -1, 0, None
        if pending is not None:
            raise Damaged(f"{where}: a pair of relocations is torn apart")
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
    for strx, kind, section, desc, value in struct.iter_unpack(
        "<IBBHQ", out.data[table : table + 16 * count]
    ):
        name = text[strx : text.index(b"\0", strx)]
        out.symbols.append(Symbol(name, kind, section, desc, value))


class Places:
    """Where pieces of one member went: (section, offset) -> address in the result."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[list[int], list[int], list[int]]] = {}

    def add(self, section: int, offset: int, size: int, address: int) -> None:
        """Pieces have to come in order."""
        starts, sizes, addresses = self.rows.setdefault(section, ([], [], []))
        starts.append(offset)
        sizes.append(size)
        addresses.append(address)

    def find(self, section: int, offset: int, end: bool = False) -> int | None:
        """The address in the result; None for what is not there.

        With `end` the place may be just behind a piece.
        """
        if section not in self.rows:
            return None
        starts, sizes, addresses = self.rows[section]
        i = bisect_right(starts, offset) - 1
        if i < 0 or offset - starts[i] > sizes[i]:
            return None
        if offset - starts[i] == sizes[i] and sizes[i] and not end:
            return None
        return addresses[i] + offset - starts[i]
