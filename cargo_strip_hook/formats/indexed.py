"""What an archive's symbol index alone says of its definitions; no object is read for it.

GNU ar and LLVM list each global definition of an ELF object (System V ABI, chapter 4, "Archive
File"). Of Mach-O archives Apple's ranlib leaves common symbols out, of COFF archives LLVM weak
definitions: there the objects have to be read.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.formats.sniff import sniff

_SYMTAB = 2  # SHT_SYMTAB
_UNDEFINED = 0  # SHN_UNDEF
_UNREADABLE = (struct.error, IndexError, ValueError, OverflowError)


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


def confirmed(archive: Archive, names: Collection[str]) -> bool:
    """Whether the ELF objects that the index names for `names` define them.

    Raises `ArchiveError` for a damaged index.
    """
    index = archive.symbols() or {}
    wanted: dict[int, set[bytes]] = {}
    for name in names:
        text = name.encode(errors="surrogateescape")
        wanted.setdefault(index.get(text, -1), set()).add(text)
    try:
        return all(
            member >= 0 and texts <= set(_definitions(archive.data(archive.members[member])))
            for member, texts in wanted.items()
        )
    except _UNREADABLE:
        return False


def _defines(data: memoryview) -> bool:
    """Whether an ELF object has a global definition; True where that cannot be told."""
    try:
        return any(True for _ in _definitions(data))
    except _UNREADABLE:
        return True


def _definitions(data: memoryview) -> Iterator[bytes]:
    """The names of the global definitions of an ELF object.

    Raises one of `_UNREADABLE` where it is damaged or has too many sections for its header.
    Source: gABI, "ELF Header", "Sections" and "Symbol Table" (the globals begin at sh_info).
    """
    order, wide = "<" if data[5] == 1 else ">", data[4] == 2
    (table,) = struct.unpack_from(order + ("Q" if wide else "I"), data, 40 if wide else 32)
    size, count = struct.unpack_from(order + "HH", data, 58 if wide else 46)
    header = struct.Struct(order + ("II4QII" if wide else "8I"))
    symbol = struct.Struct(order + ("I2xH16x" if wide else "I10xH"))
    if not count:
        raise ValueError("the number of sections is elsewhere")
    sections = [header.unpack_from(data, table + number * size) for number in range(count)]
    for _, kind, _, _, offset, length, link, first, *_ in sections:
        if kind != _SYMTAB:
            continue
        strings = bytes(data[sections[link][4] :][: sections[link][5]])
        symbols = data[offset + first * symbol.size : offset + length]
        for name, definition in symbol.iter_unpack(symbols):
            if definition != _UNDEFINED:
                yield strings[name : strings.index(b"\0", name)]
