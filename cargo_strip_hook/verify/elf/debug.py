"""Debug information: each part of it is the original's, and none that describes live code is lost.

Nothing of DWARF is read here but where relocations are: a part is kept byte for byte but for the
fields of relocations, each of these refers to where its target went, and one whose target is gone
holds a tombstone. Sources: gABI, "Section Compression"; DWARF 5, section 2.17.3 (what ends a list).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cargo_strip_hook.core.requests import Compression
from cargo_strip_hook.verify.arrays import Array, keys, match_keys, nearest, positions
from cargo_strip_hook.verify.elf import commons
from cargo_strip_hook.verify.elf.compressed import header_of
from cargo_strip_hook.verify.elf.machine import TYPES, Use, Value
from cargo_strip_hook.verify.elf.mapping import Pair, Resolution
from cargo_strip_hook.verify.elf.read import (
    SHF_COMPRESSED,
    SHF_EXCLUDE,
    SHF_GNU_RETAIN,
    SHF_GROUP,
    SHF_INFO_LINK,
    SHF_MERGE,
    SHF_STRINGS,
    STB_LOCAL,
    STEP,
    STT_SECTION,
    Objects,
    let_go,
)

_BATCH = 200_000  # relocations that are looked at together
_SLAB = 1 << 23  # bytes that are compared together
# lists that a zero would end early: their dead entries hold a one
_ONE = (".debug_ranges", ".debug_loc")
# ch_type of what was asked for
_KINDS = {Compression.NONE: 0, Compression.ZLIB: 1, Compression.ZSTD: 2}
_RESULT = np.dtype([("location", "<i8"), ("target", "<i8"), ("symbol", "<i4"), ("type", "<u4")])


@dataclass(frozen=True)
class _Map:
    """Where offsets of the original's debug sections went (int64 all).

    `whole[section]`: the place of a section that is kept as it is, -1 for others. `start`, `size`,
    `location` of the parts of the others, sorted; a start is a section and an offset as a place is.
    """

    whole: Array
    total: Array  # bytes of each section that has parts
    start: Array
    size: Array
    location: Array

    def of(self, section: Array, offset: Array) -> Array:
        """The place in the result of each offset in a section, -1 for what is not there (int64)."""
        location = self.whole[section]
        location = np.where(location >= 0, location + offset, -1)
        rest = np.flatnonzero((location < 0) & (offset >= 0)) if len(self.start) else ()
        if len(rest):
            wanted = (section[rest] << STEP) + offset[rest]
            near, inside = nearest(self.start, wanted)
            good = (inside >= 0) & (inside < self.size[near])
            # the end of a section belongs to its last part
            good |= (inside == self.size[near]) & (offset[rest] == self.total[section[rest]])
            location[rest] = np.where(good, self.location[near] + inside, -1)
        return np.asarray(location)


def check(pair: Pair, resolution: Resolution) -> None:
    """All debug information; its relocations are compared as those of code were."""
    rows, section = pair.covers_debug, pair.described_section
    where = _layout(pair, rows, section)
    if where is None:
        return
    before, after = pair.before, pair.after
    s = after.symbols
    base_before = _bases_before(pair, resolution)
    base_after = np.where(s["section"] > 0, (s["section"] << STEP) + s["value"], -1)
    outside = _Outside(pair, base_before)
    sides = _Sides(pair, where, base_before, base_after, before.is_debug, outside, resolution)
    for number in np.flatnonzero(after.is_debug).tolist():
        fields = _relocations(sides, number)
        mine = np.flatnonzero(rows["out_section"] == number)
        _bytes(pair, rows[mine], section[mine], number, fields)
        let_go(before.buffer)
        let_go(after.buffer)
    _nothing_lost(sides)


def _named(objects: Objects, name: str) -> Array:
    """Whether each section has this name, or the old one of a compressed section (bool)."""
    named = objects.names_begin(name.encode() + b"\0")
    return np.asarray(named | objects.names_begin(b".z" + name[1:].encode() + b"\0"))


def _bases_before(pair: Pair, resolution: Resolution) -> Array:
    """The place in the result of each symbol of the original, -1 where its section is not there."""
    s = pair.before.symbols
    row = np.where(s["section"] > 0, pair.row[np.maximum(s["section"], 0)], -1)
    location = pair.location[np.maximum(row, 0)] if len(pair.location) else row
    base = np.where(row >= 0, location + s["value"], -1)
    parted = np.flatnonzero((s["section"] > 0) & pair.cut.is_cut[np.maximum(s["section"], 0)])
    parted = parted[s["kind"][parted] != STT_SECTION]
    where, within = pair.cut.find(s["section"][parted], s["value"][parted])
    base[parted] = np.where(where >= 0, where + within, -1)
    numbers, where = commons.locations(pair, resolution)
    base[numbers] = where
    return base


def _locations(pair: Pair, base: Array, rows: Array) -> Array:
    """The place that each relocation of the original means, -1 where that is not in the result."""
    bases = base[np.maximum(rows["symbol"], 0)]
    locations = np.where(bases >= 0, bases + rows["addend"], -1)
    element, where, within = pair.element(rows["symbol"], rows["addend"])
    locations[element] = np.where(where >= 0, where + within, -1)
    return np.asarray(locations)


def _sizes(objects: Objects, numbers: Array) -> Array | None:
    """Bytes of sections, not compressed; None where one is damaged."""
    size = objects.sections["size"][numbers].copy()
    for i in np.flatnonzero(objects.compressed[numbers]).tolist():
        try:
            size[i] = len(objects.plain(int(numbers[i])))
        except ValueError:
            return None
    return np.asarray(size)


def _alignments(pair: Pair, kinds: Array) -> Array:
    """Of each section of the result, not compressed; headers of compressed ones are checked."""
    after, add = pair.after, pair.findings.add
    align = after.sections["align"].copy()
    layout, wanted = (
        header_of(after.layouts.order, after.layouts.bits),
        _KINDS[pair.expectation.compress_debug],
    )
    for number in np.flatnonzero(after.compressed & kinds).tolist():
        where = pair.where_after(number << STEP)
        if align[number] != after.layouts.bits // 8:
            add("a compressed section is not aligned as its header is", where)
        old_style = not after.sections["flags"][number] & SHF_COMPRESSED
        kind, _, plain = (0, 0, 1) if old_style else layout.unpack_from(after.contents(number))
        if kind != wanted or old_style:
            add("a section is compressed as was not asked for", where)
        if plain & (plain - 1):
            add("an alignment that is no power of two", where)
        align[number] = plain
    return np.asarray(align)


def _other_kind(old: Array, new: Array) -> Array:
    """Which parts are in a section that readers take for another kind than theirs (bool)."""
    merged = new["flags"] & SHF_MERGE != 0
    other = merged & ((old["flags"] ^ new["flags"]) & (SHF_MERGE | SHF_STRINGS) != 0)
    other |= (merged | (new["entsize"] != 0)) & (old["entsize"] != new["entsize"])
    other |= (old["type"] != new["type"]) | (
        new["flags"] & ~old["flags"] & (SHF_MERGE | SHF_STRINGS) != 0
    )
    free = SHF_MERGE | SHF_STRINGS | SHF_COMPRESSED | SHF_GROUP | SHF_INFO_LINK | SHF_GNU_RETAIN
    return np.asarray(other | ((old["flags"] ^ new["flags"]) & ~free != 0))


def _layout(pair: Pair, rows: Array, section: Array) -> _Map | None:
    """Parts lie within sections of their name, do not overlap, and no bytes come from nowhere."""
    before, after, add = pair.before, pair.after, pair.findings.add
    old, new = before.sections[section], after.sections[rows["out_section"]]
    kinds = after.is_debug
    new_size = _sizes(after, np.flatnonzero(kinds))
    old_numbers, which = np.unique(section, return_inverse=True)
    old_size = _sizes(before, old_numbers)
    if new_size is None or old_size is None:
        add("debug information", "a compressed section cannot be read")
        return None
    size_of = np.zeros(len(after.sections), np.int64)
    size_of[kinds] = new_size
    align = _alignments(pair, kinds)
    bad = (rows["offset"] < 0) | (rows["size"] < 0)
    bad |= rows["offset"] + rows["size"] > old_size[which]
    bad |= (rows["out_offset"] < 0) | ~kinds[rows["out_section"]]
    bad |= rows["out_offset"] + rows["size"] > size_of[rows["out_section"]]
    for number in np.flatnonzero(kinds).tolist():
        mine = rows["out_section"] == number
        bad |= mine & ~_named(before, after.section_name(number))[section]
    bad |= _other_kind(old, new)

    def where(i: int) -> str:
        return pair.where_before(int(section[i]), int(rows["offset"][i]))

    pair.findings.each("debug information is in a wrong place", bad, where)
    start = (section << STEP) + rows["offset"]
    location = (rows["out_section"].astype(np.int64) << STEP) + rows["out_offset"]
    order = np.argsort(start, kind="stable")
    for starts, by in ((start, order), (location, np.argsort(location, kind="stable"))):
        ends = starts[by] + rows["size"][by]
        overlap = np.flatnonzero((starts[by][1:] < ends[:-1]) & (rows["size"][by][1:] > 0))
        kind = "debug information is there twice, or overlaps"
        pair.findings.each(kind, by[overlap + 1], where)
    covered = np.bincount(rows["out_section"], rows["size"], len(after.sections)).astype(np.int64)
    parts = np.bincount(rows["out_section"], minlength=len(after.sections))
    slack = (size_of - covered)[kinds]
    many = slack >= (parts * np.maximum(align, 1))[kinds].clip(1)
    for number in np.flatnonzero(kinds)[many | (slack < 0)].tolist():
        add("bytes that no input explains", pair.where_after(number << STEP))
    if pair.findings:
        return None
    whole = np.full(len(before.sections), -1, np.int64)
    entire = (rows["offset"] == 0) & (rows["size"] == old_size[which])
    whole[section[entire]] = location[entire]
    total = np.zeros(len(before.sections), np.int64)
    total[section] = old_size[which]
    rest = order[~entire[order]]
    return _Map(whole, total, start[rest], rows["size"][rest], location[rest])


@dataclass(frozen=True)
class _Outside:
    """Symbols that debug information names and its own file does not define."""

    pair: Pair
    base: Array

    @cached_property
    def dead(self) -> set[bytes]:
        """Names that the original defines, but nowhere in what is placed."""
        s, string = self.pair.before.symbols, self.pair.before.string
        defined = np.flatnonzero((s["binding"] != STB_LOCAL) & ~s["undefined"])
        placed = self.base[defined] >= 0
        names = [string(offset) for offset in s["name"][defined].tolist()]
        alive = {name for name, is_placed in zip(names, placed.tolist(), strict=True) if is_placed}
        return set(names) - alive

    def needed(self, symbol: Array) -> Array:
        """Whether the result has to name each of these symbols of the original, too (bool)."""
        s, string = self.pair.before.symbols, self.pair.before.string
        needed = [string(int(s["name"][i])) not in self.dead for i in symbol.tolist()]
        return np.array(needed, np.bool_)


@dataclass(frozen=True, eq=False)
class _Sides:
    """What holds for all debug information: where it went, and what its relocations refer to."""

    pair: Pair
    where: _Map
    base_before: Array  # int64 by symbol of the original: its place in the result, -1 for none
    base_after: Array  # the same by symbol of the result
    is_debug: Array  # bool by section of the original
    outside: _Outside
    resolution: Resolution


@dataclass(frozen=True, eq=False)
class _Wanted:
    """Relocations of the original's debug information, in parts that are kept."""

    rows: Array  # RELOCATION; all else has a value for each of them
    location: Array  # int64: where its field is in the result
    symbol: Array  # of the original
    home: Array  # the section of that symbol; 0 or less: none
    target: Array  # int64: the place in the result that is meant, negative where it is gone
    debug: Array  # bool: it refers to debug information
    lives: Array  # bool: what it refers to is in the result
    dangling: Array  # bool: it refers to debug information that should be in the result and is not


@dataclass(frozen=True)
class _Fields:
    """Relocated fields of the result: places, sorted, and bytes; of the dead, what they hold."""

    location: Array
    width: Array
    dead: Array  # bool


def _tables(objects: Objects, members: Array) -> list[Array]:
    """The relocation tables of these sections, in batches."""
    mask = np.zeros(len(objects.sections), np.bool_)
    mask[members] = True
    tables = np.flatnonzero(objects.targets > 0)
    tables = tables[mask[objects.targets[tables]]]
    if not len(tables):
        return []
    total = np.cumsum(objects.sections["size"][tables] // 16) // _BATCH
    return np.split(tables, np.flatnonzero(np.diff(total)) + 1)


def _result(after: Objects, number: int, base: Array) -> Array:
    """The relocations (_RESULT) of one section of the result; `base` are its symbols' places."""
    parts = [np.zeros(0, _RESULT)]
    for table in np.flatnonzero(after.targets == number).tolist():
        for rows in after.relocation_parts(table, _BATCH):
            part = np.zeros(len(rows), _RESULT)
            part["location"] = (rows["section"] << STEP) + rows["offset"]
            part["target"] = base[np.maximum(rows["symbol"], 0)] + rows["addend"]
            part["symbol"], part["type"] = rows["symbol"], rows["type"]
            parts.append(part)
            let_go(after.buffer)
    return np.concatenate(parts)


def _relocations(sides: _Sides, number: int) -> _Fields:
    """Compare the relocations of one section of the result; returns all relocated fields."""
    pair, before, after = sides.pair, sides.pair.before, sides.pair.after
    members = np.flatnonzero(_named(before, after.section_name(number)) & sides.is_debug)
    new = _result(after, number, sides.base_after)
    new_location = np.ascontiguousarray(new["location"])
    in_order = bool((np.diff(new_location) > 0).all())
    known = np.zeros(len(new), np.bool_)
    parts: list[_Fields] = []
    for tables in _tables(before, members):
        wanted = _wanted(sides, tables)
        match = _match(wanted.location, new_location, in_order)
        known[match[match >= 0]] = True
        other = _others(sides, wanted, match)
        _tell(pair, wanted, wanted.dangling, "debug information refers to some that is gone")
        missing = (match < 0) & (wanted.lives | other)
        _tell(pair, wanted, missing, "a relocation of debug information is missing")
        wrong = (match >= 0) & ~_same(sides, wanted, new, match)
        _tell(pair, wanted, wrong, "a relocation of debug information has another target")
        parts.append(_fields(pair, wanted, match))
    pair.findings.each(
        "a relocation that the original has not", new_location[~known], pair.where_after
    )
    return _sorted_fields(parts)


def _wanted(sides: _Sides, tables: Array) -> _Wanted:
    """Read these relocation tables of the original, and find what they mean in the result."""
    before, where = sides.pair.before, sides.where
    rows = before.relocations(tables)
    location = where.of(rows["section"], rows["offset"])
    kept = np.flatnonzero((location >= 0) & (rows["type"] != 0))
    rows, location = rows[kept], location[kept]
    symbol = np.maximum(rows["symbol"], 0)
    home = before.symbols["section"][symbol]
    inside = np.maximum(home, 0)
    debug = (home > 0) & sides.is_debug[inside]
    target = _locations(sides.pair, sides.base_before, rows)
    lives = target != -1
    offset = before.symbols["value"][symbol] + rows["addend"]
    mine = np.flatnonzero(debug)
    target[mine] = where.of(home[mine], offset[mine])
    excluded = before.sections["flags"][inside] & SHF_EXCLUDE != 0
    dangling = debug & (target < 0) & ~excluded
    lives |= debug & (target >= 0)
    return _Wanted(rows, location, symbol, home, target, debug, lives, dangling)


def _match(location: Array, new_location: Array, in_order: bool) -> Array:
    """The relocation of the result at each place, as a position in `new_location`; -1 for none.

    `in_order`: `new_location` (int64) ascends, and has no place twice.
    """
    if not in_order or bool((np.diff(location) <= 0).any()):
        return match_keys(keys(location), keys(new_location))
    return positions(new_location, location)


def _others(sides: _Sides, wanted: _Wanted, match: Array) -> Array:
    """bool: it refers to what is the consumer's, or was chosen by the result, and has to be there.

    That is undefined, absolute or common.
    """
    other = wanted.home <= 0
    gone = np.flatnonzero(other & (match < 0))
    other[gone] = sides.outside.needed(wanted.symbol[gone])
    return np.asarray(other)


def _same(sides: _Sides, wanted: _Wanted, new: Array, match: Array) -> Array:
    """bool: the result has the relocation, of the same type, and with the same target.

    `match`: the position in `new` (_RESULT), -1 for none.
    """
    same = np.zeros(len(wanted.rows), np.bool_)
    there = np.flatnonzero(match >= 0)
    result = new[match[there]]
    same[there] = (result["type"] == wanted.rows["type"][there]) & (result["symbol"] >= 0)
    lives = wanted.lives[there]
    agrees = result["target"] == wanted.target[there]
    known = same[there]
    same[there] &= agrees & lives
    for i in there[known & ~(agrees & lives) & ~wanted.debug[there]].tolist():
        same[i] = _alike(sides, wanted, i, new[match[i]])
    return same


def _tell(pair: Pair, wanted: _Wanted, bad: Array, kind: str) -> None:
    """Add a finding of this kind for each relocation that is `bad` (bool)."""
    pair.findings.each(kind, bad, pair.where_rows(wanted.rows))


def _fields(pair: Pair, wanted: _Wanted, match: Array) -> _Fields:
    """The fields of these relocations; those of no relocation in the result are dead."""
    type_ = np.minimum(wanted.rows["type"].astype(np.int64), TYPES - 1)
    plain_address = (pair.machine.use[type_] == Use.LOCATION) & (
        pair.machine.value[type_] == Value.NEVER
    )
    return _Fields(wanted.location, pair.machine.width[type_], (match < 0) & plain_address)


def _sorted_fields(parts: list[_Fields]) -> _Fields:
    if not parts:
        none = np.zeros(0, np.int64)
        return _Fields(none, none, none.astype(np.bool_))
    location = np.concatenate([part.location for part in parts])
    width = np.concatenate([part.width for part in parts])
    dead = np.concatenate([part.dead for part in parts])
    order = np.argsort(location, kind="stable")
    return _Fields(location[order], width[order], dead[order])


def _alike(sides: _Sides, wanted: _Wanted, number: int, new: Array) -> bool:
    """The rarer ways to say the same: another definition of the name, the winner of a group."""
    pair, before, after = sides.pair, sides.pair.before, sides.pair.after
    row, home = wanted.rows[number], int(wanted.home[number])
    old, new_symbol = int(wanted.symbol[number]), int(new["symbol"])
    name = before.string(int(before.symbols["name"][old]))
    target, base = int(new["target"]), int(sides.base_after[new_symbol])
    if not (name or home or new_symbol):  # neither names a symbol
        return bool(target - base == row["addend"])
    shown = name and before.symbols["binding"][old] != STB_LOCAL
    rivals = sides.resolution.definitions.get(name, []) if shown else []
    # of several weak definitions; which one it is, code relocations tell
    if any(target == sides.base_before[i] + row["addend"] for i in rivals if _there(sides, i)):
        return True
    if name and name == after.string(int(after.symbols["name"][new_symbol])):
        nowhere = base < 0 or not any(_there(sides, i) for i in rivals)
        return bool(nowhere and home <= 0 and target - base == row["addend"])
    location = int(after.symbols["section"][new_symbol])
    if location <= 0 or home <= 0:
        return False
    section, size = before.section_name(home), before.sections["size"][home]
    offset = int(before.symbols["value"][old]) + int(row["addend"])
    rows = np.flatnonzero((pair.row >= 0) & (before.sections["size"] == size))
    rows = rows[pair.location[pair.row[rows]] + offset == target]
    return any(before.section_name(int(r)) == section for r in rows)


def _there(sides: _Sides, symbol: int) -> bool:
    return bool(sides.base_before[symbol] >= 0)


def _bytes(pair: Pair, rows: Array, section: Array, number: int, fields: _Fields) -> None:
    """Parts are equal but for relocated fields; what lies between them is zero."""
    order = np.argsort(rows["out_offset"], kind="stable")
    rows, section = rows[order], section[order]
    result = np.frombuffer(pair.after.plain(number), np.uint8)
    base = number << STEP
    tombstone = int(pair.after.section_name(number) in _ONE)
    furthest = np.maximum.accumulate(fields.location + fields.width)
    first = 0
    opened: tuple[int, memoryview] | None = None
    while first < len(rows):
        begin = int(rows["out_offset"][first])
        last = int(np.searchsorted(rows["out_offset"], begin + _SLAB))
        last = max(last, first + 1)
        end = int(rows["out_offset"][last]) if last < len(rows) else len(result)
        expected = np.zeros(end - begin, np.uint8)
        view = memoryview(expected.data)
        for row in range(first, last):
            source = int(section[row])
            if opened is None or opened[0] != source:
                opened = source, pair.before.plain(source)
            target, size = int(rows["out_offset"][row]) - begin, int(rows["size"][row])
            start = int(rows["offset"][row])
            view[target : target + size] = opened[1][start : start + size]
        differs = np.flatnonzero(expected != result[begin:end]) + begin + base
        near = np.searchsorted(fields.location, differs, side="right") - 1
        safe = np.maximum(near, 0)
        allowed = near >= 0
        if len(fields.location):
            allowed &= differs < furthest[safe]
        pair.findings.each("other bytes", differs[~allowed], pair.where_after)
        first = last
        let_go(pair.before.buffer)
    _tombstones(pair, fields, result, base, tombstone)


def _tombstones(pair: Pair, fields: _Fields, result: Array, base: int, value: int) -> None:
    """Fields whose target is gone: 0, or 1 where a zero would end a list."""
    little = pair.after.layouts.order == "<"
    for width in (4, 8):
        offset = fields.location[fields.dead & (fields.width == width)] - base
        offset = offset[offset + width <= len(result)]
        octets = result[offset[:, None] + np.arange(width)]
        low = octets[:, 0 if little else -1]
        rest = octets[:, 1:] if little else octets[:, :-1]
        bad = (low != value) | rest.any(axis=1)
        kind = "dead debug information without a tombstone"
        pair.findings.each(kind, offset[bad] + base, pair.where_after)


def _nothing_lost(sides: _Sides) -> None:
    """Every relocation of the original's debug information to live code is in a part that is kept.

    So the unit of each live function is there, with its lines and ranges.
    """
    pair, before, where = sides.pair, sides.pair.before, sides.where
    excluded = before.sections["flags"] & SHF_EXCLUDE != 0
    lost = np.flatnonzero(sides.is_debug & ~excluded & (where.whole < 0))
    for tables in _tables(before, lost):
        old = before.relocations(tables)
        gone = where.of(old["section"], old["offset"]) < 0
        alive = _locations(pair, sides.base_before, old) != -1
        bad = old[gone & alive & (old["type"] != 0)]
        kind = "debug information of live code is gone"
        pair.findings.each(kind, np.arange(len(bad)), pair.where_rows(bad))


__all__ = ["check"]
