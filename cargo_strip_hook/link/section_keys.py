"""Which atoms may become one section: what of that holds for all formats."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from cargo_strip_hook.link.arrays import equal_rows
from cargo_strip_hook.link.model import Array, Int32, LinkerSet, Program, Unit

Key = TypeVar("Key", bound=Hashable)


def number_keys(
    columns: Sequence[Array], key: Callable[[int], tuple[Key, bool]], order: Array | None = None
) -> tuple[Int32, list[Key]]:
    """(number of each row's key, the keys), in order of first appearance, or of `order` (by row).

    `key` gives a row's key, and whether all rows have it that agree with it in all `columns`
    (of equal length): it is called once for those.
    """
    group, first = equal_rows(columns)
    shared = np.zeros(len(first), np.bool_)
    keys: dict[int, Key] = {}
    for number, row in enumerate(first.tolist()):
        keys[row], shared[number] = key(row)
    rows = np.arange(len(group))
    source = np.where(shared[group], first[group], rows)
    for row in source[(source == rows) & ~shared[group]].tolist():
        if row not in keys:
            keys[row], _ = key(row)
    numbers: dict[Key, int] = {}
    of_row = np.zeros(len(group), np.int32)
    for row in sorted(keys, key=None if order is None else order.tolist().__getitem__):
        of_row[row] = numbers.setdefault(keys[row], len(numbers))
    return of_row[source], list(numbers)


def sets_of_atoms(program: Program) -> dict[int, int]:
    """The number of the linker set of each atom that is in one, or at its ends."""
    return {
        atom: number
        for number, one in enumerate(program.sets)
        for atom in (*one.elements.tolist(), one.start_atom, one.stop_atom)
    }


def linker_sets(
    units: Sequence[Unit],
    ends: Mapping[Key, tuple[bytes, bytes, bytes]],
    elements: Callable[[Unit], Iterable[tuple[Key, Array]]],
) -> list[LinkerSet]:
    """The linker sets that have elements, in the order of `ends`.

    `ends`: the name of a set, and of its start and stop symbol; `elements` finds those of an
    object: (what it has in common with others, numbers of atoms).
    """
    atoms: dict[Key, list[Array]] = {key: [] for key in ends}
    if not ends:
        return []
    base = 0
    for unit in units:
        for key, inside in elements(unit):
            if key in atoms:
                atoms[key].append(base + inside)
        base += len(unit.atoms)
    aligns = np.concatenate([unit.atoms["align"] for unit in units])
    sets = []
    for key, names in ends.items():
        every = np.concatenate([np.zeros(0, np.int32), *atoms[key]]).astype(np.int32)
        if len(every):
            sets.append(LinkerSet(*names, every, int(aligns[every].max())))
    return sets
