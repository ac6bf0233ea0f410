"""A library of a set: the small one, with what a linker loads of the common one, is the original.

The objects that a linker would load are read as one, names that cross between them resolved. So
all checks of a single result hold for them together: nothing in them may be unexplained by the
original. Imports stay members of their own: each is one of the original's, byte for byte.

Which names MinGW's linkers do not export of themselves: GNU ld, `ld/pe-dll.c`
(`autofilter_symbolsuffixlist`); LLVM's lld, `COFF/MinGW.cpp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.verify.arrays import Array
from cargo_strip_hook.verify.coff import check as single
from cargo_strip_hook.verify.coff import structure
from cargo_strip_hook.verify.coff.apart import set_apart
from cargo_strip_hook.verify.coff.constraints import check_tables, import_names, is_import
from cargo_strip_hook.verify.coff.joined import as_one
from cargo_strip_hook.verify.coff.read import EXTERNAL, WEAK, Damaged, Object, read
from cargo_strip_hook.verify.expectation import Expectation, Findings, Verified
from cargo_strip_hook.verify.index import Listing
from cargo_strip_hook.verify.kit import surface
from cargo_strip_hook.verify.kit.names import shown, texts
from cargo_strip_hook.verify.kit.sets import Common, Compared, loaded_for
from cargo_strip_hook.verify.link_map import LINK_MAP

_NEVER_EXPORTED = b"_iname"
_MACHINES = {"x86_64": 0x8664, "i686": 0x14C, "i586": 0x14C, "aarch64": 0xAA64}


def read_common(
    data: bytes, listing: Listing, expectation: Expectation, findings: Findings
) -> Common | None:
    """Read the common library and check each of its objects by itself."""
    gives, needs = [], []
    try:
        for number, (_, offset, size) in enumerate(listing.members):
            body = memoryview(data)[offset : offset + size]
            if is_import(body):
                defines, wants = import_names(body)
            else:
                one = read(body)
                defines, wants = _names(one)
                shows = replace(expectation, exports=texts(defines))
                asked = replace(shows, marker=b"") if number else shows
                _check(one, asked, findings)
                for name in sorted(n for n in defines if not n.endswith(_NEVER_EXPORTED)):
                    findings.add("a DLL would export a name that crosses", shown(name))
                if one.directives:
                    findings.add("directives", "the common library has some")
                if (one.symbols["class"] == WEAK).any():
                    findings.add("weak external", "the common library has some")
            gives.append(defines)
            needs.append(wants)
    except (Damaged, IndexError, ValueError) as e:
        findings.add("damaged", str(e))
        return None
    every = [name for mine in gives for name in mine]
    if len(set(every)) < len(every):
        findings.add("the common library", "defines a name twice")
    wanted = [
        (name, header)
        for mine, (header, *_) in zip(gives, listing.members, strict=True)
        for name in mine
    ]
    twice = expectation.target.archive_dialect == "coff"
    surface.check_index(listing, wanted, findings, twice=twice)
    return Common(data, listing, tuple(gives), tuple(needs))


def _check(one: Object, expectation: Expectation, findings: Findings) -> None:
    """An object by itself. Raises `Damaged`."""
    if one.machine != _MACHINES.get(expectation.target.arch):
        raise Damaged("made for another processor than the original")
    structure.check_structure(one, expectation, findings)
    check_tables(one, findings)
    gives, needs = _names(one)
    shows = np.isin(one.symbols["class"], (EXTERNAL, WEAK)) & ~one.auxiliary
    if len(gives) + len(needs) < int(shows.sum()):
        findings.add("a name", "is there twice")


def _names(one: Object) -> tuple[frozenset[bytes], frozenset[bytes]]:
    """(what an object shows, what it leaves undefined)."""
    shown_ = np.isin(one.symbols["class"], (EXTERNAL, WEAK)) & ~one.auxiliary
    rows = np.flatnonzero(shown_)
    lacks = (one.symbols["section"][rows] == 0) & (one.symbols["value"][rows] == 0)
    names = one.names_of(rows)
    return (
        frozenset(n for n, missing in zip(names, lacks.tolist(), strict=True) if not missing),
        frozenset(n for n, missing in zip(names, lacks.tolist(), strict=True) if missing),
    )


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
    rows = expectation.link_map
    if rows is None:
        findings.add("placement", "is not there")
        return nothing
    try:
        _, offset, size = listing.members[0]
        own = read(memoryview(data)[offset : offset + size])
        _check(own, expectation, findings)
        beside = [
            import_names(memoryview(data)[start : start + length])
            for _, start, length in listing.members[1:]
        ]
        wanted = _names(own)[1].union(*(needs for _, needs in beside))
        loaded = loaded_for(common, wanted)
        bodies = {n: _body(common, n) for n in loaded}
        objects = [n for n in loaded if not is_import(bodies[n])]
        imports = [n for n in loaded if n not in objects]
        after = as_one([own, *(read(bodies[n]) for n in objects)], findings)
    except (Damaged, IndexError, ValueError) as e:
        findings.add("damaged", str(e))
        return nothing
    _check_imports(original, common, imports, findings)
    beside += [(common.gives[n], common.needs[n]) for n in imports]
    gives = frozenset(name for defines, _ in beside for name in defines)
    lost = frozenset(name for _, needs in beside for name in needs) - gives
    for lacking in sorted(lost & (original.symbols() or {}).keys()):
        findings.add("an import lacks what it needs", shown(lacking))
    position = np.full(1 + len(common.listing.members), -1, np.int64)
    position[[0, *(number + 1 for number in objects)]] = np.arange(1 + len(objects))
    bad = (rows["object"] < 0) | (rows["object"] >= len(position))
    if bad.any() or (position[rows["object"]] < 0).any():
        findings.add("placement", "is in an object that this library does not load")
        return nothing
    assert after.home is not None
    counts = np.bincount(after.home[1:], minlength=1 + len(objects))
    home = position[rows["object"]]
    if ((rows["out_section"] < 1) | (rows["out_section"] > counts[home])).any():
        findings.add("placement", "names no section of the result")
        return nothing
    first = np.cumsum(counts) - counts
    plain = _in_all(rows, home, first)
    if findings:
        return nothing
    others = []
    for one in expectation.others:
        known = one[(one["object"] > 0) & (one["object"] < len(position))]
        home = position[known["object"]]
        good = (home >= 0) & (known["out_section"] >= 1) & (known["out_section"] <= counts[home])
        others.append(_in_all(known[good], home[good], first))
    after = set_apart(after, plain, others, findings)
    verified, pair = single.compare_with(
        original,
        listing,
        after,
        replace(expectation, link_map=plain, covers_debug=False),
        findings,
        beside=gives,
    )
    if pair is None:
        return nothing
    pair.numbers = (-1, *objects)
    return Compared(verified, pair, loaded, _foreign(pair.foreign, own, common, objects))


def _in_all(rows: Array, home: Array, first: Array) -> Array:
    """LINK_MAP of rows, with the sections of all objects numbered through.

    `home` is the object of each row, `first` how many sections come before each object's.
    """
    out = np.zeros(len(rows), LINK_MAP)
    for name in LINK_MAP.names or ():
        out[name] = rows[name]
    out["out_section"] += first[home].astype(np.int32)
    return out


def _body(common: Common, number: int) -> memoryview:
    _, offset, size = common.listing.members[number]
    return memoryview(common.data)[offset : offset + size]


def _check_imports(
    original: Archive, common: Common, imports: Sequence[int], findings: Findings
) -> None:
    """Imports that a library takes from the common one are its own, byte for byte."""
    known: dict[bytes, list[int]] = {}
    for member in original.members:
        name = member.name.encode("utf-8", "surrogateescape")
        known.setdefault(name, []).append(member.index)
    for number in imports:
        name = common.listing.names[number]
        same = (
            original.data(original.members[n]) == _body(common, number) for n in known.get(name, ())
        )
        if not any(same):
            findings.add("an import that the original has not", shown(name))


def _foreign(
    rows: set[int], own: Object, common: Common, objects: Sequence[int]
) -> frozenset[tuple[int, int]]:
    """(object, symbol there) of symbols of the whole: 0 is the small library's."""
    if not rows:
        return frozenset()
    sizes = [len(own.symbols), *(len(read(_body(common, n)).symbols) for n in objects)]
    ends = np.cumsum(sizes)
    found = set()
    for row in sorted(rows):
        position = int(np.searchsorted(ends, row, side="right"))
        before = int(ends[position - 1]) if position else 0
        found.add((objects[position - 1] + 1 if position else 0, row - before))
    return frozenset(found)


__all__ = ["check", "read_common"]
