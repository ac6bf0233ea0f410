"""Several sound objects read as one, as a linker has them in a program.

Source: Microsoft PE/COFF specification, "COFF Symbol Table" and its auxiliary formats.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cargo_strip_hook.verify.coff.guard import features
from cargo_strip_hook.verify.coff.read import (
    ABSOLUTE,
    ASSOCIATIVE,
    COMDAT,
    EXTERNAL,
    STATIC,
    WEAK,
    Array,
    Object,
)
from cargo_strip_hook.verify.expectation import Findings
from cargo_strip_hook.verify.kit.names import shown

_LABEL = int.from_bytes(b".L", "little")
_TABLES = (b".gfids$y", b".giats$y", b".gljmp$y", b".gehcont$y", b".sxdata")
_WIDE = np.dtype(
    [
        *[("zeros", "<u4"), ("name", "<u4"), ("value", "<u4"), ("section", "<i4")],
        *[("type", "<u2"), ("class", "<u1"), ("aux", "<u1")],
    ]
)
_GUARD = 0x800 | 0x4000


def as_one(objects: Sequence[Object], findings: Findings) -> Object:
    """The objects with one numbering, the small library's first.

    A name that one of the others defines is bound to it, and has no name any more.
    """
    counts = [len(o.sections) - 1 for o in objects]
    sections_before = _before(counts)
    symbols_before = _before([len(o.symbols) for o in objects])
    strings_before = _before([len(o.strings) for o in objects])
    raw_before = _before([len(o.raw) for o in objects])
    raw = np.concatenate([o.raw for o in objects])
    sections, symbols, rows = [objects[0].sections[:1]], [], []
    for n, o in enumerate(objects):
        headers = o.sections[1:].copy()
        headers["offset"][headers["offset"] > 0] += raw_before[n]
        sections.append(headers)
        symbols.append(_symbols(o, sections_before[n], symbols_before[n], strings_before[n]))
        relocations = o.relocations.copy()
        relocations["section"] += sections_before[n]
        relocations["symbol"] += symbols_before[n]
        rows.append(relocations)
        for number in [k for k, name in enumerate(o.names) if name in _TABLES]:
            start = raw_before[n] + int(o.sections["offset"][number])
            size = int(o.sections["size"][number]) & ~3
            listed = np.frombuffer(raw[start : start + size].tobytes(), "<u4")
            moved = (listed + symbols_before[n]).astype("<u4")
            raw[start : start + size] = moved.view(np.uint8)
    every = np.concatenate(symbols)
    auxiliary = np.concatenate([o.auxiliary for o in objects])
    joined = Object(
        raw,
        objects[0].machine,
        np.concatenate(sections),
        [b"", *(name for o in objects for name in o.names[1:])],
        every,
        auxiliary,
        len(raw),
        b"".join(o.strings for o in objects),
        np.concatenate(rows),
        np.append(0, np.repeat(np.arange(len(objects)), counts)),
    )
    said = [features(o) for o in objects]
    guarded = np.array([one & _GUARD != 0 for one in said])[joined.home]
    _bind(joined, len(objects[0].symbols), findings)
    _tell_features(joined, said)
    whole = np.concatenate([raw, every.view(np.uint8), np.zeros(32, np.uint8)])
    return replace(joined, raw=whole, guarded=guarded)


def _before(counts: Sequence[int]) -> list[int]:
    """The sum of all counts before each."""
    return [0, *itertools.accumulate(counts)]


def _symbols(o: Object, sections: int, symbols: int, strings: int) -> Array:
    """The records of an object with the numbers that they have in the whole, in the wide form."""
    narrow = np.ascontiguousarray(o.symbols).view(np.uint8).reshape(len(o.symbols), o.record)
    out = np.zeros(len(o.symbols), _WIDE)
    for name in _WIDE.names or ():
        out[name] = o.symbols[name]
    octets = out.view(np.uint8).reshape(-1, _WIDE.itemsize)
    octets[o.auxiliary] = 0
    octets[o.auxiliary, :18] = narrow[o.auxiliary, :18]
    own = ~o.auxiliary
    out["name"][own & (out["zeros"] == 0)] += np.uint32(strings)
    out["section"][own & (out["section"] > 0)] += np.int32(sections)
    behind = np.flatnonzero(own & (out["class"] == WEAK) & (out["aux"] > 0)) + 1
    tags = octets[behind, :4].copy().view("<u4").reshape(-1) + np.uint32(symbols)
    octets[behind, :4] = tags.astype("<u4").view(np.uint8).reshape(-1, 4)
    # what a COMDAT is associated to
    heads = own & (out["class"] == STATIC) & (out["aux"] > 0) & (o.symbols["section"] > 0)
    heads[heads] = o.sections["flags"][o.symbols["section"][heads]] & COMDAT != 0
    behind = np.flatnonzero(heads) + 1
    behind = behind[octets[behind, 14] == ASSOCIATIVE]
    number = octets[behind, 12].astype(np.int64) | octets[behind, 13].astype(np.int64) << 8
    if o.record == 20:
        number |= (
            octets[behind, 16].astype(np.int64) | octets[behind, 17].astype(np.int64) << 8
        ) << 16
    number += sections
    for location, shift in ((12, 0), (13, 8), (16, 16), (17, 24)):
        octets[behind, location] = (number >> shift) & 0xFF
    return out


def _bind(joined: Object, first: int, findings: Findings) -> None:
    """Bind the names that cross; those from `first` on are the common library's symbols."""
    s = joined.symbols
    rows = np.flatnonzero((s["class"] == EXTERNAL) & ~joined.auxiliary)
    names = joined.names_of(rows)
    defined = s["section"][rows] != 0
    home: dict[bytes, int] = {}
    for row, name, here in zip(rows.tolist(), names, defined.tolist(), strict=True):
        if here and row >= first:
            home[name] = row
    for row, name, here in zip(rows.tolist(), names, defined.tolist(), strict=True):
        if here and row < first and name in home:
            findings.add("defined twice in the set", shown(name))
        where = home.get(name)
        if where is None or (here and row < first):
            continue
        for field in ("section", "value", "type"):
            s[field][row] = s[field][where]
        s["class"][row], s["zeros"][row], s["name"][row] = STATIC, _LABEL, 0


def _tell_features(joined: Object, said: Sequence[int]) -> None:
    """One `@feat.00` for all: what each says, and guards of any."""
    both = int(np.bitwise_and.reduce(said)) | (int(np.bitwise_or.reduce(said)) & _GUARD)
    s = joined.symbols
    rows = np.flatnonzero((s["section"] == ABSOLUTE) & (s["class"] == STATIC) & ~joined.auxiliary)
    rows = rows[[name == b"@feat.00" for name in joined.names_of(rows)]]
    s["value"][rows[:1]] = both
    joined.auxiliary[rows[1:]] = True


__all__ = ["as_one"]
