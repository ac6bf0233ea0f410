"""Which atoms may become one section.

Functions and data of one class share a section: it is one COMDAT, which a linker keeps or drops
as a whole. What must not be dropped is in sections of its own, which are no COMDATs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cargo_strip_hook.objects.coff import kinds
from cargo_strip_hook.objects.coff import layouts as coff
from cargo_strip_hook.objects.coff.kinds import SectionKind
from cargo_strip_hook.objects.coff.reader import CoffUnit
from cargo_strip_hook.objects.model import Bucket, Int32, Layout, OutputSection, Program

COMMONS = SectionKind(b".bss", coff.BSS)
POINTERS = SectionKind(b".rdata", coff.RDATA)

_REPLACEABLE = (
    coff.COMDAT_ANY,
    coff.COMDAT_SAME_SIZE,
    coff.COMDAT_EXACT_MATCH,
    coff.COMDAT_LARGEST,
)


def assign(program: Program, live: Int32) -> tuple[Int32, tuple[Bucket, ...]]:
    """The bucket of each atom of `live`, and the buckets, in order of first appearance."""
    joined = _joined_groups(program, live)
    replaceable = _replaceable(program)
    order: dict[SectionKind, int] = {}
    out = np.zeros(len(live), np.int32)
    units = program.unit_of(live)
    borders = np.flatnonzero(np.r_[True, units[1:] != units[:-1]])
    for first, end in zip(borders.tolist(), [*borders[1:].tolist(), len(live)], strict=True):
        number = int(units[first])
        native: CoffUnit = program.units[number].native
        mine = native.atom_kind[live[first:end] - int(program.atom_base[number])]
        bucket = np.zeros(len(native.kinds), np.int32)
        present = np.zeros(len(native.kinds), np.bool_)
        present[mine] = True
        for kind in np.flatnonzero(present).tolist():
            bucket[kind] = order.setdefault(
                joined.get(native.kinds[kind], native.kinds[kind]), len(order)
            )
        out[first:end] = bucket[mine]
    found = list(order)
    for atom, selection in replaceable.items():
        where = int(np.searchsorted(live, atom))
        if where < len(live) and live[where] == atom:
            kind = replace(found[out[where]], selection=selection)
            out[where] = order.setdefault(kind, len(order))
            if len(order) > len(found):
                found.append(kind)
    return out, tuple(
        Bucket(
            k,
            single=k.selection != 0,
            whole=(k.root or kinds.is_initialiser(k.name)) and not k.selection,
        )
        for k in found
    )


def _joined_groups(program: Program, live: Int32) -> dict[SectionKind, SectionKind]:
    """What the kinds of a group of sections become that is complete here: one section.

    Then the group of another library with the same name stays a group of its own.
    """
    groups: dict[bytes, list[SectionKind]] = {}
    for number in sorted(set(program.unit_of(live).tolist())):
        for kind in program.units[number].native.kinds:
            found = kinds.group_of(kind.name) if kind.root else None
            if found is not None and kind not in groups.setdefault(found[0], []):
                groups[found[0]].append(kind)
    out: dict[SectionKind, SectionKind] = {}
    for base, members in groups.items():
        names = {k.name for k in members}
        if len(names) > 1 and len({k.flags for k in members}) == 1:
            whole = SectionKind(base, members[0].flags, root=True, order=b"$")
            out |= dict.fromkeys(members, whole)
    return out


def in_order(program: Program, layout: Layout) -> Layout:
    """The layout with the pieces of joined groups in the order of their names.

    Source: PE format, "Grouped Sections": by what follows the `$`, then as they come.
    """
    offset = layout.offset.copy()
    sections = list(layout.sections)
    for number, section in enumerate(sections):
        kind: SectionKind = layout.buckets[section.bucket].descriptor
        if not kind.order:
            continue
        units = program.unit_of(section.atoms)

        def name(at: tuple[int, int]) -> tuple[bytes, int]:
            atom, unit = at
            native: CoffUnit = program.units[unit].native
            local = atom - int(program.atom_base[unit])
            return native.kinds[int(native.atom_kind[local])].name, atom

        pairs = sorted(zip(section.atoms.tolist(), units.tolist(), strict=True), key=name)
        atoms = np.array([a for a, _ in pairs], np.int32)
        at = 0
        for atom in atoms.tolist():
            align = int(program.atoms["align"][atom])
            at = -(-at // align) * align
            offset[atom] = at
            at += int(program.atoms["size"][atom])
        sections[number] = OutputSection(section.bucket, atoms, at, section.align)
    return replace(layout, sections=tuple(sections), offset=offset)


def _replaceable(program: Program) -> dict[int, int]:
    """The selection of each atom whose leader is exported and may be another file's."""
    found: dict[int, int] = {}
    for symbol in sorted(program.exported):
        atom = int(program.symbols["atom"][symbol])
        if atom < 0 or program.atoms["section"][atom] < 0:
            continue
        number = int(program.unit_of(np.array([atom]))[0])
        native: CoffUnit = program.units[number].native
        section = int(program.atoms["section"][atom])
        selection = int(native.comdats.selection[section])
        local = symbol - int(program.symbol_base[number])
        leader = int(native.comdats.leader[section])
        if selection in _REPLACEABLE and leader >= 0 and native.numbers[leader] == local:
            found[atom] = selection
    return found
