"""Which fields of DWARF count from the start of another section.

Objects of Mach-O have no relocations for these, so that whoever joins sections has to read DWARF.
Only that is read here: offsets of 32 bits, addresses of 8 bytes, units of programs. Sources:
DWARF 5, sections 6.1.2, 6.2.4 and 7.5.6, tables 7.5 and 7.6; DWARF 2 to 4, section 7.5.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from cargo_strip_hook.verify.arrays import Array

_INFO, _ABBREV, _LINE, _STR = b"__debug_info", b"__debug_abbrev", b"__debug_line", b"__debug_str"
_LINE_STR, _STR_OFFSETS = b"__debug_line_str", b"__debug_str_offs"
_RANGES, _RNGLISTS = b"__debug_ranges", b"__debug_rnglists"
_LOC, _LOCLISTS = b"__debug_loc", b"__debug_loclists"
_ADDR, _ARANGES = b"__debug_addr", b"__debug_aranges"
SECTIONS: tuple[bytes, ...] = (_INFO, _ABBREV, _LINE, _STR, _LINE_STR, _STR_OFFSETS, _RANGES)
_READ = (_INFO, _ABBREV, _LINE, _STR_OFFSETS, _ARANGES)
SECTIONS += (_RNGLISTS, _LOC, _LOCLISTS, _ADDR, _ARANGES)


class Unknown(Exception):
    """What cannot be followed."""


# Of each form: so many bytes; or how its end is found; or the section that it counts from.
_BYTES = {
    **dict.fromkeys((0x0B, 0x0C, 0x11, 0x25, 0x29), 1),  # data1 flag ref1 strx1 addrx1
    **dict.fromkeys((0x05, 0x12, 0x26, 0x2A), 2),  # data2 ref2 strx2 addrx2
    **dict.fromkeys((0x27, 0x2B), 3),  # strx3 addrx3
    **dict.fromkeys((0x06, 0x13, 0x1C, 0x1D, 0x28, 0x2C), 4),  # data4 ref4 … strx4 addrx4
    **dict.fromkeys((0x01, 0x07, 0x14, 0x20, 0x24), 8),  # addr data8 ref8 ref_sig8 ref_sup8
    **dict.fromkeys((0x19, 0x21), 0),  # flag_present implicit_const
    0x1E: 16,  # data16
}
_NUMBERS = frozenset((0x0D, 0x0F, 0x15, 0x1A, 0x1B, 0x22, 0x23))  # LEB128
_COUNTED = {0x0A: 1, 0x03: 2, 0x04: 4, 0x09: 0, 0x18: 0}  # the bytes of a length; 0: LEB128
_TEXT = 0x08
_POINTS = {0x0E: _STR, 0x1F: _LINE_STR, 0x10: _INFO}
_SEC_OFFSET, _DATA4, _REF_ADDR, _IMPLICIT = 0x17, 0x06, 0x10, 0x21
# what an attribute whose value is an offset counts from, before DWARF 5 and since
_LISTS = {
    0x10: (_LINE, _LINE),
    0x55: (_RANGES, _RNGLISTS),
    0x72: (_STR_OFFSETS, _STR_OFFSETS),
    0x73: (_ADDR, _ADDR),
    0x74: (_RNGLISTS, _RNGLISTS),
    0x8C: (_LOCLISTS, _LOCLISTS),
    **dict.fromkeys((0x02, 0x19, 0x2A, 0x38, 0x40, 0x46, 0x48, 0x4A, 0x4D), (_LOC, _LOCLISTS)),
}
_ELSEWHERE = (0x43, 0x79)  # macros

Fields = dict[tuple[bytes, bytes], list[Array]]
# What finds the end of an attribute that begins at a place.
_Step = Callable[[bytes, int], int]


def fields(sections: Mapping[bytes, memoryview]) -> dict[tuple[bytes, bytes], Array]:
    """(section, the one that is counted from) -> where the fields are, of 4 bytes each.

    Raises `Unknown`.
    """
    found: Fields = {}
    read = {name: bytes(sections.get(name, b"")) for name in _READ}
    try:
        _units(read[_INFO], read[_ABBREV], found)
        for begin, end in _lengths(read[_ARANGES]):
            _note(found, _ARANGES, _INFO, begin + 2, end)
        for begin, end in _lengths(read[_STR_OFFSETS]):
            offsets = np.arange(begin + 4, end - 3, 4)
            found.setdefault((_STR_OFFSETS, _STR), []).append(offsets)
        for begin, end in _lengths(read[_LINE]):
            _line_header(read[_LINE], begin, end, found)
    except (IndexError, ValueError, KeyError, OverflowError) as e:
        raise Unknown(f"it is damaged: {e}") from e
    joined = {key: np.concatenate(offsets) for key, offsets in found.items() if offsets}
    for (holder, to), offsets in joined.items():
        if len(offsets) and (to not in sections or offsets.max() + 4 > len(sections[holder])):
            raise Unknown(f"{to.decode()} is missing")
    return {key: offsets for key, offsets in joined.items() if len(offsets)}


def _note(found: Fields, holder: bytes, to: bytes, offset: int, end: int) -> None:
    if offset + 4 > end:
        raise Unknown("a header is cut short")
    found.setdefault((holder, to), []).append(np.array([offset]))


def _word(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise IndexError("a number is cut short")
    return int.from_bytes(data[at : at + size], "little")


def _lengths(data: bytes) -> list[tuple[int, int]]:
    """(begin behind the length, end) of the units that a section consists of."""
    found = []
    at = 0
    while at < len(data):
        length = _word(data, at, 4)
        if length >= 0xFFFFFFF0 or at + 4 + length > len(data):
            raise Unknown("a unit has a length of 64 bits, or is cut short")
        found.append((at + 4, at + 4 + length))
        at += 4 + length
    return found


def _number(data: bytes, at: int) -> tuple[int, int]:
    """(value, end) of a number in LEB128, without a sign."""
    value = data[at] & 0x7F
    shift = 7
    while data[at] >= 0x80:
        at += 1
        value |= (data[at] & 0x7F) << shift
        shift += 7
    return value, at + 1


def _behind_number(data: bytes, at: int) -> int:
    while data[at] >= 0x80:
        at += 1
    return at + 1


def _behind_text(data: bytes, at: int) -> int:
    return data.index(0, at) + 1


def _behind_block(size: int, data: bytes, at: int) -> int:
    if size:
        return at + size + _word(data, at, size)
    length, at = _number(data, at)
    return at + length


def _target(attribute: int, form: int, version: int) -> bytes:
    """The section that an attribute's value counts from; empty for a value that is no offset."""
    if form in _POINTS:
        return _POINTS[form]
    if form == _SEC_OFFSET or (form == _DATA4 and version < 4):
        if attribute in _LISTS:
            return _LISTS[attribute][version == 5]
        if form == _SEC_OFFSET or attribute in _ELSEWHERE:
            raise Unknown(f"the attribute {attribute:#x} counts from another section")
    return b""


def _step(form: int) -> _Step | int:
    """So many bytes, or what finds the end."""
    if form in _BYTES:
        return _BYTES[form]
    if form in _POINTS or form == _SEC_OFFSET:
        return 4
    if form in _NUMBERS:
        return _behind_number
    if form in _COUNTED:
        return partial(_behind_block, _COUNTED[form])
    if form == _TEXT:
        return _behind_text
    raise Unknown(f"the form {form:#x} is not known")


class _Span(NamedTuple):
    """Attributes of an abbreviation that are `size` bytes together, and the `step` behind them.

    `inside`: how far in it fields are, and from which section each counts.
    """

    size: int
    inside: tuple[tuple[int, bytes], ...]
    step: _Step | None


# of each span what notes where it is in an entry, its size and step
_Plan = tuple[tuple[Callable[[int], None], int, "_Step | None"], ...]


@lru_cache(maxsize=4096)
def _spans(data: bytes, version: int) -> tuple[tuple[_Span, ...], int]:
    """The spans of an abbreviation whose attributes `data` begins with, and where these end."""
    spans: list[_Span] = []
    size, inside, at = 0, [], 0
    while True:
        attribute, at = _number(data, at)
        form, at = _number(data, at)
        if form == _IMPLICIT:
            at = _behind_number(data, at)
        if not attribute and not form:
            break
        target = _target(attribute, form, version)
        if target:
            inside.append((size, target))
        step = _step(form)
        if form == _REF_ADDR and version == 2:  # as wide as an address
            step = 8
        if isinstance(step, int):
            size += step
        else:
            spans.append(_Span(size, tuple(inside), step))
            size, inside = 0, []
    if size:
        spans.append(_Span(size, tuple(inside), None))
    return tuple(spans), at


def _units(info: bytes, abbrev: bytes, found: Fields) -> None:
    known: dict[tuple[int, int], dict[int, _Plan]] = {}
    every: list[tuple[_Span, array[int]]] = []
    for begin, end in _lengths(info):
        version = _word(info, begin, 2)
        five = version == 5
        if not 2 <= version <= 5 or (five and info[begin + 2] not in (1, 3)):
            raise Unknown(f"a unit of version {version} and type {info[begin + 2]}")
        if info[begin + (3 if five else 6)] != 8:
            raise Unknown("addresses are not of 8 bytes")
        offset = begin + (4 if five else 2)
        _note(found, _INFO, _ABBREV, offset, end)
        table = _word(info, offset, 4)
        if (table, version) not in known:
            known[table, version] = _abbreviations(abbrev, table, version, every)
        _walk(info, begin + (8 if five else 7), end, known[table, version])
    alike: dict[tuple[tuple[int, bytes], ...], list[Array]] = {}
    for span, noted in every:
        if noted and span.inside:
            alike.setdefault(span.inside, []).append(np.frombuffer(noted, np.int64))
    for inside, noted_there in alike.items():
        begins = np.concatenate(noted_there)
        for distance, target in inside:
            found.setdefault((_INFO, target), []).append(begins + distance)


def _abbreviations(
    data: bytes, at: int, version: int, every: list[tuple[_Span, array[int]]]
) -> dict[int, _Plan]:
    """What to do for the entries of each code. `every` gets the spans, and where they will be."""
    plans: dict[int, _Plan] = {}
    while True:
        code, at = _number(data, at)
        if not code:
            return plans
        at = _behind_number(data, at) + 1
        try:
            spans, size = _spans(data[at : data.index(b"\0\0", at) + 2], version)
        except IndexError:  # these zeros are no end: a constant of zero is before it
            spans, size = _spans(data[at:], version)
        at += size
        noted = [array("q") for _ in spans]
        every += zip(spans, noted, strict=True)
        plans[code] = tuple(
            (offsets.append, span.size, span.step)
            for span, offsets in zip(spans, noted, strict=True)
        )


def _walk(info: bytes, at: int, end: int, plans: Mapping[int, _Plan]) -> None:
    """Over the entries of a unit, noting where the spans of each are."""
    while at < end:
        code = info[at]
        at += 1
        if code == 0:
            continue
        if code >= 0x80:
            code, at = _number(info, at - 1)
        for begin, size, step in plans[code]:
            begin(at)
            at += size
            if step is not None:
                at = step(info, at)
    if at != end:
        raise Unknown("an entry reaches over its unit")


def _line_header(data: bytes, begin: int, end: int, found: Fields) -> None:
    """Since DWARF 5 a line table has the names of folders and files in sections of strings."""
    version = _word(data, begin, 2)
    if not 2 <= version <= 5:
        raise Unknown(f"a line table of version {version}")
    if version < 5:
        return
    # address_size, segment_selector_size, header_length; five fields; opcode_base and lengths
    at = begin + 2 + 2 + 4 + 5
    at += data[at]
    for _ in range(2):
        forms = []
        count, at = data[at], at + 1
        for _ in range(count):
            at = _behind_number(data, at)
            form, at = _number(data, at)
            forms.append((_target(0, form, 5), _step(form)))
        total, at = _number(data, at)
        if total > end:
            raise Unknown("a line table is cut short")
        for _ in range(total):
            for target, step in forms:
                if target:
                    _note(found, _LINE, target, at, end)
                at = at + step if isinstance(step, int) else step(data, at)
