"""Sections of strings and constants of which the placement tells piece by piece.

A linker may keep one of equal elements, and may drop those that nothing refers to; so may an
engine. Source: gABI, "Sections", SHF_MERGE and SHF_STRINGS. As linkers agree, the addend to a
section's own symbol says which element is meant; any other one is a distance from the symbol.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.verify.arrays import Array, nearest, unique
from cargo_strip_hook.verify.elf.read import (
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_MERGE,
    SHF_STRINGS,
    SHF_WRITE,
    SHT_PROGBITS,
    STEP,
    Objects,
)
from cargo_strip_hook.verify.expectation import Findings


@dataclass(frozen=True, eq=False)
class Cut:
    """The pieces, sorted: `start` in the original, `size` (bytes), `location` in the result.

    `is_cut` tells of each section whether it came in pieces, `merges` whether linkers merge its
    elements.
    """

    start: Array
    size: Array
    location: Array
    is_cut: Array
    merges: Array

    def find(self, section: Array, offset: Array) -> tuple[Array, Array]:
        """(place of the piece that holds a byte, its offset there); place -1 where it is gone."""
        if not len(self.start):
            nothing = np.full(len(section), -1, np.int64)
            return nothing, np.zeros(len(section), np.int64)
        wanted = (section << STEP) + offset
        at, within = nearest(self.start, wanted)
        held = (within >= 0) & (within < self.size[at])
        return np.where(held, self.location[at], -1), np.where(held, within, 0)


def cut(before: Objects, rows: Array, section: Array, location: Array, findings: Findings) -> Cut:
    """Take the pieces in; `rows` of the placement are of `section` and went to `location`."""
    is_cut = np.zeros(len(before.sections), np.bool_)
    is_cut[section] = True
    start = (section << STEP) + rows["offset"]
    order = np.argsort(start, kind="stable")
    start, size = start[order], rows["size"][order].astype(np.int64)
    numbers = section[order]
    every = before.sections
    merges = every["flags"] & (SHF_MERGE | SHF_WRITE | SHF_EXECINSTR) == SHF_MERGE
    plain = (every["type"] == SHT_PROGBITS) | (every["flags"] & SHF_ALLOC == 0)
    merges &= plain & (every["entsize"] > 0)
    merges[before.targets[before.targets >= 0]] = False
    found = Cut(start, size, location[order], is_cut, merges)
    facts = every[numbers]
    bad = ~merges[numbers]
    ends = start + size
    offset = rows["offset"][order].astype(np.int64)
    bad |= (size <= 0) | (offset < 0) | (offset + size > facts["size"])
    bad[1:] |= start[1:] < ends[:-1]
    _report(before, findings, numbers[bad], "cannot come in these pieces")
    if not bad.any():
        torn = _torn(before, numbers, offset, size)
        _report(before, findings, numbers[torn], "is torn in the middle of an element")
    return found


def _torn(before: Objects, section: Array, offset: Array, size: Array) -> Array:
    """Which pieces do not begin or end where an element does."""
    facts = before.sections[section]
    entry = facts["entsize"].astype(np.int64)
    torn = (offset % entry != 0) | (size % entry != 0)
    for number in unique(section[facts["flags"] & SHF_STRINGS != 0]).tolist():
        mine = np.flatnonzero(section == number)
        width = int(before.sections["entsize"][number])
        contents = bytes(before.contents(number))
        for i in mine.tolist():
            first, end = int(offset[i]), int(offset[i] + size[i])
            for border in (first, end):
                inside = 0 < border < len(contents)
                if inside and any(contents[border - width : border]):
                    torn[i] = True
    return np.asarray(torn)


def _report(before: Objects, findings: Findings, sections: Array, what: str) -> None:
    for number in unique(sections)[:3].tolist():
        findings.add("placement", f"{before.section_name(number)} {what}")


__all__ = ["Cut", "cut"]
