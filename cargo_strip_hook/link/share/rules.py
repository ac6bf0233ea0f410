"""Which equal atoms may be one: the rules for state, and what follows from what stays private.

Nothing is shared that refers to what is not shared. So the answer is the greatest set of atoms in
which every rule holds: atoms are taken out until none breaks one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.model import Array, Bool, Int64
from cargo_strip_hook.link.share.equality import Colours, References, hashed, word
from cargo_strip_hook.link.share.identity import CORE, Identities, toolchain_digests
from cargo_strip_hook.link.share.model import Joined, Sort


class Reason(IntEnum):
    """Why an atom is not shared: the cause at the end of what it refers to."""

    SHARED = 0
    ALONE = 1  # no other library needs it
    DIFFERS = 2  # another library has one of the name, and it is another one
    PUBLIC = 3  # it is public, or refers to what is
    EXPORTED = 4  # it needs a name that another library of the set exports
    SET = 5  # linker sets, what linkers retain, and state that code which walks a set reaches
    STATE = 6  # state that cannot be shared
    TOOLCHAIN = 7  # the toolchains' own libraries differ
    RUNTIME = 8  # allocators or panic runtimes differ
    LTO = 9  # the toolchain's own state was compiled into the library (fat LTO)
    SMALL = 10  # what a name for it takes is more


@dataclass(frozen=True, slots=True, eq=False)
class Ruled:
    """What the rules need to know, by atom of the `Joined`."""

    joined: Joined
    refers: References
    identities: Identities
    names: tuple[bytes, ...]  # outside


class Private:
    """What cannot be shared whatever else there is: `reason` (uint8, by atom) says why."""

    def __init__(self, ruled: Ruled, exports: list[frozenset[bytes]]) -> None:
        self.ruled = ruled
        joined = ruled.joined
        self.reason = np.zeros(len(joined.live), np.uint8)
        self.upward = Upward(ruled.refers, len(joined.live))
        self._set(joined.live & joined.described.pinned, Reason.SET)
        self._set(self._public(), Reason.PUBLIC)
        self._set(self._exported(exports), Reason.EXPORTED)
        state = joined.live & (joined.described.sort == Sort.STATE)
        crates = ruled.identities.crates
        core = np.array([crate in CORE for crate, _ in crates], np.bool_)
        inlined = state & core[ruled.identities.crate] & ~ruled.identities.toolchain
        self._set(inlined, Reason.LTO)
        self._set(self._walked() & state & ~ruled.identities.toolchain, Reason.SET)

    def _set(self, which: Bool, reason: Reason) -> None:
        self.upward.spread(self.reason, which, reason)

    def _public(self) -> Bool:
        joined, found = self.ruled.joined, np.zeros(len(self.ruled.joined.live), np.bool_)
        program = joined.program
        rows = np.array(sorted(program.exported), np.int64)
        atoms = program.symbols["atom"][rows]
        found[atoms[atoms >= 0]] = True
        # what refers to a public common or absolute symbol
        public = np.zeros(len(program.symbols), np.bool_)
        public[rows[atoms < 0]] = True
        uses = program.relocations[public[program.definition[program.relocations["symbol"]]]]
        found[uses["atom"]] = True
        return found & joined.live

    def _exported(self, exports: list[frozenset[bytes]]) -> Bool:
        """Atoms that need an undefined name which a library of the set exports."""
        ruled = self.ruled
        everyone = frozenset().union(*exports)
        numbers = [n for n, name in enumerate(ruled.names, 1) if name in everyone]
        uses = np.zeros(len(ruled.names) + 1, np.bool_)
        uses[numbers] = True
        found = np.zeros(len(ruled.joined.live), np.bool_)
        found[ruled.refers.source[uses[ruled.refers.shape[:, 6]]]] = True
        return found

    def _walked(self) -> Bool:
        """What code that walks a linker set reaches, but for what is behind the toolchain's own."""
        ruled = self.ruled
        joined, refers = ruled.joined, ruled.refers
        ends = np.zeros(len(joined.live), np.bool_)
        for one in joined.program.sets:
            ends[[one.start_atom, one.stop_atom]] = True
        inside = refers.target >= 0
        reached = np.zeros(len(ends), np.bool_)
        reached[refers.source[inside & ends[np.maximum(refers.target, 0)]]] = True
        if not reached.any():
            return reached
        forward = inside & ~refers.backward
        source, target = refers.source[forward], refers.target[forward]
        open_ = ~ruled.identities.toolchain
        while True:
            new = unique(target[reached[source] & open_[source] & ~reached[target]])
            if not len(new):
                return reached
            reached[new] = True


class Upward:
    """From atoms to what refers to them."""

    def __init__(self, refers: References, count: int) -> None:
        inside = np.flatnonzero(refers.target >= 0)
        order = inside[np.argsort(refers.target[inside], kind="stable")]
        self.sources = refers.source[order]
        self.starts = np.searchsorted(refers.target[order], np.arange(count + 1))

    def spread(self, reason: Array, seeds: Bool, why: int) -> None:
        """Set the reason of `seeds` and of all that refers to them, where there is none yet."""
        frontier = np.flatnonzero(seeds & (reason == 0))
        reason[frontier] = why
        while len(frontier):
            first, counts = self.starts[frontier], np.diff(self.starts)[frontier]
            rows = np.repeat(first - (np.cumsum(counts) - counts), counts)
            found = self.sources[rows + np.arange(int(counts.sum()))]
            frontier = unique(found[reason[found] == 0])
            reason[frontier] = why


class State:
    """The rules for writable data: whose state may be one in which libraries.

    `colours` are those of all atoms that may be shared.
    """

    def __init__(self, ruled: Ruled, colours: Colours) -> None:
        self.ruled, self.colours = ruled, colours
        joined, identities = ruled.joined, ruled.identities
        self.count = len(joined.libraries)
        self.state = joined.live & (joined.described.sort == Sort.STATE)
        self.own = np.flatnonzero(self.state & identities.toolchain)
        self.other = np.flatnonzero(self.state & ~identities.toolchain)
        self.guards = np.flatnonzero(identities.guard)
        self.digests = toolchain_digests(joined, identities)
        # (crate, library) of state by the crate's rule
        self.home = identities.crate.astype(np.int64) * self.count + joined.library
        refers = ruled.refers
        uses = (refers.target >= 0) & ~refers.backward
        target = np.maximum(refers.target, 0)
        by_crate = np.zeros(len(joined.live), np.bool_)
        by_crate[self.other] = True
        uses &= by_crate[target] & (refers.shape[:, 0] == 1)
        self.user, self.used = refers.source[uses], target[uses]
        self.last: tuple[int, ...] = ()

    def part(self) -> None:
        """Give state of different cohorts, and of crates that are used differently, other colours.

        What two allocators serve is not one, whosever it is. A crate's state is used alike in two
        libraries where equal state lives in both, and equal atoms refer to it.
        """
        row_of, colour = self.colours.row_of, self.colours.colour
        cohort = self.cohorts()
        if cohort != self.last:
            self.last = cohort
            number = np.array(cohort, np.uint64)
            rows = np.flatnonzero(self.state & (row_of >= 0))
            self.colours.add(row_of[rows], number[self.ruled.joined.library[rows]])
        atoms = np.concatenate([self.other, self.user])
        home = self.home[np.concatenate([self.other, self.used])]
        if not len(atoms) or not len(colour):
            return
        known = row_of[atoms] >= 0
        colour_of = np.where(known, colour[np.maximum(row_of[atoms], 0)], hashed([atoms]))
        order = np.lexsort((colour_of, home))
        home, colour_of = home[order], colour_of[order]
        new = np.r_[True, (home[1:] != home[:-1]) | (colour_of[1:] != colour_of[:-1])]
        home, colour_of = home[new], colour_of[new]
        begins = np.flatnonzero(np.r_[True, home[1:] != home[:-1]])
        total = np.add.reduceat(hashed([colour_of]), begins)
        signature = np.zeros(int(self.home.max()) + 1, np.uint64)
        signature[home[begins]] = total
        rows = self.other[row_of[self.other] >= 0]
        self.colours.add(row_of[rows], signature[self.home[rows]])

    def cohorts(self) -> tuple[int, ...]:
        """For each library the number of those that have one toolchain, allocator, panic runtime.

        0 where there is no toolchain's own member.
        """
        found: list[tuple[bytes, dict[bytes, int]]] = []
        out = []
        row_of, colour = self.colours.row_of, self.colours.colour
        called = self.ruled.identities.called
        for library in range(self.count):
            mine = self.guards[self.ruled.joined.library[self.guards] == library]
            held = {
                called[a]: int(colour[row_of[a]]) if row_of[a] >= 0 else -1 - a
                for a in mine.tolist()
            }
            if not self.digests[library]:
                out.append(0)
                continue
            for number, (digest, others) in enumerate(found, 1):
                alike = all(others.get(name, value) == value for name, value in held.items())
                if digest == self.digests[library] and alike:
                    others.update(held)
                    out.append(number)
                    break
            else:
                found.append((self.digests[library], held))
                out.append(len(found))
        return tuple(out)

    def broken(self, shared: Bool) -> tuple[Array, Array]:
        """State that may not be shared while other things are not: (by crate, the toolchain's).

        `shared`: what is shared so far, by atom.
        """
        joined = self.ruled.joined
        bad = np.zeros(int(self.home.max(initial=0)) + 1, np.bool_)
        bad[self.home[self.other[~shared[self.other]]]] = True
        bad[self.home[self.used[~shared[self.user]]]] = True
        by_crate = self.other[bad[self.home[self.other]]]

        off = np.array(self.last or self.cohorts()) == 0
        off[joined.library[self.guards[~shared[self.guards]]]] = True
        names = self.ruled.identities.name
        # all of a toolchain's state that several libraries of a cohort have, or none
        cohort = np.array(self.last)[joined.library[self.own]]
        key = hashed([names[self.own], cohort])
        while True:
            on = ~off[joined.library[self.own]]
            order = np.flatnonzero(on)[np.argsort(key[on], kind="stable")]
            same = np.zeros(len(key), np.bool_)
            if len(order):
                ordered = key[order]
                twice = np.zeros(len(order), np.bool_)
                twice[1:] = ordered[1:] == ordered[:-1]
                twice[:-1] |= twice[1:].copy()
                same[order] = twice
            missing = joined.library[self.own[same & ~shared[self.own]]]
            if not len(missing) or off[missing].all():
                break
            off[missing] = True
        return by_crate, self.own[off[joined.library[self.own]]]


def initialised(ruled: Ruled) -> tuple[Int64, Int64]:
    """(initialiser, what it runs), but for the toolchain's own functions."""
    refers, sort = ruled.refers, ruled.joined.described.sort
    uses = (refers.target >= 0) & (sort[refers.source] == Sort.INITIALISER) & ~refers.backward
    target = np.maximum(refers.target, 0)
    uses &= (sort[target] == Sort.CODE) & ~ruled.identities.toolchain[target]
    return refers.source[uses], target[uses]


__all__ = ["Private", "Reason", "Ruled", "State", "Upward", "initialised", "word"]
