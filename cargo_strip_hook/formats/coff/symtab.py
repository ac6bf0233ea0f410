"""The symbol table of the new object: exports and what the consumer supplies external, else static.

Source: Microsoft, "PE Format", "COFF Symbol Table". A section's own symbol comes first of its
symbols, and its leader second.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.place import Placed
from cargo_strip_hook.formats.coff.reader import KIND_FUNCTION, CoffUnit
from cargo_strip_hook.formats.coff.relocate import STEP
from cargo_strip_hook.formats.rustnames import shorten
from cargo_strip_hook.link.arrays import isin, unique
from cargo_strip_hook.link.model import Array, Binding, Bool, Int64, Program, SpecialIndex
from cargo_strip_hook.link.strings import StringTable, string_at

# LLVM's `WinException.cpp` and `AsmPrinter`: handlers and cleanups of a function
_FUNCLET = re.compile(rb"\?(?:dtor|catch|filt|fin)\$[0-9]+@\?0\?(.+)@4HA")
_DECORATION = re.compile(rb"@[0-9]+$")  # i686: the size of the parameters
LABEL = b".L"  # of a place that needs a symbol and has no name that is kept
LEADER = b".comdat"


@dataclass(frozen=True, slots=True)
class OutputSections:
    """What the table says of the sections that are written. Arrays by section.

    `parent` is the section, from 0, that an associative one belongs to; `selection` is 0 for
    sections that are no COMDAT.
    """

    names: list[bytes]
    size: Int64
    relocations: Int64
    selection: Array
    parent: Int64


@dataclass(frozen=True, slots=True)
class SymbolTable:
    """The records to be written, auxiliary ones included, and how to find them.

    `of_symbol[s]` is the index of program symbol `s`, `of_section[n]` that of output section `n`;
    -1 where there is none. `places` and `of_place`: sorted places and their indices.
    """

    records: list[Array]
    count: int
    strings: bytes
    of_symbol: Int64
    of_section: Int64
    places: Int64
    of_place: Int64
    defined: tuple[bytes, ...]
    undefined: tuple[bytes, ...]


def symbol_name(program: Program, symbol: int) -> bytes:
    """The name of a program-wide symbol."""
    number = int(np.searchsorted(program.symbol_base, symbol, side="right")) - 1
    unit = program.units[number]
    local = symbol - int(program.symbol_base[number])
    if local >= unit.first_global:
        return unit.names[local - unit.first_global]
    where = int(unit.symbols["name"][local])
    if where < 0:
        return bytes(unit.data[~where : ~where + 8]).rstrip(b"\0")
    return string_at(unit.data[where:], 0)


@dataclass(frozen=True, slots=True)
class Marks:
    """What needs a symbol besides what relocations name: sorted places, each once.

    `functions`: those of `places` whose symbols have to say that they are functions. `features`:
    the value of `@feat.00`.
    """

    places: Int64
    functions: Int64
    features: int


@dataclass(frozen=True, slots=True)
class _Rows:
    """Symbols to be written: program symbol (-1 for none), section from 0, value, type, class."""

    symbol: Int64
    section: Int64
    value: Int64
    type: Array
    storage: Array
    names: list[bytes]


def build(
    program: Program,
    live: Bool,
    placed: Placed,
    sections: OutputSections,
    used: Int64,
    marks: Marks,
    strip: Strip,
) -> SymbolTable:
    """Make the table.

    `used`: program symbols that relocations name, sorted and each once. Names of live functions
    stay below `Strip.SYMBOLS`, shortened where there is no debug information that has them too.
    """
    places = marks.places
    symbols = program.symbols
    atom = symbols["atom"]
    at = np.where(atom >= 0, atom, 0)
    here = (atom >= 0) & live[at] & (placed.section[at] >= 0)
    wins = program.definition == np.arange(len(symbols))

    shown = np.flatnonzero(placed.kept & wins & (here | (atom == SpecialIndex.ABSOLUTE)))
    commons = np.flatnonzero(placed.kept & wins & (atom == SpecialIndex.COMMON))
    named = np.flatnonzero(_for_people(program, here & wins, strip) & ~placed.kept)
    used = used[~placed.kept[used]]
    absolute = used[atom[used] == SpecialIndex.ABSOLUTE]
    outside = used[atom[used] == SpecialIndex.UNDEFINED]
    weak = _weak_externals(program)
    wanted = np.array([weak[s] for s in outside.tolist() if s in weak], np.int64)
    wanted = program.definition[wanted].astype(np.int64)
    absolute = unique(np.concatenate([absolute, wanted[atom[wanted] == SpecialIndex.ABSOLUTE]]))
    outside = unique(np.concatenate([outside, wanted[atom[wanted] == SpecialIndex.UNDEFINED]]))

    globals_ = sorted((symbol_name(program, s), s) for s in shown.tolist())
    shown = np.array([s for _, s in globals_], np.int64)
    export_rows = _placed_rows(program, placed, shown, coff.CLASS_EXTERNAL)
    export_rows.names.extend(n for n, _ in globals_)
    names = [symbol_name(program, s) for s in named.tolist()]
    if strip is Strip.DEBUGINFO:
        named, names = _for_backtraces(program, named, names, globals_)
    named_rows = _placed_rows(program, placed, named, coff.CLASS_STATIC)
    named_rows.names.extend(names)
    keys = (named_rows.section << STEP) + named_rows.value
    named_rows.type[isin(keys, marks.functions)] = coff.TYPE_FUNCTION
    labels = places[~np.isin(places, keys)]
    nothing = np.zeros(len(labels), np.int64)
    label_rows = _Rows(
        nothing - 1,
        labels >> STEP,
        labels & ((1 << STEP) - 1),
        np.where(isin(labels, marks.functions), coff.TYPE_FUNCTION, 0),
        nothing + coff.CLASS_STATIC,
        [LABEL] * len(labels),
    )
    table = _Table(len(symbols), sections)
    table.add_absolute(b"@feat.00", marks.features)
    table.add_sections([export_rows, named_rows, label_rows])
    for symbol in absolute.tolist():
        table.of_symbol[symbol] = table.count
        table.add(symbol_name(program, symbol), int(symbols["value"][symbol]), -1, 0, 3)
    table.add_globals(export_rows)
    for name, symbol in sorted((symbol_name(program, s), s) for s in commons.tolist()):
        table.of_symbol[symbol] = table.count
        table.add(name, int(symbols["size"][symbol]), 0, 0, coff.CLASS_EXTERNAL)
    missing = sorted((symbol_name(program, s), s) for s in outside.tolist())
    table.add_undefined(program, missing, weak)
    of_place = np.searchsorted(table.places, places)
    return SymbolTable(
        table.records,
        table.count,
        table.strings.bytes(),
        table.of_symbol,
        table.of_section,
        places,
        table.of_place[of_place] if len(places) else of_place,
        tuple(
            sorted([n for n, _ in globals_] + [symbol_name(program, s) for s in commons.tolist()])
        ),
        tuple(n for n, _ in missing),
    )


def _for_people(program: Program, here: Bool, strip: Strip) -> Bool:
    """The static names that stay: of functions, and of data beside debug information."""
    if strip is Strip.SYMBOLS:
        return np.zeros(len(program.symbols), np.bool_)
    kind = program.symbols["kind"]
    wanted = kind == KIND_FUNCTION
    if strip is Strip.NONE:
        wanted |= (kind != KIND_FUNCTION) & (program.symbols["binding"] != Binding.LOCAL)
    found: Bool = here & wanted
    return found


def _for_backtraces(
    program: Program, named: Int64, names: list[bytes], exported: list[tuple[bytes, int]]
) -> tuple[Int64, list[bytes]]:
    """What backtraces need of `named` and their `names`: functions, by what is shown of a name.

    The name of a funclet repeats the function's that it stands behind; without a name of its own
    its address is one of that function's. Of the names of one place, which compilers give to equal
    functions, one is ever shown: an export's, or the shortest.
    """
    atom = program.symbols["atom"]
    every = [*zip(names, named.tolist(), strict=True), *exported]
    known = {(int(atom[symbol]), _DECORATION.sub(b"", name)) for name, symbol in every}
    native: CoffUnit = program.units[0].native
    prefix = b"_" if native.machine.number == coff.I386 else b""
    value = program.symbols["value"]
    shown = {(int(atom[symbol]), int(value[symbol])) for _, symbol in exported}
    kept: dict[tuple[int, int], tuple[bytes, int]] = {}
    for symbol, name in zip(named.tolist(), names, strict=True):
        place = int(atom[symbol]), int(value[symbol])
        funclet = _FUNCLET.fullmatch(name)
        if place in shown or (
            funclet and {(place[0], p + funclet[1]) for p in (b"", prefix)} & known
        ):
            continue
        plain = name.removeprefix(prefix)
        short = name[: len(name) - len(plain)] + shorten(plain)
        other = kept.setdefault(place, (short, symbol))
        kept[place] = min(other, (short, symbol), key=lambda row: (len(row[0]), row))
    return np.array([s for _, s in kept.values()], np.int64), [n for n, _ in kept.values()]


def _placed_rows(program: Program, placed: Placed, chosen: Int64, storage: int) -> _Rows:
    symbols = program.symbols[chosen]
    inside = symbols["atom"] >= 0
    at = np.where(inside, symbols["atom"], 0)
    function = symbols["kind"] == KIND_FUNCTION
    return _Rows(
        chosen,
        np.where(inside, placed.section[at], -2).astype(np.int64),  # -2: absolute
        np.where(inside, placed.offset[at], 0) + symbols["value"],
        np.where(function, coff.TYPE_FUNCTION, 0),
        np.full(len(chosen), storage),
        [],
    )


def _weak_externals(program: Program) -> dict[int, int]:
    """What stands for each symbol that nobody here defines, if anything; program-wide numbers."""
    found: dict[int, int] = {}
    for base, unit in zip(program.symbol_base.tolist(), program.units, strict=False):
        native: CoffUnit = unit.native
        for local in np.flatnonzero(native.fallback >= 0).tolist():
            symbol = int(program.definition[base + local])
            if program.symbols["atom"][symbol] == SpecialIndex.UNDEFINED:
                found.setdefault(symbol, base + int(native.fallback[local]))
    return found


class _Table:
    """The table while it grows."""

    def __init__(self, symbols: int, sections: OutputSections) -> None:
        self.sections = sections
        self.dtype = coff.BIG_SYMBOL if len(sections.names) > coff.MOST_SECTIONS else coff.SYMBOL
        self.records: list[Array] = []
        self.count = 0
        self.strings = StringTable(start=4)
        self.of_symbol = np.full(symbols, -1, np.int64)
        self.of_section = np.full(len(sections.names), -1, np.int64)
        self.places = np.zeros(0, np.int64)
        self.of_place = np.zeros(0, np.int64)

    def names(self, names: list[bytes]) -> Array:
        """The name fields of records."""
        fields = np.zeros((len(names), 2), "<u4")
        long = [(n, name) for n, name in enumerate(names) if len(name) > 8]
        fields[[n for n, _ in long], 1] = [self.strings.add(name) for _, name in long]
        short = np.array([b"" if len(n) > 8 else n for n in names] or [b""], "S8")[: len(names)]
        found: Array = fields | short.view("<u4").reshape(-1, 2)
        return found

    def rows(self, names: list[bytes]) -> Array:
        rows = np.zeros(len(names), self.dtype)
        rows["name"] = self.names(names).view("V8").reshape(-1)
        return rows

    def put(self, rows: Array) -> None:
        self.records.append(rows)
        self.count += len(rows)

    def add(self, name: bytes, value: int, section: int, kind: int, storage: int) -> None:
        rows = self.rows([name])
        rows["value"], rows["section"] = value & 0xFFFFFFFF, section
        rows["type"], rows["class"] = kind, storage
        self.put(rows)

    def add_absolute(self, name: bytes, value: int) -> None:
        self.add(name, value, coff.SYM_ABSOLUTE, 0, coff.CLASS_STATIC)

    def add_aux(self, aux: Array) -> Array:
        """Auxiliary records in the form of the table's."""
        rows = np.zeros(len(aux), self.dtype)
        size = aux.dtype.itemsize
        octets = rows.view(np.uint8).reshape(-1, rows.dtype.itemsize)
        octets[:, :size] = aux.view(np.uint8).reshape(-1, size)
        return rows

    def add_sections(self, groups: list[_Rows]) -> None:
        """Section symbols, each followed by its leader; then all other statics.

        An export is preferred as a leader, then a name, then a label; the first of its section.
        """
        rows = _joined(groups)
        rank = np.repeat(np.arange(len(groups)), [len(g.section) for g in groups])
        order = np.lexsort((rows.value, rank, rows.section))
        order = order[rows.section[order] >= 0]
        of_leader = self.add_heads(rows, _first_rows(rows, order, len(self.sections.names)))
        index = self.add_statics(rows, order, of_leader)
        known = np.flatnonzero((rows.symbol >= 0) & (index >= 0))
        self.of_symbol[rows.symbol[known]] = index[known]
        static = np.flatnonzero((rows.storage == coff.CLASS_STATIC) & (index >= 0))
        places = (rows.section[static] << STEP) + rows.value[static]
        by_place = np.argsort(places, kind="stable")
        self.places, self.of_place = places[by_place], index[static[by_place]]

    def add_heads(self, rows: _Rows, leader: Int64) -> Int64:
        """Section symbols, their records and leaders.

        `leader`: the row that leads each section, -1 for none. Returns the symbol of each row,
        int64, -1 for those that lead nothing.
        """
        sections, count = self.sections, len(self.sections.names)
        led = (sections.selection != 0) & (sections.selection != coff.COMDAT_ASSOCIATIVE)
        step = 2 + led
        first = np.cumsum(step) - step
        self.of_section[:] = self.count + first
        head = np.zeros(int(step.sum()), self.dtype)
        head["name"][first] = self.names(sections.names).view("V8").reshape(-1)
        head["section"][first] = np.arange(1, count + 1)
        head["class"][first] = coff.CLASS_STATIC
        head["aux"][first] = 1
        head[first + 1] = self.add_aux(_section_records(sections))

        mine = np.flatnonzero(led)
        row = leader[mine]
        there = row >= 0
        body = self.rows([rows.names[r] if r >= 0 else LEADER for r in row.tolist()])
        body["section"] = mine + 1
        body["class"] = coff.CLASS_STATIC
        body["value"][there] = rows.value[row[there]]
        body["type"][there] = rows.type[row[there]]
        body["class"][there] = rows.storage[row[there]]
        head[first[mine] + 2] = body
        index = np.full(len(rows.section), -1, np.int64)
        index[row[there]] = self.count + first[mine[there]] + 2
        self.put(head)
        return index

    def add_statics(self, rows: _Rows, order: Int64, of_leader: Int64) -> Int64:
        """The statics that lead no section, in this order.

        Returns the symbol of each row, int64, -1 for those that are not written.
        """
        rest = order[(of_leader[order] < 0) & (rows.storage[order] == coff.CLASS_STATIC)]
        body = self.rows([rows.names[r] for r in rest.tolist()])
        body["section"] = rows.section[rest] + 1
        body["value"], body["type"] = rows.value[rest], rows.type[rest]
        body["class"] = rows.storage[rest]
        index: Int64 = of_leader.copy()
        index[rest] = self.count + np.arange(len(rest))
        self.put(body)
        return index

    def add_globals(self, rows: _Rows) -> None:
        """The exports that lead no section."""
        left = np.flatnonzero(self.of_symbol[rows.symbol] < 0)
        body = self.rows([rows.names[n] for n in left.tolist()])
        body["section"] = rows.section[left] + 1
        body["value"] = rows.value[left] & 0xFFFFFFFF
        body["type"], body["class"] = rows.type[left], coff.CLASS_EXTERNAL
        self.of_symbol[rows.symbol[left]] = self.count + np.arange(len(left))
        self.put(body)

    def add_undefined(
        self, program: Program, missing: list[tuple[bytes, int]], weak: dict[int, int]
    ) -> None:
        """What the consumer supplies; weak externals with what stands for them."""
        aux = {s: int(program.definition[weak[s]]) for _, s in missing if s in weak}
        at = self.count
        for _, symbol in missing:
            self.of_symbol[symbol] = at
            at += 2 if symbol in aux else 1
        for name, symbol in missing:
            kind = coff.TYPE_FUNCTION if program.symbols["kind"][symbol] == KIND_FUNCTION else 0
            if symbol not in aux:
                self.add(name, 0, 0, kind, coff.CLASS_EXTERNAL)
                continue
            rows = self.rows([name])
            rows["class"], rows["aux"], rows["type"] = coff.CLASS_WEAK_EXTERNAL, 1, kind
            self.put(rows)
            record = np.zeros(1, coff.WEAK_AUX)
            record["tag"] = self.of_symbol[aux[symbol]]
            record["search"] = _search(program, symbol)
            self.put(self.add_aux(record))


def _joined(groups: list[_Rows]) -> _Rows:
    """The rows of all groups, in their order."""
    return _Rows(
        np.concatenate([g.symbol for g in groups]),
        np.concatenate([g.section for g in groups]),
        np.concatenate([g.value for g in groups]),
        np.concatenate([g.type for g in groups]),
        np.concatenate([g.storage for g in groups]),
        [name for g in groups for name in g.names],
    )


def _first_rows(rows: _Rows, order: Int64, count: int) -> Int64:
    """The first row in this order of each of `count` sections: int64, -1 for none."""
    section = rows.section[order]
    begins = np.flatnonzero(np.r_[True, section[1:] != section[:-1]] if len(section) else [])
    first = np.full(count, -1, np.int64)
    first[section[begins]] = order[begins]
    return first


def _section_records(sections: OutputSections) -> Array:
    """The auxiliary record of each section. Source: "PE Format", "Section Definitions"."""
    count = len(sections.names)
    aux = np.zeros(count, coff.SECTION_AUX)
    aux["size"] = sections.size
    aux["relocations"] = np.minimum(sections.relocations, coff.MOST_RELOCATIONS)
    number = np.where(sections.parent >= 0, sections.parent, np.arange(count)) + 1
    aux["number"], aux["number_high"] = number & 0xFFFF, number >> 16
    aux["number"][sections.selection == 0] = 0
    aux["number_high"][sections.selection == 0] = 0
    aux["selection"] = sections.selection
    return aux


def _search(program: Program, symbol: int) -> int:
    """How a weak external is searched for, as its first file says."""
    for base, unit in zip(program.symbol_base.tolist(), program.units, strict=False):
        native: CoffUnit = unit.native
        for local in np.flatnonzero(native.fallback >= 0).tolist():
            if program.definition[base + local] == symbol:
                return int(native.search[local])
    return 0
