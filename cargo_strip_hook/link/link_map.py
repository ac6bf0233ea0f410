"""The link map, which the verifier compares, and counts: what an engine says of its work."""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.core.requests import Statistics
from cargo_strip_hook.link.model import LINK_MAP, Array, Binding, Bool, Int32, Int64, Program


def link_map_rows(
    program: Program, atoms: Array, section: Int32, offset: Int64, first_section: int = 0
) -> Array:
    """The PLACEMENT rows of `atoms`.

    `section` (output section number) and `offset` are indexed by atom; `first_section` is the
    number that the format gives to a file's first section.
    """
    members = np.array([u.index for u in program.units], np.int32)
    out = np.zeros(len(atoms), LINK_MAP)
    out["member"] = members[program.unit_of(atoms)]
    out["section"] = program.atoms["section"][atoms] + first_section
    out["offset"] = program.atoms["offset"][atoms]
    out["size"] = program.atoms["size"][atoms]
    out["out_section"] = section[atoms] + 1
    out["out_offset"] = offset[atoms]
    return out


def statistics(program: Program, live: Bool, pieces: Bool, shown: int) -> Statistics:
    """Counts over `pieces` (bool, by atom); `shown` definitions stayed global."""
    defined = (program.symbols["binding"] != Binding.LOCAL) & (program.symbols["atom"] >= 0)
    return Statistics(
        members_used=sum(1 for u in program.units if u.index >= 0),
        sections_total=int(pieces.sum()),
        sections_live=int((pieces & live).sum()),
        symbols_hidden=int(defined.sum()) - shown,
    )
