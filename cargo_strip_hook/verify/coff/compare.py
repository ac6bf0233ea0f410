"""Compares pieces with where they came from: each byte, relocation and entry of .pdata."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cargo_strip_hook.verify.arrays import is_among, rows_of
from cargo_strip_hook.verify.coff.frames import describes
from cargo_strip_hook.verify.coff.locations import (
    LOCATION,
    NAME,
    NOWHERE,
    STEP,
    VALUE,
    Definitions,
    Meaning,
    Pair,
    fallback,
    meanings,
)
from cargo_strip_hook.verify.coff.machine import POINTER, RELATIVE, UNWOUND, addends
from cargo_strip_hook.verify.coff.read import (
    ABSOLUTE,
    ASSOCIATIVE,
    BSS,
    CODE,
    EXTERNAL,
    I386,
    Array,
    Object,
)
from cargo_strip_hook.verify.kit.names import shown

_FILL = np.frombuffer(b"\x00\x90\xcc", np.uint8)
IMPORT = b"__imp_"
_POINTER_MASK = (np.uint64(0xFFFF_FFFF), np.uint64(0xFFFF_FFFF_FFFF_FFFF))
_APART = frozenset(
    b".drectve .cargo-strip-hook .sxdata .gfids$y .giats$y .gljmp$y .gehcont$y".split()
)


@dataclass
class References:
    """Fields that refer to something: where they are in the result, and what they mean there."""

    location: Array
    type: Array
    kind: Array
    base: Array
    addend: Array

    @property
    def target(self) -> Array:
        return self.base + self.addend


@dataclass
class Made:
    """What no piece of the original holds: place and size of commons and of import pointers."""

    common: dict[int, int]  # number of the name -> place
    pointer: dict[int, int]


def compare(pair: Pair, found: Definitions) -> tuple[Made, tuple[int, int, int]]:
    """All pieces. Returns what was made, and (bytes, relocations, settled relocations)."""
    after = pair.after
    own = np.array([not _is_apart(name) for name in after.names])
    relocations = rows_of(after.relocations, own[after.relocations["section"]])
    result = by_location(references_after(pair, relocations))
    twice = result.location[1:] == result.location[:-1]
    if twice.any():
        where = pair.where(int(result.location[1:][twice][0]))
        pair.findings.add("relocation", f"two at {where}")
    copy, wide = after.raw.copy(), after.machine != I386
    used = np.zeros(len(result.location), np.bool_)
    made = Made({}, {})
    parts: list[Array] = []
    count = applied = 0
    for m in range(len(pair.objects)):
        wanted, masks, raw = _references_before(pair, found, m)
        i = np.searchsorted(result.location, wanted.location)
        near = np.minimum(i, max(len(result.location) - 1, 0))
        there = np.zeros(len(i), np.bool_)
        if len(result.location):
            there = (i < len(result.location)) & (result.location[near] == wanted.location)
        used[near[there]] = True
        _check_kept(pair, found, made, take(wanted, there), take(result, near[there]))
        _check_settled(pair, found, take(wanted, ~there))
        clear(copy, file_locations(after, wanted.location), masks)
        count, applied = count + len(i), applied + int((~there).sum())
        parts.append(raw)
    _check_made(pair, found, made, result, used)
    pointers = np.array(list(made.pointer.values()), np.int64)
    clear(copy, file_locations(after, pointers), np.full(len(pointers), _POINTER_MASK[wide]))
    return made, (_check_bytes(pair, copy, parts), count, applied)


def _is_apart(name: bytes) -> bool:
    """Whether a section holds no pieces: debug information, directives and tables of symbols."""
    return name.startswith(b".debug") or name in _APART


def take(references: References, which: Array) -> References:
    """Those at these positions (int or bool), in this order."""
    return References(
        references.location[which],
        references.type[which],
        references.kind[which],
        references.base[which],
        references.addend[which],
    )


def by_location(references: References) -> References:
    return take(references, np.argsort(references.location, kind="stable"))


def file_locations(o: Object, locations: Array) -> Array:
    section = locations >> STEP
    return np.asarray(o.sections["offset"][section] + (locations & ((1 << STEP) - 1)))


def clear(raw: Array, at: Array, masks: Array) -> None:
    """Zero the bits of `masks` (eight bytes each) at places in a file."""
    width = np.where(masks >> np.uint64(32), 8, np.where(masks >> np.uint64(16), 4, 2))
    for size in (2, 4, 8):
        mine = np.flatnonzero((width == size) & (masks != 0))
        octets = (masks[mine, None] >> (8 * np.arange(size, dtype=np.uint64))).astype(np.uint8)
        raw[at[mine, None] + np.arange(size)] &= ~octets


def references_after(pair: Pair, relocations: Array) -> References:
    o, ext = pair.after, pair.result
    section = o.symbols["section"].astype(np.int64)
    value = o.symbols["value"].astype(np.int64)
    kind = np.where(section > 0, LOCATION, np.where(section == ABSOLUTE, VALUE, NOWHERE))
    base = np.where(section > 0, (section << STEP) + value, value)
    loose = ext.index[~ext.defined]
    kind[loose], base[loose] = NAME, ext.name[~ext.defined]
    number, _, _ = addends(o.machine, relocations["type"], relocations["field"])
    location = (relocations["section"].astype(np.int64) << STEP) + relocations["offset"]
    symbol = relocations["symbol"]
    return References(location, relocations["type"], kind[symbol], base[symbol], number)


def _references_before(
    pair: Pair, found: Definitions, member: int
) -> tuple[References, Array, Array]:
    """(the relocations of the placed pieces, their masks, the file with the masked bits zero)."""
    o = pair.objects[member]
    relocations = o.relocations
    location = pair.find(member, relocations["section"], relocations["offset"])
    here = (location >= 0) & (relocations["type"] != 0)
    relocations, location = rows_of(relocations, here), location[here]
    number, masks, _ = addends(o.machine, relocations["type"], relocations["field"])
    for i in np.flatnonzero(masks == 0)[:1].tolist():
        kind = int(relocations["type"][i])
        pair.findings.add(
            "relocation", f"type {kind} at {pair.where(int(location[i]))} is not known"
        )
    meaning: Meaning = meanings(pair, found, member)
    dead = meaning.kind[relocations["symbol"]] == NOWHERE
    if dead.any():
        # a table stays whole; what it says of a function that is gone stays as it was in the file
        kept = ~(dead & describes(o, relocations))
        relocations, location, number, masks = (
            c[kept] for c in (relocations, location, number, masks)
        )
    symbol = relocations["symbol"]
    kind, base = meaning.kind[symbol], meaning.base[symbol]
    _find_records(pair, member, symbol, number, kind, base)
    raw = o.raw.copy()
    at = o.sections["offset"][relocations["section"]] + relocations["offset"]
    clear(raw, at, masks)
    return References(location, relocations["type"], kind, base, number), masks, raw


def _find_records(
    pair: Pair, member: int, symbol: Array, addend: Array, kind: Array, base: Array
) -> None:
    """Records of unwind information went to places of their own; changes `kind` and `base`.

    What is meant is the record at symbol + addend, wherever the one at the symbol went. An external
    symbol means what its name does: of C++, `_TI1H` is in such a section, in each member a copy.
    """
    o = pair.objects[member]
    section = o.symbols["section"][symbol].astype(np.int64)
    own = o.symbols["class"][symbol] != EXTERNAL
    mine = np.flatnonzero((section > 0) & (kind == LOCATION) & own)
    mine = mine[o.unwind_records[section[mine]]]
    if len(mine):
        value = o.symbols["value"][symbol[mine]].astype(np.int64) + addend[mine]
        at = pair.find(member, section[mine], value)
        kind[mine] = np.where(at >= 0, LOCATION, NOWHERE)
        base[mine] = np.where(at >= 0, at - addend[mine], -1)


def _tell(pair: Pair, locations: Array, what: str) -> None:
    for location in locations[:4].tolist():
        pair.findings.add("relocation", f"at {pair.where(location)} {what}")
    pair.findings.more("relocation", len(locations) - 4)


def _check_kept(
    pair: Pair, found: Definitions, made: Made, wanted: References, result: References
) -> None:
    """Fields that have a relocation on both sides."""
    location = wanted.location
    _tell(pair, location[wanted.type != result.type], "has another type than in the original")
    _tell(pair, location[wanted.kind == NOWHERE], "refers to what is not in the result")
    same = (wanted.kind == result.kind) & (wanted.kind != NOWHERE)
    # only places and values may be split into a symbol and an addend in another way
    split = np.where(
        wanted.kind == NAME,
        (wanted.base == result.base) & (wanted.addend == result.addend),
        wanted.target == result.target,
    )
    for i in np.flatnonzero(~(same & split) & (wanted.kind != NOWHERE)).tolist():
        one = take(wanted, np.array([i])), take(result, np.array([i]))
        if wanted.kind[i] != NAME or not _as_made(pair, found, made, *one):
            _tell(pair, location[[i]], "refers to another place than in the original")


def _as_made(
    pair: Pair, found: Definitions, made: Made, wanted: References, result: References
) -> bool:
    """Whether a reference to a name nothing defines may mean what it does in the result."""
    name, addend = int(wanted.base[0]), int(wanted.addend[0])
    kind, target = int(result.kind[0]), int(result.target[0]) - addend
    if name in found.common and kind == LOCATION:
        return made.common.setdefault(name, target) == target
    text = pair.names.text[name]
    if text.startswith(IMPORT) and kind == LOCATION:
        return made.pointer.setdefault(name, target) == target
    if name in found.fallback:
        other, base = fallback(pair, found, name)
        same_name = kind == NAME and int(result.base[0]) == base
        return other == kind and (same_name if kind == NAME else target == base)
    return False


def _check_settled(pair: Pair, found: Definitions, wanted: References) -> None:
    """Fields without a relocation in the result: distances within a section, and constants."""
    after = pair.after
    at = file_locations(after, wanted.location)
    fields = np.ascontiguousarray(after.raw[at[:, None] + np.arange(8)]).view("<u8").ravel()
    value, _, behind = addends(after.machine, wanted.type, fields)
    kind, base = wanted.kind.copy(), wanted.base.copy()
    for i in np.flatnonzero(kind == NAME).tolist():
        if int(base[i]) in found.fallback:
            kind[i], base[i] = fallback(pair, found, int(base[i]))
    target = base + wanted.addend
    near = (kind == LOCATION) & (behind >= 0) & (base >> STEP == wanted.location >> STEP)
    near &= value == target - wanted.location - behind
    constant = (kind == VALUE) & (behind < 0) & (value == target)
    _tell(pair, wanted.location[~near & ~constant], "was settled wrongly or lost its relocation")


def _check_made(
    pair: Pair, found: Definitions, made: Made, result: References, used: Array
) -> None:
    """Commons have room that nothing else uses; import pointers point where the name is."""
    rows, findings = pair.rows, pair.findings
    spans = [(int(p), int(s), False) for p, s in zip(pair.location, rows["size"], strict=True) if s]
    for name, location in made.common.items():
        section = location >> STEP
        flags = int(pair.after.sections["flags"][section])
        room = int(pair.after.sections["size"][section]) - (location & ((1 << STEP) - 1))
        if not flags & BSS or room < found.common[name]:
            findings.add("relocation", f"{shown(pair.names.text[name])} has no room")
        spans.append((location, found.common[name], True))
    width = 4 if POINTER[pair.after.machine] == 6 else 8
    for name, location in made.pointer.items():
        text = pair.names.text[name]
        wanted = pair.names.number.get(text[len(IMPORT) :], -1)
        i = int(np.searchsorted(result.location, location))
        ok = (
            i < len(result.location)
            and result.location[i] == location
            and not used[i]
            and wanted >= 0
        )
        if ok:
            used[i] = True
            ok = result.type[i] == POINTER[pair.after.machine] and result.kind[i] == LOCATION
            ok &= int(result.target[i]) == int(found.location[wanted]) >= 0
        if not ok:
            findings.add("relocation", f"{shown(text)} does not point to what it should")
        spans.append((location, width, True))
    spans.sort()
    for (start, size, mine), (other, _, others) in pairwise(spans):
        if start + size > other and (mine or others):
            findings.add("placement", f"two pieces overlap at {pair.where(other)}")
    new = np.flatnonzero(~used)
    kept = [_keeps_group(pair, take(result, new[[i]]), spans) for i in range(len(new))]
    _tell(pair, result.location[np.delete(new, np.flatnonzero(kept))], "is not in the original")


def _keeps_group(pair: Pair, one: References, spans: list[tuple[int, int, bool]]) -> bool:
    """Whether a reference stands behind all pieces, and keeps a part of a group for GNU ld."""
    location, target = int(one.location[0]), int(one.target[0])
    home, goal = location >> STEP, target >> STEP
    if pair.expectation.target.archive_dialect == "coff" or one.kind[0] != LOCATION:
        return False
    last = max((start + size for start, size, _ in spans if start >> STEP == home), default=0)
    relative = one.type[0] == RELATIVE[pair.after.machine] and target == goal << STEP
    return bool(relative and location >= last and b"$" in pair.after.names[goal])


def _check_bytes(pair: Pair, after: Array, members: list[Array]) -> int:
    """All bytes but those that relocations decide; what lies between pieces is filling."""
    rows, o = pair.rows, pair.after
    left = np.ones(len(after), np.bool_)
    out = memoryview(after.tobytes())
    views = [memoryview(m.tobytes()) for m in members]
    compared = 0
    for m, location, row in zip(
        pair.position.tolist(), pair.location.tolist(), rows.tolist(), strict=True
    ):
        _, number, offset, size, out_number, out_offset = row
        home, mine = o.sections[out_number], pair.objects[m].sections[number]
        start = int(home["offset"]) + out_offset
        if int(home["flags"]) & BSS:
            if not int(mine["flags"]) & BSS:
                pair.findings.add("contents", f"at {pair.where(location)} are not there")
            continue
        there = out[start : start + size]
        left[start : start + size] = False
        if int(mine["flags"]) & BSS:
            same = not any(there)
        else:
            begin = int(mine["offset"]) + offset
            same = there == views[m][begin : begin + size]
        if not same:
            pair.findings.add("contents", f"at {pair.where(location)} differ from the original")
        compared += size
    for number in range(1, len(o.names)):
        home = o.sections[number]
        if int(home["flags"]) & BSS or _is_apart(o.names[number]):
            continue
        start, stop = int(home["offset"]), int(home["offset"]) + int(home["size"])
        extra = after[start:stop][left[start:stop]]
        filling = _FILL if int(home["flags"]) & CODE else _FILL[:1]
        if not is_among(extra, filling).all():
            where = pair.where(number << STEP)
            pair.findings.add("contents", f"of {where} are more than its pieces")
    return compared


def check_unwinding(pair: Pair) -> int:
    """Each function that is in the result has its entries of .pdata there, in order."""
    size = UNWOUND.get(pair.after.machine)
    if size is None:
        return 0
    for m, o in enumerate(pair.objects):
        rows = o.relocations[o.unwind_tables[o.relocations["section"]]]
        starts = rows[rows["offset"] % size == 0]
        symbol = starts["symbol"]
        location = pair.find(
            m,
            o.symbols["section"][symbol],
            o.symbols["value"][symbol] + (starts["field"] & 0xFFFF_FFFF).astype(np.int64),
        )
        live = (location >= 0) & (o.symbols["section"][symbol] > 0)
        entry = pair.find(m, starts["section"], starts["offset"])
        for p in location[live & (entry < 0)][:4].tolist():
            pair.findings.add("unwind", f"the function at {pair.where(p)} has lost its entry")
        pair.findings.more("unwind", int((live & (entry < 0)).sum()) - 4)
    return _check_tables(pair, size)


def _check_tables(pair: Pair, size: int) -> int:
    """The result's own tables: as many entries as were placed, sorted by the function."""
    after = pair.after
    tables = np.flatnonzero(after.unwind_tables)
    everything = references_after(pair, after.relocations)
    section = everything.location >> STEP
    starts = np.isin(section, tables) & ((everything.location & ((1 << STEP) - 1)) % size == 0)
    location, target, kind = (
        everything.location[starts],
        everything.target[starts],
        everything.kind[starts],
    )
    order = np.argsort(location, kind="stable")
    location, target, kind = location[order], target[order], kind[order]
    entries = int(after.sections["size"][tables].sum()) // size
    if after.apart is not None:
        entries -= int(after.apart[1][np.isin(after.apart[0] >> STEP, tables)].sum()) // size
    if entries != len(location) or (kind != LOCATION).any():
        pair.findings.add("unwind", "an entry of .pdata is for no function of the library")
        return entries
    # a table goes with the section it is associated to: that has to be its functions'
    of, home = np.unique(np.stack([location >> STEP, target >> STEP], 1), axis=0).T.tolist()
    for number, function in zip(of, home, strict=True):
        selection, parent, _ = after.selections.get(number, (0, 0, -1))
        if selection and (selection != ASSOCIATIVE or parent != function):
            pair.findings.add("unwind", f"{pair.where(number << STEP)} can go without its function")
    # GNU ld keeps the order of a table; lld sorts the whole
    same = (location[1:] >> STEP == location[:-1] >> STEP) & (
        target[1:] >> STEP == target[:-1] >> STEP
    )
    for i in np.flatnonzero(same & (target[1:] <= target[:-1]))[:4].tolist():
        pair.findings.add(
            "unwind", f"the entry at {pair.where(int(location[i + 1]))} is out of order"
        )
    return entries


def check_weak(pair: Pair, found: Definitions) -> None:
    """Weak externals that are left have the default they had."""
    o, ext = pair.after, pair.result
    for symbol, name, default in zip(
        ext.index[ext.weak].tolist(), ext.name[ext.weak].tolist(), ext.fallback, strict=True
    ):
        text = shown(pair.names.text[name])
        if name not in found.fallback or name >= len(found.location) or found.location[name] >= 0:
            pair.findings.add("weak external", f"{text} was none before")
            continue
        if default >= len(o.symbols) or o.auxiliary[default]:
            pair.findings.add("weak external", f"{text} has no default")
            continue
        member, _ = found.fallback[name]
        aux_before = pair.objects[member].auxiliary_of(_symbol(pair, member, name))[4:8]
        if o.auxiliary_of(symbol)[4:8] != aux_before:
            pair.findings.add("weak external", f"{text} is searched for in another way")
        kind, base = fallback(pair, found, name)
        section, value = int(o.symbols["section"][default]), int(o.symbols["value"][default])
        if section > 0:
            good = kind == LOCATION and base == (section << STEP) + value
        elif section == ABSOLUTE:
            good = kind == VALUE and base == value and o.name(default) != b"@feat.00"
        else:
            good = kind == NAME and pair.names.text[base] == o.name(default)
        if not good:
            pair.findings.add("weak external", f"{text} has another default")


def _symbol(pair: Pair, member: int, name: int) -> int:
    ext = pair.before[member]
    return int(ext.index[(ext.name == name) & ext.weak][0])
