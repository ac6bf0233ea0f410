"""Every relocation of placed pieces: still there and of the same meaning, or settled correctly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.verify.arrays import (
    Array,
    gather,
    is_among,
    keys,
    match_keys,
    unique,
)
from cargo_strip_hook.verify.elf.aside import bury
from cargo_strip_hook.verify.elf.machine import (
    ADDEND_WIDTH,
    TYPES,
    VALUE_WIDTH,
    Addend,
    Use,
    Value,
)
from cargo_strip_hook.verify.elf.mapping import Kind, Pair, Resolution, Special
from cargo_strip_hook.verify.elf.read import SHF_ALLOC, SHF_MERGE, STEP


@dataclass(frozen=True, eq=False)
class Sides:
    """Relocations of both sides: `before` in placed pieces with `location` where it went.

    `asking` and `after_asking`: the R_*_NONE that ask for a symbol, where the processor has such;
    `asking_location` is where in the result those of the original are.
    """

    before: Array
    location: Array
    after: Array
    after_location: Array
    asking: Array
    asking_location: Array
    after_asking: Array


@dataclass(frozen=True, eq=False)
class Changed:
    """Places whose bytes may differ from the original, and how many bytes from there."""

    location: Array
    width: Array
    resolved: int


def collect(pair: Pair) -> Sides:
    """The relocations of placed pieces, and those of the result's allocated sections."""
    before, after = pair.before, pair.after
    tables = np.flatnonzero(before.targets >= 0)
    tables = tables[pair.row[before.targets[tables]] >= 0]
    old = before.relocations(tables)
    asking = old[(old["type"] == 0) & pair.machine.keeps_none]
    asking_location = pair.location[pair.row[asking["section"]]] + asking["offset"]
    old = old[old["type"] != 0]
    location = pair.location[pair.row[old["section"]]] + old["offset"]

    frames = after.frame_sections
    tables = np.flatnonzero(after.targets >= 0)
    targets = after.targets[tables]
    wanted = after.sections["flags"][targets] & SHF_ALLOC != 0
    if pair.expectation.covers_debug:  # of what is never loaded only some engines tell
        wanted |= ~after.is_debug[targets]
    tables = tables[wanted & ~is_among(targets, frames)]
    new = after.relocations(tables)
    if pair.foreign is not None:
        new = new[~pair.is_foreign((new["section"] << STEP) + new["offset"])]
    after_asking = new[(new["type"] == 0) & pair.machine.keeps_none]
    new = new[new["type"] != 0]
    new_location = (new["section"] << STEP) + new["offset"]
    return Sides(old, location, new, new_location, asking, asking_location, after_asking)


def by_location(
    pair: Pair, resolution: Resolution, types: Array, old_symbol: Array, new_symbol: Array
) -> Array:
    """bool for each pair of references: whether only symbol + addend counts."""
    use = pair.machine.use[np.minimum(types.astype(np.int64), TYPES - 1)]
    found = use == Use.LOCATION
    unknown = np.flatnonzero(use == Use.UNKNOWN)
    if len(unknown):
        # as any linker's -r: an addend to a section's symbol is a place in the section
        old, new = old_symbol[unknown], new_symbol[unknown]
        both = resolution.before.in_section[old] & resolution.after.in_section[new]
        if pair.complete:
            both &= _in_merge_section(pair, resolution.after.base[new])
        found[unknown] = both
    return np.asarray(found)


def same_target(
    pair: Pair,
    resolution: Resolution,
    old_symbol: Array,
    old_addend: Array,
    new_symbol: Array,
    new_addend: Array,
    summed: Array,
) -> Array:
    """bool for each pair of references: whether they mean the same.

    `summed` where only symbol + addend counts. A symbol number of -1 means none on that side.
    """
    b, a = resolution.before, resolution.after
    old, new = np.maximum(old_symbol, 0), np.maximum(new_symbol, 0)
    kind, base = b.kind[old], b.base[old]
    new_kind, new_base = a.kind[new], a.base[new]
    old_in_section = b.in_section[old]
    element, location, within = pair.element(old_symbol, old_addend)
    if len(element):
        old_addend = old_addend.copy()
        kind[element] = np.where(location >= 0, Kind.LOCATION, Kind.NOWHERE)
        base[element], old_addend[element], old_in_section[element] = location, within, False
    merged = (new_kind == Kind.LOCATION) & _in_merge_section(pair, new_base)
    # the linker moves elements of a mergeable section: section + addend names the element, another
    # symbol + addend a place beside the symbol's
    sums = summed & (~merged | (old_in_section & a.in_section[new]))
    alike = np.True_
    if b.special is not None and a.special is not None:
        special, new_special = b.special[old], a.special[new]
        sums &= (special | new_special) & Special.MORE == 0
        both = (kind == Kind.LOCATION) & (new_kind == Kind.LOCATION)
        alike = sums | (special == new_special) | ~both
    equal = np.where(
        sums,
        base + old_addend == new_base + new_addend,
        (base == new_base) & (old_addend == new_addend),
    )
    located = (kind == Kind.LOCATION) | (kind == Kind.VALUE)
    equal = np.where(located, equal, (base == new_base) & (old_addend == new_addend))
    good = (kind == new_kind) & equal & (kind != Kind.NOWHERE) & alike
    if not pair.complete:
        lost = np.flatnonzero((kind == Kind.NOWHERE) & (old_symbol >= 0) & (new_symbol >= 0))
        good[lost] = _same_names(pair, old_symbol[lost], new_symbol[lost])
    good &= (old_symbol >= 0) & (new_symbol >= 0)
    good |= (old_symbol < 0) & (new_symbol < 0)
    doubtful = np.flatnonzero(~good & (old_symbol >= 0) & (new_symbol >= 0))
    for i in doubtful.tolist():
        o, n = int(old_symbol[i]), int(new_symbol[i])
        good[i] = _second_look(
            pair, resolution, o, n, int(old_addend[i]), int(new_addend[i]), bool(sums[i])
        )
    return np.asarray(good)


def _same_names(pair: Pair, old: Array, new: Array) -> Array:
    """Whether symbols may be the same as far as names tell: those that both sides have agree."""
    pairs, which = np.unique(np.stack([old, new], axis=1), axis=0, return_inverse=True)
    before, after = pair.before, pair.after
    good = []
    for o, n in pairs.tolist():
        one = before.string(int(before.symbols["name"][o]))
        two = after.string(int(after.symbols["name"][n]))
        good.append(not one or not two or one == two)
    return np.array(good, np.bool_)[which.reshape(-1)]


def _in_merge_section(pair: Pair, location: Array) -> Array:
    section = np.clip(location >> STEP, 0, len(pair.after.sections) - 1)
    return np.asarray(pair.after.sections["flags"][section] & SHF_MERGE != 0)


def _second_look(
    pair: Pair, r: Resolution, old: int, new: int, old_addend: int, new_addend: int, sums: bool
) -> bool:
    """The rarer ways to say the same: commons, hidden exports, one of several weak definitions."""
    kind, base = int(r.before.kind[old]), int(r.before.base[old])
    new_kind, new_base = int(r.after.kind[new]), int(r.after.base[new])

    def at(location: int) -> bool:
        if sums:
            return location + old_addend == new_base + new_addend
        return location == new_base and old_addend == new_addend

    if new_kind != Kind.LOCATION:
        return False
    if not pair.complete and kind == Kind.NAME and _is_set_end(pair, r.names.text[base], new):
        return old_addend == new_addend
    if kind == Kind.COMMON:
        location = new_base + (new_addend - old_addend if sums else 0)
        # that there is room for it is checked by `commons`
        return r.export_location.setdefault(base, location) == location and (
            sums or new_addend == old_addend
        )
    if kind == Kind.NAME:
        # only a name that cannot be interposed may be addressed directly
        hidden = pair.before.symbols["other"][old] & 3 != 0
        defined = r.export_location.get(base)
        return bool(hidden) and defined is not None and at(defined)
    if kind == Kind.LOCATION and pair.copies:
        section = int(pair.before.symbols["section"][old])
        home = int(pair.location[pair.row[section]]) if section > 0 else 0
        if any(at(base - home + copy) for copy in pair.copies.get(section, ())):
            return True
    if kind == Kind.LOCATION and old in r.alternatives:
        number = r.names.of(pair.before.string(int(pair.before.symbols["name"][old])))
        for location in r.alternatives[old]:
            if at(location):
                return r.export_location.setdefault(number, location) == location
    return False


def _is_set_end(pair: Pair, name: bytes, new: int) -> bool:
    """Whether a symbol of the result is the end of a section that `name` says: `__start_X`."""
    symbol = pair.after.symbols[new]
    end = int(pair.after.sections["size"][symbol["section"]])
    wanted = {b"__start_": 0, b"__stop_": end}.get(name[: name.find(b"_", 2) + 1], -1)
    return bool(symbol["value"] == wanted) and pair.after.string(int(symbol["name"])) == name


def check(pair: Pair, resolution: Resolution, sides: Sides) -> Changed:
    """Compare all relocations; returns where contents may differ."""
    m, old, new = pair.machine, sides.before, sides.after
    match = match_keys(keys(sides.location), keys(sides.after_location))
    type_ = np.minimum(old["type"].astype(np.int64), TYPES - 1)
    got = m.got[type_]
    # the addend of a distance counts from elsewhere: it does not say which element is meant
    distance = np.flatnonzero(got | (m.value[type_] != Value.NEVER))
    element, _, _ = pair.element(old["symbol"][distance], old["addend"][distance])
    for i in distance[element[:8]].tolist():
        where = pair.where_after(int(sides.location[i]))
        pair.findings.add("a distance to a section that came in pieces", where)
    shift = np.zeros(len(old), np.int64)
    if got.any():
        # `jmp *f@GOTPCREL(%rip)` is a byte longer than `jmp f`: the field moves to the front
        lone = np.flatnonzero(got & (match < 0))
        earlier = match_keys((sides.location[lone] - 1) * 8, keys(sides.after_location))
        moved = (earlier >= 0) & (new["type"][earlier] == m.pc32)
        match[lone[moved]] = earlier[moved]
        shift[lone[moved]] = -1
    here = np.flatnonzero(match >= 0)
    with_new = new[match[here]]
    new_type = with_new["type"].astype(np.int64)
    relaxed = got[here] & (new_type == m.pc32)
    no_plt = (type_[here] == m.branch) & (new_type == m.pc32)
    other = (old["type"][here] != with_new["type"]) & ~relaxed & ~no_plt
    _report(
        pair,
        sides,
        here[other],
        match,
        "a relocation has another type",
    )
    summed = by_location(pair, resolution, type_[here], old["symbol"][here], with_new["symbol"])
    good = same_target(
        pair,
        resolution,
        old["symbol"][here],
        old["addend"][here],
        with_new["symbol"],
        with_new["addend"],
        summed | relaxed,
    )
    if m.use.any():
        direct = relaxed | no_plt
        by_name = resolution.before.kind[np.maximum(old["symbol"][here], 0)] == Kind.NAME
        good &= ~(direct & by_name & (resolution.after.kind[with_new["symbol"]] == Kind.NAME))
    _report(pair, sides, here[~good], match, "a relocation has another target")
    _extra(pair, sides, match)
    _check_asking(pair, resolution, sides)

    gone = np.flatnonzero(match < 0)
    buried, spot = bury(pair, resolution, old[gone], sides.location[gone])
    gone = gone[~buried]
    inside, width, moved = _applied(pair, resolution, sides, gone, type_[gone])
    shift[gone] = moved
    direct, done = here[relaxed], gone[got[gone] & inside]
    _instructions(pair, sides, np.concatenate([direct, done]), shift)
    # all of these bytes were just looked at: opcodes, settled fields, and the nop behind a branch
    branches = direct[shift[direct] == -1]
    spots = [
        (sides.location[gone[inside]], width[inside]),
        (sides.location[done] - 2, np.full(len(done), 6)),
        (sides.location[direct] - 2, np.full(len(direct), 2)),
        (sides.location[branches] + 3, np.full(len(branches), 1)),
        spot,
    ]
    if pair.before.implicit_addends:
        spots.append(_addend_fields(pair, sides, match, here))
    locations = np.concatenate([location for location, _ in spots])
    widths = np.concatenate([size for _, size in spots])
    return Changed(locations, widths, int(inside.sum()))


def _addend_fields(pair: Pair, sides: Sides, match: Array, here: Array) -> tuple[Array, Array]:
    """Places and bytes of the addends that are in the contents; the bits beside them must stay."""
    part = pair.machine.addend[np.minimum(sides.before["type"][here].astype(np.int64), TYPES - 1)]
    width = np.zeros(len(here), np.int64)
    for kind, size in ADDEND_WIDTH.items():
        width[part == kind] = size
    low = here[part == Addend.LOW31]
    if len(low):
        word = np.dtype(f"{pair.after.layouts.order}u4")
        tops = []
        for side, rows in ((pair.before, sides.before[low]), (pair.after, sides.after[match[low]])):
            at = side.sections["offset"][rows["section"]] + rows["offset"]
            tops.append(gather(side.data, at, word) >> 31)
        _report(pair, sides, low[tops[0] != tops[1]], None, "a bit beside an addend changed")
    return sides.location[here], width


def _check_asking(pair: Pair, resolution: Resolution, sides: Sides) -> None:
    """R_*_NONE that ask for an undefined symbol: once for each section is enough, none is not."""
    if not pair.machine.keeps_none:
        return
    after = sides.after_asking
    locations = (after["section"] << STEP) + after["offset"]
    wanted, found = (
        {
            (location, name)
            for location, kind, name in zip(
                where.tolist(), side.kind[symbol].tolist(), side.base[symbol].tolist(), strict=True
            )
            if kind == Kind.NAME
        }
        for side, where, symbol in (
            (resolution.before, sides.asking_location, sides.asking["symbol"]),
            (resolution.after, locations, after["symbol"]),
        )
    )
    served = {(location >> STEP, name) for location, name in found}
    missing = {
        (location, name) for location, name in wanted if (location >> STEP, name) not in served
    }
    for kind, which in (("is missing", missing), ("is not the original's", found - wanted)):
        for location, name in sorted(which):
            text = resolution.names.text[name].decode("utf-8", "replace")
            text = f"`{text}` at {pair.where_after(location)}"
            pair.findings.add(f"a request for a symbol {kind}", text)


def _extra(pair: Pair, sides: Sides, match: Array) -> None:
    """Relocations that the original has not."""
    known = np.zeros(len(sides.after), np.bool_)
    known[match[match >= 0]] = True
    extra = np.flatnonzero(~known)
    if not pair.complete and not len(pair.location):  # nothing was found again: nothing to compare
        return
    if not pair.complete:
        order = np.argsort(pair.location)
        starts, ends = pair.location[order], (pair.location + pair.link_map["size"])[order]
        i = np.searchsorted(starts, sides.after_location[extra], side="right") - 1
        covered = (i >= 0) & (sides.after_location[extra] < ends[np.maximum(i, 0)])
        extra = extra[covered]
    locations = sides.after_location[extra]
    pair.findings.each("a relocation that the original has not", locations, pair.where_after)


def _applied(
    pair: Pair, resolution: Resolution, sides: Sides, gone: Array, type_: Array
) -> tuple[Array, Array, Array]:
    """Relocations that are no more: the value must be in the contents, and be the right one.

    Returns which of them are, the width of each field, and how far it moved.
    """
    m, old = pair.machine, sides.before[gone]
    symbol = np.maximum(old["symbol"], 0)
    kind, base = resolution.before.kind[symbol], resolution.before.base[symbol]
    got = m.got[type_]
    how = np.where(got, Value.REL32, m.value[type_])
    location = sides.location[gone]
    target = base + old["addend"]
    element, start, within = pair.element(old["symbol"], old["addend"])
    kind[element] = np.where(start >= 0, Kind.LOCATION, Kind.NOWHERE)
    base[element], target[element] = start, start + within
    may = (how != Value.NEVER) & (kind == Kind.LOCATION) & (base >> STEP == location >> STEP)
    if not pair.complete:
        may &= kind != Kind.NOWHERE
    may &= ~_in_merge_section(pair, base)
    width = np.zeros(len(gone), np.int64)
    moved = np.zeros(len(gone), np.int64)
    good = np.zeros(len(gone), np.bool_)
    for value in unique(how[may]).tolist():
        which = np.flatnonzero(may & (how == value))
        width[which] = VALUE_WIDTH[Value(value)]
        good[which] = _stored(pair, Value(value), location[which], target[which], old[which])
        if value == Value.REL32:
            again = which[~good[which] & got[which]]
            good[again] = _stored(pair, Value.REL32, location[again] - 1, target[again], old[again])
            moved[again[good[again]]] = -1
    lost = np.flatnonzero(~may) if pair.complete else np.flatnonzero(~may & (kind != Kind.NOWHERE))
    _report(pair, sides, gone[lost], None, "a relocation is missing")
    _report(pair, sides, gone[may & ~good], None, "a settled relocation has a wrong value")
    return may, width, moved


def _stored(pair: Pair, how: Value, location: Array, target: Array, old: Array) -> Array:
    """Whether the contents at `location` say `target`; other bits as in the original."""
    sections = pair.after.sections
    section = location >> STEP
    at = sections["offset"][section] + (location - (section << STEP))
    order, data = pair.after.layouts.order, pair.after.data
    distance = target - location
    width = VALUE_WIDTH[how]
    if len(at) and (at.min() < 0 or at.max() + width > len(data)):
        return np.zeros(len(at), np.bool_)
    if how in (Value.REL8, Value.REL16, Value.REL32, Value.REL64):
        return np.asarray(gather(data, at, np.dtype(f"{order}i{width}")) == distance)
    if how in (Value.HALVES16, Value.HALVES32):
        halves = gather(data, at, np.dtype(f"{order}i{width}")).astype(np.int64)
        return np.asarray(2 * halves == distance)
    word = gather(data, at, np.dtype(f"{order}u4")).astype(np.int64)
    mine = pair.before.sections["offset"][old["section"]] + old["offset"]
    original = gather(pair.before.data, mine, np.dtype(f"{order}u4")).astype(np.int64)
    if how == Value.ADR21:
        mask = 0x60FFFFE0
        value = (word >> 29 & 3) | (word >> 3 & 0x1FFFFC)
        bits, scale = 21, 1
    else:
        bits = {Value.BRANCH26: 26, Value.BRANCH19: 19, Value.BRANCH14: 14}[how]
        low = 0 if how == Value.BRANCH26 else 5
        mask, scale = ((1 << bits) - 1) << low, 4
        value = (word & mask) >> low
    signed = value - ((value >> (bits - 1)) << bits)
    return np.asarray((signed * scale == distance) & (word & ~mask == original & ~mask))


def _instructions(pair: Pair, sides: Sides, which: Array, shift: Array) -> None:
    """The instructions of loads through the GOT that became direct (x86-64 psABI, B.2)."""
    if not len(which):
        return
    old = sides.before[which]
    mine = pair.before.sections["offset"][old["section"]] + old["offset"]
    location = sides.location[which]
    section = location >> STEP
    at = pair.after.sections["offset"][section] + (location - (section << STEP))
    before = gather(pair.before.data, mine - 2, np.dtype("V2")).view(np.uint8).reshape(-1, 2)
    after = gather(pair.after.data, at - 2, np.dtype("V6")).view(np.uint8).reshape(-1, 6)
    op, modrm, moved = before[:, 0], before[:, 1], shift[which] == -1
    load = (op == 0x8B) & (modrm & 0xC7 == 5) & (after[:, 0] == 0x8D) & (after[:, 1] == modrm)
    prefixed = (after[:, 0] == 0x67) | (after[:, 0] == 0x90)
    call = (op == 0xFF) & (modrm == 0x15)
    jump = (op == 0xFF) & (modrm == 0x25)
    padded = after[:, 5] == 0x90
    good = ~moved & (
        load | (call & prefixed & (after[:, 1] == 0xE8)) | (jump & prefixed & (after[:, 1] == 0xE9))
    )
    good |= moved & padded & ((call & (after[:, 0] == 0xE8)) | (jump & (after[:, 0] == 0xE9)))
    good &= old["offset"] >= 2
    # what follows a rip-relative field would shift the address, so the addend tells the end
    good &= old["addend"] == -4
    _report(pair, sides, which[~good], None, "an instruction was changed in a wrong way")


def _report(pair: Pair, sides: Sides, which: Array, match: Array | None, kind: str) -> None:
    def text(i: int) -> str:
        old = sides.before[i]
        name = _symbol_text(pair, int(old["symbol"]))
        text = (
            f"{pair.where_before(int(old['section']), int(old['offset']))} type {int(old['type'])} "
            f"to {name}{int(old['addend']):+#x}, now {pair.where_after(int(sides.location[i]))}"
        )
        if match is not None and match[i] >= 0:
            new = sides.after[match[i]]
            text += f" type {int(new['type'])} to {_result_text(pair, int(new['symbol']))}"
            text += f"{int(new['addend']):+#x}"
        return text

    pair.findings.each(kind, which, text)


def _symbol_text(pair: Pair, number: int) -> str:
    symbol = pair.before.symbols[number]
    name = pair.before.string(int(symbol["name"])).decode("utf-8", "replace")
    if name:
        return f"`{name}`"
    section = int(symbol["section"])
    return pair.where_before(section, int(symbol["value"])) if section > 0 else "nothing"


def _result_text(pair: Pair, number: int) -> str:
    symbol = pair.after.symbols[number]
    name = pair.after.string(int(symbol["name"])).decode("utf-8", "replace")
    section = int(symbol["section"])
    if name or section <= 0:
        return f"`{name}`"
    return pair.where_after((section << STEP) + int(symbol["value"]))
