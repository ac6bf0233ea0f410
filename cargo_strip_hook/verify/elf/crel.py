"""The verifier's own reading of compact relocations (SHT_CREL).

Source: "CREL relocation format for ELF" (gABI proposal): a ULEB128 header (entries × 8 + 4 for
addends + shift of offsets), then for each entry ULEB128 (distance << flags + flags), and in SLEB128
the differences of symbol, type and addend whose flags are set.
"""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.verify.arrays import Array, spread

_SET_BITS = np.array([0, 1, 1, 2, 1, 2, 2, 3])  # of three flags


class BadTable(Exception):
    """A table that says something else than it holds; `index` is its position among those read."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


def read_tables(data: Array, start: Array, size: Array) -> tuple[Array, list[Array], Array]:
    """(entries of each table; offset, symbol, type, addend of all; bool by table: has addends).

    `start` and `size` are those of tables in uint8 `data`. The columns are int64. Raises
    `BadTable`.
    """
    octets = data[spread(start, size, 1)]
    table_of_octet = np.repeat(np.arange(len(start)), size)
    stops = np.flatnonzero(octets & 0x80 == 0)
    table = table_of_octet[stops]
    if len(octets):
        unfinished = np.flatnonzero((octets[np.cumsum(size) - 1] >= 0x80) & (size > 0))
        if len(unfinished):
            raise BadTable(int(unfinished[0]))
    count = np.bincount(table, minlength=len(start))
    begin = np.cumsum(count) - count
    unsigned, signed, high = _numbers(octets, stops, table)
    header = np.zeros(len(start), np.uint64)
    header[count > 0] = unsigned[begin[count > 0]]
    with_addend = header & np.uint64(4) != 0
    entries = header >> np.uint64(3)
    many = np.flatnonzero(entries > np.maximum(count - 1, 0).astype(np.uint64))
    if len(many):
        raise BadTable(int(many[0]))
    entries = entries.astype(np.int64)
    first, flags = _first_numbers(unsigned, table, begin, entries, with_addend)
    owner = np.repeat(np.arange(len(start)), entries)
    ends = first + _SET_BITS[flags]
    outside = np.flatnonzero(ends >= (begin + count)[owner])
    if len(outside):
        raise BadTable(int(owner[outside[0]]))
    shift = np.where(with_addend[owner], 3, 2)
    # the flags take up to three of 67 bits: what they push out of 64 comes back from above
    lost = high[first] << (64 - shift).astype(np.uint64)
    distance = (unsigned[first] >> shift.astype(np.uint64)) | lost
    shift = (header & np.uint64(3))[owner].astype(np.int64)
    columns = [_summed(distance.astype(np.int64), entries) << shift]
    cursor = first
    for bit in (1, 2, 4):
        has = flags & bit != 0
        cursor = cursor + has
        columns.append(_summed(np.where(has, signed[cursor], 0), entries))
    return entries, columns, with_addend


def _numbers(octets: Array, stops: Array, table: Array) -> tuple[Array, Array, Array]:
    """Each LEB128 number as uint64 and as int64, modulo 2**64, and what is above 2**64.

    Raises `BadTable` for those of more than ten bytes.
    """
    begins = np.zeros(len(stops), np.int64)
    begins[1:] = stops[:-1] + 1
    length = stops - begins + 1
    long = np.flatnonzero(length > 10)
    if len(long):
        raise BadTable(int(table[long[0]]))
    location = np.arange(len(octets)) - np.repeat(begins, length)
    bits = (octets.astype(np.uint64) & np.uint64(0x7F)) << (7 * location).astype(np.uint64)
    unsigned = np.add.reduceat(bits, begins) if len(begins) else np.zeros(0, np.uint64)
    width = np.minimum(7 * length, 64)
    minus = (octets[stops] & 0x40 != 0) & (width < 64)
    fill = np.where(minus, ~np.uint64(0) << np.where(minus, width, 0).astype(np.uint64), 0)
    signed = (unsigned | fill.astype(np.uint64)).view(np.int64)
    high = np.where(length == 10, octets[stops] >> 1, 0).astype(np.uint64)
    return unsigned, signed, high


def _first_numbers(
    unsigned: Array, table: Array, begin: Array, entries: Array, with_addend: Array
) -> tuple[Array, Array]:
    """(number by which each entry begins, its flags), in the order of the tables.

    The entries 2n to 4n of a table are as far behind its first 2n as these reach together, so each
    step doubles what is known.
    """
    mask = np.where(with_addend, 7, 3)[table].astype(np.uint64)
    flags = (unsigned & mask).astype(np.uint8)
    last = len(unsigned) - 1
    leap = np.minimum(np.arange(last + 1) + 1 + _SET_BITS[flags], last)
    some = np.flatnonzero(entries > 0)
    known, number, owner = begin[some] + 1, np.zeros(len(some), np.int64), some
    step = 1
    while step < int(entries.max(initial=0)):
        more = number + step < entries[owner]
        known = np.concatenate([known, leap[known[more]]])
        number = np.concatenate([number, number[more] + step])
        owner = np.concatenate([owner, owner[more]])
        step *= 2
        leap = leap[leap]
    order = np.lexsort((number, owner))
    first = known[order]
    return first, flags[first]


def _summed(differences: Array, entries: Array) -> Array:
    """Running sums, from zero in each table."""
    sums = np.cumsum(differences)
    before = np.concatenate([np.zeros(1, np.int64), sums])[np.cumsum(entries) - entries]
    return np.asarray(sums - np.repeat(before, entries))


__all__ = ["BadTable", "read_tables"]
