"""The order of the units: that of loading where it says something, else one of need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.link.model import (
    Array,
    AtomFlag,
    Int64,
    LinkerSet,
    Unit,
)


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """Units in another order: `units[n]` is number `order[n]` of before."""

    order: Int64
    atom_base: Int64
    symbol_base: Int64

    def atoms(self, numbers: Array) -> Int64:
        """The new numbers of program-wide atoms."""
        return _moved(self.atom_base, self.order, numbers)

    def symbols(self, numbers: Array) -> Int64:
        """The new numbers of program-wide symbols."""
        return _moved(self.symbol_base, self.order, numbers)


def _moved(base: Int64, order: Int64, numbers: Array) -> Int64:
    sizes = np.diff(base)[order]
    begin = np.empty(len(order), np.int64)
    begin[order] = np.cumsum(sizes) - sizes
    unit = np.searchsorted(base, numbers, side="right") - 1
    out: Int64 = numbers + (begin - base[:-1])[unit]
    return out


def by_need(
    units: Sequence[Unit],
    needs: Sequence[Sequence[bytes]],
    table: Mapping[bytes, int],
    sets: Sequence[LinkerSet],
    roots: Sequence[bytes],
) -> Order | None:
    """The order by need from the roots on, so that a result does not depend on that of members.

    `needs` are the names that each unit refers to strongly, in its order. `table` has the
    program-wide symbol of each name's definition, times four, and how strong it is (0 for none).
    Initialisers and elements of sets stay in the order of loading: None where that is another one.
    """
    atom_base = np.cumsum([0, *(len(u.atoms) for u in units)])
    symbol_base = np.cumsum([0, *(len(u.symbols) for u in units)])

    def homes(names: Sequence[bytes]) -> list[int]:
        """The units that define names, each once, in their order."""
        rows = np.fromiter(map(table.__getitem__, names), np.int64, len(names))
        defining = np.searchsorted(symbol_base, rows[rows & 3 != 0] >> 2, side="right") - 1
        return list(dict.fromkeys(defining.tolist()))

    ordered: dict[int, None] = dict.fromkeys(homes(roots))
    waiting = list(ordered)
    for number in waiting:  # which grows
        new = [n for n in homes(needs[number]) if n not in ordered]
        ordered.update(dict.fromkeys(new))
        waiting += new
    order = np.array([*ordered, *(n for n in range(len(units)) if n not in ordered)], np.int64)
    fixed = np.array([(u.atoms["flags"] & AtomFlag.ROOT != 0).any() for u in units], np.bool_)
    for linker_set in sets:
        fixed[np.searchsorted(atom_base, linker_set.elements, side="right") - 1] = True
    if not (np.diff(order[fixed[order]]) > 0).all():
        return None
    return Order(order, atom_base, symbol_base)


__all__ = ["Order", "by_need"]
