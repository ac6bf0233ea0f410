"""Which of several definitions of a name counts, where that is for the order of loading to say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.verify.expectation import Findings
from cargo_strip_hook.verify.loading import Loading, Member, Strength
from cargo_strip_hook.verify.macho.read import WEAK_DEF, Damaged, Object, read

_MAGIC = b"\xcf\xfa\xed\xfe"


def contents(original: Archive) -> dict[int, Member]:
    """What each object of an archive defines and needs; damaged ones are left out."""
    found: dict[int, Member] = {}
    for member in original.members:
        data = original.data(member)
        if bytes(data[:4]) != _MAGIC:
            continue
        try:
            found[member.index] = _member(read(data))
        except Damaged:
            continue
    return found


def _member(o: Object) -> Member:
    numbers = o.externals()
    entries = o.entries[numbers]
    kind = entries["type"] & 0xE
    strength = np.full(len(numbers), Strength.STRONG)
    strength[entries["desc"] & WEAK_DEF != 0] = Strength.WEAK
    strength[(kind == 0) & (entries["value"] > 0)] = Strength.COMMON
    strength[(kind == 0) & (entries["value"] == 0)] = Strength.WANTED
    names = o.names(numbers)
    both = list(zip(names, map(Strength, strength.tolist()), strict=True))
    return Member(
        {name: how for name, how in both if how is not Strength.WANTED},
        [name for name, how in both if how is Strength.WANTED],
    )


@dataclass(frozen=True, slots=True)
class Choice:
    """Which definitions count among the files `used`, by their numbers in the archive."""

    loading: Loading
    used: Sequence[int]

    def first(self, files: Sequence[int]) -> int:
        """The position among weak definitions, in `files`, of the one that is loaded first."""
        rank = self.loading.rank
        locations = [rank.get(self.used[f], len(rank)) for f in files]
        return locations.index(min(locations))

    def check(
        self, names: Iterable[bytes], there: Mapping[bytes, set[int]], findings: Findings
    ) -> None:
        """The result has of each name that is used the definition that a linker takes.

        `there`: the files of the definitions that are in the result.
        """
        repeated = self.loading.repeated
        for name in sorted(n for n in set(names) if n in repeated and n in there):
            if not self.loading.takes(name, {self.used[f] for f in there[name]}):
                text = name.decode("utf-8", "replace")
                findings.add("a linker takes another definition", f"of `{text}`")
