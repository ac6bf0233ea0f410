"""What of the objects that a library of a set loads is other libraries' only.

A member of the common library may hold what not all that load it need, and a joined library holds
what all of its parts need. Of these places each is compared for a library that it is of. To another
one it must be as if it was not there: no name that is undefined, and nothing that runs by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cargo_strip_hook.verify.arrays import Array, is_among, unique
from cargo_strip_hook.verify.elf.mapping import Pair, among
from cargo_strip_hook.verify.elf.read import (
    SHF_ALLOC,
    SHF_GNU_RETAIN,
    SHT_FINI_ARRAY,
    SHT_INIT_ARRAY,
    SHT_PREINIT_ARRAY,
    STB_LOCAL,
    STB_WEAK,
    STEP,
    STT_NOTYPE,
    STT_SECTION,
    Objects,
)
from cargo_strip_hook.verify.kit.names import encoded, quoted

_RUN = (SHT_INIT_ARRAY, SHT_FINI_ARRAY, SHT_PREINIT_ARRAY)
_RUN_BY_NAME = (b".init_array", b".fini_array", b".preinit_array", b".ctors", b".dtors")


@dataclass(frozen=True, eq=False)
class Apart:
    """`pair` for one library, without what is others'; `shared`: bool for each row of its own map.

    `symbols` (object, number) are those that are others', see `homes_of`.
    """

    pair: Pair
    shared: Array
    symbols: frozenset[tuple[int, int]]


def set_apart(pair: Pair, others: Sequence[Array], loaded: Sequence[int], *, joined: bool) -> Apart:
    """Set apart what only the rows of `others` (link maps, sections numbered through) explain.

    `loaded` see `homes_of`. `joined`: there is one object for all libraries.
    """
    after = pair.after
    none = np.zeros(0, np.int64)
    section = np.concatenate([none, *(r["out_section"] for r in others)])
    location = np.concatenate([none, *(r["out_offset"] for r in others)]) + (section << STEP)
    size = np.concatenate([none, *(r["size"] for r in others)])
    known = ~after.is_debug[section] & (size > 0)
    location, size = location[known], size[known]
    own = np.flatnonzero(pair.link_map["size"] > 0)
    own = own[np.argsort(pair.location[own], kind="stable")]
    same = np.zeros(len(location), np.bool_)
    if len(own):
        at = own[np.maximum(np.searchsorted(pair.location[own], location, side="right") - 1, 0)]
        same = (pair.location[at] == location) & (pair.link_map["size"][at] == size)
    shared = is_among(pair.location, location) & (pair.link_map["size"] > 0)
    ranges = _ranges(location[~same], (location + size)[~same])
    if not len(ranges[0]) and not joined:
        return Apart(pair, shared, frozenset())
    if not joined:
        _check_roots(pair, ranges)
    symbols, gone = _symbols(pair, ranges, joined=joined)
    pair = replace(pair, after=replace(after, symbols=symbols), foreign=ranges)
    return Apart(pair, shared, homes_of(after.symbol_base, loaded, gone))


def _ranges(starts: Array, ends: Array) -> tuple[Array, Array]:
    """The same places, those that follow one another as one; sorted."""
    order = np.lexsort((ends, starts))
    starts, ends = starts[order], ends[order]
    if not len(starts):
        return starts, ends
    furthest = np.maximum.accumulate(ends)
    first = np.flatnonzero(np.r_[True, starts[1:] > furthest[:-1]])
    return starts[first], furthest[np.r_[first[1:], len(starts)] - 1]


def _check_roots(pair: Pair, ranges: tuple[Array, Array]) -> None:
    after = pair.after
    sections = unique(ranges[0] >> STEP)
    runs = np.isin(after.sections["type"], _RUN) | (after.sections["flags"] & SHF_GNU_RETAIN != 0)
    for name in _RUN_BY_NAME:
        runs |= after.names_begin(name)
    for number in sections[runs[sections]].tolist():
        where = pair.where_after(number << STEP)
        pair.findings.add("something of other libraries runs by itself, or is retained", where)


def _symbols(pair: Pair, ranges: tuple[Array, Array], *, joined: bool) -> tuple[Array, list[int]]:
    """The result's symbols without what is others' only, and which local ones are."""
    after = pair.after
    s = after.symbols.copy()
    inside = (s["section"] > 0) & (s["binding"] == STB_LOCAL) & (s["kind"] != STT_SECTION)
    inside &= among(ranges, (s["section"] << STEP) + s["value"])
    s["kind"][inside] = STT_NOTYPE
    by_us, by_others = _used(after, ranges)
    missing = s["undefined"] & (s["binding"] != STB_LOCAL)
    theirs = np.flatnonzero(missing & by_others & ~by_us)
    if not joined:
        _check_needs(pair, np.flatnonzero(missing & ~(by_others & ~by_us)), theirs)
    s["binding"][theirs], s["undefined"][theirs], s["kind"][theirs] = STB_LOCAL, False, STT_NOTYPE
    if joined:
        _names(pair, s, by_us, by_others)
    gone: list[int] = np.flatnonzero(inside).tolist()
    return s, gone


def _used(after: Objects, ranges: tuple[Array, Array]) -> tuple[Array, Array]:
    """bool for each symbol of the result: whether our references name it, and whether others'.

    What unwind tables name is whoever's it is who refers to it besides.
    """
    tables = np.flatnonzero(after.targets >= 0)
    targets = after.targets[tables]
    loaded = after.sections["flags"][targets] & SHF_ALLOC != 0
    rows = after.relocations(tables[loaded & ~np.isin(targets, after.frame_sections)])
    foreign = among(ranges, (rows["section"] << STEP) + rows["offset"])
    used = np.zeros((2, len(after.symbols)), np.bool_)
    symbol = np.maximum(rows["symbol"], 0)
    used[0, symbol[~foreign]] = True
    used[1, symbol[foreign]] = True
    return used[0], used[1]


def _check_needs(pair: Pair, ours: Array, theirs: Array) -> None:
    """What is others' needs no name that the library would not need without it."""
    s = pair.after.symbols
    strong: dict[bytes, bool] = {}
    needed = s["binding"] != STB_WEAK
    for name, one in zip(pair.after.strings(s["name"][ours]), needed[ours].tolist(), strict=True):
        strong[name] = one or strong.get(name, False)
    for name, one in zip(
        pair.after.strings(s["name"][theirs]), needed[theirs].tolist(), strict=True
    ):
        if name not in strong or (one and not strong[name]):
            pair.findings.add("a name that only other libraries need is undefined", quoted(name))


def _names(pair: Pair, s: Array, by_us: Array, by_others: Array) -> None:
    """Names that libraries in one object have in common are, to this one, as it asks for them.

    What another one exports is undefined, or not there.
    """
    asked = encoded(pair.expectation.exports)
    before = pair.before.symbols
    outside = np.flatnonzero(before["undefined"] & (before["binding"] != STB_LOCAL))
    asks: dict[bytes, list[int]] = {}
    for row, name in zip(outside.tolist(), pair.before.names[outside].tolist(), strict=True):
        asks.setdefault(name, []).append(row)
    is_global = s["binding"] != STB_LOCAL
    shown = np.flatnonzero(is_global & ~(s["undefined"] & ~by_others))
    for row, name in zip(shown.tolist(), pair.after.strings(s["name"][shown]), strict=True):
        if not s["undefined"][row] and name in asked:
            continue
        rows = before[asks.get(name, [])]
        if not by_us[row] or not len(rows):
            if not s["undefined"][row]:
                s["binding"][row], s["kind"][row] = STB_LOCAL, STT_NOTYPE
            continue
        if not s["undefined"][row]:
            s["undefined"][row], s["section"][row], s["value"][row] = True, 0, 0
        if s["kind"][row] not in rows["kind"]:
            s["kind"][row] = rows["kind"][0]
        if s["other"][row] not in rows["other"]:
            s["other"][row] = rows["other"][0]
        if (rows["binding"] == STB_WEAK).all():
            s["binding"][row] = STB_WEAK


def homes_of(
    base: Array, loaded: Sequence[int], symbols: Sequence[int]
) -> frozenset[tuple[int, int]]:
    """(object, number in it) of symbols that are numbered through; object 0 is the library's own.

    `base`: the first of each object, `loaded` the numbers of those behind the first.
    """
    objects = (0, *(number + 1 for number in loaded))
    found = set()
    for row in symbols:
        position = int(np.searchsorted(base, row, side="right")) - 1
        found.add((objects[position], row - int(base[position])))
    return frozenset(found)


__all__ = ["Apart", "homes_of", "set_apart"]
