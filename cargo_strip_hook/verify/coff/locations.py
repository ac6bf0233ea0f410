"""Where pieces of the original went, and what its symbols stand for in the result."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.verify.arrays import rows_of
from cargo_strip_hook.verify.coff.read import (
    ABSOLUTE,
    ALIGN,
    ASSOCIATIVE,
    BSS,
    CODE,
    DATA,
    EXTERNAL,
    NO_PAD,
    RIGHTS,
    WEAK,
    Array,
    Object,
)
from cargo_strip_hook.verify.expectation import Expectation, Findings
from cargo_strip_hook.verify.kit.names import Names, shown
from cargo_strip_hook.verify.loading import Loading

# A place in the result is one number: section and offset, with room for negative distances.
STEP = 40
NOWHERE, LOCATION, VALUE, NAME = range(4)


@dataclass
class Meaning:
    """`kind` and `base` of each symbol: a place, a value, or the number of a name."""

    kind: Array
    base: Array


class Pair:
    """The used members, the result, and the placement sorted by where pieces come from.

    Sections of all members have one numbering: `first[m]` + the number in member `m`. `foreign`:
    static symbols of what a library shares with others, whose names it does not know. `numbers`:
    what the objects of the result are called that are read as one, -1 for a library's own.
    """

    def __init__(
        self,
        members: dict[int, tuple[str, Object]],
        after: Object,
        expectation: Expectation,
        found: Findings,
    ) -> None:
        self.after, self.expectation, self.findings = after, expectation, found
        self.indices = list(members)
        self.titles = [name for name, _ in members.values()]
        self.objects = [o for _, o in members.values()]
        self.first = np.cumsum([0, *(len(o.sections) for o in self.objects)])
        self.names = Names()
        assert expectation.link_map is not None
        rows = expectation.link_map
        position = np.searchsorted(np.array(self.indices), rows["member"])
        section = self.first[position] + rows["section"]
        order = np.lexsort((rows["offset"], section))
        self.rows = rows_of(rows, order)
        self.position, self.section = position[order], section[order]
        self.key = (self.section.astype(np.int64) << STEP) + self.rows["offset"]
        self.location = (self.rows["out_section"].astype(np.int64) << STEP) + self.rows[
            "out_offset"
        ]
        self.before = [_External(o, self.names) for o in self.objects]
        self.result = _External(after, self.names)
        self.meant: dict[int, Meaning] = {}  # what `meanings` found, by member
        # what `groups` found, by member: sections whose suffix says nothing, and those that live
        self.kept: dict[int, tuple[set[int], list[int]]] = {}
        self.foreign: set[int] = set()
        self.numbers: tuple[int, ...] = (-1,)

    def find(self, member: int, sections: Array, offsets: Array) -> Array:
        """The places of (section, offset) of a member; -1 for what is not in the result."""
        if not len(self.key):  # commons and values alone
            return np.full(len(sections), -1, np.int64)
        wanted = ((self.first[member] + sections).astype(np.int64) << STEP) + offsets
        i = np.searchsorted(self.key, wanted, side="right") - 1
        near = np.maximum(i, 0)
        inside = (i >= 0) & (wanted - self.key[near] <= self.rows["size"][near])
        inside &= self.section[near] == self.first[member] + sections
        return np.where(inside, self.location[near] + wanted - self.key[near], -1)

    def where(self, location: int) -> str:
        """A place of the result, for a finding."""
        section, offset = location >> STEP, location & ((1 << STEP) - 1)
        if not 0 < section < len(self.after.names):
            return f"place {location:#x}"
        return f"{shown(self.after.names[section])}[{section}]+{offset:#x}"


class _External:
    """The symbols of an object that have a meaning for others."""

    def __init__(self, o: Object, names: Names) -> None:
        symbols = o.symbols
        kind = symbols["class"]
        self.index = np.flatnonzero(((kind == EXTERNAL) | (kind == WEAK)) & ~o.auxiliary)
        self.name = np.array([names.of(name) for name in o.names_of(self.index)], np.int64)
        section, value = symbols["section"][self.index], symbols["value"][self.index]
        self.weak = (symbols["class"][self.index] == WEAK) & (section == 0)
        self.defined = (section > 0) | (section == ABSOLUTE)
        self.common = (section == 0) & (value > 0) & ~self.weak
        self.undefined = ~self.defined & ~self.common
        self.fallback = [
            int.from_bytes(o.auxiliary_of(i)[:4], "little") for i in self.index[self.weak].tolist()
        ]


def check_rows(pair: Pair) -> None:
    """Pieces lie inside of sections, not on one another, and keep what sections promise."""
    rows, after, findings = pair.rows, pair.after, pair.findings
    sizes = np.concatenate([o.sections["size"] for o in pair.objects]).astype(np.int64)
    flags = np.concatenate([o.sections["flags"] for o in pair.objects]).astype(np.int64)
    counts = np.diff(pair.first)
    bad = (rows["section"] < 1) | (rows["section"] >= counts[pair.position])
    bad |= (rows["out_section"] < 1) | (rows["out_section"] >= len(after.sections))
    bad |= (rows["offset"] < 0) | (rows["size"] < 0) | (rows["out_offset"] < 0)
    if bad.any():
        findings.add("placement", "names a section that is not there")
        return
    out_size = after.sections["size"][rows["out_section"]].astype(np.int64)
    bad = rows["offset"] + rows["size"] > sizes[pair.section]
    bad |= rows["out_offset"] + rows["size"] > out_size
    if bad.any():
        findings.add("placement", "a piece reaches over its section")
        return
    same = pair.section[1:] == pair.section[:-1]
    ends = rows["offset"] + rows["size"]
    if (same & (ends[:-1] > rows["offset"][1:])).any():
        findings.add("placement", "a piece of the original went to two places")
    order = np.lexsort((rows["size"], pair.location))
    order = order[rows["size"][order] > 0]
    start, stop = pair.location[order], pair.location[order] + rows["size"][order]
    # equal records of unwind information may be one: each of them is compared by itself, and the
    # longest, with its padding, is the last
    shared = np.concatenate([o.unwind_records for o in pair.objects])[pair.section[order]]
    again = np.zeros(len(order), np.bool_)
    again[:-1] = (start[1:] == start[:-1]) & shared[1:] & shared[:-1]
    start, stop = start[~again], stop[~again]
    for i in np.flatnonzero(stop[:-1] > start[1:])[:8].tolist():
        findings.add("placement", f"two pieces overlap at {pair.where(int(start[i + 1]))}")
    mine, theirs = flags[pair.section], after.sections["flags"][rows["out_section"]].astype(int)
    changed = (mine ^ theirs) & (RIGHTS | CODE)
    # what is zero may become part of data
    changed |= np.where((mine & BSS) != 0, 0, (mine ^ theirs) & (DATA | BSS))
    for i in np.flatnonzero(changed)[:8].tolist():
        findings.add("section", f"{pair.where(int(pair.location[i]))} has other characteristics")
    findings.more("section", int((changed != 0).sum()) - 8)
    align = alignment(mine)
    bad = (alignment(theirs) < align) | ((rows["out_offset"] - rows["offset"]) % align != 0)
    bad &= rows["size"] > 0
    bad &= (rows["offset"] == 0) | (align <= 4)  # entries of tables begin anywhere
    for i in np.flatnonzero(bad)[:8].tolist():
        findings.add("section", f"{pair.where(int(pair.location[i]))} is not aligned as before")


def alignment(flags: Array) -> Array:
    """Bytes. Where nothing is said it is 16, and 1 with the old flag NO_PAD."""
    power = (flags & ALIGN) >> 20
    return np.where(power == 0, np.where(flags & NO_PAD, 1, 16), 1 << np.maximum(power - 1, 0))


@dataclass
class Definitions:
    """What names stand for, by their number. `locations` and `values`: -1 and None for none."""

    location: Array
    value: dict[int, int]
    common: dict[int, int]  # size
    fallback: dict[int, tuple[int, int]]  # member, symbol
    defined: set[int]  # whether or not it is in the result


def definitions(pair: Pair, alternates: dict[bytes, bytes], loading: Loading) -> Definitions:
    """Resolve names over the used members, as a linker does.

    `alternates`: name -> the name of what stands for it where nobody defines it.
    """
    defaults: dict[int, list[tuple[int, int]]] = {}
    out = Definitions(np.full(len(pair.names.text), -1, np.int64), {}, {}, {}, set())
    for m, (o, ext) in enumerate(zip(pair.objects, pair.before, strict=True)):
        i, name = ext.index, ext.name
        section = o.symbols["section"][i]
        value = o.symbols["value"][i].astype(np.int64)
        out.defined.update(name[ext.defined].tolist())
        there = np.flatnonzero(section > 0)
        at = pair.find(m, section[there], value[there])
        names = name[there]
        for n, a in zip(names[at >= 0].tolist(), at[at >= 0].tolist(), strict=True):
            if out.location[n] >= 0 and out.location[n] != a:
                pair.findings.add("placement", f"{shown(pair.names.text[n])} is there twice")
            out.location[n] = a
        for n, v in zip(
            name[section == ABSOLUTE].tolist(), value[section == ABSOLUTE].tolist(), strict=True
        ):
            out.value.setdefault(n, v)
        for n, v in zip(name[ext.common].tolist(), value[ext.common].tolist(), strict=True):
            out.common[n] = max(v, out.common.get(n, 0))
        for n, f in zip(name[ext.weak].tolist(), ext.fallback, strict=True):
            defaults.setdefault(n, []).append((m, f))
    for n, several in defaults.items():
        first = several[0]
        if len(several) > 1:  # the one that is loaded first
            rank = loading.rank
            first = min(several, key=lambda one: rank.get(pair.indices[one[0]], len(rank)))
        out.fallback[n] = first
    count = len(pair.names.text)
    stands = {pair.names.of(name): pair.names.of(other) for name, other in alternates.items()}
    # names that only directives name
    more = len(pair.names.text) - count
    out.location = np.concatenate([out.location, np.full(more, -1, np.int64)])
    for one in sorted({*out.fallback, *stands}):
        if out.location[one] < 0 and one not in out.value and one not in out.common:
            out.location[one] = _stands_for(pair, out, stands, one)
    return out


def _stands_for(pair: Pair, found: Definitions, stands: dict[int, int], name: int) -> int:
    """The place of what stands for a name that nobody defines; -1 for none."""
    for _ in range(64):
        if found.location[name] >= 0:
            return int(found.location[name])
        if name in found.fallback:
            member, symbol = found.fallback[name]
            o = pair.objects[member]
            if symbol >= len(o.symbols) or o.auxiliary[symbol]:
                return -1
            section, value = int(o.symbols["section"][symbol]), int(o.symbols["value"][symbol])
            if section > 0:
                location = int(pair.find(member, np.array([section]), np.array([value]))[0])
                if location >= 0 or o.symbols["class"][symbol] != EXTERNAL:
                    return location
            name = pair.names.number.get(o.name(symbol), -1)
        else:
            name = stands.get(name, -1)
        if not 0 <= name < len(found.location):
            return -1
    return -1


def meanings(pair: Pair, found: Definitions, member: int) -> Meaning:
    """What references to the symbols of a member mean in the result.

    A name that nothing defines but a weak external's default stays a name here.
    """
    if member in pair.meant:
        return pair.meant[member]
    o, ext = pair.objects[member], pair.before[member]
    section = o.symbols["section"].astype(np.int64)
    value = o.symbols["value"].astype(np.int64)
    kind = np.zeros(len(section), np.int8)
    base = np.zeros(len(section), np.int64)
    inside = np.flatnonzero((section > 0) & ~o.auxiliary)
    at = pair.find(member, section[inside], value[inside])
    kind[inside], base[inside] = np.where(at >= 0, LOCATION, NOWHERE), at
    constant = np.flatnonzero((section == ABSOLUTE) & ~o.auxiliary)
    kind[constant], base[constant] = VALUE, value[constant]
    where = found.location[ext.name]
    kind[ext.index] = np.where(where >= 0, LOCATION, NAME)
    base[ext.index] = np.where(where >= 0, where, ext.name)
    if found.value:
        for i, n in zip(ext.index.tolist(), ext.name.tolist(), strict=True):
            if n in found.value and kind[i] == NAME:
                kind[i], base[i] = VALUE, found.value[n]
    _replaced(pair, found, member, Meaning(kind, base), inside[at < 0])
    pair.meant[member] = Meaning(kind, base)
    return pair.meant[member]


def _replaced(pair: Pair, found: Definitions, member: int, out: Meaning, symbols: Array) -> None:
    """Symbols of COMDATs that another member's took the place of."""
    o = pair.objects[member]
    symbols = symbols[out.kind[symbols] == NOWHERE]
    selections, leaders = o.leaders
    section = o.symbols["section"][symbols]
    selection, leader = selections[section], leaders[section]
    good = (selection != 0) & (selection != ASSOCIATIVE) & (leader >= 0)
    good &= o.symbols["class"][leader] == EXTERNAL
    symbols, leader = symbols[good], leader[good]
    ext = pair.before[member]
    at = found.location[ext.name[np.searchsorted(ext.index, leader)]]
    symbols, leader, at = symbols[at >= 0], leader[at >= 0], at[at >= 0]
    value = o.symbols["value"].astype(np.int64)
    out.kind[symbols], out.base[symbols] = LOCATION, at + value[symbols] - value[leader]


def fallback(pair: Pair, found: Definitions, name: int) -> tuple[int, int]:
    """(kind, base) of what a weak external means where nothing else defines it."""
    for _ in range(8):
        member, symbol = found.fallback[name]
        o = pair.objects[member]
        if symbol >= len(o.symbols) or o.auxiliary[symbol]:
            break
        if o.symbols["class"][symbol] not in (EXTERNAL, WEAK):
            out = meanings(pair, found, member)
            return int(out.kind[symbol]), int(out.base[symbol])
        name = pair.names.of(o.name(symbol))
        if name < len(found.location) and found.location[name] >= 0:
            return LOCATION, int(found.location[name])
        if name in found.value:
            return VALUE, found.value[name]
        if name not in found.fallback:
            return NAME, name
    return NOWHERE, 0
