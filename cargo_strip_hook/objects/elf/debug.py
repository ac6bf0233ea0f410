"""Debug information of live units: sections joined by name, relocations rewritten.

Source: DWARF 5, section 7.4; tombstones as linkers write them (0, and 1 in `.debug_ranges` and
`.debug_loc` of DWARF 4, where 0 would end a list early).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cargo_strip_hook.errors import ObjectError
from cargo_strip_hook.objects.arrays import unique
from cargo_strip_hook.objects.elf import fields
from cargo_strip_hook.objects.elf import layouts as elf
from cargo_strip_hook.objects.elf.fields import Field
from cargo_strip_hook.objects.elf.file import ElfUnit, section_name
from cargo_strip_hook.objects.elf.machine import TYPES, Machine
from cargo_strip_hook.objects.elf.relocate import Placed, exact
from cargo_strip_hook.objects.model import Array, Bool, Int32, Int64, Place, Program, Unit
from cargo_strip_hook.objects.pages import release

_MOST_ALIGN = 1 << 16  # bytes; no debug information has more than a page's
_TOMBSTONE_ONE = (b".debug_ranges", b".debug_loc")


@dataclass(frozen=True, slots=True)
class DebugPiece:
    """One input section's part of an output section.

    `words` and `halves` are the offsets of 8- and 4-byte fields that take the tombstone `value`.
    `addends`: (offsets, uint8[n, width]) of what stands in the contents for relocations.
    """

    unit: int
    section: int
    offset: int
    size: int
    words: Int64
    halves: Int64
    value: int
    addends: tuple[tuple[Int64, Array], ...] = ()


@dataclass(frozen=True, slots=True)
class DebugSection:
    """One output section.

    `relocations`: (REL or RELA rows whose r_info has the type only, their targets as in
    `Settled`), a pair for each piece that has any.
    """

    name: bytes
    type: int
    flags: int
    entsize: int
    align: int
    size: int
    pieces: tuple[DebugPiece, ...]
    relocations: tuple[tuple[Array, Int32], ...]

    def used_targets(self) -> Int32:
        """All targets, sorted, each once."""
        each = [unique(target) for _, target in self.relocations]
        return unique(np.concatenate(each)) if each else np.zeros(0, np.int32)


def _compression(unit: Unit) -> struct.Struct:
    """(ch_type, ch_size, ch_addralign) of the header. Source: gABI, Elf32_Chdr and Elf64_Chdr."""
    records: elf.Records = unit.native.records
    return struct.Struct(f"{records.order}{'I4xQQ' if records.bits == 64 else 'III'}")


def _plain_size(unit: Unit, section: int) -> int:
    """The size of a section's contents once they are not compressed."""
    header = unit.native.sections[section]
    if not int(header["flags"]) & elf.SHF_COMPRESSED:
        return int(header["size"])
    start = int(header["offset"])
    layout = _compression(unit)
    short = int(header["size"]) < layout.size
    kind, size = (0, 0) if short else layout.unpack_from(unit.data, start)[:2]
    if kind != elf.ELFCOMPRESS_ZLIB:
        raise ObjectError(
            "debug information is compressed in a way that is not supported",
            member=unit.name,
            offset=start,
            help="build with uncompressed debug information, or use `--strip debuginfo`",
        )
    return int(size)


def _plain_align(unit: Unit, section: int) -> int:
    """The alignment of a section's contents once they are not compressed."""
    header = unit.native.sections[section]
    align = int(header["align"])
    if int(header["flags"]) & elf.SHF_COMPRESSED:
        _plain_size(unit, section)  # raises for a header that is not there
        align = int(_compression(unit).unpack_from(unit.data, int(header["offset"]))[2])
        if align & (align - 1) or align > _MOST_ALIGN:
            raise ObjectError(
                "a compressed section has an alignment that is no power of two",
                member=unit.name,
                offset=int(header["offset"]),
            )
    return max(align, 1)


def _plain(unit: Unit, section: int) -> memoryview | bytearray:
    """The contents of a section, no longer compressed."""
    header = unit.native.sections[section]
    start, size = int(header["offset"]), int(header["size"])
    view = unit.data[start : start + size]
    if not int(header["flags"]) & elf.SHF_COMPRESSED:
        return view
    try:
        plain = bytearray(zlib.decompress(view[_compression(unit).size :]))
    except zlib.error as e:
        raise ObjectError(
            f"a compressed section is damaged: {e}", member=unit.name, offset=start
        ) from e
    if len(plain) != _plain_size(unit, section):
        raise ObjectError(
            "a compressed section has another size than it says", member=unit.name, offset=start
        )
    return plain


def contents(unit: Unit, piece: DebugPiece) -> memoryview | bytearray:
    """The bytes of a piece as they are written."""
    view = _plain(unit, piece.section)
    if len(piece.words) or len(piece.halves) or piece.addends:
        plain = view if isinstance(view, bytearray) else bytearray(view)
    else:
        return view
    octets = np.frombuffer(plain, np.uint8)
    order: Literal["little", "big"] = "little" if unit.native.records.order == "<" else "big"
    for offsets, width in ((piece.words, 8), (piece.halves, 4)):
        octets[offsets[:, None] + np.arange(width)] = np.frombuffer(
            piece.value.to_bytes(width, order), np.uint8
        )
    for offsets, stored in piece.addends:
        octets[offsets[:, None] + np.arange(stored.shape[1])] = stored
    return plain


def collect(
    program: Program,
    machine: Machine,
    live: Bool,
    placed: Placed,
) -> list[DebugSection]:
    """The debug sections of every unit with a live atom; they follow those of `placed`."""
    units = unique(program.unit_of(np.flatnonzero(live))).tolist()
    order: dict[bytes, int] = {}
    ends: list[int] = []
    headers: list[tuple[int, int, int, int]] = []
    pieces: list[list[tuple[int, int, int, int]]] = []
    base: dict[tuple[int, int], tuple[int, int]] = {}
    for number in units:
        unit = program.units[number]
        native: ElfUnit = unit.native
        for section in native.debug:
            header = native.sections[section]
            name = section_name(native, section)
            out = order.setdefault(name, len(order))
            align = _plain_align(unit, section)
            flags = int(header["flags"]) & (elf.SHF_MERGE | elf.SHF_STRINGS | elf.SHF_EXCLUDE)
            if out == len(ends):
                ends.append(0)
                headers.append((int(header["type"]), flags, int(header["entsize"]), align))
                pieces.append([])
            kind, seen, entsize, most = headers[out]
            if int(header["entsize"]) != entsize:
                seen, entsize = seen & ~(elf.SHF_MERGE | elf.SHF_STRINGS), 0
            headers[out] = (kind, seen & flags, entsize, max(most, align))
            at = -(-ends[out] // align) * align
            size = _plain_size(unit, section)
            ends[out] = at + size
            pieces[out].append((number, section, at, size))
            base[number, section] = (out, at)

    names = list(order)
    relocated = {number: _relocated(program.units[number]) for number in units}
    tables = {number: _where_debug_goes(program.units[number], number, base) for number in units}
    rows = _Rows(program, machine, live, placed, relocated, tables, bool(program.discarded.any()))
    found: list[DebugSection] = []
    for out, name in enumerate(names):
        one = 1 if name in _TOMBSTONE_ONE else 0
        done: list[DebugPiece] = []
        relocations: list[tuple[Array, Int32]] = []
        for number, section, at, size in pieces[out]:
            found_rows = rows.of(number, section, at)
            unit = program.units[number]
            words = _unwritten(unit, section, found_rows.dead[8], 8, one)
            halves = _unwritten(unit, section, found_rows.dead[4], 4, one)
            addends = found_rows.addends
            done.append(DebugPiece(number, section, at, size, words, halves, one, addends))
            if len(found_rows.rows):
                relocations.append((found_rows.rows, found_rows.target))
        kind, flags, entsize, align = headers[out]
        found.append(
            DebugSection(
                name,
                kind,
                flags,
                entsize,
                align,
                ends[out],
                tuple(done),
                tuple(relocations),
            )
        )
    return found


def _relocated(unit: Unit) -> dict[int, list[int]]:
    """The relocation sections of each debug section of a unit."""
    native: ElfUnit = unit.native
    types = native.sections["type"]
    info = native.sections["info"]
    is_debug = np.zeros(len(types), np.bool_)
    is_debug[list(native.debug)] = True
    found: dict[int, list[int]] = {}
    inputs = np.flatnonzero((types == elf.SHT_RELA) | (types == elf.SHT_REL))
    inputs = inputs[is_debug[info[inputs]]]
    for i, section in zip(inputs.tolist(), info[inputs].tolist(), strict=True):
        found.setdefault(section, []).append(i)
    return found


def _where_debug_goes(
    unit: Unit, number: int, base: dict[tuple[int, int], tuple[int, int]]
) -> Int64:
    """(output section, offset) of each section of a unit; -1 for those that are not kept."""
    table = np.full((len(unit.native.sections), 2), -1, np.int64)
    for section in unit.native.debug:
        table[section] = base[number, section]
    return table


@dataclass(frozen=True, slots=True)
class _Rewritten:
    """REL or RELA rows (r_info has the type only), their targets, offsets of dead fields by
    width, addends for the contents as in `DebugPiece`."""

    rows: Array
    target: Int32
    dead: dict[int, Int64]
    addends: tuple[tuple[Int64, Array], ...] = ()


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rewrites the relocations of one debug section at a time."""

    program: Program
    machine: Machine
    live: Bool
    placed: Placed
    relocated: dict[int, dict[int, list[int]]]  # by unit: `_relocated`
    tables: dict[int, Int64]  # by unit: `_where_debug_goes`
    groups: bool  # whether any COMDAT group lost

    def of(self, number: int, section: int, at: int) -> _Rewritten:
        """The relocations of a section whose contents will begin at `at` of the output's."""
        program, machine, placed = self.program, self.machine, self.placed
        unit = program.units[number]
        native: ElfUnit = unit.native
        rows, addend = self._read(unit, section, self.relocated[number].get(section, []))
        if not len(rows):
            none = np.zeros(0, np.int64)
            return _Rewritten(rows, np.zeros(0, np.int32), {4: none, 8: none})
        symbol = (rows["info"] >> native.records.symbol_shift).astype(np.int64)
        kind = (rows["info"] & native.records.type_mask).astype(np.int64)
        definition = program.definition[program.symbol_base[number] + symbol].astype(np.int64)
        place = program.symbols["atom"][definition]
        inside = place >= 0
        atom = np.where(inside, place, 0)
        alive = inside & self.live[atom]
        dead = inside & ~alive
        alike = twin = None
        if self.groups:
            # a member of a losing COMDAT group is described by the winner's unit only
            local_place = unit.symbols["atom"][symbol]
            first = program.atom_base[number]
            lost = (local_place >= 0) & program.discarded[
                np.where(local_place >= 0, local_place + first, 0)
            ]
            # unless the two are alike: then what is said of the loser holds for the winner, too
            twin = program.twin[np.where(lost, local_place + first, 0)]
            alike = lost & (twin >= 0)
            alike &= self.live[np.where(alike, twin, 0)]
            lost &= ~alike
            dead |= lost
            dead &= ~alike
            alive &= ~lost & ~alike

        target = definition.copy()
        symbol_kind = program.symbols["kind"][definition]
        whole = alive & ~placed.kept[definition] & (symbol_kind != elf.STT_TLS)
        whole &= exact(program, machine, placed, definition, placed.section[atom], symbol_kind)
        target[whole] = ~placed.section[atom[whole]].astype(np.int64)
        addend[whole] += placed.offset[atom[whole]] + program.symbols["value"][definition[whole]]
        if alike is not None and twin is not None:
            target[alike] = ~placed.section[twin[alike]].astype(np.int64)
            addend[alike] += placed.offset[twin[alike]] + unit.symbols["value"][symbol[alike]]
        elsewhere = place == Place.ELSEWHERE
        if elsewhere.any():
            dead |= self._into_debug(number, symbol, definition, elsewhere, target, addend)
        small = np.minimum(kind, TYPES - 1)
        width = machine.absolute_types[small]
        left = ~dead & (kind != 0)
        stored = self._stored(unit, rows, small, addend, left & (target < 0))
        fields_of_dead = {w: rows["offset"][dead & (width == w)].astype(np.int64) for w in (4, 8)}
        rows["offset"] += rows["offset"].dtype.type(at)
        rows["info"] = kind
        if not machine.rel:
            rows["addend"] = addend
        return _Rewritten(rows[left], target[left].astype(np.int32), fields_of_dead, stored)

    def _read(self, unit: Unit, section: int, inputs: list[int]) -> tuple[Array, Int64]:
        """(rows in the output's form, addends) of all relocations of a section.

        `inputs` are the sections that hold them.
        """
        native: ElfUnit = unit.native
        types = native.sections["type"]
        rel = self.machine.rel
        wanted, dtype = (
            (elf.SHT_REL, native.records.rel)
            if rel
            else (
                elf.SHT_RELA,
                native.records.rela,
            )
        )
        if not inputs:
            return np.zeros(0, dtype), np.zeros(0, np.int64)
        tables = []
        for i in inputs:
            header = native.sections[i]
            if types[i] != wanted:
                raise ObjectError(
                    "relocations of debug information have a form that this architecture does "
                    "not use",
                    member=unit.name,
                    offset=int(header["offset"]),
                    help="use `--strip debuginfo`",
                )
            count = int(header["size"]) // dtype.itemsize
            tables.append(np.frombuffer(unit.data, dtype, count, int(header["offset"])))
        rows = np.concatenate(tables).astype(dtype, copy=False)  # big-endian again, if it was
        for i in inputs:
            start = int(native.sections["offset"][i])
            release(unit.data[start : start + int(native.sections["size"][i])])
        size = _plain_size(unit, section)
        symbol = rows["info"] >> native.records.symbol_shift
        if (symbol >= len(unit.symbols)).any() or (rows["offset"] >= size).any():
            raise ObjectError(
                "a relocation of debug information is out of range",
                member=unit.name,
                offset=int(native.sections["offset"][inputs[0]]),
            )
        if not rel:
            return rows, rows["addend"].astype(np.int64)
        addend = np.zeros(len(rows), np.int64)
        octets = np.frombuffer(_plain(unit, section), np.uint8)
        for kind, mine in self._fields(unit, rows, size):
            at = rows["offset"][mine].astype(np.int64)
            addend[mine] = fields.load(octets, at, kind, native.records.order)
        return rows, addend

    def _fields(self, unit: Unit, rows: Array, size: int) -> Iterator[tuple[Field, Int64]]:
        """Which rows have their addend in which field."""
        kinds = rows["info"] & unit.native.records.type_mask
        implicit = self.machine.implicit_types[np.minimum(kinds, TYPES - 1)]
        for kind in fields.FIELDS:
            mine = np.flatnonzero(implicit == kind)
            if len(mine):
                if (rows["offset"][mine] + fields.width(kind) > size).any():
                    raise ObjectError(
                        "a relocation of debug information is out of range", member=unit.name
                    )
                yield kind, mine

    def _stored(
        self, unit: Unit, rows: Array, kind: Int64, addend: Int64, moved: Bool
    ) -> tuple[tuple[Int64, Array], ...]:
        """What the contents get where relocations that were `moved` have no addend."""
        if not self.machine.rel:
            return ()
        found = []
        implicit = self.machine.implicit_types[kind]
        for field in fields.FIELDS:
            mine = np.flatnonzero(moved & (implicit == field))
            if len(mine):
                blank = np.zeros((len(mine), fields.width(field)), np.uint8)
                octets = fields.encode(field, addend[mine], blank, unit.native.records.order)
                found.append((rows["offset"][mine].astype(np.int64), octets))
        if (moved & (implicit == Field.NONE)).any():
            raise ObjectError(
                "a relocation of debug information has a type whose addend is unknown",
                member=unit.name,
                help="use `--strip debuginfo`",
            )
        return tuple(found)

    def _into_debug(
        self,
        number: int,
        symbol: Int64,
        definition: Int64,
        which: Bool,
        target: Int64,
        addend: Int64,
    ) -> Bool:
        """References to other debug sections of the unit; True where those are not kept."""
        native: ElfUnit = self.program.units[number].native
        table = self.tables[number]
        shndx = native.shndx[np.where(which, symbol, 0)]
        row = table[np.where(which, shndx, 0)]
        known = which & (row[:, 0] >= 0)
        target[known] = ~(row[known, 0] + len(self.placed.start))
        addend[known] += row[known, 1] + self.program.symbols["value"][definition[known]]
        return which & ~known


def _unwritten(unit: Unit, section: int, offsets: Int64, width: int, value: int) -> Int64:
    """The fields that do not hold `value` already, as those of RELA relocations mostly do."""
    header = unit.native.sections[section]
    if not len(offsets) or int(header["flags"]) & elf.SHF_COMPRESSED:
        return offsets
    if (offsets + width > int(header["size"])).any():
        raise ObjectError(
            "a relocation of debug information is out of range",
            member=unit.name,
            offset=int(header["offset"]),
        )
    data = np.frombuffer(unit.data, np.uint8, int(header["size"]), int(header["offset"]))
    order: Literal["little", "big"] = "little" if unit.native.records.order == "<" else "big"
    wanted = np.frombuffer(value.to_bytes(width, order), np.uint8)
    differs: Bool = (data[offsets[:, None] + np.arange(width)] != wanted).any(axis=1)
    return offsets[differs]


def stream(program: Program, section: DebugSection) -> Iterator[bytes | bytearray | memoryview]:
    """The contents of an output section, piece by piece, with the padding between them."""
    at = 0
    for piece in section.pieces:
        if piece.offset > at:
            yield bytes(piece.offset - at)
        yield contents(program.units[piece.unit], piece)
        at = piece.offset + piece.size
