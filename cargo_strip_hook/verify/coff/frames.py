"""Which fields of `.eh_frame` say where a function is, as MinGW's objects for i686 have them.

Source: Linux Standard Base 5.0 Core, section 10.6 ("Exception Frames").
"""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.verify.arrays import is_among
from cargo_strip_hook.verify.coff.read import Array, Damaged, Object
from cargo_strip_hook.verify.kit.frames import BadFrames, walk


def describes(o: Object, relocations: Array) -> Array:
    """bool for each relocation (`RELOCATION`): whether it is at the pc_begin of an FDE.

    Raises `Damaged` where one is in a table that does not follow the format.
    """
    tables = [n for n in range(1, len(o.names)) if o.bare(n) == b".eh_frame"]
    found = np.zeros(len(relocations), np.bool_)
    for number in tables:
        mine = np.flatnonzero(relocations["section"] == number)
        if len(mine):
            table = o.contents(number)
            try:
                starts, _, _ = walk(memoryview(table), "<", ".eh_frame")
            except BadFrames as e:
                raise Damaged(str(e)) from e
            # behind the length and the distance to its CIE
            begins = [at + 8 for at in starts if table[at + 4 : at + 8] != bytes(4)]
            found[mine] = is_among(relocations["offset"][mine], np.array(begins, np.int64))
    return found
