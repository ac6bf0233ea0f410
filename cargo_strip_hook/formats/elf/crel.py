"""Relocations in the compact form (SHT_CREL): differences between entries, in LEB128.

Source: LLVM's llvm/Object/ELF.h, `CrelForEach`; "CREL relocation format for ELF" (gABI proposal).
A table is a header (number of entries × 8, bit 2: with addends, bits 1 and 0: shift of offsets),
and for each entry: its distance from the last one with two or three flags below it, then the
differences of symbol, type and addend that the flags announce.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.link.arrays import Array, begins, ramps
from cargo_strip_hook.link.model import Bool, Int64

_ADDENDS = 4  # bit of the header
_LONGEST = 10  # bytes of a number of 64 bits, or of one with three flags below it


@dataclass(frozen=True, slots=True, eq=False)
class CompactTables:
    """What several tables say, one behind the other.

    `rows` are as in a table of SHT_RELA, `counts` of each table. `addends`: bool for each table,
    whether it has any: else they are in the contents, as those of SHT_REL. `damaged`: bool for each
    table; such a one has no rows.
    """

    rows: Array
    counts: Int64
    addends: Bool
    damaged: Bool


@dataclass(frozen=True, slots=True, eq=False)
class _Numbers:
    """The LEB128 numbers of all tables, modulo 2**64.

    `first`: where those of each table begin, and the total.
    """

    value: Array  # uint64
    upper: Array  # uint64, without the lowest seven bits
    signed: Int64
    low: Array  # uint8, the first byte of each
    first: Int64


def read_compact(octets: Array, start: Int64, size: Int64, records: elf.Records) -> CompactTables:
    """The entries of tables that begin at `start` of uint8 `octets` and have `size` bytes each."""
    ends = octets[np.maximum(start + size - 1, 0)] < 0x80
    whole = (size > 0) & ends
    numbers, damaged = _numbers(octets, start, np.where(whole, size, 0))
    damaged |= ~whole & (size > 0)
    first, behind = numbers.first[:-1], numbers.first[1:]
    some = behind > first
    header = np.zeros(len(start), np.uint64)
    header[some] = numbers.value[first[some]]
    addends = header & np.uint64(_ADDENDS) != 0
    claimed = (header >> np.uint64(3)).astype(np.int64)
    entries, table, after = _entries(numbers, addends, damaged)
    # what stands behind the last entry is padding
    number = np.arange(len(table)) - np.searchsorted(table, table)
    kept = number < claimed[table]
    entries, table, after = entries[kept], table[kept], after[kept]
    counts = np.bincount(table, minlength=len(start))
    damaged |= counts != np.where(damaged, 0, claimed)
    damaged[table[after > behind[table]]] = True
    kept = ~damaged[table]
    entries, table = entries[kept], table[kept]
    counts = np.bincount(table, minlength=len(start))
    shift = (header & np.uint64(3))[table]
    rows = _rows(numbers, entries, begins(counts), addends[table], shift, records)
    return CompactTables(rows, counts, addends, damaged)


def _numbers(octets: Array, start: Int64, size: Int64) -> tuple[_Numbers, Bool]:
    """(the numbers of all tables, bool for each table: it has one that is too long)."""
    joined = octets[ramps(start, size, 1)]
    last = np.flatnonzero(joined < 0x80)
    begin = np.concatenate([[0], last[:-1] + 1]) if len(last) else np.zeros(0, np.int64)
    length = last + 1 - begin
    first = np.searchsorted(begin, begins(size))
    upper = np.zeros(len(begin), np.uint64)
    for number in range(1, int(min(length.max(initial=0), _LONGEST))):
        rows = np.flatnonzero(length > number)
        bits = joined[begin[rows] + number].astype(np.uint64) & np.uint64(0x7F)
        upper[rows] |= bits << np.uint64(7 * (number - 1))
    low = joined[begin]
    value = (low & 0x7F).astype(np.uint64) | (upper << np.uint64(7))
    signed = value.astype(np.int64)
    negative = (joined[last] & 0x40 != 0) & (length < _LONGEST)
    signed[negative] -= np.int64(1) << (7 * length[negative])
    damaged = np.zeros(len(start), np.bool_)
    long = np.flatnonzero(length > _LONGEST)
    damaged[np.searchsorted(first, long, side="right") - 1] = True
    return _Numbers(value, upper, signed, low, first), damaged


def _entries(numbers: _Numbers, addends: Bool, damaged: Bool) -> tuple[Int64, Int64, Int64]:
    """(the first number of each entry, its table, the number behind it), in order.

    How many numbers an entry has is in its first one. So each number is taken for such a first
    one, and what comes after it is looked up, then what comes after that, and so on in steps that
    double, until all that can be reached from the beginning of a table is.
    """
    total = int(numbers.first[-1])
    table = np.repeat(np.arange(len(addends)), np.diff(numbers.first))
    flags = numbers.low & np.where(addends[table], 7, 3).astype(np.uint8)
    end = np.arange(total) + 1 + (flags & 1) + (flags >> 1 & 1) + (flags >> 2)
    after = np.append(np.where(end < numbers.first[table + 1], end, total), total)
    begin = numbers.first[:-1] + 1
    begin = begin[(begin < numbers.first[1:]) & ~damaged]
    reached = np.zeros(total + 1, np.bool_)
    reached[begin] = True
    while True:
        known = np.flatnonzero(reached)
        reached[after[known]] = True
        if (after == total).all():
            break
        after = after[after]
    entries = np.flatnonzero(reached[:total])
    return entries, table[entries], end[entries]


def _rows(
    numbers: _Numbers, entries: Int64, first: Int64, addends: Bool, shift: Array, r: elf.Records
) -> Array:
    """The rows (as of SHT_RELA); `first`: where those of each table begin, and the total.

    `addends` and `shift`: of the table of each entry.
    """
    low = numbers.low[entries]
    flags = np.where(addends, 3, 2).astype(np.uint64)
    # modulo 2**64 where an offset is below the one before it: shifted as a whole it would lose bits
    distance = (low & 0x7F).astype(np.uint64) >> flags
    distance |= numbers.upper[entries] << (np.uint64(7) - flags)
    behind = entries.copy()
    columns = []
    for bit in (1, 2, 4):
        given = low & bit != 0
        if bit == 4:
            given = given & addends
        behind += given
        inside = np.minimum(behind, max(len(numbers.signed) - 1, 0))
        columns.append(np.where(given, numbers.signed[inside], 0) if len(entries) else entries)
    symbol, kind, addend = (_sums(column, first) for column in columns)
    offset = _sums(distance.astype(np.int64), first) << shift.astype(np.int64)
    rows = np.zeros(len(entries), r.rela)
    word = np.uint64 if r.bits == 64 else np.uint32
    rows["offset"] = offset.astype(word)
    rows["info"] = (symbol.astype(word) << word(r.symbol_shift)) | (
        kind.astype(word) & word(r.type_mask)
    )
    rows["addend"] = addend.astype(rows["addend"].dtype)
    return rows


def _sums(differences: Int64, first: Int64) -> Int64:
    """The values whose differences these are; each table begins at 0."""
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(differences)])
    sums: Int64 = total[1:] - np.repeat(total[first[:-1]], np.diff(first))
    return sums


__all__ = ["CompactTables", "read_compact"]
