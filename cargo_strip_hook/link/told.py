"""What a format's writer tells of its work: the claim that is verified, and counts."""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.core.requests import Statistics
from cargo_strip_hook.link.model import PLACEMENT, Array, Binding, Bool, Int32, Int64, Program


def placement(
    program: Program, atoms: Array, section: Int32, offset: Int64, first_section: int = 0
) -> Array:
    """The PLACEMENT rows of `atoms`.

    `section` (output section number) and `offset` are indexed by atom; `first_section` is the
    number that the format gives to a file's first section.
    """
    members = np.array([u.index for u in program.units], np.int32)
    out = np.zeros(len(atoms), PLACEMENT)
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


# Type information, its names, guard variables and local statics (Itanium C++ ABI, section 5.1.4),
# with the underscore of Darwin and of i686 Windows too; and Microsoft's type information
_IDENTITIES = (b"_ZTI", b"_ZTS", b"_ZGV", b"_ZZ")
_CXX_IDENTITY = (*_IDENTITIES, *(b"_" + name for name in _IDENTITIES), b"??_R")


def private_cxx(program: Program, live: Bool, kept: Bool, words: str) -> tuple[str, ...]:
    """A warning of what C++ shares between libraries by name, and here does not: none, or one.

    `kept` symbols (bool, by symbol) stay global. `words` say what that means, and what helps.
    """
    found = []
    symbols = program.symbols
    chosen = (symbols["atom"] >= 0) & ~kept & (symbols["binding"] != Binding.LOCAL)
    chosen &= live[np.where(symbols["atom"] >= 0, symbols["atom"], 0)]
    chosen &= program.definition == np.arange(len(symbols))
    for base, unit in zip(program.symbol_base.tolist(), program.units, strict=False):
        first = base + unit.first_global
        for n in np.flatnonzero(chosen[first : first + len(unit.names)]).tolist():
            name = unit.names[n]
            if name.startswith(_CXX_IDENTITY):
                found.append(name.decode(errors="surrogateescape"))
    if not found:
        return ()
    shown = ", ".join(sorted(found)[:3])
    more = ", …" if len(found) > 3 else ""
    return (
        f"{len(found)} C++ symbols with an identity across libraries become local "
        f"({shown}{more}): {words}",
    )


# what each format says of it
CXX_ITANIUM = (
    "exceptions and inline statics are not shared with other libraries; "
    "`--keep '_ZTI*' --keep '_ZTS*'` keeps such symbols"
)
CXX_WINDOWS = (
    "inline statics and type information are not shared with other libraries; "
    "`--keep` keeps such symbols"
)
