"""What of the objects that a library of a set loads is other libraries' only.

A member of the common library may hold what not all that load it need. Each of these places is
compared for a library that it is of. To another one it must be as if it was not there: no name that
is undefined, and nothing that runs by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cargo_strip_hook.verify.arrays import Array, gather, is_among, spread, unique
from cargo_strip_hook.verify.expectation import Findings
from cargo_strip_hook.verify.kit.names import shown
from cargo_strip_hook.verify.macho.locations import NOWHERE, Ranges
from cargo_strip_hook.verify.macho.read import ENTRY, Object
from cargo_strip_hook.verify.macho.sections import INITIALISERS

_UNWIND = np.array([b"__compact_unwind", b"__eh_frame"])
_KEPT, _KEPT_SECTION = 0x20, 0x10000000


def only_others(after: Object, rows: Array, others: Sequence[Array]) -> Ranges:
    """What only the rows of `others` (link maps, sections numbered through) explain."""

    def locations(one: Array) -> tuple[Array, Array, Array]:
        one = one[one["size"] > 0]
        home = one["out_section"].astype(np.int64)
        start = after.table["address"][home - 1] + one["out_offset"]
        return start, start + one["size"], home

    every = [locations(one) for one in others]
    if not every:
        return NOWHERE
    start, end, home = (np.concatenate(columns) for columns in zip(*every, strict=True))
    own, own_end, _ = locations(rows)
    order = np.argsort(own, kind="stable")
    own, own_end = own[order], own_end[order]
    if len(own):
        at = np.maximum(np.searchsorted(own, start, side="right") - 1, 0)
        rest = (own[at] != start) | (own_end[at] != end)
        start, end, home = start[rest], end[rest], home[rest]
    order = np.lexsort((end, start))
    start, end, home = start[order], end[order], home[order]
    new = np.append(True, (start[1:] != start[:-1]) | (end[1:] != end[:-1]))[: len(start)]
    return Ranges(start[new], end[new], home[new])


def without(after: Object, ranges: Ranges, findings: Findings) -> tuple[Object, Array]:
    """The result as if nothing was in the ranges, and the symbols that are gone with it.

    Its contents are its own (see `Object.octets`), and are changed.
    """
    if not len(ranges.start):
        return after, np.zeros(0, np.int64)
    _check_roots(after, ranges, findings)
    table, octets = after.table.copy(), after.octets
    stored = ~table["zerofill"][ranges.home - 1]
    shift = (table["offset"] - table["address"])[ranges.home - 1]
    locations = spread((ranges.start + shift)[stored], (ranges.end - ranges.start)[stored], 1)
    octets[locations] = 0
    before = _used(after, after.loaded_references())
    less = _without_references(replace(after, table=table), ranges)
    e = less.entries
    there = np.flatnonzero(less.placed)
    gone = np.zeros(len(e), np.bool_)
    gone[there] = ranges.have(e["value"][there])
    for name in less.names(np.flatnonzero(gone & (e["desc"] & _KEPT != 0))):
        findings.add("something of other libraries runs by itself, or is retained", shown(name))
    theirs = before & ~_used(less, less.loaded_references()) & (e["type"] & 0xEF == 1)
    for name in less.names(np.flatnonzero(theirs)):
        findings.add("a name that only other libraries need is undefined", shown(name))
    return less, np.flatnonzero(gone)


def _check_roots(after: Object, ranges: Ranges, findings: Findings) -> None:
    section = after.table[unique(ranges.home) - 1]
    runs = is_among(section["flags"] & 0xFF, INITIALISERS)
    runs |= section["flags"] & _KEPT_SECTION != 0
    for name in section["name"][runs].tolist():
        findings.add("something of other libraries runs by itself, or is retained", shown(name))


def _used(o: Object, references: Array) -> Array:
    """bool for each symbol: whether a reference names it."""
    used = np.zeros(len(o.entries), np.bool_)
    for column in ("symbol", "minus"):
        used[references[column][references[column] >= 0]] = True
    return used


def _without_references(o: Object, ranges: Ranges) -> Object:
    """The same without relocations of fields in the ranges; their table is written anew."""
    table = o.table
    raw = gather(o.octets, spread(table["relocations"], table["count"], 8), ENTRY)
    home = np.repeat(np.arange(len(table)), table["count"])
    kept = ~ranges.have(table["address"][home] + raw["address"])
    kept |= is_among(table["name"], _UNWIND)[home]
    counts = np.bincount(home[kept], minlength=len(table))
    table["relocations"] = len(o.octets) + 8 * (np.cumsum(counts) - counts)
    table["count"] = counts
    left = np.ascontiguousarray(raw[kept]).view(np.uint8)
    return replace(o, octets=np.concatenate([o.octets, left.ravel()]), table=table)


__all__ = ["only_others", "without"]
