"""Reads `__eh_frame` and `__compact_unwind`: each record an atom that lives with its function.

Sources: Linux Standard Base 5.0, section 10.6.1 (records and augmentations of .eh_frame); LLVM's
`MCMachOStreamer` and ld64 (x86-64 assemblers store distances without relocations, others write
SUBTRACTOR pairs).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.objects.macho import layouts as mo
from cargo_strip_hook.objects.macho.commands import Commands, File
from cargo_strip_hook.objects.macho.relocations import SUBTRACTOR, Rows
from cargo_strip_hook.objects.macho.split import EH_FRAME, STEP, Pieces, is_dropped, names_of
from cargo_strip_hook.objects.model import EDGE, RELOCATION, Array, Int64, Reach

_PCREL, _PCREL_SDATA4, _OMIT = 0x10, 0x1B, 0xFF
PC_BEGIN = 8  # after the length and the CIE pointer


@dataclass(frozen=True, slots=True)
class _Cie:
    """How the FDEs of a CIE are written: sizes of addresses in bytes, 0 for no LSDA."""

    address: int
    lsda: int
    has_data: bool


def split_frames(f: File, commands: Commands) -> dict[int, list[int]]:
    """The offsets of the records of each `__eh_frame` section. Raises `ObjectError`."""
    found: dict[int, list[int]] = {}
    for number, name in enumerate(names_of(commands.sections)):
        header = commands.sections[number]
        if name != EH_FRAME or is_dropped(name, int(header["flags"])):
            continue
        base, size = int(header["offset"]), int(header["size"])
        starts: list[int] = []
        at = 0
        while at + 4 <= size:
            length = int.from_bytes(f.data[base + at : base + at + 4], "little")
            if length == 0:
                if any(f.data[base + at : base + size]):
                    raise f.fail("__eh_frame has records behind its end", base + at)
                break
            if length == 0xFFFFFFFF:
                raise f.fail("__eh_frame records in the 64-bit form are not supported", base + at)
            if length < 8 or at + 4 + length > size:
                raise f.fail("__eh_frame is damaged: a record does not fit", base + at)
            starts.append(at)
            at += 4 + length
        found[number] = starts or [0]
    return found


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


def _read_cie(f: File, record: memoryview, where: int) -> _Cie:
    """Raises `ObjectError` for encodings that no compiler for Darwin writes."""
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
            raise f.fail("a CIE of __eh_frame has no augmentation data", where)
        _, at = _uleb(record, at)
        address, lsda = 0, 0
        for letter in augmentation[1:]:
            if letter == ord("P"):
                at += 5  # encoding, and a 4-byte distance to a GOT entry
            elif letter == ord("L"):
                lsda = 0 if record[at] == _OMIT else _encoded(record[at])
                if record[at] != _OMIT and not lsda:
                    raise f.fail("a CIE of __eh_frame has an unknown LSDA encoding", where)
                at += 1
            elif letter == ord("R"):
                address = _encoded(record[at])
                at += 1
            elif letter not in b"SB":
                raise f.fail("a CIE of __eh_frame has an unknown augmentation", where)
        if not address:
            raise f.fail("a CIE of __eh_frame has an unknown address encoding", where)
    except IndexError as e:
        raise f.fail("a CIE of __eh_frame is cut short", where) from e
    return _Cie(address, lsda, True)


@dataclass(frozen=True, slots=True)
class Frames:
    """The relocations of a file once those of unwind records are in one form, and their edges."""

    rows: Array  # RELOCATION
    edges: Array  # EDGE: FDE to CIE


def read_frames(
    f: File,
    commands: Commands,
    pieces: Pieces,
    found: Rows,
    frames: dict[int, list[int]],
    places: tuple[Array, Int64],
) -> Frames:
    """Rewrite the relocations of unwind records.

    `places`: atom and value of each symbol of the unit. An FDE gets one `PC_RELATIVE` relocation
    for its function and one for its LSDA, a compact-unwind entry one to its function's own atom:
    by a name it would come to life with another library's copy of a weak function.
    """
    rows, section = found.rows, found.section
    compact = pieces.atoms["size"][rows["atom"]] == mo.COMPACT_UNWIND_SIZE
    names = names_of(commands.sections)
    is_compact = np.array([n == (b"__LD", b"__compact_unwind") for n in names], np.bool_)
    compact &= is_compact[section]
    function = compact & (rows["offset"] == 0)
    if function.any():
        atom, value = places
        target = atom[rows["symbol"][function]]
        if (target < 0).any():
            raise f.fail("__compact_unwind describes a function that is not in the file", 0)
        rows["addend"][function] += value[rows["symbol"][function]]
        rows["symbol"][function] = target
        rows["reach"][function] = Reach.REVERSE

    added = [np.zeros(0, RELOCATION)]
    edges: list[tuple[int, int]] = []
    dropped = np.zeros(len(rows), np.bool_)
    for number, starts in frames.items():
        frame = _Frame(f, commands, pieces, found, places, number)
        frame.read(starts, edges)
        added.append(frame.relocations(dropped))
    links = np.array(edges, EDGE) if edges else np.zeros(0, EDGE)
    return Frames(np.concatenate([rows[~dropped], *added]), links)


class _Frame:
    """One `__eh_frame` section."""

    def __init__(
        self,
        f: File,
        commands: Commands,
        pieces: Pieces,
        found: Rows,
        places: tuple[Array, Int64],
        number: int,
    ) -> None:
        self.f, self.commands, self.pieces = f, commands, pieces
        self.rows, self.places = found.rows, places
        header = commands.sections[number]
        self.base, self.size = int(header["offset"]), int(header["size"])
        self.address = int(header["addr"])
        self.first = int(pieces.first[number])
        self.addresses = commands.sections["addr"].astype(np.int64)
        self.ends = self.addresses + commands.sections["size"].astype(np.int64)
        self.at: dict[tuple[int, int], int] = {}  # (atom, offset) -> the first relocation there
        mine = np.flatnonzero(found.section == number)
        keys = zip(
            found.rows["atom"][mine].tolist(), found.rows["offset"][mine].tolist(), strict=True
        )
        for row, key in zip(mine.tolist(), keys, strict=True):
            self.at.setdefault(key, row)
        self.subtractor = SUBTRACTOR[commands.cputype]
        # atom, offset in it, size, reach, its relocation or -1, distance where it has none
        self.fields: list[tuple[int, int, int, int, int, int]] = []

    def read(self, starts: list[int], edges: list[tuple[int, int]]) -> None:
        """Find the fields of all FDEs, and which CIE each has."""
        order = {start: n for n, start in enumerate(starts)}
        cies: dict[int, _Cie] = {}
        for n, start in enumerate(starts):
            if start + 8 > self.size:
                continue
            where = self.base + start
            size = 4 + int.from_bytes(self.f.data[where : where + 4], "little")
            record = self.f.data[where : where + size]
            if size < 12:
                continue  # nothing but an end
            pointer = int.from_bytes(record[4:8], "little")
            if pointer == 0:
                cies[start] = _read_cie(self.f, record, where)
                continue
            cie = order.get(start + 4 - pointer)
            form = cies.get(start + 4 - pointer)
            if cie is None or form is None:
                raise self.f.fail("__eh_frame is damaged: an FDE has no CIE", where)
            atom = self.first + n
            edges.append((atom, self.first + cie))
            self.field(atom, start, PC_BEGIN, form.address, Reach.REVERSE)
            if not form.lsda:
                continue
            try:
                length, at = _uleb(record, PC_BEGIN + 2 * form.address)
            except IndexError as e:
                raise self.f.fail("an FDE of __eh_frame is cut short", where) from e
            if length >= form.lsda:
                self.field(atom, start, at, form.lsda, Reach.FORWARD)

    def field(self, atom: int, start: int, offset: int, size: int, reach: Reach) -> None:
        """One distance in an FDE."""
        where = self.base + start + offset
        if start + offset + size > self.size:
            raise self.f.fail("an FDE of __eh_frame is cut short", where)
        row, distance = self.at.get((atom, offset), -1), 0
        if row < 0:
            distance = int.from_bytes(self.f.data[where : where + size], "little", signed=True)
            if distance == 0:  # no LSDA
                return
        self.fields.append((atom, offset, size, reach, row, distance))

    def relocations(self, dropped: Array) -> Array:
        """One relocation for each field, to the atom it means; marks those of the file."""
        out = np.zeros(len(self.fields), RELOCATION)
        if not len(out):
            return out
        atom, offset, size, reach, row, distance = np.array(self.fields, np.int64).T
        pieces = self.pieces.atoms
        start = pieces["offset"][atom] + offset
        plain = row < 0
        section = np.zeros(len(out), np.int64)
        target = self.address + start + distance
        section[plain] = self._sections_at(target[plain], start[plain])
        rows = row[~plain]
        section[~plain], target[~plain] = self._pairs(rows, start[~plain])
        dropped[rows] = dropped[rows + 1] = True
        place = target - self.addresses[section]
        outside = (place < 0) | (place > self.ends[section] - self.addresses[section])
        self._none(outside, start, "describes no section of the file")
        found = np.searchsorted(self.pieces.keys, (section << STEP) + place, side="right") - 1
        out["atom"], out["offset"], out["reach"] = atom, offset, reach
        out["type"] = np.where(size == 8, mo.PC_RELATIVE, mo.PC_RELATIVE_4)
        out["symbol"], out["addend"] = found, place - pieces["offset"][found]
        return out

    def _none(self, wrong: Array, start: Int64, what: str) -> None:
        if wrong.any():
            where = self.base + int(start[int(np.argmax(wrong))])
            raise self.f.fail(f"an FDE of __eh_frame {what}", where)

    def _sections_at(self, address: Int64, start: Int64) -> Int64:
        """The sections that hold addresses."""
        numbers = np.flatnonzero(self.pieces.kept & (self.ends > self.addresses))
        numbers = numbers[np.argsort(self.addresses[numbers], kind="stable")]
        at = np.searchsorted(self.addresses[numbers], address, side="right") - 1
        self._none(at < 0, start, "describes no section of the file")
        section = numbers[at]
        self._none(address >= self.ends[section], start, "describes no section of the file")
        return section

    def _pairs(self, rows: Int64, start: Int64) -> tuple[Int64, Int64]:
        """(section, address) that SUBTRACTOR pairs mean: minuend + addend, seen from the field."""
        first = self.rows[rows]
        alone = first["type"] & 0xF != self.subtractor
        self._none(alone, start, "has a relocation of an unknown kind")
        second = self.rows[rows + 1]
        atoms, values = self.places
        minuend, subtrahend = second["symbol"], first["symbol"]
        absent = (atoms[minuend] < 0) | (atoms[subtrahend] < 0)
        self._none(absent, start, "describes what is not in the file")
        pieces = self.pieces.atoms

        def address(symbol: Array) -> Int64:
            piece = pieces[atoms[symbol]]
            at: Int64 = self.addresses[piece["section"]] + piece["offset"] + values[symbol]
            return at

        target = address(minuend) + second["addend"] - address(subtrahend) + self.address + start
        return pieces["section"][atoms[minuend]].astype(np.int64), target
