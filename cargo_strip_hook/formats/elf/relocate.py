"""Relocations of live code and data: what they refer to in the new object, and which are applied.

A relocation within one output section whose value no linker can change is stored and dropped; a
load through the GOT of something that is now local addresses it directly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.beyond import refuse_beyond
from cargo_strip_hook.formats.elf.file import elf_unit
from cargo_strip_hook.formats.elf.machine import Machine, Relaxation, of_types
from cargo_strip_hook.link.addresses import Addresses
from cargo_strip_hook.link.arrays import isin
from cargo_strip_hook.link.contents import Patch, read_input
from cargo_strip_hook.link.fields import Field
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
from cargo_strip_hook.link.output import Relocations
from cargo_strip_hook.link.relocate import Bound, bind, refuse, store


@dataclass(frozen=True, slots=True, eq=False)
class Placed(Addresses):
    """`tls` and `large` (far away, x86-64 medium model) tell what the output sections are."""

    tls: Bool
    large: Bool


def relocate(
    program: Program, machine: Machine, live: Bool, placed: Placed, skip: Bool, by_name: Bool
) -> tuple[Relocations, list[Patch]]:
    """Rewrite the relocations of all live atoms: (those that are left, by location; patches).

    `skip` marks atoms whose relocations are not written, `by_name` those that need a symbol of
    their own for each target. Raises `LinkError` for a reference that cannot be kept.
    """
    bound, patches = _bound(program, machine, live, placed, skip)
    merged = bound.local & is_merged(program)[np.maximum(bound.atom, 0)]
    near = bound.local & ~placed.large[bound.target_section]
    if program.crossing:  # hidden, and defined in the program that this becomes a part of
        near |= isin(bound.definition, np.array(sorted(program.crossing), np.int64))
    near &= placed.sections.executable[bound.section]
    bound, opcodes = _relax(program, machine, placed, bound, near)
    position = bound.position(placed)
    field = of_types(machine.relative_types, bound.type)
    distance = bound.target_offset + bound.addend - bound.offset
    applied, distances = store(bound.inside & ~merged, field, distance, position)
    patches += opcodes + distances

    direct = _by_section(program, machine, placed, bound, merged) & ~by_name[bound.input["atom"]]
    addend = bound.addend + np.where(direct, bound.target_offset, 0)
    if machine.rel:
        beside = _has_addends(program)[program.unit_of(bound.input["atom"])]
        wanted = (direct | beside) & ~applied & ~bound.gone
        field = of_types(machine.stored_types, bound.type)
        # an address may be any 32-bit number, with or without sign
        stored, addends = store(wanted, field, addend, position, frozenset({Field.BITS32}))
        lost = wanted & ~stored & (merged | beside)
        refuse(program, bound, lost, "cannot hold its new addend")
        direct &= stored
        patches += addends
    left = np.flatnonzero(~applied & ~bound.gone)
    left = left[np.lexsort((bound.offset[left], bound.section[left]))]
    rest, direct = bound.rows(left), direct[left]
    none = np.zeros(len(left), np.int64)
    return Relocations(
        rest.section,
        rest.offset,
        rest.type,
        np.where(direct, np.int32(-1), rest.definition),
        np.where(direct, rest.target_section, np.int32(-1)),
        none,
        np.where(direct, addend[left], rest.addend),
        none != 0,
    ), patches


def _bound(
    program: Program, machine: Machine, live: Bool, placed: Placed, skip: Bool
) -> tuple[Bound, list[Patch]]:
    """(the relocations of live atoms that say something, patches for those of `_bury`).

    Raises `LinkError` if code needs what is gone.
    """
    every = program.relocations
    wanted = live[every["atom"]] & ~skip[every["atom"]]
    nothing = every["type"] == 0  # R_*_NONE, whatever the architecture
    if machine.keeps_none:
        nothing &= ~_asks_for_library(program, placed, every, wanted & nothing)
    bound = bind(program, live, placed, wanted & ~nothing)
    from_code = bound.gone & placed.sections.executable[bound.section]
    what = "refers to a section of a discarded COMDAT group"
    help = "the object files were compiled inconsistently; a final link would fail as well"
    refuse(program, bound, from_code, what, help)
    elsewhere = bound.atom == SpecialIndex.ELSEWHERE
    aside = program.atoms["flags"][bound.input["atom"]] & AtomFlag.ASIDE != 0
    what = "refers to a section that is not part of a program"
    refuse(program, bound, elsewhere & ~aside, what)
    gone = bound.gone | (elsewhere & aside)
    symbol_type = program.symbols["kind"][bound.definition]
    local = bound.local & (symbol_type != elf.STT_GNU_IFUNC) & (symbol_type != elf.STT_TLS)
    refuse_beyond(program, machine, bound.definition[local])
    return replace(bound, gone=gone, local=local), _bury(machine, placed, bound, gone & aside)


def _has_addends(program: Program) -> Bool:
    """Which units have tables of relocations with addends, of an architecture that uses none."""
    tables = np.array((elf.SHT_RELA, *elf.COMPACT))
    types = (elf_unit(unit).sections["type"] for unit in program.units)
    return np.array([isin(kinds, tables).any() for kinds in types], np.bool_)


def _by_section(
    program: Program, machine: Machine, placed: Placed, bound: Bound, merged: Bool
) -> Bool:
    """Which relocations can refer to the symbol of their target's section instead of its own."""
    symbol_type = program.symbols["kind"]
    was_section = symbol_type[bound.input["symbol"]] == elf.STT_SECTION
    direct: Bool = bound.local & (~merged | was_section)
    direct &= of_types(machine.direct_types, bound.type)
    target = bound.definition, bound.target_section, symbol_type[bound.definition]
    direct &= exact(program, machine, placed, *target)
    # the addend is a place in the section here: as any linker's -r, whatever the type
    direct |= merged & was_section
    return direct


def _bury(machine: Machine, placed: Placed, bound: Bound, which: Bool) -> list[Patch]:
    """Zero the fields of what is never loaded whose target is gone, as GNU ld does."""
    fields = np.zeros(9, np.uint8)
    fields[[4, 8]] = Field.BITS32, Field.BITS64
    field = fields[of_types(machine.absolute_types, bound.type)]
    return store(which, field, bound.offset * 0, bound.position(placed))[1]


def is_merged(program: Program) -> Bool:
    """Which atoms linkers will merge with others: not those whose elements we merged ourselves."""
    merged: Bool = program.atoms["flags"] & AtomFlag.MERGEABLE != 0
    if program.granularity is not Granularity.SECTION:
        merged &= program.atoms["flags"] & AtomFlag.ELEMENT == 0
    return merged


def _relax(
    program: Program, machine: Machine, placed: Placed, bound: Bound, candidates: Bool
) -> tuple[Bound, list[Patch]]:
    """Turn loads through the GOT into direct references, with the instruction bytes checked.

    Source: x86-64 psABI, section B.2 ("Optimize GOTPCRELX Relocations"). The bytes before the
    field say which instruction it is; addend -4 says that nothing follows the field.
    """
    loads = np.flatnonzero(
        candidates
        & (of_types(machine.relaxation_types, bound.type) == Relaxation.X86_64_GOT)
        & (bound.addend == -4)
        & (bound.input["offset"] >= 3)
    )
    if not len(loads):
        return bound, []
    rows = bound.input[loads]
    rex, opcode, modrm = read_input(program, rows["atom"], rows["offset"] - 3, 3).T
    call = (opcode == 0xFF) & (modrm == 0x15)  # call *f@GOTPCREL(%rip) -> addr32 call f
    jump = (opcode == 0xFF) & (modrm == 0x25)  # jmp *f@GOTPCREL(%rip) -> jmp f; nop
    # mov x@GOTPCREL(%rip), %reg -> lea x(%rip), %reg
    move = (opcode == 0x8B) & (modrm & 0xC7 == 0x05) & (rex & 0xF8 == 0x48)
    kind, offset = bound.type.copy(), bound.offset.copy()
    kind[loads[call | jump | move]] = machine.pc32
    offset[loads[jump]] -= 1
    position = bound.position(placed)[loads]
    changes = ((call, -2, 0x67), (call, -1, 0xE8), (jump, -2, 0xE9), (jump, 3, 0x90))
    patches = [
        Patch(Field.BITS8, position[which] + step, np.full(int(which.sum()), octet))
        for which, step, octet in (*changes, (move, -2, 0x8D))
    ]
    return replace(bound, type=kind, offset=offset), patches


def exact(
    program: Program,
    machine: Machine,
    placed: Placed,
    definition: Int32 | Int64,
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
        exact &= ~placed.sections.executable[target_section]
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


__all__ = ["Placed", "exact", "is_merged", "relocate"]
