"""Mach-O objects made by hand, field by field, for tests without tools.

Source: mach-o/loader.h, mach-o/nlist.h, mach-o/reloc.h.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

ARM64, X86_64 = 0x0100000C, 0x01000007


@dataclass
class Section:
    segment: bytes
    name: bytes
    contents: bytes
    flags: int = 0
    align: int = 0
    # (address, symbol or section, pc-relative, length, extern, type)
    relocations: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)
    address: int = 0


TEXT = 0x80000400


def build(
    sections: Sequence[Section],
    symbols: Sequence[tuple[bytes, int, int, int, int]] = (),
    *,
    cpu: int = ARM64,
    subtype: int = 0,
    flags: int = 0x2000,
    extra: bytes = b"",
    extra_count: int = 0,
    trailing: bytes = b"",
) -> bytes:
    """The file. `symbols`: name, type, section, n_desc, value. `extra` are more commands.

    `trailing` comes last in the file; its offset is `len(result) - len(trailing)`.
    """
    command_size = 72 + 80 * len(sections)
    size = command_size + 24 + 80 + len(extra)
    at = 32 + size
    address = 0
    headers, body = b"", b""
    for s in sections:
        address = -(-address // (1 << s.align)) * (1 << s.align)
        s.address = address
        body += bytes(-(at + len(body)) % 8)
        offset = at + len(body)
        body += s.contents
        body += bytes(-(at + len(body)) % 4)
        place = at + len(body)
        for where, target, pcrel, length, extern, kind in s.relocations:
            info = target | pcrel << 24 | length << 25 | extern << 27 | kind << 28
            body += struct.pack("<iI", where, info)
        headers += struct.pack(
            "<16s16sQQ8I",
            s.name,
            s.segment,
            address,
            len(s.contents),
            offset,
            s.align,
            place if s.relocations else 0,
            len(s.relocations),
            s.flags,
            0,
            0,
            0,
        )
        address += len(s.contents)
    body += bytes(-(at + len(body)) % 8)
    table = at + len(body)
    strings = b"\0"
    for name, kind, section, desc, value in symbols:
        body += struct.pack("<IBBHQ", len(strings), kind, section, desc, value)
        strings += name + b"\0"
    text = at + len(body)
    body += strings
    count = 3 + extra_count
    head = struct.pack("<8I", 0xFEEDFACF, cpu, subtype, 1, count, size, flags, 0)
    segment = struct.pack(
        "<II16sQQQQ4I", 0x19, command_size, b"", 0, address, at, address, 7, 7, len(sections), 0
    )
    symtab = struct.pack("<6I", 2, 24, table, len(symbols), text, len(strings))
    dysymtab = struct.pack("<20I", 0xB, 80, *[0] * 18)
    return head + segment + headers + symtab + dysymtab + extra + body + trailing


def plain() -> bytes:
    """A function that calls another one and refers to data."""
    text = Section(b"__TEXT", b"__text", bytes(16), TEXT, 2)
    data = Section(b"__DATA", b"__data", struct.pack("<QQ", 4, 7), 0, 3)
    text.relocations = [(8, 3, 1, 2, 1, 2), (4, 2, 1, 2, 1, 3)]
    data.relocations = [(0, 1, 0, 3, 1, 0)]
    symbols = [
        (b"_local", 0x0E, 1, 0, 0),
        (b"_api", 0x0F, 1, 0, 4),
        (b"_data", 0x0E, 2, 0, 16),
        (b"_outside", 0x01, 0, 0, 0),
    ]
    return build([text, data], symbols)
