"""Which definition of each name counts, and where it went."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cargo_strip_hook.verify.arrays import Array
from cargo_strip_hook.verify.macho.locations import Locations
from cargo_strip_hook.verify.macho.made import Made
from cargo_strip_hook.verify.macho.order import Choice
from cargo_strip_hook.verify.macho.read import WEAK_DEF, Object


class Definitions:
    """Name -> the address in the result of its definition that counts, of those that went there."""

    def __init__(self, before: Object, where: Locations, choice: Choice) -> None:
        self.choice = choice
        numbers = before.externals()
        at = where.of_symbols(numbers)
        numbers, at = numbers[at >= 0], at[at >= 0]
        self._first: dict[bytes, int] = {}
        several: dict[bytes, None] = {}
        names = before.names(numbers)
        # of what is there twice the first, which is the last of a dictionary made backwards
        self._number = dict(zip(names[::-1], numbers[::-1].tolist(), strict=True))
        for name, address in zip(names, at.tolist(), strict=True):
            if self._first.setdefault(name, address) != address:
                several[name] = None
        file = np.searchsorted(before.symbol_first, numbers, side="right") - 1
        weak = before.entries["desc"][numbers] & WEAK_DEF != 0
        self.files: dict[bytes, set[int]] = {}
        repeated = several.keys() | (choice.loading.repeated & self._first.keys())
        found: dict[bytes, list[tuple[int, int, bool, int]]] = {name: [] for name in repeated}
        if found:
            columns = (file.tolist(), at.tolist(), weak.tolist(), numbers.tolist())
            for name, *row in zip(names, *columns, strict=True):
                if name in found:
                    found[name].append((row[0], row[1], row[2], row[3]))
        for name, every in found.items():
            self.files[name] = {row[0] for row in every}
            strong = [row for row in every if not row[2]] or every
            chosen = choice.first([row[0] for row in strong]) if len(strong) > 1 else 0
            self._first[name], self._number[name] = strong[chosen][1], strong[chosen][3]
        self.made = Made(before, self._first)

    def symbols(self, names: Iterable[bytes]) -> Array:
        """The symbol of a member that counts for each name, -1 for those that are not there."""
        find = self._number.get
        return np.array([find(name, -1) for name in names], np.int64)

    def of(self, name: bytes) -> int:
        """The address of a name, -1 for one that is not there."""
        return self._first.get(name, -1)

    def of_all(self, names: Iterable[bytes]) -> Array:
        """`of` each name."""
        find = self._first.get
        return np.array([find(name, -1) for name in names], np.int64)

    def chosen(self, name: bytes) -> tuple[int, int]:
        """(address, symbol of the member) of the definition that counts; -1 for none."""
        return self._first.get(name, -1), self._number.get(name, -1)


__all__ = ["Definitions"]
