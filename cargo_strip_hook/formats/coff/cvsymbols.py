"""CodeView symbols and lines of one file: records, what they belong to, and what they refer to.

Sources: Microsoft, "microsoft-pdb" (`cvinfo.h`: `SYM_ENUM_e`, `DEBUG_S_SUBSECTION_TYPE`,
`BinaryAnnotationOpcode`); LLVM's `TypeIndexDiscovery.cpp` and lld's `COFF/PDB.cpp`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cargo_strip_hook.formats.coff.cvtypes import (
    SIGNATURE,
    UnknownError,
    counted,
    records,
    u32,
)

SYMBOLS, LINES, STRINGS, CHECKSUMS, FRAMES, INLINEES = range(0xF1, 0xF7)
_IGNORE = 0x8000_0000
OBJNAME = 0x1101
# openers and closers of scopes
_PROCEDURES = (0x1110, 0x110F, 0x1147, 0x1146, 0x1155, 0x1156)
# and thunks, blocks, inlined functions
_OPENS = frozenset((*_PROCEDURES, 0x1102, 0x1103, 0x1104, 0x1132, 0x114D, 0x115D))
_CLOSES = frozenset((0x0006, 0x114E, 0x114F))
_DATA = frozenset((0x110C, 0x110D, 0x1112, 0x1113, 0x111C, 0x111D))
_INLINED = {0x114D: 16, 0x115D: 20}  # S_INLINESITE: where its annotations are
# kind -> offsets of indices of types, counted from the record's start
_TYPES: dict[int, tuple[int, ...]] = {
    **dict.fromkeys(_PROCEDURES, (28,)),
    **dict.fromkeys((0x110C, 0x110D, 0x1112, 0x1113, 0x111C, 0x111D), (4,)),
    # S_UDT, S_COBOLUDT, S_BUILDINFO, S_FILESTATIC, S_LOCAL, S_REGISTER, S_CONSTANT, S_HOTPATCHFUNC
    **dict.fromkeys((0x1108, 0x1109, 0x114C, 0x1153, 0x113E, 0x1106, 0x1107, 0x1169), (4,)),
    **dict.fromkeys((0x110B, 0x1111), (8,)),  # S_BPREL32, S_REGREL32
    **dict.fromkeys((0x1139, 0x115E, 0x114D, 0x115D), (12,)),  # calls, allocations, inlined
    # S_OBJNAME, S_COMPILE2, S_COMPILE3, S_FRAMEPROC, S_ENVBLOCK, S_UNAMESPACE, S_ANNOTATION
    **dict.fromkeys((0x1101, 0x1116, 0x113C, 0x1012, 0x113D, 0x1124, 0x1019), ()),
    **dict.fromkeys((0x0006, 0x114E, 0x114F, 0x1102, 0x1103, 0x1105, 0x1132), ()),
    **dict.fromkeys(range(0x113F, 0x1146), ()),  # S_DEFRANGE and its kinds
    **dict.fromkeys((0x113A, 0x1159, 0x115C), ()),  # cookie, jump table, profile
}
_LISTS = frozenset((0x115A, 0x115B, 0x1168))  # S_CALLEES, S_CALLERS, S_INLINEES
_STRINGS = {0x1153: 8, 0x113F: 4, 0x1140: 4}  # kind -> offset of an offset in the string table
# operations with two operands; all others have one
_CHANGE_FILE, _TWO_OPERANDS = 5, 12


@dataclass(slots=True)
class Group:
    """What stays together: a record with all of its scope, or a subsection of another kind.

    `ranges`: (start, end) in the section, in order, without what is dead. `target` is the output
    section that its first relocation refers to, -1 for none.
    """

    section: int
    kind: int  # of the subsection
    ranges: list[tuple[int, int]]
    target: int
    leaf: int = 0  # the first record's kind


@dataclass(frozen=True, slots=True)
class _Source:
    """A section while it is read: the offsets of its relocations, and the home of each target."""

    section: int
    contents: bytes
    offsets: Sequence[int]
    homes: Sequence[int]

    def home(self, first: int, last: int) -> int:
        """That of the first relocation between two offsets, -1 where there is none."""
        number = bisect_left(self.offsets, first)
        there = number < len(self.offsets) and self.offsets[number] < last
        return self.homes[number] if there else -1


@dataclass(slots=True)
class SymbolRecords:
    """All groups of a file that are alive, and what refers from its sections: (section, offset).

    It grows while the file is read.
    """

    groups: list[Group] = field(default_factory=list)
    types: list[tuple[int, int]] = field(default_factory=list)
    files: list[tuple[int, int]] = field(default_factory=list)  # offsets of checksums
    strings: list[tuple[int, int]] = field(default_factory=list)
    inlined: dict[tuple[int, int], int] = field(default_factory=dict)  # record -> annotations
    inlinees: list[tuple[int, int, int]] = field(default_factory=list)  # section, start, end
    table: bytes = b""
    checksums: dict[int, bytes] = field(default_factory=dict)  # offset -> what follows the name
    names: dict[int, bytes] = field(default_factory=dict)  # offset -> the file's name

    def add_symbols(self, source: _Source, start: int, end: int) -> None:
        """Add a subsection of symbols, without what is dead. Raises `UnknownError`."""
        depth = 0
        dead = 0  # the depth of the scope that is left out, 0 for none
        group = Group(source.section, SYMBOLS, [], -1)
        for kind, begin, stop in records(source.contents, start, end):
            opens = kind in _OPENS
            home = source.home(begin, stop) if depth == 0 or opens or kind in _DATA else -1
            depth += opens
            gone = dead or (home == DEAD and (opens or depth == 0 or kind in _DATA))
            if gone and opens and not dead:
                dead = depth
            if not gone:
                if depth - opens == 0:
                    group = Group(source.section, SYMBOLS, [], home, kind)
                    self.groups.append(group)
                if group.ranges and group.ranges[-1][1] == begin:
                    group.ranges[-1] = group.ranges[-1][0], stop
                else:
                    group.ranges.append((begin, stop))
                self._refers(source, kind, begin, stop)
            if kind in _CLOSES:
                if depth == dead:
                    dead = 0
                depth -= 1
                if depth < 0:
                    raise UnknownError("the end of a scope that has none")
        if depth:
            raise UnknownError("a scope without an end")

    def _refers(self, source: _Source, kind: int, begin: int, stop: int) -> None:
        """Note the offsets of a record that refer to types and files."""
        known = _TYPES.get(kind)
        if known is not None:
            self.types += [(source.section, begin + offset) for offset in known]
        elif kind in _LISTS:
            offsets = counted(begin + 8, u32(source.contents, begin + 4), stop)
            self.types += [(source.section, offset) for offset in offsets]
        else:
            raise UnknownError(f"symbol {kind:#06x}")
        if known and begin + known[-1] + 4 > stop:
            raise UnknownError(f"symbol {kind:#06x} of {stop - begin} bytes")
        if kind in _STRINGS:
            self.strings.append((source.section, begin + _STRINGS[kind]))
        if kind in _INLINED:
            self.inlined[source.section, begin] = begin + _INLINED[kind]

    def add_offsets(self, source: _Source, kind: int, start: int, end: int) -> None:
        """Note the offsets of lines and frames that refer to files and names.

        Raises `UnknownError`.
        """
        if kind == FRAMES:
            self.strings += [(source.section, name) for name in range(start + 24, end - 11, 32)]
            return
        position = start + 12
        while position < end:
            self.files.append((source.section, position))
            size = u32(source.contents, position + 8)
            if size < 12 or position + size > end:
                raise UnknownError(f"a block of lines of {size} bytes")
            position += size

    def add_checksums(self, table: bytes) -> None:
        """Read a table of files; `self.table` holds their names. Raises `UnknownError`."""
        offset = 0
        while offset + 6 <= len(table):
            size = 6 + table[offset + 4]
            name = u32(table, offset)
            stop = self.table.find(b"\0", name)
            if name >= len(self.table) or stop < 0 or offset + size > len(table):
                raise UnknownError("a file without a name")
            self.names[offset] = self.table[name:stop]
            self.checksums[offset] = table[offset + 4 : offset + size]
            offset += size + 3 & ~3


DEAD = -2


def read(
    sections: Mapping[int, bytes], targets: Mapping[int, tuple[Sequence[int], Sequence[int]]]
) -> SymbolRecords:
    """Take the `.debug$S` of a file apart. Raises `UnknownError`.

    `targets`: for each section the offsets of its relocations, sorted, and for each of them the
    output section that it refers to, -1 for what is outside and `DEAD` for what is gone.
    """
    into = SymbolRecords()
    tables: dict[int, list[bytes]] = {STRINGS: [], CHECKSUMS: []}
    for section, contents in sections.items():
        if not contents:
            continue
        if contents[:4] != SIGNATURE:
            raise UnknownError("another signature of the symbols")
        source = _Source(section, contents, *targets[section])
        for kind, start, end in _subsections(contents):
            if kind == SYMBOLS:
                into.add_symbols(source, start, end)
            elif kind in tables:
                tables[kind].append(contents[start:end])
            elif kind == INLINEES:
                into.inlinees.append((section, start, end))
            elif kind in (LINES, FRAMES):
                home = source.home(start, end)
                if home != DEAD:
                    into.groups.append(Group(section, kind, [(start, end)], home))
                    into.add_offsets(source, kind, start, end)
            elif not kind & _IGNORE:
                raise UnknownError(f"subsection {kind:#x} of the symbols")
    if any(len(t) > 1 for t in tables.values()):
        raise UnknownError("two tables of files")
    into.table = b"".join(tables[STRINGS])
    for table in tables[CHECKSUMS]:
        into.add_checksums(table)
    return into


def _subsections(contents: bytes) -> Iterator[tuple[int, int, int]]:
    position = 4
    while position + 8 <= len(contents):
        kind, size = u32(contents, position), u32(contents, position + 4)
        if position + 8 + size > len(contents):
            raise UnknownError(f"a subsection of {size} bytes at {position:#x}")
        yield kind, position + 8, position + 8 + size
        position += 8 + (size + 3 & ~3)


# Annotations of inlined functions


def with_files(contents: bytes, files: Mapping[int, int]) -> bytes | None:
    """With the new offsets of files' checksums; None where no file is named.

    Raises `UnknownError`.
    """
    out = bytearray()
    position, changed = 0, False
    while position < len(contents) and contents[position]:
        operation, after = _number(contents, position)
        out += contents[position:after]
        for _ in range(2 if operation == _TWO_OPERANDS else 1):
            value, end = _number(contents, after)
            if operation == _CHANGE_FILE:
                if value not in files:
                    raise UnknownError("an inlined function of an unknown file")
                out += _compressed(files[value])
                changed = True
            else:
                out += contents[after:end]
            after = end
        position = after
    return bytes(out) if changed else None


def _number(contents: bytes, position: int) -> tuple[int, int]:
    """(value, end) of a compressed number (`CVUncompressData`)."""
    first = contents[position] if position < len(contents) else 0xFF
    for mask, mark, size in ((0x80, 0, 1), (0xC0, 0x80, 2), (0xE0, 0xC0, 4)):
        if first & mask == mark and position + size <= len(contents):
            value = int.from_bytes(contents[position : position + size], "big")
            return value & ~(mask << 8 * (size - 1)), position + size
    raise UnknownError("a damaged annotation of an inlined function")


def _compressed(value: int) -> bytes:
    if value < 0x80:
        return bytes([value])
    if value < 0x4000:
        return (value | 0x8000).to_bytes(2, "big")
    if value < 0x2000_0000:
        return (value | 0xC000_0000).to_bytes(4, "big")
    raise UnknownError("too many files")


__all__ = [
    "CHECKSUMS",
    "DEAD",
    "INLINEES",
    "STRINGS",
    "SYMBOLS",
    "Group",
    "SymbolRecords",
    "with_files",
]
