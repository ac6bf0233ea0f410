"""What the members of an archive define: from its index, or from themselves where that is wrong."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from cargo_strip_hook.archive.index import Entries
from cargo_strip_hook.link.arrays import isin
from cargo_strip_hook.link.batch import read_all
from cargo_strip_hook.link.loading import Names
from cargo_strip_hook.link.model import Bool, Format, Input, SpecialIndex, Unit


class StaleIndexError(Exception):
    """The archive's index names a member that does not define the name."""


def own_entries(members: Mapping[int, Input], format: Format) -> Entries:
    """What an index of these members would list. Raises what the format's reader raises."""
    names: list[bytes] = []
    owners: list[int] = []
    for unit in read_all(format, [members[number] for number in sorted(members)]):
        mine = list(itertools.compress(unit.names, _defined(unit).tolist()))
        names += mine
        owners += [unit.index] * len(mine)
    return Entries(names, owners)


def names_for(
    members: Mapping[int, Input],
    index: Entries | Mapping[bytes, int] | None,
    roots: Sequence[bytes],
    format: Format,
) -> Names:
    """The entries to go by: those of the archive's index, as far as that is seen to be right.

    An archiver that cannot read objects lists nothing for them: then as if there were no index.
    """
    if isinstance(index, Mapping):
        index = Entries(list(index), list(index.values()))
    if index is not None:
        listed = set(index.members)
        silent = {number: item for number, item in members.items() if number not in listed}
        if not own_entries(silent, format).names:
            names = Names(index)
            if all(names.first(root) is not None for root in roots):
                return names
    return Names(own_entries(members, format))


def _defined(unit: Unit) -> Bool:
    """bool for each of a unit's names: whether an index would list it, as a weak external's."""
    listed = ~isin(unit.globals["atom"], np.array([SpecialIndex.UNDEFINED, SpecialIndex.ELSEWHERE]))
    named = unit.aliases["source"] - unit.first_global
    listed[named[(named >= 0) & (named < len(listed))]] = True
    return listed


def defines(unit: Unit, name: bytes) -> bool:
    """Whether an index would list a name for a unit."""
    return name in unit.names and bool(_defined(unit)[unit.names.index(name)])


__all__ = ["StaleIndexError", "defines", "names_for", "own_entries"]
