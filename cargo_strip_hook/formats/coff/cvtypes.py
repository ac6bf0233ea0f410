"""CodeView type records: where they refer to others, and the records of many files as one list.

Sources: Microsoft, "microsoft-pdb" (`cvinfo.h`, the `lf*` structures); LLVM's
`TypeIndexDiscovery.cpp`. Indices below 0x1000 are simple types and the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cargo_strip_hook.link.model import Int64

FIRST = 0x1000
SIGNATURE = b"\x04\0\0\0"  # CV_SIGNATURE_C13, at the start of `.debug$T` and `.debug$S`

# leaf -> offsets of its indices, counted from behind the leaf
_FIXED: dict[int, tuple[int, ...]] = {
    0x000A: (),  # LF_VTSHAPE
    0x000E: (),  # LF_LABEL
    0x1001: (0,),  # LF_MODIFIER
    0x1008: (0, 8),  # LF_PROCEDURE
    0x1009: (0, 4, 8, 16),  # LF_MFUNCTION
    0x1205: (0,),  # LF_BITFIELD
    0x1503: (0, 4),  # LF_ARRAY
    0x1504: (4, 8, 12),  # LF_CLASS
    0x1505: (4, 8, 12),  # LF_STRUCTURE
    0x1506: (4,),  # LF_UNION
    0x1507: (4, 8),  # LF_ENUM
    0x1519: (4, 8, 12),  # LF_INTERFACE
    0x151D: (0, 4),  # LF_VFTABLE
    0x1601: (0, 4),  # LF_FUNC_ID
    0x1602: (0, 4),  # LF_MFUNC_ID
    0x1605: (0,),  # LF_STRING_ID
    0x1606: (0, 4),  # LF_UDT_SRC_LINE
}
_POINTER, _ARGLIST, _SUBSTRINGS, _BUILDINFO = 0x1002, 0x1201, 0x1604, 0x1603
_FIELDLIST, _METHODLIST = 0x1203, 0x1206
# members of a field list: their indices, the bytes before what follows, and that: n for a number,
# z for a name, v for the offset of a virtual method that is introduced here
_MEMBERS: dict[int, tuple[tuple[int, ...], int, str]] = {
    0x1400: ((2,), 6, "n"),  # LF_BCLASS
    0x151A: ((2,), 6, "n"),  # LF_BINTERFACE
    0x1401: ((2, 6), 10, "nn"),  # LF_VBCLASS
    0x1402: ((2, 6), 10, "nn"),  # LF_IVBCLASS
    0x1404: ((2,), 6, ""),  # LF_INDEX
    0x1409: ((2,), 6, ""),  # LF_VFUNCTAB
    0x1502: ((), 2, "nz"),  # LF_ENUMERATE
    0x150D: ((2,), 6, "nz"),  # LF_MEMBER
    0x150E: ((2,), 6, "z"),  # LF_STMEMBER
    0x150F: ((2,), 6, "z"),  # LF_METHOD
    0x1510: ((2,), 6, "z"),  # LF_NESTTYPE
    0x1511: ((2,), 6, "vz"),  # LF_ONEMETHOD
    0x1512: ((2,), 6, "z"),  # LF_NESTTYPEEX
}
# bytes behind the leaf of a number that is 0x8000 or more
_NUMBERS = {
    0x8000: 1, 0x8001: 2, 0x8002: 2, 0x8003: 4, 0x8004: 4, 0x8005: 4, 0x8006: 8, 0x8007: 10,
    0x8008: 16, 0x8009: 8, 0x800A: 8, 0x8017: 16, 0x8018: 16,
}  # fmt: skip


class UnknownError(Exception):
    """A record of a kind that is not known, or damaged; the text says which."""


def records(contents: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(kind, start, end) of the records of a stream; the start is that of the length before it."""
    while position < end:
        size = int.from_bytes(contents[position : position + 2], "little")
        stop = position + 2 + size
        if size < 2 or stop > end:
            raise UnknownError(f"a record of {size} bytes at {position:#x}")
        yield int.from_bytes(contents[position + 2 : position + 4], "little"), position, stop
        position = stop


def u16(contents: bytes | bytearray, offset: int) -> int:
    return int.from_bytes(contents[offset : offset + 2], "little")


def u32(contents: bytes | bytearray, offset: int) -> int:
    return int.from_bytes(contents[offset : offset + 4], "little")


def counted(start: int, count: int, end: int) -> list[int]:
    """The offsets of `count` indices one behind the other. Raises `UnknownError`."""
    if count < 0 or start + 4 * count > end:
        raise UnknownError(f"{count} indices at {start:#x}")
    return [start + 4 * n for n in range(count)]


def indices(record: bytes) -> list[int]:
    """Where a type record, its length included, has indices. Raises `UnknownError`."""
    kind = u16(record, 2)
    fixed = _FIXED.get(kind)
    if fixed is not None:
        offsets = [4 + offset for offset in fixed]
    elif kind == _POINTER:
        of_member = u32(record, 8) >> 5 & 7 in (2, 3)  # CV_ptrmode_e
        offsets = [4, 12] if of_member else [4]
    elif kind in (_ARGLIST, _SUBSTRINGS):
        return counted(8, u32(record, 4), len(record))
    elif kind == _BUILDINFO:
        return counted(6, u16(record, 4), len(record))
    elif kind == _FIELDLIST:
        return _members(record)
    elif kind == _METHODLIST:
        offsets, offset = [], 4
        while offset < len(record):
            offsets.append(offset + 4)
            offset += 12 if _introduces(u16(record, offset)) else 8
    else:
        raise UnknownError(f"type record {kind:#06x}")
    if offsets and offsets[-1] + 4 > len(record):
        raise UnknownError(f"type record {kind:#06x} of {len(record)} bytes")
    return offsets


def _introduces(attributes: int) -> bool:
    return attributes >> 2 & 7 in (4, 6)  # CV_methodprop_e: intro, pureintro


def _members(record: bytes) -> list[int]:
    index_offsets: list[int] = []
    position, end = 4, len(record)
    while position < end:
        if record[position] >= 0xF0:  # LF_PAD: how far it is to the next one
            position += max(record[position] & 15, 1)
            continue
        kind = u16(record, position)
        known = _MEMBERS.get(kind)
        if known is None:
            raise UnknownError(f"member {kind:#06x} of a type")
        offsets, size, behind = known
        first = position + 2
        index_offsets += [first + p for p in offsets]
        position = first + size
        for what in behind:
            if what == "z":
                position = record.find(b"\0", position) + 1
                if position == 0:
                    raise UnknownError("a name of a member without an end")
            elif what == "v":
                position += 4 if _introduces(u16(record, first)) else 0
            else:
                number = u16(record, position)
                more = _NUMBERS.get(number) if number >= 0x8000 else 0
                if more is None:
                    raise UnknownError(f"number {number:#06x} of a member")
                position += 2 + more
    if position > end:
        raise UnknownError("a member reaches beyond its type")
    return index_offsets


class Types:
    """The types of many files, equal ones once."""

    def __init__(self) -> None:
        self.records: dict[bytes, int] = {}

    def add(self, contents: bytes) -> Int64:
        """The new index of each record of a `.debug$T`. Raises `UnknownError`.

        Nothing is added where that is raised.
        """
        if contents[:4] != SIGNATURE:
            raise UnknownError("another signature of the types")
        known: dict[bytes, int] = {}
        base = FIRST + len(self.records)
        number: list[int] = []
        for _, start, stop in records(contents, 4, len(contents)):
            record = contents[start:stop]
            offsets = indices(record)
            if offsets:
                changed = bytearray(record)
                for offset in offsets:
                    index = u32(record, offset)
                    if index >= FIRST:
                        if index - FIRST >= len(number):
                            raise UnknownError("a type that refers to a later one")
                        changed[offset : offset + 4] = number[index - FIRST].to_bytes(4, "little")
                record = bytes(changed)
            old = self.records.get(record)
            number.append(known.setdefault(record, base + len(known)) if old is None else old)
        self.records |= known
        return np.array(number, np.int64)

    def contents(self) -> bytes:
        """All of them as a `.debug$T`."""
        return SIGNATURE + b"".join(self.records)


__all__ = ["FIRST", "SIGNATURE", "Types", "UnknownError", "counted", "records", "u16", "u32"]
