"""What is not worth a name: small code and constants that each library keeps for itself.

What crosses needs a symbol in each object and a relocation for each reference. A constant of a few
bytes, or a short function that is called often, takes less where each library has its own.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.model import Array, Bool, Int64
from cargo_strip_hook.link.share.find import Shared
from cargo_strip_hook.link.share.grouping import grouped, groups_of, holders
from cargo_strip_hook.link.share.model import Costs, Sharing, Sort
from cargo_strip_hook.link.share.rules import Reason, Upward


def lean(shared: Shared, sharing: Sharing) -> Shared:
    """The same without what takes more bytes when it is shared.

    Only what no shared code or data refers to, and what has no identity: no state and nothing that
    refers to some, functions that are only called, constants without a name that refer to such
    constants only; nothing of the allocator or the panic runtime. And what would be a member of the
    common library that takes more than it saves.
    """
    costs = sharing.costs
    addressed = _addressed(shared, sharing)
    reason = shared.reason.copy()
    upward = Upward(shared.refers, len(reason))
    while shared.classes:
        seeds = _not_worth(_Facts(shared, costs, addressed))
        if not seeds.any():
            seeds = _lonely(_Facts(shared, costs, addressed), costs)
        if not seeds.any():
            break
        upward.spread(reason, seeds, Reason.SMALL)
        shared = _without(shared, reason)
    return shared


def _addressed(shared: Shared, sharing: Sharing) -> Bool:
    """bool by atom: functions whose address is taken. It may be compared in another library."""
    joined = shared.joined
    sort = joined.described.sort
    found = np.zeros(len(joined.live), np.bool_)
    for one, first in zip(joined.libraries, joined.atom_base.tolist(), strict=False):
        program = one.program
        atom = program.symbols["atom"][program.definition[program.relocations["symbol"]]]
        source = program.relocations["atom"] + first
        rows = np.flatnonzero(joined.live[source] & (atom >= 0) & (sort[source] != Sort.RECORD))
        rows = rows[sort[first + atom[rows]] == Sort.CODE]
        found[first + atom[rows[~sharing.calls(program, rows)]]] = True
    return found


def _without(shared: Shared, reason: Array) -> Shared:
    """What is shared where a reason says nothing against it."""
    number = np.where(reason == 0, shared.number, -1)
    kept = unique(number[number >= 0])
    new = np.full(shared.classes + 1, -1, np.int64)
    new[kept] = np.arange(len(kept))
    copied = shared.copied & (reason == 0)
    return replace(
        shared,
        number=np.where(number >= 0, new[number], -1),
        colour=shared.colour[kept],
        copied=copied,
        reason=reason.copy(),
    )


class _Facts:
    """What decides, by class. `plain`: the references of code and data, not of records."""

    def __init__(self, shared: Shared, costs: Costs, addressed: Bool) -> None:
        self.shared = shared
        joined, refers, number = shared.joined, shared.refers, shared.number
        sort = joined.described.sort
        inside = refers.target >= 0
        target = np.maximum(refers.target, 0)
        plain = inside & ~refers.backward & (refers.shape[:, 0] == 1)
        plain &= sort[refers.source] != Sort.RECORD
        used = plain & (number[target] >= 0)
        by_shared = np.flatnonzero(used & (number[refers.source] >= 0))
        by_own = used & (number[refers.source] < 0)
        # classes that refer, and what they refer to
        self.source, self.target = number[refers.source[by_shared]], number[target[by_shared]]
        fixed = shared.identities.guard | (shared.identities.name != b"") | (sort > Sort.CONSTANT)
        fixed &= sort != Sort.RECORD
        fixed |= addressed
        fixed[refers.source[plain & (sort[target] == Sort.STATE)]] = True
        odd = plain & (sort[refers.source] == Sort.CONSTANT) & (sort[target] != Sort.CONSTANT)
        fixed[refers.source[odd]] = True
        self.may = np.ones(shared.classes, np.bool_)
        self.may[number[fixed & (number >= 0)]] = False

        libraries = len(joined.libraries)
        keys = number[target[by_own]] * libraries + joined.library[refers.source[by_own]]
        takers = np.bincount(unique(keys) // libraries, minlength=shared.classes)
        calls = by_own & (sort[refers.source] == Sort.CODE) & (sort[target] == Sort.CODE)
        called = np.bincount(number[target[calls]], minlength=shared.classes)
        first = _first(number, shared.classes)
        self.record = sort[first] == Sort.RECORD
        own = np.bincount(refers.source[plain], minlength=len(number))[first]
        more = holders(shared).sum(axis=1) - 1
        # what a private one refers to needs a name, or has one already
        each = joined.program.atoms["size"][first] + own * costs.reference
        each += self._records(costs)[first]
        self.alone = each * more + own * costs.symbol // 2
        # the archive's index has the name, too
        names = costs.symbol * (2 * takers + 3) // 2
        self.crossing = np.where(takers > 0, costs.reference * called + names, 0)

    def _records(self, costs: Costs) -> Int64:
        """By function the bytes of its unwind information, and of what that refers to."""
        joined, refers = self.shared.joined, self.shared.refers
        sort = joined.described.sort
        size = joined.program.atoms["size"]
        mine = (refers.target >= 0) & ~refers.backward & (refers.shape[:, 0] == 1)
        mine &= (sort[refers.source] == Sort.RECORD) & ~joined.described.copied[refers.source]
        source, target = refers.source[mine], np.maximum(refers.target[mine], 0)
        count = len(size)
        bytes_of = size + costs.reference * np.bincount(source, minlength=count)
        inner = sort[target] == Sort.RECORD  # a record's tables
        bytes_of += np.bincount(source[inner], bytes_of[target[inner]], count).astype(np.int64)
        outer = sort[target] == Sort.CODE
        found = np.bincount(target[outer], bytes_of[source[outer]], count)
        return found.astype(np.int64)

    def atoms(self, classes: Bool) -> Bool:
        """bool by atom of those of some classes."""
        number = self.shared.number
        found = number >= 0
        found[found] = classes[number[found]]
        return found


def _not_worth(facts: _Facts) -> Bool:
    """bool by atom: the atoms of classes that take more bytes when they are shared."""
    may = facts.may & ~facts.record & (facts.crossing > facts.alone)
    may[facts.target] = False
    return facts.atoms(may)


def _lonely(facts: _Facts, costs: Costs) -> Bool:
    """bool by atom: the atoms of members that take more than they save."""
    shared = facts.shared
    group, groups = groups_of(shared)
    member, sets, _ = grouped(shared, group, groups)
    saves = np.bincount(member, np.where(facts.record, 0, facts.alone - facts.crossing), len(sets))
    bad = saves < costs.member
    bad[member[~facts.may & ~facts.record]] = False
    other = member[facts.source] != member[facts.target]
    bad[member[facts.target[other]]] = False
    return facts.atoms(bad[member] & ~facts.record)


def _first(number: Int64, classes: int) -> Int64:
    """The first atom of each class."""
    rows = np.flatnonzero(number >= 0)[::-1]
    first = np.zeros(classes, np.int64)
    first[number[rows]] = rows
    return first


__all__ = ["lean"]
