"""What the objects of an archive define and need, for the order in which a linker loads them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.verify.coff.read import EXTERNAL, WEAK, Damaged, Object, read_symbols
from cargo_strip_hook.verify.loading import Member, Strength

_STRENGTHS = tuple(Strength)
_MACHINES = (b"\x4c\x01", b"\x64\x86", b"\x64\xaa", b"\0\0")


def contents(original: Archive, known: Mapping[int, Object]) -> dict[int, Member]:
    """By numbers of members; imports and what cannot be read are left out. `known`: read before."""
    found: dict[int, Member] = {}
    for member in original.members:
        data = original.data(member)
        if bytes(data[:2]) not in _MACHINES:
            continue
        try:
            found[member.index] = _member(known.get(member.index) or read_symbols(data))
        except (Damaged, IndexError, ValueError):
            continue
    return found


def _member(o: Object) -> Member:
    """A weak external is a definition that is weak: it has a default."""
    kind = o.symbols["class"]
    rows = np.flatnonzero(((kind == EXTERNAL) | (kind == WEAK)) & ~o.auxiliary)
    names, symbols = o.names_of(rows), o.symbols[rows]
    defined = symbols["section"] != 0
    weak = ~defined & (symbols["class"] == WEAK)
    needed = ~(defined | weak | (symbols["value"] > 0))
    strength = np.where(defined, Strength.STRONG, np.where(weak, Strength.WEAK, Strength.COMMON))
    hows = map(_STRENGTHS.__getitem__, strength.tolist())
    columns = zip(names, hows, needed.tolist(), strict=True)
    defines = {name: how for name, how, missing in columns if not missing}
    return Member(defines, [names[n] for n in np.flatnonzero(needed).tolist()])
