"""Records of `.eh_frame`, whatever file it is in.

Source: Linux Standard Base 5.0 Core, section 10.6 ("Exception Frames").
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_POINTER_SIZES = {0x0: 0, 0x2: 2, 0x3: 4, 0x4: 8, 0xA: 2, 0xB: 4, 0xC: 8}


class BadFrames(Exception):
    """Unwind tables that do not follow the format."""


@dataclass(frozen=True)
class CommonEntry:
    """A CIE: what it says and where its personality pointer is."""

    content: bytes
    personality_at: int  # offset in the record, -1
    pointer: int  # bytes of pc_begin and pc_range
    augmented: bool
    lsda: int  # bytes of the LSDA pointer, 0 for none


def uleb(data: Sequence[int], at: int) -> tuple[int, int]:
    """A ULEB128 number and the position behind it (DWARF 5, section 7.6)."""
    value = shift = 0
    while True:
        octet = data[at]
        value |= (octet & 0x7F) << shift
        shift += 7
        at += 1
        if octet < 0x80:
            return value, at


def walk(table: memoryview, order: str, name: str) -> tuple[list[int], list[int], int]:
    """(offset, size with the length field) of each record, and where the first terminator is.

    That is a length of zero, or the end; linkers read no further. Raises `BadFrames`, which tells
    the section's `name`.
    """
    length_at = struct.Struct(order + "I").unpack_from
    starts, sizes = [], []
    at, end, stop = 0, len(table), len(table)
    while at + 4 <= end:
        (length,) = length_at(table, at)
        if length == 0:
            stop = min(stop, at)
        elif length < 8 or at + 4 + length > end:
            raise BadFrames(f"the record at {name}+{at:#x} does not fit")
        else:
            starts.append(at)
            sizes.append(4 + length)
        at += 4 + length
    return starts, sizes, stop


@lru_cache(maxsize=256)
def common_entry(record: bytes, address: int, *, blank: bool) -> CommonEntry:
    """Take a CIE apart; addresses have `address` bytes. Raises `BadFrames`.

    `blank`: where relocations have no addends of their own, the personality's field is no content.
    """
    try:
        return _parse(record, address, blank)
    except (IndexError, KeyError, ValueError) as e:
        raise BadFrames("a CIE cannot be read") from e


def _parse(record: bytes, address: int, blank: bool) -> CommonEntry:
    text_end = record.index(b"\0", 9)
    augmentation = record[9:text_end]
    _, at = uleb(record, text_end + 1)  # code alignment
    _, at = uleb(record, at)  # data alignment; signed, but of the same length
    at = at + 1 if record[8] == 1 else uleb(record, at)[1]  # return address register
    pointer, lsda, personality = address, 0, -1
    content = bytearray(record)
    if augmentation.startswith(b"z"):
        _, at = uleb(record, at)
        for letter in augmentation[1:].decode("latin-1"):
            if letter == "L":
                lsda = 0 if record[at] == 0xFF else _POINTER_SIZES[record[at] & 15] or address
                at += 1
            elif letter == "R":
                pointer = _POINTER_SIZES[record[at] & 15] or address
                at += 1
            elif letter == "P":
                width = _POINTER_SIZES[record[at] & 15] or address
                personality = at + 1
                if blank:
                    content[personality : personality + width] = bytes(width)
                at = personality + width
            elif letter not in "SB":
                raise ValueError(letter)
    return CommonEntry(bytes(content), personality, pointer, augmentation.startswith(b"z"), lsda)


__all__ = ["BadFrames", "CommonEntry", "common_entry", "uleb", "walk"]
