"""Which atoms may become one section.

Functions and data of one class share a section: it is one COMDAT, which a linker keeps or drops
as a whole. What must not be dropped is in sections of its own, which are no COMDATs.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np

from cargo_strip_hook.formats.coff import kinds
from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.kinds import SectionKind
from cargo_strip_hook.formats.coff.reader import coff_unit
from cargo_strip_hook.link.model import Int32, Program, SectionKey, Unit
from cargo_strip_hook.link.section_keys import number_keys

COMMONS = SectionKind(b".bss", coff.BSS)
POINTERS = SectionKind(b".rdata", coff.RDATA)

_REPLACEABLE = (
    coff.COMDAT_ANY,
    coff.COMDAT_SAME_SIZE,
    coff.COMDAT_EXACT_MATCH,
    coff.COMDAT_LARGEST,
)


def assign(program: Program, live: Int32) -> tuple[Int32, tuple[SectionKey, ...]]:
    """The number of each `live` atom's section key, and the keys, by unit and kind."""
    units = program.unit_of(live)
    kind_numbers = np.concatenate([_kind_numbers(unit) for unit in program.units])[live]
    rooted = _rooted(program, live, kind_numbers)
    private = _private_sets(program, rooted)
    uneven = {private.get(kind, kind) for kind in _uneven(program, rooted)}

    def key(row: int) -> tuple[SectionKind, bool]:
        native = coff_unit(program.units[int(units[row])])
        kind = native.kinds[int(kind_numbers[row])]
        return private.get(kind, kind), True

    position = units * (int(kind_numbers.max(initial=0)) + 1) + kind_numbers
    numbers, own_kinds = number_keys([units, kind_numbers], key, position)
    order = {kind: number for number, kind in enumerate(own_kinds)}
    for atom, (selection, name) in _replaceable(program).items():
        row = int(np.searchsorted(live, atom))
        if row < len(live) and live[row] == atom:
            kind = replace(own_kinds[int(numbers[row])], name=name, selection=selection)
            numbers[row] = order.setdefault(kind, len(order))
    return numbers, tuple(
        SectionKey(
            kind,
            single=kind.selection != 0 or kind in uneven,
            whole=(kind.root or kinds.is_initialiser(kind.name))
            and not kind.selection
            and not kind.flags & coff.SCN_CNT_CODE,
        )
        for kind in order
    )


def _kind_numbers(unit: Unit) -> Int32:
    """The number in `kinds` of each atom's; what is in no section has that of the last."""
    native = coff_unit(unit)
    return native.atom_kind % max(len(native.kinds), 1)


def _rooted(program: Program, live: Int32, kind_numbers: Int32) -> list[tuple[int, SectionKind]]:
    """The `live` atoms that live whenever their object is loaded, with their kinds."""
    roots = [
        np.array([kind.root for kind in coff_unit(unit).kinds] or [False])[_kind_numbers(unit)]
        for unit in program.units
    ]
    rows = np.flatnonzero(np.concatenate(roots)[live])
    homes = program.unit_of(live[rows]).tolist()
    return [
        (atom, coff_unit(program.units[home]).kinds[number])
        for atom, home, number in zip(
            live[rows].tolist(), homes, kind_numbers[rows].tolist(), strict=True
        )
    ]


def _private_sets(
    program: Program, rooted: list[tuple[int, SectionKind]]
) -> dict[SectionKind, SectionKind]:
    """What the kinds of a set become whose two ends the library refers to: one of its own name.

    So two libraries with sets of one name cannot see each other's elements. A set of which a
    program has an end keeps its name.
    """
    atom_of: dict[bytes, dict[SectionKind, list[int]]] = {}
    for atom, kind in rooted:
        if kinds.is_own_set(kind.name):
            base = kind.name.partition(b"$")[0]
            atom_of.setdefault(base, {}).setdefault(kind, []).append(atom)
    if not atom_of:
        return {}
    rows = program.relocations
    target = program.symbols["atom"][program.definition[rows["symbol"]]]
    named = set(target[(target >= 0) & (target != rows["atom"])].tolist())
    public = sorted(n for n, symbol in program.globals.items() if symbol in program.exported)
    mark = b".%08x$" % zlib.crc32(b"\0".join(public))
    renamed: dict[SectionKind, SectionKind] = {}
    for parts in atom_of.values():
        ends = sorted(parts, key=lambda k: k.name)
        if len({k.name for k in ends}) > 1 and all(
            not named.isdisjoint(parts[end]) for end in (ends[0], ends[-1])
        ):
            renamed |= {k: replace(k, name=k.name.replace(b"$", mark, 1)) for k in ends}
    return renamed


def _uneven(program: Program, rooted: list[tuple[int, SectionKind]]) -> set[SectionKind]:
    """The kinds of grouped sections whose input sections are aligned in more than one way.

    These stay apart: a linker aligns each for itself, so that there is no gap before the first.
    """
    aligns: dict[SectionKind, int] = {}
    aligned = program.atoms["align"][[atom for atom, _ in rooted]].tolist()
    return {
        kind
        for (_, kind), align in zip(rooted, aligned, strict=True)
        if aligns.setdefault(kind, align) != align
    }


def _replaceable(program: Program) -> dict[int, tuple[int, bytes]]:
    """Selection and section name of each atom whose leader is exported and may be another file's.

    The name is the one it had: GNU ld takes COMDATs for equal that agree in both.
    """
    selections: dict[int, tuple[int, bytes]] = {}
    for symbol in sorted(program.exported):
        atom = int(program.symbols["atom"][symbol])
        if atom < 0 or program.atoms["section"][atom] < 0:
            continue
        number = int(program.unit_of(np.array([atom]))[0])
        native = coff_unit(program.units[number])
        section = int(program.atoms["section"][atom])
        selection = int(native.comdats.selection[section])
        local = symbol - int(program.symbol_base[number])
        leader = int(native.comdats.leader[section])
        if selection in _REPLACEABLE and leader >= 0 and native.numbers[leader] == local:
            selections[atom] = selection, native.names[section]
    return selections
