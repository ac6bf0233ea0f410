"""What unwinds each function, read from an object: compact-unwind entries and FDEs.

Sources: mach-o/compact_unwind_encoding.h; Linux Standard Base 5.0, section 10.6.1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cargo_strip_hook.verify.macho.read import (
    REFERENCE,
    Array,
    Damaged,
    Object,
    Places,
    Reference,
    Section,
)


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


def records(o: Object, where: Places | None = None) -> list[Record]:
    """All records, or those of the functions that went somewhere. Raises `Damaged`."""
    found: list[Record] = []
    for number, section in enumerate(o.sections, start=1):
        if (section.segment, section.name) == (b"__LD", b"__compact_unwind"):
            found += _compact(o, number, where)
        elif (section.segment, section.name) == (b"__TEXT", b"__eh_frame"):
            found += _frames(o, number, where)
    return found


class _Fields:
    """The references of a section by offset; with only some records, those of others are left out.

    A record is known by where it begins.
    """

    def __init__(self, o: Object, number: int) -> None:
        self.object = o
        table = o.table([number])
        self.table = table[np.argsort(table["offset"], kind="stable")]
        self.by_offset: dict[int, Reference] = {}

    def at(self, offsets: Array) -> tuple[Array, Array]:
        """(rows of the table, whether there is one) for each offset."""
        if not len(self.table):
            return np.zeros((len(offsets)), REFERENCE), np.zeros(len(offsets), np.bool_)
        row = np.minimum(np.searchsorted(self.table["offset"], offsets), len(self.table) - 1)
        return self.table[row], self.table["offset"][row] == offsets

    def values(self, symbols: Array) -> Array:
        """The addresses of symbols, -1 for those without a place or of no number."""
        entries = self.object.entries
        if not len(entries):
            return np.full(len(symbols), -1, np.int64)
        row = entries[np.maximum(symbols, 0)]
        placed = (symbols >= 0) & (row["type"] & 0xE == 0xE)
        return np.where(placed, row["value"].astype(np.int64), -1)

    def of(self, starts: Array, sizes: Array) -> dict[int, Reference]:
        """The references within records."""
        if not len(starts):
            return {}
        offset = self.table["offset"]
        at = np.maximum(np.searchsorted(starts, offset, side="right") - 1, 0)
        inside = (offset >= starts[at]) & (offset < starts[at] + sizes[at])
        rows = self.table[inside].tolist()
        return {row[1]: Reference(*row) for row in rows}


def _target(o: Object, reference: Reference) -> int:
    """The address that a reference without a subtrahend means; -1 for an undefined symbol."""
    if reference.symbol < 0:
        return reference.addend
    symbol = o.symbols[reference.symbol]
    return symbol.value + reference.addend if symbol.placed else -1


def _compact(o: Object, number: int, where: Places | None) -> list[Record]:
    section = o.sections[number - 1]
    raw = o.contents(section)
    fields = _Fields(o, number)
    starts = np.arange(0, section.size - 31, 32)
    if where is not None:
        row, there = fields.at(starts)
        value = fields.values(row["symbol"])
        value = np.where(row["symbol"] < 0, 0, value) + row["addend"]
        starts = starts[~there | (where.of_addresses(o, value) >= 0)]
    by_offset = fields.of(starts, np.full(len(starts), 32))
    found = []
    for at in starts.tolist():
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


def _frames(o: Object, number: int, where: Places | None) -> list[Record]:
    section = o.sections[number - 1]
    raw = o.contents(section)
    fields = _Fields(o, number)
    try:
        starts, sizes = np.array(_walk(raw), np.int64).reshape(-1, 2).T
        pointers = _pointers(fields, raw, starts)
        is_fde = pointers != 0
        by_offset = fields.of(starts[~is_fde], sizes[~is_fde])
        fde, place = starts[is_fde], (starts + 4 - pointers)[is_fde]
        cies = {at: _cie(raw, at, by_offset) for at in dict.fromkeys(place.tolist())}
        sizes = sizes[is_fde]
        if where is not None:
            width = np.array([cies[at].width for at in place.tolist()], np.int64)
            kept = where.of_addresses(o, _functions(fields, section, raw, fde, width)) >= 0
            fde, place, sizes = fde[kept], place[kept], sizes[kept]
        by_offset = fields.of(fde, sizes)
        return [
            _fde(o, number, at, size - 4, cies[cie], by_offset)
            for at, size, cie in zip(fde.tolist(), sizes.tolist(), place.tolist(), strict=True)
        ]
    except (LookupError, ValueError, struct.error) as e:
        raise Damaged(f"__eh_frame cannot be read: {e}") from e


def _walk(raw: memoryview) -> list[tuple[int, int]]:
    """(offset, size with its length field) of each record."""
    found = []
    at = 0
    length_at = struct.Struct("<I").unpack_from
    while at + 8 <= len(raw):
        (length,) = length_at(raw, at)
        if length == 0:
            break
        if at + 4 + length > len(raw):
            raise Damaged("__eh_frame has a record that does not fit")
        found.append((at, 4 + length))
        at += 4 + length
    return found


def _pointers(fields: _Fields, raw: memoryview, starts: Array) -> Array:
    """The CIE pointer of each record, 0 of a CIE."""
    octets = np.frombuffer(raw, np.uint8)
    words = np.ascontiguousarray(octets[starts[:, None] + np.arange(4, 8)]).view("<u4")
    found = words.reshape(-1).astype(np.int64)
    row, there = fields.at(starts + 4)
    if there.any():  # as ld64 -r writes it: the distance of two symbols
        row = row[there]
        minuend, subtrahend = fields.values(row["symbol"]), fields.values(row["minus"])
        if (minuend < 0).any() or (subtrahend < 0).any():
            raise Damaged("__eh_frame has a CIE pointer that is no difference")
        found[there] = minuend + row["addend"] - subtrahend
    return found


def _functions(
    fields: _Fields, section: Section, raw: memoryview, starts: Array, width: Array
) -> Array:
    """The address of each FDE's function, as `_distance` has it."""
    octets = np.frombuffer(raw, np.uint8)
    field = starts + 8
    distance = np.zeros(len(starts), np.int64)
    for size in (4, 8):
        mine = np.flatnonzero(width == size)
        raw_fields = octets[field[mine, None] + np.arange(size)]
        distance[mine] = np.ascontiguousarray(raw_fields).view(f"<i{size}").reshape(-1)
    row, there = fields.at(field)
    pair = fields.values(row["symbol"]) + row["addend"] - fields.values(row["minus"])
    return section.address + field + np.where(there, pair, distance)


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
