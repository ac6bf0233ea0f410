"""COMDAT groups of exports: they stay groups, so that a linker keeps one of several libraries'.

Source: gABI, "Section Groups".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.file import elf_unit
from cargo_strip_hook.formats.elf.output import Section, holding
from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.model import (
    Array,
    AtomFlag,
    Binding,
    Group,
    Int32,
    Int64,
    Program,
    Unit,
)


@dataclass(frozen=True, slots=True)
class Kept:
    """A group of the result: the program-wide symbol that names it, and its atoms."""

    signature: int
    atoms: tuple[int, ...]


def kept_groups(program: Program, atoms: Int32) -> list[Kept]:
    """The groups among the live `atoms` whose strong definitions are exported.

    Weak ones need none: linkers take the first of those without. A group that something else refers
    to by more than its exports becomes a plain part of the object: that would break where
    another library's copy is taken.
    """
    rows = np.array(sorted(program.exported), np.int64)
    symbols = program.symbols[rows]
    rows = rows[(symbols["atom"] >= 0) & (symbols["binding"] != Binding.WEAK)]
    if not len(rows) or elf_unit(program.units[0]).machine.index_type:
        return []
    homes = program.symbols["atom"][rows]
    live = np.zeros(len(program.atoms), np.bool_)
    live[atoms] = True
    in_sets = np.zeros(len(program.atoms), np.bool_)
    for one in program.sets:
        in_sets[one.elements] = True
    candidates = []
    for number in unique(program.unit_of(homes)).tolist():
        unit, base = program.units[number], int(program.atom_base[number])
        mine = dict(zip((homes - base).tolist(), rows.tolist(), strict=True))
        for group in unit.groups:
            if not group.comdat or not any(atom in mine for atom in group.atoms):
                continue
            inside = [base + a for a in group.atoms if live[base + a]]
            row = _named(program, number, group)
            # an element of a set is in the set's one section
            if row is not None and inside and not in_sets[inside].any():
                candidates.append(Kept(row, tuple(inside)))
    return [group for group in candidates if _closed(program, live, group)]


def _named(program: Program, number: int, group: Group) -> int | None:
    """The exported symbol of a group that has the group's name."""
    unit: Unit = program.units[number]
    name = group.signature
    if name.startswith(b".gnu.linkonce."):
        name = name.split(b".", 4)[-1]
    row = program.globals.get(name)
    if row is None or row not in program.exported:
        return None
    atom = int(program.symbols["atom"][row]) - int(program.atom_base[number])
    return row if atom in group.atoms and atom < len(unit.atoms) else None


def _closed(program: Program, live: Array, group: Kept) -> bool:
    """Whether all that is not in a group refers to it by its exports, but for unwind tables."""
    inside = np.zeros(len(program.atoms), np.bool_)
    inside[list(group.atoms)] = True
    flags = program.atoms["flags"]
    if (flags[list(group.atoms)] & AtomFlag.MERGEABLE != 0).any():
        return False
    rows = program.relocations
    target = program.definition[rows["symbol"]]
    atom = program.symbols["atom"][target]
    within = inside[np.maximum(atom, 0)] & (atom >= 0)
    outside = live[rows["atom"]] & ~inside[rows["atom"]]
    outside &= flags[rows["atom"]] & AtomFlag.SEPARATE == 0
    needed = unique(target[within & outside])
    return set(needed.tolist()) <= program.exported


def group_sections(
    groups: Sequence[Kept],
    members: Sequence[Sequence[int]],
    of_symbol: Int64,
    symtab_index: int,
    order: str,
) -> list[Section]:
    """The SHT_GROUP section of each group; `members` are header indices of sections."""
    sections = []
    for group, indices in zip(groups, members, strict=True):
        raw = np.array([elf.GRP_COMDAT, *indices], f"{order}u4").tobytes()
        signature = int(of_symbol[group.signature])
        sections.append(
            holding(
                b".group", elf.SHT_GROUP, 0, raw, 4, entsize=4, link=symtab_index, info=signature
            )
        )
    return sections


__all__ = ["Kept", "group_sections", "kept_groups"]
