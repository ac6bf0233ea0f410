"""What is wrong with the original itself, where its result could not be verified.

An engine that was given nonsense is not to blame. Only asked once something was found: so what is
odd, but does no harm, turns no library away. Source: gABI, chapter 4.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.verify.arrays import Array, is_among
from cargo_strip_hook.verify.elf.frames import read_frames
from cargo_strip_hook.verify.elf.groups import members
from cargo_strip_hook.verify.elf.machine import TYPES, machine
from cargo_strip_hook.verify.elf.read import (
    COMPACT,
    SHF_MERGE,
    SHF_TLS,
    SHT_GROUP,
    SHT_NOBITS,
    STT_SECTION,
    STT_TLS,
    Damaged,
    Objects,
    read_objects,
)
from cargo_strip_hook.verify.expectation import Damage
from cargo_strip_hook.verify.kit.frames import BadFrames

# (section over all objects, offset in it or -1, what is wrong)
_Found = tuple[int, int, str]


def damages(original: Archive, used: Collection[int] | None) -> Iterator[Damage]:
    """The first thing wrong with each of the members `used`; of all objects where that is None."""
    for member in original.members:
        data = original.data(member)
        if member.index in used if used is not None else bytes(data[:4]) == b"\x7fELF":
            try:
                wrong = find(read_objects(bytes(data), [0], [len(data)]))
            except Damaged as e:
                wrong = e
            if wrong is not None:
                yield Damage(member.name, wrong.what, wrong.offset)


def find(objects: Objects) -> Damaged | None:
    """The first thing that is wrong with objects that could be read so far."""
    checks: Sequence[Callable[[Objects], Iterator[_Found]]] = (
        _sections,
        _tables,
        _relocations,
        _symbols,
        _groups,
        _frames,
    )
    for check in checks:
        try:
            for section, offset, what in check(objects):
                return _damaged(objects, section, offset, what)
        except Damaged as e:
            return e
    return None


def _damaged(objects: Objects, section: int, offset: int, what: str) -> Damaged:
    owner = int(objects.sections["object"][section])
    name = objects.section_name(section)
    location = int(objects.sections["offset"][section] - objects.base[owner]) + max(offset, 0)
    where = f"{name}+{offset:#x}" if offset >= 0 else name
    return Damaged(owner, f"{where}: {what}", location)


def _first(bad: Array) -> list[int]:
    found: list[int] = np.flatnonzero(bad)[:1].tolist()
    return found


def _sections(objects: Objects) -> Iterator[_Found]:
    s = objects.sections
    align = np.maximum(s["align"], 1)
    for i in _first((align & (align - 1)) != 0):
        yield i, -1, "its alignment is no power of two"
    merged = (s["flags"] & SHF_MERGE != 0) & (s["size"] > 0)
    for i in _first(
        merged & ((s["entsize"] <= 0) | (s["size"] % np.maximum(s["entsize"], 1) != 0))
    ):
        yield i, -1, "its size is no multiple of that of its entries"
    held = np.flatnonzero((s["type"] != SHT_NOBITS) & (s["type"] != 0) & (s["size"] > 0))
    order = held[np.lexsort((s["offset"][held], s["object"][held]))]
    end = (s["offset"] + s["size"])[order]
    same = s["object"][order][1:] == s["object"][order][:-1]
    for i in _first(same & (s["offset"][order][1:] < end[:-1])):
        yield int(order[i + 1]), -1, "it overlaps another section"


def _tables(objects: Objects) -> Iterator[_Found]:
    s = objects.sections
    tables = np.flatnonzero(objects.targets >= 0)
    width = np.where(
        s["type"][tables] == 4,
        objects.layouts.relocation(True).itemsize,
        objects.layouts.relocation(False).itemsize,
    )
    odd = (s["entsize"][tables] != width) | (s["size"][tables] % width != 0)
    odd &= ~is_among(s["type"][tables], COMPACT)
    for i in _first(odd):
        yield int(tables[i]), -1, "its relocations have an unknown size"


def _relocations(objects: Objects) -> Iterator[_Found]:
    facts = machine(objects.machine, objects.layouts.order)
    tables = np.flatnonzero(objects.targets >= 0)
    rows = objects.relocations(tables)
    rows = rows[rows["type"] != 0]
    section, offset = rows["section"], rows["offset"]
    width = facts.width[np.minimum(rows["type"], TYPES - 1)].astype(np.int64)
    size = objects.sections["size"][section].copy()
    for number in np.unique(section[objects.compressed[section]]).tolist():
        size[section == number] = 0
        try:
            size[section == number] = len(objects.plain(number))
        except ValueError as e:
            yield number, -1, f"it cannot be decompressed: {e}"
    outside = (offset < 0) | (offset + np.maximum(width, 1) > size)
    for bad, what in (
        (rows["symbol"] < 0, "the symbol of a relocation is not there"),
        (outside, "a relocation lies outside of the section"),
    ):
        for i in _first(bad):
            yield int(section[i]), int(offset[i]), what
    # several at one place are one expression on some processors
    order = np.lexsort((offset, section))
    section, offset, width = section[order], offset[order], width[order]
    near = (section[1:] == section[:-1]) & (offset[1:] < (offset + width)[:-1])
    for i in _first(near & (offset[1:] != offset[:-1])):
        yield int(section[i + 1]), int(offset[i + 1]), "two relocations overlap"
    for i in _first(near & (objects.machine in (3, 62, 183))):  # i386, x86-64 and AArch64
        yield int(section[i + 1]), int(offset[i + 1]), "two relocations are at one place"


def _symbols(objects: Objects) -> Iterator[_Found]:
    symbols, s = objects.symbols, objects.sections
    inside = symbols["section"] > 0
    home = np.where(inside, symbols["section"], 0)
    bit = machine(objects.machine, objects.layouts.order).function_bit
    beyond = inside & ((symbols["value"] < 0) | ((symbols["value"] & ~bit) > s["size"][home]))
    tls = inside & ((symbols["kind"] == STT_TLS) != (s["flags"][home] & SHF_TLS != 0))
    tls &= ~np.isin(symbols["kind"], (STT_SECTION, 0))  # marks, such as `$d`, are of no type
    for bad, what in (
        (beyond, "the symbol {} lies beyond the end of the section"),
        (tls, "the symbol {} and the section disagree about thread-local storage"),
    ):
        for i in _first(bad):
            name = objects.string(int(symbols["name"][i])).decode("utf-8", "replace")
            yield int(home[i]), -1, what.format(f"`{name}`")


def _groups(objects: Objects) -> Iterator[_Found]:
    tables = np.flatnonzero(objects.sections["type"] == SHT_GROUP).tolist()
    try:
        found = members(objects)
    except IndexError as e:
        yield tables[0], -1, str(e)
        return
    order = np.sort(found.section)
    for i in _first(order[1:] == order[:-1]):
        yield int(order[i]), -1, "it is in two groups"


def _frames(objects: Objects) -> Iterator[_Found]:
    try:
        read_frames(objects, objects.frame_sections)
    except (BadFrames, IndexError, ValueError) as e:
        for number in objects.frame_sections.tolist():
            try:
                read_frames(objects, np.array([number]))
            except (BadFrames, IndexError, ValueError) as one:
                yield number, -1, str(one) or str(e)


__all__ = ["damages", "find"]
