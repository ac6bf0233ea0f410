"""One COFF object as it lies there: headers, names, symbols, relocations, each checked.

Source: Microsoft, "PE Format"; LLVM's `COFFObjectFile.cpp` for `/bigobj` and long names.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.machine import TYPES, Machine, Mode, machine
from cargo_strip_hook.link.arrays import gather, ramps, rows_of
from cargo_strip_hook.link.model import RELOCATION, Array, Bool, Int64
from cargo_strip_hook.link.reading import InputFile
from cargo_strip_hook.link.strings import string_at

# IMAGE_FILE_MACHINE_*: PE format, "Machine Types"
_MACHINES = {0x1C0: "ARM", 0x1C2: "ARM", 0x1C4: "32-bit ARM", 0x200: "Itanium", 0x166: "MIPS"}
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


@dataclass(frozen=True, slots=True)
class Header:
    """The file header: where the tables are."""

    machine: Machine
    big: bool
    sections_at: int
    section_count: int
    symbols_at: int
    symbol_count: int


class CoffFile(InputFile):
    """One file while it is read."""

    def __init__(self, name: str, data: memoryview) -> None:
        super().__init__(name, data)
        self.header = h = self._header()
        self.sections = self.table(
            coff.SECTION, h.sections_at, h.section_count, "the sections reach"
        )
        self.symbol_dtype = coff.BIG_SYMBOL if h.big else coff.SYMBOL
        count = h.symbol_count if h.symbols_at else 0
        self.table_at = h.symbols_at
        self.symbols = self.table(self.symbol_dtype, h.symbols_at, count, "the symbol table reach")
        self.strings_at = h.symbols_at + count * self.symbol_dtype.itemsize
        self.strings = self._strings(count)
        self._check_sections()

    def _header(self) -> Header:
        data = self.data
        if len(data) < coff.HEADER.size:
            raise self.fail("the file is too short for a COFF header", 0)
        number, count, _, table, symbols, optional, _ = coff.HEADER.unpack_from(data)
        big = (number, count) == (0, 0xFFFF)
        start = coff.HEADER.size + optional
        if big:
            if len(data) < coff.BIG_HEADER.size:
                raise self.fail("the file is too short for a /bigobj header", 0)
            fields = coff.BIG_HEADER.unpack_from(data)
            if fields[5] != coff.BIG_CLASS:
                raise self.fail(
                    "this anonymous object holds no machine code of a known form",
                    0,
                    "compile it without whole program optimization (/GL)",
                )
            number, (count, table, symbols) = fields[3], fields[10:]
            start = coff.BIG_HEADER.size
        if number in (coff.ARM64EC, coff.ARM64X):
            raise self.fail(
                "this is an ARM64EC object, which is not supported",
                0,
                "build for aarch64-pc-windows-msvc or for x86_64",
            )
        processor = machine(number)
        if processor is None:
            called = _MACHINES.get(number, "an unknown processor")
            raise self.fail(
                f"COFF objects for {called} (machine {number:#x}) are not supported",
                0,
                "use the original, or build for x86_64, i686 or aarch64",
            )
        return Header(processor, big, start, count, table, symbols)

    def _strings(self, symbols: int) -> memoryview:
        """The string table, whose first four bytes are its size."""
        if not symbols:
            return memoryview(bytes(4))
        rest = self.data[self.strings_at :]
        if len(rest) < 4:
            raise self.fail("the string table is missing", self.strings_at)
        size = int.from_bytes(rest[:4], "little")
        if size > len(rest):
            raise self.fail("the string table reaches beyond the end of the file", self.strings_at)
        if size > 4 and rest[size - 1] != 0:
            raise self.fail("the string table does not end with a zero byte", self.strings_at)
        return rest[: max(size, 4)]

    def _check_sections(self) -> None:
        sections, headers_at = self.sections, self.header.sections_at
        self.flags = sections["flags"].astype(np.int64)
        self.sizes = sections["size"].astype(np.int64)
        # contents may also be missing where they are not said to be uninitialized
        self.stored: Bool = (self.flags & coff.SCN_CNT_UNINITIALIZED_DATA == 0) & (
            sections["offset"] != 0
        )
        ends = sections["offset"].astype(np.int64) + self.sizes
        bad = self.stored & (ends > len(self.data))
        if bad.any():
            number = int(bad.argmax()) + 1
            raise self.fail(f"section {number} reaches beyond the end of the file", headers_at)
        shift = (self.flags & coff.SCN_ALIGN_MASK) >> coff.SCN_ALIGN_SHIFT
        self.check(shift == 15, "a section has an alignment that is unknown", headers_at)
        self.aligns: Int64 = np.where(shift > 0, 1 << np.maximum(shift - 1, 0), coff.DEFAULT_ALIGN)

    @cached_property
    def names(self) -> list[bytes]:
        """The name of each section; a long one stands in the string table."""
        return [
            self._long_name(n) if n.startswith(b"/") else n for n in self.sections["name"].tolist()
        ]

    def _long_name(self, name: bytes) -> bytes:
        headers_at = self.header.sections_at
        if name.startswith(b"//"):
            where = 0
            for letter in name[2:]:
                digit = _BASE64.find(letter)
                if digit < 0:
                    raise self.fail("a section's long name is damaged", headers_at)
                where = where * 64 + digit
        else:
            digits = name[1:]
            if not digits.isdigit():
                return name
            where = int(digits)
        if not 4 <= where < len(self.strings):
            raise self.fail("a section's name lies outside of the string table", headers_at)
        return string_at(self.strings, where)

    def contents(self, section: int) -> memoryview:
        """The contents of section `section`, counted from 0; empty where there are none."""
        if not self.stored[section]:
            return memoryview(b"")
        start = int(self.sections["offset"][section])
        return self.data[start : start + int(self.sizes[section])]

    # ---- symbols

    @cached_property
    def primary(self) -> Int64:
        """The indices of the records that are symbols, not auxiliary records of one.

        Each record says how many follow that belong to it: what can be reached by these steps
        from the first one is found by doubling the steps.
        """
        count = len(self.symbols)
        step = np.arange(count + 1) + 1
        step[:-1] += self.symbols["aux"]
        step[-1] = count
        limit = count + 2
        jump = np.full(limit, count + 1)
        # a step beyond the end is only a fault if it is reached
        jump[: count + 1] = np.minimum(step, count + 1)
        reached = np.zeros(limit, np.bool_)
        reached[0] = True
        reach = 1
        while reach <= count:
            reached[jump[np.flatnonzero(reached)]] = True
            jump = jump[jump]
            reach *= 2
        if reached[count + 1]:
            raise self.fail("auxiliary records reach beyond the symbol table", self.table_at)
        return np.flatnonzero(reached[:count])

    def check_symbols(self) -> None:
        """Raise `ObjectError` for names and sections that are out of range."""
        rows = self.symbols[self.primary]
        words = np.ascontiguousarray(rows["name"]).view("<u4").reshape(-1, 2)
        long = (words[:, 0] == 0) & (words[:, 1] != 0)
        outside = long & ((words[:, 1] < 4) | (words[:, 1] >= len(self.strings)))
        self.check(outside, "a symbol's name lies outside of the string table", self.table_at)
        section = rows["section"]
        outside = (section > len(self.sections)) | (section < coff.SYM_DEBUG)
        self.check(outside, "a symbol's section is out of range", self.table_at)

    def auxiliary(self, primary: Int64, record: np.dtype[np.void]) -> Array:
        """The first auxiliary record of each symbol, as `record` has it.

        A copy: records of a `/bigobj` table are longer than what they hold.
        """
        octets = np.ascontiguousarray(self.symbols[primary + 1]).view(np.uint8)
        octets = octets.reshape(-1, self.symbol_dtype.itemsize)[:, : record.itemsize]
        return np.ascontiguousarray(octets).view(record).reshape(-1)

    def name_positions(self, primary: Int64) -> Int64:
        """Where names stand in the file: an offset, or ~offset of eight bytes at the most."""
        rows = self.symbols[primary]
        words = np.ascontiguousarray(rows["name"]).view("<u4").reshape(-1, 2)
        inline = ~(self.table_at + primary * self.symbol_dtype.itemsize)
        long = (words[:, 0] == 0) & (words[:, 1] != 0)
        return np.where(long, self.strings_at + words[:, 1].astype(np.int64), inline)

    def symbol_names(self, primary: Int64) -> list[bytes]:
        """The names of many symbols."""
        raw = bytes(self.strings)
        names = np.ascontiguousarray(self.symbols["name"][primary])
        words = names.view("<u4").reshape(-1, 2)
        long = ((words[:, 0] == 0) & (words[:, 1] != 0)).tolist()
        find = raw.find
        return [
            raw[start : find(b"\0", start)] if is_long else short
            for is_long, short, start in zip(
                long, names.view("S8").reshape(-1).tolist(), words[:, 1].tolist(), strict=True
            )
        ]

    # ---- relocations

    def relocations(self, wanted: Int64) -> Array:
        """All relocations of the sections `wanted`, as rows of the model.

        `atom` holds the section, `symbol` the index in the file's table; addends stay in the
        contents. Relocations that say nothing are left out.
        """
        sections = self.sections[wanted]
        counts = sections["relocation_count"].astype(np.int64)
        starts = sections["relocations"].astype(np.int64)
        size = coff.RELOCATION.itemsize
        overflow = (self.flags[wanted] & coff.SCN_LNK_NRELOC_OVFL != 0) & (
            counts == coff.MOST_RELOCATIONS
        )
        for n in np.flatnonzero(overflow).tolist():
            first = self.table(coff.RELOCATION, int(starts[n]), 1, "relocations reach")
            counts[n] = int(first["address"][0]) - 1
            starts[n] += size
            if counts[n] < 0:
                raise self.fail("a section has an impossible number of relocations", int(starts[n]))
        bad = (counts > 0) & (starts + counts * size > len(self.data))
        self.check(bad, "relocations reach beyond the end of the file", starts)
        of = np.repeat(np.arange(len(wanted)), counts)
        offsets = ramps(starts, counts, size)
        if not len(offsets):
            return np.zeros(0, RELOCATION)
        rows = gather(np.frombuffer(self.data, np.uint8), offsets, coff.RELOCATION)
        out = rows_of(
            RELOCATION,
            len(offsets),
            atom=wanted[of],
            type=rows["type"],
            symbol=rows["symbol"],
            offset=rows["address"].astype(np.int64) - sections["address"][of],
        )
        return self._checked(out, offsets)

    def _checked(self, rows: Array, starts: Int64) -> Array:
        """Those of the rows that say something; `starts` is where each is in the file."""
        processor = self.header.machine
        kind = np.minimum(rows["type"], TYPES - 1)
        mode = processor.mode[kind]
        unknown = (mode == Mode.UNKNOWN) | (rows["type"] >= TYPES)
        if unknown.any():
            n = int(unknown.argmax())
            raise self.fail(f"relocation type {int(rows['type'][n]):#x} is unknown", int(starts[n]))
        kept = mode != Mode.NOTHING
        if not kept.all():
            rows, starts, kind = rows[kept], starts[kept], kind[kept]
        symbol = rows["symbol"].view(np.uint32)
        is_symbol = np.zeros(len(self.symbols) + 1, np.bool_)
        is_symbol[self.primary] = True
        nowhere = ~is_symbol[np.minimum(symbol, len(self.symbols))]
        self.check(nowhere, "a relocation refers to no symbol", starts)
        ends = rows["offset"] + processor.width[kind]
        outside = (rows["offset"] < 0) | (ends > self.sizes[rows["atom"]])
        outside |= ~self.stored[rows["atom"]]
        self.check(outside, "a relocation lies outside of its section", starts)
        return rows
