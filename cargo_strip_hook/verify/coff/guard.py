"""Which functions may be called through pointers: the tables of control flow guard, or what linkers
make them of.

Sources: Microsoft, "PE Format", "Load Configuration Layout" and "The .sxdata Section"; LLVM's lld,
`COFF/Writer.cpp` (`createGuardCFTables`, `markSymbolsWithRelocations`): of files without such
tables each function is a target that a relocation names by its symbol.
"""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.verify.arrays import is_among, positions, rows_of, unique
from cargo_strip_hook.verify.coff.apart import inside
from cargo_strip_hook.verify.coff.locations import (
    LOCATION,
    NAME,
    STEP,
    Definitions,
    Pair,
    meanings,
)
from cargo_strip_hook.verify.coff.read import (
    AMD64,
    CODE,
    EXTERNAL,
    I386,
    STATIC,
    WEAK,
    Array,
    Damaged,
    Object,
)
from cargo_strip_hook.verify.kit.names import shown

_FUNCTION = 0x20
_GUARD, _CONTINUATIONS = 0x800, 0x4000
_TARGETS = b".gfids$y"
_TABLES = (_TARGETS, b".giats$y", b".gljmp$y", b".gehcont$y", b".sxdata")
_UNWIND = (b".pdata", b".xdata", b".eh_frame", b".gcc_except_table", b".debug")
_BRANCHES = {I386: (20,), AMD64: (), 0xAA64: (3, 15, 16)}
_Location = tuple[int, int]


def check_guard(pair: Pair, found: Definitions) -> None:
    """What `@feat.00` says, and the tables of symbols: each lists what the members' did."""
    every = [features(o) for o in pair.objects]
    guards = _GUARD | _CONTINUATIONS
    # members of commons and values alone say nothing of what others have
    said = [every[m] for m in np.unique(pair.position).tolist()] or every
    wanted = int(np.bitwise_and.reduce(said)) if said else 0
    wanted |= int(np.bitwise_or.reduce(said)) & guards if said else 0
    said_there = features(pair.after)
    # an object promises what all in it do, of whatever library
    if said_there != wanted and (pair.after.apart is None or said_there & ~wanted):
        text = f"@feat.00 is {features(pair.after):#x} instead of {wanted:#x}"
        pair.findings.add("handlers", text)
    functions = _functions(pair)
    guarded = pair.after.guarded
    if guarded is None:
        guarded = np.full(len(pair.after.names), bool(wanted & _GUARD))
    for name in _TABLES:
        if name != b".sxdata" and not wanted & (_CONTINUATIONS if b"eh" in name else _GUARD):
            continue
        before = _before(pair, found, name)
        after = _listed(pair, pair.after, name)
        more: set[_Location] = set()
        if name == _TARGETS:
            taken = [
                _taken(pair, found, m, functions) for m, f in enumerate(every) if not f & _GUARD
            ]
            before |= {(LOCATION, one) for home, to in taken for one in to[guarded[home]].tolist()}
            more = {(LOCATION, location) for location in functions.tolist()}
            more |= {(k, b) for k, b in after if k == NAME}
        kind = "handlers" if name == b".sxdata" else "guard"
        lost, new = before - after, after - before - more
        if lost or new:
            text = f"of {shown(name)}: {len(lost)} are lost, {len(new)} are new"
            pair.findings.add(kind, text)
    if not guarded.all():
        _check_relocations(pair, found, functions, ~guarded)


def _check_relocations(pair: Pair, found: Definitions, functions: Array, sections: Array) -> None:
    """Where one of the `sections` takes a function's address, a relocation names it by a symbol."""
    o = pair.after
    rows, symbols = o.relocations, o.symbols
    named = (symbols["type"] & 0xF0 == _FUNCTION) & (symbols["section"] > 0)
    rows = rows_of(rows, named[rows["symbol"]])
    rows = rows_of(rows, ~is_among(rows["type"], np.array(_BRANCHES[o.machine])))
    symbol = rows["symbol"]
    target = (symbols["section"][symbol].astype(np.int64) << STEP) + symbols["value"][symbol]
    there = set(zip(rows["section"].tolist(), target.tolist(), strict=True))
    lost: set[_Location] = set()
    for m in range(len(pair.objects)):
        homes, targets = _taken(pair, found, m, functions)
        homes, targets = homes[sections[homes]], targets[sections[homes]]
        lost |= set(zip(homes.tolist(), targets.tolist(), strict=True)) - there
    for _, location in sorted(lost)[:4]:
        text = f"no relocation shows that the address of {pair.where(location)} is taken"
        pair.findings.add("guard", text)
    pair.findings.more("guard", len(lost) - 4)


def features(o: Object) -> int:
    """The value of `@feat.00`, 0 where there is none."""
    absolute = (o.symbols["section"] == -1) & (o.symbols["class"] == STATIC) & ~o.auxiliary
    for i in np.flatnonzero(absolute).tolist():
        if o.name(i) == b"@feat.00":
            return int(o.symbols["value"][i])
    return 0


def _functions(pair: Pair) -> Array:
    """The places of all that the members say is a function."""
    found = [np.zeros(0, np.int64)]
    for m, o in enumerate(pair.objects):
        symbols = o.symbols
        mine = (symbols["type"] & 0xF0 == _FUNCTION) & (symbols["section"] > 0) & ~o.auxiliary
        section, value = symbols["section"][mine], symbols["value"][mine].astype(np.int64)
        code = o.sections["flags"][section] & CODE != 0
        locations = pair.find(m, section[code], value[code])
        found.append(locations[locations >= 0])
    return np.sort(np.concatenate(found))


def _taken(pair: Pair, found: Definitions, member: int, functions: Array) -> tuple[Array, Array]:
    """(output section, function) of the references of a member that take an address."""
    o = pair.objects[member]
    rows, symbols = o.relocations, o.symbols
    kind = symbols["class"]
    named = (symbols["type"] & 0xF0 == _FUNCTION) | (kind == EXTERNAL) | (kind == WEAK)
    rows = rows_of(rows, named[rows["symbol"]])
    rows = rows_of(rows, ~is_among(rows["type"], np.array(_BRANCHES[o.machine])))
    meaning = meanings(pair, found, member)
    target = np.where(meaning.kind == LOCATION, meaning.base, -1)
    rows = rows_of(rows, (positions(functions, target) >= 0)[rows["symbol"]])
    told = np.zeros(len(o.names), np.bool_)
    for number in unique(rows["section"]).tolist():
        told[number] = o.names[number].startswith(_UNWIND)
    rows = rows[~told[rows["section"]]]
    if o.machine == AMD64 and len(rows):
        at = o.sections["offset"][rows["section"]] + rows["offset"]
        last, second = o.raw[np.maximum(at, 1) - 1], o.raw[np.maximum(at, 2) - 2]
        branch = (last & 0xFE == 0xE8) | ((second == 0x0F) & (last >> 4 == 8))
        branch &= (rows["type"] == 4) & (o.sections["flags"][rows["section"]] & CODE != 0)
        rows = rows[~branch]
    location = pair.find(member, rows["section"], rows["offset"])
    rows, location = rows[location >= 0], location[location >= 0]
    return location >> STEP, target[rows["symbol"]]


def _before(pair: Pair, found: Definitions, name: bytes) -> set[_Location]:
    """What the members' tables of a name list of what is there, and may list."""
    wanted: set[_Location] = set()
    for m, o in enumerate(pair.objects):
        symbols = _symbols(o, name)
        if symbols:
            meaning = meanings(pair, found, m)
            rows = zip(meaning.kind[symbols].tolist(), meaning.base[symbols].tolist(), strict=True)
            wanted |= {row for row in rows if row[0] in (LOCATION, NAME)}
    # a name that no live piece uses need not be there
    undefined = set(pair.result.name[pair.result.undefined].tolist())
    return {(k, b) for k, b in wanted if k == LOCATION or b in undefined}


def _listed(pair: Pair, o: Object, name: bytes) -> set[_Location]:
    has: set[_Location] = set()
    for symbol in _symbols(o, name):
        section = int(o.symbols["section"][symbol])
        if section > 0:
            location = (section << STEP) + int(o.symbols["value"][symbol])
            if not inside(o.apart, np.array([location]))[0]:
                has.add((LOCATION, location))
        else:
            has.add((NAME, pair.names.of(o.name(symbol))))
    return has


def _symbols(o: Object, name: bytes) -> list[int]:
    """The symbols in the tables of a name. Raises `Damaged`."""
    found: list[int] = []
    for number in range(1, len(o.names)):
        if o.names[number] == name:
            text = o.contents(number)
            found += np.frombuffer(text[: len(text) & ~3], "<u4").tolist()
    if any(s >= len(o.symbols) or o.auxiliary[s] for s in found):
        raise Damaged(f"{shown(name)} names no symbol")
    return found


__all__ = ["check_guard"]
