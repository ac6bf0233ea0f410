"""CodeView records in a form that two files can be compared by: what they refer to by its number.

Equal types have one number, and so have equal files and equal strings, whichever file they are of.
Members of the original with a record that is not known here go without CodeView. Sources:
Microsoft's microsoft-pdb, `cvinfo.h` (the `lf*` and `*SYM` structures, `LF_NUMERIC`,
`BinaryAnnotationOpcode`, CV_DebugSLinesHeader_t); LLVM, "CodeView Type Records" and "CodeView
Symbol Records".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

KINDS = SYMBOLS, LINES, STRINGS, FILES, FRAMES, INLINEES = tuple(range(0xF1, 0xF7))
IGNORED = 0x8000_0000
FIRST = 0x1000  # smaller numbers are of types that are the same everywhere
_VERSION = b"\4\0\0\0"

# S_OBJNAME
NAME = 0x1101
FUNCTIONS = frozenset((0x110F, 0x1110, 0x1146, 0x1147, 0x1155, 0x1156))
# and S_THUNK32, S_BLOCK32, S_WITH32, S_SEPCODE, S_INLINESITE, S_INLINESITE2
OPENING = FUNCTIONS | {0x1102, 0x1103, 0x1104, 0x1132, 0x114D, 0x115D}
CLOSING = frozenset((0x0006, 0x114E, 0x114F))  # S_END, S_INLINESITE_END, S_PROC_ID_END
VARIABLES = frozenset((0x110C, 0x110D, 0x1112, 0x1113, 0x111C, 0x111D))  # with an address
ANNOTATED = {0x114D: 16, 0x115D: 20}  # inlined functions: where their annotations begin

# where symbols have the numbers of types
_OF_SYMBOL: dict[int, tuple[int, ...]] = {
    **dict.fromkeys(FUNCTIONS, (28,)),
    **dict.fromkeys(VARIABLES, (4,)),
    0x1106: (4,),  # S_REGISTER
    0x1107: (4,),  # S_CONSTANT
    0x1108: (4,),  # S_UDT
    0x1109: (4,),  # S_COBOLUDT
    0x110B: (8,),  # S_BPREL32
    0x1111: (8,),  # S_REGREL32
    0x1139: (12,),  # S_CALLSITEINFO
    0x113E: (4,),  # S_LOCAL
    0x114C: (4,),  # S_BUILDINFO
    0x114D: (12,),
    0x1153: (4,),  # S_FILESTATIC
    0x115D: (12,),
    0x115E: (12,),  # S_HEAPALLOCSITE
    0x1169: (4,),  # S_HOTPATCHFUNC
}
_PLAIN = CLOSING | {
    *(0x1102, 0x1103, 0x1105, 0x1132),  # S_THUNK32, S_BLOCK32, S_LABEL32, S_SEPCODE
    *(0x1101, 0x1116, 0x113C, 0x1012),  # S_OBJNAME, S_COMPILE2, S_COMPILE3, S_FRAMEPROC
    *(0x1019, 0x1124, 0x113D),  # S_ANNOTATION, S_UNAMESPACE, S_ENVBLOCK
    *(0x113A, 0x1159, 0x115C),  # S_FRAMECOOKIE, S_ARMSWITCHTABLE, S_POGODATA
    *range(0x113F, 0x1146),  # S_DEFRANGE and its kinds: where variables are
}
_COUNTED = frozenset((0x115A, 0x115B, 0x1168))  # S_CALLEES, S_CALLERS, S_INLINEES
# where symbols have a place in the table of strings
_NAMED = {0x1153: 8, 0x113F: 4, 0x1140: 4}

# where types have the numbers of types, from the start of the record
_OF_TYPE: dict[int, tuple[int, ...]] = {
    0x000A: (),  # LF_VTSHAPE
    0x000E: (),  # LF_LABEL
    0x1001: (4,),  # LF_MODIFIER
    0x1008: (4, 12),  # LF_PROCEDURE
    0x1009: (4, 8, 12, 20),  # LF_MFUNCTION
    0x1205: (4,),  # LF_BITFIELD
    0x1503: (4, 8),  # LF_ARRAY
    0x1504: (8, 12, 16),  # LF_CLASS
    0x1505: (8, 12, 16),  # LF_STRUCTURE
    0x1506: (8,),  # LF_UNION
    0x1507: (8, 12),  # LF_ENUM
    0x1519: (8, 12, 16),  # LF_INTERFACE
    0x151D: (4, 8),  # LF_VFTABLE
    0x1601: (4, 8),  # LF_FUNC_ID
    0x1602: (4, 8),  # LF_MFUNC_ID
    0x1605: (4,),  # LF_STRING_ID
    0x1606: (4, 8),  # LF_UDT_SRC_LINE
}
_POINTER, _FIELDLIST, _METHODLIST = 0x1002, 0x1203, 0x1206
_LISTS = {0x1201: "<I", 0x1604: "<I", 0x1603: "<H"}  # LF_ARGLIST, LF_SUBSTR_LIST, LF_BUILDINFO
# parts of an LF_FIELDLIST: where the numbers of types are, and what is behind the fixed part
_OF_MEMBER: dict[int, tuple[tuple[int, ...], int, str]] = {
    0x1400: ((4,), 8, "number"),  # LF_BCLASS
    0x151A: ((4,), 8, "number"),  # LF_BINTERFACE
    0x1401: ((4, 8), 12, "number number"),  # LF_VBCLASS
    0x1402: ((4, 8), 12, "number number"),  # LF_IVBCLASS
    0x1404: ((4,), 8, ""),  # LF_INDEX
    0x1409: ((4,), 8, ""),  # LF_VFUNCTAB
    0x1502: ((), 4, "number name"),  # LF_ENUMERATE
    0x150D: ((4,), 8, "number name"),  # LF_MEMBER
    0x150E: ((4,), 8, "name"),  # LF_STMEMBER
    0x150F: ((4,), 8, "name"),  # LF_METHOD
    0x1510: ((4,), 8, "name"),  # LF_NESTTYPE
    0x1511: ((4,), 8, "slot name"),  # LF_ONEMETHOD
    0x1512: ((4,), 8, "name"),  # LF_NESTTYPEEX
}
# bytes of a number behind its kind, from LF_CHAR (0x8000) on
_NUMBERS = {
    0x8000: 1,
    0x8001: 2,
    0x8002: 2,
    0x8003: 4,
    0x8004: 4,
    0x8005: 4,
    0x8006: 8,
    0x8007: 10,
    0x8008: 16,
    0x8009: 8,
    0x800A: 8,
    0x8017: 16,
    0x8018: 16,
}


class UnreadableError(Exception):
    """A record is damaged, or of a kind that is not known; the text says which."""


@dataclass
class Numbers:
    """Numbers of types, files and strings, shared by all files that are compared."""

    types: dict[bytes, int] = field(default_factory=dict)
    files: dict[tuple[bytes, bytes], int] = field(default_factory=dict)  # (name, checksum)
    strings: dict[bytes, int] = field(default_factory=dict)


def word(data: bytes, position: int) -> int:
    """A word of a record. Raises `UnreadableError` beyond the end."""
    if not 0 <= position <= len(data) - 4:
        raise UnreadableError("a word beyond the end")
    return int.from_bytes(data[position : position + 4], "little")


def records(data: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """(kind, start, end) of records that follow one another. Raises `UnreadableError`."""
    while start < stop:
        size = int.from_bytes(data[start : start + 2], "little")
        end = start + 2 + size
        if size < 2 or end > stop:
            raise UnreadableError("a record is cut short")
        yield int.from_bytes(data[start + 2 : start + 4], "little"), start, end
        start = end


def parts(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(kind, start, end) of the subsections of a `.debug$S`. Raises `UnreadableError`."""
    if data and data[:4] != _VERSION:
        raise UnreadableError("a .debug$S of another version")
    position = 4
    while position + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, position)
        end = position + 8 + size
        if end > len(data):
            raise UnreadableError("a subsection is cut short")
        yield kind, position + 8, end
        position = end + -size % 4


# types


def types(data: bytes, numbers: Numbers) -> list[int]:
    """The number of each type of a `.debug$T`. Raises `UnreadableError`."""
    if data[:4] != _VERSION:
        raise UnreadableError("a .debug$T of another version")
    known: list[int] = []
    for _, start, end in records(data, 4, len(data)):
        record = data[start:end]
        offsets = _type_offsets(record)
        if offsets:
            record = _renumbered(record, offsets, known)
        known.append(numbers.types.setdefault(record, len(numbers.types)))
    return known


def _renumbered(record: bytes, offsets: list[int] | tuple[int, ...], known: list[int]) -> bytes:
    """With the numbers that types have everywhere. Raises `UnreadableError`."""
    changed = bytearray(record)
    for position in offsets:
        old = word(record, position)
        if old >= FIRST:
            if old - FIRST >= len(known):
                raise UnreadableError("a type that is not there")
            changed[position : position + 4] = (FIRST + known[old - FIRST]).to_bytes(4, "little")
    return bytes(changed)


def _type_offsets(record: bytes) -> list[int] | tuple[int, ...]:
    """Where a type has the numbers of others. Raises `UnreadableError`."""
    kind = int.from_bytes(record[2:4], "little")
    plain = _OF_TYPE.get(kind)
    if plain is not None:
        return plain
    if kind in _LISTS:
        size = struct.calcsize(_LISTS[kind])
        count = int.from_bytes(record[4 : 4 + size], "little")
        return _counted(4 + size, count, len(record))
    if kind == _POINTER:  # CV_ptrmode_e: those to members name a class, too
        return (4, 12) if word(record, 8) >> 5 & 7 in (2, 3) else (4,)
    if kind == _FIELDLIST:
        return _member_offsets(record)
    if kind == _METHODLIST:
        offsets, position = [], 4
        while position < len(record):
            offsets.append(position + 4)
            position += 12 if _has_slot(record, position) else 8
        return offsets
    raise UnreadableError(f"a type of the kind {kind:#x}")


def _counted(start: int, count: int, stop: int) -> list[int]:
    if start + 4 * count > stop:
        raise UnreadableError("a list is cut short")
    return list(range(start, start + 4 * count, 4))


def _has_slot(record: bytes, position: int) -> bool:
    """Whether a method is new in the table of virtual ones (CV_methodprop_e)."""
    return record[position] >> 2 & 7 in (4, 6) if position < len(record) else False


def _member_offsets(record: bytes) -> list[int]:
    offsets: list[int] = []
    position = 4
    while position < len(record):
        if record[position] >= 0xF0:  # LF_PAD1 and so on: so far to the next one
            position += max(record[position] & 15, 1)
            continue
        kind = int.from_bytes(record[position : position + 2], "little")
        if kind not in _OF_MEMBER:
            raise UnreadableError(f"a member of the kind {kind:#x}")
        of_types, size, behind = _OF_MEMBER[kind]
        offsets += [position + n for n in of_types]
        attributes = position + 2
        position += size
        for part in behind.split():
            if part == "slot":
                position += 4 if _has_slot(record, attributes) else 0
            elif part == "name":
                end = record.find(b"\0", position)
                if end < 0:
                    raise UnreadableError("a member's name has no end")
                position = end + 1
            else:
                position += _size_of_number(record, position)
    if position > len(record):
        raise UnreadableError("a member is cut short")
    return offsets


def _size_of_number(record: bytes, position: int) -> int:
    kind = int.from_bytes(record[position : position + 2], "little")
    if kind < 0x8000:
        return 2
    if kind not in _NUMBERS:
        raise UnreadableError(f"a number of the kind {kind:#x}")
    return 2 + _NUMBERS[kind]


# symbols and lines


@dataclass
class Tables:
    """What the records of one file refer to.

    `files`: by the offset of a checksum, the number. `strings`: the table of strings.
    """

    numbers: Numbers
    types: list[int]
    files: dict[int, int] = field(default_factory=dict)
    strings: bytes = b""

    def add_files(self, data: bytes) -> None:
        """The files of a table of checksums. Raises `UnreadableError`."""
        position = 0
        while position + 6 <= len(data):
            offset, end = word(data, position), position + 6 + data[position + 4]
            stop = self.strings.find(b"\0", offset)
            if offset >= len(self.strings) or stop < 0 or end > len(data):
                raise UnreadableError("a file has no name")
            one = self.strings[offset:stop], data[position + 4 : end]
            self.files[position] = self.numbers.files.setdefault(one, len(self.numbers.files))
            position = end + -end % 4

    def file(self, offset: int) -> bytes:
        """The number of a file, by its checksum's offset. Raises `UnreadableError`."""
        if offset not in self.files:
            raise UnreadableError("a file that is not there")
        return self.files[offset].to_bytes(4, "little")

    def string(self, offset: int) -> bytes:
        """The number of a string, by its offset; beyond the table it is empty."""
        end = self.strings.find(b"\0", offset)
        text = self.strings[offset:end] if offset < len(self.strings) else b""
        strings = self.numbers.strings
        return strings.setdefault(text, len(strings)).to_bytes(4, "little")

    def symbol(self, kind: int, record: bytes) -> bytes:
        """A symbol record with numbers for what it refers to. Raises `UnreadableError`."""
        if kind in _OF_SYMBOL:
            record = _renumbered(record, _OF_SYMBOL[kind], self.types)
        elif kind in _COUNTED:
            offsets = _counted(8, word(record, 4), len(record))
            record = _renumbered(record, offsets, self.types)
        elif kind not in _PLAIN:
            raise UnreadableError(f"a symbol of the kind {kind:#x}")
        if kind in _NAMED:
            offset = _NAMED[kind]
            record = record[:offset] + self.string(word(record, offset)) + record[offset + 4 :]
        if kind in ANNOTATED:
            first = ANNOTATED[kind]
            # its length follows from the annotations, which are longer for other files
            record = record[2:first] + _annotations(record[first:], self)
        return record

    def lines(self, data: bytes) -> bytes:
        """The lines of a function with numbers of files. Raises `UnreadableError`."""
        blocks = [data[:12]]
        position = 12
        while position < len(data):
            size = word(data, position + 8)
            if size < 12 or position + size > len(data):
                raise UnreadableError("lines are cut short")
            blocks.append(self.file(word(data, position)) + data[position + 4 : position + size])
            position += size
        return b"".join(blocks)

    def frames(self, data: bytes) -> bytes:
        """The frames of a function (FRAMEDATA) with numbers of strings."""
        changed = bytearray(data)
        for offset in range(24, len(data) - 11, 32):
            changed[offset : offset + 4] = self.string(word(data, offset))
        return bytes(changed)

    def inlinees(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """(the type's number in its file, what is told) of functions that may be inlined.

        Those that name what is not there are left out.
        """
        long = data[:4] == b"\1\0\0\0"
        position = 4
        while position + 12 <= len(data):
            old, count = word(data, position), 0
            line = data[position + 8 : position + 12]
            files = [word(data, position + 4)]
            if long and position + 16 <= len(data):
                count = word(data, position + 12)
                if position + 16 + 4 * count > len(data):
                    return
                files += [word(data, position + 16 + 4 * n) for n in range(count)]
            position += 16 + 4 * count if long else 12
            if 0 <= old - FIRST < len(self.types) and all(f in self.files for f in files):
                type_number = self.types[old - FIRST].to_bytes(4, "little")
                yield old, b"".join((type_number, bytes([long]), line, *map(self.file, files)))


def _annotations(data: bytes, tables: Tables) -> bytes:
    """What says which lines an inlined function has, with numbers of files.

    Raises `UnreadableError`.
    """
    out: list[int] = []
    position = 0
    while position < len(data) and data[position]:
        operation, position = _compressed(data, position)
        out.append(operation)
        for _ in range(2 if operation == 12 else 1):  # ChangeCodeLengthAndCodeOffset
            value, position = _compressed(data, position)
            if operation == 5:  # ChangeFile
                value = int.from_bytes(tables.file(value), "little")
            out.append(value)
    return struct.pack(f"<{len(out)}I", *out)


def _compressed(data: bytes, position: int) -> tuple[int, int]:
    """(a number, where it ends), as CVUncompressData reads it."""
    first = data[position] if position < len(data) else 0xFF
    size, bits = (1, 7) if first < 0x80 else (2, 14) if first < 0xC0 else (4, 29)
    if first >= 0xE0 or position + size > len(data):
        raise UnreadableError("annotations are damaged")
    value = int.from_bytes(data[position : position + size], "big")
    return value & (1 << bits) - 1, position + size


def tables_of(sections: Mapping[int, bytes], numbers: Numbers, known: list[int]) -> Tables:
    """What the records of all `.debug$S` of a file refer to. Raises `UnreadableError`."""
    strings: list[bytes] = []
    files: list[bytes] = []
    for data in sections.values():
        for kind, start, end in parts(data):
            if kind in (STRINGS, FILES):
                (strings if kind == STRINGS else files).append(data[start:end])
    if len(strings) > 1 or len(files) > 1:
        raise UnreadableError("two tables of files")
    tables = Tables(numbers, known, strings=b"".join(strings))
    tables.add_files(b"".join(files))
    return tables


__all__ = [
    "ANNOTATED",
    "CLOSING",
    "FILES",
    "FRAMES",
    "IGNORED",
    "INLINEES",
    "KINDS",
    "LINES",
    "NAME",
    "OPENING",
    "STRINGS",
    "SYMBOLS",
    "VARIABLES",
    "Numbers",
    "Tables",
    "UnreadableError",
    "parts",
    "records",
    "tables_of",
    "types",
    "word",
]
