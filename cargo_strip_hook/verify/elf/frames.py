"""Takes `.eh_frame` apart: its records, what they point to, and the relocations they have.

Source: Linux Standard Base 5.0 Core, section 10.6 ("Exception Frames").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.verify.arrays import Array, gather, is_among, positions
from cargo_strip_hook.verify.elf.read import STEP, Objects
from cargo_strip_hook.verify.kit.frames import BadFrames, CommonEntry, common_entry, walk

FRAME = np.dtype(
    [
        ("at", "<i8"),  # in `Objects.data`
        ("section", "<i8"),
        ("offset", "<i8"),  # in the section
        ("size", "<i8"),  # with the length field
        ("cie", "<i8"),  # position in the list of CIEs
        ("symbol", "<i8"),  # of the relocation of pc_begin, -1
        ("addend", "<i8"),
        ("type", "<i8"),
        ("lsda_symbol", "<i8"),
        ("lsda_addend", "<i8"),
        ("lsda_type", "<i8"),
        ("lsda_at", "<i8"),  # offset in the record, 0 for none
    ]
)


@dataclass(frozen=True, eq=False)
class Frames:
    """All FDEs of some objects, and their CIEs with the relocation of the personality.

    `rest` are the relocations that are at none of the three pointers that each record has: those of
    code whose length is not final. `rest_fde` is the record they are in, -1 for none; `rest_at` the
    offset in it.
    """

    fdes: Array  # FRAME
    cies: list[CommonEntry]
    cie_symbol: Array
    cie_addend: Array
    cie_type: Array
    rest: Array  # RELOCATION
    rest_fde: Array
    rest_at: Array
    ends_early: bool  # a terminator stands before a record: linkers read no further


@dataclass(frozen=True, eq=False)
class _Records:
    """The records of some `.eh_frame` sections: int64 for each, in the order of their places."""

    at: Array  # in `Objects.data`
    section: Array
    offset: Array  # in the section
    size: Array  # with the length field
    pointer: Array  # from the CIE pointer back to the CIE; 0: this is a CIE itself
    location: Array  # section and offset as one number
    ends_early: bool


@dataclass(frozen=True, eq=False)
class _Relocations:
    """The relocations of some `.eh_frame` sections, sorted by the place of their field."""

    rows: Array  # RELOCATION
    location: Array  # int64 for each row


def read_frames(objects: Objects, sections: Array) -> Frames:
    """Take the `.eh_frame` sections with these numbers (int, ascending) apart.

    Raises `BadFrames`.
    """
    relocations = _sorted_relocations(objects, sections)
    records = _records(objects, sections)
    is_cie = np.flatnonzero(records.pointer == 0)
    is_fde = np.flatnonzero(records.pointer != 0)
    bits, blank = objects.layouts.bits, objects.implicit_addends
    cies = [
        common_entry(objects.buffer[start : start + size], bits // 8, blank=blank)
        for start, size in zip(
            records.at[is_cie].tolist(), records.size[is_cie].tolist(), strict=True
        )
    ]
    personality_at = np.array([c.personality_at for c in cies], np.int64)
    location = records.location[is_cie] + personality_at
    personality = _match(relocations, location, personality_at >= 0)

    cie = _cie_of(records, is_cie, is_fde)
    lsda_at = _lsda_offsets(objects.data, records.at[is_fde], cie, cies)
    location = records.location[is_fde]
    pc = _match(relocations, location + 8, np.ones(len(is_fde), np.bool_))
    lsda = _match(relocations, location + lsda_at, lsda_at > 0)
    fdes = np.zeros(len(is_fde), FRAME)
    for name in ("at", "section", "offset", "size"):
        fdes[name] = getattr(records, name)[is_fde]
    fdes["cie"], fdes["lsda_at"] = cie, lsda_at
    fdes["symbol"], fdes["addend"], fdes["type"] = _columns(relocations, pc)
    fdes["lsda_symbol"], fdes["lsda_addend"], fdes["lsda_type"] = _columns(relocations, lsda)

    is_rest = np.ones(len(relocations.location), np.bool_)
    for match in (personality, pc, lsda):
        is_rest[match[match >= 0]] = False
    owner, rest_at = _owners(records, is_fde, relocations.location[is_rest])
    cie_columns = _columns(relocations, personality)
    return Frames(
        fdes, cies, *cie_columns, relocations.rows[is_rest], owner, rest_at, records.ends_early
    )


def _sorted_relocations(objects: Objects, sections: Array) -> _Relocations:
    """All relocations of these sections that do something."""
    tables = np.flatnonzero(is_among(objects.targets, sections) & (objects.targets > 0))
    rows = objects.relocations(tables)
    rows = rows[rows["type"] != 0]
    location = (rows["section"] << STEP) + rows["offset"]
    order = np.argsort(location, kind="stable")
    return _Relocations(rows[order], location[order])


def _records(objects: Objects, sections: Array) -> _Records:
    """Find each record of these sections, and read the two fields that it begins with."""
    starts: list[int] = []
    sizes: list[int] = []
    counts = []
    ends_early = False
    order = objects.layouts.order
    for number in sections.tolist():
        offsets, lengths, stop = walk(objects.contents(number), order, objects.section_name(number))
        ends_early |= bool(offsets) and stop < offsets[-1]
        starts += offsets
        sizes += lengths
        counts.append(len(offsets))
    section = np.repeat(sections, np.array(counts, np.int64))
    offset, size = np.array(starts, np.int64), np.array(sizes, np.int64)
    if (size & 3).any():
        raise BadFrames("a record is of odd size")
    at = objects.sections["offset"][section] + offset
    pointer = gather(objects.data, at + 4, np.dtype(f"{order}u4")).astype(np.int64)
    return _Records(at, section, offset, size, pointer, (section << STEP) + offset, ends_early)


def _match(relocations: _Relocations, location: Array, possible: Array) -> Array:
    """The relocation at each place (int64), as a position in `relocations`; -1 for none.

    `possible` (bool): whether there may be one.
    """
    return np.where(possible, positions(relocations.location, location), -1)


def _columns(relocations: _Relocations, match: Array) -> tuple[Array, Array, Array]:
    """Symbol (-1 for none), addend and type of the relocations at these positions (-1: none)."""
    if not len(relocations.rows):
        none = np.zeros(len(match), np.int64)
        return none - 1, none, none
    symbol, addend, type_ = (relocations.rows[f][match] for f in ("symbol", "addend", "type"))
    hit = match >= 0
    return np.where(hit, symbol, -1), np.where(hit, addend, 0), np.where(hit, type_, 0)


def _cie_of(records: _Records, is_cie: Array, is_fde: Array) -> Array:
    """The CIE of each FDE, as a position in `is_cie` (int64). Raises `BadFrames`."""
    if not len(is_fde):
        return np.zeros(0, np.int64)
    if not len(is_cie):
        raise BadFrames("there is no CIE")
    wanted = records.location[is_fde] + 4 - records.pointer[is_fde]
    locations = records.location[is_cie]
    cie = np.minimum(np.searchsorted(locations, wanted), len(is_cie) - 1)
    bad = np.flatnonzero(locations[cie] != wanted)
    if len(bad):
        raise BadFrames(f"the FDE at {int(records.offset[is_fde[bad[0]]]):#x} has no CIE")
    return cie


def _owners(records: _Records, is_fde: Array, location: Array) -> tuple[Array, Array]:
    """The FDE that holds each place, -1 for none, and the offset in its record (int64 both)."""
    if not len(records.location):
        return np.full(len(location), -1, np.int64), location
    number = np.full(len(records.location), -1, np.int64)
    number[is_fde] = np.arange(len(is_fde))
    record = np.searchsorted(records.location, location, side="right") - 1
    inside = (record >= 0) & (location < (records.location + records.size)[record])
    return np.where(inside, number[record], -1), location - records.location[record]


def _lsda_offsets(data: Array, starts: Array, cie: Array, cies: list[CommonEntry]) -> Array:
    """The offset of each FDE's LSDA pointer in its record, 0 for none (int64).

    It is behind pc_begin, pc_range and the length of the augmentation. `starts`: where each FDE
    begins in `data`; `cie`: its position in `cies`. Raises `BadFrames`.
    """
    offsets = np.zeros(len(starts), np.int64)
    width = np.array([c.pointer for c in cies], np.int64)
    has = np.array([c.lsda > 0 and c.augmented for c in cies], np.bool_)
    rows = np.flatnonzero(has[cie]) if len(cies) else np.empty(0, np.int64)
    length_at = 8 + 2 * width[cie[rows]]
    # the length is one byte: an LSDA pointer is all that any compiler puts there
    long = gather(data, starts[rows] + length_at, np.dtype("u1")) >= 0x80
    if long.any():
        raise BadFrames("an FDE has an augmentation of unusual length")
    offsets[rows] = length_at + 1
    return offsets
