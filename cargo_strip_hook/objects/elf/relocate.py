"""Relocations of live code and data: what they refer to in the new object, and which are settled.

A relocation within one output section whose value no linker can change is stored and dropped; a
load through the GOT of something that is now local addresses it directly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.errors import LinkError
from cargo_strip_hook.objects.elf import layouts as elf
from cargo_strip_hook.objects.elf.machine import Field, Machine, Relaxation
from cargo_strip_hook.objects.model import (
    Array,
    AtomFlag,
    Bool,
    Int32,
    Int64,
    Place,
    Program,
)


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Settled:
    """Relocations to be written, sorted by output section and offset.

    `target` is a program-wide symbol number, or ~section for the symbol of an output section.
    """

    section: Int32
    offset: Int64
    type: Array
    target: Int64
    addend: Int64


def settle(program: Program, machine: Machine, live: Bool, placed: Placed, skip: Bool) -> Settled:
    """Rewrite the relocations of all live atoms; changes `placed.blob` where they are settled.

    `skip` marks atoms whose relocations are not written. Raises `LinkError` for a reference that
    cannot be kept.
    """
    every = program.relocations
    wanted = live[every["atom"]] & ~skip[every["atom"]] & (every["type"] != 0)
    rows = every[wanted]
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
    elsewhere = place == Place.ELSEWHERE
    if elsewhere.any():
        raise LinkError(
            f"{_where(program, rows, elsewhere)} refers to a section that is not part of a program"
        )
    symbol_kind = program.symbols["kind"][definition]
    plain = local & ~gone & (symbol_kind != elf.STT_GNU_IFUNC) & (symbol_kind != elf.STT_TLS)
    target_place = np.where(plain, place, 0)
    target_section = placed.section[target_place]
    target = placed.offset[target_place] + program.symbols["value"][definition]
    mergeable = program.atoms["flags"][target_place] & AtomFlag.MERGEABLE != 0

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

    small = np.minimum(kind, 4095)
    field = np.where(kind < 4096, machine.field_types[small], Field.NONE)
    inside = plain & ~mergeable & (field != Field.NONE) & (target_section == section)
    done = inside & _store(placed, field, section, offset, target + addend - offset, inside)

    by_section = program.symbols["kind"][rows["symbol"]] == elf.STT_SECTION
    direct = plain & (~mergeable | by_section) & (kind < 4096) & machine.direct_types[small]
    addend[direct] += target[direct]
    result = np.where(direct, ~target_section.astype(np.int64), definition)

    rest = np.flatnonzero(~done & ~gone)
    order = rest[np.lexsort((offset[rest], section[rest]))]
    return Settled(section[order], offset[order], kind[order], result[order], addend[order])


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
    relaxation = machine.relaxation_types[np.minimum(kind, 4095)]
    found = np.flatnonzero(
        candidates
        & (kind < 4096)
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


def _store(
    placed: Placed, field: Array, section: Int32, offset: Int64, value: Int64, which: Bool
) -> Bool:
    """Store the values of pc-relative fields; True where that was done (the value fits)."""
    done = np.zeros(len(field), np.bool_)
    for kind, width in ((Field.REL32, 4), (Field.REL64, 8)):
        rows = np.flatnonzero(which & (field == kind))
        if width == 4:
            rows = rows[np.abs(value[rows]) < 1 << 31]
        at = placed.start[section[rows]] + offset[rows]
        octets = value[rows].astype(f"<i{width}").view(np.uint8).reshape(-1, width)
        placed.blob[at[:, None] + np.arange(width)] = octets
        done[rows] = True
    for kind, bits, shift in (
        (Field.A64_BRANCH26, 26, 0),
        (Field.A64_BRANCH19, 19, 5),
        (Field.A64_BRANCH14, 14, 5),
    ):
        rows = np.flatnonzero(which & (field == kind))
        if not len(rows):
            continue
        distance = value[rows] >> 2
        rows = rows[(value[rows] & 3 == 0) & (np.abs(distance) < 1 << (bits - 1))]
        at = (placed.start[section[rows]] + offset[rows])[:, None] + np.arange(4)
        word = placed.blob[at].reshape(-1, 4).copy().view("<u4").reshape(-1)
        mask = np.uint32(((1 << bits) - 1) << shift)
        field_value = ((value[rows] >> 2) << shift).astype(np.uint32) & mask
        word = (word & ~mask) | field_value
        placed.blob[at] = word.astype("<u4").view(np.uint8).reshape(-1, 4)
        done[rows] = True
    return done


__all__ = ["Placed", "Settled", "settle"]
