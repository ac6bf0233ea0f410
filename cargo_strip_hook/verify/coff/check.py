"""The order of the checks of a COFF result."""

from __future__ import annotations

import mmap
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.verify.arrays import unique
from cargo_strip_hook.verify.coff import (
    classes,
    codeview,
    compare,
    constraints,
    debug,
    facts,
    groups,
    guard,
    structure,
)
from cargo_strip_hook.verify.coff.locations import Pair, check_rows, definitions
from cargo_strip_hook.verify.coff.order import contents
from cargo_strip_hook.verify.coff.read import ABSOLUTE, EXTERNAL, Array, Damaged, Object, read
from cargo_strip_hook.verify.expectation import (
    Expectation,
    Findings,
    Reading,
    Verified,
    compares_debug,
    taken,
)
from cargo_strip_hook.verify.index import Listing
from cargo_strip_hook.verify.kit.names import texts
from cargo_strip_hook.verify.loading import loading

_MACHINES = {"x86_64": 0x8664, "i686": 0x14C, "i586": 0x14C, "aarch64": 0xAA64}


def check(
    original: Archive,
    listing: Listing,
    candidate: bytes | mmap.mmap | memoryview,
    expectation: Expectation,
    findings: Findings,
    ahead: Reading | None = None,
) -> Verified:
    """Compare the first object of `candidate` with the members of `original` it was made of.

    `ahead` is what `read_original` gave for some members. What is wrong goes to `findings`. Raises
    `ObjectError` for a damaged original.
    """
    nothing = Verified((), ())
    _, offset, size = listing.members[0]
    try:
        after = read(memoryview(candidate)[offset : offset + size])
        if after.machine != _MACHINES.get(expectation.target.arch):
            raise Damaged("made for another processor than the original")
        structure.check_structure(after, expectation, findings)
        constraints.check_tables(after, findings)
    except (Damaged, IndexError) as e:
        findings.add("damaged", str(e))
        return nothing
    if findings:  # what follows relies on a sound object
        return nothing
    return compare_with(original, listing, after, expectation, findings, ahead=ahead)[0]


def compare_with(
    original: Archive,
    listing: Listing,
    after: Object,
    expectation: Expectation,
    findings: Findings,
    *,
    beside: Set[bytes] = frozenset(),
    ahead: Reading | None = None,
) -> tuple[Verified, Pair | None]:
    """Compare an object that is sound with what it was made of; None where that cannot be done.

    `beside`: names that other members define which a linker would read.
    """
    nothing = Verified((), ()), None
    if expectation.link_map is None:
        findings.add("placement", "is needed to compare a COFF object")
        return nothing
    rows, covers_debug = debug.part(after, expectation.link_map)
    expectation = replace(expectation, link_map=rows)
    members = _members(original, after, expectation, findings, ahead)
    if findings:
        return nothing
    try:
        import_members = constraints.companion_names(original, expectation)
        pair = Pair(members, after, expectation, findings)
        more = _defining(original, pair, _missing(pair))
        if more:
            members = dict(sorted((members | more).items()))
            pair = Pair(members, after, expectation, findings)
        check_rows(pair)
        if findings:
            return nothing
        constraints.check_index(listing, pair.expectation, import_members, findings)
        known = {name for names in import_members for name in names} | beside
        return _compare(original, pair, known, covers_debug), pair
    except Damaged as e:
        raise ObjectError(str(e), path=str(original.path)) from e


def _compare(original: Archive, pair: Pair, beside: Set[bytes], covers_debug: Array) -> Verified:
    rest = constraints.Rest(original, pair.indices)
    order = loading(
        original,
        pair.expectation,
        lambda: contents(original, dict(zip(pair.indices, pair.objects, strict=True))),
    )
    found = definitions(pair, constraints.alternates(pair), order)
    exported = constraints.check_exports(pair, found)
    undefined = constraints.check_undefined(pair, found, original.symbols() or {}, beside, rest)
    constraints.check_directives(pair, rest)
    groups.check_groups(pair)
    guard.check_guard(pair, found)
    compare.check_weak(pair, found)
    made, (compared, relocations, applied) = compare.compare(pair, found)
    facts.check_sections(pair, made)
    facts.check_symbols(pair, found, made)
    facts.check_winners(pair, found, order)
    facts.check_frames(pair)
    facts.check_order(pair, order)
    functions = compare.check_unwinding(pair)
    if not pair.findings:
        classes.check(pair, found, made, rest)
    if compares_debug(pair.expectation):
        debug.check(pair, found, made, covers_debug)
        codeview.check(pair, found, made)
    return Verified(
        texts(exported),
        texts(undefined),
        len(pair.rows),
        compared,
        relocations,
        applied,
        functions,
    )


@dataclass(frozen=True, slots=True)
class Original:
    """Members with their names, by their numbers."""

    members: dict[int, tuple[str, Object]]


def _members(
    original: Archive,
    after: Object,
    expectation: Expectation,
    findings: Findings,
    ahead: Reading | None,
) -> dict[int, tuple[str, Object]]:
    """The members that pieces, commons and values came from."""
    assert expectation.link_map is not None
    pieces = set(unique(expectation.link_map["member"]).tolist())
    used = sorted(pieces | _without_place(original, after))
    if not used:
        findings.add("placement", "nothing of the original is in the result")
        return {}
    if not 0 <= used[0] <= used[-1] < len(original.members):
        findings.add("placement", "names a member that the original has not")
        return {}
    return (taken(ahead, used, Original) or read_original(original, used)).members


def _without_place(original: Archive, after: Object) -> set[int]:
    """The members that define what the result shows without a place: commons and values."""
    index = original.symbols() or {}
    shown = np.flatnonzero((after.symbols["class"] == EXTERNAL) & _placeless(after))
    names = [after.name(i) for i in shown.tolist()]
    return _objects(original, {index[name] for name in names if name in index})


def _objects(original: Archive, members: set[int]) -> set[int]:
    """Those of the members that are objects, and not imports."""
    machines = set(_MACHINES.values())
    heads = {n: bytes(original.data(original.members[n])[:2]) for n in members}
    return {n for n, head in heads.items() if int.from_bytes(head, "little") in machines}


def _placeless(o: Object) -> Array:
    """Which symbols are commons or values."""
    section, value = o.symbols["section"], o.symbols["value"]
    common = (section == 0) & (value > 0) & (o.symbols["class"] == EXTERNAL)
    found: Array = ~o.auxiliary & ((section == ABSOLUTE) | common)
    return found


def _missing(pair: Pair) -> set[bytes]:
    """The names that live sections refer to and neither the members nor the result have."""
    known = set(pair.result.name.tolist())
    wanted: set[int] = set()
    for m, (o, ext) in enumerate(zip(pair.objects, pair.before, strict=True)):
        known.update(ext.name[ext.defined | ext.common].tolist())
        mine = pair.rows["section"][pair.position == m]
        live = np.zeros(len(o.sections), np.bool_)
        live[mine[(mine > 0) & (mine < len(live))]] = True
        named = np.zeros(len(o.symbols), np.bool_)
        named[o.relocations["symbol"][live[o.relocations["section"]]]] = True
        wanted.update(ext.name[ext.undefined & named[ext.index]].tolist())
    return {pair.names.text[n] for n in wanted - known}


def _defining(original: Archive, pair: Pair, names: set[bytes]) -> dict[int, tuple[str, Object]]:
    """The members, other than those of `pair`, in which some names are commons or values."""
    index = original.symbols() or {}
    members = {index[n] for n in names if n in index} - set(pair.indices)
    members = _objects(original, members)
    found = read_original(original, sorted(members)).members if members else {}
    return {
        number: (title, o)
        for number, (title, o) in found.items()
        if names & {o.name(i) for i in np.flatnonzero(_placeless(o)).tolist()}
    }


def read_original(original: Archive, used: Sequence[int]) -> Original:
    """Read members by their numbers. Raises `ObjectError`."""
    found: dict[int, tuple[str, Object]] = {}
    for index in used:
        member = original.members[index]
        try:
            one = read(original.data(member))
            _ = one.selections  # kept: they will be asked for
            found[index] = (member.name, one)
        except Damaged as e:
            raise ObjectError(str(e), path=str(original.path), member=member.name) from e
    return Original(found)
