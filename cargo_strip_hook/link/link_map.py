"""The link map, which the verifier compares, and counts: what an engine says of its work."""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.core.requests import Statistics
from cargo_strip_hook.link.addresses import Addresses
from cargo_strip_hook.link.model import LINK_MAP, Array, Binding, Bool, Program


def link_map_rows(program: Program, which: Bool, placed: Addresses, first_section: int) -> Array:
    """The LINK_MAP rows of those atoms of `which` (bool, by atom) that a file holds.

    `first_section` is the number that the format gives to a file's first section.
    """
    atoms = np.flatnonzero(which & (program.atoms["section"] >= 0))
    members = np.array([u.index for u in program.units], np.int32)
    out = np.zeros(len(atoms), LINK_MAP)
    out["member"] = members[program.unit_of(atoms)]
    out["section"] = program.atoms["section"][atoms] + first_section
    out["offset"] = program.atoms["offset"][atoms]
    out["size"] = program.atoms["size"][atoms]
    out["out_section"] = placed.section[atoms] + 1
    out["out_offset"] = placed.offset[atoms]
    return out


def statistics(program: Program, live: Bool, sections: Bool, shown: int) -> Statistics:
    """Counts over `sections` (bool, by atom); `shown` definitions stayed global."""
    defined = (program.symbols["binding"] != Binding.LOCAL) & (program.symbols["atom"] >= 0)
    return Statistics(
        members_used=sum(1 for u in program.units if u.index >= 0),
        sections_total=int(sections.sum()),
        sections_live=int((sections & live).sum()),
        symbols_hidden=int(defined.sum()) - shown,
    )
