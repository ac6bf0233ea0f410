"""The symbol table of the new object: exports and what the consumer supplies external, else static.

Source: Microsoft, "PE Format", "COFF Symbol Table". A section's own symbol comes first of its
symbols, and its leader second.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.demangle.shorten import shorten
from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.addresses import Placed
from cargo_strip_hook.formats.coff.reader import KIND_FUNCTION, coff_unit
from cargo_strip_hook.link.addresses import STEP
from cargo_strip_hook.link.arrays import isin, rows_of
from cargo_strip_hook.link.model import Array, Binding, Bool, Int64, Program, SpecialIndex
from cargo_strip_hook.link.output import (
    ENTRY,
    SymbolTable,
    entries_at,
    entries_of,
    index_symbols,
    locations_of,
)
from cargo_strip_hook.link.strings import StringTable
from cargo_strip_hook.link.symbols import (
    Named,
    Names,
    Selection,
    laid_out,
    select,
    symbol_names,
)

# LLVM's `WinException.cpp` and `AsmPrinter`: handlers and cleanups of a function
_FUNCLET = re.compile(rb"\?(?:dtor|catch|filt|fin)\$[0-9]+@\?0\?(.+)@4HA")
_DECORATION = re.compile(rb"@[0-9]+$")  # i686: the size of the parameters
LABEL = b".L"  # of a location that needs a symbol and has no name that is kept
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
class Marks:
    """What needs a symbol besides what relocations name: sorted locations, each once.

    `functions`: those of `locations` whose symbols have to say that they are functions. `features`:
    the value of `@feat.00`.
    """

    locations: Int64
    functions: Int64
    features: int


# the order of the table: one symbol for tools, sections with their leaders, other local ones …
_FEATURES, _HEADS, _STATICS, _VALUES, _EXPORTS, _COMMONS, _UNDEFINED = range(7)
_ENTRY = np.dtype(
    [
        *ENTRY.descr,
        ("group", "<i4"),  # one of those above
        ("position", "<i4"),  # of those of one section in a group
        ("type", "<u2"),
        ("class", "u1"),
        ("aux", "u1"),  # 1 where an auxiliary record follows
    ]
)


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
    weak = _weak_externals(program)
    needed = np.zeros(len(program.symbols), np.bool_)
    needed[used] = True
    needed[[stand_in for symbol, (stand_in, _) in weak.items() if needed[symbol]]] = True
    kind, is_global = program.symbols["kind"], program.symbols["binding"] != Binding.LOCAL
    wanted = Names(kind == KIND_FUNCTION, is_global).kept(strip)
    here = laid_out(program, live, placed.section)
    chosen = select(program, here, placed.kept, np.flatnonzero(needed), wanted)
    named = Named(chosen.named, symbol_names(program, chosen.named))
    if strip is Strip.DEBUGINFO:
        named = _for_backtraces(program, named, chosen.exports)
    entries, names = _entries(program, placed, sections, chosen, named, marks, weak)
    index = np.cumsum(1 + entries["aux"]) - 1 - entries["aux"]
    heads = (entries["group"] == _HEADS) & (entries["position"] == 0)
    local = np.flatnonzero((entries["class"] == coff.CLASS_STATIC) & ~heads)
    known = index_symbols(program, entries, index, local)

    strings = StringTable(start=4)
    big = len(sections.names) > coff.MOST_SECTIONS
    records = np.zeros(
        len(entries) + int(entries["aux"].sum()), coff.BIG_SYMBOL if big else coff.SYMBOL
    )
    for name in sections.names:  # before those of their leaders
        if len(name) > coff.SHORT_NAME:
            strings.add(name)
    records["name"][index] = _name_fields(names, strings)
    records["section"][index] = entries["section"] + 1
    records["value"][index] = entries["value"] & 0xFFFFFFFF
    for field in ("type", "class", "aux"):
        records[field][index] = entries[field]
    _put(records, index[heads] + 1, _section_records(sections))
    weak_ones = np.flatnonzero(entries["class"] == coff.CLASS_WEAK_EXTERNAL)
    aux = np.zeros(len(weak_ones), coff.WEAK_AUX)
    pairs = [weak[symbol] for symbol in entries["symbol"][weak_ones].tolist()]
    aux["tag"] = [known.of_symbol[stand_in] for stand_in, _ in pairs]
    aux["search"] = [search for _, search in pairs]
    _put(records, index[weak_ones] + 1, aux)
    return SymbolTable(
        records,
        strings.bytes(),
        int((entries["group"] < _EXPORTS).sum()),
        len(chosen.exports.rows),
        known,
        index[heads],
        tuple(sorted(chosen.exports.names + chosen.commons.names)),
        tuple(chosen.undefined.names),
    )


def _entries(
    program: Program,
    placed: Placed,
    sections: OutputSections,
    chosen: Selection,
    named: Named,
    marks: Marks,
    weak: dict[int, tuple[int, int]],
) -> tuple[Array, list[bytes]]:
    """The symbols of the table, _ENTRY, and their names, in their order."""

    def ours(symbols: Int64, group: int) -> Array:
        rows = _static(entries_of(program, placed, symbols), group)
        function = program.symbols["kind"][symbols] == KIND_FUNCTION
        rows["type"] = np.where(function, coff.TYPE_FUNCTION, 0)
        return rows

    mark = rows_of(ENTRY, 1, symbol=-1, section=SpecialIndex.ABSOLUTE, value=marks.features)
    features = _static(mark, _FEATURES)
    heads = _static(entries_at(np.arange(len(sections.names)) << STEP), _HEADS)
    heads["aux"] = 1
    exports = ours(chosen.exports.rows, _EXPORTS)
    exports["class"] = coff.CLASS_EXTERNAL
    statics = ours(named.rows, _STATICS)
    statics["position"] = 1
    statics["type"][isin(locations_of(statics), marks.functions)] = coff.TYPE_FUNCTION
    locations = marks.locations[~isin(marks.locations, locations_of(statics))]
    labels = _static(entries_at(locations), _STATICS)
    labels["position"] = 2
    labels["type"] = np.where(isin(locations, marks.functions), coff.TYPE_FUNCTION, 0)
    defined = _with_leaders(np.concatenate([exports, statics, labels]), sections)
    unnamed = len(defined) - len(exports) - len(statics) - len(labels)
    values = _static(entries_of(program, placed, chosen.absolute), _VALUES)
    commons = _static(entries_of(program, placed, chosen.commons.rows), _COMMONS)
    commons["section"], commons["class"] = SpecialIndex.UNDEFINED, coff.CLASS_EXTERNAL
    commons["value"] = program.symbols["size"][chosen.commons.rows]
    undefined = ours(chosen.undefined.rows, _UNDEFINED)
    undefined["aux"] = [symbol in weak for symbol in chosen.undefined.rows.tolist()]
    undefined["class"] = np.where(undefined["aux"], coff.CLASS_WEAK_EXTERNAL, coff.CLASS_EXTERNAL)
    every = np.concatenate([features, heads, defined, values, commons, undefined])
    names = [
        *(b"@feat.00", *sections.names, *chosen.exports.names, *named.names),
        *([LABEL] * len(labels) + [LEADER] * unnamed),
        *symbol_names(program, chosen.absolute),
        *(*chosen.commons.names, *chosen.undefined.names),
    ]
    by_section = every["group"] <= _STATICS
    order = np.lexsort(
        (
            np.where(every["group"] == _STATICS, every["value"], 0),
            every["position"],
            np.where(by_section, every["section"], 0),
            every["group"],
        )
    )
    return every[order], [names[number] for number in order.tolist()]


def _static(entries: Array, group: int) -> Array:
    """_ENTRY of static symbols, from ENTRY."""
    columns = {name: entries[name] for name in ENTRY.names or ()}
    return rows_of(_ENTRY, len(entries), group=group, **columns, **{"class": coff.CLASS_STATIC})


def _with_leaders(entries: Array, sections: OutputSections) -> Array:
    """The _ENTRY, of which one leads each section that is a COMDAT; behind them those without one.

    An export is preferred as a leader, then a name, then a label; the first of its section.
    """
    led = (sections.selection != 0) & (sections.selection != coff.COMDAT_ASSOCIATIVE)
    order = np.lexsort((entries["value"], entries["position"], entries["section"]))
    section = entries["section"][order]
    first = np.ones(len(order), np.bool_)
    first[1:] = section[1:] != section[:-1]
    first &= section >= 0
    first[first] = led[section[first]]
    leading = order[first]
    every = entries.copy()
    every["group"][leading], every["position"][leading] = _HEADS, 1
    led[section[first]] = False
    unnamed = _static(entries_at(np.flatnonzero(led) << STEP), _HEADS)
    unnamed["position"] = 1
    return np.concatenate([every, unnamed])


def _for_backtraces(program: Program, named: Named, exported: Named) -> Named:
    """What backtraces need of `named`: functions, by what is shown of a name.

    The name of a funclet repeats the function's that it stands behind; without a name of its own
    its address is one of that function's. Of the names of one location, which compilers give to
    equal functions, one is ever shown: an export's, or the shortest.
    """
    atom = program.symbols["atom"]
    known: set[tuple[int, bytes]] = set()
    for group in (named, exported):
        plain_names = [_DECORATION.sub(b"", name) for name in group.names]
        known.update(zip(atom[group.rows].tolist(), plain_names, strict=True))
    native = coff_unit(program.units[0])
    prefix = b"_" if native.machine.number == coff.I386 else b""
    value = program.symbols["value"]
    locations = [
        list(zip(atom[group.rows].tolist(), value[group.rows].tolist(), strict=True))
        for group in (named, exported)
    ]
    shown = set(locations[1])
    kept: dict[tuple[int, int], tuple[bytes, int]] = {}
    for symbol, name, location in zip(named.rows.tolist(), named.names, locations[0], strict=True):
        funclet = _FUNCLET.fullmatch(name)
        if location in shown or (
            funclet and {(location[0], p + funclet[1]) for p in (b"", prefix)} & known
        ):
            continue
        plain = name.removeprefix(prefix)
        short = name[: len(name) - len(plain)] + shorten(plain)
        other = kept.setdefault(location, (short, symbol))
        kept[location] = min(other, (short, symbol), key=lambda row: (len(row[0]), row))
    return Named(np.array([s for _, s in kept.values()], np.int64), [n for n, _ in kept.values()])


def _weak_externals(program: Program) -> dict[int, tuple[int, int]]:
    """(what stands for it, how it is searched for) of symbols that nobody here defines.

    Program-wide numbers; as the first file says that has such a reference.
    """
    weak: dict[int, tuple[int, int]] = {}
    for base, unit in zip(program.symbol_base.tolist(), program.units, strict=False):
        native = coff_unit(unit)
        for local in np.flatnonzero(native.fallback >= 0).tolist():
            symbol = int(program.definition[base + local])
            if program.symbols["atom"][symbol] == SpecialIndex.UNDEFINED:
                stand_in = int(program.definition[base + int(native.fallback[local])])
                weak.setdefault(symbol, (stand_in, int(native.search[local])))
    return weak


def _name_fields(names: list[bytes], strings: StringTable) -> Array:
    """The name fields of records, V8; long names go into `strings`."""
    fields = np.zeros((len(names), 2), "<u4")
    long = [number for number, name in enumerate(names) if len(name) > coff.SHORT_NAME]
    fields[long, 1] = [strings.add(names[number]) for number in long]
    short = np.array([b"" if len(n) > coff.SHORT_NAME else n for n in names], "S8")
    fields |= short.view("<u4").reshape(-1, 2)
    return fields.view("V8").reshape(-1)


def _put(records: Array, where: Int64, aux: Array) -> None:
    """Put auxiliary records into those of symbols, which may be longer."""
    octets = records.view(np.uint8).reshape(-1, records.itemsize)
    octets[where, : aux.itemsize] = aux.view(np.uint8).reshape(-1, aux.itemsize)


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
