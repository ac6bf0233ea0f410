"""What headers and symbols of the result say is what the original promised.

Sources: Microsoft PE/COFF specification, "Section Flags" and "Type Representation"; LLVM's lld,
`COFF/Chunks.cpp` and `COFF/SymbolTable.cpp` (commons, and which of several definitions counts).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cargo_strip_hook.verify.arrays import is_among, positions, unique
from cargo_strip_hook.verify.coff.apart import inside
from cargo_strip_hook.verify.coff.compare import Made
from cargo_strip_hook.verify.coff.locations import STEP, Definitions, Pair, alignment
from cargo_strip_hook.verify.coff.read import (
    ABSOLUTE,
    ALIGN,
    ASSOCIATIVE,
    BSS,
    CODE,
    COMDAT,
    DATA,
    EXTERNAL,
    LARGEST,
    OVERFLOW,
    STATIC,
    WEAK,
    Array,
    Object,
)
from cargo_strip_hook.verify.kit.names import encoded, shown
from cargo_strip_hook.verify.loading import Loading

_OF_FILE = ALIGN | COMDAT | OVERFLOW
_FUNCTION = 0x20
_RDATA, _ZEROS, _DEBUG, _TOLD = 0x4000_0040, 0xC000_0080, 0x4200_0040, 0x0000_0A00
_TABLES = (b".sxdata", b".gfids$y", b".giats$y", b".gljmp$y", b".gehcont$y")
_LABEL, _LEADER, _FEATURES = b".L", b".comdat", b"@feat.00"
# what a name tells of is in the name: pointers of MinGW, constants and strings of MSVC
_BY_NAME = (b".refptr.", b"__real@", b"__xmm@", b"__ymm@", b"__zmm@", b"??_C@_")
_Names = dict[int, set[bytes]]
LISTS = (b".CRT$", b".ctors", b".dtors", b".rtc$")


def check_sections(pair: Pair, made: Made) -> None:
    """Characteristics and alignment are those of what is in a section, and no others."""
    o, rows = pair.after, pair.rows
    every = np.concatenate([m.sections["flags"] for m in pair.objects]).astype(np.int64)
    mine = every[pair.section]
    home = rows["out_section"]
    flags = o.sections["flags"].astype(np.int64)
    # what is zero may become part of data
    ignored = np.where(mine & BSS != 0, _OF_FILE | BSS | DATA, _OF_FILE)
    other = (mine ^ flags[home]) & ~ignored
    for number in unique(home[other != 0]).tolist():
        pair.findings.add("a section has other characteristics", shown(o.names[number]))
    room = np.zeros(len(flags), np.int64)
    np.maximum.at(room, home, alignment(mine))
    held = room > 0
    for number, align in _of_made(pair, made):
        room[number] = max(room[number], align)
        if not held[number]:
            kind = _ZEROS if flags[number] & BSS else _RDATA
            if flags[number] & ~_OF_FILE != kind:
                pair.findings.add("a section has other characteristics", shown(o.names[number]))
    given = alignment(flags)
    others = np.zeros(len(flags), np.bool_)  # what other libraries have there may be aligned more
    if o.apart is not None:
        others[o.apart[0] >> STEP] = True
    wrong = (room > 0) & (given != room) & ~(others & (given > room))
    for number in np.flatnonzero(wrong).tolist():
        text = f"{shown(o.names[number])}[{number}] is aligned to {int(given[number])} bytes"
        pair.findings.add("another alignment", f"{text} instead of {int(room[number])}")
    for number in np.flatnonzero((room == 0) & ~others).tolist():
        if number:
            _check_told(pair, number, int(flags[number]))
    _check_whole(pair)
    _check_gaps(pair, made)


def _of_made(pair: Pair, made: Made) -> Iterator[tuple[int, int]]:
    """(section, alignment in bytes) of commons and import pointers; checks where these are."""
    pointer = 4 if pair.after.machine == 0x14C else 8
    aligned = _aligned(pair)
    for name, location in (*made.common.items(), *made.pointer.items()):
        align = pointer
        if name in made.common:
            size = _common_size(pair, name)
            align = max(min(32, 1 << (size - 1).bit_length()), aligned.get(name, 1))
        if (location & ((1 << STEP) - 1)) % align:
            text = f"{shown(pair.names.text[name])} is not aligned to {align} bytes"
            pair.findings.add("a common symbol", text)
        yield location >> STEP, align


def _aligned(pair: Pair) -> dict[int, int]:
    """What `-aligncomm` asks for, by the number of the name."""
    found: dict[int, int] = {}
    for o in pair.objects:
        for word in o.directives:
            key, _, value = word[1:].replace(b'"', b"").partition(b":")
            name, _, power = value.rpartition(b",")
            if key.lower() == b"aligncomm" and power.isdigit() and int(power) < 14:
                number = pair.names.number.get(name, -1)
                found[number] = max(found.get(number, 1), 1 << int(power))
    return found


def _check_told(pair: Pair, number: int, flags: int) -> None:
    """A section that is for linkers or debuggers has the characteristics of its kind."""
    name = pair.after.names[number]
    if name in (b".drectve", b".cargo-strip-hook"):
        good = flags == _TOLD | 0x10_0000
    elif name.startswith(b".debug$"):
        good = flags & ~(COMDAT | OVERFLOW) == _DEBUG | 0x30_0000
    elif name.startswith(b".debug_"):
        good = flags & ~(ALIGN | OVERFLOW) == _DEBUG
    elif name in _TABLES:
        said = {
            int(o.sections["flags"][n]) & ~_OF_FILE
            for o in pair.objects
            for n in range(1, len(o.names))
            if o.names[n] == name
        }
        good = flags & ALIGN == 0x30_0000 and flags & ~ALIGN in said | {_RDATA}
    else:
        good = not int(pair.after.sections["size"][number])
    if not good:
        pair.findings.add("other characteristics than its kind has", shown(name))


def _check_whole(pair: Pair) -> None:
    """Pieces are whole sections, but for entries and records of unwind information."""
    tables = [o.unwind_records | o.unwind_tables for o in pair.objects]
    sizes = np.concatenate([o.sections["size"] for o in pair.objects]).astype(np.int64)
    whole = (pair.rows["offset"] == 0) & (pair.rows["size"] == sizes[pair.section])
    for location in pair.location[~whole & ~np.concatenate(tables)[pair.section]].tolist():
        pair.findings.add("a piece is not whole", pair.where(location))


def _check_gaps(pair: Pair, made: Made) -> None:
    """Between pieces is what aligns them; lists that a C runtime walks over have nothing there.

    What keeps the parts of groups for GNU ld stands behind all pieces, and has relocations.
    """
    o, rows = pair.after, pair.rows
    pointer = 4 if o.machine == 0x14C else 8
    sizes = [*(_common_size(pair, n) for n in made.common), *([pointer] * len(made.pointer))]
    locations = [*made.common.values(), *made.pointer.values()]
    location = np.concatenate([pair.location, np.array(locations, np.int64)])
    size = np.concatenate([rows["size"], np.array(sizes, np.int64)])
    if o.apart is not None:
        location, size = (
            np.concatenate(both) for both in zip((location, size), o.apart, strict=True)
        )
    order = np.argsort(location, kind="stable")
    location, end = location[order], (location + size)[order]
    home = location >> STEP
    first = np.append(True, home[1:] != home[:-1])[: len(home)]
    last = np.maximum.accumulate(end)
    before = np.where(first, home << STEP, np.append(0, last[:-1])[: len(home)])
    lists = np.array([name.startswith(LISTS) for name in o.names], np.bool_)
    room = np.where(lists, 1, alignment(o.sections["flags"].astype(np.int64)))
    wide = location - before >= np.maximum(room[home], 1)
    final = np.append(home[1:] != home[:-1], True)[: len(home)]
    rest = o.sections["size"][home[final]].astype(np.int64) - (last[final] - (home[final] << STEP))
    kept = np.zeros(len(o.names), np.int64)
    if pair.expectation.target.archive_dialect != "coff":
        where = (o.relocations["section"].astype(np.int64) << STEP) + o.relocations["offset"]
        stop = np.zeros(len(o.names), np.int64)
        stop[home[final]] = last[final]
        behind = where >= stop[o.relocations["section"]]
        kept = 4 * np.bincount(o.relocations["section"][behind], minlength=len(o.names))
        kept[kept > 0] += 3
    long = rest > kept[home[final]]
    for number in unique(np.concatenate([home[wide], home[final][long]])).tolist():
        pair.findings.add("bytes that no input explains", f"{shown(o.names[number])}[{number}]")


def _common_size(pair: Pair, name: int) -> int:
    return max(
        int(o.symbols["value"][i])
        for o, ext in zip(pair.objects, pair.before, strict=True)
        for i in ext.index[ext.common & (ext.name == name)].tolist()
    )


def check_order(pair: Pair, loading: Loading) -> None:
    """Initialisers run in the order in which a linker loads their members."""
    names = [name for o in pair.objects for name in o.names]
    lists = np.array([name.startswith(LISTS) for name in names], np.bool_)
    mine = np.flatnonzero(lists[pair.section] & (pair.rows["size"] > 0))
    mine = mine[np.argsort(pair.location[mine], kind="stable")]
    members: dict[tuple[bytes, int], list[int]] = {}
    homes = pair.after.home
    for i in mine.tolist():
        home = pair.indices[int(pair.position[i])]
        # a linker has those of one object behind those of another
        number = 0 if homes is None else int(homes[pair.rows["out_section"][i]])
        members.setdefault((names[int(pair.section[i])], number), []).append(home)
    for (name, _), found in members.items():
        if len(set(found)) < 2:
            continue
        rank = [loading.rank.get(member, len(loading.rank)) for member in found]
        if rank != sorted(rank):
            pair.findings.add("out of order", shown(name))


class _Said:
    """What the members say of the places that the result has symbols at.

    `location`, `function` and `abridged` are of the members' symbols at these, in one order:
    `abridged` is the length of a name of Rust's, 0 for others.
    """

    def __init__(self, pair: Pair, locations: Array) -> None:
        self._pair = pair
        wanted = unique(locations)
        head = _rust(pair)
        parts: list[tuple[Array, ...]] = [(np.zeros(0, np.int64),) * 5]
        for m, o in enumerate(pair.objects):
            symbols = o.symbols
            # what has records behind it is a section's symbol
            plain = (symbols["section"] > 0) & ~o.auxiliary
            plain &= (symbols["aux"] == 0) | (symbols["class"] != STATIC) | (symbols["type"] != 0)
            mine = np.flatnonzero(plain)
            section = symbols["section"][mine]
            at = pair.find(m, section, symbols["value"][mine].astype(np.int64))
            chosen = (positions(wanted, at) >= 0) & (at >= 0)
            mine, at, section = mine[chosen], at[chosen], section[chosen]
            if not len(mine):
                continue
            code = o.sections["flags"][section] & CODE != 0
            function = symbols["type"][mine] & 0xF0 == _FUNCTION
            storage = symbols["class"][mine]
            function |= code & ((storage == EXTERNAL) | (storage == WEAK))
            rust, length = o.spans_of(mine, head)
            columns = (at, np.full(len(mine), m), mine, function, np.where(rust, length, 0))
            parts.append(columns)
        every = tuple(np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(every[0], kind="stable")
        self.location, self._member, self._symbol, function, self.abridged = (
            column[order] for column in every
        )
        self.function = function.astype(np.bool_)

    def names(self, locations: Array, found: Definitions) -> tuple[_Names, set[tuple[int, bytes]]]:
        """The names at some places, and (place, name) of those that are of functions."""
        names: _Names = {}
        functions: set[tuple[int, bytes]] = set()
        wanted = unique(locations)
        chosen = np.flatnonzero(positions(wanted, self.location) >= 0)
        for m in unique(self._member[chosen]).tolist():
            mine = chosen[self._member[chosen] == m]
            texts = self._pair.objects[m].names_of(self._symbol[mine])
            columns = (texts, self.location[mine].tolist(), self.function[mine].tolist())
            for name, location, is_one in zip(*columns, strict=True):
                names.setdefault(location, set()).add(name)
                if is_one:
                    functions.add((location, name))
        for location, name, is_one in _weak(self._pair, found):
            names.setdefault(location, set()).add(name)
            if is_one:
                functions.add((location, name))
        return names, functions


def _weak(pair: Pair, found: Definitions) -> Iterator[tuple[int, bytes, bool]]:
    """(place, name, whether it is a function) of names that stand for what another one defines."""
    for o, ext in zip(pair.objects, pair.before, strict=True):
        for i, number in zip(
            ext.index[ext.weak].tolist(), ext.name[ext.weak].tolist(), strict=True
        ):
            location, kind = int(found.location[number]), int(o.symbols["type"][i])
            if location >= 0:
                yield location, pair.names.text[number], kind & 0xF0 == _FUNCTION


def check_symbols(pair: Pair, found: Definitions, made: Made) -> None:
    """Types and names of symbols are the original's."""
    o = pair.after
    own = np.flatnonzero(~o.auxiliary)
    placed = own[o.symbols["section"][own] > 0]
    heads = (o.symbols["aux"][placed] > 0) & (o.symbols["class"][placed] == STATIC)
    for i in placed[heads & (o.symbols["type"][placed] != 0)].tolist():
        pair.findings.add("a symbol's type", f"{shown(o.name(i))} has one")
    placed = placed[~heads]
    locations = (o.symbols["section"][placed].astype(np.int64) << STEP) + o.symbols["value"][placed]
    theirs = inside(o.apart, locations)
    pair.foreign.update(placed[theirs].tolist())
    placed, locations = placed[~theirs], locations[~theirs]
    said = _Said(pair, locations)
    exact = {location for table in (made.common, made.pointer) for location in table.values()}
    weak = [location for location, _, is_one in _weak(pair, found) if is_one]
    # an export that stands for another name has no type of its own: its section says it
    stands = {(location, name) for location, name, _ in _weak(pair, found)}
    of_functions = unique(np.append(said.location[said.function], np.array(weak, np.int64)))
    may_be = positions(of_functions, locations) >= 0
    rest = ~_abridged(pair, said, placed, locations, may_be)
    rest |= is_among(locations, np.array(list(exact), np.int64))
    placed, locations, may_be = placed[rest], locations[rest], may_be[rest]
    names_at, function = said.names(locations, found)
    kinds, classes = o.symbols["type"][placed].tolist(), o.symbols["class"][placed].tolist()
    columns = (placed.tolist(), locations.tolist(), o.names_of(placed), kinds, classes)
    for n, (i, location, name, kind, storage) in enumerate(zip(*columns, strict=True)):
        static = storage == STATIC
        known = names_at.get(location, set())
        if static and name not in known and not _is_made(name, known, location in exact, pair):
            if o.home is not None and o.home[location >> STEP]:
                pair.foreign.add(i)  # of another library, which has the same code
                continue
            pair.findings.add(
                "a local name that the original has not", f"{shown(name)} at {pair.where(location)}"
            )
        must = (location, name) in function and name not in (_LABEL, _LEADER)
        must |= storage == EXTERNAL and (location, name) in stands and _is_code(pair, location)
        may = bool(may_be[n])
        if kind not in (0, _FUNCTION) or (
            ((kind and not may) or (must and not kind)) and not _is_weak_code(pair, i)
        ):
            pair.findings.add("a symbol's type", f"{shown(name)}: {kind:#x}")
    _check_placeless(pair, own[o.symbols["section"][own] <= 0])


def _rust(pair: Pair) -> bytes:
    """How a name of Rust's begins."""
    return b"__R" if pair.after.machine == 0x14C else b"_R"


def _abridged(pair: Pair, said: _Said, symbols: Array, locations: Array, may_be: Array) -> Array:
    """bool for each: a local name of Rust's, for a longer one at its place, and of the right type.

    Most symbols are so; the others have to be looked at one by one.
    """
    o = pair.after
    if not len(said.location):
        return np.zeros(len(symbols), np.bool_)
    kind = o.symbols["type"][symbols]
    good = (o.symbols["class"][symbols] == STATIC) & (kind == np.where(may_be, _FUNCTION, 0))
    rust, length = o.spans_of(symbols, _rust(pair))
    first = np.minimum(np.searchsorted(said.location, locations), len(said.location) - 1)
    good &= (said.location[first] == locations) & rust
    return np.asarray(good & (said.abridged[first] > length))


def _is_code(pair: Pair, location: int) -> bool:
    return bool(int(pair.after.sections["flags"][location >> STEP]) & CODE)


def _is_weak_code(pair: Pair, i: int) -> bool:
    """Whether an export stands for what another name defines, so that its section says its type."""
    o = pair.after
    section = int(o.symbols["section"][i])
    external = int(o.symbols["class"][i]) == EXTERNAL
    code = bool(int(o.sections["flags"][section]) & CODE)
    return external and code == (int(o.symbols["type"][i]) == _FUNCTION)


def _is_made(name: bytes, known: set[bytes], made: bool, pair: Pair) -> bool:
    """Whether a static name is one that prelinking made.

    Rust's names are shortened where nobody but people reads them.
    """
    if name in (_LABEL, _LEADER):
        return True
    if made:
        return name in pair.names.number
    start = b"__R" if pair.after.machine == 0x14C and name.startswith(b"__R") else b"_R"
    return name.startswith(start) and any(
        one.startswith(start) and len(one) > len(name) for one in known
    )


def _check_placeless(pair: Pair, numbers: Array) -> None:
    """Undefined names, commons and values."""
    o = pair.after
    values: set[tuple[bytes, int]] = set()
    types: dict[bytes, set[int]] = {}
    names = {o.name(i) for i in numbers.tolist()}
    for m in pair.objects:
        for i in np.flatnonzero((m.symbols["section"] == ABSOLUTE) & ~m.auxiliary).tolist():
            values.add((m.name(i), int(m.symbols["value"][i])))
    numbered = np.array([pair.names.number.get(name, -1) for name in names], np.int64)
    for m, ext in zip(pair.objects, pair.before, strict=True):
        chosen = is_among(ext.name, numbered)
        for i, number in zip(ext.index[chosen].tolist(), ext.name[chosen].tolist(), strict=True):
            text = pair.names.text[number]
            types.setdefault(text, set()).add(int(m.symbols["type"][i]) & 0xF0)
    seen = 0
    told: set[bytes] = set()
    for i in numbers.tolist():
        row, name = o.symbols[i], o.name(i)
        if int(row["class"]) != STATIC:
            if name in told and o.home is None:  # several objects may need one name
                pair.findings.add("defined twice", shown(name))
            told.add(name)
        section, kind = int(row["section"]), int(row["type"])
        if section == ABSOLUTE and int(row["class"]) == STATIC:
            seen += name == _FEATURES
            known = name == _FEATURES or (name, int(row["value"])) in values
            if kind or not known:
                pair.findings.add("a value that the original has not", shown(name))
        elif kind not in types.get(name, {0, _FUNCTION}):
            pair.findings.add("a symbol's type", f"{shown(name)}: {kind:#x}")
    if seen != 1:
        pair.findings.add("handlers", f"there are {seen} symbols called @feat.00")


def check_winners(pair: Pair, found: Definitions, loading: Loading) -> None:
    """Where several members define a name, the result has the definition that a linker takes."""
    names = [
        n
        for n in loading.repeated
        if found.location[pair.names.number.get(n, -1)] >= 0 and n in pair.names.number
    ]
    if not names:
        return
    names = [name for name in names if not name.startswith(_BY_NAME)]
    used = _used(pair) | encoded(pair.expectation.exports) if names else set()
    for name in sorted(set(names) & used):
        number = pair.names.number[name]
        holders: dict[int, int] = {}  # member -> size of the COMDAT, of those that linkers compare
        placed: set[int] = set()
        for m, (o, ext) in enumerate(zip(pair.objects, pair.before, strict=True)):
            mine = ext.index[(ext.name == number) & ext.defined]
            for i in mine[o.symbols["section"][mine] > 0].tolist():
                section, value = int(o.symbols["section"][i]), int(o.symbols["value"][i])
                if o.selections.get(section, (0, 0, -1))[0] == LARGEST:
                    holders[m] = int(o.sections["size"][section])
                at = pair.find(m, np.array([section]), np.array([value]))[0]
                if at >= 0 and at == found.location[number]:
                    placed.add(m)
        if not placed:
            continue  # what stands for it counts
        if holders:
            good = max(holders.values()) == max(holders.get(m, -1) for m in placed)
        else:
            good = loading.takes(name, {pair.indices[m] for m in placed})
        if not good:
            pair.findings.add("a linker takes another definition", f"of `{shown(name)}`")


def _used(pair: Pair) -> set[bytes]:
    """The names that relocations of the placed sections name."""
    used: set[int] = set()
    for m, (o, ext) in enumerate(zip(pair.objects, pair.before, strict=True)):
        live = np.zeros(len(o.sections), np.bool_)
        live[pair.rows["section"][pair.position == m]] = True
        named = np.zeros(len(o.symbols), np.bool_)
        named[o.relocations["symbol"][live[o.relocations["section"]]]] = True
        used.update(ext.name[named[ext.index]].tolist())
    return {pair.names.text[n] for n in used}


def check_frames(pair: Pair) -> None:
    """Of each member the tables of `.eh_frame` that describe what is there are there, whole."""
    there = set(zip(pair.position.tolist(), pair.rows["section"].tolist(), strict=True))
    for m, o in enumerate(pair.objects):
        for number in range(1, len(o.names)):
            if o.bare(number) != b".eh_frame" or (m, number) in there:
                continue
            if _describes(pair, m, o, number):
                text = f"{shown(o.names[number])} of {pair.titles[m]} is lost"
                pair.findings.add("unwind", text)


def _describes(pair: Pair, member: int, o: Object, number: int) -> bool:
    """Whether a function that a table tells of is in the result."""
    if o.selections.get(number, (0, 0, -1))[0] == ASSOCIATIVE:
        return False  # it goes with its section
    symbol = o.relocations["symbol"][o.relocations["section"] == number]
    section = o.symbols["section"][symbol]
    code = (section > 0) & (o.sections["flags"][np.maximum(section, 0)] & CODE != 0)
    symbol = symbol[code]
    at = pair.find(
        member, o.symbols["section"][symbol], o.symbols["value"][symbol].astype(np.int64)
    )
    return bool((at >= 0).any())


__all__ = [
    "LISTS",
    "check_frames",
    "check_order",
    "check_sections",
    "check_symbols",
    "check_winners",
]
