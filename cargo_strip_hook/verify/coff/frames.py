"""Which fields of `.eh_frame` say where a function is, as MinGW's objects for i686 have them.

Source: Linux Standard Base 5.0 Core, section 10.6 ("Exception Frames").
"""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.verify.arrays import is_among
from cargo_strip_hook.verify.coff.read import Array, Damaged, Object


def describes(o: Object, relocations: Array) -> Array:
    """bool for each relocation (`RELOCATION`): whether it is at the pc_begin of an FDE.

    Raises `Damaged` where one is in a table that does not follow the format.
    """
    tables = [n for n in range(1, len(o.names)) if o.bare(n) == b".eh_frame"]
    found = np.zeros(len(relocations), np.bool_)
    for number in tables:
        mine = np.flatnonzero(relocations["section"] == number)
        if len(mine):
            begins = np.array(_begins(o.contents(number)), np.int64)
            found[mine] = is_among(relocations["offset"][mine], begins)
    return found


def _begins(table: bytes) -> list[int]:
    """The offset of pc_begin in each FDE: behind the length and the distance to its CIE."""
    found: list[int] = []
    at = 0
    while at + 4 <= len(table):
        length = int.from_bytes(table[at : at + 4], "little")
        end = at + 4 + length
        if length and (length < 4 or end > len(table)):
            raise Damaged(f"a record of .eh_frame at {at:#x} does not fit")
        if length and table[at + 4 : at + 8] != bytes(4):
            found.append(at + 8)
        at = end
    return found
