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
from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.verify.arrays import Array, is_among, rows_of, spread, unique
from cargo_strip_hook.verify.expectation import Expectation, Findings, Verified
from cargo_strip_hook.verify.index import Listing
from cargo_strip_hook.verify.kit.names import shown, texts
from cargo_strip_hook.verify.kit.sets import Common, Compared, check_common_index, loaded_for
from cargo_strip_hook.verify.kit.surface import check_exports, check_index
from cargo_strip_hook.verify.macho import check as single
from cargo_strip_hook.verify.macho import constraints, objc
from cargo_strip_hook.verify.macho.apart import only_others, without
from cargo_strip_hook.verify.macho.locations import Locations, Ranges
from cargo_strip_hook.verify.macho.read import ALT_ENTRY, STEP, Damaged, Object, read
from cargo_strip_hook.verify.macho.symbols import unneeded
from cargo_strip_hook.verify.macho.unwind import Records, records

_HIDDEN = 0x1F  # N_SECT | N_EXT | N_PEXT
_MARKS = ALT_ENTRY | 0x420  # and cold functions, and what must live
_LOCAL, _UNDEFINED, _WEAK_REFERENCE = 0x0E, 0x01, 0x40
# what linkers merge by what it says: strings and constants of one size
_MERGED = np.array([0x2, 0x3, 0x4, 0xE], np.uint32)
_KEPT_SECTION = 0x10000000


@dataclass(frozen=True, eq=False)
class Seen:
    """Both sides of one library: its members `used`, and what was compared."""

    before: Object
    titles: tuple[str, ...]
    compared: single.Seen


def read_common(
    data: bytes, listing: Listing, expectation: Expectation, findings: Findings
) -> Common | None:
    """Read the common library and check each of its objects by itself."""
    gives, needs = [], []
    for number, (_, offset, size) in enumerate(listing.members):
        asked = replace(expectation, marker=b"") if number else expectation
        one = single.check_alone(memoryview(data), offset, size, asked, True, findings)
        if one is None:
            return None
        o = one.object
        numbers = o.externals()
        entries = o.entries[numbers]
        names = o.names(numbers)
        defined = entries["type"] & 0xE != 0
        hidden = (entries["type"] == _HIDDEN) & (entries["desc"] & ~np.uint16(_MARKS) == 0)
        routine = np.array([name in one.allowed for name in names], np.bool_)
        for row in np.flatnonzero(defined & ~hidden & ~routine).tolist():
            findings.add("the common library shows a name", shown(names[row]))
        crosses = defined & ~routine
        gives.append(frozenset(n for n, c in zip(names, crosses.tolist(), strict=True) if c))
        needs.append(frozenset(n for n, d in zip(names, defined.tolist(), strict=True) if not d))
    every = [name for mine in gives for name in mine]
    if len(set(every)) < len(every):
        findings.add("the common library", "defines a name twice")
    check_common_index(listing, gives, findings)
    return Common(data, listing, tuple(gives), tuple(needs))


def check(
    original: Archive,
    small: tuple[bytes, Listing],
    common: Common | None,
    expectation: Expectation,
    findings: Findings,
) -> Compared:
    """Compare one library. The link map of `expectation` tells the object of each row, too.

    Raises `ObjectError` for a damaged original.
    """
    assert common is not None  # joined libraries are several objects
    nothing = Compared(Verified((), ()), None, ())
    data, listing = small
    _, offset, size = listing.members[0]
    alone = single.check_alone(memoryview(data), offset, size, expectation, True, findings)
    rows = expectation.link_map
    if rows is None:
        findings.add("placement", "is not there")
    if alone is None or rows is None:
        return nothing
    own = alone.object
    defined = _check_shown(alone, listing, expectation, findings)
    here = _loaded(own, small, common, expectation, findings)
    if here is None:
        return nothing
    whole, loaded, rows = here.whole, here.numbers, here.rows
    used = unique(rows["member"]).tolist()
    if not used or not 0 <= used[0] <= used[-1] < len(original.members):
        findings.add("placement", "names a member that the original has not")
        return nothing
    before = single.read_original(original, used)
    after, kept = _as_one(whole, findings)
    rows, copies = _with_copies(before, after, used, rows, findings)
    where = single.locations(rows, used, before, after, findings)
    if findings:
        return nothing
    ranges = only_others(after, rows, here.others)
    after, gone = without(after, ranges, findings)
    after, foreign = _as_called(before, _at_one_location(after, copies), where)
    foreign += gone.tolist()
    asked = replace(expectation, link_map=rows)
    listed = objc.loaded_always(original)
    objc.check_loaded(original, listed, set(used), findings)
    every = single.Every(original)
    constraints.check_versions(own, [before], every.read, findings)
    constraints.check_header(own, [before], findings)
    constraints.check_options(after, [before], every.read, findings)
    undefined = single.names_undefined(original, after, [before], expectation, findings)
    if findings:
        return nothing
    try:
        left = _left(before, after, where, gone, ranges)
        after, unwound = left.object, left.unwound
        references = after.loaded_references()
        allowed = {n for n in single.names_defined(after) if n not in defined} | alone.allowed
        sides = single.Sides(original, used, before, after, every, listed)
        tolerated = expectation.strip is Strip.NONE, ranges
        compared = single.compare_sides(
            sides, asked, (allowed, references, unwound), findings, tolerated
        )
    except Damaged as e:
        findings.add("damaged", str(e))
        return nothing
    if compared is None:
        return nothing
    verified = Verified(
        texts(defined - alone.allowed),
        texts(undefined),
        len(rows),
        compared.compared,
        len(references),
        0,
        len(unwound),
    )
    titles = tuple(original.members[n].name for n in used)
    named = _in_files(whole, kept[[*foreign, *left.holes]], loaded)
    return Compared(verified, Seen(before, titles, compared), loaded, named)


class _Loaded(NamedTuple):
    """The objects that a linker loads for a library: the small one, and those with `numbers`.

    `rows` and `others` (of the common library's objects) are link maps, with sections numbered
    through.
    """

    whole: Object
    numbers: tuple[int, ...]
    rows: Array
    others: list[Array]


def _loaded(
    own: Object,
    small: tuple[bytes, Listing],
    common: Common,
    expectation: Expectation,
    findings: Findings,
) -> _Loaded | None:
    data, listing = small
    _, offset, size = listing.members[0]
    numbers = loaded_for(common, frozenset(name for name, _ in own.undefined))
    parts = [memoryview(data)[offset : offset + size]]
    for number in numbers:
        _, begin, length = common.listing.members[number]
        parts.append(memoryview(common.data)[begin : begin + length])
    whole = read(*parts)
    position = np.full(1 + len(common.gives), -1, np.int64)
    position[[0, *(number + 1 for number in numbers)]] = np.arange(1 + len(numbers))
    told = expectation.link_map
    assert told is not None
    rows = _numbered(told, whole, position)
    if len(rows) < len(told):
        findings.add("placement", "is in nothing that this library loads")
        return None
    rows = rows[whole.table["segment"][rows["out_section"] - 1] != b"__DWARF"]
    others = [_numbered(one[one["object"] > 0], whole, position) for one in expectation.others]
    return _Loaded(whole, numbers, rows, others)


def _check_shown(
    alone: single.Alone, listing: Listing, expectation: Expectation, findings: Findings
) -> set[bytes]:
    """The small library shows and lists its exports; the names that it defines."""
    defined = single.names_defined(alone.object)
    check_exports(defined, expectation, findings, alone.allowed)
    exports = {(name, listing.members[0][0]) for name in defined - alone.allowed}
    check_index(listing, exports, findings, optional=alone.allowed)
    return defined


def _in_files(whole: Object, symbols: Array, loaded: Sequence[int]) -> frozenset[tuple[int, int]]:
    """The object that each symbol is in, as `Compared.foreign` has it, and its number there."""
    file = np.searchsorted(whole.symbol_first, symbols, side="right") - 1
    numbers = (symbols - whole.symbol_first[file]).tolist()
    homes = [loaded[f - 1] + 1 if f else 0 for f in file.tolist()]
    return frozenset(zip(homes, numbers, strict=True))


def _numbered(rows: Array, after: Object, position: Array) -> Array:
    """A link map's rows that are in loaded objects, with the sections of all of them numbered.

    `position`: that of each object, the library's own first, among those that are loaded, or -1.
    """
    rows = rows[(rows["object"] >= 0) & (rows["object"] < len(position))]
    rows = rows[position[rows["object"]] >= 0].copy()
    file = position[rows["object"]]
    inside = (rows["out_section"] > 0) & (rows["out_section"] <= np.diff(after.section_first)[file])
    rows["out_section"] += after.section_first[file].astype(np.int32)
    return np.asarray(rows[inside])


def _as_one(after: Object, findings: Findings) -> tuple[Object, Array]:
    """The objects as one, in which each name that crosses is bound to its definition, and local.

    Their contents stand behind one another in front of the files. Of an undefined name one symbol
    is left; tells which numbers are.
    """
    e = after.entries.copy()
    names = dict(zip(after.externals().tolist(), after.names(after.externals()), strict=True))
    file = np.searchsorted(after.symbol_first, np.arange(len(e)), side="right") - 1
    given = [n for n in names if file[n] and int(e["type"][n]) == _HIDDEN]
    plain = [n for n in given if not int(e["desc"][n]) & ~_MARKS]
    home = {names[n]: n for n in plain}
    # a personality routine has a name of its own there, which is not to be taken for another one
    routine = {int(e["value"][n]): n for n in given if int(e["desc"][n]) & ~_MARKS}
    for n, name in names.items():
        if not file[n] and int(e["type"][n]) & 0xE and name in home:
            findings.add("defined twice in the set", shown(name))
    stands_for = np.arange(len(e))
    first: dict[bytes, int] = {}
    for n, name in names.items():
        if int(e["type"][n]) != _UNDEFINED or int(e["value"][n]):
            continue
        if name in home:
            if int(e["desc"][n]):
                findings.add("a name that crosses is weak", shown(name))
            there = home[name]
            stands_for[n] = routine.get(int(e["value"][there]), there)
            continue
        stands_for[n] = other = first.setdefault(name, n)
        if not int(e["desc"][n]) & _WEAK_REFERENCE:
            e["desc"][other] = 0
    text = after.text + b"l\0"
    e["type"][plain], e["name"][plain] = _LOCAL, len(after.text)
    kept = stands_for == np.arange(len(e))
    number = np.cumsum(kept) - 1
    octets, table, base = _contents_first(after)
    return replace(
        after,
        octets=octets,
        table=table,
        base=base,
        entries=e[kept],
        text=text,
        renumbered=number[stands_for],
    ), np.flatnonzero(kept)


def _contents_first(after: Object) -> tuple[Array, Array, Array]:
    """(octets, sections, the begin of each file) with the contents of all sections in front."""
    table = after.table.copy()
    stored = np.flatnonzero(~table["zerofill"])
    size = table["size"][stored]
    contents = after.octets[spread(table["offset"][stored], size, 1)]
    table["offset"][stored] = np.cumsum(size) - size
    table["relocations"] += len(contents)
    return np.concatenate([contents, after.octets]), table, after.base + len(contents)


def _with_copies(
    before: Object, after: Object, used: Sequence[int], rows: Array, findings: Findings
) -> tuple[Array, Array]:
    """(the link map with the place that counts behind its copies, where copies are).

    Of what linkers merge each object has a copy. Places are rows (address, size, address of the one
    that counts, its section).
    """
    file = np.minimum(np.searchsorted(np.array(used), rows["member"]), len(used) - 1)
    section = before.section_first[file] + rows["section"].astype(np.int64)
    inside = (section > 0) & (section <= len(before.table))
    flags = before.table["flags"][np.where(inside, section, 1) - 1]
    key = (section << STEP) + rows["offset"]
    order = np.argsort(key, kind="stable")
    again = np.zeros(len(order), np.bool_)
    again[:-1] = (key[order][1:] == key[order][:-1]) & (rows["size"][order][:-1] > 0)
    merged = inside & is_among(flags & 0xFF, _MERGED) & (flags & _KEPT_SECTION == 0)
    if (again & ~merged[order]).any():
        findings.add("placement", "a piece is placed twice")
    last = np.maximum(np.searchsorted(key[order], key[order], side="right") - 1, 0)
    location = after.table["address"][rows["out_section"] - 1] + rows["out_offset"]
    location, home = location[order], rows["out_section"][order].astype(np.int64)
    columns = (location, rows["size"][order].astype(np.int64), location[last], home[last])
    copies = np.stack(columns, 1)[again]
    return rows_of(rows, order), copies[np.argsort(copies[:, 0], kind="stable")]


def _at_one_location(after: Object, copies: Array) -> Object:
    """The result with symbols of copies moved to the one that counts."""
    if not len(copies):
        return after
    e = after.entries.copy()
    rows = np.flatnonzero(after.placed)
    at = np.maximum(np.searchsorted(copies[:, 0], e["value"][rows], side="right") - 1, 0)
    within = e["value"][rows] - copies[at, 0]
    inside = (within >= 0) & (within < copies[at, 1])
    rows, at, within = rows[inside], at[inside], within[inside]
    e["value"][rows] = copies[at, 2] + within
    e["section"][rows] = copies[at, 3]
    return replace(after, entries=e)


def _as_called(before: Object, after: Object, where: Locations) -> tuple[Object, list[int]]:
    """The result with local names of the common library as this library has them.

    They may be those of another library, for what is equal. Tells which symbols have a name that
    this library does not know.
    """
    e = after.entries
    rows = np.flatnonzero(after.placed & (e["type"] & 1 == 0) & (e["value"] >= 1 << STEP))
    called = after.names(rows)
    known = _names_at(before, where)
    e = e.copy()
    text = after.text + before.text
    nameless = after.text.rindex(b"l\0")
    foreign: list[int] = []
    for row, name, location in zip(rows.tolist(), called, e["value"][rows].tolist(), strict=True):
        mine = known.get(location, {})
        plain = name.rpartition(b".")[0] if name.rpartition(b".")[2].isdigit() else name
        if name == b"l" or name in mine or plain in mine:
            continue
        foreign.append(row)
        e["name"][row] = len(after.text) + min(mine.values()) if mine else nameless
    return replace(after, entries=e, text=text), foreign


class _Left(NamedTuple):
    """The result without what is other libraries' only, and the begins of holes among that."""

    object: Object
    unwound: Records
    holes: list[int]


def _left(before: Object, after: Object, where: Locations, gone: Array, ranges: Ranges) -> _Left:
    """Leave out the symbols that are `gone`, and begins of holes of the common library.

    Dead code of another library's member, whose code keeps its places, left these. Raises
    `Damaged`.
    """
    e = after.entries
    local = np.flatnonzero(after.placed & (e["type"] & 1 == 0) & (e["value"] >= 1 << STEP))
    holes = unneeded(before, after, where, local, after.loaded_references())
    kept = np.ones(len(e), np.bool_)
    kept[gone], kept[holes] = False, False
    number = np.where(kept, np.cumsum(kept) - 1, 0)
    assert after.renumbered is not None
    less = replace(after, entries=e[kept], renumbered=number[after.renumbered])
    unwound = records(after, strict=True)
    rows = unwound.rows[~ranges.have(unwound.rows["function"])]
    routine = rows["personality"]
    rows["personality"] = np.where(routine >= 0, number[np.maximum(routine, 0)], routine)
    return _Left(less, replace(unwound, rows=rows), holes.tolist())


def _names_at(before: Object, where: Locations) -> Mapping[int, Mapping[bytes, int]]:
    """By place in the result the names that the members have for it, and where these stand."""
    numbers = np.flatnonzero(before.placed)
    at = where.of_symbols(numbers)
    numbers, at = numbers[at >= 1 << STEP], at[at >= 1 << STEP]
    found: dict[int, dict[bytes, int]] = {}
    for location, name, offset in zip(
        at.tolist(), before.names(numbers), before.entries["name"][numbers].tolist(), strict=True
    ):
        if name[:1] not in (b"", b"L", b"l") and not name.startswith(b"ltmp"):
            found.setdefault(location, {})[name] = offset
    return found


__all__ = ["Seen", "check", "read_common"]
