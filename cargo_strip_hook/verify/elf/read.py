"""Reading many ELF objects at once: one numpy pass over the tables of all of them.

Source of the layouts: System V gABI, chapter 4 ("Object Files").
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cargo_strip_hook.verify.arrays import Array, gather, is_among, spread, unique
from cargo_strip_hook.verify.elf.compressed import inflate, inflate_old
from cargo_strip_hook.verify.elf.crel import BadTable, read_tables
from cargo_strip_hook.verify.elf.machine import ADDEND_WIDTH, TYPES, Addend, machine

SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_NOTE, SHT_NOBITS = 1, 2, 3, 4, 7, 8
SHT_REL, SHT_INIT_ARRAY, SHT_FINI_ARRAY, SHT_PREINIT_ARRAY = 9, 14, 15, 16
SHT_GROUP, SHT_SYMTAB_SHNDX, SHT_LLVM_ADDRSIG = 17, 18, 0x6FFF4C03
COMPACT = np.array((20, 0x40000014))  # SHT_CREL: the number proposed, and the one of LLVM
TABLES = np.array((SHT_RELA, SHT_REL, *COMPACT))
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_MERGE, SHF_STRINGS = 0x1, 0x2, 0x4, 0x10, 0x20
SHF_INFO_LINK, SHF_LINK_ORDER, SHF_GROUP, SHF_TLS, SHF_GNU_RETAIN = (
    0x40,
    0x80,
    0x200,
    0x400,
    0x200000,
)
SHF_COMPRESSED, SHF_EXCLUDE = 0x800, 0x80000000
SHN_LORESERVE, SHN_ABS, SHN_COMMON, SHN_XINDEX = 0xFF00, 0xFFF1, 0xFFF2, 0xFFFF
SHN_X86_64_LCOMMON, _X86_64 = 0xFF02, 62
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION, STT_TLS, STT_COMMON = 0, 1, 2, 3, 6, 5
STT_GNU_IFUNC = 10
STV_HIDDEN = 2
ET_REL = 1

_HEAD_WORDS = 3  # of a section's name that are compared at once

# A place in the result is one number: section and offset. Offsets stay far below the step, so
# distances within a section can be computed on these numbers.
STEP = 40

# section numbers of symbols that are in no section, out of the way of real ones
IN_ABS, IN_COMMON, IN_OTHER = -1, -2, -3


class Damaged(Exception):
    """An object that cannot be read; `index` is its position among those asked for.

    `offset`: in the object, bytes, where it is known.
    """

    def __init__(self, index: int, what: str, offset: int | None = None) -> None:
        super().__init__(what)
        self.index, self.what, self.offset = index, what, offset


@dataclass(frozen=True)
class Layouts:
    """Record layouts of one class and byte order."""

    bits: int
    order: str

    @cached_property
    def header(self) -> np.dtype[np.void]:
        """Elf32_Ehdr or Elf64_Ehdr."""
        o, w = self.order, f"{self.order}u{self.bits // 8}"
        names = ["ident", "type", "machine", "version", "entry", "phoff", "shoff", "flags"]
        names += ["ehsize", "phentsize", "phnum", "shentsize", "shnum", "shstrndx"]
        formats = ["S16", f"{o}u2", f"{o}u2", f"{o}u4", w, w, w, f"{o}u4", *[f"{o}u2"] * 6]
        return np.dtype(list(zip(names, formats, strict=True)))

    @cached_property
    def section(self) -> np.dtype[np.void]:
        """Elf32_Shdr or Elf64_Shdr."""
        o, w = self.order, f"{self.order}u{self.bits // 8}"
        names = ["name", "type", "flags", "addr", "offset", "size", "link", "info"]
        names += ["align", "entsize"]
        formats = [f"{o}u4", f"{o}u4", w, w, w, w, f"{o}u4", f"{o}u4", w, w]
        return np.dtype(list(zip(names, formats, strict=True)))

    @cached_property
    def symbol(self) -> np.dtype[np.void]:
        """Elf32_Sym or Elf64_Sym: the same fields in another order."""
        o, w = self.order, f"{self.order}u{self.bits // 8}"
        name, rest = [("name", f"{o}u4")], [("info", "u1"), ("other", "u1"), ("shndx", f"{o}u2")]
        value = [("value", w), ("size", w)]
        return np.dtype(name + (rest + value if self.bits == 64 else value + rest))

    def relocation(self, with_addend: bool) -> np.dtype[np.void]:
        """Elf32_Rel, Elf32_Rela, Elf64_Rel or Elf64_Rela."""
        word = f"{self.order}u{self.bits // 8}"
        fields = [("offset", word), ("info", word)]
        return np.dtype(fields + ([("addend", word.replace("u", "i"))] if with_addend else []))


SECTION = np.dtype(
    [
        ("object", "<i4"),
        ("type", "<u4"),
        ("flags", "<i8"),
        ("offset", "<i8"),  # in `Objects.data`
        ("size", "<i8"),
        ("link", "<i8"),  # number within the object, as in the file
        ("info", "<i8"),
        ("align", "<i8"),
        ("entsize", "<i8"),
        ("address", "<i8"),
        ("name", "<i8"),  # position of the name in `Objects.data`
    ]
)
SYMBOL = np.dtype(
    [
        ("object", "<i4"),
        ("kind", "u1"),
        ("binding", "u1"),
        ("other", "u1"),
        ("section", "<i8"),  # number over all objects; 0 or less: see `undefined`, IN_ABS …
        ("value", "<i8"),
        ("size", "<i8"),
        ("name", "<i8"),
        ("undefined", "?"),
    ]
)
RELOCATION = np.dtype(
    [
        ("section", "<i8"),  # number over all objects of the section that is relocated
        ("offset", "<i8"),
        ("symbol", "<i8"),  # number over all objects
        ("type", "<u4"),
        ("addend", "<i8"),
    ]
)


@dataclass(frozen=True, eq=False)
class Objects:
    """Sections and symbols of several objects, numbered through.

    Number 0 of each object's sections and symbols is the null entry, as in the file.
    """

    buffer: bytes | mmap.mmap
    data: Array  # the same bytes
    layouts: Layouts
    machine: int
    base: Array  # where each object begins in `data`
    size: Array
    header: Array
    section_base: Array  # of each object, and the total
    symbol_base: Array
    sections: Array  # SECTION
    symbols: Array  # SYMBOL
    first_global: Array  # of each object, number within it; -1 where it has no symbol table

    def string(self, position: int) -> bytes:
        """The zero-terminated string at a position of `data`."""
        buffer = self.buffer
        return buffer[position : buffer.find(b"\0", position)]

    def strings(self, positions: Array) -> list[bytes]:
        """The same for many positions."""
        buffer = self.buffer
        find = buffer.find
        return [buffer[at : find(b"\0", at)] for at in positions.tolist()]

    @cached_property
    def names(self) -> npt.NDArray[np.object_]:
        """The name (bytes) of each symbol that is global, or code or data; None for the others."""
        kinds = np.array([STT_OBJECT, STT_FUNC, STT_TLS, STT_GNU_IFUNC], self.symbols["kind"].dtype)
        local = self.symbols["binding"] == STB_LOCAL
        rows = np.flatnonzero(~local | is_among(self.symbols["kind"], kinds))
        found = np.full(len(self.symbols), None, np.object_)
        found[rows] = self.strings(self.symbols["name"][rows])
        return found

    def section_name(self, number: int) -> str:
        """Of a section by its number over all objects."""
        return self.string(int(self.sections["name"][number])).decode("utf-8", "replace")

    def names_begin(self, prefix: bytes) -> Array:
        """bool for each section: whether its name begins so (a final zero ends the name)."""
        width = len(prefix)
        if width > 8 * _HEAD_WORDS:
            locations = np.minimum(self.sections["name"], len(self.data) - width)
            wanted = np.frombuffer(prefix, f"V{width}")
            return np.asarray(gather(self.data, locations, np.dtype(f"V{width}")) == wanted)
        found = np.ones(len(self.sections), np.bool_)
        for i in range(-(-width // 8)):
            part = prefix[8 * i : 8 * i + 8]
            mask = np.uint64((1 << 8 * len(part)) - 1)
            found &= (self._heads[:, i] & mask) == np.uint64(int.from_bytes(part, "little"))
        return found

    @cached_property
    def _heads(self) -> Array:
        """The first bytes of each section's name (and what follows it) as little-endian words."""
        width = 8 * _HEAD_WORDS
        locations = self.sections["name"]
        last = len(self.data) - width
        heads = gather(self.data, np.minimum(locations, last), np.dtype(f"V{width}"))
        for i in np.flatnonzero(locations > last).tolist():
            # at the very end of the file: the bytes are there, but not as many
            tail = self.buffer[int(locations[i]) :]
            heads[i : i + 1] = np.frombuffer(tail.ljust(width, b"\0"), heads.dtype)
        return heads.view("<u8").reshape(-1, _HEAD_WORDS)

    @cached_property
    def implicit_addends(self) -> bool:
        """Whether addends are in the contents (SHT_REL), which change where a symbol does.

        So they are in results for an architecture that has them there, whatever the input has.
        """
        facts = machine(self.machine, self.layouts.order)
        return bool(facts.addend.any() or (self.sections["type"] == SHT_REL).any())

    def contents(self, number: int) -> memoryview:
        """The bytes of a section, without a copy."""
        section = self.sections[number]
        start, size = int(section["offset"]), int(section["size"])
        return memoryview(self.buffer)[start : start + size]

    @cached_property
    def compressed(self) -> Array:
        """bool for each section: its contents are compressed, in the new way or the old one."""
        new = self.sections["flags"] & SHF_COMPRESSED != 0
        return np.asarray(new | self.names_begin(b".zdebug_"))

    def plain(self, number: int) -> memoryview:
        """The contents of a section, no longer compressed. Raises `ValueError` for damaged ones."""
        data = self.contents(number)
        if not self.compressed[number]:
            return data
        if self.sections["flags"][number] & SHF_COMPRESSED:
            return inflate(data, self.layouts.order, self.layouts.bits)
        return inflate_old(data)

    @cached_property
    def is_debug(self) -> Array:
        """bool for each section: debug information for debuggers, not for a consumer's own use."""
        named = self.names_begin(b".debug_") | self.names_begin(b".zdebug_")
        return np.asarray(named & (self.sections["flags"] & SHF_ALLOC == 0))

    @cached_property
    def frame_sections(self) -> Array:
        """Numbers of the `.eh_frame` sections with contents."""
        named = self.names_begin(b".eh_frame\0") & (self.sections["type"] != SHT_NOBITS)
        return np.flatnonzero(named & (self.sections["size"] > 0))

    @cached_property
    def targets(self) -> Array:
        """For each section the number of the one that it relocates, -1 if it is no such table."""
        s = self.sections
        tables = is_among(s["type"], TABLES)
        inside = (s["info"] > 0) & (s["info"] < np.diff(self.section_base)[s["object"]])
        return np.where(tables & inside, self.section_base[s["object"]] + s["info"], -1)

    def relocations(self, tables: Array) -> Array:
        """The records (RELOCATION) of the relocation sections with these numbers, in order.

        Symbol numbers that the object does not have become -1. Raises `Damaged`.
        """
        parts = []
        for kind in (SHT_RELA, SHT_REL):
            chosen = tables[self.sections["type"][tables] == kind]
            if len(chosen):
                s = self.sections[chosen]
                parts.append(self._records(chosen, s["offset"], s["size"], kind == SHT_RELA))
        compact = tables[is_among(self.sections["type"][tables], COMPACT)]
        if len(compact):
            parts.append(self._compact_records(compact))
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, RELOCATION)

    def relocation_parts(self, table: int, most: int) -> Iterator[Array]:
        """The same for one section, at most so many records at a time."""
        if self.sections["type"][table] in COMPACT:
            yield self._compact_records(np.array([table]))
            return
        with_addend = bool(self.sections["type"][table] == SHT_RELA)
        step = most * self.layouts.relocation(with_addend).itemsize
        tables, start = np.array([table]), int(self.sections["offset"][table])
        size = int(self.sections["size"][table])
        for at in range(0, size, step):
            part = np.array([min(step, size - at)])
            yield self._records(tables, np.array([start + at]), part, with_addend)

    def _records(self, tables: Array, start: Array, size: Array, with_addend: bool) -> Array:
        layout = self.layouts.relocation(with_addend)
        s = self.sections[tables]
        wrong = np.flatnonzero((s["entsize"] != layout.itemsize) | (size % layout.itemsize))
        if len(wrong):
            number = int(tables[wrong[0]])
            what = f"the relocation table {self.section_name(number)} has records of another size"
            mine = int(s["object"][wrong[0]])
            raise Damaged(mine, what, int(start[wrong[0]] - self.base[mine]))
        counts = size // layout.itemsize
        raw = gather(self.data, spread(start, counts, layout.itemsize), layout)
        shift, mask = (32, 0xFFFFFFFF) if self.layouts.bits == 64 else (8, 0xFF)
        found = self._found(
            np.repeat(tables, counts),
            raw["offset"],
            raw["info"] >> np.array(shift, raw["info"].dtype),
            raw["info"] & np.array(mask, raw["info"].dtype),
        )
        found["addend"] = raw["addend"] if with_addend else 0
        if not with_addend:
            self._implicit(found)
        return found

    def _compact(self, tables: Array) -> tuple[Array, list[Array], Array]:
        """What compact tables say, see `read_tables`. Raises `Damaged`."""
        s = self.sections[tables]
        try:
            return read_tables(self.data, s["offset"], s["size"])
        except BadTable as e:
            what = f"the relocation table {self.section_name(int(tables[e.index]))} is damaged"
            mine = int(s["object"][e.index])
            raise Damaged(mine, what, int(s["offset"][e.index] - self.base[mine])) from e

    def _compact_records(self, tables: Array) -> Array:
        counts, (offset, symbol, kind, addend), with_addend = self._compact(tables)
        found = self._found(np.repeat(tables, counts), offset, symbol & 0xFFFFFFFF, kind)
        found["addend"] = addend
        bare = np.flatnonzero(np.repeat(~with_addend, counts))
        if len(bare):
            rows = found[bare]
            self._implicit(rows)
            found[bare] = rows
        return found

    def _found(self, tables: Array, offset: Array, symbol: Array, kind: Array) -> Array:
        """RELOCATION rows without addends; `tables`: the one that each is in."""
        owner = self.sections["object"][tables].astype(np.int64)
        found = np.empty(len(tables), RELOCATION)
        found["section"] = self.targets[tables]
        found["offset"], found["type"] = offset, kind
        symbol = symbol.astype(np.int64)
        base = self.symbol_base
        inside = symbol < base[owner + 1] - base[owner]
        found["symbol"] = np.where(inside, symbol + base[owner], -1)
        return found

    def _implicit(self, found: Array) -> None:
        """Addends that REL keeps in the contents; others stay 0, and the contents must stay too."""
        s = self.sections
        part = machine(self.machine, self.layouts.order).addend[
            np.minimum(found["type"], TYPES - 1)
        ]
        at = s["offset"][found["section"]] + found["offset"]
        room = s["size"][found["section"]] - found["offset"]
        packed = self.compressed[found["section"]]
        holds = (s["type"][found["section"]] != SHT_NOBITS) & (found["offset"] >= 0)
        self._load(found, self.data, at, part, holds & ~packed, room)
        for number in unique(found["section"][packed]).tolist():
            try:
                data = np.frombuffer(self.plain(number), np.uint8)
            except ValueError:  # told where contents are compared
                continue
            mine = (found["section"] == number) & (found["offset"] >= 0)
            self._load(found, data, found["offset"], part, mine, len(data) - found["offset"])

    def _load(
        self, found: Array, data: Array, at: Array, part: Array, holds: Array, room: Array
    ) -> None:
        for kind, width in ADDEND_WIDTH.items():
            mine = np.flatnonzero(holds & (part == kind) & (room >= width))
            value = gather(data, at[mine], np.dtype(f"{self.layouts.order}i{width}"))
            value = value.astype(np.int64)
            found["addend"][mine] = value << 33 >> 33 if kind == Addend.LOW31 else value


def read_objects(buffer: bytes | mmap.mmap, base: Sequence[int], size: Sequence[int]) -> Objects:
    """Read the headers, section tables and symbol tables of objects that lie in `buffer`.

    Raises `Damaged` with the position of the first bad one.
    """
    data = np.frombuffer(buffer, np.uint8)
    bases, sizes = np.array(base, np.int64), np.array(size, np.int64)
    short = np.flatnonzero(sizes < 52)
    if len(short):
        raise Damaged(int(short[0]), "too short for an ELF object")
    ident = gather(data, bases, np.dtype("V6"))
    wrong = np.flatnonzero(ident != ident[0])
    first = ident[0].tobytes()
    if first[:4] != b"\x7fELF" or first[4] not in (1, 2) or first[5] not in (1, 2):
        raise Damaged(0, "no ELF object")
    if len(wrong):
        raise Damaged(int(wrong[0]), "no ELF object of the same class and byte order")
    layouts = Layouts(64 if first[4] == 2 else 32, "<" if first[5] == 1 else ">")
    try:
        return _Reader(buffer, data, layouts, bases, sizes).read()
    except IndexError as e:
        raise Damaged(0, str(e)) from e


class _Reader:
    def __init__(
        self,
        buffer: bytes | mmap.mmap,
        data: Array,
        layouts: Layouts,
        base: Array,
        size: Array,
    ) -> None:
        self.buffer, self.data, self.layouts = buffer, data, layouts
        self.base, self.size, self.end = base, size, base + size

    def fail_where(self, bad: Array, owner: Array, what: str) -> None:
        found = np.flatnonzero(bad)
        if len(found):
            raise Damaged(int(owner[found[0]]), what)

    def read(self) -> Objects:
        header = gather(self.data, self.base, self.layouts.header)
        each = np.arange(len(self.base))
        self.fail_where(header["type"] != ET_REL, each, "not a relocatable object")
        machine = self.machine = int(header["machine"][0])
        self.fail_where(header["machine"] != machine, each, "made for another processor")
        layout = self.layouts.section
        self.fail_where(header["shentsize"] != layout.itemsize, each, "section headers of odd size")
        table = self.base + header["shoff"].astype(np.int64)
        self.fail_where(
            (header["shoff"] == 0) | (table + layout.itemsize > self.end), each, "no section table"
        )
        first = gather(self.data, table, layout)
        # gABI "Extended section indexes": the null header holds what the file header cannot
        count = np.where(header["shnum"] == 0, first["size"], header["shnum"]).astype(np.int64)
        names = np.where(header["shstrndx"] == SHN_XINDEX, first["link"], header["shstrndx"])
        self.fail_where(
            (count < 1) | (table + count * layout.itemsize > self.end), each, "section table cut"
        )
        self.fail_where(names >= count, each, "no section names")
        section_base = np.concatenate(([0], np.cumsum(count)))
        owner = np.repeat(each, count)
        raw = gather(self.data, spread(table, count, layout.itemsize), layout)
        sections = np.empty(len(raw), SECTION)
        sections["object"] = owner
        for field in ("type", "flags", "size", "link", "info", "align", "entsize"):
            sections[field] = raw[field]
        sections["address"] = raw["addr"]
        sections["offset"] = self.base[owner] + raw["offset"].astype(np.int64)
        holds = (sections["type"] != SHT_NOBITS) & (sections["type"] != 0)
        self.fail_where(
            holds
            & (
                (sections["size"] < 0)
                | (sections["offset"] < self.base[owner])
                | (sections["offset"] + sections["size"] > self.end[owner])
            ),
            owner,
            "a section lies outside the file",
        )
        strings = sections[section_base[:-1] + names]
        sections["name"] = strings["offset"][owner] + raw["name"].astype(np.int64)
        self.fail_where(raw["name"] >= strings["size"][owner], owner, "a section name is not there")
        symbols, symbol_base, first_global = self.symbols(sections, section_base, each)
        return Objects(
            self.buffer,
            self.data,
            self.layouts,
            machine,
            self.base,
            self.size,
            header,
            section_base,
            symbol_base,
            sections,
            symbols,
            first_global,
        )

    def symbols(
        self, sections: Array, section_base: Array, each: Array
    ) -> tuple[Array, Array, Array]:
        """All symbol tables; an object has one at most."""
        layout = self.layouts.symbol
        tables = np.flatnonzero(sections["type"] == SHT_SYMTAB)
        owner = sections["object"][tables]
        self.fail_where(np.diff(owner, prepend=-1) == 0, owner, "two symbol tables")
        size = sections["size"][tables]
        self.fail_where(
            (sections["entsize"][tables] != layout.itemsize) | (size % layout.itemsize != 0),
            owner,
            "symbols of odd size",
        )
        counts = np.zeros(len(each), np.int64)
        counts[owner] = size // layout.itemsize
        first_global = np.full(len(each), -1, np.int64)
        first_global[owner] = sections["info"][tables]
        symbol_base = np.concatenate(([0], np.cumsum(counts)))
        locations = spread(sections["offset"][tables], size // layout.itemsize, layout.itemsize)
        raw = gather(self.data, locations, layout)
        link = sections["link"][tables]
        self.fail_where(link >= np.diff(section_base)[owner], owner, "no names for the symbols")
        strings = sections[section_base[owner] + link]
        which = np.repeat(np.arange(len(tables)), size // layout.itemsize)
        obj = owner[which].astype(np.int64)
        found = np.empty(len(raw), SYMBOL)
        found["object"] = obj
        found["kind"], found["binding"] = raw["info"] & 15, raw["info"] >> 4
        for field in ("other", "value", "size"):
            found[field] = raw[field]
        self.fail_where(raw["name"] >= strings["size"][which], obj, "a symbol name is not there")
        found["name"] = strings["offset"][which] + raw["name"].astype(np.int64)
        number = raw["shndx"].astype(np.int64)
        extended = np.flatnonzero(number == SHN_XINDEX)
        reserved = number >= SHN_LORESERVE
        if len(extended):
            number[extended] = self.extended(sections, extended, obj, symbol_base)
            reserved[extended] = False
        self.fail_where(
            ~reserved & (number >= np.diff(section_base)[obj]), obj, "a symbol in no section"
        )
        location = section_base[obj] + number
        location[reserved] = IN_OTHER
        location[reserved & (number == SHN_ABS)] = IN_ABS
        location[reserved & (number == SHN_COMMON)] = IN_COMMON
        if self.machine == _X86_64:
            location[reserved & (number == SHN_X86_64_LCOMMON)] = IN_COMMON
        found["section"] = location
        found["undefined"] = ~reserved & (number == 0)
        return found, symbol_base, first_global

    def extended(self, sections: Array, which: Array, obj: Array, symbol_base: Array) -> Array:
        """The section numbers of symbols that have SHN_XINDEX, from SHT_SYMTAB_SHNDX."""
        tables = np.flatnonzero(sections["type"] == SHT_SYMTAB_SHNDX)
        start = np.full(len(self.base), -1, np.int64)
        start[sections["object"][tables]] = sections["offset"][tables]
        room = np.zeros(len(self.base), np.int64)
        room[sections["object"][tables]] = sections["size"][tables]
        owner = obj[which]
        inside = 4 * (which - symbol_base[owner])
        self.fail_where(
            (start[owner] < 0) | (inside + 4 > room[owner]), owner, "no SHT_SYMTAB_SHNDX entry"
        )
        layout = np.dtype(f"{self.layouts.order}u4")
        return gather(self.data, start[owner] + inside, layout).astype(np.int64)


def let_go(data: bytes | mmap.mmap) -> None:
    """Release the pages of a mapped file: what is needed again comes from the page cache.

    Without this the peak memory of a run would count the whole of both libraries.
    """
    if isinstance(data, mmap.mmap) and hasattr(data, "madvise"):
        data.madvise(mmap.MADV_DONTNEED)
