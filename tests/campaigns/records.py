"""Where the numbers of a library are that its readers act on, by a reading of its own.

A place is (offset in bytes, width in bytes, byte order of `struct`). Only for valid inputs.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator

Place = tuple[int, int, str]
Places = dict[str, list[Place]]
_MOST = 600  # places of one kind: what repeats is not worth more


def archive_members(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(offset of the header, of the contents, size) of each member that the file holds."""
    at = 8
    while at + 60 <= len(data):
        size = int(data[at + 48 : at + 58])
        name = data[at : at + 16].rstrip()
        if data[:8] == b"!<thin>\n" and name not in (b"/", b"//", b"/SYM64/"):
            size = 0
        yield at, at + 60, size
        at += 60 + size + (size & 1)


def places(data: bytes) -> Places:
    """The fields of an archive, a universal file or one object, by kind."""
    found: Places = defaultdict(list)
    _file(data, 0, len(data), found)
    return {kind: chosen[:: -(-len(chosen) // _MOST)] for kind, chosen in found.items() if chosen}


def _file(data: bytes, start: int, end: int, found: Places) -> None:
    head = data[start : start + 8]
    if head in (b"!<arch>\n", b"!<thin>\n"):
        for at, contents, size in archive_members(data[start:end]):
            for offset, width in ((0, 16), (48, 10), (58, 2)):
                found["ar header"].append((start + at + offset, width, "text"))
            name = data[start + at : start + at + 16].rstrip()
            if name in (b"/", b"//") or name.startswith(b"__.SYMDEF"):
                for word in range(start + contents, start + contents + min(size, 400), 4):
                    found["ar index"].append((word, 4, ">" if name == b"/" else "<"))
            else:
                if name.startswith(b"#1/"):
                    length = int(name[3:])
                    if data[start + contents :].startswith(b"__.SYMDEF"):
                        for word in range(length, min(size, length + 400), 4):
                            found["ar index"].append((start + contents + word, 4, "<"))
                    contents, size = contents + length, size - length
                _file(data, start + contents, start + contents + size, found)
    elif head[:4] in (b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf"):
        wide = head[3] == 0xBF
        form = ">IIQQII" if wide else ">IIIII"
        found["fat header"] += [(4, 4, ">")]
        for i in range(struct.unpack_from(">I", data, 4)[0]):
            at = 8 + i * struct.calcsize(form)
            found["fat header"] += [(at + o, 4, ">") for o in range(0, struct.calcsize(form), 4)]
            _, _, offset, size, *_ = struct.unpack_from(form, data, at)
            _file(data, offset, offset + size, found)
    elif head[:4] == b"\x7fELF":
        _elf(data, start, found)
    elif head[:4] == b"\xcf\xfa\xed\xfe":
        _macho(data, start, found)
    elif head[:4] == b"\0\0\xff\xff":
        found["short import"] += [(start + o, 2, "<") for o in range(0, 20, 2)]
    elif head[:2] in (b"\x64\x86", b"\x4c\x01", b"\x64\xaa"):
        _coff(data, start, found)


def _debug(name: str, start: int, size: int, order: str, found: Places) -> None:
    """The first words of a section with records, and a few behind."""
    found[f"contents of {name}"] += [
        (start + at, width, order)
        for width in (1, 2, 4, 8)
        for at in range(0, min(size, 64) - width + 1, width)
    ]
    found["contents of all"] += [
        (start + at, 4, order) for at in range(0, size - 3, max(4, size // 32 // 4 * 4))
    ]


def _elf(data: bytes, base: int, found: Places) -> None:
    wide, order = data[base + 4] == 2, "<" if data[base + 5] == 1 else ">"
    word = 8 if wide else 4
    header = [(16, 2), (18, 2), (20, 4), (24, word), (24 + word, word), (24 + 2 * word, word)]
    header += [(24 + 3 * word + o, w) for o, w in ((0, 4), (4, 2), (6, 2), (8, 2), (10, 2))]
    header += [(24 + 3 * word + o, 2) for o in (12, 14)]
    found["ELF header"] += [(base + o, w, order) for o, w in header]
    found["ELF header"] += [(base + o, 1, order) for o in (4, 5, 6, 7)]
    table = struct.unpack_from(order + ("Q" if wide else "I"), data, base + 24 + 2 * word)[0]
    size, count, names = struct.unpack_from(order + "HHH", data, base + 24 + 3 * word + 10)
    form = order + ("IIQQQQIIQQ" if wide else "10I")
    rows = [struct.unpack_from(form, data, base + table + i * size) for i in range(count)]
    strings = base + rows[names][4] if count else 0
    for i, row in enumerate(rows):
        at = base + table + i * size
        for field in form[1:].replace("10I", "I" * 10):
            width = 8 if field == "Q" else 4
            found["ELF section"].append((at, width, order))
            at += width
        kind, flags, offset, length, entry = row[1], row[2], row[4] + base, row[5], row[9]
        name = data[strings + row[0] :].partition(b"\0")[0].decode(errors="replace")
        if kind in (2, 4, 9) and entry:
            what = "ELF symbol" if kind == 2 else "ELF relocation"
            for record in range(offset, offset + min(length, entry * 60), entry):
                if kind == 2:
                    fields = ((0, 4), (4, 1), (5, 1), (6, 2), (8, 8), (16, 8))
                    narrow = ((0, 4), (4, 4), (8, 4), (12, 1), (13, 1), (14, 2))
                    chosen = fields if wide else narrow
                else:
                    chosen = tuple((o, word) for o in range(0, entry, word))
                    if wide:
                        chosen += ((8, 4), (12, 4))
                found[what] += [(record + o, w, order) for o, w in chosen]
        elif kind == 17:
            found["ELF group"] += [(offset + o, 4, order) for o in range(0, length, 4)]
        elif name == ".eh_frame":
            _frames(data, offset, length, order, found)
        elif flags & 0x800:  # compressed
            heads = ((0, 4), (8, 8), (16, 8)) if wide else ((0, 4), (4, 4), (8, 4))
            found["compression header"] += [(offset + o, w, order) for o, w in heads]
            found["compressed"] += [(offset + o, 1, order) for o in range(12, min(length, 40))]
        elif kind != 8 and length and name.split(".")[-1] not in ("strtab", "shstrtab"):
            if name.startswith((".debug", ".zdebug", ".gcc_except", ".note", ".riscv", ".ARM")):
                _debug(name, offset, length, order, found)
            else:
                found["contents"].append((offset, 4 if length >= 4 else 1, order))
        elif kind == 3 and length:
            found["strings"] += [(offset + length - 1, 1, order), (offset, 1, order)]


def _frames(data: bytes, start: int, size: int, order: str, found: Places) -> None:
    """Length, CIE pointer and what follows of each record of call frame information."""
    at = start
    while at + 4 <= start + size:
        length = struct.unpack_from(order + "I", data, at)[0]
        found["unwind record"] += [(at, 4, order), (at + 4, 4, order)]
        found["unwind record"] += [(at + o, 1, order) for o in range(8, min(length + 4, 40))]
        found["unwind record"] += [(at + o, 4, order) for o in range(8, min(length + 1, 24), 4)]
        if length in (0, 0xFFFFFFFF):
            break
        at += 4 + length


def _macho(data: bytes, base: int, found: Places) -> None:
    count = struct.unpack_from("<I", data, base + 16)[0]
    found["Mach-O header"] += [(base + o, 4, "<") for o in range(4, 32, 4)]
    at = base + 32
    for _ in range(count):
        command, size = struct.unpack_from("<II", data, at)
        found["Mach-O command"] += [(at + o, 4, "<") for o in range(0, min(size, 96), 4)]
        if command == 0x19:
            for i in range(struct.unpack_from("<I", data, at + 64)[0]):
                _macho_section(data, base, at + 72 + 80 * i, found)
        elif command == 2:
            symbols, number, strings, length = struct.unpack_from("<IIII", data, at + 8)
            for record in range(base + symbols, base + symbols + 16 * min(number, 60), 16):
                fields = ((0, 4), (4, 1), (5, 1), (6, 2), (8, 8))
                found["Mach-O symbol"] += [(record + o, w, "<") for o, w in fields]
            found["strings"].append((base + strings + length - 1, 1, "<"))
        at += size


def _macho_section(data: bytes, base: int, at: int, found: Places) -> None:
    name = data[at : at + 16].rstrip(b"\0").decode()
    _, size, offset, _, relocations, number, _ = struct.unpack_from("<QQIIIII", data, at + 32)
    fields = ((32, 8), (40, 8), (48, 4), (52, 4), (56, 4), (60, 4), (64, 4), (68, 4), (72, 4))
    found["Mach-O section"] += [(at + o, w, "<") for o, w in fields]
    found["Mach-O section"] += [(at + o, 1, "<") for o in (0, 2, 16, 18, 31)]
    for record in range(base + relocations, base + relocations + 8 * min(number, 40), 8):
        found["Mach-O relocation"] += [(record, 4, "<"), (record + 4, 4, "<"), (record + 7, 1, "<")]
    if offset and name == "__eh_frame":
        _frames(data, base + offset, size, "<", found)
    elif offset and size:
        _debug(name, base + offset, size, "<", found)


def _coff(data: bytes, base: int, found: Places) -> None:
    _, sections, _, table, symbols, optional, _ = struct.unpack_from("<HHIIIHH", data, base)
    fields = ((0, 2), (2, 2), (4, 4), (8, 4), (12, 4), (16, 2), (18, 2))
    found["COFF header"] += [(base + o, w, "<") for o, w in fields]
    at = base + 20 + optional
    for _ in range(sections):
        name = data[at : at + 8].rstrip(b"\0").decode(errors="replace")
        size, offset, relocations, _, number = struct.unpack_from("<IIIIH", data, at + 16)
        found["COFF section"] += [(at + o, 4, "<") for o in (8, 12, 16, 20, 24, 28, 36)]
        found["COFF section"] += [(at + o, w, "<") for o, w in ((0, 1), (4, 4), (32, 2), (34, 2))]
        for record in range(base + relocations, base + relocations + 10 * min(number, 40), 10):
            found["COFF relocation"] += [(record + o, w, "<") for o, w in ((0, 4), (4, 4), (8, 2))]
        if offset and name in (".debug$S", ".debug$T"):
            _codeview(data, base + offset, size, name, found)
        elif offset and size:
            _debug(name if name[:1] in "./" else "others", base + offset, size, "<", found)
        at += 40
    end = base + table + 18 * symbols
    for record in range(base + table, min(end, base + table + 18 * 120), 18):
        fields = ((0, 4), (4, 4), (8, 4), (12, 2), (14, 2), (16, 1), (17, 1), (0, 2), (12, 4))
        found["COFF symbol"] += [(record + o, w, "<") for o, w in fields]
    found["strings"] += [(end, 4, "<")]


def _codeview(data: bytes, start: int, size: int, name: str, found: Places) -> None:
    """Types and lengths of subsections and of records in them."""
    found["CodeView"].append((start, 4, "<"))
    at = start + 4
    while at + 8 <= start + size:
        if name == ".debug$S":
            kind, length = struct.unpack_from("<II", data, at)
            found["CodeView"] += [(at + o, 4, "<") for o in range(0, min(length + 8, 40), 4)]
            inner = at + 8
            while kind == 0xF1 and inner + 4 <= at + 8 + length:
                record = struct.unpack_from("<H", data, inner)[0]
                found["CodeView"] += [(inner, 2, "<"), (inner + 2, 2, "<")]
                found["CodeView"] += [(inner + o, 4, "<") for o in range(4, min(record, 40), 4)]
                inner += 2 + record
            at += 8 + (length + 3 & ~3)
        else:
            length = struct.unpack_from("<H", data, at)[0]
            found["CodeView"] += [(at, 2, "<"), (at + 2, 2, "<")]
            found["CodeView"] += [(at + o, 4, "<") for o in range(4, min(length, 28), 4)]
            at += 2 + length
