"""The symbol table of the new object: exports and undefined names external, all else local.

Local symbols make the subsections. Where people need no name, a symbol is called `l`: linkers take
it as the start of an atom and leave it out of what they link (ld64, `inclusionFromSymbol`), and
relocations find local symbols by number, so that one name does for all.
"""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho import marks
from cargo_strip_hook.formats.macho.addresses import Placed
from cargo_strip_hook.formats.macho.file import STEP
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
from cargo_strip_hook.link.output import (
    Relocations,
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
    laid_out,
    merged,
    numbered,
    select,
    symbol_names,
    without_reference,
)

UNNAMED = b"l"
# what of a definition's n_desc stays: weak definitions, resolvers, cold functions, keep-me marks
_DESC = 0x05F0


def build(
    program: Program,
    live: Bool,
    placed: Placed,
    kept: tuple[Bool, Int32],
    relocations: Relocations,
    strip: Strip,
) -> SymbolTable:
    """Make the table. `kept`: see `kept_symbols`."""
    is_kept, extra = kept
    here = laid_out(program, live, placed.section)
    wanted = _for_people(program, here, placed).kept(strip)
    # a linker loads for names that cross what nothing refers to
    crossing = np.array(sorted(program.crossing), np.int64)
    outside = unique(np.concatenate([relocations.named, crossing]))
    chosen = select(program, here, is_kept, outside, wanted)
    names = _names(program, placed, chosen.named)
    if strip is Strip.NONE:
        # a debug map finds a function by its name
        names = dict(zip(names, numbered(list(names.values())), strict=True))
    rooted = _rooted(program, live, placed)
    absolute = entries_of(program, placed, chosen.absolute)
    exports = entries_of(program, placed, chosen.exports.rows)
    export_locations = locations_of(exports)
    given = np.flatnonzero(isin(chosen.exports.rows, np.array(sorted(program.given), np.int64)))
    local_locations = _local_locations(placed, relocations, names, rooted, export_locations)
    # a name that only objects of a set know tells people nothing
    again = isin(export_locations, np.array(list(names), np.int64))
    again &= ~isin(export_locations, np.delete(export_locations, given))
    local = entries_at(unique(np.concatenate([local_locations, export_locations[again]])))
    missing = merged(chosen.undefined, chosen.commons)

    strings = StringTable()
    used = _local_rows(local, placed, rooted, names, strings)
    defined = np.flatnonzero(here)
    locations = locations_of(entries_of(program, placed, defined))
    used["desc"] |= marks.of_locations(program, defined, locations, locations_of(local))
    numbers = _absolute_rows(program, absolute, strings)
    external = _export_rows(program, placed, chosen.exports, rooted, extra, strings)
    # such a name stands for the member's own symbol, with what that says of the function
    inner = export_locations[given]
    external["desc"][given] |= marks.of_locations(program, defined, locations, inner)
    rows = np.concatenate([used, numbers, external, _missing_rows(program, missing, strings)])
    entries = [local, absolute, exports, entries_of(program, placed, missing.rows)]
    every = np.concatenate(entries)
    standing = np.flatnonzero(every["section"] >= 0)
    listed = ~isin(chosen.exports.rows, extra)
    shown = [chosen.exports.names[n] for n in np.flatnonzero(listed).tolist()]
    return SymbolTable(
        rows,
        strings.bytes(8),
        len(local) + len(absolute),
        len(exports),
        index_symbols(program, every, np.arange(len(every)), standing),
        np.arange(1, len(placed.headers) + 1),  # a relocation says the section's own number
        tuple(sorted(shown + chosen.commons.names)),
        tuple(chosen.undefined.names),
    )


def _local_locations(
    placed: Placed,
    relocations: Relocations,
    names: dict[int, bytes],
    rooted: Int64,
    external: Int64,
) -> Int64:
    """The locations that need a local symbol, sorted: those that no external symbol stands at."""
    needed = unique(
        np.concatenate(
            [
                placed.blocks,
                relocations.location[relocations.symbol < 0],
                np.array(sorted(names), np.int64),
                _rooted_literals(placed, rooted),
            ]
        )
    )
    local: Int64 = needed[~isin(needed, external)]
    return local


def _local_rows(
    entries: Array, placed: Placed, rooted: Int64, names: dict[int, bytes], strings: StringTable
) -> Array:
    """NLIST records of local symbols in sections; names go into `strings`, as below."""
    rows, locations = _defined(entries, placed, mo.N_SECT), locations_of(entries)
    rows["strx"] = [strings.add(names.get(p, UNNAMED)) for p in locations.tolist()]
    rows["desc"][isin(locations, rooted)] |= mo.N_NO_DEAD_STRIP
    return rows


def _absolute_rows(program: Program, entries: Array, strings: StringTable) -> Array:
    """NLIST records of local absolute symbols."""
    rows = np.zeros(len(entries), mo.NLIST)
    rows["strx"] = [strings.add(name) for name in symbol_names(program, entries["symbol"])]
    rows["type"], rows["value"] = mo.N_ABS, entries["value"]
    return rows


def _export_rows(
    program: Program,
    placed: Placed,
    exports: Named,
    rooted: Int64,
    personalities: Int32,
    strings: StringTable,
) -> Array:
    """NLIST records of external definitions."""
    symbols = program.symbols[exports.rows]
    entries = entries_of(program, placed, exports.rows)
    inside = entries["section"] >= 0
    rows = np.zeros(len(symbols), mo.NLIST)
    rows[inside] = _defined(entries[inside], placed, mo.N_SECT | mo.N_EXT)
    rows["strx"] = [strings.add(name) for name in exports.names]
    rows["type"][~inside] = mo.N_ABS | mo.N_EXT
    rows["value"][~inside] = entries["value"][~inside]
    rows["desc"][inside & isin(locations_of(entries), rooted)] |= mo.N_NO_DEAD_STRIP
    rows["type"][symbols["visibility"] == HIDDEN] |= mo.N_PEXT
    rows["desc"] |= marks.descs(program)[exports.rows] & _DESC
    # coalesces with that of any other such library, and no linked image exports it
    personality = isin(exports.rows, personalities)
    rows["type"][personality] = mo.N_SECT | mo.N_EXT | mo.N_PEXT
    rows["desc"][personality] = mo.N_WEAK_DEF
    return rows


def _missing_rows(program: Program, missing: Named, strings: StringTable) -> Array:
    """NLIST records of undefined and common symbols."""
    symbols = program.symbols[missing.rows]
    common = symbols["atom"] == SpecialIndex.COMMON
    rows = np.zeros(len(symbols), mo.NLIST)
    rows["strx"] = [strings.add(name) for name in missing.names]
    rows["type"] = mo.N_UNDF | mo.N_EXT
    rows["value"][common] = symbols["size"][common]
    aligns = symbols["value"][common].tolist()
    rows["desc"][common] = [(align.bit_length() - 1) << 8 for align in aligns]
    strong = program.symbols["native"] & WEAK_REFERENCE == 0
    weak = without_reference(program, strong)[missing.rows]
    rows["desc"][~common & weak] = mo.N_WEAK_REF
    return rows


def _defined(entries: Array, placed: Placed, kind: int) -> Array:
    """NLIST records of this n_type, nameless, of these ENTRY in sections.

    Those inside of a block are alternate entries.
    """
    rows = np.zeros(len(entries), mo.NLIST)
    section = entries["section"]
    rows["type"], rows["sect"] = kind, section + 1
    rows["value"] = placed.address[section] + entries["value"]
    inner = ~isin(locations_of(entries), placed.blocks) & ~placed.plain[section]
    rows["desc"][inner] = mo.N_ALT_ENTRY
    return rows


def _for_people(program: Program, here: Bool, placed: Placed) -> Names:
    """The names of functions and, for debuggers, all others.

    Linkers find Objective-C's method lists by the names of their symbols: those always stay.
    """
    symbols = program.symbols
    atom = np.maximum(symbols["atom"], 0)
    plain = here & (symbols["name"] != ANCHOR)
    plain &= program.atoms["flags"][atom] & (AtomFlag.SEPARATE | AtomFlag.MERGEABLE) == 0
    sought = _is_objective(placed)[placed.section[atom]] | (marks.descs(program) & marks.NAMED != 0)
    return Names(plain & (symbols["kind"] == KIND_FUNCTION), plain, plain & sought)


def _is_objective(placed: Placed) -> Bool:
    """bool for each output section: whether linkers look for the names in it."""
    return np.array([s.section.startswith(b"__objc_") for s in placed.headers], np.bool_)


def _names(program: Program, placed: Placed, rows: Int64) -> dict[int, bytes]:
    """One name for each location of the symbols `rows`, a global one if there is any."""
    objective = _is_objective(placed)
    names: dict[int, bytes] = {}
    strong: set[int] = set()
    for name, location, binding in zip(
        symbol_names(program, rows),
        locations_of(entries_of(program, placed, rows)).tolist(),
        program.symbols["binding"][rows].tolist(),
        strict=True,
    ):
        if location in strong:
            continue
        if name[:1] in (b"L", b"") or name.startswith(b"ltmp"):
            continue
        if name[:1] == b"l" and not objective[location >> STEP]:
            continue
        if location not in names or binding != Binding.LOCAL:
            names[location] = name
        if binding != Binding.LOCAL:
            strong.add(location)
    return dict(sorted(names.items()))


def _rooted(program: Program, live: Bool, placed: Placed) -> Int64:
    """The blocks that a linker has to keep: those with an atom that is a root."""
    roots = np.flatnonzero(live & (program.atoms["flags"] & AtomFlag.ROOT != 0))
    blocks = unique(placed.block[roots])
    locations: Int64 = placed.block_start[blocks[blocks >= 0]]
    return locations


def _rooted_literals(placed: Placed, rooted: Int64) -> Int64:
    """Of the `rooted` locations those of literals that only a mark of their own keeps."""
    types = (mo.S_CSTRING_LITERALS, *mo.LITERAL_SIZES)
    loose = [
        s.flags & mo.SECTION_TYPE in types and not s.flags & mo.S_ATTR_NO_DEAD_STRIP
        for s in placed.headers
    ]
    literals: Int64 = rooted[np.array(loose, np.bool_)[rooted >> STEP]]
    return literals
