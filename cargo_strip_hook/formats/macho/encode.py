"""Encodes one Mach-O relocatable object: header, commands, contents, relocations, symbols.

Sources: mach-o/loader.h, mach-o/reloc.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.addresses import Placed
from cargo_strip_hook.formats.macho.machine import Machine
from cargo_strip_hook.link.arrays import begins
from cargo_strip_hook.link.model import Array, Chunk
from cargo_strip_hook.link.output import OutputObject, SymbolTable, stream


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class MachoOutput(OutputObject):
    """`cpu`: type and subtype. `commands`: further load commands; `data_in_code`: DATA_IN_CODE."""

    placed: Placed
    machine: Machine
    cpu: tuple[int, int]
    commands: Sequence[bytes]
    data_in_code: Array

    def encode(self) -> tuple[int, Iterator[Chunk]]:
        """See `OutputObject`."""
        entries = _entries(self)
        sections, table, ranges = self.placed.headers, self.symbols, self.data_in_code
        length = mo.SEGMENT.itemsize + len(sections) * mo.SECTION.itemsize
        length += sum(map(len, self.commands)) + 24 + 80 + (16 if len(ranges) else 0)
        total_commands = 3 + len(self.commands) + (1 if len(ranges) else 0)
        offsets = _offsets(mo.HEADER.itemsize + length, self.placed, entries, ranges, table)
        head = struct.pack(
            "<8I",
            mo.MH_MAGIC_64,
            *self.cpu,
            mo.MH_OBJECT,
            total_commands,
            length,
            mo.MH_SUBSECTIONS_VIA_SYMBOLS,
            0,
        )
        segment = _segment(self.placed, offsets, entries)
        headers = [head, segment, *self.commands, _symbol_commands(table, offsets)]
        if len(ranges):
            where = offsets.data_in_code, ranges.nbytes
            headers.append(struct.pack("<4I", mo.LC_DATA_IN_CODE, 16, *where))
        body: list[tuple[int, list[Chunk]]] = [(0, [*headers])]
        for section, contents in zip(sections, self.contents, strict=True):
            if len(contents):
                body.append((offsets.contents[0] + section.address, [contents.data]))
        tables = zip(offsets.relocations, entries, strict=True)
        body += [(offset, [raw]) for offset, raw in tables if raw]
        if len(ranges):
            body.append((offsets.data_in_code, [ranges.tobytes()]))
        body.append((offsets.symbols, [table.records.tobytes(), table.strings]))
        return offsets.end, stream(body)


def _entries(o: MachoOutput) -> list[bytes]:
    """The relocation entries of each section. Source: mach-o/reloc.h, struct relocation_info."""
    relocations = o.relocations
    if len(o.symbols.records) >= 1 << 24:
        raise LinkError("the library has more symbols than a Mach-O relocation can tell apart")
    extern = relocations.exact | (relocations.symbol >= 0)
    kind = relocations.type
    info = o.symbols.numbers(relocations)
    info |= (kind >> 4 & 1) << 24 | (kind >> 5 & 3) << 25 | (kind & 0xF) << 28
    info |= extern.astype(np.int64) << 27
    before = o.machine.explicit[kind] & (relocations.addend != 0)
    # an ADDEND entry stands before its own
    of = np.repeat(np.arange(len(info)), 1 + before)
    rows = np.zeros(len(of), mo.RELOC)
    rows["address"], rows["info"] = relocations.offset[of], info[of]
    extra = np.flatnonzero(of[:-1] == of[1:])
    adds = relocations.addend[before] & 0xFFFFFF
    rows["info"][extra] = adds | 2 << 25 | mo.ARM64_ADDEND << 28
    first = begins(1 + before)  # of those of each, and their total
    return [
        rows[first[mine.start] : first[mine.stop]].tobytes()
        for mine in relocations.by_section(len(o.placed.headers))
    ]


@dataclass(frozen=True, slots=True)
class _Offsets:
    """Where in the file everything lies. `contents`: where address 0 does, and the end of the last.

    `relocations` are by section, 0 for none.
    """

    contents: tuple[int, int]
    relocations: list[int]
    data_in_code: int
    symbols: int
    strings: int
    end: int


def _offsets(
    before: int,
    placed: Placed,
    entries: list[bytes],
    data_in_code: Array,
    table: SymbolTable,
) -> _Offsets:
    """Lay out the file; `before` bytes of headers come first. Raises `LinkError` above 4 GiB."""
    # contents lie in the file as in memory, as assemblers put them
    align = min(max((s.align for s in placed.headers), default=1), 4096)
    begin = -(-before // align) * align
    ends = [s.address + s.size for s in placed.headers if not s.zerofill and s.size]
    content_end = begin + max(ends, default=0)
    position = -(-content_end // 8) * 8
    relocations = []
    for raw in entries:
        relocations.append(position if raw else 0)
        position += len(raw)
    symbols = -(-(position + data_in_code.nbytes) // 8) * 8
    strings = symbols + table.records.nbytes
    end = strings + len(table.strings)
    if end >= 1 << 32:
        raise LinkError("the object would be larger than 4 GiB, which Mach-O cannot describe")
    return _Offsets((begin, content_end), relocations, position, symbols, strings, end)


def _segment(placed: Placed, offsets: _Offsets, entries: list[bytes]) -> bytes:
    """`LC_SEGMENT_64` with the headers of all sections."""
    begin, content_end = offsets.contents
    headers = np.zeros(len(placed.headers), mo.SECTION)
    for number, section in enumerate(placed.headers):
        headers[number] = (
            section.section,
            section.segment,
            section.address,
            section.size,
            begin + section.address if not section.zerofill and section.size else 0,
            section.align.bit_length() - 1,
            offsets.relocations[number],
            len(entries[number]) // 8,
            section.flags,
            0,
            0,
            0,
        )
    segment = np.zeros(1, mo.SEGMENT)
    segment[0] = (
        mo.LC_SEGMENT_64,
        mo.SEGMENT.itemsize + headers.nbytes,
        b"",
        0,
        max((s.address + s.size for s in placed.headers), default=0),
        begin,
        content_end - begin,
        7,
        7,
        len(headers),
        0,
    )
    return segment.tobytes() + headers.tobytes()


def _symbol_commands(table: SymbolTable, offsets: _Offsets) -> bytes:
    """`LC_SYMTAB` and `LC_DYSYMTAB`."""
    undefined = len(table.records) - table.locals - table.globals
    return struct.pack(
        "<6I",
        mo.LC_SYMTAB,
        24,
        offsets.symbols,
        len(table.records),
        offsets.strings,
        len(table.strings),
    ) + struct.pack(
        "<20I",
        mo.LC_DYSYMTAB,
        80,
        0,
        table.locals,
        table.locals,
        table.globals,
        table.locals + table.globals,
        undefined,
        *[0] * 12,
    )


__all__ = ["MachoOutput"]
