"""What unwinds each function, read from objects: compact-unwind entries and FDEs.

Sources: mach-o/compact_unwind_encoding.h; Linux Standard Base 5.0, section 10.6.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.verify.arrays import Array, gather, rows_of, spread, unique
from cargo_strip_hook.verify.kit.frames import BadFrames, common_entry, uleb, walk
from cargo_strip_hook.verify.macho.locations import Locations
from cargo_strip_hook.verify.macho.read import ARM64, REFERENCE, STEP, Damaged, Object

RECORD = np.dtype(
    [
        ("compact", "?"),
        ("function", "<i8"),
        ("lsda", "<i8"),
        ("personality", "<i4"),
        ("personality_address", "<i8"),
        ("personality_addend", "<i8"),
        ("personality_kind", "<i4"),
        ("size", "<u8"),
        ("encoding", "<u4"),
        ("cie", "<i4"),
        ("code", "<i8"),
        ("code_size", "<i8"),
    ]
)


@dataclass(frozen=True, slots=True)
class Records:
    """Records of RECORD; addresses are those of the object, -1 where there is none.

    `personality` is a symbol's number, or -1; `personality_address` is for one without a name, and
    `personality_kind` the type of its relocation.
    `size` is that of the function in bytes. A compact-unwind entry has an `encoding`, an FDE the
    number of its CIE in `cies`, -1 for none, and `code`: where its instructions are in the file.
    """

    rows: Array
    cies: tuple[bytes, ...] = ()  # with zeros for what a linker fills in

    def __len__(self) -> int:
        return len(self.rows)


def records(o: Object, where: Locations | None = None, *, strict: bool = False) -> Records:
    """All records, or those of the functions that went somewhere. Raises `Damaged`.

    `strict`: nothing else may be in these sections, as is so in what we make.
    """
    compact = _compact(o, where, strict)
    frames, cies = _frames(o, where, strict)
    return Records(np.concatenate([compact, frames]), cies)


class _Fields:
    """The references of sections, by place: section << STEP | offset."""

    def __init__(self, o: Object, numbers: Array) -> None:
        self.object = o
        table = o.relocations(numbers)
        keys = (table["section"].astype(np.int64) << STEP) + table["offset"]
        order = np.argsort(keys, kind="stable")
        self._table, self._keys = rows_of(table, order), keys[order]

    def at(self, locations: Array) -> tuple[Array, Array]:
        """(rows of the table, whether there is one) for each place."""
        if not len(self._table):
            return np.zeros(len(locations), REFERENCE), np.zeros(len(locations), np.bool_)
        row = np.minimum(np.searchsorted(self._keys, locations), len(self._keys) - 1)
        return rows_of(self._table, row), self._keys[row] == locations

    def check_all(self, locations: Array, width: Array) -> None:
        """There are no references but at places, each of its width (bytes). Raises `Damaged`."""
        order = np.argsort(locations, kind="stable")
        locations, width = locations[order], np.broadcast_to(width, locations.shape)[order]
        at = np.searchsorted(locations, self._keys)
        near = np.minimum(at, max(len(locations) - 1, 0))
        good = np.zeros(len(self._keys), np.bool_)
        if len(locations):
            good = (locations[near] == self._keys) & (width[near] == self._table["width"])
        if not good.all():
            raise Damaged("unwind information has a relocation that nothing reads")

    def values(self, symbols: Array) -> Array:
        """The addresses of symbols, -1 for those without a place or of no number."""
        o = self.object
        if not len(o.entries):
            return np.full(len(symbols), -1, np.int64)
        number = np.maximum(symbols, 0)
        placed = (symbols >= 0) & o.placed[number]
        return np.where(placed, o.entries["value"][number], -1)

    def targets(self, locations: Array) -> Array:
        """The addresses that references without a subtrahend mean; -1 for none."""
        row, there = self.at(locations)
        value = self.values(row["symbol"])
        by_address = row["symbol"] < 0
        known = there & (by_address | (value >= 0))
        return np.where(known, np.where(by_address, 0, value) + row["addend"], -1)

    def distances(self, locations: Array, width: Array) -> Array:
        """The addresses that pc-relative fields mean; -1 for none. Raises `Damaged`."""
        o = self.object
        section, offset = locations >> STEP, locations & ((1 << STEP) - 1)
        distance = o.stored(o.table["offset"][section - 1] + offset, width)
        here = o.table["address"][section - 1] + offset
        row, there = self.at(locations)
        if not there.any():
            return np.where(distance != 0, here + distance, -1)
        if (there & ((row["minus"] < 0) | (row["symbol"] < 0))).any():
            raise Damaged("__eh_frame has a relocation that is no difference")
        pair = self.values(row["symbol"]) + row["addend"] - self.values(row["minus"])
        return np.where(there, here + pair, np.where(distance != 0, here + distance, -1))


def _compact(o: Object, where: Locations | None, strict: bool) -> Array:
    numbers = o.named(b"__LD", b"__compact_unwind")
    if not len(numbers):
        return np.zeros(0, RECORD)
    fields = _Fields(o, numbers)
    starts = spread(numbers << STEP, o.table["size"][numbers - 1] // 32, 32)
    if not fields.at(starts)[1].all():
        raise Damaged("__compact_unwind has an entry for no function")
    function = fields.targets(starts)
    if where is not None:
        kept = where.of_addresses(function) >= 0
        starts, function = starts[kept], function[kept]
    found = np.zeros(len(starts), RECORD)
    found["compact"], found["function"], found["cie"] = True, function, -1
    found["lsda"] = fields.targets(starts + 24)
    row, there = fields.at(starts + 16)
    named = there & (row["symbol"] >= 0)
    found["personality"] = np.where(named, row["symbol"], -1)
    found["personality_address"] = np.where(there & ~named, row["addend"], -1)
    location = o.table["offset"][(starts >> STEP) - 1] + (starts & ((1 << STEP) - 1))
    found["personality_addend"] = np.where(named, row["addend"], 0)
    found["personality_kind"] = np.where(named, row["kind"], 0)
    if strict:
        fields_at = (starts[:, None] + np.array([0, 16, 24])).ravel()
        fields.check_all(fields_at, np.full(len(fields_at), 8))
        if int(o.table["size"][numbers - 1].sum()) % 32:
            raise Damaged("__compact_unwind is no list of whole entries")
        for field in (16, 24):
            bare = location[~fields.at(starts + field)[1]]
            if gather(o.octets, bare + field, np.dtype("<u8")).any():
                raise Damaged("a field of __compact_unwind has an address without a relocation")
    found["size"] = gather(o.octets, location + 8, np.dtype("<u4"))
    found["encoding"] = gather(o.octets, location + 12, np.dtype("<u4"))
    return found


def _frames(o: Object, where: Locations | None, strict: bool) -> tuple[Array, tuple[bytes, ...]]:
    numbers = o.named(b"__TEXT", b"__eh_frame")
    if not len(numbers):
        return np.zeros(0, RECORD), ()
    try:
        return _read_frames(o, numbers, where, strict)
    except (BadFrames, LookupError, ValueError) as e:
        raise Damaged(f"__eh_frame cannot be read: {e}") from e


def _walk(o: Object, number: int, strict: bool) -> Array:
    """(place, size with its length field) of each record of a section, int64[2, records].

    `strict`: there is nothing else in it.
    """
    section = o.table[number - 1]
    first, size = int(section["offset"]), int(section["size"])
    try:
        starts, sizes, stop = walk(o.data[first : first + size], "<", "__eh_frame")
    except BadFrames as e:
        raise Damaged(str(e), int(section["file"])) from e
    if strict and stop != size:
        raise Damaged("__eh_frame ends early", int(section["file"]))
    found = np.array([starts, sizes], np.int64).reshape(2, -1)
    found = found[:, found[0] < stop]
    found[0] += number << STEP
    return found


def _read_frames(
    o: Object, numbers: Array, where: Locations | None, strict: bool
) -> tuple[Array, tuple[bytes, ...]]:
    fields = _Fields(o, numbers)
    locations, sizes = np.concatenate([_walk(o, number, strict) for number in numbers.tolist()], 1)
    in_file = o.table["offset"][(locations >> STEP) - 1] + (locations & ((1 << STEP) - 1))
    pointers = _pointers(fields, locations, in_file)
    fde = np.flatnonzero(pointers)
    wanted = locations[fde] + 4 - pointers[fde]
    cie = np.minimum(np.searchsorted(locations, wanted), len(locations) - 1)
    if (locations[cie] != wanted).any() or pointers[cie].any():
        raise Damaged("__eh_frame has an FDE without a CIE")
    cies = _Cies(o, fields, locations, in_file, sizes)
    forms = np.zeros((6, len(locations)), np.int64)
    used = unique(cie)
    forms[:, used] = cies.read(used)
    width = forms[0][cie]
    function = fields.distances(locations[fde] + 8, width)
    if strict:
        _check_fields(fields, locations, (fde, width, forms[1][cie]), cies)
    if where is not None:
        kept = where.of_addresses(function) >= 0
        fde, cie, width, function = fde[kept], cie[kept], width[kept], function[kept]
    rows = np.zeros(len(fde), RECORD)
    rows["function"], rows["personality_address"] = function, -1
    rows["personality"], rows["cie"] = forms[2][cie], forms[4][cie]
    rows["personality_addend"], rows["personality_kind"] = forms[3][cie], forms[5][cie]
    size = o.stored(in_file[fde] + 8 + width, width)
    rows["size"] = np.where(width == 4, size & 0xFFFFFFFF, size)
    at = 8 + 2 * width
    if (at >= sizes[fde]).any():
        raise Damaged("__eh_frame has an FDE that is cut short")
    length = o.octets[in_file[fde] + at].astype(np.int64)
    at = at + 1
    for n in np.flatnonzero(length >= 0x80).tolist():  # a number of several bytes
        start = int(in_file[fde[n]])
        record = o.data[start : start + int(sizes[fde[n]])]
        value, at[n] = uleb(record, int(at[n]) - 1)
        length[n] = min(value, len(record))
    if (at + length > sizes[fde]).any():
        raise Damaged("__eh_frame has an FDE that is cut short")
    lsda = forms[1][cie]
    has = np.flatnonzero((lsda > 0) & (length >= lsda))
    rows["lsda"] = -1
    rows["lsda"][has] = fields.distances((locations[fde] + at)[has], lsda[has])
    rows["code"], rows["code_size"] = in_file[fde] + at + length, sizes[fde] - at - length
    return rows, tuple(cies.bodies)


def _check_fields(
    fields: _Fields,
    locations: Array,
    frames: tuple[Array, Array, Array],
    cies: _Cies,
) -> None:
    """References stand at the fields of records that a linker reads, and are as wide as these.

    `frames`: the FDEs among the records, the bytes of an address in each, and of its LSDA.
    """
    fde, width, lsda = frames
    routines = locations[list(cies.routines)] + np.array(list(cies.routines.values()), np.int64)
    behind = locations[fde] + 9 + 2 * width  # of a length that has one byte, as that of a pointer
    parts = (locations[fde] + 4, locations[fde] + 8, behind[lsda > 0], routines.astype(np.int64))
    widths = (np.full(len(fde), 4), width, lsda[lsda > 0], np.full(len(routines), 4))
    fields.check_all(np.concatenate(parts), np.concatenate(widths))


def _pointers(fields: _Fields, locations: Array, in_file: Array) -> Array:
    """The CIE pointer of each record, 0 of a CIE."""
    found = gather(fields.object.octets, in_file + 4, np.dtype("<u4")).astype(np.int64)
    row, there = fields.at(locations + 4)
    if there.any():  # as ld64 -r writes it: the distance of two symbols
        row = row[there]
        minuend, subtrahend = fields.values(row["symbol"]), fields.values(row["minus"])
        if (minuend < 0).any() or (subtrahend < 0).any():
            raise Damaged("__eh_frame has a CIE pointer that is no difference")
        found[there] = minuend + row["addend"] - subtrahend
    return found


class _Cies:
    """The CIEs among records; most files have the same ones."""

    def __init__(
        self, o: Object, fields: _Fields, locations: Array, in_file: Array, sizes: Array
    ) -> None:
        self.fields, self.data = fields, o.data
        self.locations, self.in_file, self.sizes = locations, in_file, sizes
        self.routines: dict[int, int] = {}  # record -> where in it the personality is
        self.bodies: dict[bytes, int] = {}

    def read(self, numbers: Array) -> Array:
        """int64 (6, records): width, LSDA's width, the personality's symbol (or -1) and addend, the
        number of what it says in `bodies`, and the type of the personality's relocation. Raises
        `BadFrames` and `Damaged`.
        """
        starts, sizes = self.in_file[numbers].tolist(), self.sizes[numbers].tolist()
        found = np.zeros((6, len(numbers)), np.int64)
        where = np.full(len(numbers), -1, np.int64)
        for n, (start, size) in enumerate(zip(starts, sizes, strict=True)):
            cie = common_entry(bytes(self.data[start : start + size]), 8, blank=True)
            body = self.bodies.setdefault(cie.content, len(self.bodies))
            found[:5, n] = cie.pointer, cie.lsda, -1, 0, body
            where[n] = cie.personality_at
        has = np.flatnonzero(where >= 0)
        numbers, where = numbers[has], where[has]
        self.routines.update(zip(numbers.tolist(), where.tolist(), strict=True))
        row, there = self.fields.at(self.locations[numbers] + where)
        if not there.all():
            raise Damaged("__eh_frame has a CIE whose personality has no relocation")
        found[2, has], found[3, has], found[5, has] = row["symbol"], row["addend"], row["kind"]
        if self.fields.object.cpu == ARM64:  # the field says something, too
            octets = self.fields.object.octets
            found[3, has] += gather(octets, self.in_file[numbers] + where, np.dtype("<i4"))
        return found
