"""What n_desc says of definitions that stays true of them when they become local.

Source: mach-o/nlist.h. `N_WEAK_DEF` does not: linkers coalesce by name whatever has it.
"""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.reader import macho_unit
from cargo_strip_hook.link.arrays import isin
from cargo_strip_hook.link.model import Array, Bool, Int64, Program

# how linkers treat the atom: what is bound to a resolver is what it returns
_KEPT = mo.N_SYMBOL_RESOLVER | mo.N_COLD_FUNC | mo.REFERENCED_DYNAMICALLY
# marks of a symbol that tools find by its name
NAMED = mo.N_SYMBOL_RESOLVER | mo.REFERENCED_DYNAMICALLY


def descs(program: Program) -> Array:
    """n_desc of each symbol of the program."""
    return np.concatenate([macho_unit(u).desc for u in program.units])


def resolvers(program: Program) -> Bool:
    """Whether each symbol is a definition that is a resolver."""
    marked: Bool = descs(program) & mo.N_SYMBOL_RESOLVER != 0
    return marked & (program.symbols["atom"] >= 0)


def cold_atoms(program: Program) -> Bool:
    """Whether each atom begins with a symbol of a function that is hardly ever called."""
    cold = np.zeros(len(program.atoms), np.bool_)
    symbols = program.symbols
    mine = (symbols["atom"] >= 0) & (symbols["value"] == 0)
    cold[symbols["atom"][mine & (descs(program) & mo.N_COLD_FUNC != 0)]] = True
    return cold


def of_locations(program: Program, symbols: Int64, locations: Int64, wanted: Int64) -> Array:
    """The marks that the local symbol of each of the `wanted` locations gets.

    `locations` are those of `symbols`, which are definitions of the program.
    """
    marks = descs(program)[symbols] & _KEPT
    marked = np.flatnonzero(marks)
    marks, locations = marks[marked], locations[marked]
    out = np.zeros(len(wanted), np.uint16)
    for bit in (mo.N_SYMBOL_RESOLVER, mo.N_COLD_FUNC, mo.REFERENCED_DYNAMICALLY):
        out[isin(wanted, locations[marks & bit != 0])] |= bit
    return out
