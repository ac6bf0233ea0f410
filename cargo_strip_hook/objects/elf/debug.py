"""Debug information of live units: sections joined by name, relocations rewritten.

Source: DWARF 5, section 7.4; tombstones as linkers write them (0, and 1 in `.debug_ranges` and
`.debug_loc` of DWARF 4, where 0 would end a list early).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.errors import ObjectError
from cargo_strip_hook.objects.elf import layouts as elf
from cargo_strip_hook.objects.elf.machine import Machine
from cargo_strip_hook.objects.elf.reader import ElfUnit, section_name
from cargo_strip_hook.objects.model import Array, Bool, Int32, Int64, Place, Program, Unit
from cargo_strip_hook.objects.pages import release

_TOMBSTONE_ONE = (b".debug_ranges", b".debug_loc")


@dataclass(frozen=True, slots=True)
class DebugPiece:
    """One input section's part of an output section.

    `words` and `halves` are the offsets of 8- and 4-byte fields that take the tombstone `value`.
    """

    unit: int
    section: int
    offset: int
    size: int
    words: Int64
    halves: Int64
    value: int


@dataclass(frozen=True, slots=True)
class DebugSection:
    """One output section.

    `relocations`: (RELA rows whose r_info has the type only, their targets as in `Settled`), a
    pair for each piece that has any.
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
        each = [np.unique(target) for _, target in self.relocations]
        return np.unique(np.concatenate(each)) if each else np.zeros(0, np.int32)


def _plain_size(unit: Unit, section: int) -> int:
    """The size of a section's contents once they are not compressed. Source: gABI, Elf64_Chdr."""
    header = unit.native.sections[section]
    if not int(header["flags"]) & elf.SHF_COMPRESSED:
        return int(header["size"])
    start = int(header["offset"])
    kind = int.from_bytes(unit.data[start : start + 4], "little")
    if kind != elf.ELFCOMPRESS_ZLIB or int(header["size"]) < 24:
        raise ObjectError(
            "debug information is compressed in a way that is not supported",
            member=unit.name,
            offset=start,
            help="build with uncompressed debug information, or use `--strip debuginfo`",
        )
    return int.from_bytes(unit.data[start + 8 : start + 16], "little")


def contents(unit: Unit, piece: DebugPiece) -> memoryview | bytearray:
    """The bytes of a piece as they are written."""
    header = unit.native.sections[piece.section]
    start, size = int(header["offset"]), int(header["size"])
    view = unit.data[start : start + size]
    if int(header["flags"]) & elf.SHF_COMPRESSED:
        try:
            plain = bytearray(zlib.decompress(view[24:]))
        except zlib.error as e:
            raise ObjectError(
                f"a compressed section is damaged: {e}", member=unit.name, offset=start
            ) from e
        if len(plain) != piece.size:
            raise ObjectError(
                "a compressed section has another size than it says",
                member=unit.name,
                offset=start,
            )
    elif len(piece.words) or len(piece.halves):
        plain = bytearray(view)
    else:
        return view
    octets = np.frombuffer(plain, np.uint8)
    for offsets, width in ((piece.words, 8), (piece.halves, 4)):
        octets[offsets[:, None] + np.arange(width)] = np.frombuffer(
            piece.value.to_bytes(width, "little"), np.uint8
        )
    return plain


def collect(
    program: Program,
    machine: Machine,
    live: Bool,
    placed_section: Array,
    placed_offset: Int64,
    kept: Bool,
    first_number: int,
) -> list[DebugSection]:
    """The debug sections of every unit with a live atom.

    `first_number` is the output section number that the first of them will have.
    """
    units = np.unique(program.unit_of(np.flatnonzero(live))).tolist()
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
            align = max(int(header["align"]), 1)
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
    rows = _Rows(program, machine, live, placed_section, placed_offset, kept, first_number, base)
    found: list[DebugSection] = []
    for out, name in enumerate(names):
        one = 1 if name in _TOMBSTONE_ONE else 0
        done: list[DebugPiece] = []
        relocations: list[tuple[Array, Int32]] = []
        for number, section, at, size in pieces[out]:
            rela, target, dead, wide = rows.of(number, section, at)
            words = _unwritten(program.units[number], section, dead[wide], 8, one)
            halves = _unwritten(program.units[number], section, dead[~wide], 4, one)
            done.append(DebugPiece(number, section, at, size, words, halves, one))
            if len(rela):
                relocations.append((rela, target.astype(np.int32)))
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


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rewrites the relocations of one debug section at a time."""

    program: Program
    machine: Machine
    live: Bool
    section: Array
    offset: Int64
    kept: Bool
    first_number: int
    base: dict[tuple[int, int], tuple[int, int]]

    def of(self, number: int, section: int, at: int) -> tuple[Array, Int64, Int64, Bool]:
        """(rela rows, targets, offsets of dead fields, which of them have 8 bytes)."""
        program = self.program
        unit = program.units[number]
        native: ElfUnit = unit.native
        inputs = np.flatnonzero(
            (native.sections["type"] == elf.SHT_RELA) & (native.sections["info"] == section)
        ).tolist()
        dtype = native.records.rela
        if not inputs:
            none = np.zeros(0, np.int64)
            return np.zeros(0, dtype), none, none, np.zeros(0, np.bool_)
        tables = []
        for i in inputs:
            header = native.sections[i]
            count = int(header["size"]) // dtype.itemsize
            tables.append(np.frombuffer(unit.data, dtype, count, int(header["offset"])))
        rela = np.concatenate(tables)
        for i in inputs:
            start = int(native.sections["offset"][i])
            release(unit.data[start : start + int(native.sections["size"][i])])
        symbol = (rela["info"] >> np.uint64(32)).astype(np.int64)
        kind = (rela["info"] & np.uint64(0xFFFFFFFF)).astype(np.int64)
        size = _plain_size(unit, section)
        if (symbol >= len(unit.symbols)).any() or (rela["offset"] >= size).any():
            raise ObjectError(
                "a relocation of debug information is out of range",
                member=unit.name,
                offset=int(native.sections["offset"][inputs[0]]),
            )
        definition = program.definition[program.symbol_base[number] + symbol].astype(np.int64)
        place = program.symbols["atom"][definition]
        inside = place >= 0
        atom = np.where(inside, place, 0)
        alive = inside & self.live[atom]
        dead = inside & ~alive
        # a member of a losing COMDAT group is described by the winner's unit only
        local_place = unit.symbols["atom"][symbol]
        first = program.atom_base[number]
        lost = (local_place >= 0) & program.discarded[
            np.where(local_place >= 0, local_place + first, 0)
        ]
        dead |= lost
        alive &= ~lost

        target = definition.copy()
        addend = rela["addend"].copy()
        whole = alive & ~self.kept[definition]
        whole &= program.symbols["kind"][definition] != elf.STT_TLS
        target[whole] = ~self.section[atom[whole]].astype(np.int64)
        addend[whole] += self.offset[atom[whole]] + program.symbols["value"][definition[whole]]
        elsewhere = place == Place.ELSEWHERE
        if elsewhere.any():
            dead |= self._into_debug(number, symbol, definition, elsewhere, target, addend)
        fields = rela["offset"][dead].astype(np.int64)
        wide = kind[dead] == self.machine.absolute64
        left = ~dead & (kind != 0)
        rela["offset"] += np.uint64(at)
        rela["addend"] = addend
        rela["info"] = kind
        return rela[left], target[left], fields, wide

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
        table = np.full((len(native.sections), 2), -1, np.int64)
        for section in native.debug:
            table[section] = self.base[number, section]
        shndx = native.shndx[np.where(which, symbol, 0)]
        row = table[np.where(which, shndx, 0)]
        known = which & (row[:, 0] >= 0)
        target[known] = ~(row[known, 0] + self.first_number)
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
    wanted = np.frombuffer(value.to_bytes(width, "little"), np.uint8)
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
