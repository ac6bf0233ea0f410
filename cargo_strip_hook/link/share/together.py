"""From what libraries share to one object of all of them, with one symbol table."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cargo_strip_hook.link.arrays import begins, unique
from cargo_strip_hook.link.model import (
    ATOM,
    EDGE,
    RELOCATION,
    SYMBOL,
    Array,
    Binding,
    Bool,
    Format,
    Int32,
    Int64,
    Program,
    SpecialIndex,
    Unit,
)
from cargo_strip_hook.link.share.classes import classes
from cargo_strip_hook.link.share.find import Shared
from cargo_strip_hook.link.share.grouping import groups_of, homes_of
from cargo_strip_hook.link.share.model import Joined, Sharing, Sort
from cargo_strip_hook.link.share.split import plan_objects

_ANY = -1  # kind of a symbol


@dataclass(frozen=True, slots=True, eq=False)
class Together:
    """One program of all libraries; `live` and `classes` by its atoms, those of the `Joined`.

    The units are numbered through in it, not by their archives. `homes` is the atom that stands
    for each class.
    """

    program: Program
    live: Bool
    classes: Int32
    homes: Int64


def together(shared: Shared, sharing: Sharing, format: Format) -> Together:
    """Make one program: what is shared is there once, names are bound across libraries."""
    joined = shared.joined
    numbers = classes(shared)
    group, groups = groups_of(shared)
    made_of = [libraries[0] for libraries in groups]
    homes = homes_of(shared, group, np.array(made_of, np.int64))
    planned = plan_objects(
        shared, sharing, homes, group, list(zip(made_of, groups, strict=True)), alone=False
    )
    live = np.zeros(len(joined.live), np.bool_)
    first = begins([len(one.program.relocations) for one in joined.libraries])
    for plan in planned:
        base = int(joined.atom_base[plan.library])
        live[base : base + len(plan.live)] |= plan.live
    rows = np.concatenate([plan.rows + first[plan.library] for plan in planned])
    targets = np.concatenate([plan.targets for plan in planned])
    named, which = np.unique(targets, return_inverse=True)
    program = _bound(joined, sharing)
    symbols, more, unit = _targets(joined, sharing, format, homes, named)
    relocations = program.relocations.copy()
    relocations["symbol"][rows] = symbols[which.reshape(-1)]
    base = len(program.symbols)
    added = np.arange(base, base + len(more), dtype=np.int32)
    program = replace(
        program,
        units=(*program.units, unit),
        atom_base=np.append(program.atom_base, program.atom_base[-1:]),
        symbol_base=np.append(program.symbol_base, base + len(more)),
        symbols=np.concatenate([program.symbols, more]),
        relocations=relocations,
        definition=np.append(program.definition, added),
    )
    return Together(program, live, numbers, homes)


def _bound(joined: Joined, sharing: Sharing) -> Program:
    """The program of all, with names that libraries need of each other, or all need, as one."""
    program = joined.program
    symbols = program.symbols
    known: dict[bytes, int] = {}
    for one, base in zip(joined.libraries, joined.symbol_base.tolist(), strict=False):
        chosen = one.program.exported
        known.update((n, base + row) for n, row in one.program.globals.items() if row in chosen)
    exported = dict(known)
    outside = symbols["atom"] == SpecialIndex.UNDEFINED
    outside &= symbols["binding"] != Binding.LOCAL
    outside &= program.definition == np.arange(len(symbols))
    meaning = np.arange(len(symbols), dtype=np.int32)
    ends = zip(joined.symbol_base[:-1].tolist(), joined.symbol_base[1:].tolist(), strict=True)
    for one, (first, end) in zip(joined.libraries, ends, strict=True):
        rows = np.flatnonzero(outside[first:end])
        names = sharing.names(one.program, rows)
        meaning[first + rows] = [
            known.setdefault(name, row)
            for name, row in zip(names, (first + rows).tolist(), strict=True)
        ]
    units = tuple(
        replace(unit, index=n) if unit.index >= 0 else unit for n, unit in enumerate(program.units)
    )
    return replace(program, units=units, definition=meaning[program.definition], globals=exported)


def _targets(
    joined: Joined, sharing: Sharing, format: Format, homes: Int64, targets: Array
) -> tuple[Int64, Array, Unit]:
    """(a symbol for each place in a class, those that no member has (SYMBOL), a unit for them).

    They are numbered behind all others.
    """
    there: dict[tuple[int, int, int], int] = {}
    program = joined.program
    inside = np.zeros(len(joined.live), np.bool_)
    inside[homes[unique(targets["number"])]] = True
    for one, base in zip(joined.libraries, joined.symbol_base.tolist(), strict=False):
        mine = program.symbols[base : base + len(one.program.symbols)]
        rows = np.flatnonzero((mine["atom"] >= 0) & inside[np.maximum(mine["atom"], 0)])
        rows = rows[one.program.definition[rows] == rows]
        kinds = sharing.kinds(one.program, rows)
        rows, kinds = rows[mine["kind"][rows] == kinds], kinds[mine["kind"][rows] == kinds]
        columns = mine["atom"][rows], mine["value"][rows], kinds
        for row, *key in zip((base + rows).tolist(), *(c.tolist() for c in columns), strict=True):
            there.setdefault((key[0], key[1], key[2]), row)
            there.setdefault((key[0], key[1], _ANY), row)
    keys = zip(
        homes[targets["number"]].tolist(),
        targets["value"].tolist(),
        targets["kind"].tolist(),
        strict=True,
    )
    found = np.array(
        [there.get(key, there.get((key[0], key[1], _ANY), -1)) for key in keys], np.int64
    )
    lone = np.flatnonzero(found < 0)
    symbols = np.zeros(1 + len(lone), SYMBOL)
    symbols["atom"] = SpecialIndex.UNDEFINED
    chosen = targets[lone]
    symbols["atom"][1:] = homes[chosen["number"]]
    for field in ("value", "kind", "native"):
        symbols[field][1:] = chosen[field]
    # a place without a symbol is none that people would know; thread-locals are told by their kind
    plain = joined.described.sort[homes[chosen["number"]]] != Sort.STATE
    symbols["kind"][1:][plain] = sharing.label
    found[lone] = len(program.symbols) + 1 + np.arange(len(lone))
    nothing = np.zeros(0, RELOCATION), np.zeros(0, EDGE)
    made = Unit(
        -1, "", memoryview(b""), np.zeros(0, ATOM), symbols, len(symbols), (), *nothing, (), None
    )
    unit = format.synthetic(joined.libraries[0].program.units[0], made, np.zeros(0, EDGE))
    return found, symbols, unit


__all__ = ["Together", "together"]
