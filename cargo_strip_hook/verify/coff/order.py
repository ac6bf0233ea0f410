"""What the objects of an archive define and need, for the order in which a linker loads them."""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.verify.coff.read import EXTERNAL, WEAK, Damaged, Object, read
from cargo_strip_hook.verify.loading import Member, Strength

_MACHINES = (b"\x4c\x01", b"\x64\x86", b"\x64\xaa", b"\0\0")


def contents(original: Archive) -> dict[int, Member]:
    """By numbers of members; imports and what cannot be read are left out."""
    found: dict[int, Member] = {}
    for member in original.members:
        data = original.data(member)
        if bytes(data[:2]) not in _MACHINES:
            continue
        try:
            found[member.index] = _member(read(data))
        except (Damaged, IndexError, ValueError):
            continue
    return found


def _member(o: Object) -> Member:
    """A weak external is a definition that is weak: it has a default."""
    rows = np.flatnonzero(np.isin(o.symbols["class"], (EXTERNAL, WEAK)) & ~o.auxiliary)
    defines: dict[bytes, Strength] = {}
    needs: list[bytes] = []
    for i in rows.tolist():
        row = o.symbols[i]
        if row["section"] != 0:
            defines[o.name(i)] = Strength.STRONG
        elif row["class"] == WEAK:
            defines[o.name(i)] = Strength.WEAK
        elif row["value"] > 0:
            defines[o.name(i)] = Strength.COMMON
        else:
            needs.append(o.name(i))
    return Member(defines, needs)
