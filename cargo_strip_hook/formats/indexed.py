"""What an archive's symbol index alone says of its definitions; no object is read for it.

GNU ar and LLVM list each global definition of an ELF object (System V ABI, chapter 4, "Archive
File"). Of Mach-O archives Apple's ranlib leaves common symbols out, of COFF archives LLVM weak
definitions: there the objects have to be read.
"""

from __future__ import annotations

import struct
from collections.abc import Collection

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.formats.sniff import sniff

_SYMTAB = 2  # SHT_SYMTAB
_UNDEFINED = 0  # SHN_UNDEF


def indexed_names(archive: Archive) -> Collection[str] | None:
    """The names of all global definitions in the index's order.

    None where the index cannot say it: there is none, a member is no ELF object, or has
    definitions that are not in the index (it was added without a new one). Raises `ArchiveError`
    for a damaged index.
    """
    entries = archive.entries()
    if entries is None:
        return None
    listed = set(entries.members)
    for member in archive.members:
        data = archive.data(member)
        contents = sniff(bytes(data[:20]))
        if contents in ("macho", "coff", "coff-import"):
            return None
        if contents == "elf" and member.index not in listed and _defines(data):
            return None
    text = b"\0".join(entries.names).decode(errors="surrogateescape")
    return dict.fromkeys(text.split("\0")) if text else {}


def _defines(data: memoryview) -> bool:
    """Whether an ELF object has a global definition; True where that cannot be told.

    gABI, "ELF Header", "Sections" and "Symbol Table" (the globals begin at sh_info).
    """
    try:
        order, wide = "<" if data[5] == 1 else ">", data[4] == 2
        if wide:
            (table,) = struct.unpack_from(order + "Q", data, 40)
            size, count = struct.unpack_from(order + "HH", data, 58)
        else:
            (table,) = struct.unpack_from(order + "I", data, 32)
            size, count = struct.unpack_from(order + "HH", data, 46)
        section = struct.Struct(order + ("II4QII" if wide else "8I"))
        symbol = struct.Struct(order + ("6xH16x" if wide else "14xH"))
        if not count:  # more than 0xff00 sections
            return True
        for number in range(count):
            fields = section.unpack_from(data, table + number * size)
            if fields[1] != _SYMTAB:
                continue
            offset, length, first = fields[4], fields[5], fields[7]
            symbols = data[offset + first * symbol.size : offset + length]
            if any(place != _UNDEFINED for (place,) in symbol.iter_unpack(symbols)):
                return True
    except (struct.error, IndexError):
        return True
    return False
