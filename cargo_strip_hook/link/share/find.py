"""Find what a set of libraries can share: equal atoms, matched one to one, that the rules allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.link.arrays import isin, unique
from cargo_strip_hook.link.model import Array, Bool, Int64
from cargo_strip_hook.link.pages import trim
from cargo_strip_hook.link.share.equality import Colours, References, hashed, references
from cargo_strip_hook.link.share.identity import Identities, identify
from cargo_strip_hook.link.share.matching import Matching
from cargo_strip_hook.link.share.model import Joined, Library, Sharing
from cargo_strip_hook.link.share.rules import Private, Reason, Ruled, State, initialised
from cargo_strip_hook.link.share.union import join_libraries


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """What is shared, by atom of `joined`.

    `number` is the class of a shared atom, -1 for what is not shared: atoms of a class are one.
    `colour` (uint64, by class) tells classes apart by what they are.
    `copied` may stand in every object that needs them. `reason` (`Reason`, uint8) says why a live
    atom is not shared.
    """

    joined: Joined
    identities: Identities
    refers: References
    number: Int64
    colour: Array
    copied: Bool
    reason: Array

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return int(self.number.max(initial=-1)) + 1


def find_shared(libraries: Sequence[Library], sharing: Sharing) -> Shared:
    """Decide for each live atom of at least two libraries whether it is shared, and with what.

    The order of `libraries` decides which of several equal atoms are matched, nothing else.
    """
    joined = join_libraries(libraries, sharing)
    identities = identify(joined, sharing)
    refers, names = references(joined, sharing)
    trim()
    ruled = Ruled(joined, refers, identities, names)
    private = Private(ruled, [_exports(one) for one in libraries])
    may = joined.live & (private.reason == 0)
    colours = _colours(ruled, may)
    state = State(ruled, colours)
    _part(ruled, colours, state)
    shared = _greatest(ruled, colours, state, private)
    trim()
    return shared


def _exports(library: Library) -> frozenset[bytes]:
    chosen = library.program.exported
    return frozenset(n for n, row in library.program.globals.items() if row in chosen)


def _facts(ruled: Ruled, atoms: Int64) -> list[Array]:
    described = ruled.joined.described
    return [described.contents[atoms], described.sort[atoms], ruled.identities.name[atoms]]


def _colours(ruled: Ruled, may: Bool) -> Colours:
    return Colours(may, ruled.refers, _facts(ruled, np.flatnonzero(may)))


def _part(ruled: Ruled, colours: Colours, state: State) -> None:
    """Refine until equal atoms are those that can be matched with one another."""
    matching = Matching(ruled.joined, ruled.identities, colours)
    facts = _facts(ruled, colours.atoms)
    colours.refine()
    while True:
        while True:
            known = colours.classes
            state.part()
            colours.refine()
            if colours.classes == known:
                break
        if matching.step():
            colours.refine()
            continue
        odd = colours.odd(facts)
        if not len(odd):
            return
        colours.add(odd, np.arange(1, len(odd) + 1).astype(np.uint64))
        colours.refine()


def _greatest(ruled: Ruled, colours: Colours, state: State, private: Private) -> Shared:
    """Take out what breaks a rule until nothing does."""
    joined = ruled.joined
    reason = private.reason
    described = joined.described
    of = np.full(len(joined.live), -1, np.int64)
    of[colours.atoms] = colours.numbers()
    entry, run = initialised(ruled)
    loaded = joined.live & ~described.copied
    telling = _telling(ruled, state)
    while True:
        before = int((reason == 0).sum())
        shared = loaded & (reason == 0)
        alone = shared & ~_in_several(joined, of, shared)
        for why, which in telling.items():
            private.upward.spread(reason, alone & which, why)
        shared = loaded & (reason == 0)
        held = np.zeros(len(shared), np.bool_)
        held[run[~shared[entry]]] = True
        private.upward.spread(reason, held, Reason.STATE)
        shared = loaded & (reason == 0)
        by_crate, own = state.broken(shared)
        for atoms, why in ((by_crate, Reason.STATE), (own, Reason.TOOLCHAIN)):
            seeds = np.zeros(len(shared), np.bool_)
            seeds[atoms] = True
            private.upward.spread(reason, seeds, why)
        if int((reason == 0).sum()) == before:
            break
    shared = loaded & (reason == 0)
    number = np.full(len(shared), -1, np.int64)
    chosen = np.flatnonzero(shared)
    _, first, inverse = np.unique(of[chosen], return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    number[chosen] = rank[inverse]
    colour = np.zeros(len(first), np.uint64)
    colour[rank] = colours.colour[colours.row_of[chosen[first]]]
    copied = joined.live & described.copied & (reason == 0)
    return Shared(joined, ruled.identities, ruled.refers, number, colour, copied, reason)


def _telling(ruled: Ruled, state: State) -> dict[Reason, Bool]:
    """By reason the atoms for which it is the one where no other library has an equal one."""
    joined, identities = ruled.joined, ruled.identities
    digests, cohorts = state.digests, state.cohorts()
    other = np.array([digests.count(digest) == 1 for digest in digests], np.bool_)
    apart = np.array([cohorts.count(cohort) == 1 for cohort in cohorts], np.bool_)
    # names that several libraries have
    called = np.flatnonzero(joined.live & (identities.called != b""))
    key = hashed([identities.called[called]])
    order = np.lexsort((joined.library[called], key))
    key, library = key[order], joined.library[called[order]]
    again = (key[1:] == key[:-1]) & (library[1:] != library[:-1])
    twice = unique(key[1:][again])
    differs = np.zeros(len(joined.live), np.bool_)
    differs[called[order]] = isin(key, twice)
    own = identities.toolchain
    return {
        Reason.TOOLCHAIN: own & other[joined.library],
        Reason.RUNTIME: own & apart[joined.library],
        Reason.DIFFERS: differs,
        Reason.ALONE: np.ones(len(joined.live), np.bool_),
    }


def _in_several(joined: Joined, of: Int64, shared: Bool) -> Bool:
    """bool by atom: whether its class has shared atoms of several libraries."""
    rows = np.flatnonzero(shared)
    count = int(of.max(initial=-1)) + 1
    low = np.full(count, len(joined.libraries), np.int64)
    high = np.full(count, -1, np.int64)
    np.minimum.at(low, of[rows], joined.library[rows])
    np.maximum.at(high, of[rows], joined.library[rows])
    found = np.zeros(len(shared), np.bool_)
    found[rows] = (low < high)[of[rows]]
    return found


__all__ = ["Shared", "find_shared"]
