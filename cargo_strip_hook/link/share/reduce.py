"""A part of a program: the units that an object is made of, numbered anew."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cargo_strip_hook.link.arrays import begins, ramps, unique
from cargo_strip_hook.link.model import Array, Bool, Int64, Program, SpecialIndex


@dataclass(frozen=True, slots=True, eq=False)
class Reduced:
    """`program` has some units of another one, and of its relocations those of live atoms.

    `atoms` are the numbers that its atoms had, `relocations` those of its relocations.
    """

    program: Program
    atoms: Int64
    relocations: Int64


def reduce(program: Program, live: Bool) -> Reduced:
    """The units with `live` atoms (bool, by atom), and those that hold values they refer to.

    A name that is defined in another unit is undefined here, unless it is that of a value. There
    are no linker sets and no exports any more.
    """
    rows = np.flatnonzero(live[program.relocations["atom"]])
    units = _units(program, live, rows)
    atoms = _ranges(program.atom_base, units)
    symbols = _ranges(program.symbol_base, units)
    new_atom = np.full(len(program.atoms), -1, np.int32)
    new_atom[atoms] = np.arange(len(atoms))
    new_symbol = np.full(len(program.symbols), -1, np.int32)
    new_symbol[symbols] = np.arange(len(symbols))

    table = program.symbols[symbols].copy()
    inside = table["atom"] >= 0
    table["atom"][inside] = new_atom[table["atom"][inside]]
    relocations = program.relocations[rows].copy()
    relocations["atom"] = new_atom[relocations["atom"]]
    relocations["symbol"] = new_symbol[relocations["symbol"]]
    edges = program.edges
    edges = edges[(new_atom[edges["source"]] >= 0) & (new_atom[edges["target"]] >= 0)].copy()
    edges["source"], edges["target"] = new_atom[edges["source"]], new_atom[edges["target"]]
    prevailing = program.prevailing[atoms] if len(program.prevailing) else program.prevailing
    made = replace(
        program,
        units=tuple(program.units[n] for n in units.tolist()),
        atom_base=begins(np.diff(program.atom_base)[units]),
        symbol_base=begins(np.diff(program.symbol_base)[units]),
        atoms=program.atoms[atoms],
        symbols=table,
        relocations=relocations,
        edges=edges,
        definition=_definition(program, symbols, new_symbol),
        discarded=program.discarded[atoms],
        globals={},
        sets=(),
        exported=frozenset(),
        prevailing=np.where(prevailing >= 0, new_atom[np.maximum(prevailing, 0)], -1).astype(
            np.int32
        ),
    )
    return Reduced(made, atoms, rows)


def _units(program: Program, live: Bool, rows: Int64) -> Int64:
    needed = program.definition[program.relocations["symbol"][rows]]
    place = program.symbols["atom"][needed]
    values = needed[(place < 0) & (place != SpecialIndex.UNDEFINED)]
    homes = np.searchsorted(program.symbol_base, values, side="right") - 1
    found: Int64 = unique(np.concatenate([np.array(program.live_units(live), np.int64), homes]))
    return found


def _ranges(base: Int64, units: Int64) -> Int64:
    counts = np.diff(base)[units]
    return np.asarray(ramps(base[:-1][units], counts, 1), np.int64)


def _definition(program: Program, symbols: Int64, new_symbol: Array) -> Array:
    """What symbols resolve to: where that is gone, the first one that resolved to the same."""
    old = program.definition[symbols].astype(np.int64)
    found = new_symbol[old].copy()
    gone = np.flatnonzero(found < 0)
    order = gone[np.argsort(old[gone], kind="stable")]
    new = np.r_[True, old[order][1:] != old[order][:-1]] if len(order) else np.zeros(0, np.bool_)
    first = np.flatnonzero(new)
    found[order] = order[first[np.cumsum(new) - 1]] if len(order) else order
    return np.asarray(found, np.int32)


__all__ = ["Reduced", "reduce"]
