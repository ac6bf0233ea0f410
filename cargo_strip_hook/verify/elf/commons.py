"""Former commons: data that no file holds, each of which got room of its own.

Source: gABI, "Symbol Table", SHN_COMMON: `st_value` is the alignment, `st_size` the size; the
largest of each counts.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from cargo_strip_hook.verify.arrays import Array
from cargo_strip_hook.verify.elf.mapping import Kind, Pair, Resolution
from cargo_strip_hook.verify.elf.read import (
    IN_COMMON,
    SHF_ALLOC,
    SHF_TLS,
    SHF_WRITE,
    SHT_NOBITS,
    STB_GLOBAL,
    STB_LOCAL,
    STEP,
    STT_TLS,
)
from cargo_strip_hook.verify.kit.names import quoted

_NAMES = (".bss", ".sbss", ".lbss", ".tbss", "COMMON", "LARGE_COMMON")  # GNU ld's default script
_LARGE = 0x10000000  # SHF_X86_64_LARGE


def check(pair: Pair, resolution: Resolution, definitions: dict[bytes, int]) -> None:
    """Each common has zeros of its size and alignment, and nothing else is there.

    `definitions`: the symbol number of each global definition of the result. To be called when all
    references are compared: these say where the commons are.
    """
    s, after = pair.before.symbols, pair.after
    numbers = np.flatnonzero((s["section"] == IN_COMMON) & (s["binding"] != STB_LOCAL))
    names = sorted(set(pair.before.names[numbers].tolist()))
    room: list[tuple[int, int, bytes]] = []
    for name in names:
        rivals = resolution.definitions.get(name, [])
        strong = [
            i for i in rivals if s["binding"][i] == STB_GLOBAL and s["section"][i] != IN_COMMON
        ]
        commons = s[[i for i in rivals if s["section"][i] == IN_COMMON]]
        if strong or not len(commons):
            continue
        size, align = int(commons["size"].max()), max(1, int(commons["value"].max()))
        location = resolution.export_location.get(resolution.names.number.get(name, -1))
        shown = after.symbols[definitions[name]] if name in definitions else None
        if shown is not None and shown["section"] == IN_COMMON:
            if shown["size"] < size or shown["value"] < align:
                pair.findings.add("a common symbol became smaller", quoted(name))
            continue
        if shown is not None and shown["section"] > 0:
            home = int(shown["section"] << STEP) + int(shown["value"])
            if location is not None and location != home:
                pair.findings.add("a common symbol is in two places", quoted(name))
            location = home
        if location is None:  # nothing refers to it
            continue
        thread = bool((commons["kind"] == STT_TLS).any())
        if not _fits(pair, location, size, align, thread=thread):
            where = pair.where_after(location)
            pair.findings.add("a common symbol has no room", f"{quoted(name)} at {where}")
        if 0 < location >> STEP < len(after.sections):
            room.append((location, size, name))
    _check_apart(pair, room)


def _fits(pair: Pair, location: int, size: int, align: int, *, thread: bool) -> bool:
    """Whether there are zeros of the kind that a common is, aligned as it was."""
    number, offset = location >> STEP, location & ((1 << STEP) - 1)
    if not 0 < number < len(pair.after.sections):
        return False
    section = pair.after.sections[number]
    flags = SHF_WRITE | SHF_ALLOC | (SHF_TLS if thread else 0)
    return bool(
        section["type"] == SHT_NOBITS
        and section["flags"] & ~_LARGE == flags
        and offset + size <= section["size"]
        and offset % align == 0
        and section["align"] >= align
        and pair.after.section_name(number).startswith(_NAMES)
    )


def _check_apart(pair: Pair, room: list[tuple[int, int, bytes]]) -> None:
    """Nothing else lies where a common does, and there is no more room than they take."""
    if not room or not pair.complete:
        return
    after, rows = pair.after.sections, pair.link_map
    end = np.zeros(len(after), np.int64)
    np.maximum.at(end, rows["out_section"], rows["out_offset"] + rows["size"])
    for location, size, _ in room:
        number = location >> STEP
        end[number] = max(end[number], (location & ((1 << STEP) - 1)) + size)
    if pair.expectation.covers_debug:  # a platform's linker gives room to dead ones, too
        zeros = (after["type"] == SHT_NOBITS) & (after["flags"] & SHF_ALLOC != 0)
        more = np.flatnonzero(zeros & (after["size"] > end))
        pair.findings.each("zeros that no input explains", more << STEP, pair.where_after)
    starts, ends = pair.location, pair.location + pair.link_map["size"]
    room.sort()
    for (location, size, _), (following, _, name) in pairwise(room):
        if location + size > following:
            pair.findings.add("a common symbol is in another's place", quoted(name))
    for location, size, name in room:
        if bool(((starts < location + size) & (location < ends)).any()):
            pair.findings.add("a common symbol is in the place of a piece", quoted(name))


def locations(pair: Pair, resolution: Resolution) -> tuple[Array, Array]:
    """The symbols of the original that are commons with a known place, and these places (int64)."""
    s = pair.before.symbols
    numbers = np.flatnonzero((s["section"] == IN_COMMON) & (s["binding"] != STB_LOCAL))
    number_of, location_of = resolution.names.number, resolution.export_location
    found = [
        location_of.get(number_of.get(name, -1), -1) for name in pair.before.names[numbers].tolist()
    ]
    own = resolution.own
    placed = own.kind[numbers] == Kind.LOCATION
    where = np.where(placed, own.base[numbers], np.array(found, np.int64).reshape(-1))
    return numbers[where >= 0], where[where >= 0]


__all__ = ["check", "locations"]
