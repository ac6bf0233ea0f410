"""The mark of a finished library: a section of its object that no program loads.

It is a section and not an archive member because tools take every member for an object.
Reading it has to be quick, since it decides whether there is anything to do.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Sequence
from pathlib import Path

from cargo_strip_hook.core.requests import Slice

SECTION_NAME = ".cargo-strip-hook"
_NAME = SECTION_NAME.encode()
_MACHO_NAME = b"__strip_hook".ljust(16, b"\0") + b"__DWARF".ljust(16, b"\0")
MARKER_FORMAT = 1


def make_marker(
    exports: Sequence[str],
    strip: str,
    granularity: str,
    engine: str,
    version: str,
    allowed_extra: Sequence[str] = (),
    compress_debug: str = "none",
) -> bytes:
    """What is written into the section: JSON, the same bytes for the same request.

    `exports` may come in any order. Nothing of time, machine or path is in it.
    """
    content = {
        "format": MARKER_FORMAT,
        "engine": engine,
        "exports": sorted(set(exports)),
        "granularity": granularity,
        "strip": strip,
        "version": version,
    }
    if compress_debug != "none":
        content["compress-debug"] = compress_debug
    if allowed_extra:
        content["undefined"] = sorted(set(allowed_extra))
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode() + b"\n"


def marker_of_set(marker: bytes, shares: str) -> bytes:
    """The marker of a library of a set: `shares` tells that set from others."""
    content = {**json.loads(marker), "shares": shares}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode() + b"\n"


def set_of(marker: bytes | None) -> str:
    """The set that a marker tells of; "" where it is none of a set's."""
    try:
        content = json.loads(marker or b"")
    except ValueError:
        return ""
    found = content.get("shares", "") if isinstance(content, dict) else ""
    return found if isinstance(found, str) else ""


def read_marker(where: Path | Slice) -> bytes | None:
    """The marker's bytes, or None where the file has none, is no archive or cannot be read."""
    part = where if isinstance(where, Slice) else Slice(where)
    try:
        with (
            part.path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            end = len(data) if part.size is None else part.start + part.size
            return _from_archive(data, part.start, min(end, len(data)))
    except (OSError, ValueError, IndexError, OverflowError, struct.error):
        return None


def _from_archive(data: mmap.mmap, at: int, end: int) -> bytes | None:
    """Looks at the first object only: a finished library has one, and an original has many."""
    if data[at : at + 8] != b"!<arch>\n":
        return None
    at += 8
    while at + 60 <= end:
        header = data[at : at + 60]
        size = int(header[48:58])
        start = at + 60
        name = header[:16].rstrip()
        if name in (b"/", b"//", b"/SYM64/") or name.startswith(b"__.SYMDEF"):
            at = start + size + (size & 1)
            continue
        if name.startswith(b"#1/"):
            length = int(name[3:])
            if data[start : start + 9] == b"__.SYMDEF":
                at = start + size + (size & 1)
                continue
            start, size = start + length, size - length
        if data[start : start + 4] == b"\x7fELF":
            return _from_elf(data, start, size)
        if data[start : start + 4] == b"\xcf\xfa\xed\xfe":
            return _from_macho(data, start, size)
        return _from_coff(data, start, size)
    return None


def _from_elf(data: mmap.mmap, start: int, size: int) -> bytes | None:
    """Find the section by name; gABI, chapter 4, "Section Header"."""
    end = min(start + size, len(data))
    wide, order = data[start + 4] == 2, "<" if data[start + 5] == 1 else ">"
    head = struct.Struct(order + ("QQQIHHHHHH" if wide else "IIIIHHHHHH"))
    _, _, table, _, _, _, _, entry, count, names = head.unpack_from(data, start + 24)
    section = struct.Struct(order + ("IIQQQQII" if wide else "IIIIIIII"))
    first = section.unpack_from(data, start + table)
    count, names = count or first[5], first[6] if names == 0xFFFF else names
    _, _, _, _, offset, length, _, _ = section.unpack_from(data, start + table + names * entry)
    strings = start + offset
    if data.find(_NAME + b"\0", strings, min(strings + length, end)) < 0:
        return None
    # the writer may put it anywhere; the last ones are looked at first
    for number in range(count - 1, 0, -1):
        name, kind, flags, _, offset, length, _, _ = section.unpack_from(
            data, start + table + number * entry
        )
        location = strings + name
        if kind != 1 or flags & 2 or data[location : location + len(_NAME) + 1] != _NAME + b"\0":
            continue
        if start + offset + length > end:
            return None
        return data[start + offset : start + offset + length]
    return None


def _from_macho(data: mmap.mmap, start: int, size: int) -> bytes | None:
    """Find the section by name; mach-o/loader.h, struct section_64."""
    count, length = struct.unpack_from("<II", data, start + 16)
    commands = min(start + 32 + length, start + size)
    at = start + 32
    for _ in range(count):
        if at + 72 > commands:
            return None
        command, step = struct.unpack_from("<II", data, at)
        if command == 0x19:
            location = data.find(_MACHO_NAME, at + 72, min(at + step, commands))
            if location < 0 or (location - at - 72) % 80:
                return None
            _, found, offset = struct.unpack_from("<QQI", data, location + 32)
            if offset + found > size:
                return None
            return data[start + offset : start + offset + found]
        at += max(step, 8)
    return None


def _from_coff(data: mmap.mmap, start: int, size: int) -> bytes | None:
    """Find the section by name; Microsoft, "PE Format", "Section Table"."""
    end = min(start + size, len(data))
    machine, count, _, table, symbols = struct.unpack_from("<HHIII", data, start)
    headers, entry = start + 20, 18
    if (machine, count) == (0, 0xFFFF):
        count, table, symbols = struct.unpack_from("<III", data, start + 44)
        headers, entry = start + 56, 20
    strings = start + table + entry * symbols
    if headers + 40 * count > end or not table or strings + 4 > end:
        return None
    # the writer puts it last
    for number in range(count - 1, -1, -1):
        at = headers + 40 * number
        if data[at : at + 1] != b"/":
            continue
        location = strings + int(data[at + 1 : at + 8].rstrip(b"\0"))
        if data[location : location + len(_NAME) + 1] == _NAME + b"\0":
            length, offset = struct.unpack_from("<II", data, at + 16)
            if start + offset + length > end:
                return None
            return data[start + offset : start + offset + length]
    return None
