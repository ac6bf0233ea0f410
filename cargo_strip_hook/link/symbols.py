"""Which symbols of a program its object has, and under which names: the same for all formats.

A format says of its symbols which are functions and which it always keeps, and encodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.link.model import Array, Bool, Int32, Int64, Program, SpecialIndex, Unit
from cargo_strip_hook.link.strings import string_at, strings_at

_SHORT = 8  # bytes: the longest name that stands in a symbol's own record


@dataclass(frozen=True, slots=True, eq=False)
class Named:
    """Symbols sorted by name: their program-wide numbers, int64, and their names."""

    rows: Int64
    names: list[bytes]


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The symbols that get an entry of their own, besides local ones that nobody sees a name of.

    `named`: the local definitions, sorted, whose names people see. `exports` are definitions in
    atoms and absolute ones; `commons` and `undefined` are what the consumer supplies. `absolute`:
    local values that relocations name, sorted.
    """

    named: Int64
    exports: Named
    commons: Named
    undefined: Named
    absolute: Int64


@dataclass(frozen=True, slots=True, eq=False)
class Names:
    """Which local names people want to see: bool by symbol.

    `functions` are shown in backtraces; debuggers show `others` too; `always` is what linkers look
    for.
    """

    functions: Bool
    others: Bool
    always: Bool | None = None

    def kept(self, strip: Strip) -> Bool:
        """Those that stay at a strip level."""
        kept = np.zeros(len(self.functions), np.bool_)
        if self.always is not None:
            kept |= self.always
        if strip is not Strip.SYMBOLS:
            kept |= self.functions
        if strip is Strip.NONE:
            kept |= self.others
        return kept


def kept_symbols(program: Program, also: Iterable[int] = ()) -> Bool:
    """bool by symbol: the exports, and `also` others, where somebody here defines them."""
    kept = np.zeros(len(program.symbols), np.bool_)
    kept[[*program.exported, *also]] = True
    kept &= program.symbols["atom"] != SpecialIndex.UNDEFINED
    return kept


def laid_out(program: Program, live: Bool, section: Int32) -> Bool:
    """bool by symbol: whether it is in a live atom that has an output section.

    `section`: the number of that of each atom, -1 for none.
    """
    atom = program.symbols["atom"]
    inside = np.maximum(atom, 0)
    here: Bool = (atom >= 0) & live[inside] & (section[inside] >= 0)
    return here


def prevailing(program: Program) -> Bool:
    """bool by symbol: whether it is the definition that counts of its name."""
    prevails: Bool = program.definition == np.arange(len(program.symbols))
    return prevails


def select(program: Program, here: Bool, kept: Bool, used: Int64, names: Bool) -> Selection:
    """Select the symbols.

    `here`: see `laid_out`; `kept`: see `kept_symbols`; `used`: the numbers of what relocations
    name, in any order; `names` (bool, by symbol): the local names that people want to see.
    """
    atom = program.symbols["atom"]
    prevails = prevailing(program)
    shown = kept & prevails
    needed = np.zeros(len(atom), np.bool_)
    needed[used] = True
    return Selection(
        np.flatnonzero(names & here & prevails & ~kept),
        by_name(program, shown & (here | (atom == SpecialIndex.ABSOLUTE))),
        by_name(program, shown & (atom == SpecialIndex.COMMON)),
        by_name(program, needed & (atom == SpecialIndex.UNDEFINED)),
        np.flatnonzero(needed & ~kept & (atom == SpecialIndex.ABSOLUTE)),
    )


def by_name(program: Program, chosen: Bool) -> Named:
    """The chosen symbols (bool, by symbol), sorted by name."""
    rows = np.flatnonzero(chosen)
    return _sorted(symbol_names(program, rows), rows)


def merged(*groups: Named) -> Named:
    """All of several groups, sorted by name."""
    names = [name for group in groups for name in group.names]
    return _sorted(names, np.concatenate([group.rows for group in groups]))


def _sorted(names: list[bytes], rows: Array) -> Named:
    pairs = sorted(zip(names, rows.tolist(), strict=True))
    return Named(np.array([row for _, row in pairs], np.int64), [name for name, _ in pairs])


def without_reference(program: Program, references: Bool) -> Bool:
    """bool by symbol: whether none of the `references` (bool, by symbol) resolves to it.

    With strong references those are the symbols that a program does not need.
    """
    free = np.ones(len(program.symbols), np.bool_)
    free[program.definition[references & (program.symbols["atom"] == SpecialIndex.UNDEFINED)]] = (
        False
    )
    return free


def numbered(names: Sequence[bytes]) -> list[bytes]:
    """The names, those that were there before with a number: `f`, `f.1`, `f.2`."""
    counts: dict[bytes, int] = {}
    distinct = []
    for name in names:
        count = counts[name] = counts.get(name, -1) + 1
        distinct.append(b"%b.%d" % (name, count) if count else name)
    return distinct


def symbol_names(program: Program, symbols: Array) -> list[bytes]:
    """The names of program-wide symbols, in their order; empty where there is none."""
    numbers = np.searchsorted(program.symbol_base, symbols, side="right") - 1
    inside = symbols - program.symbol_base[numbers]
    names: list[bytes] = []
    for number, local, start in zip(
        numbers.tolist(), inside.tolist(), program.symbols["name"][symbols].tolist(), strict=True
    ):
        unit = program.units[number]
        if 0 <= local - unit.first_global < len(unit.names):
            names.append(unit.names[local - unit.first_global])
        elif start < 0:
            names.append(_short_name(unit, start))
        else:
            names.append(string_at(unit.strings, start))
    return names


def symbol_name(program: Program, symbol: int) -> bytes:
    """The name of one program-wide symbol."""
    return symbol_names(program, np.array([symbol]))[0]


def local_names(unit: Unit) -> list[bytes]:
    """The names of the symbols before `first_global`; empty for those that have none."""
    starts = unit.symbols["name"][: unit.first_global]
    names = strings_at(unit.strings, starts.tolist())
    for row in np.flatnonzero(starts < 0).tolist():
        names[row] = _short_name(unit, int(starts[row]))
    return names


def _short_name(unit: Unit, start: int) -> bytes:
    return bytes(unit.strings[~start : ~start + _SHORT]).rstrip(b"\0")
