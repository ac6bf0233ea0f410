"""What is wrong with an ELF object by itself: asked for where a result is not what it should be.

Source: System V gABI, chapter 4 ("Object Files").
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.verify.elf.frames import BadFrames, read_frames
from cargo_strip_hook.verify.elf.machine import TYPES, machine
from cargo_strip_hook.verify.elf.read import (
    SHF_TLS,
    SHT_NOBITS,
    STT_FUNC,
    STT_SECTION,
    STT_TLS,
    Damaged,
    Objects,
    read_objects,
)

_FEW = 4


def damages(original: Archive, used: Collection[int] | None) -> Iterator[tuple[str, str]]:
    """(member, what is wrong with it) of the members `used`; of all objects where that is None."""
    for member in original.members:
        data = original.data(member)
        if member.index in used if used is not None else bytes(data[:4]) == b"\x7fELF":
            try:
                for what in _of_object(read_objects(bytes(data), [0], [len(data)])):
                    yield member.name, what
            except (Damaged, BadFrames, IndexError, ValueError) as e:
                yield member.name, str(e)


def _of_object(o: Objects) -> Iterator[str]:
    yield from _symbols(o)
    yield from _relocations(o)
    read_frames(o, o.frame_sections)  # raises BadFrames


def _symbols(o: Objects) -> Iterator[str]:
    symbols, s = o.symbols, o.sections
    number = np.flatnonzero(symbols["section"] > 0)
    home = symbols["section"][number]
    value = symbols["value"][number]
    bit = machine(o.machine, o.layouts.order).function_bit
    if bit:
        value = np.where(symbols["kind"][number] == STT_FUNC, value & ~bit, value)
    sized = symbols["kind"][number] != STT_SECTION
    end = value + np.where(sized, symbols["size"][number], 0)
    for i in number[(value < 0) | (end > s["size"][home])][:_FEW].tolist():
        yield f"the symbol {_name(o, i)} lies outside of its section"
    local = s["flags"][home] & SHF_TLS != 0
    plain = ~np.isin(symbols["kind"][number], (STT_SECTION, 0))
    odd = plain & (local != (symbols["kind"][number] == STT_TLS))
    for i in number[odd][:_FEW].tolist():
        yield f"the symbol {_name(o, i)} and its section disagree about thread-local storage"
    for i in np.flatnonzero(symbols["undefined"] & (symbols["value"] != 0))[:_FEW].tolist():
        yield f"the undefined symbol {_name(o, i)} has a value"


def _relocations(o: Objects) -> Iterator[str]:
    tables = np.flatnonzero(o.targets > 0)
    if not len(tables):
        return
    rows = o.relocations(tables)
    facts = machine(o.machine, o.layouts.order)
    width = facts.width[np.minimum(rows["type"], TYPES - 1)]
    outside = (rows["offset"] < 0) | (rows["offset"] + width > o.sections["size"][rows["section"]])
    outside |= o.sections["type"][rows["section"]] == SHT_NOBITS
    for i in np.flatnonzero(outside & (rows["type"] != 0))[:_FEW].tolist():
        where = o.section_name(int(rows["section"][i]))
        yield f"a relocation at {where}+{int(rows['offset'][i]):#x} lies outside of its section"


def _name(o: Objects, symbol: int) -> str:
    return "`" + o.string(int(o.symbols["name"][symbol])).decode("utf-8", "surrogateescape") + "`"
