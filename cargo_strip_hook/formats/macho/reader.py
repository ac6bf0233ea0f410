"""Reads Mach-O objects into the common model.

An atom is what `MH_SUBSECTIONS_VIA_SYMBOLS` lets a linker take apart: what lies between two
symbols, an element of a literal section, a record of unwind information. Each atom has a symbol
of its own, its *anchor*, with the atom's number: relocations by address refer to that.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.file import STEP, MachoFiles
from cargo_strip_hook.formats.macho.frames import Frames, read_frames, split_frames
from cargo_strip_hook.formats.macho.relocations import Rows, read_relocations
from cargo_strip_hook.formats.macho.split import AtomTable, cut, symbol_atoms
from cargo_strip_hook.formats.macho.versions import Version
from cargo_strip_hook.link.arrays import begins, isin, rows_of
from cargo_strip_hook.link.model import (
    RELOCATION,
    SYMBOL,
    Array,
    AtomFlag,
    Binding,
    Group,
    Input,
    Int64,
    Reach,
    SpecialIndex,
    Unit,
)
from cargo_strip_hook.link.reading import by_file, per_file
from cargo_strip_hook.link.strings import strings_at

# SYMBOL.kind: Mach-O has no symbol types, so these are ours, by the section; 0 is unknown
KIND_DATA, KIND_FUNCTION, KIND_TLS = 1, 2, 3
HIDDEN = 2  # SYMBOL.visibility of a private extern
WEAK_REFERENCE = 1  # SYMBOL.native of an undefined symbol
ANCHOR = 1 << 40  # SYMBOL.name of a symbol that has none: beyond every table

_ZEROFILL = np.array(mo.ZEROFILL_TYPES, np.uint32)
_STUBS = np.array((mo.S_LAZY_SYMBOL_POINTERS, mo.S_SYMBOL_STUBS), np.uint32)
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
    desc: Array
    numbers: Int64  # symbol of the unit for each entry of the file's table, -1 for none
    versions: tuple[Version, ...]
    options: tuple[tuple[bytes, ...], ...]
    data_in_code: tuple[tuple[int, int, int, int], ...]
    headers: list[tuple[int, bool]]  # (file offset, whether it has contents) of each section


def macho_unit(unit: Unit) -> MachoUnit:
    """What only this room knows of an object file."""
    return cast("MachoUnit", unit.native)


def read(inputs: Sequence[Input]) -> list[Unit]:
    """Read Mach-O objects. Raises `ObjectError` naming the member and the offset."""
    units: list[Unit] = []
    for _, batch in itertools.groupby(inputs, lambda i: (id(i.data.obj), bytes(i.data[4:8]))):
        units += _read(MachoFiles(list(batch)))
    return units


@dataclass(frozen=True, slots=True)
class _Numbering:
    """How the symbols of all files are numbered.

    Those of a file are one for each atom, its anchor, then the local ones, then the global ones.
    `rows` of the symbol tables are in this order. `anchors`: the symbol of each atom; `numbers`:
    that of each row, -1 for none. By file: `first` is the first symbol, with the end of all, and
    `locals` the number of local ones. All are int64.
    """

    rows: Int64
    anchors: Int64
    numbers: Int64
    first: Int64
    locals: Int64


def _read(f: MachoFiles) -> list[Unit]:
    """Read files of one processor, all at once: all is numbered through up to `_units`."""
    _refuse(f)
    records = split_frames(f)
    table = cut(f, (records.section << STEP) + records.start)
    numbering = _numbered(f, table)
    rows, anchors, numbers = numbering.rows, numbering.anchors, numbering.numbers
    symbols, desc = _symbols(f, table, rows, anchors, numbers[rows])
    relocations = _live_support(f, read_relocations(f, table, numbers, anchors))
    positions = symbols["atom"], symbols["value"]
    unwind = read_frames(f, table, relocations, records, positions, anchors)
    pointers = _pointers(f, table, numbers)
    return _units(f, table, numbering, (symbols, desc), unwind, pointers)


def _numbered(f: MachoFiles, table: AtomTable) -> _Numbering:
    """Number the symbols of all files."""
    external = f.symbols["type"] & mo.N_EXT != 0
    rows = np.flatnonzero(f.plain)
    rows = rows[np.argsort(2 * f.symbol_owner[rows] + external[rows], kind="stable")]
    owner = f.symbol_owner[rows]
    counts = np.bincount(owner, minlength=len(f.inputs))
    atom_owner = f.owner[table.atoms["section"]]
    numbers = np.full(len(f.symbols), -1, np.int64)
    numbers[rows] = np.arange(len(rows)) + table.first[owner + 1]
    return _Numbering(
        rows,
        np.arange(len(table.atoms)) + begins(counts)[atom_owner],
        numbers,
        begins(np.diff(table.first) + counts),
        np.bincount(owner[~external[rows]], minlength=len(f.inputs)),
    )


def _live_support(f: MachoFiles, relocations: Rows) -> Rows:
    """Sections with `S_ATTR_LIVE_SUPPORT` live with what they refer to, and keep it alive."""
    support = (f.flags & mo.S_ATTR_LIVE_SUPPORT != 0) & ~f.eh_frame
    if not support.any():
        return relocations
    rows = relocations.rows.copy()
    rows["reach"][support[relocations.section]] = Reach.BOTH
    return Rows(rows, relocations.section)


def _units(
    f: MachoFiles,
    table: AtomTable,
    numbering: _Numbering,
    symbols_desc: tuple[Array, Array],
    unwind: Frames,
    pointers: tuple[Array, Int64],
) -> list[Unit]:
    """Take the tables of all files apart, and count in each from its first atom and symbol.

    `symbols_desc`: see `_symbols`; `pointers`: see `_pointers`.
    """
    files, (symbols, desc) = len(f.inputs), symbols_desc
    symbol_owner = np.repeat(np.arange(files), np.diff(numbering.first))
    relocations = np.concatenate([unwind.rows, pointers[0]])
    owner = np.concatenate([f.owner[unwind.section], pointers[1]])
    relocations = _within(relocations, owner, atom=table.first, symbol=numbering.first)
    edge_owner = f.owner[unwind.edge_section]
    edges = _within(unwind.edges, edge_owner, source=table.first, target=table.first)
    numbers = numbering.numbers - np.where(
        numbering.numbers >= 0, numbering.first[f.symbol_owner], 0
    )
    first_global = np.diff(table.first) + numbering.locals
    tables = zip(
        f.inputs,
        f.commands,
        per_file(
            _within(table.atoms, f.owner[table.atoms["section"]], section=f.first), table.first
        ),
        per_file(_within(symbols, symbol_owner, atom=table.first), numbering.first),
        first_global.tolist(),
        by_file(relocations, owner, files),
        by_file(edges, edge_owner, files),
        _natives(f, table, per_file(desc, numbering.first), per_file(numbers, f.symbol_first)),
        f.scatter.tolist(),
        strict=True,
    )
    return [
        Unit(
            item.index,
            item.name,
            item.data,
            atoms,
            own,
            first,
            strings_at(commands.strings, own["name"][first:].tolist()),
            rows,
            edges_of,
            () if scatter else _together(atoms),
            native,
            commands.strings,
        )
        for item, commands, atoms, own, first, rows, edges_of, native, scatter in tables
    ]


def _within(table: Array, owner: Array, **first: Int64) -> Array:
    """The rows with these columns less the `first` of each row's file; what is negative stays."""
    table = table.copy()
    for name, begin in first.items():
        table[name] -= np.where(table[name] >= 0, begin[owner], 0).astype(table[name].dtype)
    return table


def _together(atoms: Array) -> tuple[Group, ...]:
    """The group of a file's atoms that linkers do not take apart: all but unwind information."""
    alive = np.flatnonzero(atoms["flags"] & AtomFlag.SEPARATE == 0)
    return (Group(b"", tuple(alive.tolist()), False),) if len(atoms) else ()


def _natives(
    f: MachoFiles, table: AtomTable, desc: list[Array], numbers: list[Array]
) -> list[MachoUnit]:
    """What only this format knows of each file; `desc`, `numbers`: as in `MachoUnit`."""
    natives = []
    for file, commands in enumerate(f.commands):
        mine = slice(int(f.first[file]), int(f.first[file + 1]))
        contents = ~isin(f.types[mine], _ZEROFILL)
        natives.append(
            MachoUnit(
                commands.cputype,
                commands.cpusubtype,
                commands.sections,
                f.names[mine],
                desc[file],
                numbers[file],
                commands.versions,
                commands.options,
                _data_in_code(f, table, file),
                list(zip(commands.sections["offset"].tolist(), contents.tolist(), strict=True)),
            )
        )
    return natives


def _refuse(f: MachoFiles) -> None:
    for number in np.flatnonzero(isin(f.types, _STUBS)).tolist():
        file = int(f.owner[number])
        local = number - int(f.first[file]) + 1
        raise f.fail(file, f"section {local} holds symbol stubs, which is not supported")
    # linkers make these, of pointers; without relocations nothing says what the offsets mean
    offsets = (f.types == mo.S_INIT_FUNC_OFFSETS) & (f.sections["nreloc"] * 4 < f.size)
    f.check(offsets, f.owner, "__init_offsets holds offsets in an image, which is not supported")
    kind, owner = f.symbols["type"] & mo.N_TYPE, f.symbol_owner
    what = "symbols that stand for another one (N_INDR) are not supported"
    f.check(f.plain & (kind == mo.N_INDR), owner, what)
    common = f.plain & (kind == mo.N_UNDF) & (f.symbols["value"] >= 1 << 32)
    f.check(common, owner, "a common symbol has an impossible size")


def _symbols(
    f: MachoFiles, table: AtomTable, rows: Int64, anchors: Int64, numbers: Int64
) -> tuple[Array, Array]:
    """(the model's symbols, their n_desc) of all files.

    `numbers`: the symbol of each of these `rows` of the symbol table; `anchors`: that of each atom.
    """
    chosen = f.symbols[rows]
    symbols = np.zeros(len(anchors) + len(rows), SYMBOL)
    desc = np.zeros(len(symbols), np.uint16)
    symbols["atom"][anchors] = np.arange(len(anchors))
    symbols["name"][anchors] = ANCHOR
    desc[numbers] = chosen["desc"]
    atom, value = symbol_atoms(f, table, rows)
    external = chosen["type"] & mo.N_EXT != 0
    undefined = atom == SpecialIndex.UNDEFINED
    weak = external & ~undefined & (chosen["desc"] & mo.N_WEAK_DEF != 0)
    symbols[numbers] = rows_of(
        SYMBOL,
        len(rows),
        atom=atom,
        value=value,
        name=chosen["strx"],
        binding=np.where(weak, Binding.WEAK, np.where(external, Binding.GLOBAL, Binding.LOCAL)),
        native=np.where(undefined & (chosen["desc"] & mo.N_WEAK_REF != 0), WEAK_REFERENCE, 0),
        visibility=np.where(external & (chosen["type"] & mo.N_PEXT != 0), HIDDEN, 0),
        size=np.where(atom == SpecialIndex.COMMON, chosen["value"].astype(np.int64), 0),
    )

    kinds = np.full(len(f.types), KIND_DATA, np.uint8)
    kinds[f.flags & _CODE != 0] = KIND_FUNCTION
    kinds[(f.types >= 0x11) & (f.types <= 0x15)] = KIND_TLS
    placed = np.flatnonzero(symbols["atom"] >= 0)
    home = table.atoms[symbols["atom"][placed]]
    symbols["kind"][placed] = kinds[home["section"]]
    symbols["size"][placed] = home["size"] - symbols["value"][placed]
    return symbols, desc


def _pointers(f: MachoFiles, table: AtomTable, numbers: Int64) -> tuple[Array, Int64]:
    """Relocations for the pointers that indirect symbol tables describe, and the file of each."""
    pointers: list[tuple[int, int, int, int, int, int]] = []
    owners: list[int] = []
    for number in np.flatnonzero(f.types == mo.S_NON_LAZY_SYMBOL_POINTERS).tolist():
        file = int(f.owner[number])
        indirect, own = f.commands[file].indirect, per_file(numbers, f.symbol_first)[file]
        first = int(table.find(np.array([number]), np.zeros(1, np.int64))[0])
        count = int(f.size[number]) // 8
        start = int(f.sections["reserved1"][number])
        if start + count > len(indirect):
            raise f.fail(file, "the indirect symbol table is too short")
        for n, row in enumerate(indirect[start : start + count].tolist()):
            if row & (mo.INDIRECT_SYMBOL_LOCAL | mo.INDIRECT_SYMBOL_ABS):
                continue  # the pointer has a relocation of its own, if any
            if row >= len(own) or own[row] < 0:
                raise f.fail(file, "the indirect symbol table names no symbol")
            pointers.append((first + n, int(own[row]), 3 << 5, Reach.FORWARD, 0, 0))
            owners.append(file)
    rows = np.array(pointers, RELOCATION) if pointers else np.zeros(0, RELOCATION)
    return rows, np.array(owners, np.int64)


def _data_in_code(
    f: MachoFiles, table: AtomTable, file: int
) -> tuple[tuple[int, int, int, int], ...]:
    """Where data lies among the instructions of a file, by its atoms. Raises `ObjectError`."""
    rows: list[tuple[int, int, int, int]] = []
    mine = slice(int(f.first[file]), int(f.first[file + 1]))
    begin, end = f.address[mine], f.address[mine] + f.size[mine]
    for address, length, kind in f.commands[file].data_in_code.tolist():
        inside = (begin <= address) & (address + length <= end) & f.kept[mine]
        if not inside.any():
            raise f.fail(file, "a range of data in code lies in no section")
        section = mine.start + int(inside.argmax())
        within = address - int(f.address[section])
        atom = int(table.find(np.array([section]), np.array([within]))[0])
        offset = within - int(table.atoms["offset"][atom])
        rows.append((atom - int(table.first[file]), offset, length, kind))
    return tuple(rows)


__all__ = ["MachoUnit", "read"]
