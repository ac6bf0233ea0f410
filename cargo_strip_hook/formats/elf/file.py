"""ELF files as they lie there: headers, names, symbols, relocations, each checked on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.crel import CompactTables, read_compact
from cargo_strip_hook.formats.elf.machine import TYPES, Machine, machine
from cargo_strip_hook.formats.sniff import elf_machine, elf_name
from cargo_strip_hook.link import fields
from cargo_strip_hook.link.arrays import gather, isin, join, ramps, rows_of, together
from cargo_strip_hook.link.fields import Field
from cargo_strip_hook.link.model import (
    RELOCATION,
    Array,
    Bool,
    Input,
    Int32,
    Int64,
    Unit,
)
from cargo_strip_hook.link.reading import InputFile, InputFiles, numbered
from cargo_strip_hook.link.strings import string_at, strings_at

_UNSUPPORTED = (
    "use the original: this processor is not supported, or not in this form",
    "what the original can lose is its debug information: `strip -g`, of the target's binutils",
)
_SYMBOLS = "the symbol table reaches"
_MOST_ALIGN = np.uint64(1 << 30)  # bytes: the largest page of any architecture


def _unsupported(f: InputFile, offset: int, why: str = "") -> ObjectError:
    """The error for objects of a processor, or of an ABI of it, that we know too little of."""
    kind = elf_machine(bytes(f.data[:20]))
    called = elf_name(kind) if kind else "this processor"
    return f.fail(
        f"objects for {called} of this kind are not supported{why}", offset, *_UNSUPPORTED
    )


@dataclass(frozen=True, slots=True, eq=False)
class ElfUnit:
    """What only the ELF room knows of an object file."""

    records: elf.Records
    machine: Machine
    identity: bytes  # EI_OSABI and EI_ABIVERSION
    flags: int  # e_flags
    sections: Array  # the section header table
    names16: Array  # first 16 bytes of each section's name, "S16"
    strings: memoryview  # .shstrtab
    section_atom: Int32  # section -> atom, -1
    shndx: Int32  # section of each symbol, SHN_XINDEX resolved; reserved values stay
    debug: tuple[int, ...]  # non-allocated sections that may be kept

    @property
    def relocation(self) -> np.dtype[np.void]:
        """The record of a relocation."""
        return self.records.rel if self.machine.rel else self.records.rela


def elf_unit(unit: Unit) -> ElfUnit:
    """What only this room knows of an object file."""
    return cast("ElfUnit", unit.native)


def section_name(unit: ElfUnit, section: int) -> bytes:
    """The whole name of a section."""
    start = int(unit.sections["name"][section])
    return string_at(unit.strings, start)


@dataclass(frozen=True, slots=True)
class _Header:
    """What of a file's header is needed."""

    identity: bytes  # EI_OSABI and EI_ABIVERSION
    flags: int  # e_flags
    shoff: int
    entsize: int
    count: int
    shstrndx: int


@dataclass(frozen=True, slots=True, eq=False)
class Symbols:
    """The symbol tables of several files behind one another.

    `first` is where each file's table begins, and the total; `owner` the file of each symbol.
    `shndx` holds the section of each, SHN_XINDEX resolved, but for those that are `reserved`.
    """

    table: Array
    first: Int64
    owner: Int64
    first_global: list[int]  # of each file, in its own table
    shndx: Int32
    reserved: Bool
    names: list[list[bytes]]  # of each file: the names of its global symbols
    strings: list[memoryview]


@dataclass(frozen=True, slots=True, eq=False)
class _SymbolTables:
    """The symbol tables as they stand in the files: one item for each file in every column.

    `counts`: the number of symbols; `first_global`: in its own table; `offset`: of the table in
    its file, 0 where there is none.
    """

    rows: list[Array]
    counts: Int64
    first_global: Int64
    offset: Int64
    strings: list[memoryview]


class ElfFiles(InputFiles):
    """Several files of one class, byte order and machine.

    Sections are numbered through; `first` is the number of each file's first one, and the total;
    `owner` is the file of each. Values in the tables are as in the files.
    """

    def __init__(self, inputs: Sequence[Input]) -> None:
        super().__init__(inputs)
        self.headers = [self._header(number) for number in range(len(inputs))]
        self.octets, self.base = together([i.data for i in inputs])
        self._read_sections()

    def headers_at(self, file: int) -> int:
        return self.headers[file].shoff

    def _header(self, number: int) -> _Header:
        f, data = self.files[number], self.inputs[number].data
        if len(data) < 52:
            raise f.fail("the file is too short for an ELF header")
        ident = bytes(data[:16])
        if ident[:4] != b"\x7fELF":
            raise f.fail("this is no ELF file")
        if ident[4] not in (1, 2) or ident[5] not in (1, 2):
            raise f.fail("the ELF class or byte order is unknown", 4)
        records = elf.records(32 * ident[4], "<" if ident[5] == 1 else ">")
        if len(data) < records.header.size:
            raise f.fail("the file is too short for an ELF header")
        header = records.header.unpack_from(data)
        kind, machine_number, flags = header[1], header[2], header[7]
        if kind != elf.ET_REL:
            raise f.fail("this ELF file is no relocatable object", 16)
        processor = machine(machine_number, records.bits, records.order)
        if processor is None or flags & processor.refused_flags:
            raise _unsupported(f, 18)
        self.r, self.machine = records, processor
        return _Header(ident[7:9], flags, header[6], header[11], header[12], header[13])

    def _section_table(self, file: int) -> tuple[Array, int]:
        """(section headers, number of the section with their names) of one file."""
        f, header = self.files[file], self.headers[file]
        if header.shoff == 0:
            raise f.fail("the file has no section header table", 40)
        if header.entsize != self.r.section.itemsize:
            raise f.fail(f"section headers of {header.entsize} bytes are unknown", 58)
        count, names = header.count, header.shstrndx
        if count == 0 or names == elf.SHN_XINDEX:
            # gABI: what the file header cannot hold is in the first section header
            null = f.table(self.r.section, header.shoff, 1, "the section table reaches")[0]
            count = count or int(null["size"])
            names = int(null["link"]) if names == elf.SHN_XINDEX else names
        sections = f.table(self.r.section, header.shoff, count, "the section table reaches")
        if not 0 < names < count:
            raise f.fail("the index of the section names is out of range", 62)
        return sections, names

    def _read_sections(self) -> None:
        tables = [self._section_table(file) for file in range(len(self.inputs))]
        self.first, self.owner = numbered([len(sections) for sections, _ in tables])
        self.sections = sections = join([sections for sections, _ in tables])
        self.types = sections["type"]
        length = np.array([len(i.data) for i in self.inputs], np.uint64)[self.owner]
        sizes = sections["size"].astype(np.uint64)
        ends = sections["offset"].astype(np.uint64) + sizes
        present = (self.types != elf.SHT_NOBITS) & (self.types != elf.SHT_NULL)
        bad = present & ((ends > length) | (ends < sizes))
        if bad.any():
            number = int(bad.argmax())
            local = number - int(self.first[self.owner[number]])
            self.check(bad, self.owner, f"section {local} reaches beyond the end of the file")
        align = sections["align"].astype(np.uint64)
        odd = (align & (align - np.uint64(1)) * (align != 0) != 0) | (align > _MOST_ALIGN)
        self.check(odd, self.owner, "a section's alignment is no power of two, or too large")
        unknown = sections["flags"].astype(np.uint64) >> np.uint64(32) != 0
        self.check(unknown, self.owner, "a section has flags that are unknown")
        huge = sizes >> np.uint64(62) != 0
        self.check(huge, self.owner, "a section is larger than any address space")
        self.section_flags = sections["flags"].astype(np.int64)
        self.start = self.base[self.owner] + sections["offset"].astype(np.int64)
        named = self.first[:-1] + np.array([names for _, names in tables], np.int64)
        self.strings = [self.contents(number) for number in named.tolist()]
        for file, strings in enumerate(self.strings):
            if len(strings) == 0 or strings[-1] != 0:
                shoff = self.headers[file].shoff
                raise self.fail(file, "the section names do not end with a zero byte", shoff)
        outside = sections["name"] >= sections["size"][named][self.owner]
        self.check(outside, self.owner, "a section's name lies outside of the section names")
        self.name_words = self._heads(self.start[named][self.owner] + sections["name"])
        self.names16 = self.name_words.view("S16").reshape(-1)
        refused = self.machine.refused_section
        if refused and (known := np.flatnonzero(self.names16 == refused)).size:
            raise _unsupported(self.files[int(self.owner[known[0]])], 18)

    def _heads(self, positions: Int64) -> Array:
        """uint64[n, 2], little endian: the 16 bytes at each place, zeros after the first zero."""
        heads = gather(self.octets, np.minimum(positions, len(self.octets) - 16), np.dtype("V16"))
        for i in np.flatnonzero(positions > len(self.octets) - 16).tolist():  # at the very end
            heads[i] = self.octets[int(positions[i]) :].tobytes().ljust(16, b"\0")
        words = heads.view("<u8").reshape(-1, 2)
        # the lowest bit that is set in `zero` is the highest one of the first zero byte
        zero = (words - np.uint64(0x0101010101010101)) & ~words & np.uint64(0x8080808080808080)
        words &= (zero & (~zero + np.uint64(1))) - np.uint64(1)
        words[zero[:, 0] != 0, 1] = 0
        return words

    def named(self, start: bytes) -> Bool:
        """Which sections have a name that begins so; `start` has 16 bytes at most.

        The first eight bytes are compared as one number: numpy is slow at comparing strings.
        """
        matches = np.ones(len(self.types), np.bool_)
        for offset in range(0, len(start), 8):
            letters = start[offset : offset + 8]
            word = self.name_words[:, offset // 8]
            unused = np.uint64(8 * (8 - len(letters)))
            wanted = np.uint64(int.from_bytes(letters, "little"))
            matches &= (word << unused) == (wanted << unused) if unused else word == wanted
        return matches

    def contents(self, section: int) -> memoryview:
        """The bytes of a section, without a copy."""
        file = int(self.owner[section])
        header = self.sections[section]
        if header["type"] == elf.SHT_NOBITS:
            local = section - int(self.first[file])
            shoff = self.headers[file].shoff
            raise self.fail(file, f"section {local} has no contents", shoff)
        start = int(header["offset"])
        return self.inputs[file].data[start : start + int(header["size"])]

    def one(self, kind: int) -> Int64:
        """For each file the section of a type that occurs at most once, 0 where there is none."""
        tables = np.flatnonzero(self.types == kind)
        owner = self.owner[tables]
        self.check(owner[1:] == owner[:-1], owner, "the file has several symbol tables")
        sections = np.zeros(len(self.inputs), np.int64)
        sections[owner] = tables
        return sections

    # ---- symbols

    def symbols(self) -> Symbols:
        """The symbol tables of all files; a file without one has the null symbol only.

        Raises `ObjectError` for a table that is damaged.
        """
        stored = self._symbol_tables()
        table, (first, owner) = join(stored.rows), numbered(stored.counts)
        offset = stored.offset[owner]
        room = np.array([len(s) for s in stored.strings], np.int64)[owner]
        outside = "a symbol's name lies outside of the string table"
        self.check(table["name"] >= room, owner, outside, offset)
        shndx, reserved = self._symbol_sections(table, first, stored.offset)
        outside = "a symbol's section is out of range"
        bad = ~reserved & (shndx.view(np.uint32) >= np.diff(self.first)[owner])
        self.check(bad, owner, outside, offset)
        first_global = stored.first_global.tolist()
        names = [
            strings_at(strings, own["name"][begin:].tolist())
            for own, begin, strings in zip(stored.rows, first_global, stored.strings, strict=True)
        ]
        return Symbols(table, first, owner, first_global, shndx, reserved, names, stored.strings)

    def _symbol_tables(self) -> _SymbolTables:
        """Find the symbol table of each file. Raises `ObjectError` where its header is wrong."""
        record = self.r.symbol
        tables = self.one(elf.SHT_SYMTAB)
        files = np.flatnonzero(tables)
        headers = self.sections[tables[files]]
        offset = headers["offset"].astype(np.int64)
        unknown = headers["entsize"] != record.itemsize
        self.check(unknown, files, "the symbol table has entries of an unknown size", offset)
        counts = np.ones(len(tables), np.int64)
        counts[files] = headers["size"] // record.itemsize
        first_global = np.ones(len(tables), np.int64)
        first_global[files] = headers["info"]
        outside = (headers["info"] == 0) | (headers["info"] > counts[files])
        self.check(outside, files, "the number of local symbols is out of range", offset)
        link = headers["link"].astype(np.int64)
        bad = (link == 0) | (link >= np.diff(self.first)[files])
        link = self.first[:-1][files] + np.where(bad, 0, link)
        bad |= self.types[link] != elf.SHT_STRTAB
        self.check(bad, files, "the symbol table has no string table", offset)
        offsets = np.zeros(len(tables), np.int64)
        offsets[files] = offset
        rows = [np.zeros(1, record)] * len(tables)
        strings = [memoryview(b"\0")] * len(tables)
        for file, start, string in zip(files.tolist(), offset.tolist(), link.tolist(), strict=True):
            rows[file] = self.files[file].table(record, start, int(counts[file]), _SYMBOLS)
            strings[file] = self.contents(string)
            if len(strings[file]) == 0 or strings[file][-1] != 0:
                raise self.fail(file, "the symbol names do not end with a zero byte", start)
        return _SymbolTables(rows, counts, first_global, offsets, strings)

    def _symbol_sections(self, table: Array, first: Int64, offset: Int64) -> tuple[Int32, Bool]:
        """`shndx` and `reserved` of `Symbols`.

        `first`: where each file's symbols begin in `table`; `offset`: of its table in the file.
        Source: gABI, "Symbol Table", SHN_XINDEX.
        """
        shndx: Int32 = table["shndx"].astype(np.int32)
        # reserved values keep their meaning; real indices may pass them
        reserved = shndx >= elf.SHN_LORESERVE
        extended = self.one(elf.SHT_SYMTAB_SHNDX)
        for file in np.flatnonzero(extended).tolist():
            header = self.sections[extended[file]]
            wide = self.files[file].table(
                np.dtype(f"{self.r.order}u4"),
                int(header["offset"]),
                int(header["size"]) // 4,
                "the extended section indices reach",
            )
            mine = slice(int(first[file]), int(first[file + 1]))
            if len(wide) < len(shndx[mine]):
                what = "the extended section indices are too few"
                raise self.fail(file, what, int(offset[file]))
            escaped = shndx[mine] == elf.SHN_XINDEX
            shndx[mine][escaped] = wide[: len(escaped)][escaped]
            reserved[mine] &= ~escaped
        return shndx, reserved

    # ---- relocations

    def relocations(self, wanted: Array, symbol_counts: Int64) -> tuple[Array, Int64]:
        """(rows, the section that each applies to) of the relocation sections `wanted`.

        In the order of the files; `RELOCATION.atom` and `reach` are 0. Addends that stand in the
        contents are read for the types that may be changed (`implicit` of the machine), and are 0
        for the others. `symbol_counts`: the number of symbols of each file.
        """
        compact = isin(self.types[wanted], np.array(elf.COMPACT))
        if not self.machine.rel and (self.types[wanted] == elf.SHT_RELA).all():
            return self._entries(wanted, self.r.rela, symbol_counts)
        rel = wanted[self.types[wanted] == elf.SHT_REL]
        rela = wanted[self.types[wanted] == elf.SHT_RELA]
        tables = self._compact(wanted[compact])
        parts = [
            self._entries(rela, self.r.rela, symbol_counts),
            self._checked(wanted[compact], tables.rows, tables.counts, symbol_counts),
        ]
        bare = np.repeat(~tables.addends, tables.counts)
        if len(rel) or bare.any():
            if not self.machine.rel:
                table = rel[0] if len(rel) else wanted[compact][(~tables.addends).argmax()]
                position = int(self.sections["offset"][table])
                why = ": their relocations have no addends"
                raise _unsupported(self.files[int(self.owner[table])], position, why)
            parts.append(self._entries(rel, self.r.rel, symbol_counts))
        rows = np.concatenate([part for part, _ in parts])
        section = np.concatenate([part for _, part in parts])
        implicit = np.ones(len(rows), np.bool_)
        implicit[: len(parts[0][0])] = False
        implicit[len(parts[0][0]) :][: len(bare)] = bare
        if self.machine.rel:
            self._load_addends(rows, section, implicit)
        order = np.argsort(self.owner[section], kind="stable")
        return rows[order], section[order]

    def _stores(self, types: Array) -> Bool:
        """Which relocation types we may store a value for ourselves, in 4 bytes at the most."""
        small = np.minimum(types, TYPES - 1)
        storable: Bool = (self.machine.relative_types[small] != Field.NONE) | (
            self.machine.relaxation_types[small] != 0
        )
        return storable

    def _inside(self, rows: Array, section: Int64, width: int) -> None:
        """Raise `ObjectError` if a field of `width` bytes does not lie in its section."""
        bad = rows["offset"] + width > self.sections["size"][section].astype(np.int64)
        bad |= self.types[section] == elf.SHT_NOBITS
        self.check(bad, self.owner[section], "a relocation lies outside of its section")

    def _entries(
        self, wanted: Array, record: np.dtype[np.void], symbol_counts: Int64
    ) -> tuple[Array, Int64]:
        """The entries of sections whose entries are all like `record`."""
        headers = self.sections[wanted]
        owner = self.owner[wanted]
        offset = headers["offset"].astype(np.int64)
        sizes = headers["size"].astype(np.int64)
        counts = sizes // record.itemsize
        odd = (sizes % record.itemsize != 0) | (headers["entsize"] != record.itemsize)
        what = "a relocation section has entries of an unknown size"
        self.check((sizes > 0) & odd, owner, what, offset)
        raw = gather(self.octets, ramps(self.start[wanted], counts, record.itemsize), record)
        return self._checked(wanted, raw, counts, symbol_counts)

    def _compact(self, wanted: Int64) -> CompactTables:
        """What the compact tables `wanted` say. Raises `ObjectError` for a damaged one."""
        size = self.sections["size"][wanted].astype(np.int64)
        tables = read_compact(self.octets, self.start[wanted], size, self.r)
        offset = self.sections["offset"][wanted].astype(np.int64)
        what = "relocations in the compact form are damaged"
        self.check(tables.damaged, self.owner[wanted], what, offset)
        return tables

    def _load_addends(self, rows: Array, section: Int64, implicit: Bool) -> None:
        """Put addends that stand in the contents into our own `rows`, those that are `implicit`."""
        position = self.start[section] + rows["offset"]
        types = np.minimum(rows["type"], TYPES - 1)
        needed = self.machine.implicit_types[types]
        if not implicit.all():
            needed = self.machine.stored_types[types]
            bad = ~implicit & (needed == Field.NONE) & (types != 0)
            if bad.any():
                row = int(bad.argmax())
                raise self.files[int(self.owner[section[row]])].fail(
                    f"a relocation of type {types[row]} has an addend beside the code, where this "
                    "architecture has it inside",
                    self.headers_at(int(self.owner[section[row]])),
                    "compile without compact relocations: without `-Wa,--crel`",
                )
        for field in fields.FIELDS:
            mine = np.flatnonzero((needed == field) & implicit)
            if len(mine):
                self._inside(rows[mine], section[mine], fields.width(field))
                rows["addend"][mine] = fields.load(self.octets, position[mine], field, self.r.order)

    def _checked(
        self, wanted: Int64, raw: Array, counts: Int64, symbol_counts: Int64
    ) -> tuple[Array, Int64]:
        """(RELOCATION rows of the entries `raw`, section of each), `counts` for each of `wanted`.

        Raises `ObjectError` for one outside of its section, or with a symbol that is not there.
        """
        owner = self.owner[wanted]
        offset = self.sections["offset"][wanted].astype(np.int64)
        section = np.repeat(self.first[owner] + self.sections["info"][wanted], counts)
        out = rows_of(
            RELOCATION,
            len(raw),
            offset=raw["offset"],
            symbol=(raw["info"] >> self.r.symbol_shift) & 0xFFFFFFFF,
            type=raw["info"] & self.r.type_mask,
            addend=raw["addend"] if "addend" in (raw.dtype.names or ()) else 0,
        )
        file, where = np.repeat(owner, counts), np.repeat(offset, counts)
        bad = out["symbol"].view(np.uint32) >= symbol_counts[file]
        self.check(bad, file, "a relocation's symbol is out of range", where)
        limits = self.sections["size"][section].astype(np.int64)
        wide = self.machine.absolute_types[np.minimum(out["type"], TYPES - 1)].astype(np.int64)
        ends = out["offset"] + np.maximum(wide, np.where(self._stores(out["type"]), 4, 0))
        bad = (out["offset"] < 0) | (ends > limits)
        self.check(bad, file, "a relocation lies outside of its section", where)
        return out, section
