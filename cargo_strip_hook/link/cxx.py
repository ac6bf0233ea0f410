"""A warning of what C++ shares between libraries by name."""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.link.model import Binding, Bool, Program

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
