"""What the object keeps of its members besides their pieces: names, directives, tables.

Sources: Microsoft PE/COFF specification, "The .drectve Section", "The .sxdata Section", "Import
Library Format"; LLVM's `COFFImportFile.cpp`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence, Set
from functools import cached_property

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.verify.arrays import positions, unique
from cargo_strip_hook.verify.coff.locations import LOCATION, STEP, Definitions, Pair
from cargo_strip_hook.verify.coff.read import (
    EXTERNAL,
    NODUPLICATES,
    WEAK,
    Damaged,
    Object,
    read,
)
from cargo_strip_hook.verify.expectation import Expectation, Findings
from cargo_strip_hook.verify.index import Listing
from cargo_strip_hook.verify.kit import surface
from cargo_strip_hook.verify.kit.names import encoded, shown

_NAMING = (b"export:", b"exclude-symbols:", b"aligncomm:")


class Rest:
    """The members that no piece came from: a linker may read them, too. Read when asked for."""

    def __init__(self, original: Archive, used: Sequence[int]) -> None:
        self.original, self.used = original, set(used)

    @cached_property
    def objects(self) -> list[Object]:
        found = []
        for number, member in enumerate(self.original.members):
            if number not in self.used:
                try:
                    found.append(read(self.original.data(member)))
                except Damaged:  # an import, or what no linker reads
                    continue
        return found


def check_exports(pair: Pair, found: Definitions) -> set[bytes]:
    """Exactly the exports are external; the names that are."""
    o, ext, expectation = pair.after, pair.result, pair.expectation
    visible = ext.index[ext.defined | ext.common].tolist()
    names = [o.name(i) for i in visible]
    if len(set(names)) != len(names):
        pair.findings.add("exports", "a name is defined twice")
    surface.check_exports(set(names), expectation, pair.findings)
    for i, name in zip(visible, names, strict=True):
        number = pair.names.number[name]
        section, value = int(o.symbols["section"][i]), int(o.symbols["value"][i])
        location = int(found.location[number]) if number < len(found.location) else -1
        if section > 0 and location >= 0 and location != (section << STEP) + value:
            pair.findings.add("exports", f"{shown(name)} is at another place")
        elif section > 0 and location < 0 and not _stands_for(pair, found, number, section, value):
            pair.findings.add("exports", f"{shown(name)} is no definition of the original's")
        elif section <= 0 and section != 0 and found.value.get(number) != value:
            pair.findings.add("exports", f"{shown(name)} has another value")
        elif section == 0 and found.common.get(number) != value:
            pair.findings.add("exports", f"the common {shown(name)} has another size")
    _check_replaceable(pair, encoded(expectation.exports))
    return set(names)


def _stands_for(pair: Pair, found: Definitions, name: int, section: int, value: int) -> bool:
    """Whether an export is a weak name for what is there, or a common that got room."""
    from cargo_strip_hook.verify.coff.locations import fallback

    if name in found.fallback:
        return fallback(pair, found, name) == (LOCATION, (section << STEP) + value)
    return name in found.common


def _check_replaceable(pair: Pair, exports: set[bytes]) -> None:
    """An exported COMDAT that linkers choose among others has the selection it had."""
    before: dict[bytes, set[int]] = {}
    wanted = unique(np.array([pair.names.number.get(name, -1) for name in exports], np.int64))
    for o, ext in zip(pair.objects, pair.before, strict=True):
        selections, leaders = o.leaders
        leading = np.flatnonzero(leaders >= 0)
        leading = leading[o.symbols["class"][leaders[leading]] == EXTERNAL]
        number = ext.name[np.searchsorted(ext.index, leaders[leading])]
        chosen = positions(wanted, number) >= 0
        for n, one in zip(number[chosen].tolist(), leading[chosen].tolist(), strict=True):
            before.setdefault(pair.names.text[n], set()).add(int(selections[one]))
    for section, (selection, _, leader) in pair.after.selections.items():
        if leader < 0 or pair.after.symbols["class"][leader] != EXTERNAL:
            continue
        name = pair.after.name(leader)
        allowed = before.get(name, {NODUPLICATES})
        if selection not in allowed | {NODUPLICATES} or (
            selection == NODUPLICATES and not allowed & {NODUPLICATES}
        ):
            where = f"{shown(name)} in section {section}"
            pair.findings.add("COMDAT", f"{where} has another selection than in the original")


def check_undefined(
    pair: Pair, found: Definitions, index: dict[bytes, int], import_members: Set[bytes], rest: Rest
) -> set[bytes]:
    """The names that the consumer supplies: only what the members left undefined as well."""
    result = pair.result
    names = {pair.names.text[n] for n in result.name[result.undefined].tolist()}
    weak = {pair.names.text[n] for n in result.name[result.weak].tolist()}
    before = {pair.names.text[n] for ext in pair.before for n in ext.name[ext.undefined].tolist()}
    inside = {pair.names.text[n] for n in found.defined}
    # an index lists weak externals, which define nothing
    defined = inside | {n for n in names & index.keys() if n not in weak or n not in before}
    before |= {name for o in pair.objects for name in included(o)}
    if names - before:
        before |= {name for o in rest.objects for name in (*included(o), *_undefined(o))}
    defined = names & defined - import_members
    surface.check_undefined(names - before, defined, pair.expectation, pair.findings)
    return names


def included(o: Object) -> list[bytes]:
    """The names that a file asks for by `/INCLUDE`."""
    words = (word[1:].replace(b'"', b"") for word in o.directives)
    return [w.partition(b":")[2] for w in words if w.lower().startswith(b"include:")]


def _undefined(o: Object) -> list[bytes]:
    mine = np.isin(o.symbols["class"], (EXTERNAL, WEAK)) & (o.symbols["section"] == 0)
    return [o.name(i) for i in np.flatnonzero(mine & ~o.auxiliary).tolist()]


def alternates(pair: Pair) -> dict[bytes, bytes]:
    """What `/ALTERNATENAME` lets stand for names; of each the first."""
    found: dict[bytes, bytes] = {}
    for o in pair.objects:
        for word in o.directives:
            key, _, value = word[1:].replace(b'"', b"").partition(b":")
            if key.lower() == b"alternatename":
                name, _, other = value.partition(b"=")
                found.setdefault(name, other)
    return found


def check_directives(pair: Pair, rest: Rest) -> None:
    """What `.drectve` tells linkers is what the members told them."""
    after = set(pair.after.directives)
    before = {d for o in pair.objects for d in o.directives}
    exports = encoded(pair.expectation.exports)
    asked = before
    if any(not _about(one) or not _about(one) <= exports for one in after - before):
        asked = before | {d for o in rest.objects for d in o.directives}
    for one in sorted(after - asked):
        if not _about(one) <= exports or not _about(one):
            pair.findings.add("directives", f"{shown(one)} was none before")
    for one in sorted(before - after):
        if one.lower().startswith((b"/defaultlib:", b"/disallowlib:", b"-defaultlib:")):
            pair.findings.add("directives", f"{shown(one)} is lost")
    for one in sorted(after):
        key = one[1:].lower()
        if key.startswith(_NAMING) and not _about(one) <= exports:
            pair.findings.add("directives", f"{shown(one)} names what is no export")


def _about(directive: bytes) -> set[bytes]:
    """The names that a directive is about."""
    names = directive.partition(b":")[2].split(b",")
    found = set()
    if directive[1:].lower().startswith((b"export:", b"aligncomm:")):
        names = names[:1]
    for name in names:
        plain = name.strip(b'"').partition(b"=")[0]
        found |= {plain} if plain else set()
    # MinGW's directives leave out i686's underscore
    return found


def check_tables(o: Object, findings: Findings) -> None:
    """Tables of symbol numbers name symbols."""
    for number in range(1, len(o.names)):
        if o.names[number] in (b".gfids$y", b".giats$y", b".gljmp$y", b".gehcont$y", b".sxdata"):
            text = o.contents(number)
            symbols = np.frombuffer(text[: len(text) & ~3], "<u4")
            if (symbols >= len(o.symbols)).any() or o.auxiliary[symbols].any():
                findings.add("structure", f"{shown(o.names[number])} names no symbol")


def companion_names(original: Archive, expectation: Expectation) -> list[tuple[bytes, ...]]:
    """What each member that follows the object defines."""
    found: list[tuple[bytes, ...]] = []
    for number in expectation.import_members:
        if not 0 <= number < len(original.members):
            found.append(())
            continue
        data = original.data(original.members[number])
        found.append(_short(bytes(data)) if _is_short(data) else _long(data))
    return found


def _is_short(data: memoryview) -> bool:
    return bytes(data[:6]) == b"\0\0\xff\xff\0\0"


def is_import(data: memoryview) -> bool:
    """Whether a member is an import, in the short form or of an import library."""
    return _is_short(data) or b".idata$" in bytes(data[:1024])


def import_names(data: memoryview) -> tuple[frozenset[bytes], frozenset[bytes]]:
    """What an import defines, and what it needs. Raises `Damaged`."""
    if not _is_short(data):
        needs = {name for name in _undefined(read(data)) if name}
        return frozenset(_long(data)), frozenset(needs)
    library = bytes(data[20:]).split(b"\0", 2)[1]
    parts = (library, library.rpartition(b"/")[2], re.split(rb"[/\\]", library)[-1])
    stems = {part.rpartition(b".")[0] or part for part in parts}
    return frozenset(_short(bytes(data))), frozenset(b"__IMPORT_DESCRIPTOR_" + s for s in stems)


def _short(data: bytes) -> tuple[bytes, ...]:
    (kind,) = struct.unpack_from("<H", data, 18)
    name = data[20:].split(b"\0", 1)[0]
    return (b"__imp_" + name,) if kind & 3 else (b"__imp_" + name, name)


def _long(data: memoryview) -> tuple[bytes, ...]:
    o = read(data)
    defined = (o.symbols["class"] == EXTERNAL) & ~o.auxiliary
    defined &= (o.symbols["section"] != 0) | (o.symbols["value"] > 0)
    return tuple(o.name(i) for i in np.flatnonzero(defined).tolist())


def check_index(
    listing: Listing,
    expectation: Expectation,
    import_members: list[tuple[bytes, ...]],
    findings: Findings,
) -> None:
    """The archive's index has each export and what the other members define, by their owner."""
    starts = [start for start, _, _ in listing.members]
    wanted = {(name, starts[0]) for name in encoded(expectation.exports)}
    for start, names in zip(starts[1:], import_members, strict=True):
        wanted |= {(name, start) for name in names}
    twice = expectation.target.archive_dialect == "coff"
    surface.check_index(listing, wanted, findings, twice=twice)
