"""DWARF: each section of it is the original's, and none of a member that code is from is lost.

Nothing of DWARF is read here but where relocations are: a section is kept byte for byte but for
their fields, each of them refers to where its target went, and one whose target is gone holds a
tombstone. Sources: DWARF 5, section 2.17.3 (what ends a list); Microsoft PE/COFF specification,
"Type Indicators" (SECREL counts from a section's start).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.verify.coff.compare import (
    Made,
    References,
    by_location,
    clear,
    file_locations,
    references_after,
    take,
)
from cargo_strip_hook.verify.coff.locations import (
    LOCATION,
    NAME,
    NOWHERE,
    STEP,
    Definitions,
    Pair,
    alignment,
    fallback,
    meanings,
)
from cargo_strip_hook.verify.coff.machine import HALF, addends
from cargo_strip_hook.verify.coff.read import Array, Object
from cargo_strip_hook.verify.kit.names import shown

_DWARF = b".debug_"
# lists that a zero would end early: their dead entries hold a one
_ONE = (b".debug_ranges", b".debug_loc")


def part(o: Object, link_map: Array) -> tuple[Array, Array]:
    """(rows of code and data, rows of debug information)."""
    debug = np.array([name.startswith(_DWARF) for name in o.names], np.bool_)
    inside = (link_map["out_section"] > 0) & (link_map["out_section"] < len(debug))
    about = inside & debug[np.where(inside, link_map["out_section"], 0)]
    return link_map[~about], link_map[about]


def check(pair: Pair, definitions: Definitions, made: Made, rows: Array) -> None:
    """`rows`: PLACEMENT of debug information; they tell of whole sections."""
    if not _check_rows(pair, rows):
        return
    after = pair.after
    tables = np.array([name.startswith(_DWARF) for name in after.names], np.bool_)
    relocations = after.relocations[tables[after.relocations["section"]]]
    result = by_location(references_after(pair, relocations))
    known = np.zeros(len(result.location), np.bool_)
    copy = after.raw.copy()
    for m, o in enumerate(pair.objects):
        mine = rows[rows["member"] == pair.indices[m]]
        base = np.full(len(o.sections), -1, np.int64)
        base[mine["section"]] = (mine["out_section"].astype(np.int64) << STEP) + mine["out_offset"]
        fields = _fields(pair, definitions, made, m, base)
        location = fields.wanted.location
        near = np.minimum(
            np.searchsorted(result.location, location), max(len(result.location) - 1, 0)
        )
        match = np.zeros(len(location), np.bool_)
        if len(result.location):
            match = result.location[near] == location
        known[near[match]] = True
        _check_references(pair, fields, match, take(result, near[match]))
        clear(copy, file_locations(after, location), fields.masks)
        _check_bytes(pair, m, fields, mine, copy)
    for location in result.location[~known][:8].tolist():
        pair.findings.add(
            "debug information", f"has a relocation of its own at {pair.where(location)}"
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
    location = (rows["out_section"].astype(np.int64) << STEP) + rows["out_offset"]
    order = np.argsort(location, kind="stable")
    order = order[rows["size"][order] > 0]
    overlap = location[order][1:] < (location + rows["size"])[order][:-1]
    if overlap.any():
        add("debug information", f"overlaps at {pair.where(int(location[order][1:][overlap][0]))}")
    there = set(zip(rows["member"].tolist(), rows["section"].tolist(), strict=True))
    for m, o in enumerate(pair.objects):
        for number in range(1, len(o.names)):
            about = o.names[number].startswith(_DWARF) and o.sections["size"][number]
            if about and (pair.indices[m], number) not in there:
                text = f"{shown(o.names[number])} of {pair.titles[m]} is lost"
                add("debug information", text)
    return not pair.findings


@dataclass(frozen=True, eq=False)
class _Fields:
    """The relocated fields of one member's debug information: a value for each."""

    wanted: References  # where it is in the result, and what it should refer to there
    file_offset: Array  # int64: where it is in the member's file
    masks: Array  # uint64: the bits of its eight bytes that the relocation sets
    gone: Array  # bool: what it refers to is not in the result


def _fields(pair: Pair, definitions: Definitions, made: Made, member: int, base: Array) -> _Fields:
    """Find what the fields of one member's debug information should refer to in the result.

    `base`: int64 for each section of the member: where its debug information is, -1 for others.
    """
    o = pair.objects[member]
    relocations = o.relocations[base[o.relocations["section"]] >= 0]
    relocations = relocations[relocations["type"] != 0]
    number, masks, _ = addends(o.machine, relocations["type"], relocations["field"])
    symbol = relocations["symbol"]
    meaning = meanings(pair, definitions, member)
    kind, start = meaning.kind[symbol].copy(), meaning.base[symbol].copy()
    home = o.symbols["section"][symbol].astype(np.int64)
    value = o.symbols["value"][symbol].astype(np.int64)
    debug = (home > 0) & (base[np.maximum(home, 0)] >= 0)
    kind[debug], start[debug] = LOCATION, base[home[debug]] + value[debug]
    # of a COMDAT that another member's was taken for: that one, or none
    here = np.zeros(len(symbol), np.bool_)
    inside = np.flatnonzero((home > 0) & ~debug)
    here[inside] = pair.find(member, home[inside], value[inside]) >= 0
    gone = (home > 0) & ~debug & ~here
    gone |= (kind == NAME) & np.isin(start, list(definitions.defined))
    gone |= (kind == NAME) & np.isin(start, list(definitions.common.keys() - made.common.keys()))
    for i in np.flatnonzero((kind == NAME) & ~gone).tolist():
        if int(start[i]) in made.common:
            kind[i], start[i] = LOCATION, made.common[int(start[i])]
        elif int(start[i]) in definitions.fallback:
            kind[i], start[i] = fallback(pair, definitions, int(start[i]))
    location = base[relocations["section"]] + relocations["offset"]
    file_offset = o.sections["offset"][relocations["section"]] + relocations["offset"]
    wanted = References(location, relocations["type"], kind, start, number)
    return _Fields(wanted, file_offset, masks, gone)


def _check_references(pair: Pair, fields: _Fields, match: Array, result: References) -> None:
    """`match` (bool): whether a field has a relocation in the result; `result`: these, in order."""
    wanted, after = fields.wanted, pair.after
    lost = ~match & ~fields.gone & (wanted.kind != NOWHERE)
    _tell(pair, wanted.location[lost], "has lost its relocation")

    kept = take(wanted, match)
    exact = np.where(
        fields.masks[match] == HALF,
        result.target >> STEP == kept.target >> STEP,
        result.target == kept.target,
    )
    named = (result.base == kept.base) & (result.addend == kept.addend)
    exact = np.where(kept.kind == NAME, named, exact)
    # an export is told by its name, too
    same = (result.type == kept.type) & (result.kind == kept.kind) & exact & (kept.kind != NOWHERE)
    _tell(pair, kept.location[~same], "refers to another place than in the original")

    dead = wanted.location[~match]
    octets = after.raw[file_locations(after, dead)[:, None] + np.arange(8)]
    values = np.ascontiguousarray(octets).view("<u8").ravel()
    tombstones = np.array([name in _ONE for name in after.names], np.uint64)
    wrong = values & fields.masks[~match] != tombstones[dead >> STEP]
    _tell(pair, dead[wrong], "refers to what is gone, but holds no tombstone")


def _check_bytes(pair: Pair, member: int, fields: _Fields, rows: Array, copy: Array) -> None:
    """One member's debug information is as it was but for its relocated fields.

    `rows`: its PLACEMENT; `copy`: the bytes of the result, these fields zero.
    """
    o = pair.objects[member]
    raw = o.raw.copy()
    clear(raw, fields.file_offset, fields.masks)
    for _, section, _, size, out_section, out_offset in rows.tolist():
        begin = int(o.sections["offset"][section])
        out_begin = int(pair.after.sections["offset"][out_section]) + out_offset
        if raw[begin : begin + size].tobytes() != copy[out_begin : out_begin + size].tobytes():
            text = f"{shown(o.names[section])} of {pair.titles[member]}"
            pair.findings.add("debug information", f"{text} differs from the original")


def _tell(pair: Pair, locations: Array, what: str) -> None:
    for location in locations[:4].tolist():
        pair.findings.add("debug information", f"at {pair.where(location)} {what}")
    pair.findings.more("debug information", len(locations) - 4)


__all__ = ["check", "part"]
