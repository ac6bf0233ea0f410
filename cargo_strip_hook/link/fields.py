"""How values are stored at the places of relocations.

Sources: x86-64 psABI 1.0, table 4.9; AAELF64 and AAELF32, "Relocation codes"; ELF ABI s390x
Supplement 1.6, "Relocation"; EHABI32, section 5 (the 31-bit offsets of index tables).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from cargo_strip_hook.link.model import Array, Bool, Int64


class Field(IntEnum):
    """The part of the contents that a value takes, and how the value is scaled."""

    NONE = 0
    BITS8 = 1
    BITS16 = 2
    BITS32 = 3
    BITS64 = 4
    LOW31 = 5  # the topmost bit of 32 belongs to something else
    HALVES16 = 6  # counts halfwords
    HALVES32 = 7
    A64_BRANCH26 = 8  # counts words, bits 0..25
    A64_BRANCH19 = 9  # counts words, bits 5..23
    A64_BRANCH14 = 10  # counts words, bits 5..18


@dataclass(frozen=True, slots=True)
class _Encoding:
    """`bits` at bit `shift` of `width` bytes hold the value divided by 2 to the `scale`."""

    width: int
    bits: int
    shift: int = 0
    scale: int = 0


_ENCODINGS = {
    Field.BITS8: _Encoding(1, 8),
    Field.BITS16: _Encoding(2, 16),
    Field.BITS32: _Encoding(4, 32),
    Field.BITS64: _Encoding(8, 64),
    Field.LOW31: _Encoding(4, 31),
    Field.HALVES16: _Encoding(2, 16, 0, 1),
    Field.HALVES32: _Encoding(4, 32, 0, 1),
    Field.A64_BRANCH26: _Encoding(4, 26, 0, 2),
    Field.A64_BRANCH19: _Encoding(4, 19, 5, 2),
    Field.A64_BRANCH14: _Encoding(4, 14, 5, 2),
}
FIELDS = tuple(_ENCODINGS)


def width(field: Field) -> int:
    """The bytes that a field is part of."""
    return _ENCODINGS[field].width


def fits(field: Field, value: Int64) -> Bool:
    """Whether a field can hold each value."""
    e = _ENCODINGS[field]
    if e.bits == 64:
        return np.ones(len(value), np.bool_)
    scaled, limit = value >> e.scale, 1 << (e.bits - 1)
    held: Bool = (scaled >= -limit) & (scaled < limit)
    if e.scale:
        held &= value & ((1 << e.scale) - 1) == 0
    return held


def encode(field: Field, value: Int64, old: Array, order: str) -> Array:
    """uint8[n, width]: the contents `old` (uint8[n, width]) with the values in the field."""
    e = _ENCODINGS[field]
    if e.bits == 8 * e.width:
        word = (value >> e.scale).astype(f"{order}i{e.width}")
    else:
        mask = np.uint32(((1 << e.bits) - 1) << e.shift)
        scaled = ((value >> e.scale) << e.shift).astype(np.uint32)
        before = np.ascontiguousarray(old).view(f"{order}u{e.width}").reshape(-1)
        word = ((before & ~mask) | (scaled & mask)).astype(f"{order}u{e.width}")
    return word.view(np.uint8).reshape(-1, e.width)


def decode(field: Field, contents: Array, order: str) -> Int64:
    """The values, with their sign, in `contents` (uint8[n, width])."""
    e = _ENCODINGS[field]
    word = np.ascontiguousarray(contents).view(f"{order}i{e.width}").reshape(-1).astype(np.int64)
    unused = 64 - e.bits
    value: Int64 = (((word >> e.shift) << unused) >> unused) << e.scale
    return value


def store(blob: Array, offsets: Int64, field: Field, value: Int64, order: str) -> None:
    """Put each value into the field at its offset of `blob` (uint8)."""
    where = offsets[:, None] + np.arange(_ENCODINGS[field].width)
    blob[where] = encode(field, value, blob[where], order)


def load(blob: Array, offsets: Int64, field: Field, order: str) -> Int64:
    """The value in the field at each offset of `blob` (uint8)."""
    return decode(field, blob[offsets[:, None] + np.arange(_ENCODINGS[field].width)], order)
