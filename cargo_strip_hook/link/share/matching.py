"""Which atom of one library stands for which of another where a library has several equal ones.

Equal atoms of one library stay as many as they are, since their addresses may be compared. So each
is matched with one at most of every other library, those of one name first, then those of one
member, then by their order; and what refers to them follows, from below to above.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from cargo_strip_hook.link.model import Bool, Int64
from cargo_strip_hook.link.share.equality import Colours, word
from cargo_strip_hook.link.share.identity import Identities
from cargo_strip_hook.link.share.model import Joined, Sort


class Matching:
    """Parts the classes of colours in which a library has several atoms."""

    def __init__(self, joined: Joined, identities: Identities, colours: Colours) -> None:
        self.joined, self.identities, self.colours = joined, identities, colours
        atoms = colours.atoms
        described = joined.described
        self.library = joined.library[atoms]
        # records go with their functions; what may be folded need not be told apart
        self.free = described.copied[atoms] | described.folded[atoms]
        self.record = described.sort[atoms] == Sort.RECORD
        names = [word(unit.name.encode()) for unit in joined.program.units]
        unit = np.repeat(np.arange(len(names)), np.diff(joined.program.atom_base))
        self.member = np.array(names, np.uint64)[unit[atoms]]

    def step(self) -> bool:
        """Part some classes; False where there is nothing to part any more."""
        number = self.colours.numbers()
        several = self._several(number)
        if not several.any():
            return False
        chosen = several & ~self.record if (several & ~self.record).any() else several
        ready = self._ready(number, chosen)
        self._part(number, ready if ready.any() else chosen)
        return True

    def _several(self, number: Int64) -> Bool:
        """bool for each position: whether its class has several atoms of one library."""
        order = np.lexsort((self.library, number))
        again = np.zeros(len(order), np.bool_)
        again[1:] = (number[order][1:] == number[order][:-1]) & (
            self.library[order][1:] == self.library[order][:-1]
        )
        again &= ~self.free[order]
        found = np.zeros(self.colours.classes, np.bool_)
        found[number[order[again]]] = True
        # what only one library has needs no partner
        low = np.full(self.colours.classes, np.iinfo(np.int32).max, np.int64)
        high = np.full(self.colours.classes, -1, np.int64)
        np.minimum.at(low, number, self.library)
        np.maximum.at(high, number, self.library)
        parted: Bool = (found & (low != high))[number]
        return parted

    def _ready(self, number: Int64, several: Bool) -> Bool:
        """Those of `several` that refer to no other class of them."""
        source, target = self.colours.source, self.colours.target
        waits = self.colours.inside & several[source] & several[np.maximum(target, 0)]
        waits &= number[source] != number[np.maximum(target, 0)]
        blocked = np.zeros(self.colours.classes, np.bool_)
        blocked[number[source[waits]]] = True
        ready: Bool = several & ~blocked[number]
        return ready

    def _part(self, number: Int64, which: Bool) -> None:
        rows = np.flatnonzero(which)
        called = self.identities.called[self.colours.atoms[rows]]
        member = self.member[rows]
        order = np.lexsort((rows, member, called, self.library[rows], number[rows]))
        rows = rows[order]
        slots = np.zeros(len(rows), np.uint64)
        borders = np.flatnonzero(np.r_[True, number[rows][1:] != number[rows][:-1]]).tolist()
        called, member, library = called[order].tolist(), member[order].tolist(), self.library[rows]
        libraries = library.tolist()
        for first, end in zip(borders, [*borders[1:], len(rows)], strict=True):
            slots[first:end] = _slots(libraries[first:end], called[first:end], member[first:end])
        self.colours.add(rows, slots)


def _slots(libraries: list[int], called: list[bytes], member: list[int]) -> list[int]:
    """What tells the atoms of one class apart, the same for those that are matched."""
    found: list[int | None] = [None] * len(libraries)
    hints: list[list[Hashable]] = [
        [(name, home) if name else None for name, home in zip(called, member, strict=True)],
        [name or None for name in called],
        list(member),
    ]
    for keys in hints:
        homes: dict[Hashable, set[int]] = {}
        for at, key in enumerate(keys):
            if found[at] is None and key is not None:
                homes.setdefault(key, set()).add(libraries[at])
        counts: dict[tuple[int, Hashable], int] = {}
        for at, key in enumerate(keys):
            if found[at] is None and key is not None and len(homes[key]) > 1:
                ordinal = counts[libraries[at], key] = counts.get((libraries[at], key), 0) + 1
                found[at] = word(f"{key!r} {ordinal}".encode())
    left: dict[int, int] = {}
    for at, library in enumerate(libraries):
        if found[at] is None:
            left[library] = left.get(library, 0) + 1
            found[at] = word(b"%d" % left[library])
    return [slot for slot in found if slot is not None]


__all__ = ["Matching"]
