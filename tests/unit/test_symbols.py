"""What is alike in all formats: symbols, section keys and warnings, of programs made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.link import warnings
from cargo_strip_hook.link.model import (
    ATOM,
    EDGE,
    RELOCATION,
    SYMBOL,
    Binding,
    Program,
    SpecialIndex,
    Unit,
)
from cargo_strip_hook.link.section_keys import linker_sets, number_keys
from cargo_strip_hook.link.symbols import (
    Names,
    kept_symbols,
    laid_out,
    local_names,
    merged,
    numbered,
    select,
    symbol_name,
    symbol_names,
    without_reference,
)

STRINGS = b"\0local\0eightlet"  # the last has no zero behind it
UNDEFINED, ABSOLUTE, COMMON = (
    SpecialIndex.UNDEFINED,
    SpecialIndex.ABSOLUTE,
    SpecialIndex.COMMON,
)


def program(*symbols: tuple[str, int, Binding], atoms: int = 2) -> Program:
    """One object: nothing, a local symbol, one with a short name, and these global ones."""
    table = np.zeros(3 + len(symbols), SYMBOL)
    table["atom"][:3] = UNDEFINED, 0, 1
    table["name"][:3] = 0, 1, ~STRINGS.index(b"eight")
    for number, (_, atom, binding) in enumerate(symbols, start=3):
        table["atom"][number], table["binding"][number] = atom, binding
    names = [name.encode() for name, _, _ in symbols]
    nothing = memoryview(b"")
    rows = np.zeros(atoms, ATOM)
    rows["align"] = 1, 16
    edges, relocations = np.zeros(0, EDGE), np.zeros(0, RELOCATION)
    unit = Unit(
        0, "a.o", nothing, rows, table, 3, names, relocations, edges, (), None, memoryview(STRINGS)
    )
    return Program(
        (unit,),
        np.array([0, atoms]),
        np.array([0, len(table)]),
        rows,
        table,
        relocations,
        edges,
        np.arange(len(table), dtype=np.int32),
        np.zeros(atoms, np.bool_),
        {name: number for number, name in enumerate(names, start=3)},
    )


GLOBALS = (
    ("z", 0, Binding.GLOBAL),
    ("b", ABSOLUTE, Binding.GLOBAL),
    ("a", UNDEFINED, Binding.GLOBAL),
    ("common", COMMON, Binding.GLOBAL),
    ("hidden", 1, Binding.WEAK),
    ("value", ABSOLUTE, Binding.GLOBAL),
    ("unused", UNDEFINED, Binding.GLOBAL),
)


def test_names_come_from_one_table() -> None:
    made = program(("global", 0, Binding.GLOBAL))
    assert symbol_names(made, np.array([3, 2, 1, 0])) == [b"global", b"eightlet", b"local", b""]
    assert local_names(made.units[0]) == [b"", b"local", b"eightlet"]
    assert symbol_name(made, 2) == b"eightlet"


def test_what_is_selected() -> None:
    made = replace(program(*GLOBALS), exported=frozenset({3, 4, 6}))
    live, section = np.array([True, True]), np.array([0, 1], np.int32)
    here = laid_out(made, live, section)
    assert np.flatnonzero(here).tolist() == [1, 2, 3, 7]
    everything = np.ones(len(made.symbols), np.bool_)
    chosen = select(made, here, kept_symbols(made, [5]), np.array([8, 5, 4]), everything)
    assert chosen.exports.names == [b"b", b"z"]
    assert chosen.exports.rows.tolist() == [4, 3]
    assert chosen.commons.names == [b"common"]
    assert chosen.undefined.names == [b"a"]  # and not what no relocation names
    assert chosen.absolute.tolist() == [8]
    assert chosen.named.tolist() == [1, 2, 7]
    assert merged(chosen.exports, chosen.commons).names == [b"b", b"common", b"z"]


def test_what_is_dead_or_laid_out_nowhere_is_not_there() -> None:
    made = program(*GLOBALS)
    section = np.array([0, -1], np.int32)
    assert np.flatnonzero(laid_out(made, np.array([True, True]), section)).tolist() == [1, 3]
    assert not laid_out(made, np.array([False, True]), section).any()


def test_names_for_people_by_strip_level() -> None:
    function, other, always = np.eye(3, dtype=np.bool_)
    names = Names(function, other, always)
    assert names.kept(Strip.NONE).tolist() == [True, True, True]
    assert names.kept(Strip.DEBUGINFO).tolist() == [True, False, True]
    assert names.kept(Strip.SYMBOLS).tolist() == [False, False, True]


def test_a_strong_reference_anywhere_counts() -> None:
    made = program(("f", UNDEFINED, Binding.WEAK), ("f", UNDEFINED, Binding.GLOBAL))
    made = replace(made, definition=np.array([0, 1, 2, 3, 3], np.int32))
    strong = made.symbols["binding"] == Binding.GLOBAL
    assert not without_reference(made, strong)[3]
    assert without_reference(made, ~strong & False)[3]


def test_repeated_names_are_numbered() -> None:
    assert numbered([b"f", b"g", b"f", b"f"]) == [b"f", b"g", b"f.1", b"f.2"]


def test_keys_are_numbered_in_order() -> None:
    columns = [np.array([7, 7, 5, 5, 7, 6])]
    asked: list[int] = []

    def key(row: int) -> tuple[str, bool]:
        asked.append(row)
        return (f"all {columns[0][row]}", True) if columns[0][row] != 5 else (f"own {row}", False)

    numbers, keys = number_keys(columns, key)
    assert numbers.tolist() == [0, 0, 1, 2, 0, 3]
    assert keys == ["all 7", "own 2", "own 3", "all 6"]
    assert sorted(asked) == [0, 2, 3, 5]
    numbers, keys = number_keys(columns, key, order=-np.arange(6))
    assert keys == ["all 6", "own 3", "own 2", "all 7"]
    assert numbers.tolist() == [3, 3, 2, 1, 3, 0]
    assert number_keys([np.zeros(0, np.int64)], key)[1] == []


def test_linker_sets_hold_what_all_objects_have() -> None:
    unit = program().units[0]
    ends = {"b": (b"b", b"start", b"stop"), "none": (b"none", b"start", b"stop")}

    def elements(_: Unit) -> list[tuple[str, np.ndarray]]:
        return [("b", np.array([1])), ("other", np.array([0]))]

    (found,) = linker_sets([unit, unit], ends, elements)
    assert (found.name, found.elements.tolist(), found.align) == (b"b", [1, 3], 16)
    assert linker_sets([unit], {}, elements) == []


def test_private_type_information() -> None:
    names = [f"_ZTI{n}" for n in "dcba"]
    made = program(
        *((name, 0, Binding.WEAK) for name in names),
        ("__ZTS1x", 1, Binding.GLOBAL),
        ("_ZTI1u", UNDEFINED, Binding.WEAK),
        ("plain", 0, Binding.WEAK),
    )
    live, kept = np.array([True, True]), np.zeros(len(made.symbols), np.bool_)
    (said,) = warnings.private_cxx(made, live, kept, warnings.ITANIUM)
    assert said.startswith("4 C++ symbols") and "(_ZTIa, _ZTIb, _ZTIc, …)" in said
    (said,) = warnings.private_cxx(made, live, kept, warnings.WINDOWS)
    assert said.startswith("5 C++ symbols")
    kept[3:7] = True
    assert warnings.private_cxx(made, live, kept, warnings.ITANIUM) == ()
    assert warnings.private_cxx(made, ~live, kept, warnings.WINDOWS) == ()


def test_lists_are_short() -> None:
    assert warnings.some(["a", "b", "c"]) == "a, b, c"
    assert warnings.some(["a", "b", "c", "d"]) == "a, b, c, …"
