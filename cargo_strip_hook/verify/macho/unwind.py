"""What unwinds each function, read from an object: compact-unwind entries and FDEs.

Sources: mach-o/compact_unwind_encoding.h; Linux Standard Base 5.0, section 10.6.1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from cargo_strip_hook.verify.macho.read import Damaged, Object, Reference


@dataclass(frozen=True, slots=True)
class Record:
    """One record; addresses are those of the object, -1 where there is none.

    `what` has no address in it: length and encoding, or the bytes of the FDE and its CIE.
    `personality` is a symbol's number, or -1; `personality_address` is for one without a name.
    """

    compact: bool
    function: int
    lsda: int
    personality: int
    personality_address: int
    what: tuple[object, ...]


def records(o: Object) -> list[Record]:
    """All records. Raises `Damaged`."""
    found: list[Record] = []
    for number, section in enumerate(o.sections, start=1):
        if (section.segment, section.name) == (b"__LD", b"__compact_unwind"):
            found += _compact(o, number)
        elif (section.segment, section.name) == (b"__TEXT", b"__eh_frame"):
            found += _frames(o, number)
    return found


def _target(o: Object, reference: Reference) -> int:
    """The address that a reference without a subtrahend means; -1 for an undefined symbol."""
    if reference.symbol < 0:
        return reference.addend
    symbol = o.symbols[reference.symbol]
    return symbol.value + reference.addend if symbol.placed else -1


def _compact(o: Object, number: int) -> list[Record]:
    section = o.sections[number - 1]
    raw = o.contents(section)
    by_offset = {r.offset: r for r in o.references(number)}
    found = []
    for at in range(0, section.size - 31, 32):
        function = by_offset.get(at)
        if function is None:
            raise Damaged("__compact_unwind has an entry for no function")
        personality, lsda = by_offset.get(at + 16), by_offset.get(at + 24)
        found.append(
            Record(
                True,
                _target(o, function),
                _target(o, lsda) if lsda else -1,
                personality.symbol if personality else -1,
                _target(o, personality) if personality and personality.symbol < 0 else -1,
                struct.unpack_from("<II", raw, at + 8),
            )
        )
    return found


def _uleb(raw: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        octet = raw[at]
        value |= (octet & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if octet < 0x80:
            return value, at


def _frames(o: Object, number: int) -> list[Record]:
    section = o.sections[number - 1]
    raw = o.contents(section)
    by_offset = {r.offset: r for r in o.references(number)}
    found = []
    cies: dict[int, _Cie] = {}
    at = 0
    try:
        while at + 8 <= section.size:
            length, pointer = struct.unpack_from("<II", raw, at)
            if at + 4 in by_offset:  # as ld64 -r writes it: the distance of two symbols
                cie = by_offset[at + 4]
                if cie.minus < 0 or cie.symbol < 0:
                    raise Damaged("__eh_frame has a CIE pointer that is no difference")
                pointer = o.symbols[cie.symbol].value + cie.addend - o.symbols[cie.minus].value
            if length == 0:
                break
            if at + 4 + length > section.size:
                raise Damaged("__eh_frame has a record that does not fit")
            if pointer:
                place = at + 4 - pointer
                if place not in cies:
                    cies[place] = _cie(raw, place, by_offset)
                found.append(_fde(o, number, at, length, cies[place], by_offset))
            at += 4 + length
    except (LookupError, ValueError, struct.error) as e:
        raise Damaged(f"__eh_frame cannot be read: {e}") from e
    return found


class _Cie(NamedTuple):
    """`body` has no personality in it; `width` and `lsda` are bytes of addresses in FDEs."""

    body: bytes
    personality: int
    width: int
    lsda: int


def _cie(raw: memoryview, cie: int, by_offset: dict[int, Reference]) -> _Cie:
    cie_length, zero = struct.unpack_from("<II", raw, cie) if cie >= 0 else (0, 1)
    if zero:
        raise Damaged("__eh_frame has an FDE without a CIE")
    body = bytearray(raw[cie : cie + 4 + cie_length])
    end = body.index(0, 9)
    position = end + 1
    for _ in range(4):
        _, position = _uleb(memoryview(body), position)
    personality, width, lsda = -1, 8, 0
    for letter in body[10:end]:
        if letter == ord("P"):
            reference = by_offset.get(cie + position + 1)
            if reference is None:
                raise Damaged("__eh_frame has a CIE whose personality has no relocation")
            personality = reference.symbol
            body[position + 1 : position + 5] = bytes(4)
            position += 5
        elif letter == ord("L"):
            lsda = {0x10: 8, 0x1B: 4}.get(body[position], 0)
            position += 1
        elif letter == ord("R"):
            width = {0x10: 8, 0x1B: 4}[body[position]]
            position += 1
    return _Cie(bytes(body), personality, width, lsda)


def _fde(
    o: Object, number: int, at: int, length: int, cie: _Cie, by_offset: dict[int, Reference]
) -> Record:
    section = o.sections[number - 1]
    raw = o.contents(section)
    width = cie.width
    function = _distance(o, section.address, raw, at + 8, width, by_offset)
    size = bytes(raw[at + 8 + width : at + 8 + 2 * width])
    data, code = _uleb(raw, at + 8 + 2 * width)
    lsda = -1
    if cie.lsda and data >= cie.lsda:
        lsda = _distance(o, section.address, raw, code, cie.lsda, by_offset)
    instructions = bytes(raw[code + data : at + 4 + length])
    return Record(False, function, lsda, cie.personality, -1, (cie.body, size, instructions))


def _distance(
    o: Object, base: int, raw: memoryview, at: int, width: int, by_offset: dict[int, Reference]
) -> int:
    """The address that a pc-relative field means; -1 for none."""
    reference = by_offset.get(at)
    if reference is None:
        distance = int.from_bytes(raw[at : at + width], "little", signed=True)
        return base + at + distance if distance else -1
    if reference.minus < 0 or reference.symbol < 0:
        raise Damaged("__eh_frame has a relocation that is no difference")
    minuend, subtrahend = o.symbols[reference.symbol], o.symbols[reference.minus]
    return minuend.value + reference.addend - subtrahend.value + base + at
