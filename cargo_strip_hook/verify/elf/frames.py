"""Takes `.eh_frame` apart: its records, what they point to, and the relocations they have.

Source: Linux Standard Base 5.0 Core, section 10.6 ("Exception Frames").
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from cargo_strip_hook.verify.arrays import Array, gather, is_among
from cargo_strip_hook.verify.elf.read import STEP, Objects

_POINTER_SIZES = {0x0: 0, 0x2: 2, 0x3: 4, 0x4: 8, 0xA: 2, 0xB: 4, 0xC: 8}


@dataclass(frozen=True)
class CommonEntry:
    """A CIE: what it says and where its personality pointer is."""

    content: bytes
    personality_at: int  # offset in the record, -1
    pointer: int  # bytes of pc_begin and pc_range
    augmented: bool
    lsda: int  # bytes of the LSDA pointer, 0 for none


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


class BadFrames(Exception):
    """Unwind tables that do not follow the format."""


def read_frames(objects: Objects, sections: Array) -> Frames:
    """Take the `.eh_frame` sections with these numbers apart. Raises `BadFrames`."""
    tables = np.flatnonzero(is_among(objects.targets, sections) & (objects.targets > 0))
    relocations = objects.relocations(tables)
    relocations = relocations[relocations["type"] != 0]
    at, section = _records(objects, sections)
    data, order = objects.data, objects.layouts.order
    word = np.dtype(f"{order}u4")
    size = gather(data, at, word).astype(np.int64) + 4
    pointer = gather(data, at + 4, word).astype(np.int64)
    offset = at - objects.sections["offset"][section]

    key = (relocations["section"] << STEP) + relocations["offset"]
    sort = np.argsort(key, kind="stable")
    key, relocations = key[sort], relocations[sort]

    known = np.zeros(len(key), np.bool_)

    def relocation(place: Array, possible: Array) -> tuple[Array, Array, Array]:
        """Symbol (-1 for none), addend and type of the relocation at each place."""
        none = np.zeros(len(place), np.int64)
        if not len(key):
            return none - 1, none, none
        i = np.minimum(np.searchsorted(key, place), len(key) - 1)
        hit = (key[i] == place) & possible
        known[i[hit]] = True
        symbol, addend, type_ = (relocations[f][i] for f in ("symbol", "addend", "type"))
        return np.where(hit, symbol, -1), np.where(hit, addend, 0), np.where(hit, type_, 0)

    is_cie = np.flatnonzero(pointer == 0)
    cies = [_common_entry(objects, int(at[i]), int(size[i])) for i in is_cie.tolist()]
    place = (section << STEP) + offset
    personality = np.array([c.personality_at for c in cies], np.int64)
    cie = relocation(place[is_cie] + personality, personality >= 0)

    is_fde = np.flatnonzero(pointer != 0)
    fdes = np.zeros(len(is_fde), FRAME)
    for name, values in (("at", at), ("section", section), ("offset", offset), ("size", size)):
        fdes[name] = values[is_fde]
    wanted = place[is_fde] + 4 - pointer[is_fde]
    if len(is_fde):
        if not len(is_cie):
            raise BadFrames("there is no CIE")
        found = np.minimum(np.searchsorted(place[is_cie], wanted), len(is_cie) - 1)
        if (place[is_cie][found] != wanted).any():
            bad = int(np.flatnonzero(place[is_cie][found] != wanted)[0])
            raise BadFrames(f"the FDE at {int(fdes['offset'][bad]):#x} has no CIE")
        fdes["cie"] = found
    pc = relocation(place[is_fde] + 8, np.ones(len(is_fde), np.bool_))
    fdes["symbol"], fdes["addend"], fdes["type"] = pc
    _find_lsda(data, fdes, cies)
    lsda = relocation(place[is_fde] + fdes["lsda_at"], fdes["lsda_at"] > 0)
    fdes["lsda_symbol"], fdes["lsda_addend"], fdes["lsda_type"] = lsda
    rest = np.flatnonzero(~known)
    number = np.full(len(place), -1, np.int64)
    number[is_fde] = np.arange(len(is_fde))
    record = np.searchsorted(place, key[rest], side="right") - 1
    inside = (record >= 0) & (key[rest] < (place + size)[record]) if len(place) else record >= 0
    owner = np.where(inside, number[record] if len(place) else -1, -1)
    rest_at = key[rest] - (place[record] if len(place) else 0)
    return Frames(fdes, cies, *cie, relocations[rest], owner, rest_at)


def _records(objects: Objects, sections: Array) -> tuple[Array, Array]:
    """Where each record begins in the data, and its section."""
    starts: list[int] = []
    counts = []
    for section in sections.tolist():
        view = objects.contents(section)
        whole = len(view) & ~3
        words = np.frombuffer(view[:whole], f"{objects.layouts.order}u4").tolist()
        base, before = int(objects.sections["offset"][section]), len(starts)
        at, end = 0, len(words)
        while at < end:
            length = words[at]
            if length == 0:
                at += 1
                continue
            if length & 3 or length < 8 or at + 1 + (length >> 2) > end:
                name = objects.section_name(section)
                raise BadFrames(f"the record at {name}+{4 * at:#x} does not fit")
            starts.append(base + 4 * at)
            at += 1 + (length >> 2)
        counts.append(len(starts) - before)
    return np.array(starts, np.int64), np.repeat(sections, np.array(counts, np.int64))


def _uleb(data: Any, at: int) -> tuple[int, int]:
    """A ULEB128 number and the position behind it (DWARF 5, section 7.6)."""
    value = shift = 0
    while True:
        octet = data[at]
        value |= (octet & 0x7F) << shift
        shift += 7
        at += 1
        if octet < 0x80:
            return value, at


def _common_entry(objects: Objects, start: int, size: int) -> CommonEntry:
    record = objects.buffer[start : start + size]
    try:
        return _parse_common_entry(record, objects.layouts.bits // 8, objects.implicit_addends)
    except (IndexError, KeyError, ValueError) as e:
        raise BadFrames("a CIE cannot be read") from e


@lru_cache(maxsize=256)
def _parse_common_entry(record: bytes, address: int, implicit: bool) -> CommonEntry:
    text_end = record.index(b"\0", 9)
    augmentation = record[9:text_end]
    _, at = _uleb(record, text_end + 1)  # code alignment
    _, at = _uleb(record, at)  # data alignment; signed, but of the same length
    at = at + 1 if record[8] == 1 else _uleb(record, at)[1]  # return address register
    pointer, lsda, personality = address, 0, -1
    content = bytearray(record)
    if augmentation.startswith(b"z"):
        _, at = _uleb(record, at)
        for letter in augmentation[1:].decode("latin-1"):
            if letter == "L":
                lsda = 0 if record[at] == 0xFF else _POINTER_SIZES[record[at] & 15] or address
                at += 1
            elif letter == "R":
                pointer = _POINTER_SIZES[record[at] & 15] or address
                at += 1
            elif letter == "P":
                width = _POINTER_SIZES[record[at] & 15] or address
                personality = at + 1
                if implicit:
                    content[personality : personality + width] = bytes(width)
                at = personality + width
            elif letter not in "SB":
                raise ValueError(letter)
    return CommonEntry(bytes(content), personality, pointer, augmentation.startswith(b"z"), lsda)


def _find_lsda(data: Array, fdes: Array, cies: list[CommonEntry]) -> None:
    """Sets `lsda_at`: behind pc_begin, pc_range and the length of the augmentation."""
    width = np.array([c.pointer for c in cies], np.int64)
    has = np.array([c.lsda > 0 and c.augmented for c in cies], np.bool_)
    rows = np.flatnonzero(has[fdes["cie"]]) if len(cies) else np.empty(0, np.int64)
    at = 8 + 2 * width[fdes["cie"][rows]]
    # the length is one byte: an LSDA pointer is all that any compiler puts there
    long = gather(data, fdes["at"][rows] + at, np.dtype("u1")) >= 0x80
    if long.any():
        raise BadFrames("an FDE has an augmentation of unusual length")
    fdes["lsda_at"][rows] = at + 1
