"""What is wrong with a COFF object by itself: asked for where a result is not what it should be.

Sources: Microsoft PE/COFF specification, "COFF Relocations", "Auxiliary Format 5: Section
Definitions", "COMDAT Sections", "The .pdata Section"; CodeView's cvinfo.h (signature of 4).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.verify.coff.machine import KINDS, UNWOUND
from cargo_strip_hook.verify.coff.read import (
    ASSOCIATIVE,
    BSS,
    COMDAT,
    EXTERNAL,
    LABEL,
    NODUPLICATES,
    STATIC,
    WEAK,
    Damaged,
    Object,
    read,
)
from cargo_strip_hook.verify.expectation import Damage
from cargo_strip_hook.verify.kit.names import shown

_OBJECTS = (b"\x4c\x01", b"\x64\x86", b"\x64\xaa", b"\0\0")
_LATER = 7  # IMAGE_COMDAT_SELECT_NEWEST, which no linker of today has


def damages(original: Archive, used: Collection[int] | None) -> Iterator[Damage]:
    """What is wrong with the members `used`; with all objects where that is None."""
    for member in original.members:
        data = original.data(member)
        plain = bytes(data[:2]) in _OBJECTS and bytes(data[:6]) != b"\0\0\xff\xff\0\0"
        if member.index in used if used is not None else plain:
            try:
                for what in _of_object(read(data)):
                    yield Damage(member.name, what)
            except (Damaged, IndexError) as e:
                yield Damage(member.name, str(e))


def _of_object(o: Object) -> Iterator[str]:
    yield from _symbols(o)
    yield from _relocations(o)
    yield from _comdats(o)
    yield from _sections(o)


def _symbols(o: Object) -> Iterator[str]:
    symbols = o.symbols
    own = np.flatnonzero(~o.auxiliary)
    placed = own[symbols["section"][own] > 0]
    placed = placed[np.isin(symbols["class"][placed], (EXTERNAL, STATIC, LABEL))]
    size = o.sections["size"][symbols["section"][placed]]
    for i in placed[symbols["value"][placed] > size].tolist():
        yield f"the symbol {shown(o.name(i))} lies outside of its section"
    known = np.isin(symbols["class"][own], (EXTERNAL, STATIC, LABEL, WEAK, 101, 103, 104, 107))
    for i in own[~known].tolist():
        yield f"the symbol {shown(o.name(i))} has the class {int(symbols['class'][i])}"
    for i in own[(symbols["class"][own] == WEAK) & (symbols["aux"][own] > 0)].tolist():
        default = int.from_bytes(o.auxiliary_of(i)[:4], "little")
        if default >= len(symbols) or o.auxiliary[default]:
            yield f"the weak external {shown(o.name(i))} has no default"


def _relocations(o: Object) -> Iterator[str]:
    rows = o.relocations
    widths = np.full(0x1_0000, -1, np.int64)
    widths[0] = 0  # IMAGE_REL_*_ABSOLUTE: nothing is changed
    for kind, about in KINDS[o.machine].items():
        widths[kind] = about.width
    width = widths[rows["type"]]
    for i in np.flatnonzero(width < 0)[:4].tolist():
        yield f"a relocation of {_location(o, rows[i])} has the type {int(rows['type'][i])}"
    end = rows["offset"] + np.maximum(width, 0)
    over = end > o.sections["size"][rows["section"]]
    for i in np.flatnonzero(over)[:4].tolist():
        yield f"a relocation at {_location(o, rows[i])} reaches over its section's end"
    order = np.lexsort((rows["offset"], rows["section"]))
    order = order[width[order] > 0]
    first, second = order[:-1], order[1:]
    same = rows["section"][first] == rows["section"][second]
    for i in second[same & (end[first] > rows["offset"][second])][:4].tolist():
        yield f"two relocations overlap at {_location(o, rows[i])}"


def _location(o: Object, row: np.void) -> str:
    return f"{shown(o.names[int(row['section'])])}+{int(row['offset']):#x}"


def _comdats(o: Object) -> Iterator[str]:
    for number in np.flatnonzero(o.sections["flags"] & COMDAT).tolist():
        name = shown(o.names[number])
        selection, other, _ = o.selections.get(number, (0, 0, -1))
        if not NODUPLICATES <= selection <= _LATER:
            yield f"the COMDAT {name} has the selection {selection}"
        elif selection == ASSOCIATIVE and not 0 < other < len(o.sections):
            yield f"the COMDAT {name} is associated to no section"
        elif selection == ASSOCIATIVE and other == number:
            yield f"the COMDAT {name} is associated to itself"


def _sections(o: Object) -> Iterator[str]:
    s = o.sections
    stored = (s["flags"] & BSS == 0) & (s["size"] > 0)
    stored[0] = False
    for number in np.flatnonzero(stored & (s["offset"] == 0)).tolist():
        yield f"the section {shown(o.names[number])} has no contents"
    with_relocations = set(np.unique(o.relocations["section"]).tolist())
    for number in np.flatnonzero(stored).tolist():
        bare = o.bare(number)
        step = UNWOUND.get(o.machine, 1)
        if bare == b".pdata" and int(s["size"][number]) % step:
            yield f"{shown(o.names[number])} is no table of entries of {step} bytes"
        if bare == b".pdata" and step > 1 and number not in with_relocations:
            yield f"{shown(o.names[number])} names no function"
        if o.names[number] in (b".debug$S", b".debug$T"):
            yield from _codeview(o, number)


def _codeview(o: Object, number: int) -> Iterator[str]:
    """Whether subsections, or types, follow one another up to the section's end."""
    data = o.contents(number)
    name = shown(o.names[number])
    if data[:4] != b"\4\0\0\0":
        yield f"{name} is no CodeView of a version that is known"
        return
    at = 4
    types = o.names[number] == b".debug$T"
    while at < len(data):
        if types:
            step = 2 + int.from_bytes(data[at : at + 2], "little")
            least = 4
        else:
            step = 8 + (int.from_bytes(data[at + 4 : at + 8], "little") + 3 & ~3)
            least = 8
        left = len(data) - at
        if step < least or step > left + (0 if types else 3):
            yield f"{name} has a record at {at:#x} that does not fit"
            return
        at += step
