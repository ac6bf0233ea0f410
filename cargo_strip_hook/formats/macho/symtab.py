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

    `places` (sorted) have the symbol `of_place`, the first of equal ones. `of_symbol` is the entry
    of a program's symbol.
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
    names = []
    for number, mine, start in zip(numbers.tolist(), local, starts, strict=True):
        unit = program.units[number]
        if mine >= unit.first_global:
            names.append(unit.names[mine - unit.first_global])
        else:
            names.append(b"" if start == ANCHOR else string_at(unit.native.symbol_strings, start))
    return names


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
    names = _names(program, live, placed, is_kept, strip)
    if strip is Strip.NONE:
        names = _told_apart(names)
    rooted = _rooted(program, live, placed)
    exports = _exports(program, placed, is_kept)
    local_places = _local_places(placed, targets, names, rooted, exports.places)
    absolute, missing = _outside(program, is_kept, targets)

    strings = StringTable()
    used = _local_rows(local_places, placed, rooted, names, strings)
    here = _here(program, live, placed)
    used["desc"] |= marks.of_places(program, here, _places(program, placed, here), local_places)
    numbers = _absolute_rows(program, absolute, strings)
    external = _export_rows(program, placed, exports, rooted, extra, strings)
    rows = np.concatenate([used, numbers, external, _missing_rows(program, missing, strings)])

    first_external = len(used) + len(numbers)
    later = [*absolute.tolist(), *exports.symbols.tolist(), *(s for _, s in missing)]
    inside = np.flatnonzero(exports.places >= 0)
    places = np.concatenate([local_places, exports.places[inside]])
    of_place = np.concatenate([np.arange(len(used)), first_external + inside])
    order = np.argsort(places, kind="stable")  # the first name of a place stands for it
    commons = [n for n, s in missing if program.symbols["atom"][s] == SpecialIndex.COMMON]
    listed = ~isin(exports.symbols, extra)
    shown = [exports.names[n] for n in np.flatnonzero(listed).tolist()]
    return SymbolTable(
        rows,
        strings.bytes(8),
        first_external,
        len(external),
        places[order],
        of_place[order],
        dict(zip(later, range(len(used), len(rows)), strict=True)),
        tuple(sorted(shown + commons)),
        tuple(n for n, s in missing if program.symbols["atom"][s] != SpecialIndex.COMMON),
    )


@dataclass(frozen=True, slots=True)
class _Exports:
    """The external definitions by name. `places` are -1 for what is absolute."""

    names: list[bytes]
    symbols: Int64
    places: Int64


def _exports(program: Program, placed: Placed, kept: Bool) -> _Exports:
    """The external definitions, without common symbols: Mach-O counts these as undefined."""
    symbols = np.flatnonzero(kept & (program.symbols["atom"] != SpecialIndex.COMMON))
    by_name = sorted(zip(symbol_names(program, symbols), symbols.tolist(), strict=True))
    ordered = np.array([symbol for _, symbol in by_name], np.int64)
    return _Exports([name for name, _ in by_name], ordered, _places(program, placed, ordered))


def _local_places(
    placed: Placed, targets: Int64, names: dict[int, bytes], rooted: Int64, external: Int64
) -> Int64:
    """The places that need a local symbol, sorted: those that no external symbol stands at."""
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
    local: Int64 = needed[~isin(needed, external)]
    return local


def _outside(program: Program, kept: Bool, targets: Int64) -> tuple[Int64, list[tuple[bytes, int]]]:
    """(absolute symbols that are referred to, what the consumer supplies by name).

    Both are program-wide symbols; the consumer supplies common symbols, too.
    """
    atom = program.symbols["atom"]
    outside = unique(~targets[targets < 0])
    absolute = outside[(atom[outside] == SpecialIndex.ABSOLUTE) & ~kept[outside]]
    undefined = outside[atom[outside] == SpecialIndex.UNDEFINED]
    commons = np.flatnonzero(kept & (atom == SpecialIndex.COMMON))
    missing = np.concatenate([undefined, commons])
    return absolute, sorted(zip(symbol_names(program, missing), missing.tolist(), strict=True))


def _local_rows(
    places: Int64, placed: Placed, rooted: Int64, names: dict[int, bytes], strings: StringTable
) -> Array:
    """NLIST records of local symbols at these places; names go into `strings`, as below."""
    rows = _defined(places, placed, mo.N_SECT)
    rows["strx"] = [strings.add(names.get(p, UNNAMED)) for p in places.tolist()]
    rows["desc"][isin(places, rooted)] |= mo.N_NO_DEAD_STRIP
    return rows


def _absolute_rows(program: Program, absolute: Int64, strings: StringTable) -> Array:
    """NLIST records of local absolute symbols."""
    rows = np.zeros(len(absolute), mo.NLIST)
    rows["strx"] = [strings.add(name) for name in symbol_names(program, absolute)]
    rows["type"], rows["value"] = mo.N_ABS, program.symbols["value"][absolute]
    return rows


def _export_rows(
    program: Program,
    placed: Placed,
    exports: _Exports,
    rooted: Int64,
    personalities: Int32,
    strings: StringTable,
) -> Array:
    """NLIST records of external definitions."""
    symbols = program.symbols[exports.symbols]
    inside = symbols["atom"] != SpecialIndex.ABSOLUTE
    rows = np.zeros(len(symbols), mo.NLIST)
    rows[inside] = _defined(exports.places[inside], placed, mo.N_SECT | mo.N_EXT)
    rows["strx"] = [strings.add(name) for name in exports.names]
    rows["type"][~inside] = mo.N_ABS | mo.N_EXT
    rows["value"][~inside] = symbols["value"][~inside]
    rows["desc"][inside & isin(exports.places, rooted)] |= mo.N_NO_DEAD_STRIP
    rows["type"][symbols["visibility"] == HIDDEN] |= mo.N_PEXT
    rows["desc"] |= marks.descs(program)[exports.symbols] & _DESC
    # coalesces with that of any other such library, and no linked image exports it
    personality = isin(exports.symbols, personalities)
    rows["type"][personality] = mo.N_SECT | mo.N_EXT | mo.N_PEXT
    rows["desc"][personality] = mo.N_WEAK_DEF
    return rows


def _missing_rows(
    program: Program, missing: list[tuple[bytes, int]], strings: StringTable
) -> Array:
    """NLIST records of undefined and common symbols."""
    chosen = np.array([symbol for _, symbol in missing], np.int64)
    symbols = program.symbols[chosen]
    common = symbols["atom"] == SpecialIndex.COMMON
    rows = np.zeros(len(chosen), mo.NLIST)
    rows["strx"] = [strings.add(name) for name, _ in missing]
    rows["type"] = mo.N_UNDF | mo.N_EXT
    rows["value"][common] = symbols["size"][common]
    aligns = symbols["value"][common].tolist()
    rows["desc"][common] = [(align.bit_length() - 1) << 8 for align in aligns]
    rows["desc"][~common & _weak_references(program)[chosen]] = mo.N_WEAK_REF
    return rows


def _defined(places: Int64, placed: Placed, kind: int) -> Array:
    """NLIST records of this n_type at these places, nameless.

    Those inside of a block are alternate entries.
    """
    rows = np.zeros(len(places), mo.NLIST)
    section = places >> STEP
    rows["type"], rows["sect"] = kind, section + 1
    rows["value"] = placed.address[section] + (places & ((1 << STEP) - 1))
    inner = ~isin(places, placed.blocks) & ~placed.plain[section]
    rows["desc"][inner] = mo.N_ALT_ENTRY
    return rows


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


def _told_apart(names: dict[int, bytes]) -> dict[int, bytes]:
    """The names by place, repeated ones numbered: a debug map finds a function by its name."""
    counts: dict[bytes, int] = {}
    apart: dict[int, bytes] = {}
    for place, name in sorted(names.items()):
        count = counts[name] = counts.get(name, -1) + 1
        apart[place] = b"%b.%d" % (name, count) if count else name
    return apart


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
