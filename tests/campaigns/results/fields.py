"""Each field of a result: where it is and what it is, by a reading of its own.

For valid results only. Sources: System V gABI; mach-o/loader.h, nlist.h, reloc.h; Microsoft "PE
Format"; ar(5).
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

Field = tuple[int, int]  # offset in the file, bytes
_DEBUG = (".debug", ".zdebug", "__debug", "__apple")


@dataclass
class Fields:
    """By kind the fields of an archive. `order`: byte order of its object.

    `tables`: by kind the records that can be left out, swapped or doubled: offset of the first one,
    bytes of each, how many. `odd`: by kind the fields of which a change says nothing to anyone.
    """

    order: str = "<"
    fields: dict[str, list[Field]] = field(default_factory=lambda: defaultdict(list))
    tables: dict[str, list[tuple[int, int, int]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: str, at: int, *layout: tuple[str, int]) -> None:
        """A record: the names and bytes of its fields, one behind the other."""
        for name, width in layout:
            if name:
                self.fields[f"{kind}.{name}"].append((at, width))
            at += width

    def octets(self, kind: str, start: int, size: int) -> None:
        self.fields[kind] += [(at, 1) for at in range(start, start + size)]

    def words(self, kind: str, start: int, size: int, width: int = 4) -> None:
        self.fields[kind] += [(at, width) for at in range(start, start + size - width + 1, width)]


def fields(data: bytes) -> Fields:
    """All fields of an archive with one object, or of a universal file's header."""
    found = Fields()
    if data[:4] == b"\xca\xfe\xba\xbe":
        found.order = ">"
        found.add("universal", 4, ("count", 4))
        names = ("cputype", "cpusubtype", "offset", "size", "align")
        end = 8
        for _ in range(struct.unpack_from(">I", data, 4)[0]):
            found.add("slice", end, *((name, 4) for name in names))
            offset, size = struct.unpack_from(">II", data, end + 8)
            found.octets("slice contents", offset, size)
            end += 20
        found.octets("padding before slices", end, min(o for o in _offsets(data)) - end)
        return found
    for at, start, size in _members(data):
        header = (("name", 16), ("time", 12), ("owner", 6), ("group", 6), ("mode", 8))
        found.add("member", at, *header, ("size", 10), ("end", 2))
        name = data[at : at + 16].rstrip()
        skip = int(name[3:]) if name.startswith(b"#1/") else 0
        title = data[start : start + skip].rstrip(b"\0") if skip else name
        found.octets("member's long name", start, skip)
        start, size = start + skip, size - skip
        if title in (b"/", b"/SYM64/") or title.startswith(b"__.SYMDEF"):
            _index(data, found, start, size, bsd=bool(skip))
        elif title == b"//":
            found.octets("member names", start, size)
        elif data[start : start + 4] == b"\x7fELF":
            _elf(data, start, found)
        elif data[start : start + 4] == b"\xcf\xfa\xed\xfe":
            _macho(data, start, found)
        elif data[start : start + 4] == b"\0\0\xff\xff" and data[start + 4 : start + 6] == b"\0\0":
            found.octets("import member", start, size)
        else:
            _coff(data, start, found)
    return found


def _offsets(data: bytes) -> Iterator[int]:
    for n in range(struct.unpack_from(">I", data, 4)[0]):
        yield struct.unpack_from(">I", data, 8 + 20 * n + 8)[0]


def _members(data: bytes) -> Iterator[tuple[int, int, int]]:
    at = 8
    while at + 60 <= len(data):
        size = int(data[at + 48 : at + 58])
        yield at, at + 60, size
        at += 60 + size + (size & 1)


def _index(data: bytes, found: Fields, start: int, size: int, *, bsd: bool) -> None:
    if bsd:
        (length,) = struct.unpack_from("<I", data, start)
        found.words("index.places", start, length + 8)
        found.octets("index.names", start + 8 + length, size - 8 - length)
    elif "index.count" not in found.fields:
        (count,) = struct.unpack_from(">I", data, start)
        found.add("index", start, ("count", 4))
        found.words("index.places", start + 4, 4 * count)
        found.octets("index.names", start + 4 + 4 * count, size - 4 - 4 * count)
    else:
        found.words("second index", start, size, 2)
        found.octets("second index.octets", start, size)


def _string(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode("utf-8", "replace")


# ---- ELF

_ELF_HEADER = [
    "ident",
    "type",
    "machine",
    "version",
    "entry",
    "phoff",
    "shoff",
    "flags",
    "ehsize",
    "phentsize",
    "phnum",
]
_ELF_HEADER += ["shentsize", "shnum", "shstrndx"]
_ELF_SECTION = [
    "name",
    "type",
    "flags",
    "addr",
    "offset",
    "size",
    "link",
    "info",
    "align",
    "entsize",
]


def _elf(data: bytes, base: int, found: Fields) -> None:
    wide = data[base + 4] == 2
    found.order = order = "<" if data[base + 5] == 1 else ">"
    word = 8 if wide else 4
    widths = (16, 2, 2, 4, word, word, word, 4, 2, 2, 2, 2, 2, 2)
    found.add("header", base, *zip(_ELF_HEADER, widths, strict=True))
    found.octets("header.ident", base, 16)
    (table,) = struct.unpack_from(order + ("Q" if wide else "I"), data, base + 24 + 2 * word)
    size, count, names = struct.unpack_from(order + "HHH", data, base + 24 + 3 * word + 10)
    form = order + ("IIQQQQIIQQ" if wide else "10I")
    widths = (4, 4, word, word, word, word, 4, 4, word, word)
    rows = [struct.unpack_from(form, data, base + table + n * size) for n in range(count)]
    strings = base + rows[names][4]
    found.tables["section"].append((base + table, size, count))
    covered = {
        *range(base, base + 24 + 3 * word + 16),
        *range(base + table, base + table + size * count),
    }
    for n, row in enumerate(rows):
        name, kind, flags = _string(data, strings + row[0]), row[1], row[2]
        what = _elf_class(name, kind, flags)
        found.add(
            f"section[{what}]", base + table + n * size, *zip(_ELF_SECTION, widths, strict=True)
        )
        if kind not in (0, 8):
            covered.update(range(base + row[4], base + row[4] + row[5]))
            _elf_contents(data, found, (base + row[4], row[5]), (what, row, wide))
    end = base + max(base + table + size * count - base, *(r[4] + r[5] for r in rows if r[1] != 8))
    found.fields["padding"] += [(at, 1) for at in range(base, end) if at not in covered]


def _elf_class(name: str, kind: int, flags: int) -> str:
    types = {0: "null", 2: "symtab", 3: "strtab", 4: "rela", 9: "rel", 17: "group", 18: "shndx"}
    types |= {14: "init array", 15: "fini array", 16: "preinit array", 0x6FFF4C03: "addrsig"}
    if kind in types:
        return types[kind]
    if name.startswith((".eh_frame", ".note", ".ARM", ".riscv", ".cargo", ".debug", ".gnu")):
        return name
    known = ("W", 1), ("A", 2), ("X", 4), ("M", 16), ("S", 32), ("T", 0x400)
    return ("bits" if kind == 8 else "") + "".join(letter for letter, bit in known if flags & bit)


def _elf_contents(
    data: bytes, found: Fields, place: tuple[int, int], about: tuple[str, tuple[int, ...], bool]
) -> None:
    (start, size), (what, row, wide) = place, about
    word = 8 if wide else 4
    if what == "symtab":
        entry = 24 if wide else 16
        found.tables["symbol"].append((start, entry, size // entry))
        for n in range(size // entry):
            at = start + n * entry
            info, shndx = (data[at + 4], at + 6) if wide else (data[at + 12], at + 14)
            nowhere = data[shndx : shndx + 2] == b"\0\0"
            who = "section symbol" if info & 15 == 3 else "local symbol" if n < row[7] else "symbol"
            who = "undefined symbol" if who == "symbol" and nowhere else who if n else "symbol 0"
            if wide:
                layout = (
                    ("name", 4),
                    ("info", 1),
                    ("other", 1),
                    ("shndx", 2),
                    ("value", 8),
                    ("size", 8),
                )
            else:
                layout = (
                    ("name", 4),
                    ("value", 4),
                    ("size", 4),
                    ("info", 1),
                    ("other", 1),
                    ("shndx", 2),
                )
            found.add(who, at, *layout)
    elif what in ("rela", "rel"):
        entry = row[9]
        debug = ".debug" in about[0]
        kind = "debug relocation" if debug else "relocation"
        found.tables[kind].append((start, entry, size // entry))
        for at in range(start, start + size, entry):
            if wide:
                low = (
                    (("type", 4), ("symbol", 4))
                    if found.order == "<"
                    else (("symbol", 4), ("type", 4))
                )
                found.add(
                    kind, at, ("offset", 8), *low, *((("addend", 8),) if what == "rela" else ())
                )
            else:
                low = (
                    (("type", 1), ("symbol", 3))
                    if found.order == "<"
                    else (("symbol", 3), ("type", 1))
                )
                found.add(
                    kind, at, ("offset", 4), *low, *((("addend", 4),) if what == "rela" else ())
                )
    elif what == "group":
        found.words("group", start, size)
    elif what == ".eh_frame":
        _frames(data, found, start, size)
    elif what == "strtab":
        found.octets("strings", start, size)
        found.fields["end of strings"].append((start + size - 1, 1))
    else:
        found.octets(f"contents[{what}]", start, size)
        found.words(f"words[{what}]", start, size, word if size >= word else 4)


def _frames(data: bytes, found: Fields, start: int, size: int) -> None:
    at, order = start, found.order
    while at + 8 <= start + size:
        (length, pointer) = struct.unpack_from(order + "II", data, at)
        if length in (0, 0xFFFFFFFF):
            break
        kind = "FDE" if pointer else "CIE"
        found.add(kind, at, ("length", 4), ("pointer", 4))
        if pointer:
            found.words("FDE.addresses", at + 8, 8)
        found.octets(f"{kind}.octets", at + 8, length - 4)
        at += 4 + length


# ---- Mach-O


def _macho(data: bytes, base: int, found: Fields) -> None:
    names = [
        "magic",
        "cputype",
        "cpusubtype",
        "filetype",
        "ncmds",
        "sizeofcmds",
        "flags",
        "reserved",
    ]
    found.add("header", base, *((name, 4) for name in names))
    at = base + 32
    spans: list[tuple[int, int]] = [(base, struct.unpack_from("<I", data, base + 20)[0] + 32)]
    for _ in range(struct.unpack_from("<I", data, base + 16)[0]):
        command, size = struct.unpack_from("<II", data, at)
        kind = _COMMANDS.get(command, f"command {command:#x}")
        if command == 0x19:
            layout = ("cmd", 4), ("cmdsize", 4), ("segname", 16), ("vmaddr", 8), ("vmsize", 8)
            layout += ("fileoff", 8), ("filesize", 8), ("maxprot", 4), ("initprot", 4)
            found.add(kind, at, *layout, ("nsects", 4), ("flags", 4))
            count = struct.unpack_from("<I", data, at + 64)[0]
            found.tables["section"].append((at + 72, 80, count))
            for n in range(count):
                spans += _macho_section(data, base, at + 72 + 80 * n, found)
        else:
            found.words(kind, at, size)
        if command == 2:
            symbols, count, strings, length = struct.unpack_from("<4I", data, at + 8)
            spans += [(base + symbols, 16 * count), (base + strings, length)]
            found.tables["symbol"].append((base + symbols, 16, count))
            for n in range(count):
                kind = data[base + symbols + 16 * n + 4]
                who = "symbol" if kind & 1 else "local symbol"
                who = "undefined symbol" if kind & 0xE == 0 else who
                layout = ("name", 4), ("type", 1), ("sect", 1), ("desc", 2), ("value", 8)
                found.add(who, base + symbols + 16 * n, *layout)
            found.octets("strings", base + strings, length)
        elif command in (0x26, 0x29, 0x2E):
            offset, length = struct.unpack_from("<II", data, at + 8)
            found.octets(f"{kind} contents", base + offset, length)
            spans.append((base + offset, length))
        at += size
    found.fields["padding"] += [(a, 1) for a in _uncovered(spans)]


_COMMANDS = {0x19: "segment", 2: "LC_SYMTAB", 11: "LC_DYSYMTAB", 0x32: "LC_BUILD_VERSION"}
_COMMANDS |= {0x24: "LC_VERSION_MIN", 0x2D: "LC_LINKER_OPTION", 0x29: "LC_DATA_IN_CODE"}
_COMMANDS |= {0x26: "LC_FUNCTION_STARTS", 0x2E: "LC_LINKER_OPTIMIZATION_HINT"}


def _uncovered(spans: Iterable[tuple[int, int]]) -> Iterator[int]:
    end = None
    for start, size in sorted(spans):
        if end is not None:
            yield from range(end, start)
        end = max(end or 0, start + size)


def _macho_section(data: bytes, base: int, at: int, found: Fields) -> list[tuple[int, int]]:
    name = data[at : at + 16].rstrip(b"\0").decode()
    segment = data[at + 16 : at + 32].rstrip(b"\0").decode()
    what = name if segment == "__DWARF" or name in _MACHO_KNOWN else "other"
    layout = (
        ("sectname", 16),
        ("segname", 16),
        ("addr", 8),
        ("size", 8),
        ("offset", 4),
        ("align", 4),
    )
    layout += ("reloff", 4), ("nreloc", 4), ("flags", 4), ("reserved1", 4), ("reserved2", 4)
    found.add(f"section[{what}]", at, *layout, ("reserved3", 4))
    size, offset, _, relocations, count, flags = struct.unpack_from("<QIIIII", data, at + 40)
    kind = "debug relocation" if segment == "__DWARF" else "relocation"
    if count:
        found.tables[kind].append((base + relocations, 8, count))
    for n in range(count):
        record = base + relocations + 8 * n
        found.add(kind, record, ("address", 4), ("symbolnum", 3), ("bits", 1))
        found.add(kind, record + 4, ("word", 4))
    spans = [(base + relocations, 8 * count)]
    if flags & 0xFF in (1, 0xC, 0x12):  # zeros
        return spans
    spans.append((base + offset, size))
    if name == "__eh_frame":
        _frames(data, found, base + offset, size)
    elif name == "__compact_unwind":
        for n in range(size // 32):
            layout = (
                ("function", 8),
                ("length", 4),
                ("encoding", 4),
                ("personality", 8),
                ("lsda", 8),
            )
            found.add("compact unwind", base + offset + 32 * n, *layout)
    else:
        found.octets(f"contents[{what}]", base + offset, size)
    return spans


_MACHO_KNOWN = ("__eh_frame", "__compact_unwind", "__mod_init_func", "__mod_term_func", "__text")
_MACHO_KNOWN += ("__const", "__data", "__bss", "__common", "__cstring", "__gcc_except_tab")
_MACHO_KNOWN += ("__thread_vars", "__thread_data", "__thread_bss", "__StaticInit", "__literal8")


# ---- COFF


def _coff(data: bytes, base: int, found: Fields) -> None:
    machine, sections, _, table, symbols, _, _ = struct.unpack_from("<HHIIIHH", data, base)
    if (machine, sections) == (0, 0xFFFF):
        raise AssertionError("results of the cases have few sections")
    layout = ("machine", 2), ("sections", 2), ("time", 4), ("table", 4), ("symbols", 4)
    found.add("header", base, *layout, ("optional", 2), ("flags", 2))
    strings = base + table + 18 * symbols
    spans = [(base, 20 + 40 * sections), (base + table, 18 * symbols)]
    found.tables["section"].append((base + 20, 40, sections))
    for n in range(sections):
        at = base + 20 + 40 * n
        raw = data[at : at + 8].rstrip(b"\0")
        name = _string(data, strings + int(raw[1:])) if raw[:1] == b"/" else raw.decode()
        spans += _coff_section(data, base, at, (name, found))
    _coff_symbols(data, base + table, symbols, found)
    (length,) = struct.unpack_from("<I", data, strings)
    spans.append((strings, length))
    found.add("strings", strings, ("size", 4))
    found.octets("strings.octets", strings + 4, length - 4)
    found.fields["padding"] += [(a, 1) for a in _uncovered(spans)]


def _coff_section(
    data: bytes, base: int, at: int, about: tuple[str, Fields]
) -> list[tuple[int, int]]:
    name, found = about
    what = name.partition("$")[0]
    layout = ("name", 8), ("vsize", 4), ("vaddr", 4), ("size", 4), ("offset", 4), ("reloff", 4)
    layout += ("lines", 4), ("nreloc", 2), ("nlines", 2)
    found.add(f"section[{what}]", at, *layout, ("flags", 4))
    found.add(f"section[{what}]", at + 38, ("high flags", 2))
    size, offset, relocations, _, count, _, flags = struct.unpack_from("<IIIIHHI", data, at + 16)
    debug = name.startswith(_DEBUG)
    kind = "debug relocation" if debug else "relocation"
    spans = []
    if count:
        found.tables[kind].append((base + relocations, 10, count))
        spans.append((base + relocations, 10 * count))
    for n in range(count):
        layout = ("offset", 4), ("symbol", 4), ("type", 2)
        found.add(kind, base + relocations + 10 * n, *layout)
    if flags & 0x80 or not size:
        return spans
    spans.append((base + offset, size))
    if name == ".eh_frame":
        _frames(data, found, base + offset, size)
    else:
        found.octets(f"contents[{what}]", base + offset, size)
        found.words(f"words[{what}]", base + offset, size)
    return spans


def _coff_symbols(data: bytes, start: int, count: int, found: Fields) -> None:
    n = 0
    found.tables["symbol"].append((start, 18, count))
    while n < count:
        at = start + 18 * n
        section, _, kind, more = struct.unpack_from("<hHBB", data, at + 12)
        who = {2: "symbol", 105: "weak symbol"}.get(kind, "local symbol")
        who = "undefined symbol" if who == "symbol" and section == 0 else who
        layout = ("name", 8), ("value", 4), ("section", 2), ("type", 2), ("class", 1), ("aux", 1)
        found.add(who, at, *layout)
        for k in range(1, more + 1):
            aux = at + 18 * k
            if kind == 3:
                layout = ("length", 4), ("nreloc", 2), ("lines", 2), ("checksum", 4), ("number", 2)
                found.add("section definition", aux, *layout, ("selection", 1))
            else:
                found.words(f"auxiliary of {who}", aux, 18, 2)
        n += 1 + more


__all__ = ["Fields", "fields"]
