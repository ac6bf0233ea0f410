"""Reads `__eh_frame` and `__compact_unwind`: each record an atom that lives with its function.

Sources: LLVM's `MCMachOStreamer` and ld64 (x86-64 assemblers store distances without relocations,
others write SUBTRACTOR pairs).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.file import STEP, MachoFiles
from cargo_strip_hook.formats.macho.relocations import SUBTRACTOR, Rows
from cargo_strip_hook.formats.macho.split import AtomTable
from cargo_strip_hook.link.arrays import gather, join
from cargo_strip_hook.link.frames import (
    PC_BEGIN,
    FrameRecords,
    FrameRules,
    augmentation_data,
    read_cie,
    read_records,
)
from cargo_strip_hook.link.model import EDGE, RELOCATION, Array, Bool, Int64, Reach

_RULES = FrameRules("__eh_frame", ends=True)
_SIZES = {0x10: 8, 0x1B: 4}  # bytes of the encodings that compilers use: pcrel, pcrel | sdata4
_NO_SECTION = "an FDE of __eh_frame describes no section of the file"
_CUT_SHORT = "an FDE of __eh_frame is cut short"


def split_frames(f: MachoFiles) -> FrameRecords:
    """Find the records of all `__eh_frame` sections. Raises `ObjectError`."""

    def damaged(section: int, what: str, offset: int) -> ObjectError:
        return f.fail(int(f.owner[section]), what, int(f.sections["offset"][section]) + offset)

    return read_records(f.octets, np.flatnonzero(f.eh_frame), f.start, f.size, _RULES, damaged)


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
    table: AtomTable,
    relocations: Rows,
    records: FrameRecords,
    positions: tuple[Array, Int64],
    anchors: Int64,
) -> Frames:
    """Rewrite the relocations of unwind records. Raises `ObjectError`.

    `positions`: atom and value of each symbol; `anchors`: the symbol of each atom. An FDE gets one
    `PC_RELATIVE` relocation for its function and one for its LSDA, a compact-unwind entry one to
    its function's own atom: by a name it would come to life with another library's copy of a weak
    function.
    """
    atom, value = positions
    rows = relocations.rows
    function = f.compact[relocations.section] & (rows["offset"] == 0)
    symbol = rows["symbol"][function]
    f.check(
        atom[symbol] < 0,
        f.owner[relocations.section[function]],
        "__compact_unwind describes a function that is not in the file",
    )
    reading = _Reading(f, table, relocations, records, positions, anchors)
    fde, cie = records.fdes()
    reading.check(cie < 0, fde, "__eh_frame is damaged: an FDE has no CIE")
    added, section, kept = reading.fields(*reading.pointers(fde, cie))
    edges = np.zeros(len(fde), EDGE)
    edges["source"], edges["target"] = reading.atom[fde], reading.atom[cie]
    # a copy, which may be changed
    rows = join([rows[kept], added])
    function = np.flatnonzero(function[kept])
    rows["addend"][function] += value[symbol]
    rows["symbol"][function] = anchors[atom[symbol]]
    rows["reach"][function] = Reach.REVERSE
    section = np.concatenate([relocations.section[kept], section])
    return Frames(rows, section, edges, records.section[fde])


class _Reading:
    """The records of all `__eh_frame` sections, while they are read."""

    def __init__(
        self,
        f: MachoFiles,
        table: AtomTable,
        relocations: Rows,
        records: FrameRecords,
        positions: tuple[Array, Int64],
        anchors: Int64,
    ) -> None:
        self.f, self.table, self.relocations, self.records = f, table, relocations, records
        self.positions, self.anchors = positions, anchors
        self.owner = f.owner[records.section]
        self.begin = f.start[records.section] + records.start  # in all octets
        self.atom = table.find(records.section, records.start)

    def check(self, bad: Bool, record: Int64, what: str, offset: Int64 | int = 0) -> None:
        """Raise `ObjectError` where something `offset` bytes from a record's begin is `bad`."""
        if bad.any():
            where = self.f.sections["offset"][self.records.section[record]]
            where = where + self.records.start[record] + offset
            self.f.check(bad, self.owner[record], what, where)

    def pointers(self, fde: Int64, cie: Int64) -> tuple[Int64, Int64, Int64, Array]:
        """(record, offset in it, size in bytes, Reach) of each pointer in FDEs, in their order."""
        address, lsda = self.sizes()
        size = address[cie]
        data = np.flatnonzero(lsda[cie])
        start, length = augmentation_data(
            self.f.octets,
            self.begin[fde[data]],
            self.records.size[fde[data]],
            PC_BEGIN + 2 * size[data],
        )
        self.check(length < 0, fde[data], _CUT_SHORT)
        here = length >= lsda[cie[data]]
        data, start = data[here], start[here]
        record = np.concatenate([fde, fde[data]])
        order = np.argsort(record, kind="stable")
        offset = np.concatenate([np.full(len(fde), PC_BEGIN), start])
        size = np.concatenate([size, lsda[cie[data]]])
        reach = np.repeat([Reach.REVERSE, Reach.FORWARD], [len(fde), len(data)])
        return record[order], offset[order], size[order], reach[order]

    def sizes(self) -> tuple[Int64, Int64]:
        """By record, for CIEs the sizes that `read_cie` tells."""
        sizes = np.zeros((2, len(self.atom)), np.int64)
        for number in np.flatnonzero(self.records.pointer == 0).tolist():
            begin = int(self.begin[number])
            contents = self.f.octets[begin : begin + int(self.records.size[number])].data

            def fail(what: str, number: int = number, begin: int = begin) -> ObjectError:
                file = int(self.owner[number])
                return self.f.fail(file, what, begin - int(self.f.base[file]))

            sizes[:, number] = read_cie(contents, _RULES.name, _SIZES, fail)
        return sizes[0], sizes[1]

    def fields(
        self, record: Int64, offset: Int64, size: Int64, reach: Array
    ) -> tuple[Array, Int64, Bool]:
        """One relocation for each distance in FDEs, to the atom it means.

        With the sections of the fields; and which relocations of the files they leave as they are.
        """
        f, table = self.f, self.table.atoms
        start = self.records.start[record] + offset
        section = self.records.section[record]
        self.check(start + size > f.size[section], record, _CUT_SHORT, offset)
        row = self.relocations_at(section, start)
        plain = np.flatnonzero(row < 0)
        distance = np.zeros(len(row), np.int64)
        for width in (4, 8):
            mine = plain[size[plain] == width]
            positions = f.start[section[mine]] + start[mine]
            distance[mine] = gather(f.octets, positions, np.dtype(f"<i{width}"))
        here = (row >= 0) | (distance != 0)  # no LSDA
        record, offset, size, reach = record[here], offset[here], size[here], reach[here]
        section, start, row, distance = section[here], start[here], row[here], distance[here]

        target = f.address[section] + start + distance
        home = np.zeros(len(row), np.int64)
        plain, rest = np.flatnonzero(row < 0), np.flatnonzero(row >= 0)
        home[plain] = self.sections_at(target[plain], record[plain])
        home[rest], target[rest] = self.pairs(row[rest], record[rest], section[rest], start[rest])
        kept = np.ones(len(self.relocations.rows), np.bool_)
        kept[row[rest]] = kept[row[rest] + 1] = False
        within = target - f.address[home]
        outside = (within < 0) | (within > f.size[home]) | (f.owner[home] != f.owner[section])
        self.check(outside, record, _NO_SECTION, offset)
        atom = self.table.find(home, within)
        out = np.zeros(len(row), RELOCATION)
        out["atom"], out["offset"], out["reach"] = self.atom[record], offset, reach
        out["type"] = np.where(size == 8, mo.PC_RELATIVE, mo.PC_RELATIVE_4)
        out["symbol"], out["addend"] = self.anchors[atom], within - table["offset"][atom]
        return out, section, kept

    def relocations_at(self, section: Int64, start: Int64) -> Int64:
        """The first relocation at each location, -1 for none."""
        mine = np.flatnonzero(self.f.eh_frame[self.relocations.section])
        if not len(mine):
            return np.full(len(start), -1, np.int64)
        rows = self.relocations.rows[mine]
        offset = self.table.atoms["offset"][rows["atom"]] + rows["offset"]
        keys = (self.relocations.section[mine] << STEP) + offset
        order = np.argsort(keys, kind="stable")
        keys, wanted = keys[order], (section << STEP) + start
        first = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[first] == wanted, mine[order[first]], -1)

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
        row = np.searchsorted(keys, key, side="right") - 1
        section = numbers[np.maximum(row, 0)]
        bad = ~inside | (row < 0) | (f.owner[section] != file)
        bad |= address >= f.address[section] + f.size[section]
        self.check(bad, record, _NO_SECTION)
        return section

    def pairs(
        self, rows: Int64, record: Int64, section: Int64, start: Int64
    ) -> tuple[Int64, Int64]:
        """(section, address) that SUBTRACTOR pairs mean: minuend + addend, seen from the field."""
        f, every = self.f, self.relocations.rows
        first = every[rows]
        alone = first["type"] & 0xF != SUBTRACTOR[f.cputype]
        self.check(alone, record, "an FDE of __eh_frame has a relocation of an unknown kind")
        second = every[rows + 1]
        atoms, values = self.positions
        minuend, subtrahend = second["symbol"], first["symbol"]
        absent = (atoms[minuend] < 0) | (atoms[subtrahend] < 0)
        self.check(absent, record, "an FDE of __eh_frame describes what is not in the file")
        table = self.table.atoms

        def address(symbol: Array) -> Int64:
            home = f.address[table["section"][atoms[symbol]]]
            addresses: Int64 = home + table["offset"][atoms[symbol]] + values[symbol]
            return addresses

        target = address(minuend) + second["addend"] - address(subtrahend)
        home = table["section"][atoms[minuend]].astype(np.int64)
        return home, target + f.address[section] + start
