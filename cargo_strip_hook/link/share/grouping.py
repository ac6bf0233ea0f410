"""Which members the common library has: one for each group of libraries, small ones with others.

A linker loads a member whole. So a group may join another one only where no library gets a name
that it would not need, or anything that runs by itself, with what it does not need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.model import Array, Bool, Int64
from cargo_strip_hook.link.share.find import Shared
from cargo_strip_hook.link.share.model import Sort

# Bytes of contents. A member takes about 1 KiB besides them: headers, names of sections, symbols.
# More than that is more than it saves, for consumers that do not collect garbage.
SMALL = 2048


def groups_of(shared: Shared) -> tuple[Int64, list[tuple[int, ...]]]:
    """(the group of each class, the libraries of each group), large groups first."""
    having = holders(shared)
    if not shared.classes:
        return np.zeros(0, np.int64), []
    found, inverse = np.unique(having, axis=0, return_inverse=True)
    sets = [tuple(np.flatnonzero(one).tolist()) for one in found]
    order = sorted(range(len(sets)), key=lambda n: (-len(sets[n]), sets[n]))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[inverse.reshape(-1)], [sets[n] for n in order]


def holders(shared: Shared) -> Bool:
    """bool[classes, libraries]: which libraries have an atom of a class."""
    having = np.zeros((shared.classes, len(shared.joined.libraries)), np.bool_)
    rows = np.flatnonzero(shared.number >= 0)
    having[shared.number[rows], shared.joined.library[rows]] = True
    return having


def homes_of(shared: Shared, group: Int64, home: Array) -> Int64:
    """The atom that stands for each class: the first one of the library that its group is made of.

    `home` (int64) is that library for each group.
    """
    rows = np.flatnonzero(shared.number >= 0)
    rows = rows[shared.joined.library[rows] == home[group[shared.number[rows]]]]
    out = np.full(shared.classes, -1, np.int64)
    out[shared.number[rows[::-1]]] = rows[::-1]
    return out


@dataclass(slots=True)
class _Member:
    """`libraries` (bool) load it, `common` ones have all of it.

    `needs` (bool[2, names]): weakly or not, and not only weakly. `refers`: the groups that it
    refers to. `runs`: something in it runs by itself.
    """

    libraries: Bool
    common: Bool
    needs: Bool
    refers: set[int]
    size: int
    runs: bool


def grouped(
    shared: Shared, group: Int64, groups: Sequence[tuple[int, ...]]
) -> tuple[Int64, list[tuple[int, ...]], Int64]:
    """(the member of each class, the libraries that load each member, the one that it is made of).

    All that a member holds is in the library that it is made of.
    """
    first = np.array([libraries[0] for libraries in groups], np.int64)
    if len(groups) < 2:
        return group, list(groups), first
    members = _members(shared, group, groups, homes_of(shared, group, first))
    known = _needs_of_libraries(shared, members[0].needs.shape[1])
    member_of = list(range(len(groups)))
    for number in sorted(member_of, key=lambda n: (members[n].size, n)):
        guest = members[number]
        if guest.size >= SMALL or guest.runs:
            continue
        host = _host(members, member_of, number, known)
        if host is not None:
            _join(members[host], guest)
            member_of[number] = host
            for n, one in enumerate(member_of):
                if one == number:
                    member_of[n] = host
    left = sorted(set(member_of))
    new = np.searchsorted(left, np.array(member_of))
    sets = [tuple(np.flatnonzero(members[n].libraries).tolist()) for n in left]
    made_of = np.array([int(np.argmax(members[n].common)) for n in left], np.int64)
    return np.asarray(new[group], np.int64), sets, made_of


def _join(host: _Member, guest: _Member) -> None:
    host.libraries = host.libraries | guest.libraries
    host.common = host.common & guest.common
    host.needs = host.needs | guest.needs
    host.refers |= guest.refers
    host.size += guest.size


def _host(
    members: Sequence[_Member], member_of: Sequence[int], number: int, known: Bool
) -> int | None:
    """The member that a small group joins, with the least that a library does not need."""
    guest = members[number]
    choices = []
    for other in sorted(set(member_of) - {number}):
        host = members[other]
        if not (host.common & guest.common).any():
            continue
        both = host.libraries | guest.libraries
        waste = guest.size * int((both & ~guest.libraries).sum())
        waste += host.size * int((both & ~host.libraries).sum())
        choices.append((waste, other))
    for _, other in sorted(choices):
        host = members[other]
        both = host.libraries | guest.libraries
        if host.runs and (both & ~host.libraries).any():
            continue
        if ((host.needs | guest.needs) & ~known[both]).any():
            continue
        reached = {member_of[n] for n in host.refers | guest.refers} - {number, other}
        if all((members[n].libraries >= both).all() for n in reached):
            return other
    return None


def _members(
    shared: Shared, group: Int64, groups: Sequence[tuple[int, ...]], homes: Int64
) -> list[_Member]:
    """A member for each group."""
    joined, refers = shared.joined, shared.refers
    of = np.where(shared.number >= 0, group[np.maximum(shared.number, 0)], -1)
    source, target, name, strong = _references(shared, of)
    count, names = len(groups), int(refers.shape[:, 6].max(initial=0)) + 1
    needs = np.zeros((count, 2, names), np.bool_)
    needs[source, 0, name] = True
    needs[source[strong], 1, name[strong]] = True
    needs[:, :, 0] = False
    to = np.zeros((count, count + 1), np.bool_)
    to[source, target] = True  # the last column is that of what is in no group
    sizes = np.bincount(group, joined.program.atoms["size"][homes], count).astype(np.int64)
    runs = np.zeros(count, np.bool_)
    runs[group[joined.described.sort[homes] == Sort.INITIALISER]] = True
    found = []
    for n, libraries in enumerate(groups):
        having = np.zeros(len(joined.libraries), np.bool_)
        having[list(libraries)] = True
        reached = set(np.flatnonzero(to[n, :count]).tolist()) - {n}
        found.append(_Member(having, having, needs[n], reached, int(sizes[n]), bool(runs[n])))
    return found


def _references(shared: Shared, of: Int64) -> tuple[Int64, Int64, Int64, Bool]:
    """(group, group it refers to or -1, number of a name or 0, whether that is not only weakly).

    What objects have copies of refers for those that refer to it.
    """
    refers = shared.refers
    inside = refers.target >= 0
    target = np.maximum(refers.target, 0)
    to_copy = np.flatnonzero(inside & (of[refers.source] >= 0) & shared.copied[target])
    pairs = np.stack([of[refers.source[to_copy]], target[to_copy]], axis=1)
    keys = unique(pairs[:, 0] * len(of) + pairs[:, 1])
    user, copy = keys // len(of), keys % len(of)
    own = np.flatnonzero(of[refers.source] >= 0)
    # references of copies, once for each group that has one: sources are sorted
    low = np.searchsorted(refers.source, copy)
    high = np.searchsorted(refers.source, copy, side="right")
    counts = high - low
    more = np.repeat(low - (np.cumsum(counts) - counts), counts) + np.arange(int(counts.sum()))
    rows = np.concatenate([own, more])
    source = np.concatenate([of[refers.source[own]], np.repeat(user, counts)])
    reached = np.where(inside[rows], of[target[rows]], -1)
    name = np.where(inside[rows], 0, refers.shape[rows, 6])
    return source, reached, name, refers.shape[rows, 5] & 1 == 0


def _needs_of_libraries(shared: Shared, names: int) -> Bool:
    """bool[libraries, 2, names], as `_Member.needs`, of all that lives in each."""
    refers = shared.refers
    known = np.zeros((len(shared.joined.libraries), 2, names), np.bool_)
    rows = np.flatnonzero(refers.shape[:, 6] > 0)
    library, name = shared.joined.library[refers.source[rows]], refers.shape[rows, 6]
    known[library, 0, name] = True
    strong = refers.shape[rows, 5] & 1 == 0
    known[library[strong], 1, name[strong]] = True
    return known


__all__ = ["SMALL", "grouped", "groups_of", "holders", "homes_of"]
