"""A part of a program: the units that an object is made of, numbered anew."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cargo_strip_hook.link.arrays import begins, ramps, unique
from cargo_strip_hook.link.model import Array, Bool, Int32, Int64, Program, SpecialIndex


@dataclass(frozen=True, slots=True, eq=False)
class Reduced:
    """`program` has some units of another one, and of its relocations those of live atoms.

    `atoms` are the numbers that its atoms had, `relocations` those of its relocations.
    """

    program: Program
    atoms: Int64
    relocations: Int64


def without_dead(program: Program, live: Bool, kept: Int64) -> tuple[Program, Bool]:
    """The program without the units that nothing needs any more, and which of its atoms live.

    What dead code and its names take is most of the memory. Linker sets, exports, what is said of
    undefined names, and `kept` units stay.
    """
    symbols = program.symbols
    rows = np.flatnonzero(live[program.relocations["atom"]])
    exported = np.array(sorted(program.exported), np.int64)
    # the strictest visibility of all references to a name counts
    said = (symbols["visibility"] != 0) & (symbols["atom"] == SpecialIndex.UNDEFINED)
    said &= symbols["atom"][program.definition] == SpecialIndex.UNDEFINED
    said[exported] = True
    ends = [np.array([s.start_atom, s.stop_atom, *s.elements.tolist()]) for s in program.sets]
    atoms = np.concatenate([np.zeros(0, np.int64), *ends])
    homes = np.searchsorted(program.symbol_base, np.flatnonzero(said), side="right") - 1
    units = [kept, _units(program, live, rows), homes, program.unit_of(atoms[atoms >= 0])]
    cut = _cut(program, rows, unique(np.concatenate(units)))
    made, new_atom, new_symbol = cut.program, cut.new_atom, cut.new_symbol
    sets = tuple(
        replace(
            one,
            elements=new_atom[one.elements],
            start_atom=int(new_atom[one.start_atom]) if one.start_atom >= 0 else -1,
            stop_atom=int(new_atom[one.stop_atom]) if one.stop_atom >= 0 else -1,
        )
        for one in program.sets
    )
    shown = {name: int(new_symbol[row]) for name, row in program.globals.items()}
    made = replace(
        made,
        sets=sets,
        globals={name: row for name, row in shown.items() if row >= 0},
        exported=frozenset(new_symbol[exported].tolist()),
    )
    return made, live[cut.atoms]


def reduce(program: Program, live: Bool) -> Reduced:
    """The units with `live` atoms (bool, by atom), and those that hold values they refer to.

    A name that is defined in another unit is undefined here, unless it is that of a value. There
    are no linker sets and no exports any more.
    """
    rows = np.flatnonzero(live[program.relocations["atom"]])
    cut = _cut(program, rows, _units(program, live, rows))
    return Reduced(cut.program, cut.atoms, rows)


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """Some units of a program: `new_atom` and `new_symbol` are -1 where one is gone."""

    program: Program
    atoms: Int64
    new_atom: Int32
    new_symbol: Int32


def _cut(program: Program, rows: Int64, units: Int64) -> _Cut:
    """The program of some `units`, with these `rows` of its relocations."""
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
    return _Cut(made, atoms, new_atom, new_symbol)


def _units(program: Program, live: Bool, rows: Int64) -> Int64:
    needed = program.definition[program.relocations["symbol"][rows]]
    home = program.symbols["atom"][needed]
    values = needed[(home < 0) & (home != SpecialIndex.UNDEFINED)]
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


__all__ = ["Reduced", "reduce", "without_dead"]
