"""An archive's members and index, read a second time and on its own."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Listing:
    """`members`: header offset, data offset and size (bytes) of each member that is no table.

    `index`: names of the archive's index with the header offset of the member; None without one.
    """

    members: tuple[tuple[int, int, int], ...]
    index: tuple[tuple[bytes, int], ...] | None
    anonymous: bool  # whether no header tells a time or an owner


def read_listing(data: bytes | mmap.mmap | memoryview) -> Listing:
    """Read the headers of a plain archive (GNU or BSD names). Raises `ValueError`.

    Sources: System V ABI, chapter 7 ("Archive File"); ar(5) of FreeBSD for `__.SYMDEF`.
    """
    if bytes(data[:8]) != b"!<arch>\n":
        raise ValueError("no archive")
    members, index, at, anonymous = [], None, 8, True
    while at < len(data):
        header = bytes(data[at : at + 60])
        if len(header) < 60 or header[58:] != b"`\n":
            raise ValueError(f"no member header at {at:#x}")
        size, name, start = int(header[48:58]), header[:16].rstrip(), at + 60
        if start + size > len(data):
            raise ValueError(f"the member at {at:#x} is cut short")
        anonymous &= set(header[16:40].split()) <= {b"0"}
        body = start
        if name.startswith(b"#1/"):
            length = int(name[3:])
            name = bytes(data[start : start + length]).rstrip(b"\0")
            body = start + length
        if name == b"/":
            index = _gnu(bytes(data[start : start + size]), 4)
        elif name == b"/SYM64/":
            index = _gnu(bytes(data[start : start + size]), 8)
        elif name.startswith(b"__.SYMDEF"):
            index = _bsd(bytes(data[body : start + size]), 8 if b"_64" in name else 4)
        elif name != b"//":
            members.append((at, body, start + size - body))
        at = start + size + (size & 1)
    return Listing(tuple(members), index, anonymous)


def _gnu(table: bytes, width: int) -> tuple[tuple[bytes, int], ...]:
    form = ">Q" if width == 8 else ">I"
    try:
        (count,) = struct.unpack_from(form, table)
        places = struct.unpack_from(f">{count}{form[1]}", table, width)
    except struct.error as e:
        raise ValueError("the index is cut short") from e
    names = table[width * (count + 1) :].split(b"\0")[:-1][:count]  # all end with a zero
    if len(names) < count:
        raise ValueError("the index has too few names")
    return tuple(zip(names, places, strict=True))


def _bsd(table: bytes, width: int) -> tuple[tuple[bytes, int], ...]:
    letter = "Q" if width == 8 else "I"
    try:
        (size,) = struct.unpack_from(f"<{letter}", table)
        pairs = struct.unpack_from(f"<{size // width}{letter}", table, width)
    except struct.error as e:
        raise ValueError("the index is cut short") from e
    strings = table[2 * width + size :]
    return tuple(
        (strings[name : strings.index(b"\0", name)], place)
        for name, place in zip(pairs[::2], pairs[1::2], strict=True)
    )
