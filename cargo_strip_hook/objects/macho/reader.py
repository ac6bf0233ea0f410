"""Reads one Mach-O object into the common model.

An atom is what `MH_SUBSECTIONS_VIA_SYMBOLS` lets a linker take apart: what lies between two
symbols, an element of a literal section, a record of unwind information. Each atom has a symbol
of its own, its *anchor*, with the atom's number: relocations by address refer to that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.objects.macho import layouts as mo
from cargo_strip_hook.objects.macho.commands import Commands, File, read_commands
from cargo_strip_hook.objects.macho.frames import read_frames, split_frames
from cargo_strip_hook.objects.macho.relocations import read_relocations
from cargo_strip_hook.objects.macho.split import Pieces, cut, names_of, symbol_places
from cargo_strip_hook.objects.macho.versions import Version
from cargo_strip_hook.objects.model import (
    EDGE,
    RELOCATION,
    SYMBOL,
    Array,
    Binding,
    Group,
    Int64,
    Reach,
    Unit,
)

# SYMBOL.kind: Mach-O has no symbol types, so these are ours, told by the section
KIND_UNKNOWN, KIND_DATA, KIND_FUNCTION, KIND_TLS = 0, 1, 2, 3
HIDDEN = 2  # SYMBOL.visibility of a private extern
WEAK_REFERENCE = 1  # SYMBOL.native of an undefined symbol
ANCHOR = -1  # SYMBOL.name of a symbol that has none

_CODE = mo.S_ATTR_PURE_INSTRUCTIONS | mo.S_ATTR_SOME_INSTRUCTIONS


@dataclass(frozen=True, slots=True)
class MachoUnit:
    """What only the Mach-O room knows of an object file.

    `desc`: n_desc of each symbol of the unit. `data_in_code`: (atom, offset, length, kind).
    """

    cputype: int
    cpusubtype: int
    sections: Array  # SECTION
    names: list[tuple[bytes, bytes]]  # (segment, section)
    symbol_strings: memoryview
    desc: Array
    numbers: Int64  # symbol of the unit for each entry of the file's table, -1 for none
    versions: tuple[Version, ...]
    options: tuple[tuple[bytes, ...], ...]
    data_in_code: tuple[tuple[int, int, int, int], ...]
    has_debug: bool
    headers: list[tuple[int, bool]]  # (file offset, whether it has contents) of each section


def read(index: int, name: str, data: memoryview) -> Unit:
    """Read a Mach-O object. Raises `ObjectError` naming the member and the offset."""
    f = File(name, data)
    commands = read_commands(f)
    section_names = names_of(commands.sections)
    _refuse(f, commands)
    frames = split_frames(f, commands)
    pieces = cut(f, commands, frames)
    count = len(pieces.atoms)

    table = commands.symbols
    plain = table["type"] & mo.N_STAB == 0
    external = table["type"] & mo.N_EXT != 0
    kind = table["type"] & mo.N_TYPE
    if (plain & (kind == mo.N_INDR)).any():
        raise f.fail("symbols that stand for another one (N_INDR) are not supported", 0)
    local_rows = np.flatnonzero(plain & ~external)
    global_rows = np.flatnonzero(plain & external)
    chosen = table[np.concatenate([local_rows, global_rows])]
    numbers = np.full(len(table), -1, np.int64)
    numbers[local_rows] = count + np.arange(len(local_rows))
    numbers[global_rows] = count + len(local_rows) + np.arange(len(global_rows))
    common = (chosen["type"] & mo.N_TYPE == mo.N_UNDF) & (chosen["value"] >= 1 << 32)
    if common.any():
        raise f.fail("a common symbol has an impossible size", 0)
    symbols, desc = _symbols(commands, pieces, chosen)

    found = read_relocations(f, commands, pieces, numbers)
    support = commands.sections["flags"] & mo.S_ATTR_LIVE_SUPPORT != 0
    support &= np.array([n not in frames for n in range(len(support))], np.bool_)
    if len(found.rows):
        found.rows["reach"][support[found.section]] = Reach.BOTH
    places = symbols["atom"], symbols["value"]
    unwind = read_frames(f, commands, pieces, found, frames, places)
    pointers = _pointers(f, commands, pieces, numbers)
    raw = bytes(commands.strings)
    names = [raw[s : raw.find(b"\0", s)] for s in table["strx"][global_rows].tolist()]
    groups: tuple[Group, ...] = ()
    if not commands.flags & mo.MH_SUBSECTIONS_VIA_SYMBOLS and count:
        alive = np.flatnonzero(pieces.atoms["flags"] & 2 == 0)
        groups = (Group(b"", tuple(alive.tolist()), False),)
    native = MachoUnit(
        commands.cputype,
        commands.cpusubtype,
        commands.sections,
        section_names,
        commands.strings,
        desc,
        numbers,
        commands.versions,
        commands.options,
        _data_in_code(f, commands, pieces),
        any(s == (mo.DEBUG_SEGMENT, b"__debug_info") for s in section_names),
        [
            (start, flags & mo.SECTION_TYPE not in mo.ZEROFILL_TYPES)
            for start, flags in zip(
                commands.sections["offset"].tolist(),
                commands.sections["flags"].tolist(),
                strict=True,
            )
        ],
    )
    return Unit(
        index,
        name,
        data,
        pieces.atoms,
        symbols,
        count + len(local_rows),
        names,
        np.concatenate([unwind.rows, pointers]),
        unwind.edges if len(unwind.edges) else np.zeros(0, EDGE),
        groups,
        native,
    )


def _refuse(f: File, commands: Commands) -> None:
    for number, flags in enumerate(commands.sections["flags"].tolist(), start=1):
        if flags & mo.SECTION_TYPE in (mo.S_LAZY_SYMBOL_POINTERS, mo.S_SYMBOL_STUBS):
            raise f.fail(f"section {number} holds symbol stubs, which is not supported", 0)


def _symbols(commands: Commands, pieces: Pieces, chosen: Array) -> tuple[Array, Array]:
    """(the unit's symbols, their n_desc): anchors, locals, globals."""
    count = len(pieces.atoms)
    symbols = np.zeros(count + len(chosen), SYMBOL)
    desc = np.zeros(len(symbols), np.uint16)
    anchors, rest = symbols[:count], symbols[count:]
    anchors["atom"] = np.arange(count)
    anchors["name"] = ANCHOR
    atom, value = symbol_places(commands, pieces, chosen)
    rest["atom"], rest["value"] = atom, value
    rest["name"] = chosen["strx"]
    desc[count:] = chosen["desc"]
    external = chosen["type"] & mo.N_EXT != 0
    undefined = atom == -1
    rest["binding"] = np.where(external, Binding.GLOBAL, Binding.LOCAL)
    rest["binding"][external & ~undefined & (chosen["desc"] & mo.N_WEAK_DEF != 0)] = Binding.WEAK
    rest["native"][undefined & (chosen["desc"] & mo.N_WEAK_REF != 0)] = WEAK_REFERENCE
    rest["visibility"][external & (chosen["type"] & mo.N_PEXT != 0)] = HIDDEN

    kinds = np.full(len(commands.sections) + 1, KIND_DATA, np.uint8)
    flags = commands.sections["flags"]
    kinds[:-1][flags & _CODE != 0] = KIND_FUNCTION
    section_type = flags & mo.SECTION_TYPE
    kinds[:-1][(section_type >= 0x11) & (section_type <= 0x15)] = KIND_TLS
    placed = symbols["atom"] >= 0
    of_section = pieces.atoms["section"][symbols["atom"][placed]]
    symbols["kind"][placed] = kinds[of_section]
    symbols["size"][placed] = (
        pieces.atoms["size"][symbols["atom"][placed]] - symbols["value"][placed]
    )
    common = rest["atom"] == -3
    rest["size"][common] = chosen["value"][common].astype(np.int64)
    return symbols, desc


def _pointers(f: File, commands: Commands, pieces: Pieces, numbers: Int64) -> Array:
    """Relocations for the pointers that the indirect symbol table describes."""
    found: list[tuple[int, int, int, int, int, int]] = []
    for number, header in enumerate(commands.sections):
        if int(header["flags"]) & mo.SECTION_TYPE != mo.S_NON_LAZY_SYMBOL_POINTERS:
            continue
        first = int(pieces.first[number])
        count = int(header["size"]) // 8
        start = int(header["reserved1"])
        if start + count > len(commands.indirect):
            raise f.fail("the indirect symbol table is too short", 0)
        for n, row in enumerate(commands.indirect[start : start + count].tolist()):
            if row & (mo.INDIRECT_SYMBOL_LOCAL | mo.INDIRECT_SYMBOL_ABS):
                continue  # the pointer has a relocation of its own, if any
            if row >= len(numbers) or numbers[row] < 0:
                raise f.fail("the indirect symbol table names no symbol", 0)
            found.append((first + n, int(numbers[row]), 3 << 5, Reach.FORWARD, 0, 0))
    return np.array(found, RELOCATION) if found else np.zeros(0, RELOCATION)


def _data_in_code(
    f: File, commands: Commands, pieces: Pieces
) -> tuple[tuple[int, int, int, int], ...]:
    """Where data lies among instructions, by atom."""
    rows = commands.data_in_code
    if not len(rows):
        return ()
    starts = commands.sections["addr"].astype(np.int64)
    ends = starts + commands.sections["size"].astype(np.int64)
    found: list[tuple[int, int, int, int]] = []
    for address, length, kind in rows.tolist():
        inside = np.flatnonzero((starts <= address) & (address + length <= ends) & pieces.kept)
        if not len(inside):
            raise f.fail("a range of data in code lies in no section", 0)
        section = int(inside[0])
        place = address - int(starts[section])
        atom = int(pieces.find(np.array([section]), np.array([place]))[0])
        found.append((atom, place - int(pieces.atoms["offset"][atom]), length, kind))
    return tuple(found)


__all__ = ["MachoUnit", "read"]
