"""The COFF room: how object files of Windows map to the common model, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cargo_strip_hook.formats.coff import imports, kinds, reader, section_keys, sizes, writer
from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.comdat import Comdats
from cargo_strip_hook.formats.coff.directives import Directives
from cargo_strip_hook.formats.coff.reader import CoffUnit, coff_unit
from cargo_strip_hook.link.model import RELOCATION, Array, Format, Input, Program, Unit
from cargo_strip_hook.link.warnings import WINDOWS

_POINTER = b"__imp_"


def _read(inputs: Sequence[Input]) -> list[Unit]:
    return [reader.read(item) for item in inputs]


def _leftovers(unit: Unit) -> tuple[int, int]:
    native = coff_unit(unit)
    sizes = native.sections["size"].astype(np.int64)
    arrays = [n for n, name in enumerate(native.names) if kinds.is_initialiser(name)]
    entries = int(sizes[arrays].sum()) * 8 // native.machine.bits
    return int(sizes[list(native.debug)].sum()), entries


def _find_pointers(undefined: Sequence[bytes]) -> dict[bytes, bytes]:
    return {n: n[len(_POINTER) :] for n in undefined if n.startswith(_POINTER)}


def _synthetic(like: Unit, unit: Unit, pointers: Array) -> Unit:
    machine, holders = coff_unit(like).machine, pointers["source"]
    atoms = unit.atoms.copy()
    atoms["size"][holders] = atoms["align"][holders] = machine.bits // 8
    rows = np.zeros(len(pointers), RELOCATION)
    rows["atom"], rows["symbol"], rows["type"] = holders, pointers["target"], machine.pointer
    atom_kind = np.zeros(len(atoms), np.int32)
    atom_kind[holders] = 1
    none, nothing = np.full(len(unit.symbols), -1, np.int32), np.zeros(0, np.int32)
    native = CoffUnit(
        machine,
        np.zeros(0, coff.SECTION),
        [],
        (section_keys.COMMONS, section_keys.POINTERS),
        atom_kind,
        nothing,
        Comdats(nothing, nothing, nothing.astype(np.int64)),
        (),
        nothing.astype(np.int64),
        none,
        none,
        Directives(),
        0,
        nothing.astype(np.int64),
        {},
    )
    return replace(unit, atoms=atoms, relocations=rows, native=native)


def _section_limit(program: Program) -> int:
    first = coff_unit(program.units[0])
    return first.machine.branch_limit


FORMAT = Format(
    read=_read,
    synthetic=_synthetic,
    section_keys=section_keys.assign,
    section_limit=_section_limit,
    output=writer.output,
    cxx=WINDOWS,
    symbol_kinds={
        reader.KIND_DATA: "data",
        reader.KIND_FUNCTION: "function",
        reader.KIND_TLS: "tls",
    },
    leftovers=_leftovers,
    sizes=sizes.sizes,
    find_pointers=_find_pointers,
    import_members=imports.import_members,
    # no linker makes symbols for sections; and nothing checks yet that a twin is the same program
)
