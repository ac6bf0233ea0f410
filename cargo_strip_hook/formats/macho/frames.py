"""Reads `__eh_frame` and `__compact_unwind`: each record an atom that lives with its function.

Sources: Linux Standard Base 5.0, section 10.6.1 (records and augmentations of .eh_frame); LLVM's
`MCMachOStreamer` and ld64 (x86-64 assemblers store distances without relocations, others write
SUBTRACTOR pairs).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.file import STEP, MachoFiles
from cargo_strip_hook.formats.macho.relocations import SUBTRACTOR, Rows
from cargo_strip_hook.formats.macho.split import Pieces
from cargo_strip_hook.link.arrays import gather
from cargo_strip_hook.link.model import EDGE, RELOCATION, Array, Bool, Int64, Reach

_PCREL, _PCREL_SDATA4, _OMIT = 0x10, 0x1B, 0xFF
_NO_SECTION = "an FDE of __eh_frame describes no section of the file"
PC_BEGIN = 8  # after the length and the CIE pointer


@dataclass(frozen=True, slots=True)
class Records:
    """The records of all `__eh_frame` sections in order.

    `section` and `start` (an offset there) say where each begins, `size` counts its length field.
    """

    section: Int64
    start: Int64
    size: Int64

    @property
    def keys(self) -> Int64:
        """section << STEP | offset of each record."""
        keys: Int64 = (self.section << STEP) + self.start
        return keys


def split_frames(f: MachoFiles) -> Records:
    """Find the records. Raises `ObjectError`."""
    found: list[tuple[int, int, int]] = []
    for number in np.flatnonzero(f.eh_frame).tolist():
        file = int(f.owner[number])
        base = int(f.sections["offset"][number])
        contents = f.inputs[file].data[base : base + int(f.size[number])]

        def fail(what: str, at: int, file: int = file, base: int = base) -> ObjectError:
            return f.fail(file, what, base + at)

        _walk(contents, number, found, fail)
    section, start, sizes = np.array(found, np.int64).reshape(-1, 3).T
    return Records(section, start, sizes)


def _walk(
    contents: memoryview,
    number: int,
    found: list[tuple[int, int, int]],
    fail: Callable[[str, int], ObjectError],
) -> None:
    """Append (number, offset, size) of each record of one section."""
    at, end = 0, len(contents)
    length_at = struct.Struct("<I").unpack_from
    while at + 4 <= end:
        (length,) = length_at(contents, at)
        if length == 0:
            if any(contents[at:]):
                raise fail("__eh_frame has records behind its end", at)
            break
        if length == 0xFFFFFFFF:
            raise fail("__eh_frame records in the 64-bit form are not supported", at)
        if length < 8 or at + 4 + length > end:
            raise fail("__eh_frame is damaged: a record does not fit", at)
        found.append((number, at, 4 + length))
        at += 4 + length


def _uleb(data: memoryview, at: int) -> tuple[int, int]:
    """(value, where it ends)."""
    value, shift = 0, 0
    while True:
        octet = data[at]
        value |= (octet & 0x7F) << shift
        shift += 7
        at += 1
        if octet < 0x80:
            return value, at
        if shift > 63:
            raise IndexError


def _encoded(encoding: int) -> int:
    """The size of an address in an FDE; 0 for an encoding that Mach-O's linkers do not take."""
    return {_PCREL: 8, _PCREL_SDATA4: 4}.get(encoding, 0)


def _read_cie(record: memoryview, fail: Callable[[str], ObjectError]) -> tuple[int, int]:
    """The sizes of addresses in the FDEs of a CIE: of a function's, and of an LSDA's or 0.

    Raises `ObjectError` for encodings that no compiler for Darwin writes.
    """
    try:
        text_end = 9
        while record[text_end]:
            text_end += 1
        augmentation = bytes(record[9:text_end])
        at = text_end + 1
        for _ in range(2):
            _, at = _uleb(record, at)
        at = at + 1 if record[8] == 1 else _uleb(record, at)[1]
        if not augmentation.startswith(b"z"):
            raise fail("a CIE of __eh_frame has no augmentation data")
        _, at = _uleb(record, at)
        address, lsda = 0, 0
        for letter in augmentation[1:]:
            if letter == ord("P"):
                at += 5  # encoding, and a 4-byte distance to a GOT entry
            elif letter == ord("L"):
                lsda = 0 if record[at] == _OMIT else _encoded(record[at])
                if record[at] != _OMIT and not lsda:
                    raise fail("a CIE of __eh_frame has an unknown LSDA encoding")
                at += 1
            elif letter == ord("R"):
                address = _encoded(record[at])
                at += 1
            elif letter not in b"SB":
                raise fail("a CIE of __eh_frame has an unknown augmentation")
        if not address:
            raise fail("a CIE of __eh_frame has an unknown address encoding")
    except IndexError as e:
        raise fail("a CIE of __eh_frame is cut short") from e
    return address, lsda


@dataclass(frozen=True, slots=True)
class Frames:
    """The relocations once those of unwind records are in one form, and edges.

    `section` of each relocation is the one that holds its field, `edge_section` that of the FDE.
    """

    rows: Array  # RELOCATION
    section: Int64
    edges: Array  # EDGE: FDE to CIE
    edge_section: Int64


def read_frames(
    f: MachoFiles,
    pieces: Pieces,
    found: Rows,
    records: Records,
    places: tuple[Array, Int64],
    anchors: Int64,
) -> Frames:
    """Rewrite the relocations of unwind records.

    `places`: atom and value of each symbol; `anchors`: the symbol of each atom. An FDE gets one
    `PC_RELATIVE` relocation for its function and one for its LSDA, a compact-unwind entry one to
    its function's own atom: by a name it would come to life with another library's copy of a weak
    function.
    """
    rows, section = found.rows, found.section
    function = f.compact[section] & (rows["offset"] == 0)
    if function.any():
        atom, value = places
        target = atom[rows["symbol"][function]]
        f.check(
            target < 0,
            f.owner[section[function]],
            "__compact_unwind describes a function that is not in the file",
        )
        rows["addend"][function] += value[rows["symbol"][function]]
        rows["symbol"][function] = anchors[target]
        rows["reach"][function] = Reach.REVERSE
    if not len(records.start):
        return Frames(rows, section, np.zeros(0, EDGE), np.zeros(0, np.int64))
    return _Reading(f, pieces, found, records, places, anchors).result()


class _Reading:
    """The records of all `__eh_frame` sections, while they are read."""

    def __init__(
        self,
        f: MachoFiles,
        pieces: Pieces,
        found: Rows,
        records: Records,
        places: tuple[Array, Int64],
        anchors: Int64,
    ) -> None:
        self.f, self.pieces, self.found, self.records = f, pieces, found, records
        self.places, self.anchors = places, anchors
        self.owner = f.owner[records.section]
        self.begin = f.start[records.section] + records.start  # in all octets
        self.atom = pieces.find(records.section, records.start)

    def check(self, bad: Bool, record: Int64, what: str, offset: Int64 | int = 0) -> None:
        """Raise `ObjectError` where something `offset` bytes from a record's begin is `bad`."""
        if bad.any():
            where = self.f.sections["offset"][self.records.section[record]]
            where = where + self.records.start[record] + offset
            self.f.check(bad, self.owner[record], what, where)

    def result(self) -> Frames:
        pointer = gather(self.f.octets, self.begin + 4, np.dtype("<u4")).astype(np.int64)
        fde = np.flatnonzero(pointer)
        cie = self.cies(fde, pointer)
        edges = np.zeros(len(fde), EDGE)
        edges["source"], edges["target"] = self.atom[fde], self.atom[cie]

        address, lsda = self.forms(np.flatnonzero(pointer == 0))
        width = address[cie]
        data = np.flatnonzero(lsda[cie])
        at, length = self.data_of(fde[data], width[data])
        data, at = data[length >= lsda[cie[data]]], at[length >= lsda[cie[data]]]
        record = np.concatenate([fde, fde[data]])
        order = np.argsort(record, kind="stable")
        offset = np.concatenate([np.full(len(fde), PC_BEGIN), at])[order]
        size = np.concatenate([width, lsda[cie[data]]])[order]
        reach = np.repeat([Reach.REVERSE, Reach.FORWARD], [len(fde), len(data)])[order]
        added, section, dropped = self.fields(record[order], offset, size, reach)
        rows = np.concatenate([self.found.rows[~dropped], added])
        section = np.concatenate([self.found.section[~dropped], section])
        return Frames(rows, section, edges, self.records.section[fde])

    def cies(self, fde: Int64, pointer: Int64) -> Int64:
        """The CIE of each FDE, both by their record."""
        start = self.records.start[fde] + 4 - pointer[fde]
        key = (self.records.section[fde] << STEP) + start
        keys = self.records.keys
        found = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
        bad = (start < 0) | (keys[found] != key) | (pointer[found] != 0)
        self.check(bad, fde, "__eh_frame is damaged: an FDE has no CIE")
        return found

    def forms(self, cies: Int64) -> tuple[Int64, Int64]:
        """By record, what `_read_cie` says of CIEs."""
        forms = np.zeros((2, len(self.atom)), np.int64)
        records = self.records
        for number in cies.tolist():
            file, section = int(self.owner[number]), int(records.section[number])
            start = int(self.f.sections["offset"][section]) + int(records.start[number])
            record = self.f.inputs[file].data[start : start + int(records.size[number])]

            def fail(what: str, file: int = file, start: int = start) -> ObjectError:
                return self.f.fail(file, what, start)

            forms[:, number] = _read_cie(record, fail)
        return forms[0], forms[1]

    def data_of(self, fde: Int64, width: Int64) -> tuple[Int64, Int64]:
        """(where in the record it begins, length) of the augmentation data of FDEs."""
        at = PC_BEGIN + 2 * width
        what = "an FDE of __eh_frame is cut short"
        self.check(at >= self.records.size[fde], fde, what)
        length = self.f.octets[self.begin[fde] + at].astype(np.int64)
        at = at + 1
        for n in np.flatnonzero(length >= 0x80).tolist():  # a number of several bytes
            start = int(self.begin[fde[n]])
            record = self.f.octets[start : start + int(self.records.size[fde[n]])].data
            try:
                length[n], at[n] = _uleb(record, int(at[n]) - 1)
            except IndexError:
                self.check(np.ones(1, np.bool_), fde[n : n + 1], what)
        return at, length

    def fields(
        self, record: Int64, offset: Int64, size: Int64, reach: Array
    ) -> tuple[Array, Int64, Bool]:
        """One relocation for each distance in FDEs, to the atom it means.

        With the sections of the fields; and which relocations of the files they replace.
        """
        f, pieces = self.f, self.pieces.atoms
        start = self.records.start[record] + offset
        section = self.records.section[record]
        what = "an FDE of __eh_frame is cut short"
        self.check(start + size > f.size[section], record, what, offset)
        row = self.relocations_at(section, start)
        plain = np.flatnonzero(row < 0)
        distance = np.zeros(len(row), np.int64)
        for width in (4, 8):
            mine = plain[size[plain] == width]
            places = f.start[section[mine]] + start[mine]
            distance[mine] = gather(f.octets, places, np.dtype(f"<i{width}"))
        here = (row >= 0) | (distance != 0)  # no LSDA
        record, offset, size, reach = record[here], offset[here], size[here], reach[here]
        section, start, row, distance = section[here], start[here], row[here], distance[here]

        target = f.address[section] + start + distance
        home = np.zeros(len(row), np.int64)
        plain, rest = np.flatnonzero(row < 0), np.flatnonzero(row >= 0)
        home[plain] = self.sections_at(target[plain], record[plain])
        home[rest], target[rest] = self.pairs(row[rest], record[rest], section[rest], start[rest])
        dropped = np.zeros(len(self.found.rows), np.bool_)
        dropped[row[rest]] = dropped[row[rest] + 1] = True
        place = target - f.address[home]
        outside = (place < 0) | (place > f.size[home]) | (f.owner[home] != f.owner[section])
        self.check(outside, record, _NO_SECTION, offset)
        found = self.pieces.find(home, place)
        out = np.zeros(len(row), RELOCATION)
        out["atom"], out["offset"], out["reach"] = self.atom[record], offset, reach
        out["type"] = np.where(size == 8, mo.PC_RELATIVE, mo.PC_RELATIVE_4)
        out["symbol"], out["addend"] = self.anchors[found], place - pieces["offset"][found]
        return out, section, dropped

    def relocations_at(self, section: Int64, start: Int64) -> Int64:
        """The first relocation at each place, -1 for none."""
        mine = np.flatnonzero(self.f.eh_frame[self.found.section])
        if not len(mine):
            return np.full(len(start), -1, np.int64)
        rows = self.found.rows[mine]
        offset = self.pieces.atoms["offset"][rows["atom"]] + rows["offset"]
        keys = (self.found.section[mine] << STEP) + offset
        order = np.argsort(keys, kind="stable")
        keys, wanted = keys[order], (section << STEP) + start
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[at] == wanted, mine[order[at]], -1)

    def sections_at(self, address: Int64, record: Int64) -> Int64:
        """The sections of the records' files that hold addresses."""
        f = self.f
        numbers = np.flatnonzero(f.kept & (f.size > 0))
        keys = (f.owner[numbers] << STEP) + f.address[numbers]
        order = np.argsort(keys, kind="stable")
        numbers, keys = numbers[order], keys[order]
        file = self.owner[record]
        inside = (address >= 0) & (address < 1 << STEP)
        key = (file << STEP) + np.where(inside, address, 0)
        at = np.searchsorted(keys, key, side="right") - 1
        section = numbers[np.maximum(at, 0)]
        bad = ~inside | (at < 0) | (f.owner[section] != file)
        bad |= address >= f.address[section] + f.size[section]
        self.check(bad, record, _NO_SECTION)
        return section

    def pairs(
        self, rows: Int64, record: Int64, section: Int64, start: Int64
    ) -> tuple[Int64, Int64]:
        """(section, address) that SUBTRACTOR pairs mean: minuend + addend, seen from the field."""
        f, found = self.f, self.found.rows
        first = found[rows]
        alone = first["type"] & 0xF != SUBTRACTOR[f.cputype]
        self.check(alone, record, "an FDE of __eh_frame has a relocation of an unknown kind")
        second = found[rows + 1]
        atoms, values = self.places
        minuend, subtrahend = second["symbol"], first["symbol"]
        absent = (atoms[minuend] < 0) | (atoms[subtrahend] < 0)
        self.check(absent, record, "an FDE of __eh_frame describes what is not in the file")
        pieces = self.pieces.atoms

        def address(symbol: Array) -> Int64:
            piece = pieces[atoms[symbol]]
            at: Int64 = f.address[piece["section"]] + piece["offset"] + values[symbol]
            return at

        target = address(minuend) + second["addend"] - address(subtrahend)
        home = pieces["section"][atoms[minuend]].astype(np.int64)
        return home, target + f.address[section] + start
