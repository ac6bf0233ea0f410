"""DWARF: each section of it is the original's, and none of a member that code is from is lost.

Nothing of DWARF is read here but where relocations are: a section is kept byte for byte but for
their fields, each of them refers to where its target went, and one whose target is gone holds a
tombstone. Sources: DWARF 5, section 2.17.3 (what ends a list); Microsoft PE/COFF specification,
"Type Indicators" (SECREL counts from a section's start).
"""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.verify.coff.compare import (
    Made,
    References,
    clear,
    file_places,
    references_after,
)
from cargo_strip_hook.verify.coff.machine import HALF, addends
from cargo_strip_hook.verify.coff.places import (
    NAME,
    NOWHERE,
    PLACE,
    STEP,
    Definitions,
    Pair,
    alignment,
    fallback,
    meanings,
    shown,
)
from cargo_strip_hook.verify.coff.read import Array, Object

_DWARF = b".debug_"
# lists that a zero would end early: their dead entries hold a one
_ONE = (b".debug_ranges", b".debug_loc")


def part(o: Object, link_map: Array) -> tuple[Array, Array]:
    """(rows of code and data, rows of debug information)."""
    debug = np.array([name.startswith(_DWARF) for name in o.names], np.bool_)
    inside = (link_map["out_section"] > 0) & (link_map["out_section"] < len(debug))
    about = inside & debug[np.where(inside, link_map["out_section"], 0)]
    return link_map[~about], link_map[about]


def check(pair: Pair, found: Definitions, made: Made, rows: Array) -> None:
    """`rows`: PLACEMENT of debug information; they tell of whole sections."""
    if not _check_rows(pair, rows):
        return
    after = pair.after
    tables = np.array([name.startswith(_DWARF) for name in after.names], np.bool_)
    result = references_after(pair, after.relocations[tables[after.relocations["section"]]])
    order = np.argsort(result.place, kind="stable")
    for name in ("place", "type", "kind", "base", "addend"):
        setattr(result, name, getattr(result, name)[order])
    known = np.zeros(len(result.place), np.bool_)
    copy = after.raw.copy()
    for m, o in enumerate(pair.objects):
        mine = rows[rows["member"] == pair.indices[m]]
        base = np.full(len(o.sections), -1, np.int64)
        base[mine["section"]] = (mine["out_section"].astype(np.int64) << STEP) + mine["out_offset"]
        _check_member(pair, found, made, m, base, result, known, copy, mine)
    for place in result.place[~known][:8].tolist():
        pair.findings.add(
            "debug information", f"has a relocation of its own at {pair.where(place)}"
        )


def _check_rows(pair: Pair, rows: Array) -> bool:
    """Sections went to one of their name, whole and aligned; nothing else is there."""
    after, add = pair.after, pair.findings.add
    position = np.searchsorted(np.array(pair.indices), rows["member"])
    for m, row in zip(position.tolist(), rows.tolist(), strict=True):
        _, section, offset, size, out_section, out_offset = row
        if m >= len(pair.objects) or pair.indices[m] != row[0]:
            add("debug information", "is of a member that no code is from")
            continue
        o = pair.objects[m]
        good = 0 < section < len(o.sections) and o.names[section] == after.names[out_section]
        good = good and offset == 0 and size == int(o.sections["size"][section])
        good = good and 0 <= out_offset <= int(after.sections["size"][out_section]) - size
        if good:
            align = int(alignment(o.sections["flags"][section].astype(np.int64)))
            good = out_offset % align == 0
        if not good:
            add("debug information", f"{pair.titles[m]} is in a wrong place")
    if pair.findings:
        return False
    place = (rows["out_section"].astype(np.int64) << STEP) + rows["out_offset"]
    order = np.argsort(place, kind="stable")
    order = order[rows["size"][order] > 0]
    overlap = place[order][1:] < (place + rows["size"])[order][:-1]
    if overlap.any():
        add("debug information", f"overlaps at {pair.where(int(place[order][1:][overlap][0]))}")
    there = set(zip(rows["member"].tolist(), rows["section"].tolist(), strict=True))
    for m, o in enumerate(pair.objects):
        for number in range(1, len(o.names)):
            about = o.names[number].startswith(_DWARF) and o.sections["size"][number]
            if about and (pair.indices[m], number) not in there:
                text = f"{shown(o.names[number])} of {pair.titles[m]} is lost"
                add("debug information", text)
    return not pair.findings


def _check_member(
    pair: Pair,
    found: Definitions,
    made: Made,
    member: int,
    base: Array,
    result: References,
    known: Array,
    copy: Array,
    rows: Array,
) -> None:
    """Relocations and bytes of one member's debug information. Marks `known`, clears `copy`.

    `base`: where each of its sections of debug information is, -1 for others.
    """
    o, after = pair.objects[member], pair.after
    relocations = o.relocations[base[o.relocations["section"]] >= 0]
    relocations = relocations[relocations["type"] != 0]
    place = base[relocations["section"]] + relocations["offset"]
    number, masks, _ = addends(o.machine, relocations["type"], relocations["field"])
    symbol = relocations["symbol"]
    meaning = meanings(pair, found, member)
    kind, start = meaning.kind[symbol].copy(), meaning.base[symbol].copy()
    home = o.symbols["section"][symbol].astype(np.int64)
    value = o.symbols["value"][symbol].astype(np.int64)
    debug = (home > 0) & (base[np.maximum(home, 0)] >= 0)
    kind[debug], start[debug] = PLACE, base[home[debug]] + value[debug]
    # of a COMDAT that another member's was taken for: that one, or none
    here = np.zeros(len(symbol), np.bool_)
    inside = np.flatnonzero((home > 0) & ~debug)
    here[inside] = pair.find(member, home[inside], value[inside]) >= 0
    gone = (home > 0) & ~debug & ~here
    gone |= (kind == NAME) & np.isin(start, list(found.defined))
    gone |= (kind == NAME) & np.isin(start, list(found.common.keys() - made.common.keys()))
    for i in np.flatnonzero((kind == NAME) & ~gone).tolist():
        if int(start[i]) in made.common:
            kind[i], start[i] = PLACE, made.common[int(start[i])]
        elif int(start[i]) in found.fallback:
            kind[i], start[i] = fallback(pair, found, int(start[i]))
    at = np.searchsorted(result.place, place)
    near = np.minimum(at, max(len(result.place) - 1, 0))
    match = np.zeros(len(at), np.bool_)
    if len(result.place):
        match = result.place[near] == place
    known[near[match]] = True
    _tell(pair, place[~match & ~gone & (kind != NOWHERE)], "has lost its relocation")

    near, chosen = near[match], np.flatnonzero(match)
    half = masks[chosen] == HALF
    target = start[chosen] + number[chosen]
    same = result.type[near] == relocations["type"][chosen]
    exact = np.where(
        half, result.target[near] >> STEP == target >> STEP, result.target[near] == target
    )
    named = (result.base[near] == start[chosen]) & (result.addend[near] == number[chosen])
    exact = np.where(kind[chosen] == NAME, named, exact)
    # an export is told by its name, too
    same &= (result.kind[near] == kind[chosen]) & exact & (kind[chosen] != NOWHERE)
    _tell(pair, place[chosen[~same]], "refers to another place than in the original")

    dead = np.flatnonzero(~match)
    fields = file_places(after, place)
    octets = np.ascontiguousarray(after.raw[fields[dead, None] + np.arange(8)]).view("<u8").ravel()
    names = np.array([name in _ONE for name in after.names], np.uint64)
    wrong = octets & masks[dead] != names[place[dead] >> STEP]
    _tell(pair, place[dead[wrong]], "refers to what is gone, but holds no tombstone")

    raw = o.raw.copy()
    clear(raw, o.sections["offset"][relocations["section"]] + relocations["offset"], masks)
    clear(copy, fields, masks)
    for _, section, _, size, out_section, out_offset in rows.tolist():
        begin, at_ = int(o.sections["offset"][section]), int(after.sections["offset"][out_section])
        at_ += out_offset
        if raw[begin : begin + size].tobytes() != copy[at_ : at_ + size].tobytes():
            text = f"{shown(o.names[section])} of {pair.titles[member]}"
            pair.findings.add("debug information", f"{text} differs from the original")


def _tell(pair: Pair, places: Array, what: str) -> None:
    for place in places[:4].tolist():
        pair.findings.add("debug information", f"at {pair.where(place)} {what}")
    pair.findings.more("debug information", len(places) - 4)


__all__ = ["check", "part"]
