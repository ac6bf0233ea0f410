"""Writes one COFF object: headers, contents, relocations, symbols, in that order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np

from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.core.requests import PrelinkRequest, Strip
from cargo_strip_hook.formats.coff import codeview, directives, kinds, symtab
from cargo_strip_hook.formats.coff import debug as dbg
from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.addresses import Placed, assign, with_entries
from cargo_strip_hook.formats.coff.keepers import keep_groups
from cargo_strip_hook.formats.coff.machine import Machine
from cargo_strip_hook.formats.coff.reader import coff_unit
from cargo_strip_hook.formats.coff.relocate import Taken, relocate
from cargo_strip_hook.formats.coff.xdata import by_record, share
from cargo_strip_hook.link import warnings as warn
from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.contents import Filling, make_contents
from cargo_strip_hook.link.link_map import link_map_rows, statistics
from cargo_strip_hook.link.model import (
    LINK_MAP,
    Array,
    AtomFlag,
    Bool,
    Chunk,
    Image,
    Int64,
    Layout,
    Program,
    SpecialIndex,
)
from cargo_strip_hook.link.output import Relocations
from cargo_strip_hook.link.symbols import symbol_names

MARKER_SECTION = b".cargo-strip-hook"
_NOT_LOADED = coff.SCN_LNK_INFO | coff.SCN_LNK_REMOVE | coff.SCN_ALIGN_1BYTES


@dataclass(frozen=True, slots=True)
class _Extra:
    """A section without a relocation that follows those of the layout."""

    name: bytes
    flags: int
    contents: bytes


def write(program: Program, live: Bool, layout: Layout, request: PrelinkRequest) -> Image:
    """Make the object. Raises `LinkError` for a reference that cannot be kept."""
    machine = coff_unit(program.units[0]).machine
    layout = with_entries(program, live, layout)
    placed = assign(program, layout)
    real = [n for n in program.live_units(live) if program.units[n].index >= 0]
    # of commons and values alone: what their files promise
    said = [program.units[n] for n in real] or [u for u in program.units if u.index >= 0]
    features = _features([coff_unit(u).features for u in said])
    guarded = [coff_unit(u).features & coff.FEAT_GUARD_CF != 0 for u in program.units]
    alive = np.zeros(len(program.units), np.bool_)
    alive[real] = True
    guard = np.array(guarded) & alive
    relocations, patches, taken = relocate(program, machine, live, placed, guard)
    filling = Filling(patches, padding=machine.padding)
    contents = make_contents(program, placed, layout.atoms, filling)
    listed = _listed(program, live, placed, real, features, relocations, taken)

    aligns = np.array([s.align for s in layout.sections], np.int64)
    shared = share(program, live, machine, aligns, placed, contents, relocations)
    placed, contents, relocations = shared.placed, shared.contents, shared.relocations
    link_map = link_map_rows(program, live & (placed.section >= 0), placed, 1)
    link_map = by_record(link_map, shared.records)
    if request.target.archive_dialect != "coff":
        with_groups = keep_groups(program, machine, placed, contents, relocations)
        placed, contents, relocations = with_groups
    left_out: tuple[tuple[str, str], ...] = ()
    debug_map = np.zeros(0, LINK_MAP)
    if request.strip is Strip.NONE:
        debug = dbg.collect(program, machine, live, placed)
        before = len(placed.kinds) + len(debug.kinds)
        debug = dbg.combined(debug, codeview.collect(program, machine, live, placed, before))
        placed, contents = dbg.with_sections(placed, contents, debug)
        relocations = Relocations.joined([relocations, debug.relocations])
        aligns = np.concatenate([aligns, debug.align])
        left_out, debug_map = debug.left_out, debug.link_map
    sections = _sections(program, placed, relocations)
    used = unique(np.concatenate([_named(relocations), _asked(program)]))
    exact = relocations.place[relocations.exact]
    places = unique(np.concatenate([exact, *(p for _, p, _ in listed.values())]))
    guards = [p for name, (_, p, _) in listed.items() if name == kinds.GUARDED_FUNCTIONS]
    functions = unique(np.concatenate([taken.places, *guards]))
    marks = symtab.Marks(places, functions, features)
    table = symtab.build(program, live, placed, sections, used, marks, request.strip)
    extra = [
        _Extra(name, flags, _numbers(table, where, symbols))
        for name, (flags, where, symbols) in listed.items()
    ]
    asked = directives.merge(
        [coff_unit(u).directives for u in program.units if u.index >= 0],
        frozenset(table.defined),
        frozenset(table.undefined),
        b"_" if machine.number == coff.I386 else b"",
    )
    if asked:
        extra.append(_Extra(b".drectve", _NOT_LOADED, asked))
    if request.marker:
        extra.append(_Extra(MARKER_SECTION, _NOT_LOADED, request.marker))
    size, chunks = _file(machine, aligns, (placed, contents), sections, relocations, table, extra)
    whole = (program.atoms["flags"] & AtomFlag.SEPARATE == 0) & (program.atoms["section"] >= 0)
    return Image(
        size,
        chunks,
        table.defined,
        table.undefined,
        np.concatenate((link_map, debug_map)),
        statistics(program, live, whole, len(table.defined)),
        _without_safe_seh(program, real, features, listed)
        + _warnings(program, placed, live, left_out),
    )


def _named(relocations: Relocations) -> Int64:
    """The program-wide symbols that relocations name."""
    return relocations.symbol[relocations.symbol >= 0].astype(np.int64)


def _asked(program: Program) -> Int64:
    """What files name without a relocation, or by `/INCLUDE`, and nobody here defines."""
    rows = program.relocations
    chosen = rows[(program.atoms["flags"][rows["atom"]] & AtomFlag.ROOT != 0) & (rows["type"] == 0)]
    named = [chosen["symbol"].astype(np.int64)]
    for base, unit in zip(program.symbol_base.tolist(), program.units, strict=False):
        named.append(base + coff_unit(unit).asked)
    asked = program.definition[np.concatenate(named)].astype(np.int64)
    missing: Int64 = asked[program.symbols["atom"][asked] == SpecialIndex.UNDEFINED]
    return missing


def _features(every: list[int]) -> int:
    """`@feat.00` of an object that is made of files with these.

    What is promised holds where all files promise it. But linkers read the tables of control flow
    guard file by file: where one has them, the object has.
    """
    both = reduce(int.__and__, every, -1) if every else 0
    return both | reduce(int.__or__, every, 0) & (coff.FEAT_GUARD_CF | coff.FEAT_GUARD_EHCONT)


def _listed(
    program: Program,
    live: Bool,
    placed: Placed,
    units: list[int],
    features: int,
    relocations: Relocations,
    taken: Taken,
) -> dict[bytes, tuple[int, Int64, Int64]]:
    """For each table of symbol numbers: flags, places and program symbols of what lives.

    Of files without tables of control flow guard, linkers take every function for a target whose
    address is taken: these are listed, too.
    """
    needed = {
        b".sxdata": 0,  # it says which handlers there are, whatever else the object has
        kinds.GUARDED_FUNCTIONS: coff.FEAT_GUARD_CF,
        b".giats$y": coff.FEAT_GUARD_CF,
        b".gljmp$y": coff.FEAT_GUARD_CF,
        b".gehcont$y": coff.FEAT_GUARD_EHCONT,
    }
    used = np.zeros(len(program.symbols), np.bool_)
    used[_named(relocations)] = True
    used[_asked(program)] = True
    tables: dict[bytes, tuple[int, Int64, Int64]] = {}
    for name in kinds.SYMBOL_TABLES:
        if needed[name] and not features & needed[name]:
            continue
        flags, rows = coff.RDATA, []
        for number in units:
            native = coff_unit(program.units[number])
            if name in native.tables:
                flags, symbols = native.tables[name]
                rows.append(program.definition[program.symbol_base[number] + symbols])
        if name == kinds.GUARDED_FUNCTIONS:
            rows.append(_callable(program, taken.symbols))
        if not rows:
            continue
        symbols = np.concatenate(rows).astype(np.int64)
        atom = program.symbols["atom"][symbols]
        home = np.maximum(atom, 0)
        here = (atom >= 0) & live[home] & (placed.section[home] >= 0)
        local = here & ~placed.kept[symbols]
        where = placed.key(home) + program.symbols["value"][symbols]
        named = symbols[
            (here & placed.kept[symbols]) | ((atom == SpecialIndex.UNDEFINED) & used[symbols])
        ]
        tables[name] = flags & ~coff.SCN_ALIGN_MASK | 0x300000, unique(where[local]), unique(named)
    return {n: row for n, row in tables.items() if len(row[1]) or len(row[2])}


def _callable(program: Program, symbols: Int64) -> Int64:
    """Those of `symbols` that may be functions: pointers of imports and linkers' own are none."""
    missing = np.flatnonzero(program.symbols["atom"][symbols] == SpecialIndex.UNDEFINED)
    names = symbol_names(program, symbols[missing])
    none = [n.startswith((b"__imp_", b"___imp_")) or n.strip(b"_") == b"ImageBase" for n in names]
    return np.delete(symbols, missing[none])


def _numbers(table: symtab.SymbolTable, places: Int64, symbols: Int64) -> bytes:
    """The contents of a table of symbol numbers."""
    of_place = table.of_place[np.searchsorted(table.places, places)]
    rows = np.sort(np.concatenate([of_place, table.of_symbol[symbols]]))
    return rows.astype("<u4").tobytes()


def _sections(program: Program, placed: Placed, relocations: Relocations) -> symtab.OutputSections:
    count = len(placed.kinds)
    rooted = np.zeros(count, np.bool_)
    roots = np.flatnonzero(program.atoms["flags"] & AtomFlag.ROOT != 0)
    rooted[placed.section[roots[placed.section[roots] >= 0]]] = True
    selection = np.where(rooted, 0, coff.COMDAT_NODUPLICATES)
    parent = np.full(count, -1, np.int64)
    for number, kind in enumerate(placed.kinds):
        if kind.selection:
            selection[number] = kind.selection
        if kind.name == kinds.EH_FRAME or kind.root or kinds.is_initialiser(kind.name):
            selection[number] = 0
        if kind.parent >= 0:
            alone = selection[kind.parent] == 0
            selection[number] = 0 if alone else coff.COMDAT_ASSOCIATIVE
            parent[number] = -1 if alone else kind.parent
    return symtab.OutputSections(
        [k.name for k in placed.kinds],
        placed.size,
        np.bincount(relocations.section, minlength=count).astype(np.int64),
        selection,
        parent,
    )


def _file(
    machine: Machine,
    align: Int64,
    filled: tuple[Placed, list[Array]],
    sections: symtab.OutputSections,
    relocations: Relocations,
    table: symtab.SymbolTable,
    extra: list[_Extra],
) -> tuple[int, Iterator[Chunk]]:
    """The size and the stream of the whole file; `filled`: the sections and their contents."""
    placed, contents = filled
    count = len(placed.kinds)
    total = count + len(extra)
    big = count > coff.MOST_SECTIONS
    if big != (total > coff.MOST_SECTIONS):
        raise LinkError(f"{total} sections are just at the limit of what an object can have")
    strings = table.strings
    end = (coff.BIG_HEADER if big else coff.HEADER).size + total * coff.SECTION.itemsize
    headers = np.zeros(total, coff.SECTION)
    flags = np.array([k.flags for k in placed.kinds], np.int64)
    if len(align) and int(align.max()) > coff.MOST_ALIGN:
        raise LinkError(f"an alignment of {int(align.max())} bytes is more than COFF can say")
    flags |= (np.log2(np.maximum(align, 1)).astype(np.int64) + 1) << coff.SCN_ALIGN_SHIFT
    flags[sections.selection != 0] |= coff.SCN_LNK_COMDAT
    rows, counts = _relocations(relocations, table, sections.relocations)
    overflow = counts > sections.relocations
    flags[overflow] |= coff.SCN_LNK_NRELOC_OVFL

    headers["flags"][:count] = flags
    headers["size"][:count] = sections.size
    headers["offset"][:count] = np.where(placed.stored & (sections.size > 0), end + placed.start, 0)
    end += sum(map(len, contents))
    body: list[Chunk] = [_octets(one) for one in contents]
    first = end + coff.RELOCATION.itemsize * (np.cumsum(counts) - counts)
    headers["relocations"][:count] = np.where(counts > 0, first, 0)
    headers["relocation_count"][:count] = np.minimum(counts, coff.MOST_RELOCATIONS)
    body.append(_octets(rows))
    end += rows.nbytes
    for number, one in enumerate(extra, start=count):
        headers["size"][number] = len(one.contents)
        headers["offset"][number] = end
        headers["flags"][number] = one.flags
        body.append(one.contents)
        end += len(one.contents)
    names = [k.name for k in placed.kinds] + [e.name for e in extra]
    headers["name"], more = _section_names(names, len(strings))
    strings += more
    if end >= 1 << 32:
        raise LinkError("the object would be larger than 4 GiB, which COFF cannot say")
    body.append(_octets(table.records))
    body += [len(strings).to_bytes(4, "little"), strings[4:]]
    if big:
        head = coff.BIG_HEADER.pack(
            0,
            0xFFFF,
            2,
            machine.number,
            0,
            coff.BIG_CLASS,
            0,
            0,
            0,
            0,
            total,
            end,
            len(table.records),
        )
    else:
        head = coff.HEADER.pack(machine.number, total, 0, end, len(table.records), 0, 0)
    size = end + table.records.nbytes + len(strings)
    return size, iter([head, headers.tobytes(), *body])


def _octets(array: Array) -> memoryview:
    return memoryview(array.view(np.uint8).data) if len(array) else memoryview(b"")


def _section_names(names: list[bytes], strings: int) -> tuple[Array, bytes]:
    """(name fields of the headers, what has to follow the string table of `strings` bytes)."""
    more = b""
    known: dict[bytes, bytes] = {}
    fields = []
    for name in names:
        if len(name) > 8 and name not in known:
            where = strings + len(more)
            if where > 9_999_999:
                raise LinkError("the symbol names are too long for the names of sections")
            known[name] = b"/%d" % where
            more += name + b"\0"
        fields.append(known.get(name, name))
    return np.array(fields or [b""], "S8")[: len(names)], more


def _relocations(
    relocations: Relocations, table: symtab.SymbolTable, counts: Int64
) -> tuple[Array, Int64]:
    """(records of all sections, their number for each section).

    Where there are more than a header can say, one more goes first and holds the number.
    """
    rows = np.zeros(len(relocations.section), coff.RELOCATION)
    rows["address"] = relocations.offset
    rows["type"] = relocations.type
    symbol, exact = relocations.symbol, relocations.exact
    whole = (symbol < 0) & ~exact
    index = table.of_symbol[symbol]
    index[whole] = table.of_section[relocations.target_section[whole]]
    if exact.any():
        index[exact] = table.of_place[np.searchsorted(table.places, relocations.place[exact])]
    if (index < 0).any():
        raise AssertionError("a relocation has no symbol")
    rows["symbol"] = index
    overflow = np.flatnonzero(counts >= coff.MOST_RELOCATIONS)
    counts = counts.copy()
    if len(overflow):
        starts = np.cumsum(counts) - counts
        more = np.zeros(len(overflow), coff.RELOCATION)
        more["address"] = counts[overflow] + 1
        rows = np.insert(rows, starts[overflow], more)
        counts[overflow] += 1
    return rows, counts


def _without_safe_seh(
    program: Program, units: list[int], features: int, listed: dict[bytes, tuple[int, Int64, Int64]]
) -> tuple[str, ...]:
    """A warning where handlers are listed, and the object as a whole is not fit for SafeSEH."""
    if b".sxdata" not in listed or features & coff.FEAT_SAFE_SEH:
        return ()
    every = [program.units[n] for n in units]
    names = [u.name for u in every if not coff_unit(u).features & coff.FEAT_SAFE_SEH]
    return (
        "the library cannot be linked with /SAFESEH, as programs that do without "
        f"{warn.some(names)} can: no `@feat.00` there says that it is fit for it",
    )


def _warnings(
    program: Program, placed: Placed, live: Bool, left_out: tuple[tuple[str, str], ...]
) -> tuple[str, ...]:
    warnings: tuple[str, ...] = ()
    if left_out:
        members = warn.some([f"{name} ({why})" for name, why in left_out])
        warnings = (f"CodeView debug information is left out of {members}",)
    return (*warnings, *warn.private_cxx(program, live, placed.kept, warn.WINDOWS))


__all__ = ["MARKER_SECTION", "write"]
