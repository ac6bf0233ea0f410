"""The output side of the model: contents that are copied and patched, and tables of columns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.link.addresses import STEP, Addresses, Sections
from cargo_strip_hook.link.arrays import runs
from cargo_strip_hook.link.contents import Filling, Patch, make_contents, read_input
from cargo_strip_hook.link.fields import Field
from cargo_strip_hook.link.model import ATOM, EDGE, RELOCATION, SYMBOL, Program, Unit
from cargo_strip_hook.link.output import (
    Relocations,
    SymbolIndex,
    SymbolTable,
    entries_at,
    entries_of,
    index_symbols,
    locations_of,
    stream,
)
from cargo_strip_hook.link.relocate import bind, refuse, store


def unit(data: bytes, *atoms: tuple[int, int]) -> Unit:
    """A file whose atoms are (where their bytes begin, -1 for none; size), each with a symbol."""
    table, symbols = np.zeros(len(atoms), ATOM), np.zeros(len(atoms), SYMBOL)
    table["contents"], table["size"] = zip(*atoms, strict=True)
    symbols["atom"] = np.arange(len(atoms))
    nothing = np.zeros(0, RELOCATION), np.zeros(0, EDGE)
    return Unit(0, "a.o", memoryview(data), table, symbols, 0, [], *nothing, (), None)


def program(*units: Unit) -> Program:
    bases = np.cumsum([0, *(len(u.atoms) for u in units)])
    symbols = np.concatenate([u.symbols for u in units])
    symbols["atom"] = np.arange(len(symbols))
    return Program(
        units,
        bases,
        bases,
        np.concatenate([u.atoms for u in units]),
        symbols,
        np.zeros(0, RELOCATION),
        np.zeros(0, EDGE),
        np.arange(len(symbols), dtype=np.int32),
        np.zeros(len(symbols), np.bool_),
        {},
    )


def addresses(
    section: list[int], offset: list[int], size: list[int], code: list[bool]
) -> Addresses:
    sizes, stored = np.array(size, np.int64), np.array(size, np.int64) > 0
    return Addresses(
        np.array(section, np.int32),
        np.array(offset, np.int64),
        Sections.following(sizes, np.ones_like(sizes), stored, np.array(code, np.bool_), 4),
        np.zeros(len(section), np.bool_),
    )


def test_contents_are_copied_padded_and_patched() -> None:
    both = program(unit(b"..abcdef", (2, 3), (5, 3)), unit(b"XYZ", (0, 2), (-1, 4)))
    placed = addresses([0, 0, 0, 1], [0, 3, 8, 0], [10, 6], [True, False])
    patch = Patch(Field.BITS16, np.array([8]), np.array([0x3231]))
    filling = Filling([patch], [(14, np.frombuffer(b"!!", np.uint8))], b"\xcc\xcd")
    code, data = make_contents(both, placed, np.arange(4), filling)
    assert code.tobytes() == b"abcdef\xcc\xcd12"
    # four bytes of an atom without any in its file, and what a phase made
    assert data.tobytes() == b"\0\0!!\0\0"


def test_what_the_input_holds_at_an_offset_of_an_atom() -> None:
    both = program(unit(b"..abcdef", (2, 3), (-1, 3)), unit(b"XYZ", (1, 2)))
    octets = read_input(both, np.array([0, 0, 1, 2]), np.array([1, -1, 0, 0]), 2)
    # nothing of what lies before an atom, or of an atom without bytes
    assert [row.tobytes() for row in octets] == [b"bc", b"\0a", b"\0\0", b"YZ"]


def test_a_relocation_is_bound_to_a_place_or_to_a_symbol() -> None:
    one = program(unit(b"abcdefgh", (0, 4), (4, 4)))
    rows = np.zeros(3, RELOCATION)
    rows["symbol"], rows["offset"], rows["addend"] = [1, 1, 0], [0, 2, 1], 7
    one = replace(one, relocations=rows)
    one.symbols["value"][1] = 3
    placed = addresses([0, 0], [0, 4], [8], [False])
    every = np.ones(3, np.bool_)
    bound = bind(one, np.array([True, True]), placed, every)
    assert bound.local.all() and not bound.gone.any()
    assert bound.target_offset.tolist() == [7, 7, 0]
    kept = replace(placed, kept=np.array([False, True]))
    assert bind(one, np.array([True, True]), kept, every).local.tolist() == [False, False, True]
    dead = bind(one, np.array([True, False]), placed, every)
    assert dead.gone.tolist() == [True, True, False]
    with pytest.raises(LinkError, match=r"a relocation in a\.o names nothing"):
        refuse(one, dead, dead.gone, "names nothing")


def test_values_that_do_not_fit_are_not_stored() -> None:
    field = np.array([Field.BITS8, Field.BITS8, Field.NONE, Field.BITS16], np.uint8)
    value, position = np.array([127, 128, 1, 300]), np.arange(4)
    stored, patches = store(np.ones(4, np.bool_), field, value, position)
    assert stored.tolist() == [True, False, False, True]
    assert [(p.field, p.position.tolist()) for p in patches] == [(1, [0]), (2, [3])]
    wraps = frozenset({Field.BITS8})
    assert store(np.ones(4, np.bool_), field, value, position, wraps)[0].sum() == 3


def test_tables_of_columns() -> None:
    columns = [np.arange(3) + 10 * n for n in range(7)]
    table = Relocations(*columns, np.array([True, False, True]))
    assert table.rows(np.array([2, 0])).offset.tolist() == [12, 10]
    assert table.rows(table.exact).type.tolist() == [20, 22]
    assert Relocations.joined([table, table]).section.tolist() == [0, 1, 2, 0, 1, 2]
    assert table.location.tolist() == [(40 + n << STEP) + 50 + n for n in range(3)]


def test_runs_of_equal_rows() -> None:
    assert list(runs(np.array([1, 1, 2, 2]), np.array([5, 5, 5, 6]))) == [(0, 2), (2, 3), (3, 4)]
    assert list(runs(np.zeros(0))) == []


def test_relocations_find_their_symbols() -> None:
    """A symbol of the program, the symbol of a section, or the first one of a place."""
    zeros = np.zeros(4, np.int64)
    relocations = Relocations(
        np.array([0, 0, 2, 2], np.int32),
        zeros,
        zeros,
        np.array([1, -1, -1, 0], np.int32),
        np.array([-1, 1, 1, -1], np.int32),
        np.array([0, 0, 8, 0]),
        zeros,
        np.array([False, False, True, True]),
    )
    at_eight = np.int64((1 << STEP) + 8)
    table = SymbolTable(
        np.zeros(0, SYMBOL),
        b"",
        0,
        0,
        SymbolIndex(np.array([7, 5]), np.array([at_eight, at_eight]), np.array([2, 4])),
        np.array([-1, 3]),
        (),
        (),
    )
    assert table.numbers(relocations).tolist() == [5, 3, 2, 7]
    assert relocations.named.tolist() == [0, 1]
    assert relocations.sections.tolist() == [1]
    assert relocations.by_section(3) == [slice(0, 2), slice(2, 2), slice(2, 4)]
    with pytest.raises(AssertionError, match="no symbol"):
        replace(table, of_section=np.array([-1, -1])).numbers(relocations)


def test_symbols_are_found_by_number_and_by_place() -> None:
    whole = program(unit(b"abcdef", (0, 2), (2, 4)))
    whole.symbols["value"] = [1, 0]
    placed = addresses([1, -1], [4, 0], [4, 8], [False, False])
    place, first = (1 << STEP) + 5, np.array([0])
    rows = np.concatenate([entries_at(np.array([place])), entries_of(whole, placed, first)])
    assert locations_of(rows).tolist() == [place, place]
    assert rows["symbol"].tolist() == [-1, 0]
    index = index_symbols(whole, rows, np.array([3, 4]), np.array([0, 1]))
    assert index.of_symbol.tolist() == [4, -1]
    assert index.at(locations_of(rows)).tolist() == [3, 3]  # the first of a place


def test_a_file_has_zeros_where_nothing_is_put() -> None:
    chunks = stream([(0, [b"head"]), (4, []), (8, [b"ab", b"c"]), (12, [b"end"])])
    assert b"".join(chunks) == b"head" + bytes(4) + b"abc" + b"\0end"
