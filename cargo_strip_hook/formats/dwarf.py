"""Reads DWARF: lengths, and the offsets into other sections that units and tables hold.

Sections are named without what a format puts in front: `info` is `.debug_info` or `__debug_info`.
Objects of Mach-O have no relocations for offsets into sections: each section starts at 0, and
whoever joins two has to know where they are. Sources: DWARF 5, sections 7.4 to 7.5 and 6.2.4;
DWARF 4 for its forms; DWARF 3, section 7.5.4, and DWARF 2, section 7.5, which have no form for
offsets into sections.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from cargo_strip_hook.link.model import Int64
from cargo_strip_hook.link.reading import uleb

INFO, ABBREV, LINE = b"info", b"abbrev", b"line"
STR, LINE_STR, STR_OFFSETS = b"str", b"line_str", b"str_offsets"
RANGES, RNGLISTS, LOC, LOCLISTS = (
    b"ranges",
    b"rnglists",
    b"loc",
    b"loclists",
)
ADDR, ARANGES = b"addr", b"aranges"
KEPT = (
    INFO, ABBREV, LINE, STR, LINE_STR, STR_OFFSETS, RANGES, RNGLISTS, LOC, LOCLISTS, ADDR, ARANGES,
)  # fmt: skip


class UnknownDwarf(Exception):
    """What is not understood."""


# forms of a fixed size; bytes
_FIXED = {
    0x01: 8, 0x05: 2, 0x06: 4, 0x07: 8, 0x0B: 1, 0x0C: 1, 0x11: 1, 0x12: 2, 0x13: 4, 0x14: 8,
    0x19: 0, 0x1C: 4, 0x1D: 4, 0x1E: 16, 0x20: 8, 0x21: 0, 0x24: 8, 0x25: 1, 0x26: 2, 0x27: 3,
    0x28: 4, 0x29: 1, 0x2A: 2, 0x2B: 3, 0x2C: 4,
}  # fmt: skip
_ULEB = frozenset({0x0D, 0x0F, 0x15, 0x1A, 0x1B, 0x22, 0x23})
_BLOCKS = {0x0A: 1, 0x03: 2, 0x04: 4}
_UNSIZED = frozenset({0x09, 0x18})  # a length in LEB128, then as many bytes
_STRING = 0x08
_OFFSETS = {0x0E: STR, 0x1F: LINE_STR, 0x10: INFO}
_SEC_OFFSET, _IMPLICIT, _REF_ADDR, _DATA4 = 0x17, 0x21, 0x10, 0x06

# what an attribute's section offset is into: up to DWARF 4, then DWARF 5
_ATTRIBUTES = {
    0x10: (LINE, LINE),  # stmt_list
    0x55: (RANGES, RNGLISTS),  # ranges
    0x72: (STR_OFFSETS, STR_OFFSETS),  # str_offsets_base
    0x73: (ADDR, ADDR),  # addr_base
    0x74: (RNGLISTS, RNGLISTS),  # rnglists_base
    0x8C: (LOCLISTS, LOCLISTS),  # loclists_base
}
_MACROS = frozenset({0x43, 0x79})  # macro_info, macros
# location, string_length, return_addr, data_member_location, frame_base, segment, static_link,
# use_location, vtable_elem_location
_LOCATIONS = frozenset({0x02, 0x19, 0x2A, 0x38, 0x40, 0x46, 0x48, 0x4A, 0x4D})

_SKIP, _PATCH, _LEB, _BLOCK, _LONG, _TEXT = range(6)

_Offsets = dict[tuple[bytes, bytes], list[int]]  # of fields, by (holder, target)


@dataclass(frozen=True, slots=True)
class Patch:
    """The 4-byte fields of section `holder` that are offsets into section `target`."""

    holder: bytes
    target: bytes
    offsets: Int64


def find(sections: Mapping[bytes, memoryview]) -> list[Patch]:
    """All offsets between the sections of one file, which may lack a target of some.

    Raises `UnknownDwarf`.
    """
    offsets: _Offsets = {}
    runs: list[_Step] = []
    try:
        runs = _info(sections, offsets)
        _aranges(bytes(sections.get(ARANGES, b"")), offsets)
        _lines(bytes(sections.get(LINE, b"")), offsets)
        _string_offsets(bytes(sections.get(STR_OFFSETS, b"")), offsets)
    except (IndexError, struct.error, ValueError) as e:
        raise UnknownDwarf(f"it is damaged: {e}") from e
    columns = {key: [np.array(some, np.int64)] for key, some in offsets.items() if some}
    for run in runs:
        starts = np.array(run.positions, np.int64)
        for distance, target in run.fields:
            columns.setdefault((INFO, target), []).append(starts + distance)
    return [Patch(holder, to, np.concatenate(c)) for (holder, to), c in columns.items()]


def initial_length(data: bytes | memoryview, start: int, order: str = "<") -> tuple[int, int]:
    """(where the contents begin, where they end) of what has its length in front, in both forms.

    Raises `struct.error` where the data ends within the length. Source: DWARF 5, section 7.4.
    """
    (length,) = struct.unpack_from(f"{order}I", data, start)
    if length != 0xFFFFFFFF:
        return start + 4, start + 4 + length
    (length,) = struct.unpack_from(f"{order}Q", data, start + 4)
    return start + 12, start + 12 + length


def _units(data: bytes) -> Iterator[tuple[int, int]]:
    """(begin, end) of the contents of all that stands behind its length; the 32-bit form alone.

    Raises `UnknownDwarf`.
    """
    position = 0
    while position < len(data):
        begin, end = initial_length(data, position)
        if begin != position + 4:
            raise UnknownDwarf("it is in the 64-bit form")
        if end > len(data):
            raise UnknownDwarf("a unit is cut short")
        yield begin, end
        position = end


_Op = tuple[int, int, bytes]


@dataclass(slots=True)
class _Step:
    """What to do with one or more attributes: those of fixed size that follow each other are one.

    `fields` are (bytes from the first, target section) of offsets in a run, and `positions` where
    the runs were found.
    """

    kind: int
    size: int
    fields: list[tuple[int, bytes]] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)


_Table = dict[int, tuple[_Step, ...]]
# the same, quick to follow: (kind, size, what notes the place of a run with offsets)
_Plans = dict[int, tuple[tuple[int, int, Callable[[int], None] | None], ...]]


def _abbreviations(data: bytes, position: int, version: int) -> _Table:
    """Code -> what to do for its attributes."""
    table: _Table = {}
    while True:
        code, position = uleb(data, position)
        if not code:
            return table
        _, position = uleb(data, position)
        position += 1
        steps: list[_Step] = []
        while True:
            attribute, form = data[position], data[position + 1]
            position += 2
            if attribute >= 0x80 or form >= 0x80:
                attribute, position = uleb(data, position - 2)
                form, position = uleb(data, position)
            if form == _IMPLICIT:
                _, position = uleb(data, position)
            if not attribute and not form:
                break
            kind, size, target = _operation(attribute, form, version)
            fixed = kind in (_SKIP, _PATCH)
            if not fixed or not steps or steps[-1].kind != _SKIP:
                steps.append(_Step(_SKIP if fixed else kind, 0 if fixed else size))
            if kind == _PATCH:
                steps[-1].fields.append((steps[-1].size, target))
            if fixed:
                steps[-1].size += size
        table[code] = tuple(steps)


@cache
def _operation(attribute: int, form: int, version: int) -> _Op:
    if form == _REF_ADDR and version == 2:
        return _PATCH, 8, INFO  # as wide as an address; the upper half stays 0
    if form in _OFFSETS:
        return _PATCH, 4, _OFFSETS[form]
    five = version == 5
    if form == _SEC_OFFSET or (form == _DATA4 and version < 4):
        if attribute in _ATTRIBUTES:
            return _PATCH, 4, _ATTRIBUTES[attribute][five]
        if attribute in _LOCATIONS:
            return _PATCH, 4, LOCLISTS if five else LOC
        if form == _SEC_OFFSET or attribute in _MACROS:
            raise UnknownDwarf(f"attribute {attribute:#x} is an offset into an unknown section")
    if form in _FIXED:
        return _SKIP, _FIXED[form], b""
    if form in _ULEB:
        return _LEB, 0, b""
    if form in _BLOCKS:
        return _BLOCK, _BLOCKS[form], b""
    if form in _UNSIZED:
        return _LONG, 0, b""
    if form == _STRING:
        return _TEXT, 0, b""
    raise UnknownDwarf(f"form {form:#x} is not known")


def _info(sections: Mapping[bytes, memoryview], offsets: _Offsets) -> list[_Step]:
    """The runs with offsets, and where they are; offsets of headers go to `offsets`."""
    data, abbreviations = bytes(sections.get(INFO, b"")), bytes(sections.get(ABBREV, b""))
    known: dict[tuple[int, int], _Plans] = {}
    runs: list[_Step] = []
    for begin, end in _units(data):
        (version,) = struct.unpack_from("<H", data, begin)
        if not 2 <= version <= 5:
            raise UnknownDwarf(f"version {version} is not known")
        position = begin + (4 if version == 5 else 2)
        offsets.setdefault((INFO, ABBREV), []).append(position)
        (table_at,) = struct.unpack_from("<I", data, position)
        first = begin + 7
        if version == 5:
            first = begin + 8
            if data[begin + 2] not in (1, 3):  # DW_UT_compile, DW_UT_partial
                raise UnknownDwarf(f"units of type {data[begin + 2]} are not known")
        if data[begin + (3 if version == 5 else 6)] != 8:
            raise UnknownDwarf("addresses are not of 8 bytes")
        key = (table_at, version)
        if key not in known:
            table = _abbreviations(abbreviations, *key)
            runs += [step for steps in table.values() for step in steps if step.fields]
            known[key] = {
                code: tuple(
                    (s.kind, s.size, s.positions.append if s.fields else None) for s in steps
                )
                for code, steps in table.items()
            }
        try:
            _entries(data, first, end, known[key])
        except KeyError as e:
            raise UnknownDwarf(f"abbreviation {e} is missing") from None
    return [run for run in runs if run.positions]


def _entries(data: bytes, position: int, end: int, plans: _Plans) -> None:
    """Walk over the entries of a unit. Raises `KeyError` for an unknown abbreviation."""
    while position < end:
        code = data[position]
        position += 1
        if not code:
            continue
        if code >= 0x80:
            code, position = uleb(data, position - 1)
        for kind, size, note in plans[code]:
            if kind == _SKIP:
                if note is not None:
                    note(position)
                position += size
            elif kind == _LONG:
                length = data[position]
                position += 1
                if length >= 0x80:
                    length, position = uleb(data, position - 1)
                position += length
            elif kind == _LEB:
                while data[position] >= 0x80:
                    position += 1
                position += 1
            elif kind == _BLOCK:
                position += size + int.from_bytes(data[position : position + size], "little")
            else:
                position = data.index(0, position) + 1
    if position != end:
        raise UnknownDwarf("an entry reaches over the end of its unit")


def _aranges(data: bytes, offsets: _Offsets) -> None:
    for begin, _ in _units(data):
        offsets.setdefault((ARANGES, INFO), []).append(begin + 2)


def _string_offsets(data: bytes, offsets: _Offsets) -> None:
    for begin, end in _units(data):
        offsets.setdefault((STR_OFFSETS, STR), []).extend(range(begin + 4, end, 4))


def _lines(data: bytes, offsets: _Offsets) -> None:
    """Only version 5 has names of directories and files in other sections."""
    for begin, _ in _units(data):
        (version,) = struct.unpack_from("<H", data, begin)
        if version == 5:
            header = begin + 8
            position = header + 6 + data[header + 5] - 1
            for _ in range(2):
                position = _names(data, position, offsets)
        elif not 2 <= version <= 4:
            raise UnknownDwarf(f"line tables of version {version} are not known")


def _names(data: bytes, position: int, offsets: _Offsets) -> int:
    count, position = data[position], position + 1
    ops = []
    for _ in range(count):
        _, position = uleb(data, position)
        form, position = uleb(data, position)
        ops.append(_operation(0, form, 5))
    number, position = uleb(data, position)
    if number > len(data):
        raise UnknownDwarf("a line table is cut short")
    for _ in range(number):
        for kind, size, target in ops:
            if kind == _SKIP:
                position += size
            elif kind == _PATCH:
                offsets.setdefault((LINE, target), []).append(position)
                position += size
            elif kind == _LEB:
                _, position = uleb(data, position)
            elif kind == _TEXT:
                position = data.index(0, position) + 1
            else:
                raise UnknownDwarf("a line table has a form that is not known")
    return position
