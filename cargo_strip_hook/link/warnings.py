"""What is said of a result although it is right: one wording and one decision for all formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np

from cargo_strip_hook.link.model import Binding, Bool, Program
from cargo_strip_hook.link.symbols import prevailing

# Type information, its names, guard variables and local statics (Itanium C++ ABI, section 5.1.4),
# with the underscore of Darwin and of i686 Windows too; and Microsoft's type information
_IDENTITIES = (b"_ZTI", b"_ZTS", b"_ZGV", b"_ZZ")
_CXX_IDENTITY = (*_IDENTITIES, *(b"_" + name for name in _IDENTITIES), b"??_R")
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class CxxAbi:
    """How a C++ ABI shares definitions between libraries.

    `weak`: by weak ones alone. `words` say what it means that they are private, and what helps.
    """

    weak: bool
    words: str


ITANIUM = CxxAbi(
    True,
    "exceptions and inline statics are not shared with other libraries; "
    "`--keep '_ZTI*' --keep '_ZTS*'` keeps such symbols",
)
WINDOWS = CxxAbi(
    False,
    "inline statics and type information are not shared with other libraries; "
    "`--keep` keeps such symbols",
)


def some(names: Sequence[str]) -> str:
    """The first of some names, as a list."""
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def private_cxx(program: Program, live: Bool, kept: Bool, abi: CxxAbi) -> tuple[str, ...]:
    """A warning of what C++ shares between libraries by name, and here does not: none, or one.

    `live` (bool, by atom) is in the object; `kept` symbols (bool, by symbol) stay global.
    """
    atom, binding = program.symbols["atom"], program.symbols["binding"]
    shared = (binding == Binding.WEAK) | (binding == Binding.UNIQUE)
    if not abi.weak:
        shared |= binding == Binding.GLOBAL
    shared &= (atom >= 0) & live[np.maximum(atom, 0)] & ~kept & prevailing(program)
    private: list[str] = []
    for base, unit in zip(program.symbol_base.tolist(), program.units, strict=False):
        first = base + unit.first_global
        names = compress(unit.names, shared[first : first + len(unit.names)].tolist())
        private += [
            n.decode(errors="surrogateescape") for n in names if n.startswith(_CXX_IDENTITY)
        ]
    if not private:
        return ()
    return (
        f"{len(private)} C++ symbols with an identity across libraries become local "
        f"({some(sorted(private))}): {abi.words}",
    )
