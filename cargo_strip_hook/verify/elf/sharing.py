"""A library of a set: the small one, with what a linker loads of the common one, is the original.

The objects that a linker would load are read as one, names that cross between them resolved. So
all checks of a single result hold for them together: nothing in them may be unexplained by the
original. A member that this library does not need is not loaded, or is found to be too much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.verify.arrays import Array, is_among, unique
from cargo_strip_hook.verify.elf import check as single
from cargo_strip_hook.verify.elf import order, structure
from cargo_strip_hook.verify.elf.apart import homes_of, set_apart
from cargo_strip_hook.verify.elf.elements import cut
from cargo_strip_hook.verify.elf.groups import beaten
from cargo_strip_hook.verify.elf.machine import machine
from cargo_strip_hook.verify.elf.mapping import Kind, Pair, Resolution, own_symbols
from cargo_strip_hook.verify.elf.read import (
    SHF_LINK_ORDER,
    SHF_MERGE,
    STB_GLOBAL,
    STB_LOCAL,
    STEP,
    STT_FUNC,
    STT_NOTYPE,
    STT_OBJECT,
    STT_SECTION,
    STT_TLS,
    STV_HIDDEN,
    Damaged,
    Objects,
    read_objects,
)
from cargo_strip_hook.verify.elf.relocations import Sides
from cargo_strip_hook.verify.expectation import Expectation, Findings, Verified
from cargo_strip_hook.verify.index import Listing
from cargo_strip_hook.verify.kit.frames import BadFrames
from cargo_strip_hook.verify.kit.names import encoded
from cargo_strip_hook.verify.kit.sets import Common, Compared, check_common_index, loaded_for
from cargo_strip_hook.verify.loading import loading


class Seen(NamedTuple):
    """What is known of both sides: their relocations, and what names stand for.

    `pair` has the objects of the result behind one another, the small one first. `shared`: bool for
    each row of the link map: whether another library has something in this place, too; None where
    what is shared is in the common library.
    """

    pair: Pair
    sides: Sides | None
    resolution: Resolution | None
    shared: Array | None


def read_common(
    data: bytes, listing: Listing, expectation: Expectation, findings: Findings
) -> Common | None:
    """Read the common library and check each of its objects by itself."""
    gives, needs, properties = [], [], []
    try:
        for number, (_, offset, size) in enumerate(listing.members):
            asked = replace(expectation, marker=b"") if number else expectation
            one, promised = _sound(data, offset, size, asked, findings)
            properties.append(promised)
            s = one.symbols
            names = one.strings(s["name"])
            shows = np.flatnonzero((s["binding"] != STB_LOCAL) & ~s["undefined"])
            hidden = (s["other"][shows] & 3 == STV_HIDDEN) & (s["binding"][shows] == STB_GLOBAL)
            for row in shows[~hidden].tolist():
                findings.add("the common library shows a name", names[row].decode(errors="replace"))
            lacks = np.flatnonzero((s["binding"] != STB_LOCAL) & s["undefined"])
            gives.append(frozenset(names[row] for row in shows.tolist()))
            needs.append(frozenset(names[row] for row in lacks.tolist()))
    except (Damaged, IndexError) as e:
        findings.add("damaged", str(e))
        return None
    every = [name for mine in gives for name in mine]
    if len(set(every)) < len(every):
        findings.add("the common library", "defines a name twice")
    check_common_index(listing, gives, findings)
    return Common(data, listing, tuple(gives), tuple(needs), tuple(properties))


def _sound(
    data: bytes, offset: int, size: int, expectation: Expectation, findings: Findings
) -> tuple[Objects, dict[int, int]]:
    """One object, checked by itself, and its GNU properties. Raises `Damaged`."""
    one = read_objects(data, [offset], [size])
    structure.check_structure(one, expectation, findings)
    return one, structure.second_reading(one, memoryview(data)[offset : offset + size], findings)


def check(
    original: Archive,
    small: tuple[bytes, Listing],
    common: Common | None,
    expectation: Expectation,
    findings: Findings,
) -> Compared:
    """Compare one library. The link maps of `expectation` tell the object of each row, too.

    Without a common library all libraries are in one object. Raises `ObjectError` for a damaged
    original.
    """
    nothing = Compared(Verified((), ()), None, ())
    rows = expectation.link_map
    if rows is None:
        findings.add("placement", "is not there")
        return nothing
    try:
        one = _loaded(small, common, expectation, findings)
    except (Damaged, IndexError) as e:
        findings.add("damaged", str(e))
        return nothing
    after = one.after
    position = np.full(1 + (0 if common is None else len(common.listing.members)), -1, np.int64)
    position[[0, *(number + 1 for number in one.numbers)]] = np.arange(1 + len(one.numbers))
    bad = (rows["object"] < 0) | (rows["object"] >= len(position))
    if bad.any() or (position[rows["object"]] < 0).any():
        findings.add("placement", "is in an object that this library does not load")
        return nothing
    count = np.diff(after.section_base)[position[rows["object"]]]
    if ((rows["out_section"] <= 0) | (rows["out_section"] >= count)).any():
        findings.add("placement", "names no section of the result")
        return nothing
    rows = _numbered(rows, after, position)
    pair = _pair(original, after, replace(expectation, link_map=rows), findings)
    if pair is None or findings:
        return nothing
    theirs = [
        _numbered(r[(r["object"] > 0) | (common is None)], after, position)
        for r in expectation.others
    ]
    apart = set_apart(pair, theirs, one.numbers, joined=common is None)
    pair = replace(apart.pair, crossing=one.crossing)
    structure.check_against_members(pair.before, one.own, findings)
    own = ~apart.shared if common is None else np.ones(len(pair.link_map), np.bool_)
    promises = _promises(pair, one.properties, one.numbers, own)
    if common is not None:
        structure.check_stack_note(pair.before, one.own, findings)
    foreign, pair = _without_foreign(pair, one.numbers, whole=common is None)
    listing = small[1]
    if common is None and listing.index is not None:
        s = one.own.symbols
        shown = one.own.strings(s["name"][(s["binding"] != STB_LOCAL) & ~s["undefined"]])
        if sorted(shown) != sorted(name for name, _ in listing.index):
            findings.add("the archive's index", "is not that of the object")
        asked = encoded(expectation.exports)
        listing = replace(listing, index=tuple(e for e in listing.index if e[0] in asked))
    seen: list[tuple[Sides, Resolution]] = []
    try:
        verified = single.compare(pair, listing, seen)
    except (Damaged, BadFrames) as e:
        findings.add("damaged", str(e))
        return nothing
    shared = apart.shared if common is None else None
    sides, resolution = seen[0] if seen else (None, None)
    known = Seen(pair, sides, resolution, shared)
    return Compared(verified, known, one.numbers, foreign | apart.symbols, promises)


@dataclass(frozen=True, eq=False)
class _Loaded:
    """The objects that a linker loads for a library, as one: its own, and those with `numbers`.

    `crossing` see `Pair`; `properties` are those of each object.
    """

    own: Objects
    after: Objects
    crossing: Array
    numbers: tuple[int, ...]
    properties: tuple[dict[int, int], ...]


def _loaded(
    small: tuple[bytes, Listing],
    common: Common | None,
    expectation: Expectation,
    findings: Findings,
) -> _Loaded:
    """Raises `Damaged`."""
    data, listing = small
    _, offset, size = listing.members[0]
    own, promised = _sound(data, offset, size, expectation, findings)
    if common is None:
        none = np.zeros(len(own.symbols), np.bool_)
        return _Loaded(own, own, none, (), (promised,))
    numbers = loaded_for(common, single.symbols_of(own))
    base, sizes = [offset], [size]
    for number in numbers:
        _, at, length = common.listing.members[number]
        base.append(len(data) + at)
        sizes.append(length)
    after, crossing = _as_one(read_objects(data + common.data, base, sizes), findings)
    properties = (promised, *(common.properties[number] for number in numbers))
    return _Loaded(own, after, crossing, numbers, properties)


def _promises(
    pair: Pair, properties: Sequence[dict[int, int]], numbers: Sequence[int], own: Array
) -> frozenset[int]:
    """The objects of the common library that promise more than this library's members do.

    Another one's may: what they share has the same bytes in both. `own`: bool for each row of the
    link map: whether what is there can only be from this library's.
    """
    home = np.searchsorted(pair.after.section_base, pair.link_map["out_section"], "right") - 1
    member = pair.before.sections["object"][pair.section]
    found = set()
    for position, (number, promised) in enumerate(zip((-1, *numbers), properties, strict=True)):
        mine = unique(member[(home == position) & (own | (position > 0))])
        if not len(mine):
            continue
        findings = pair.findings if position == 0 else Findings()
        single.check_properties(replace(pair, findings=findings), promised, mine)
        if position and findings:
            found.add(number)
    return frozenset(found)


def _numbered(rows: Array, after: Objects, position: Array) -> Array:
    """A link map's rows that are in loaded objects, with the sections of all of them numbered."""
    rows = rows[(rows["object"] >= 0) & (rows["object"] < len(position))]
    rows = rows[position[rows["object"]] >= 0].copy()
    rows["out_section"] += after.section_base[position[rows["object"]]].astype(np.int32)
    return rows[(rows["out_section"] > 0) & (rows["out_section"] < len(after.sections))]


def _as_one(after: Objects, findings: Findings) -> tuple[Objects, Array]:
    """The objects with each name that crosses bound to its definition, and local.

    Tells of each symbol whether it has such a name (bool).
    """
    s = after.symbols.copy()
    crossing = np.zeros(len(s), np.bool_)
    is_global = s["binding"] != STB_LOCAL
    rows = np.flatnonzero(is_global)
    names = dict(zip(rows.tolist(), after.strings(s["name"][rows]), strict=True))
    first = int(after.symbol_base[1])
    given = np.flatnonzero(is_global & ~s["undefined"])
    given = given[given >= first]  # of the common library's objects
    home = {names[row]: row for row in given.tolist()}
    shown = np.flatnonzero(is_global & ~s["undefined"])
    for row in shown[shown < first].tolist():
        if names[row] in home:
            findings.add("defined twice in the set", names[row].decode(errors="replace"))
    missing = np.flatnonzero(is_global & s["undefined"]).tolist()
    taken = np.array([row for row in missing if names[row] in home], np.int64)
    where = np.array([home[names[row]] for row in taken.tolist()], np.int64)
    good = (s["other"][taken] & 3 == STV_HIDDEN) & (s["binding"][taken] == STB_GLOBAL)
    for row in taken[~good].tolist():
        findings.add("a name that crosses is not hidden", names[row].decode(errors="replace"))
    for field in ("section", "value", "other", "kind"):
        s[field][taken] = s[field][where]
    s["undefined"][taken], s["binding"][taken] = False, STB_LOCAL
    crossing[taken] = True
    s["binding"][given] = STB_LOCAL
    crossing[given] = True
    sections = after.sections.copy()
    linked = sections["flags"] & SHF_LINK_ORDER != 0
    sections["link"][linked] += after.section_base[sections["object"][linked]]
    return replace(after, symbols=s, sections=sections), crossing


def _pair(
    original: Archive, after: Objects, expectation: Expectation, findings: Findings
) -> Pair | None:
    """As for a single result, but that shared code may have a copy of what linkers merge."""
    rows = expectation.link_map
    assert rows is not None
    used: list[int] = unique(rows["member"]).tolist()
    if not used or not 0 <= used[0] <= used[-1] < len(original.members):
        findings.add("placement", "names a member that the original has not")
        return None
    read = single.read_original(original, used)
    before = read.objects
    if before.machine != after.machine or before.layouts != after.layouts:
        findings.add("damaged", "made for another processor than the original")
        return None
    position = np.searchsorted(np.array(used), rows["member"])
    count = np.diff(before.section_base)[position]
    if ((rows["section"] <= 0) | (rows["section"] >= count)).any():
        findings.add("placement", "names no section of the original")
        return None
    section = before.section_base[position] + rows["section"]
    about = before.is_debug[section]
    rows, section = rows[~about], section[~about]
    whole = (rows["offset"] == 0) & (rows["size"] == before.sections["size"][section])
    location = (rows["out_section"].astype(np.int64) << STEP) + rows["out_offset"]
    pieces_of = cut(before, rows[~whole], section[~whole], location[~whole], findings)
    row = np.full(len(before.sections), -1, np.int64)
    copies: dict[int, tuple[int, ...]] = {}
    for at in np.flatnonzero(whole).tolist():
        number = int(section[at])
        if row[number] < 0:
            row[number] = at
        elif before.sections["flags"][number] & SHF_MERGE:
            copies[number] = (*copies.get(number, ()), int(location[at]))
        else:
            findings.add("placement", "a section is placed twice")
    if pieces_of.is_cut[section[whole]].any():
        findings.add("placement", "a section is placed twice")
    if findings:
        return None
    after = _without_labels(after, before, copies)
    structure.check_identity(before, after, findings)
    return Pair(
        expectation,
        findings,
        before,
        after,
        tuple(original.members[i].name for i in used),
        tuple(used),
        loading(original, expectation, lambda: order.contents(original, single.read_members)),
        rows,
        section,
        row,
        location,
        pieces_of,
        True,
        machine(after.machine, after.layouts.order),
        single.defined_among(original, read.index, single.symbols_of(after)),
        rows[:0],
        section[:0],
        read.frames,
        read.kinds,
        beaten(before, row, findings),
        copies,
    )


def _without_foreign(
    pair: Pair, loaded: Sequence[int], *, whole: bool
) -> tuple[frozenset[tuple[int, int]], Pair]:
    """Set local symbols aside that have another library's name for what is equal.

    Type and size of such a symbol are compared for a library that has this name at the place.
    `whole`: all libraries are in the only object.
    """
    s = pair.after.symbols.copy()
    base = pair.after.symbol_base
    own = 0 if whole else int(base[1])
    kinds = (s["kind"] == STT_OBJECT) | (s["kind"] == STT_FUNC) | (s["kind"] == STT_TLS)
    rows = np.flatnonzero((s["binding"] == STB_LOCAL) & (s["section"] > 0) & kinds)
    rows = rows[rows >= own]
    if pair.crossing is not None:
        rows = rows[~pair.crossing[rows]]
    location = (s["section"][rows] << STEP) + s["value"][rows]
    own_ones = own_symbols(pair)
    placed = np.flatnonzero(own_ones.kind == Kind.LOCATION)
    placed = placed[is_among(own_ones.base[placed], location)]
    bases, before = own_ones.base[placed].tolist(), pair.before.symbols[placed]
    known = set(zip(bases, pair.before.names[placed].tolist(), strict=True))
    facts = set(zip(bases, before["kind"].tolist(), before["size"].tolist(), strict=True))
    names = pair.after.strings(s["name"][rows])
    columns = (location.tolist(), s["kind"][rows].tolist(), s["size"][rows].tolist())
    foreign = [
        row
        for row, fact, name in zip(rows.tolist(), zip(*columns, strict=True), names, strict=True)
        if ((fact[0], name) not in known if name else fact not in facts)
    ]
    s["kind"][foreign] = STT_NOTYPE
    return homes_of(base, loaded, foreign), replace(pair, after=replace(pair.after, symbols=s))


def _without_labels(
    after: Objects, before: Objects, copies: Mapping[int, Sequence[int]]
) -> Objects:
    """Local symbols in further copies are labels only: the original has them in one place."""
    if not copies:
        return after
    s = after.symbols.copy()
    location = (s["section"] << STEP) + s["value"]
    local = (s["binding"] == STB_LOCAL) & (s["section"] > 0) & (s["kind"] != STT_SECTION)
    for section, locations in copies.items():
        size = int(before.sections["size"][section])
        for first in locations:
            s["kind"][local & (location >= first) & (location <= first + size)] = STT_NOTYPE
    return replace(after, symbols=s)


__all__ = ["Seen", "check", "read_common"]
