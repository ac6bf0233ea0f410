"""An archive's members and index, read a second time and on its own."""

from __future__ import annotations

import mmap
import re
import struct
from dataclasses import dataclass

_BSD_INDEXES = tuple(b"__.SYMDEF" + w + s for w in (b"", b"_64") for s in (b"", b" SORTED"))


@dataclass(frozen=True, slots=True)
class Listing:
    """`members`: header offset, data offset and size (bytes) of each member that is no table.

    `names`: what each of them is called. `index`: names of the archive's index with the header
    offset of the member; None without one. `second`: the same of the second linker member, which
    libraries for Windows have.
    """

    members: tuple[tuple[int, int, int], ...]
    index: tuple[tuple[bytes, int], ...] | None
    anonymous: bool  # whether no header tells a time or an owner
    names: tuple[bytes, ...] = ()  # of `members`
    second: tuple[tuple[bytes, int], ...] | None = None


def read_listing(data: bytes | mmap.mmap | memoryview) -> Listing:
    """Read the headers of a plain archive (GNU or BSD names). Raises `ValueError`.

    Sources: System V ABI, chapter 7 ("Archive File"); ar(5) of FreeBSD for `__.SYMDEF`; Microsoft
    PE/COFF specification, "Second Linker Member".
    """
    if bytes(data[:8]) != b"!<arch>\n":
        raise ValueError("no archive")
    members, index, second, offset, anonymous = [], None, None, 8, True
    names, long_names = [], b""
    while offset < len(data):
        header = bytes(data[offset : offset + 60])
        if len(header) < 60 or header[58:] != b"`\n":
            raise ValueError(f"no member header at {offset:#x}")
        size, name, start = int(header[48:58]), header[:16].rstrip(), offset + 60
        if start + size > len(data):
            raise ValueError(f"the member at {offset:#x} is cut short")
        anonymous &= set(header[16:40].split()) <= {b"0"}
        body = start
        if name.startswith(b"#1/"):
            length = int(name[3:])
            name, _, rest = bytes(data[start : start + length]).partition(b"\0")
            if rest.strip(b"\0"):
                raise ValueError(f"the name of the member at {offset:#x} does not end")
            body = start + length
        if name == b"/" and index is not None:
            second = _sorted(bytes(data[start : start + size]))
        elif name == b"/":
            index = _gnu(bytes(data[start : start + size]), 4)
        elif name == b"/SYM64/":
            index = _gnu(bytes(data[start : start + size]), 8)
        elif name.startswith(b"__.SYMDEF"):
            if name not in _BSD_INDEXES:
                raise ValueError(f"a member is called {name.decode('latin-1')}")
            index = _bsd(bytes(data[body : start + size]), 8 if b"_64" in name else 4)
        elif name == b"//":
            long_names = bytes(data[start : start + size])
        else:
            names.append(_name(name, long_names, offset))
            members.append((offset, body, start + size - body))
        offset = start + size + (size & 1)
    return Listing(tuple(members), index, anonymous, tuple(names), second)


def _name(name: bytes, long_names: bytes, offset: int) -> bytes:
    """A member's name; one that begins with `/` is a place in `long_names`."""
    if name.startswith(b"/"):
        if not name[1:].isdigit() or not 0 <= int(name[1:]) < len(long_names):
            raise ValueError(f"the member at {offset:#x} has a name that is not there")
        name = re.split(rb"[\n\0]", long_names[int(name[1:]) :], maxsplit=1)[0]
    name = name.removesuffix(b"/")
    if not name:
        raise ValueError(f"the member at {offset:#x} has no name")
    return name


def _gnu(table: bytes, width: int) -> tuple[tuple[bytes, int], ...]:
    form = ">Q" if width == 8 else ">I"
    try:
        (count,) = struct.unpack_from(form, table)
        locations = struct.unpack_from(f">{count}{form[1]}", table, width)
    except struct.error as e:
        raise ValueError("the index is cut short") from e
    names = table[width * (count + 1) :].split(b"\0")[:-1][:count]  # all end with a zero
    if len(names) < count:
        raise ValueError("the index has too few names")
    return tuple(zip(names, locations, strict=True))


def _bsd(table: bytes, width: int) -> tuple[tuple[bytes, int], ...]:
    letter = "Q" if width == 8 else "I"
    try:
        (size,) = struct.unpack_from(f"<{letter}", table)
        pairs = struct.unpack_from(f"<{size // width}{letter}", table, width)
    except struct.error as e:
        raise ValueError("the index is cut short") from e
    strings = table[2 * width + size :]
    return tuple(
        (strings[name : strings.index(b"\0", name)], location)
        for name, location in zip(pairs[::2], pairs[1::2], strict=True)
    )


def _sorted(table: bytes) -> tuple[tuple[bytes, int], ...]:
    """The second linker member: places of members, and for each name the number of one, from 1."""
    try:
        (members,) = struct.unpack_from("<I", table)
        locations = struct.unpack_from(f"<{members}I", table, 4)
        (count,) = struct.unpack_from("<I", table, 4 + 4 * members)
        numbers = struct.unpack_from(f"<{count}H", table, 8 + 4 * members)
    except struct.error as e:
        raise ValueError("the index is cut short") from e
    names = table[8 + 4 * members + 2 * count :].split(b"\0")[:-1][:count]
    if len(names) < count or any(not 0 < n <= members for n in numbers):
        raise ValueError("the index has too few names")
    return tuple((name, locations[n - 1]) for name, n in zip(names, numbers, strict=True))
