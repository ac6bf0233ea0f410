"""Groups of sections of which linkers keep one, whichever comes first: COMDAT.

Source: gABI, "Section Groups"; GNU ld for `.gnu.linkonce.` sections, which are groups of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.verify.arrays import Array, gather, spread
from cargo_strip_hook.verify.elf.read import SHT_GROUP, STT_SECTION, Objects
from cargo_strip_hook.verify.expectation import Findings

_GRP_COMDAT = 1


@dataclass(frozen=True, eq=False)
class Members:
    """The COMDAT groups' members: `section[i]` (over all objects) is in group `group[i]`.

    `signature[g]` is the name that group `g` has in common with others.
    """

    section: Array
    group: Array
    signature: list[bytes]


def members(objects: Objects) -> Members:
    """All COMDAT groups. Raises `IndexError` for members that the file does not have."""
    s = objects.sections
    tables = np.flatnonzero((s["type"] == SHT_GROUP) & (s["size"] >= 4))
    word = np.dtype(f"{objects.layouts.order}u4")
    flags = gather(objects.data, s["offset"][tables], word)
    tables = tables[flags & _GRP_COMDAT != 0]
    counts = s["size"][tables] // 4 - 1
    locations = spread(s["offset"][tables] + 4, counts, 4)
    owner = s["object"][tables].astype(np.int64)
    group = np.repeat(np.arange(len(tables)), counts)
    number = gather(objects.data, locations, word).astype(np.int64)
    if (number >= np.diff(objects.section_base)[owner[group]]).any():
        raise IndexError("a group has a member that is no section")
    section = objects.section_base[owner[group]] + number
    symbol = objects.symbol_base[owner] + s["info"][tables]
    if (symbol >= objects.symbol_base[owner + 1]).any():
        raise IndexError("a group has no signature")
    name = objects.symbols["name"][symbol]
    by_section = objects.symbols["kind"][symbol] == STT_SECTION
    home = np.maximum(objects.symbols["section"][symbol], 0)
    name = np.where(by_section, s["name"][home], name)
    once = np.flatnonzero(objects.names_begin(b".gnu.linkonce."))
    return Members(
        np.concatenate([section, once]),
        np.concatenate([group, np.arange(len(once)) + len(tables)]),
        objects.strings(np.concatenate([name, s["name"][once]])),
    )


def beaten(objects: Objects, row: Array, findings: Findings | None) -> Array:
    """bool for each section: another group of the same name took its place.

    `row`: see `Pair`. Sections of two groups of one name in the result are a finding, where
    `findings` is given.
    """
    lost = np.zeros(len(objects.sections), np.bool_)
    found = members(objects)
    if not len(found.section):
        return lost
    placed = (row[found.section] >= 0) & (objects.sections["size"][found.section] > 0)
    here = np.zeros(len(found.signature), np.bool_)
    here[found.group[placed]] = True
    winner: dict[bytes, int] = {}
    for number in np.flatnonzero(here).tolist():
        name = found.signature[number]
        if winner.setdefault(name, number) != number and findings is not None:
            findings.add("two groups of one name", name.decode("utf-8", "replace"))
    gone = [
        not is_here and name in winner
        for is_here, name in zip(here.tolist(), found.signature, strict=True)
    ]
    lost[found.section[np.array(gone, np.bool_)[found.group]]] = True
    return lost


__all__ = ["Members", "beaten", "members"]
