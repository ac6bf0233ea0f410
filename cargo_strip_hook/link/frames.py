"""Reads `.eh_frame` of any format: where its records are, and which CIE each FDE has.

Source: Linux Standard Base 5.0, section 10.6.1 (the .eh_frame section): a record is its length,
its CIE pointer (0 in a CIE, in an FDE the distance back to its CIE) and what is said of code.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.link.arrays import gather
from cargo_strip_hook.link.model import Array, Int64
from cargo_strip_hook.link.reading import uleb

PC_BEGIN = 8  # where an FDE names its function: after the length and the CIE pointer
_SECTION_SHIFT = 40  # bits of an offset of a location
_WIDE = 0xFFFFFFFF  # a length that says that the 64-bit form follows
_MOST_BITS = 63  # of a number in ULEB128 form
_OMITTED = 0xFF  # an encoding: there is no such pointer


@dataclass(frozen=True, slots=True)
class FrameRules:
    """What a format's `.eh_frame` has to keep to.

    `name` is the section's. The length of a record is at least `shortest` bytes and a multiple of
    `unit`. A length of 0 is the end where `ends` is set, else padding.
    """

    name: str = ".eh_frame"
    order: str = "<"  # of its bytes
    unit: int = 1
    shortest: int = 8
    ends: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class FrameRecords:
    """The records of several sections, in order.

    All columns are int64, one for each record: the number of its `section`, where it begins there
    (`start`, bytes), its `size` with the length field, and its CIE `pointer`, 0 for a CIE.
    """

    section: Int64
    start: Int64
    size: Int64
    pointer: Int64

    def holding(self, section: Int64, offset: Int64) -> Int64:
        """The record that each location, a section and an offset there, is in; -1 for none."""
        if not len(self.start):
            return np.full(len(offset), -1, np.int64)
        keys = (self.section << _SECTION_SHIFT) + self.start
        wanted = (section << _SECTION_SHIFT) + offset
        record = np.searchsorted(keys, wanted, side="right") - 1
        inside = (record >= 0) & (self.section[record] == section)
        inside &= offset < self.start[record] + self.size[record]
        return np.where(inside, record, -1)

    def fdes(self) -> tuple[Int64, Int64]:
        """(the FDEs, the CIE of each), as indices of records; -1 where no CIE is said."""
        fde = np.flatnonzero(self.pointer)
        start = self.start[fde] + 4 - self.pointer[fde]
        cie = self.holding(self.section[fde], start)
        matches = (cie >= 0) & (self.start[cie] == start) & (self.pointer[cie] == 0)
        return fde, np.where(matches, cie, -1)


def read_records(
    octets: Array,
    sections: Int64,
    begin: Int64,
    size: Int64,
    rules: FrameRules,
    fail: Callable[[int, str, int], ObjectError],
) -> FrameRecords:
    """Find the records of `sections`, which are ascending numbers.

    `begin` and `size`, indexed by section, say where in `octets` (uint8) the contents are. Raises
    what `fail(section, what, offset in it)` makes of a record that is damaged or in the 64-bit
    form.
    """
    starts: list[int] = []
    counts: list[int] = []
    for number in sections.tolist():
        first = int(begin[number])
        contents = octets[first : first + int(size[number])].data
        begins = _walk(contents, rules, number, fail)
        starts += begins
        counts.append(len(begins))
    section = np.repeat(sections, counts)
    start = np.array(starts, np.int64)
    heads = gather(octets, begin[section] + start, np.dtype("V8")).view(f"{rules.order}u4")
    length, pointer = heads.reshape(-1, 2).astype(np.int64).T
    return FrameRecords(section, start, 4 + length, pointer)


def _walk(
    contents: memoryview,
    rules: FrameRules,
    section: int,
    fail: Callable[[int, str, int], ObjectError],
) -> list[int]:
    """Where in a section each record begins."""
    starts: list[int] = []
    begin, end, shortest, unit = 0, len(contents), rules.shortest, rules.unit
    length_at = struct.Struct(f"{rules.order}I").unpack_from
    while begin + 4 <= end:
        (length,) = length_at(contents, begin)
        following = begin + 4 + length
        if length == 0:  # whoever writes the table that a program has adds an end of its own
            if rules.ends and any(contents[begin:]):
                raise fail(section, f"{rules.name} has records behind its end", begin)
        elif length == _WIDE:
            raise fail(section, f"{rules.name} records in the 64-bit form are not supported", begin)
        elif length < shortest or length % unit or following > end:
            raise fail(section, f"{rules.name} is damaged: a record does not fit", begin)
        else:
            starts.append(begin)
        begin = following
    return starts


def read_cie(
    record: memoryview, name: str, sizes: Mapping[int, int], fail: Callable[[str], ObjectError]
) -> tuple[int, int]:
    """The sizes in bytes of pointers in the FDEs of a CIE: a function's, and an LSDA's or 0.

    `sizes` are those of the encodings (DW_EH_PE_*) that may be; `name` is the section's. Raises
    what `fail` makes of a CIE that says something else.
    """
    try:
        augmentation = bytes(record[9:]).split(b"\0", 1)[0]
        position = 10 + len(augmentation)
        for _ in ("code alignment", "data alignment"):
            _, position = uleb(record, position, _MOST_BITS)
        # the register that holds the return address: a byte in version 1
        position = position + 1 if record[8] == 1 else uleb(record, position, _MOST_BITS)[1]
        if not augmentation.startswith(b"z"):
            raise fail(f"a CIE of {name} has no augmentation data")
        _, position = uleb(record, position, _MOST_BITS)
        address, lsda = 0, 0
        for letter in augmentation[1:].decode("latin-1"):
            if letter == "P":
                position += 5  # the encoding, and a personality routine at a distance of 4 bytes
            elif letter == "L":
                lsda = 0 if record[position] == _OMITTED else sizes.get(record[position], 0)
                if record[position] != _OMITTED and not lsda:
                    raise fail(f"a CIE of {name} has an unknown LSDA encoding")
                position += 1
            elif letter == "R":
                address = sizes.get(record[position], 0)
                position += 1
            elif letter not in "SB":
                raise fail(f"a CIE of {name} has an unknown augmentation")
        if not address:
            raise fail(f"a CIE of {name} has an unknown address encoding")
    except IndexError as e:
        raise fail(f"a CIE of {name} is cut short") from e
    return address, lsda


def augmentation_data(
    octets: Array, begin: Int64, size: Int64, offset: Int64
) -> tuple[Int64, Int64]:
    """(where in each FDE its augmentation data begins, how many bytes they are or -1).

    The FDEs are `size` bytes from `begin` on in `octets` (uint8), and the length of the data is at
    `offset` of each. It is -1 where the FDE ends before that, or no register holds it.
    """
    inside = offset < size
    length = np.where(inside, octets[begin + np.where(inside, offset, 0)], -1).astype(np.int64)
    start = offset + 1
    for n in np.flatnonzero(length >= 0x80).tolist():  # a number of several bytes
        record = octets[int(begin[n]) : int(begin[n] + size[n])].data
        try:
            value, start[n] = uleb(record, int(offset[n]), _MOST_BITS)
        except IndexError:
            value = -1
        length[n] = value if value < 1 << _MOST_BITS else -1
    return start, length


__all__ = [
    "PC_BEGIN",
    "FrameRecords",
    "FrameRules",
    "augmentation_data",
    "read_cie",
    "read_records",
]
