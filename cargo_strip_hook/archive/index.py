"""Reading the symbol index of an archive, in its five forms."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from cargo_strip_hook.archive.model import Member
from cargo_strip_hook.core.errors import ArchiveError

IndexKind = Literal["gnu", "gnu64", "bsd", "bsd64", "coff"]


@dataclass(frozen=True, slots=True)
class SymbolIndex:
    """Where an index is in the archive: the offset of its header, and offset and size of its data.

    `plain` is the other index that a COFF archive has, in the order of the members.
    """

    kind: IndexKind
    header_offset: int
    offset: int
    size: int
    plain: SymbolIndex | None = None


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries of an index in their order: the member `members[i]` defines `names[i]`.

    A name that several members define may have several entries.
    """

    names: Sequence[bytes]
    members: Sequence[int]

    def first(self) -> dict[bytes, int]:
        """Each name's first member."""
        first = dict(zip(self.names, self.members, strict=True))
        if len(first) < len(self.names):  # the first of several definitions wins
            first.update(zip(reversed(self.names), reversed(self.members), strict=True))
        return first


_MEMBER_NAMES: dict[IndexKind, str] = {
    "gnu": "/",
    "gnu64": "/SYM64/",
    "bsd": "__.SYMDEF",
    "bsd64": "__.SYMDEF_64",
    "coff": "/",
}


def parse_index(
    archive: memoryview, index: SymbolIndex, members: tuple[Member, ...], path: str
) -> Entries:
    """The entries of an index, with positions in `members`.

    Raises `ArchiveError` where the index is cut short, or has an offset at which no member begins.
    """
    reader = _Reader(archive[index.offset : index.offset + index.size], index, path)
    if index.kind == "coff":
        names, headers = reader.coff()
    elif index.kind in ("bsd", "bsd64"):
        names, headers = reader.bsd(8 if index.kind == "bsd64" else 4)
    else:
        names, headers = reader.gnu(8 if index.kind == "gnu64" else 4)
    by_offset = {member.header_offset: member.index for member in members}
    try:
        positions = list(map(by_offset.__getitem__, headers))
    except KeyError as e:
        reader.fail(f"no member begins at offset {e.args[0]:#x}, where the index has one")
    return Entries(names, positions)


class _Reader:
    def __init__(self, data: memoryview, index: SymbolIndex, path: str) -> None:
        self.data, self.index, self.path = data, index, path

    def fail(self, what: str, offset: int = 0) -> NoReturn:
        raise ArchiveError(
            what,
            path=self.path,
            member=_MEMBER_NAMES[self.index.kind],
            offset=self.index.offset + offset,
            help="make a new index with `ranlib`",
        )

    def integers(self, order: str, width: int, offset: int, count: int) -> tuple[int, ...]:
        if offset + width * count > len(self.data):
            self.fail("the symbol index is cut short", offset)
        code = {2: "H", 4: "I", 8: "Q"}[width]
        return struct.unpack_from(f"{order}{count}{code}", self.data, offset)

    def strings(self, offset: int, count: int) -> list[bytes]:
        names = bytes(self.data[offset:]).split(b"\0", count)[:-1]
        if len(names) < count:
            self.fail(f"the symbol index has {count} entries and {len(names)} names", offset)
        return names

    def gnu(self, width: int) -> tuple[list[bytes], tuple[int, ...]]:
        """Big-endian count and header offsets, then the names in the same order (System V ABI)."""
        (count,) = self.integers(">", width, 0, 1)
        headers = self.integers(">", width, width, count)
        return self.strings(width * (1 + count), count), headers

    def coff(self) -> tuple[list[bytes], tuple[int, ...]]:
        """The second linker member: offsets of all members, and sorted names with 1-based indexes.

        PE/COFF specification, "Second Linker Member".
        """
        (member_count,) = self.integers("<", 4, 0, 1)
        headers = self.integers("<", 4, 4, member_count)
        offset = 4 + 4 * member_count
        (count,) = self.integers("<", 4, offset, 1)
        which = self.integers("<", 2, offset + 4, count)
        if count and not 1 <= min(which) <= max(which) <= member_count:
            self.fail(f"an index entry is not among its {member_count} members", offset + 4)
        return self.strings(offset + 4 + 2 * count, count), tuple(headers[i - 1] for i in which)

    def bsd(self, width: int) -> tuple[list[bytes], tuple[int, ...]]:
        """`ranlib` structures (name offset, header offset) with their size in bytes before them.

        Then the size of the names, then these; little-endian (`<mach-o/ranlib.h>`).
        """
        (table,) = self.integers("<", width, 0, 1)
        if table % (2 * width):
            self.fail(f"the symbol index has {table} bytes, not a multiple of {2 * width}")
        entries = self.integers("<", width, width, table // width)
        offset = width + table
        (size,) = self.integers("<", width, offset, 1)
        offset += width
        if offset + size > len(self.data):
            self.fail("the names of the symbol index are cut short", offset)
        texts = bytes(self.data[offset : offset + size])
        return self.names_at(texts, entries[0::2], offset), entries[1::2]

    def names_at(self, texts: bytes, starts: tuple[int, ...], offset: int) -> list[bytes]:
        # nearly always each name begins where the last one ended
        in_order = texts.split(b"\0", len(starts))[:-1]
        position, expected = 0, []
        for name in in_order:
            expected.append(position)
            position += len(name) + 1
        if tuple(expected) == starts:
            return in_order
        names = []
        for start in starts:
            stop = texts.find(b"\0", start) if start < len(texts) else -1
            if stop < 0:
                self.fail(f"a name at {start} of {len(texts)} bytes of names has no end", offset)
            names.append(texts[start:stop])
        return names
