"""Makes one COFF object: all that is decided before it is encoded."""

from __future__ import annotations

from functools import reduce

import numpy as np

from cargo_strip_hook.core.requests import PrelinkRequest, Strip
from cargo_strip_hook.formats.coff import codeview, directives, kinds, symtab
from cargo_strip_hook.formats.coff import debug as dbg
from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.addresses import Filled, Placed, assign, with_entries
from cargo_strip_hook.formats.coff.encode import CoffOutput, Extra
from cargo_strip_hook.formats.coff.keepers import keep_groups
from cargo_strip_hook.formats.coff.machine import Machine
from cargo_strip_hook.formats.coff.reader import coff_unit
from cargo_strip_hook.formats.coff.relocate import Taken, relocate
from cargo_strip_hook.formats.coff.xdata import by_record, share
from cargo_strip_hook.link import warnings as warn
from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.contents import Filling, make_contents
from cargo_strip_hook.link.link_map import link_map_rows
from cargo_strip_hook.link.model import (
    AtomFlag,
    Bool,
    Int64,
    Layout,
    Program,
    SpecialIndex,
    Unit,
)
from cargo_strip_hook.link.output import Relocations, SymbolTable
from cargo_strip_hook.link.symbols import symbol_names

MARKER_SECTION = b".cargo-strip-hook"
_NOT_LOADED = coff.SCN_LNK_INFO | coff.SCN_LNK_REMOVE | coff.SCN_ALIGN_1BYTES


def output(program: Program, live: Bool, layout: Layout, request: PrelinkRequest) -> CoffOutput:
    """All of the object. Raises `LinkError` for a reference that cannot be kept."""
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
    relocations, patches, taken = relocate(
        program, machine, live, placed, np.array(guarded) & alive
    )
    filling = Filling(patches, padding=machine.padding)
    contents = make_contents(program, placed, layout.atoms, filling)
    # what is shared asks for nothing by itself: the libraries' own objects do
    asking = [unit for unit in program.units if unit.index >= 0 and request.exports]
    asked = _asked(program, bool(asking))
    used = unique(np.concatenate([relocations.named, asked]))
    listed = _listed(program, live, placed, real, features, used, taken)

    filled, records = share(program, live, machine, Filled(placed, contents, relocations))
    link_map = link_map_rows(program, live & (filled.placed.section >= 0), filled.placed, 1)
    link_map = by_record(link_map, records)
    if request.target.archive_dialect != "coff":
        filled = keep_groups(program, machine, filled)
    warnings = _without_safe_seh(program, real, features, listed)
    if request.strip is Strip.NONE:
        debug = dbg.collect(program, machine, live, filled.placed)
        before = len(filled.placed.kinds) + len(debug.kinds)
        more = codeview.collect(program, machine, live, filled.placed, before)
        debug = dbg.combined(debug, more)
        filled = dbg.with_sections(filled, debug)
        link_map = np.concatenate([link_map, debug.link_map])
        warnings += _left_out(debug.left_out)
    placed, relocations = filled.placed, filled.relocations
    comdats = _comdats(program, placed, relocations)
    used = unique(np.concatenate([relocations.named, asked]))
    exact = relocations.location[relocations.exact]
    locations = unique(np.concatenate([exact, *(p for _, p, _ in listed.values())]))
    guards = [p for name, (_, p, _) in listed.items() if name == kinds.GUARDED_FUNCTIONS]
    functions = unique(np.concatenate([taken.locations, *guards]))
    marks = symtab.Marks(locations, functions, features)
    table = symtab.build(program, live, placed, comdats, used, marks, request.strip)
    return CoffOutput(
        program=program,
        live=live,
        placed=placed,
        contents=filled.contents,
        relocations=relocations,
        symbols=table,
        link_map=link_map,
        counted=(program.atoms["flags"] & AtomFlag.SEPARATE == 0) & (program.atoms["section"] >= 0),
        warnings=warnings,
        machine=machine,
        comdats=comdats,
        extra=_extra(asking, machine, table, listed, request.marker),
    )


def _extra(
    asking: list[Unit],
    machine: Machine,
    table: SymbolTable,
    listed: dict[bytes, tuple[int, Int64, Int64]],
    marker: bytes,
) -> list[Extra]:
    """Tables of symbol numbers, what files ask linkers for, and the marker."""
    extra = [
        Extra(name, flags, _numbers(table, where, symbols))
        for name, (flags, where, symbols) in listed.items()
    ]
    asked = directives.merge(
        [coff_unit(u).directives for u in asking],
        frozenset(table.defined),
        frozenset(table.undefined),
        b"_" if machine.number == coff.I386 else b"",
    )
    named = (b".drectve", asked), (MARKER_SECTION, marker)
    return extra + [Extra(name, _NOT_LOADED, text) for name, text in named if text]


def _asked(program: Program, by_files: bool) -> Int64:
    """What the object needs though no relocation names it, and nobody here defines.

    That are names that cross, and those which files name without a relocation or by `/INCLUDE`.
    """
    crossing = np.array(sorted(program.crossing), np.int64)
    if not by_files:
        return crossing
    rows = program.relocations
    chosen = rows[(program.atoms["flags"][rows["atom"]] & AtomFlag.ROOT != 0) & (rows["type"] == 0)]
    named = [chosen["symbol"].astype(np.int64)]
    for base, unit in zip(program.symbol_base.tolist(), program.units, strict=False):
        named.append(base + coff_unit(unit).asked)
    asked = program.definition[np.concatenate(named)].astype(np.int64)
    missing = asked[program.symbols["atom"][asked] == SpecialIndex.UNDEFINED]
    return np.concatenate([missing, crossing])


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
    needed_symbols: Int64,
    taken: Taken,
) -> dict[bytes, tuple[int, Int64, Int64]]:
    """For each table of symbol numbers: flags, locations and program symbols of what lives.

    `needed_symbols` are those that the object refers to, whether or not it defines them.

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
    used[needed_symbols] = True
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
        where = placed.location(home) + program.symbols["value"][symbols]
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


def _numbers(table: SymbolTable, locations: Int64, symbols: Int64) -> bytes:
    """The contents of a table of symbol numbers."""
    of_location = table.index.at(locations)
    rows = np.sort(np.concatenate([of_location, table.index.of_symbol[symbols]]))
    return rows.astype("<u4").tobytes()


def _comdats(program: Program, placed: Placed, relocations: Relocations) -> symtab.OutputSections:
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
        placed.sections.size,
        np.bincount(relocations.section, minlength=count).astype(np.int64),
        selection,
        parent,
    )


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


def _left_out(members: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    if not members:
        return ()
    reasons = warn.some([f"{name} ({why})" for name, why in members])
    return (f"CodeView debug information is left out of {reasons}",)


__all__ = ["MARKER_SECTION", "output"]
