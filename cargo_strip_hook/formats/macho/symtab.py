"""The symbol table of the new object: exports and undefined names external, all else local.

Local symbols make the subsections. Where people need no name, a symbol is called `l`: linkers take
it as the start of an atom and leave it out of what they link (ld64, `inclusionFromSymbol`), and
relocations find local symbols by number, so that one name does for all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho import marks
from cargo_strip_hook.formats.macho.file import STEP
from cargo_strip_hook.formats.macho.place import Placed
from cargo_strip_hook.formats.macho.reader import (
    ANCHOR,
    HIDDEN,
    KIND_FUNCTION,
    WEAK_REFERENCE,
)
from cargo_strip_hook.link.arrays import isin, unique
from cargo_strip_hook.link.model import (
    Array,
    AtomFlag,
    Binding,
    Bool,
    Int32,
    Int64,
    Program,
    SpecialIndex,
)
from cargo_strip_hook.link.strings import StringTable, string_at

UNNAMED = b"l"
# what of a definition's n_desc stays: weak definitions, resolvers, cold functions, keep-me marks
_DESC = 0x05F0


@dataclass(frozen=True, slots=True)
class SymbolTable:
    """`rows` are NLIST records: `locals` local ones, `externals` definitions, the undefined ones.

    `places` (sorted) have the symbol `of_place`; `of_symbol` is the entry of a program's symbol.
    """

    rows: Array
    strings: bytes
    locals: int
    externals: int
    places: Int64
    of_place: Int64
    of_symbol: dict[int, int]
    defined: tuple[bytes, ...]
    undefined: tuple[bytes, ...]

    def numbers(self, targets: Int64) -> Int64:
        """The symbol number of each target (see `Rewritten.target`)."""
        by_place = np.searchsorted(self.places, np.maximum(targets, 0))
        out: Int64 = self.of_place[np.minimum(by_place, len(self.of_place) - 1)]
        outside = np.flatnonzero(targets < 0)
        if len(outside):
            known, inverse = np.unique(~targets[outside], return_inverse=True)
            values = np.array([self.of_symbol[k] for k in known.tolist()], np.int64)
            out[outside] = values[inverse]
        return out


def symbol_names(program: Program, symbols: Int64) -> list[bytes]:
    """The names of program-wide symbols; an anchor's is empty."""
    numbers = np.searchsorted(program.symbol_base, symbols, side="right") - 1
    local = (symbols - program.symbol_base[numbers]).tolist()
    starts = program.symbols["name"][symbols].tolist()
    found = []
    for number, mine, start in zip(numbers.tolist(), local, starts, strict=True):
        unit = program.units[number]
        if mine >= unit.first_global:
            found.append(unit.names[mine - unit.first_global])
        else:
            found.append(b"" if start == ANCHOR else string_at(unit.native.symbol_strings, start))
    return found


def symbol_name(program: Program, symbol: int) -> bytes:
    """The name of one program-wide symbol."""
    return symbol_names(program, np.array([symbol]))[0]


def build(
    program: Program,
    live: Bool,
    placed: Placed,
    kept: tuple[Bool, Int32],
    targets: Int64,
    strip: Strip,
) -> SymbolTable:
    """Make the table. `targets`: all targets of relocations; `kept`: see `kept_symbols`."""
    is_kept, extra = kept
    symbols = program.symbols
    names = _names(program, live, placed, is_kept, strip)
    exported = np.flatnonzero(is_kept & (symbols["atom"] != SpecialIndex.COMMON))
    commons = np.flatnonzero(is_kept & (symbols["atom"] == SpecialIndex.COMMON))
    external_places = _places(program, placed, exported)
    rooted = _rooted(program, live, placed)
    needed = unique(
        np.concatenate(
            [
                placed.blocks,
                targets[targets >= 0],
                np.array(sorted(names), np.int64),
                _rooted_literals(placed, rooted),
            ]
        )
    )
    local_places = needed[~isin(needed, external_places)]

    outside = unique(~targets[targets < 0])
    absolute = outside[(symbols["atom"][outside] == SpecialIndex.ABSOLUTE) & ~is_kept[outside]]
    undefined = outside[symbols["atom"][outside] == SpecialIndex.UNDEFINED]
    by_name = sorted(zip(symbol_names(program, exported), exported.tolist(), strict=True))
    others = np.concatenate([undefined, commons])
    missing = sorted(zip(symbol_names(program, others), others.tolist(), strict=True))

    count = len(local_places) + len(absolute) + len(by_name) + len(missing)
    rows = np.zeros(count, mo.NLIST)
    strings = StringTable()
    used = rows[: len(local_places)]
    if strip is Strip.NONE:
        _tell_apart(names)
    used["strx"] = [strings.add(names.get(p, UNNAMED)) for p in local_places.tolist()]
    _fill_places(used, local_places, placed)
    used["type"] = mo.N_SECT
    used["desc"][isin(local_places, rooted)] |= mo.N_NO_DEAD_STRIP
    here = _here(program, live, placed)
    used["desc"] |= marks.of_places(program, here, _places(program, placed, here), local_places)
    at = len(local_places)
    for symbol in absolute.tolist():
        where = strings.add(symbol_name(program, symbol))
        rows[at] = (where, mo.N_ABS, 0, 0, int(symbols["value"][symbol]) & ((1 << 64) - 1))
        at += 1
    first_external = at
    desc = marks.descs(program)
    personality = set(extra.tolist())
    of_symbol: dict[int, int] = {s: len(local_places) + i for i, s in enumerate(absolute.tolist())}
    place_of = dict(zip(exported.tolist(), external_places.tolist(), strict=True))
    taken: dict[int, int] = {}
    always = set(rooted[isin(rooted, external_places)].tolist())
    for name, symbol in by_name:
        row = rows[at : at + 1]
        row["strx"] = strings.add(name)
        place = place_of[symbol]
        if symbols["atom"][symbol] == SpecialIndex.ABSOLUTE:
            row["type"], row["value"] = mo.N_ABS | mo.N_EXT, symbols["value"][symbol]
        else:
            _fill_places(row, np.array([place]), placed)
            row["type"] = mo.N_SECT | mo.N_EXT
            row["desc"] |= mo.N_NO_DEAD_STRIP if place in always else 0
            taken.setdefault(place, at)
        if symbols["visibility"][symbol] == HIDDEN:
            row["type"] |= mo.N_PEXT
        row["desc"] |= int(desc[symbol]) & _DESC
        if symbol in personality:
            # coalesces with that of any other such library, and no linked image exports it
            row["type"] = mo.N_SECT | mo.N_EXT | mo.N_PEXT
            row["desc"] = mo.N_WEAK_DEF
        of_symbol[symbol] = at
        at += 1
    externals = at - first_external
    weak = _weak_references(program)
    for name, symbol in missing:
        row = rows[at : at + 1]
        row["strx"], row["type"] = strings.add(name), mo.N_UNDF | mo.N_EXT
        if symbols["atom"][symbol] == SpecialIndex.COMMON:
            row["value"] = symbols["size"][symbol]
            row["desc"] = (int(symbols["value"][symbol]).bit_length() - 1) << 8
        elif weak[symbol]:
            row["desc"] = mo.N_WEAK_REF
        of_symbol[symbol] = at
        at += 1

    places = np.concatenate([local_places, np.array(sorted(taken), np.int64)])
    numbers = np.concatenate(
        [np.arange(len(local_places)), np.array([taken[p] for p in sorted(taken)], np.int64)]
    )
    order = np.argsort(places)
    shown = [n for n, s in by_name if s not in personality]
    shown += [n for n, s in missing if symbols["atom"][s] == SpecialIndex.COMMON]
    return SymbolTable(
        rows,
        strings.bytes(8),
        first_external,
        externals,
        places[order],
        numbers[order],
        of_symbol,
        tuple(sorted(shown)),
        tuple(n for n, s in missing if symbols["atom"][s] != SpecialIndex.COMMON),
    )


def _fill_places(rows: Array, places: Int64, placed: Placed) -> None:
    """Section and address of defined symbols; those inside of a block are alternate entries."""
    section = places >> STEP
    rows["sect"] = section + 1
    rows["value"] = placed.address[section] + (places & ((1 << STEP) - 1))
    inner = ~isin(places, placed.blocks) & ~placed.plain[section]
    rows["desc"][inner] |= mo.N_ALT_ENTRY


def _here(program: Program, live: Bool, placed: Placed) -> Int64:
    """The symbols of the program that lie in what was placed."""
    atom = program.symbols["atom"]
    inside = np.where(atom >= 0, atom, 0)
    return np.flatnonzero((atom >= 0) & live[inside] & (placed.section[inside] >= 0))


def _places(program: Program, placed: Placed, rows: Array) -> Int64:
    atoms = program.symbols["atom"][rows]
    inside = np.where(atoms >= 0, atoms, 0)
    keys = placed.key(inside) + program.symbols["value"][rows]
    return np.where(atoms >= 0, keys, -1)


def _names(
    program: Program, live: Bool, placed: Placed, kept: Bool, strip: Strip
) -> dict[int, bytes]:
    """The local names that stay, by place: of functions, and of data beside debug information.

    Linkers find Objective-C's method lists by the names of their symbols: those always stay.
    """
    symbols = program.symbols
    atom = np.where(symbols["atom"] >= 0, symbols["atom"], 0)
    here = np.zeros(len(symbols), np.bool_)
    here[_here(program, live, placed)] = True
    here &= ~kept
    here &= (symbols["name"] != ANCHOR) & (program.definition == np.arange(len(symbols)))
    here &= program.atoms["flags"][atom] & (AtomFlag.SEPARATE | AtomFlag.MERGEABLE) == 0
    objective = np.array([s.section.startswith(b"__objc_") for s in placed.sections], np.bool_)
    wanted = objective[placed.section[atom]] | (marks.descs(program) & marks.NAMED != 0)
    if strip is Strip.DEBUGINFO:
        wanted = wanted | (symbols["kind"] == KIND_FUNCTION)
    if strip is not Strip.NONE:
        here &= wanted
    rows = np.flatnonzero(here)
    found: dict[int, bytes] = {}
    strong: set[int] = set()
    for name, place, binding in zip(
        symbol_names(program, rows),
        _places(program, placed, rows).tolist(),
        symbols["binding"][rows].tolist(),
        strict=True,
    ):
        if place in strong:
            continue
        if name[:1] in (b"L", b"") or name.startswith(b"ltmp"):
            continue
        if name[:1] == b"l" and not objective[place >> STEP]:
            continue
        if place not in found or binding != Binding.LOCAL:
            found[place] = name
        if binding != Binding.LOCAL:
            strong.add(place)
    return found


def _tell_apart(names: dict[int, bytes]) -> None:
    """Number repeated names: a debug map finds a function of an object by its name."""
    seen: dict[bytes, int] = {}
    for place in sorted(names):
        name = names[place]
        count = seen[name] = seen.get(name, -1) + 1
        if count:
            names[place] = b"%b.%d" % (name, count)


def _rooted(program: Program, live: Bool, placed: Placed) -> Int64:
    """The blocks that a linker has to keep: those with an atom that is a root."""
    roots = np.flatnonzero(live & (program.atoms["flags"] & AtomFlag.ROOT != 0))
    blocks = unique(placed.block[roots])
    found: Int64 = placed.block_place[blocks[blocks >= 0]]
    return found


def _rooted_literals(placed: Placed, rooted: Int64) -> Int64:
    """Of the `rooted` places those of literals that only a mark of their own keeps."""
    kinds = (mo.S_CSTRING_LITERALS, *mo.LITERAL_SIZES)
    loose = [
        s.flags & mo.SECTION_TYPE in kinds and not s.flags & mo.S_ATTR_NO_DEAD_STRIP
        for s in placed.sections
    ]
    found: Int64 = rooted[np.array(loose, np.bool_)[rooted >> STEP]]
    return found


def _weak_references(program: Program) -> Bool:
    """Whether all references to each undefined symbol are weak."""
    symbols = program.symbols
    strong = np.zeros(len(symbols), np.bool_)
    mask = (symbols["atom"] == SpecialIndex.UNDEFINED) & (symbols["native"] & WEAK_REFERENCE == 0)
    strong[program.definition[mask]] = True
    return ~strong
