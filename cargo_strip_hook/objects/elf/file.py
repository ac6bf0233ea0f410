"""One ELF file as it lies there: headers, names, symbols, relocations, each checked on the way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.errors import ObjectError
from cargo_strip_hook.objects.elf import fields
from cargo_strip_hook.objects.elf import layouts as elf
from cargo_strip_hook.objects.elf.fields import Field
from cargo_strip_hook.objects.elf.machine import TYPES, Machine, machine
from cargo_strip_hook.objects.model import (
    RELOCATION,
    Array,
    Bool,
    Int32,
)
from cargo_strip_hook.objects.strings import string_at

_MOST_ALIGN = np.uint64(1 << 30)  # bytes: the largest page of any architecture


@dataclass(frozen=True, slots=True)
class ElfUnit:
    """What only the ELF room knows of an object file."""

    records: elf.Records
    machine: Machine
    osabi: int
    flags: int  # e_flags
    sections: Array  # the section header table
    names16: Array  # first 16 bytes of each section's name, "S16"
    strings: memoryview  # .shstrtab
    symbol_strings: memoryview
    section_atom: Int32  # section -> atom, -1
    shndx: Int32  # section of each symbol, SHN_XINDEX resolved; reserved values stay
    debug: tuple[int, ...]  # non-allocated sections that may be kept


def section_name(unit: ElfUnit, section: int) -> bytes:
    """The whole name of a section."""
    start = int(unit.sections["name"][section])
    return string_at(unit.strings, start)


class ElfFile:
    """Holds one file while it is read; `fail` knows the member and the offset."""

    def __init__(self, name: str, data: memoryview) -> None:
        self.name = name
        self.data = data
        if len(data) < 52:
            raise ObjectError("the file is too short for an ELF header", member=name, offset=0)
        ident = bytes(data[:16])
        if ident[:4] != b"\x7fELF":
            raise ObjectError("this is no ELF file", member=name, offset=0)
        if ident[4] not in (1, 2) or ident[5] not in (1, 2):
            raise ObjectError("the ELF class or byte order is unknown", member=name, offset=4)
        self.r = elf.records(32 * ident[4], "<" if ident[5] == 1 else ">")
        if len(data) < self.r.header.size:
            raise ObjectError("the file is too short for an ELF header", member=name, offset=0)
        header = self.r.header.unpack_from(data)
        self.osabi = ident[7]
        kind, number = header[1], header[2]
        if kind != elf.ET_REL:
            raise ObjectError("this ELF file is no relocatable object", member=name, offset=16)
        found = machine(number, self.r.bits, self.r.order)
        self.flags = header[7]
        if found is None or self.flags & found.refused_flags:
            raise ObjectError(
                f"objects for ELF machine {number} ({self.r.bits}-bit) of this kind are not "
                "supported",
                member=name,
                offset=18,
            )
        self.machine = found
        self._read_sections(header[6], header[11], header[12], header[13])

    def fail(self, what: str, offset: int) -> ObjectError:
        return ObjectError(what, member=self.name, offset=offset)

    def table(self, dtype: np.dtype[np.void], offset: int, count: int, what: str) -> Array:
        """`count` records of `dtype` at `offset` of the file, without a copy."""
        if count < 0 or offset < 0 or offset + count * dtype.itemsize > len(self.data):
            raise self.fail(f"{what} reaches beyond the end of the file", offset)
        return np.frombuffer(self.data, dtype, count, offset)

    def _read_sections(self, shoff: int, entsize: int, count: int, shstrndx: int) -> None:
        if shoff == 0:
            raise self.fail("the file has no section header table", 40)
        if entsize != self.r.section.itemsize:
            raise self.fail(f"section headers of {entsize} bytes are unknown", 58)
        if count == 0:  # gABI: the number is in the first header's sh_size
            count = int(self.table(self.r.section, shoff, 1, "the section table")["size"][0])
        sections = self.table(self.r.section, shoff, count, "the section table")
        if shstrndx == elf.SHN_XINDEX:
            shstrndx = int(sections["link"][0])
        if not 0 < shstrndx < count:
            raise self.fail("the index of the section names is out of range", 62)
        sizes = sections["size"].astype(np.uint64)
        ends = sections["offset"].astype(np.uint64) + sizes
        present = (sections["type"] != elf.SHT_NOBITS) & (sections["type"] != elf.SHT_NULL)
        bad = present & ((ends > len(self.data)) | (ends < sizes))
        if bad.any():
            i = int(bad.argmax())
            raise self.fail(f"section {i} reaches beyond the end of the file", shoff)
        align = sections["align"].astype(np.uint64)
        if (align & (align - np.uint64(1)) * (align != 0)).any() or (align > _MOST_ALIGN).any():
            raise self.fail("a section's alignment is no power of two, or too large", shoff)
        if (sections["flags"].astype(np.uint64) >> np.uint64(32)).any():
            raise self.fail("a section has flags that are unknown", shoff)
        if (sizes >> np.uint64(62)).any():
            raise self.fail("a section is larger than any address space", shoff)
        self.shoff = shoff
        self.sections = sections
        self.types = sections["type"]
        self.section_flags = sections["flags"].astype(np.int64)
        self.strings = self.contents(shstrndx)
        if len(self.strings) == 0 or self.strings[-1] != 0:
            raise self.fail("the section names do not end with a zero byte", shoff)
        if (sections["name"] >= len(self.strings)).any():
            raise self.fail("a section's name lies outside of the section names", shoff)
        padded = np.zeros(len(self.strings) + 16, np.uint8)
        padded[: len(self.strings)] = self.strings
        rows = sections["name"][:, None] + np.arange(16, dtype=np.uint32)
        heads = padded[rows]
        heads *= np.logical_and.accumulate(heads != 0, axis=1)  # nothing after the first zero
        self.names16 = heads.view("S16").reshape(-1)
        self.name_words = heads.view("<u8")

    def named(self, start: bytes) -> Bool:
        """Which sections have a name that begins so; `start` has 16 bytes at most.

        The first eight bytes are compared as one number: numpy is slow at comparing strings.
        """
        found = np.ones(len(self.types), np.bool_)
        for at in range(0, len(start), 8):
            part = start[at : at + 8]
            word = self.name_words[:, at // 8]
            unused = np.uint64(8 * (8 - len(part)))
            wanted = np.uint64(int.from_bytes(part, "little"))
            found &= (word << unused) == (wanted << unused) if unused else word == wanted
        return found

    def contents(self, section: int) -> memoryview:
        header = self.sections[section]
        if header["type"] == elf.SHT_NOBITS:
            raise self.fail(f"section {section} has no contents", self.shoff)
        start = int(header["offset"])
        return self.data[start : start + int(header["size"])]

    def one(self, kind: int) -> int:
        """The section of a type that occurs at most once, 0 where there is none."""
        found = np.flatnonzero(self.types == kind)
        if len(found) > 1:
            raise self.fail("the file has several symbol tables", self.shoff)
        return int(found[0]) if len(found) else 0

    # ---- symbols

    def symbols(self) -> tuple[Array, Int32, int, list[bytes], memoryview]:
        """(symbol table, section of each symbol, first global, global names, string table)."""
        index = self.one(elf.SHT_SYMTAB)
        if index == 0:
            empty = np.zeros(1, self.r.symbol)
            return empty, np.zeros(1, np.int32), 1, [], memoryview(b"\0")
        header = self.sections[index]
        offset = int(header["offset"])
        if header["entsize"] != self.r.symbol.itemsize:
            raise self.fail("the symbol table has entries of an unknown size", offset)
        count = int(header["size"]) // self.r.symbol.itemsize
        table = self.table(self.r.symbol, offset, count, "the symbol table")
        first = int(header["info"])
        link = int(header["link"])
        if not 0 < first <= count:
            raise self.fail("the number of local symbols is out of range", offset)
        if not 0 < link < len(self.sections) or self.types[link] != elf.SHT_STRTAB:
            raise self.fail("the symbol table has no string table", offset)
        strings = self.contents(link)
        if len(strings) == 0 or strings[-1] != 0:
            raise self.fail("the symbol names do not end with a zero byte", offset)
        if (table["name"] >= len(strings)).any():
            raise self.fail("a symbol's name lies outside of the string table", offset)
        shndx = table["shndx"].astype(np.int32)
        extended = self.one(elf.SHT_SYMTAB_SHNDX)
        if extended:
            wide = self.table(
                np.dtype(f"{self.r.order}u4"),
                int(self.sections["offset"][extended]),
                int(self.sections["size"][extended]) // 4,
                "the extended section indices",
            )
            if len(wide) < count:
                raise self.fail("the extended section indices are too few", offset)
            escaped = shndx == elf.SHN_XINDEX
            shndx[escaped] = wide[:count][escaped]
            # reserved values keep their meaning; real indices may pass them from here on
            self.reserved = ~escaped & (shndx >= elf.SHN_LORESERVE)
        else:
            self.reserved = shndx >= elf.SHN_LORESERVE
        if (~self.reserved & (shndx >= len(self.sections))).any():
            raise self.fail("a symbol's section is out of range", offset)
        raw = bytes(strings)
        find = raw.find
        names = [raw[s : find(b"\0", s)] for s in table["name"][first:].tolist()]
        return table, shndx, first, names, strings

    # ---- relocations

    def relocations(self, wanted: Array, symbol_count: int) -> Array:
        """All entries of the relocation sections `wanted`; `atom` holds the section they apply to.

        Addends that stand in the contents are read for the types that may be changed (`implicit`
        of the machine), and are 0 for the others.
        """
        rel = wanted[self.types[wanted] == elf.SHT_REL]
        if not len(rel):
            return self._entries(wanted, self.r.rela, symbol_count)
        if not self.machine.rel:
            raise self.fail(
                "relocations without addends are not supported for this architecture",
                int(self.sections["offset"][rel[0]]),
            )
        rows = self._entries(rel, self.r.rel, symbol_count)
        octets = np.frombuffer(self.data, np.uint8)
        at = self.sections["offset"][rows["atom"]].astype(np.int64) + rows["offset"]
        kinds = self.machine.implicit_types[np.minimum(rows["type"], TYPES - 1)]
        for kind in fields.FIELDS:
            mine = np.flatnonzero(kinds == kind)
            if len(mine):
                self._inside(rows[mine], fields.width(kind))
                rows["addend"][mine] = fields.load(octets, at[mine], kind, self.r.order)
        rela = wanted[self.types[wanted] == elf.SHT_RELA]
        if len(rela):
            rows = np.concatenate([rows, self._entries(rela, self.r.rela, symbol_count)])
        return rows

    def _stores(self, types: Array) -> Bool:
        """Which relocation types we may store a value for ourselves, in 4 bytes at the most."""
        small = np.minimum(types, TYPES - 1)
        found: Bool = (self.machine.relative_types[small] != Field.NONE) | (
            self.machine.relaxation_types[small] != 0
        )
        return found

    def _inside(self, rows: Array, width: int) -> None:
        """Raise `ObjectError` if a field of `width` bytes does not lie in its section."""
        bad = rows["offset"] + width > self.sections["size"][rows["atom"]].astype(np.int64)
        bad |= self.types[rows["atom"]] == elf.SHT_NOBITS
        if bad.any():
            raise self.fail("a relocation lies outside of its section", self.shoff)

    def _entries(self, wanted: Array, record: np.dtype[np.void], symbol_count: int) -> Array:
        """The entries of sections whose entries are all like `record`."""
        sizes = self.sections["size"][wanted].astype(np.int64)
        starts = self.sections["offset"][wanted].astype(np.int64)
        entry = record.itemsize
        counts = sizes // entry
        out = np.zeros(int(counts.sum()), RELOCATION)
        if not len(out):
            return out
        if (sizes % entry).any() or (self.sections["entsize"][wanted] != entry).any():
            raise self.fail("a relocation section has entries of an unknown size", int(starts[0]))
        word = self.r.size
        each = entry // word  # words of an entry
        if ((starts - starts[0]) % word).any():
            rows = np.concatenate(
                [
                    np.frombuffer(self.data, record, int(c), int(s))
                    for s, c in zip(starts, counts, strict=True)
                ]
            )
            columns = [rows[name] for name in record.names or ()]
        else:
            base = int(starts[0] % word)
            words = np.frombuffer(
                self.data, f"{self.r.order}i{word}", (len(self.data) - base) // word, base
            )
            first = (starts - base) // word - each * (np.cumsum(counts) - counts)
            index = np.repeat(first, counts) + each * np.arange(len(out))
            columns = [words[index + i] for i in range(each)]
        targets = self.sections["info"][wanted].astype(np.int32)
        out["atom"] = np.repeat(targets, counts)
        info = columns[1]
        if word == 4:  # offsets and symbols of 32-bit files have no sign
            out["offset"] = columns[0].astype(np.uint32)
            info = info.astype(np.uint32)
        else:
            out["offset"] = columns[0]
        out["symbol"] = (info >> self.r.symbol_shift) & 0xFFFFFFFF
        out["type"] = info & self.r.type_mask
        if each == 3:
            out["addend"] = columns[2]
        if (out["symbol"].view(np.uint32) >= symbol_count).any():
            raise self.fail("a relocation's symbol is out of range", int(starts[0]))
        limits = self.sections["size"][out["atom"]].astype(np.int64)
        wide = self.machine.absolute_types[np.minimum(out["type"], TYPES - 1)].astype(np.int64)
        ends = out["offset"] + np.maximum(wide, np.where(self._stores(out["type"]), 4, 0))
        if ((out["offset"] < 0) | (ends > limits)).any():
            raise self.fail("a relocation lies outside of its section", int(starts[0]))
        return out
