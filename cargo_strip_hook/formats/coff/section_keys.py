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
from cargo_strip_hook.formats.coff.reader import CoffUnit
from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.model import Int32, Program, SectionKey

COMMONS = SectionKind(b".bss", coff.BSS)
POINTERS = SectionKind(b".rdata", coff.RDATA)

_REPLACEABLE = (
    coff.COMDAT_ANY,
    coff.COMDAT_SAME_SIZE,
    coff.COMDAT_EXACT_MATCH,
    coff.COMDAT_LARGEST,
)


def assign(program: Program, live: Int32) -> tuple[Int32, tuple[SectionKey, ...]]:
    """The bucket of each atom of `live`, and the buckets, in order of first appearance."""
    private = _private_sets(program, live)
    uneven = {private.get(kind, kind) for kind in _uneven(program, live)}
    replaceable = _replaceable(program)
    order: dict[SectionKind, int] = {}
    out = np.zeros(len(live), np.int32)
    units = program.unit_of(live)
    borders = np.flatnonzero(np.r_[True, units[1:] != units[:-1]])
    for first, end in zip(borders.tolist(), [*borders[1:].tolist(), len(live)], strict=True):
        number = int(units[first])
        native: CoffUnit = program.units[number].native
        mine = native.atom_kind[live[first:end] - int(program.atom_base[number])]
        section_key = np.zeros(len(native.kinds), np.int32)
        present = np.zeros(len(native.kinds), np.bool_)
        present[mine] = True
        for kind in np.flatnonzero(present).tolist():
            own = native.kinds[kind]
            section_key[kind] = order.setdefault(private.get(own, own), len(order))
        out[first:end] = section_key[mine]
    found = list(order)
    for atom, (selection, name) in replaceable.items():
        where = int(np.searchsorted(live, atom))
        if where < len(live) and live[where] == atom:
            kind = replace(found[out[where]], name=name, selection=selection)
            out[where] = order.setdefault(kind, len(order))
            if len(order) > len(found):
                found.append(kind)
    return out, tuple(
        SectionKey(
            k,
            single=k.selection != 0 or k in uneven,
            whole=(k.root or kinds.is_initialiser(k.name))
            and not k.selection
            and not k.flags & coff.SCN_CNT_CODE,
        )
        for k in found
    )


def _private_sets(program: Program, live: Int32) -> dict[SectionKind, SectionKind]:
    """What the kinds of a set become whose two ends the library refers to: one of its own name.

    So two libraries with sets of one name cannot see each other's elements. A set of which a
    program has an end keeps its name.
    """
    atom_of: dict[bytes, dict[SectionKind, list[int]]] = {}
    units = program.unit_of(live)
    for number in unique(units).tolist():
        native: CoffUnit = program.units[number].native
        if not any(k.root and kinds.is_own_set(k.name) for k in native.kinds):
            continue
        mine = live[units == number]
        kind = native.atom_kind[mine - int(program.atom_base[number])]
        for atom, n in zip(mine.tolist(), kind.tolist(), strict=True):
            one = native.kinds[n]
            if one.root and kinds.is_own_set(one.name):
                base = one.name.partition(b"$")[0]
                atom_of.setdefault(base, {}).setdefault(one, []).append(atom)
    if not atom_of:
        return {}
    rows = program.relocations
    target = program.symbols["atom"][program.definition[rows["symbol"]]]
    named = set(target[(target >= 0) & (target != rows["atom"])].tolist())
    public = sorted(n for n, symbol in program.globals.items() if symbol in program.exported)
    mark = b".%08x$" % zlib.crc32(b"\0".join(public))
    found: dict[SectionKind, SectionKind] = {}
    for parts in atom_of.values():
        ends = sorted(parts, key=lambda k: k.name)
        if len({k.name for k in ends}) > 1 and all(
            not named.isdisjoint(parts[end]) for end in (ends[0], ends[-1])
        ):
            found |= {k: replace(k, name=k.name.replace(b"$", mark, 1)) for k in ends}
    return found


def _uneven(program: Program, live: Int32) -> set[SectionKind]:
    """The kinds of grouped sections whose pieces are aligned in more than one way.

    These stay apart: a linker aligns each for itself, so that there is no gap before the first.
    """
    aligns: dict[SectionKind, int] = {}
    found: set[SectionKind] = set()
    units = program.unit_of(live)
    for number in sorted(set(units.tolist())):
        native: CoffUnit = program.units[number].native
        rooted = np.array([k.root for k in native.kinds], np.bool_)
        if not rooted.any():
            continue
        mine = live[units == number]
        kind = native.atom_kind[mine - int(program.atom_base[number])]
        mine, kind = mine[rooted[kind]], kind[rooted[kind]]
        for one, align in zip(kind.tolist(), program.atoms["align"][mine].tolist(), strict=True):
            if aligns.setdefault(native.kinds[one], align) != align:
                found.add(native.kinds[one])
    return found


def _replaceable(program: Program) -> dict[int, tuple[int, bytes]]:
    """Selection and section name of each atom whose leader is exported and may be another file's.

    The name is the one it had: GNU ld takes COMDATs for equal that agree in both.
    """
    found: dict[int, tuple[int, bytes]] = {}
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
            found[atom] = selection, native.names[section]
    return found
