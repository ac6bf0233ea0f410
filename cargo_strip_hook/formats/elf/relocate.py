"""Relocations of live code and data: what they refer to in the new object, and which are settled.

A relocation within one output section whose value no linker can change is stored and dropped; a
load through the GOT of something that is now local addresses it directly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.formats.elf import fields
from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.beyond import refuse_beyond
from cargo_strip_hook.formats.elf.fields import Field
from cargo_strip_hook.formats.elf.machine import TYPES, Machine, Relaxation
from cargo_strip_hook.link.arrays import isin
from cargo_strip_hook.link.model import (
    Array,
    AtomFlag,
    Bool,
    Granularity,
    Int32,
    Int64,
    Program,
    SpecialIndex,
)


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """Where everything is in the new object.

    `section` and `offset` are indexed by atom (output section number and bytes; -1 is nowhere).
    `start` is where each output section begins in `blob`, the contents of all of them.
    `executable`, `tls` and `large` (far away, x86-64 medium model) tell what the sections are.
    `kept` marks the symbols that stay global.
    """

    section: Int32
    offset: Int64
    start: Int64
    blob: Array  # uint8
    executable: Bool
    tls: Bool
    large: Bool
    kept: Bool


@dataclass(frozen=True, slots=True, eq=False)
class Applied:
    """Relocations to be written, sorted by output section and offset.

    `target` is a program-wide symbol number, or ~section for the symbol of an output section.
    """

    section: Int32
    offset: Int64
    type: Array
    target: Int64
    addend: Int64


@dataclass(frozen=True, slots=True, eq=False)
class _Relocations:
    """The relocations that are worked on: all columns have one row for each.

    `rows` is what the input says, `definition` the program-wide symbol that its symbol resolves to.
    The others say what the relocation is in the output: its type, its output section and the
    offset there, its addend.
    """

    rows: Array
    definition: Int64
    type: Int64
    section: Int32
    offset: Int64
    addend: Int64


@dataclass(frozen=True, slots=True, eq=False)
class _Targets:
    """What each of `_Relocations` refers to.

    `local`: something in the object that is known by its address; its output `section`, the
    `offset` there and whether linkers merge it (`merged`) mean something for these alone.
    `symbol_type` is that of the definition (STT_*). `gone`: nothing any more; of these are
    `buried` the ones in sections that are never loaded.
    """

    local: Bool
    section: Int32
    offset: Int64
    merged: Bool
    symbol_type: Array
    gone: Bool
    buried: Bool


def apply(
    program: Program, machine: Machine, live: Bool, placed: Placed, skip: Bool, by_name: Bool
) -> Applied:
    """Rewrite the relocations of all live atoms; changes `placed.blob` where they are settled.

    `skip` marks atoms whose relocations are not written, `by_name` those that need a symbol of
    their own for each target. Raises `LinkError` for a reference that cannot be kept.
    """
    relocations = _wanted(program, machine, live, placed, skip)
    targets = _find_targets(program, machine, live, placed, relocations)
    _bury(machine, placed, relocations, targets.buried)
    near = targets.local & placed.executable[relocations.section] & ~placed.large[targets.section]
    relocations = _relax(machine, placed, relocations, near)

    fixed = targets.local & ~targets.merged & (targets.section == relocations.section)
    settled = _store_distances(machine, placed, relocations, targets, fixed)
    direct = _by_section(program, machine, placed, relocations, targets)
    direct &= ~by_name[relocations.rows["atom"]]
    if machine.rel:
        direct &= ~settled
        direct = _store_addends(program, machine, placed, relocations, targets, direct)
    addend = relocations.addend.copy()
    addend[direct] += targets.offset[direct]
    target = np.where(direct, ~targets.section.astype(np.int64), relocations.definition)

    section, offset = relocations.section, relocations.offset
    rest = np.flatnonzero(~settled & ~targets.gone)
    order = rest[np.lexsort((offset[rest], section[rest]))]
    return Applied(
        section[order], offset[order], relocations.type[order], target[order], addend[order]
    )


def _wanted(
    program: Program, machine: Machine, live: Bool, placed: Placed, skip: Bool
) -> _Relocations:
    """The relocations of live atoms that say something, but for those of atoms in `skip`."""
    every = program.relocations
    wanted = live[every["atom"]] & ~skip[every["atom"]]
    nothing = every["type"] == 0  # R_*_NONE, whatever the architecture
    if machine.keeps_none:
        nothing &= ~_asks_for_library(program, placed, every, wanted & nothing)
    rows = every[wanted & ~nothing]
    return _Relocations(
        rows,
        program.definition[rows["symbol"]].astype(np.int64),
        rows["type"].astype(np.int64),
        placed.section[rows["atom"]],
        placed.offset[rows["atom"]] + rows["offset"],
        rows["addend"].copy(),
    )


def _find_targets(
    program: Program, machine: Machine, live: Bool, placed: Placed, relocations: _Relocations
) -> _Targets:
    """Find what each relocation refers to. Raises `LinkError` if code needs what is gone."""
    rows, definition = relocations.rows, relocations.definition
    atom = program.symbols["atom"][definition]
    inside = (atom >= 0) & ~placed.kept[definition]
    gone = inside & ~live[np.where(inside, atom, 0)]
    if gone.any():
        _reject_discarded(program, placed, rows, gone)
    elsewhere = atom == SpecialIndex.ELSEWHERE
    aside = program.atoms["flags"][rows["atom"]] & AtomFlag.ASIDE != 0
    if aside.any():
        gone |= elsewhere & aside
        elsewhere &= ~aside
    if elsewhere.any():
        raise LinkError(
            f"{_where(program, rows, elsewhere)} refers to a section that is not part of a program"
        )
    symbol_type = program.symbols["kind"][definition]
    local = inside & ~gone & (symbol_type != elf.STT_GNU_IFUNC) & (symbol_type != elf.STT_TLS)
    refuse_beyond(program, machine, definition[local])
    atom = np.where(local, atom, 0)
    return _Targets(
        local,
        placed.section[atom],
        placed.offset[atom] + program.symbols["value"][definition],
        is_merged(program)[atom],
        symbol_type,
        gone,
        gone & aside,
    )


def _by_section(
    program: Program, machine: Machine, placed: Placed, relocations: _Relocations, targets: _Targets
) -> Bool:
    """Which relocations can refer to the symbol of their target's section instead of its own."""
    small = np.minimum(relocations.type, TYPES - 1)
    was_section = program.symbols["kind"][relocations.rows["symbol"]] == elf.STT_SECTION
    direct: Bool = targets.local & (~targets.merged | was_section)
    direct &= (relocations.type < TYPES) & machine.direct_types[small]
    direct &= exact(
        program, machine, placed, relocations.definition, targets.section, targets.symbol_type
    )
    # the addend is a place in the section here: as any linker's -r, whatever the type
    direct |= targets.local & targets.merged & was_section
    return direct


def _bury(machine: Machine, placed: Placed, relocations: _Relocations, which: Bool) -> None:
    """Zero the fields of what is never loaded whose target is gone, as GNU ld does."""
    if not which.any():
        return
    width = machine.absolute_types[np.minimum(relocations.type, TYPES - 1)].astype(np.int64)
    start = placed.start[relocations.section] + relocations.offset
    for size in (4, 8):
        rows = np.flatnonzero(which & (width == size))
        placed.blob[start[rows][:, None] + np.arange(size)] = 0


def is_merged(program: Program) -> Bool:
    """Which atoms linkers will merge with others: not those whose elements we merged ourselves."""
    merged: Bool = program.atoms["flags"] & AtomFlag.MERGEABLE != 0
    if program.granularity is not Granularity.SECTION:
        merged &= program.atoms["flags"] & AtomFlag.ELEMENT == 0
    return merged


def _reject_discarded(program: Program, placed: Placed, rows: Array, gone: Bool) -> None:
    """A reference from code to a member of a COMDAT group that lost cannot be kept."""
    from_code = gone & placed.executable[placed.section[rows["atom"]]]
    if from_code.any():
        raise LinkError(
            f"{_where(program, rows, from_code)} refers to a section of a discarded COMDAT group",
            help="the object files were compiled inconsistently; a final link would fail as well",
        )


def _where(program: Program, rows: Array, which: Bool) -> str:
    unit = program.units[int(program.unit_of(rows["atom"][which][:1])[0])]
    return f"a relocation in {unit.name}"


def _relax(
    machine: Machine, placed: Placed, relocations: _Relocations, candidates: Bool
) -> _Relocations:
    """Turn loads through the GOT into direct references, with the instruction bytes checked.

    Source: x86-64 psABI, section B.2 ("Optimize GOTPCRELX Relocations"). The bytes before the
    field say which instruction it is; addend -4 says that nothing follows the field.
    """
    relaxation = machine.relaxation_types[np.minimum(relocations.type, TYPES - 1)]
    loads = np.flatnonzero(
        candidates
        & (relocations.type < TYPES)
        & (relaxation == Relaxation.X86_64_GOT)
        & (relocations.addend == -4)
        & (relocations.rows["offset"] >= 3)
    )
    if not len(loads):
        return relocations
    kind, offset = relocations.type.copy(), relocations.offset.copy()
    blob = placed.blob
    field = placed.start[relocations.section[loads]] + offset[loads]
    rex, opcode, modrm = blob[field - 3], blob[field - 2], blob[field - 1]

    call = (opcode == 0xFF) & (modrm == 0x15)  # call *f@GOTPCREL(%rip) -> addr32 call f
    blob[field[call] - 2], blob[field[call] - 1] = 0x67, 0xE8
    jump = (opcode == 0xFF) & (modrm == 0x25)  # jmp *f@GOTPCREL(%rip) -> jmp f; nop
    blob[field[jump] - 2], blob[field[jump] + 3] = 0xE9, 0x90
    offset[loads[jump]] -= 1
    # mov x@GOTPCREL(%rip), %reg -> lea x(%rip), %reg
    move = (opcode == 0x8B) & (modrm & 0xC7 == 0x05) & (rex & 0xF8 == 0x48)
    blob[field[move] - 2] = 0x8D
    kind[loads[call | jump | move]] = machine.pc32
    return replace(relocations, type=kind, offset=offset)


def exact(
    program: Program,
    machine: Machine,
    placed: Placed,
    definition: Int64,
    target_section: Int32,
    symbol_kind: Array,
) -> Bool:
    """Whether section + addend says all that a symbol says."""
    exact = np.ones(len(definition), np.bool_)
    if machine.entry_bits:
        exact &= program.symbols["native"][definition] & machine.entry_bits == 0
    if machine.thumb:
        exact &= (symbol_kind != elf.STT_FUNC) | (program.symbols["value"][definition] & 1 == 0)
    if machine.code_align is not None:
        exact &= ~placed.executable[target_section]
    return exact


def _asks_for_library(program: Program, placed: Placed, rows: Array, which: Bool) -> Bool:
    """The first R_*_NONE of each output section that names an undefined symbol."""
    asks = np.zeros(len(rows), np.bool_)
    candidates = np.flatnonzero(which)
    definition = program.definition[rows["symbol"][candidates]].astype(np.int64)
    null = isin(definition, program.symbol_base)
    outside = (program.symbols["atom"][definition] == SpecialIndex.UNDEFINED) & ~null
    candidates, definition = candidates[outside], definition[outside]
    section = placed.section[rows["atom"][candidates]].astype(np.int64)
    _, first = np.unique(section * len(program.symbols) + definition, return_index=True)
    asks[candidates[first]] = True
    return asks


def _store_distances(
    machine: Machine, placed: Placed, relocations: _Relocations, targets: _Targets, which: Bool
) -> Bool:
    """Store the distances that `which` pc-relative relocations ask for, where they fit.

    Returns a bool for each relocation: whether that settled it.
    """
    section, offset = relocations.section, relocations.offset
    small = np.minimum(relocations.type, TYPES - 1)
    field = np.where(relocations.type < TYPES, machine.relative_types[small], Field.NONE)
    value = targets.offset + relocations.addend - offset
    settled = np.zeros(len(field), np.bool_)
    for kind in sorted(set(machine.relative.values())):
        rows = np.flatnonzero(which & (field == kind))
        rows = rows[fields.fits(kind, value[rows])]
        if len(rows):
            start = placed.start[section[rows]] + offset[rows]
            fields.store(placed.blob, start, kind, value[rows], machine.order)
            settled[rows] = True
    return settled


def _store_addends(
    program: Program,
    machine: Machine,
    placed: Placed,
    relocations: _Relocations,
    targets: _Targets,
    direct: Bool,
) -> Bool:
    """Store the new addends of `direct` relocations in the contents, where they fit.

    Returns a bool for each relocation: whether that was done. An address may be any 32-bit
    number, with or without sign. Raises `LinkError` if there is no way but by an addend.
    """
    section, offset = relocations.section, relocations.offset
    field = machine.implicit_types[np.minimum(relocations.type, TYPES - 1)]
    addend = relocations.addend + targets.offset
    stored = np.zeros(len(field), np.bool_)
    for kind in sorted(set(machine.implicit.values())):
        rows = np.flatnonzero(direct & (field == kind))
        if kind != Field.BITS32:
            rows = rows[fields.fits(kind, addend[rows])]
        if len(rows):
            start = placed.start[section[rows]] + offset[rows]
            fields.store(placed.blob, start, kind, addend[rows], machine.order)
            stored[rows] = True
    lost = direct & ~stored & targets.merged
    if lost.any():
        raise LinkError(f"{_where(program, relocations.rows, lost)} cannot hold its new addend")
    return stored


__all__ = ["Applied", "Placed", "apply", "exact"]
