"""Which parts of debug information describe the program, and so are kept.

A part is a unit of `.debug_info`, a line program, a range list …, wherever a section can be taken
apart without reading what is in it: by the lengths in front of parts, or at the offsets that
relocations refer to. A unit is live if it, or a table of its own, refers to live code or data; what
live parts refer to is kept. Nothing inside of a part is read, so that versions and vendors'
attributes do not matter.

Sources: DWARF 5, sections 6.1, 6.2, 7.3 to 7.5, 7.26 to 7.29; DWARF 4, sections 2.6.2 and 2.17.3.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.formats.dwarf import initial_length
from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.model import Bool, Int64

UNITS = (b".debug_info", b".debug_types")
# tables about units: they are kept with these, and keep nothing
INDICES = (
    b".debug_aranges",
    b".debug_pubnames",
    b".debug_pubtypes",
    b".debug_gnu_pubnames",
    b".debug_gnu_pubtypes",
)
STRINGS = (b".debug_str", b".debug_line_str")
# parts with their length in front
_TABLES = (b".debug_line", b".debug_addr", b".debug_str_offsets")
_LISTS_5 = (b".debug_rnglists", b".debug_loclists")
_MEASURED = (*UNITS, *INDICES, *_TABLES, *_LISTS_5)
# parts without a header; those of the first two end with two words of zeros
_LISTS = (b".debug_ranges", b".debug_loc")
_HEADLESS = (*_LISTS, b".debug_abbrev")
_KNOWN = (*_MEASURED, *_HEADLESS, *STRINGS, b".debug_frame", b".debug_macro", b".debug_macinfo")
# it refers to all units of a file; and its tables are used by offsets that no relocation tells
_WHOLE = (b".debug_names", b".debug_cu_index", b".debug_tu_index")
_VERSIONS = range(2, 6)
_TYPE_UNITS = (2, 6)  # DW_UT_type, DW_UT_split_type
_SKELETON_UNITS = (4, 5)


@dataclass(frozen=True, slots=True)
class Section:
    """One debug section of a file: its name, size in bytes, contents and sources of relocations.

    `relocated` are the offsets of its relocations, sorted.
    """

    name: bytes
    size: int
    align: int
    contents: Callable[[], memoryview | bytes]
    relocated: Int64


def lengths(section: Section, order: str) -> tuple[list[int], list[bool]] | None:
    """(starts of the parts of a section, whether each is a type unit), by their lengths.

    None where that cannot be told: an unknown version, a length that a relocation supplies, bytes
    that belong to no part. Source: DWARF 5, section 7.4 (initial length), 7.5.1 (unit headers).
    """
    data = section.contents()
    starts, types = [], []
    position, size = 0, section.size
    while position < size:
        try:
            begin, end = initial_length(data, position, order)
            (version,) = struct.unpack_from(f"{order}H", data, begin)
        except struct.error:
            return None
        if end < begin + 2 or end > size or version not in _VERSIONS:
            return None
        kind = data[begin + 2] if version == 5 and section.name == UNITS[0] else 0
        if kind in _SKELETON_UNITS:
            return None
        starts.append(position)
        types.append(section.name == UNITS[1] or kind in _TYPE_UNITS)
        position = end
    inside = np.array(starts, np.int64)
    nearest = np.searchsorted(section.relocated, inside)
    nearest = np.minimum(nearest, len(section.relocated) - 1)
    if (
        len(section.relocated)
        and (section.relocated[nearest] - inside < 6)[section.relocated[nearest] >= inside].any()
    ):
        return None
    return starts, types


def is_simple(sections: Sequence[Section], order: str) -> bool:
    """Whether a file has one unit, so that all of its debug information lives or dies with it."""
    units = [s for s in sections if s.name in UNITS]
    if len(units) != 1 or units[0].size < 12:
        return len(units) < 2
    return initial_length(units[0].contents(), 0, order)[1] == units[0].size


def parts(
    sections: Sequence[Section], referenced: Sequence[Int64], word: int, order: str
) -> list[tuple[Int64, Bool]] | None:
    """(starts of the parts, whether each is a type unit) of each section of a file with many units.

    `referenced`: for each section the offsets that relocations of other sections refer to, sorted.
    None where the file can only be kept as a whole.
    """
    divided: list[tuple[Int64, Bool]] = []
    for section, offsets in zip(sections, referenced, strict=True):
        starts, types = np.zeros(1, np.int64), np.zeros(1, np.bool_)
        if section.name in _WHOLE:
            return None
        if section.size and section.align == 1 and section.name in _MEASURED:
            measured = lengths(section, order)
            if measured is not None:
                starts, types = np.array(measured[0], np.int64), np.array(measured[1], np.bool_)
            elif section.name in UNITS or section.name == b".debug_addr":
                return None
        elif section.size and section.align == 1 and section.name in _HEADLESS:
            starts = _referenced_parts(section, offsets, word)
            types = np.zeros(len(starts), np.bool_)
        divided.append((starts, types))
    return divided


def _referenced_parts(section: Section, offsets: Int64, word: int) -> Int64:
    """Parts begin where they are referred to, if what lies before is complete."""
    inside = unique(offsets[(offsets > 0) & (offsets < section.size)])
    width = 2 * word if section.name in _LISTS else 1
    inside = inside[inside >= width]
    octets = np.frombuffer(section.contents(), np.uint8)
    good = ~octets[inside[:, None] - np.arange(1, width + 1)].any(axis=1)
    if section.name in _LISTS:
        # zeros that a relocation changes are an entry
        first = np.searchsorted(section.relocated, inside - width)
        good &= first == np.searchsorted(section.relocated, inside)
    return np.concatenate((np.zeros(1, np.int64), inside[good]))


@dataclass(frozen=True, slots=True)
class Graph:
    """Parts and how they refer to each other.

    By part: `file` it belongs to, what it is (`unit`, `type_unit`, `index`, `unknown`: bool),
    and whether it refers to live code or data (`live`). `source`, `target`: references.
    """

    file: Int64
    unit: Bool
    type_unit: Bool
    index: Bool
    unknown: Bool
    live: Bool
    source: Int64
    target: Int64


def kept(graph: Graph) -> Bool:
    """Which parts are kept: bool for each."""
    live = graph.live.copy()
    # a unit's ranges, locations, lines and addresses speak for it
    tables = graph.unit[graph.source] & ~graph.unit[graph.target] & live[graph.target]
    live[graph.source[tables]] = True
    follows = ~graph.index[graph.source] | live[graph.source]
    source, target = graph.source[follows], graph.target[follows]
    chosen = reached(live, source, target)
    # type units are referred to by their signature, which no relocation tells
    files = np.zeros(int(graph.file.max(initial=-1)) + 1, np.bool_)
    files[graph.file[chosen]] = True
    more = (graph.type_unit | graph.unknown) & files[graph.file] & ~chosen
    if more.any():
        chosen = reached(chosen | more, source, target)
    about = graph.index[graph.source] & graph.unit[graph.target] & chosen[graph.target]
    chosen[graph.source[about]] = True
    return reached(chosen, graph.source, graph.target)


def reached(start: Bool, source: Int64, target: Int64) -> Bool:
    """What can be reached from where `start` is set, by references from `source` to `target`."""
    there: Bool = start.copy()
    while True:
        new = target[there[source] & ~there[target]]
        if not len(new):
            return there
        there[new] = True


def live_strings(contents: memoryview | bytes, offsets: Int64) -> tuple[Int64, Int64] | None:
    """(starts, sizes) of the strings, with their ends, that `offsets` (sorted) refer to.

    A string that begins within another one is part of it. None where an offset has no string.
    """
    octets = np.frombuffer(contents, np.uint8)
    ends = np.flatnonzero(octets == 0) + 1
    which = np.searchsorted(ends, offsets, side="right")
    if len(which) and (int(which[-1]) >= len(ends) or int(offsets[0]) < 0):
        return None
    first = np.ones(len(which), np.bool_)
    first[1:] = which[1:] != which[:-1]
    starts = offsets[first]
    return starts, ends[which[first]] - starts


def is_known(name: bytes) -> bool:
    """Whether a section is one that only the other sections give a meaning to."""
    return name in _KNOWN
