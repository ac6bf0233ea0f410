"""Relocations of live code and data: what they refer to in the new object, and which are settled.

A relocation within one output section whose value no linker can change is stored and dropped; a
load through the GOT of something that is now local addresses it directly.
"""

from __future__ import annotations

from dataclasses import dataclass

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


def apply(
    program: Program, machine: Machine, live: Bool, placed: Placed, skip: Bool, by_name: Bool
) -> Applied:
    """Rewrite the relocations of all live atoms; changes `placed.blob` where they are settled.

    `skip` marks atoms whose relocations are not written, `by_name` those that need a symbol of
    their own for each target. Raises `LinkError` for a reference that cannot be kept.
    """
    every = program.relocations
    wanted = live[every["atom"]] & ~skip[every["atom"]]
    nothing = every["type"] == 0  # R_*_NONE, whatever the architecture
    if machine.keeps_none:
        nothing &= ~_asks_for_library(program, placed, every, wanted & nothing)
    rows = every[wanted & ~nothing]
    definition = program.definition[rows["symbol"]].astype(np.int64)
    atom = rows["atom"]
    kind = rows["type"].astype(np.int64)
    addend = rows["addend"].copy()
    section = placed.section[atom]
    offset = placed.offset[atom] + rows["offset"]

    place = program.symbols["atom"][definition]
    local = (place >= 0) & ~placed.kept[definition]
    gone = local & ~live[np.where(local, place, 0)]
    if gone.any():
        _reject_discarded(program, placed, rows, gone)
    elsewhere = place == SpecialIndex.ELSEWHERE
    aside = program.atoms["flags"][atom] & AtomFlag.ASIDE != 0
    if aside.any():
        gone |= elsewhere & aside
        elsewhere &= ~aside
        _bury(machine, placed, kind, section, offset, gone & aside)
    if elsewhere.any():
        raise LinkError(
            f"{_where(program, rows, elsewhere)} refers to a section that is not part of a program"
        )
    symbol_kind = program.symbols["kind"][definition]
    plain = local & ~gone & (symbol_kind != elf.STT_GNU_IFUNC) & (symbol_kind != elf.STT_TLS)
    refuse_beyond(program, machine, definition[plain])
    target_place = np.where(plain, place, 0)
    target_section = placed.section[target_place]
    target = placed.offset[target_place] + program.symbols["value"][definition]
    mergeable = is_merged(program)[target_place]

    code = placed.executable[section]
    kind, offset = _relax(
        machine,
        placed,
        kind,
        offset,
        section,
        addend,
        rows,
        plain & code & ~placed.large[target_section],
    )

    small = np.minimum(kind, TYPES - 1)
    field = np.where(kind < TYPES, machine.relative_types[small], Field.NONE)
    inside = plain & ~mergeable & (field != Field.NONE) & (target_section == section)
    done = inside & _store_distances(
        machine, placed, field, section, offset, target + addend - offset, inside
    )

    by_section = program.symbols["kind"][rows["symbol"]] == elf.STT_SECTION
    direct = plain & (~mergeable | by_section) & (kind < TYPES) & machine.direct_types[small]
    direct &= exact(program, machine, placed, definition, target_section, symbol_kind)
    # the addend is a place in the section here: as any linker's -r, whatever the type
    direct |= plain & mergeable & by_section
    direct &= ~by_name[atom]
    if machine.rel:
        direct &= ~done
        _store_addends(
            program, machine, placed, rows, small, section, offset, addend + target, direct
        )
    addend[direct] += target[direct]
    result = np.where(direct, ~target_section.astype(np.int64), definition)

    rest = np.flatnonzero(~done & ~gone)
    order = rest[np.lexsort((offset[rest], section[rest]))]
    return Applied(section[order], offset[order], kind[order], result[order], addend[order])


def _bury(
    machine: Machine, placed: Placed, kind: Int64, section: Int32, offset: Int64, which: Bool
) -> None:
    """Zero the fields of what is never loaded whose target is gone, as GNU ld does."""
    width = machine.absolute_types[np.minimum(kind, TYPES - 1)].astype(np.int64)
    at = placed.start[section] + offset
    for size in (4, 8):
        rows = np.flatnonzero(which & (width == size))
        placed.blob[at[rows][:, None] + np.arange(size)] = 0


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
    machine: Machine,
    placed: Placed,
    kind: Int64,
    offset: Int64,
    section: Int32,
    addend: Int64,
    rows: Array,
    candidates: Bool,
) -> tuple[Int64, Int64]:
    """Turn loads through the GOT into direct references, with the instruction bytes checked.

    Source: x86-64 psABI, section B.2 ("Optimize GOTPCRELX Relocations"). The bytes before the
    field say which instruction it is; addend -4 says that nothing follows the field.
    """
    relaxation = machine.relaxation_types[np.minimum(kind, TYPES - 1)]
    found = np.flatnonzero(
        candidates
        & (kind < TYPES)
        & (relaxation == Relaxation.X86_64_GOT)
        & (addend == -4)
        & (rows["offset"] >= 3)
    )
    if not len(found):
        return kind, offset
    kind, offset = kind.copy(), offset.copy()
    blob = placed.blob
    at = placed.start[section[found]] + offset[found]
    rex, opcode, modrm = blob[at - 3], blob[at - 2], blob[at - 1]

    call = (opcode == 0xFF) & (modrm == 0x15)  # call *f@GOTPCREL(%rip) -> addr32 call f
    blob[at[call] - 2], blob[at[call] - 1] = 0x67, 0xE8
    jump = (opcode == 0xFF) & (modrm == 0x25)  # jmp *f@GOTPCREL(%rip) -> jmp f; nop
    blob[at[jump] - 2], blob[at[jump] + 3] = 0xE9, 0x90
    offset[found[jump]] -= 1
    # mov x@GOTPCREL(%rip), %reg -> lea x(%rip), %reg
    load = (opcode == 0x8B) & (modrm & 0xC7 == 0x05) & (rex & 0xF8 == 0x48)
    blob[at[load] - 2] = 0x8D
    kind[found[call | jump | load]] = machine.pc32
    return kind, offset


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
    found = np.zeros(len(rows), np.bool_)
    candidates = np.flatnonzero(which)
    definition = program.definition[rows["symbol"][candidates]].astype(np.int64)
    null = isin(definition, program.symbol_base)
    outside = (program.symbols["atom"][definition] == SpecialIndex.UNDEFINED) & ~null
    candidates, definition = candidates[outside], definition[outside]
    section = placed.section[rows["atom"][candidates]].astype(np.int64)
    _, first = np.unique(section * len(program.symbols) + definition, return_index=True)
    found[candidates[first]] = True
    return found


def _store_distances(
    machine: Machine,
    placed: Placed,
    field: Array,
    section: Int32,
    offset: Int64,
    value: Int64,
    which: Bool,
) -> Bool:
    """Store the values of pc-relative fields; True where that was done (the value fits)."""
    done = np.zeros(len(field), np.bool_)
    for kind in sorted(set(machine.relative.values())):
        rows = np.flatnonzero(which & (field == kind))
        rows = rows[fields.fits(kind, value[rows])]
        if len(rows):
            at = placed.start[section[rows]] + offset[rows]
            fields.store(placed.blob, at, kind, value[rows], machine.order)
            done[rows] = True
    return done


def _store_addends(
    program: Program,
    machine: Machine,
    placed: Placed,
    rows: Array,
    kind: Int64,
    section: Int32,
    offset: Int64,
    addend: Int64,
    direct: Bool,
) -> None:
    """Store the new addends of `direct` in the contents; takes those out that do not fit.

    An address may be any 32-bit number, with or without sign.
    """
    field = machine.implicit_types[kind]
    stored = np.zeros(len(rows), np.bool_)
    for which in sorted(set(machine.implicit.values())):
        mine = np.flatnonzero(direct & (field == which))
        if which != Field.BITS32:
            mine = mine[fields.fits(which, addend[mine])]
        if len(mine):
            at = placed.start[section[mine]] + offset[mine]
            fields.store(placed.blob, at, which, addend[mine], machine.order)
            stored[mine] = True
    lost = direct & ~stored
    if lost.any():
        target = program.symbols["atom"][program.definition[rows["symbol"]]]
        merged = is_merged(program)[np.where(lost, target, 0)]
        if (lost & merged).any():
            raise LinkError(f"{_where(program, rows, lost & merged)} cannot hold its new addend")
    direct &= stored


__all__ = ["Applied", "Placed", "apply", "exact"]
