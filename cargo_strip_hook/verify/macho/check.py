"""The order of the checks of a Mach-O result."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.verify.arrays import Array, is_among, unique
from cargo_strip_hook.verify.expectation import (
    Expectation,
    Findings,
    Reading,
    Verified,
    compares_debug,
    taken,
)
from cargo_strip_hook.verify.index import Listing
from cargo_strip_hook.verify.kit.names import encoded, texts
from cargo_strip_hook.verify.kit.surface import check_exports, check_index, check_undefined
from cargo_strip_hook.verify.loading import loading
from cargo_strip_hook.verify.macho import (
    classes,
    compare,
    constraints,
    debug,
    objc,
    roots,
    sections,
    symbols,
)
from cargo_strip_hook.verify.macho.commands import (
    check_commands,
    data_in_code,
    second_reading,
)
from cargo_strip_hook.verify.macho.definitions import Definitions
from cargo_strip_hook.verify.macho.forms import check_sections_named
from cargo_strip_hook.verify.macho.locations import NOWHERE, Locations, Ranges
from cargo_strip_hook.verify.macho.order import Choice, contents
from cargo_strip_hook.verify.macho.read import STEP, Damaged, Object, read
from cargo_strip_hook.verify.macho.unwind import Records, records

_MAGIC = b"\xcf\xfa\xed\xfe"


def check(
    original: Archive,
    listing: Listing,
    candidate: bytes | mmap.mmap | memoryview,
    expectation: Expectation,
    findings: Findings,
    ahead: Reading | None = None,
) -> Verified:
    """Compare the only object of `candidate` with the members of `original` it was made of.

    `ahead` is what `read_original` gave for some members. What is wrong goes to `findings`. Raises
    `ObjectError` for a damaged original.
    """
    _, offset, size = listing.members[0]
    ours = expectation.link_map is not None
    alone = check_alone(memoryview(candidate), offset, size, expectation, ours, findings)
    if alone is None:
        return Verified((), ())
    after, unwound, references, allowed = alone
    defined = names_defined(after)
    check_exports(defined, expectation, findings, allowed)
    header = listing.members[0][0]
    exports = {(name, header) for name in encoded(expectation.exports)}
    # Apple's libtool lists private external symbols, the allowed ones, as well
    check_index(listing, exports, findings, optional=allowed)

    used, members = _read_members(original, expectation, ahead)
    listed = objc.loaded_always(original)
    objc.check_loaded(original, listed, set(used), findings)
    undefined = names_undefined(original, after, members, expectation, findings)
    every = Every(original)
    known = expectation.link_map is not None
    constraints.check_versions(after, members, every.read if known else None, findings)
    pieces = compared = 0
    if expectation.link_map is None and not findings:
        from cargo_strip_hook.verify.macho.infer import check_by_names

        pieces, compared = check_by_names(
            dict(zip(used, members, strict=True)), after, unwound, findings
        )
    elif expectation.link_map is not None and not findings:
        constraints.check_header(after, members, findings)
        constraints.check_options(after, members, every.read, findings)
        [before] = members
        try:
            seen = compare_sides(
                Sides(original, used, before, after, every, listed),
                expectation,
                (allowed, references, unwound),
                findings,
            )
        except Damaged as e:
            raise damaged(original, used, e) from e
        compared = seen.compared if seen else 0
        pieces = len(expectation.link_map)
    return Verified(
        texts(defined - allowed),
        texts(undefined),
        pieces,
        compared,
        len(references),
        0,
        len(unwound),
    )


class Every:
    """All members of the original, for what only one of them could explain; read when asked for."""

    def __init__(self, original: Archive) -> None:
        self._original = original
        self._objects: list[Object] | None = None

    def read(self) -> list[Object]:
        if self._objects is None:
            self._objects = []
            for member in self._original.members:
                data = self._original.data(member)
                try:
                    if bytes(data[:4]) == _MAGIC:
                        self._objects.append(read(data))
                except Damaged:  # which no linker could read either
                    continue
        return self._objects


class Alone(NamedTuple):
    """An object that was read and checked by itself.

    `references` are those of loaded sections, `allowed` the personality routines that may stay
    external.
    """

    object: Object
    unwound: Records
    references: Array
    allowed: set[bytes]


def check_alone(
    candidate: memoryview,
    offset: int,
    size: int,
    expectation: Expectation,
    ours: bool,
    findings: Findings,
) -> Alone | None:
    """Check the object that is `size` bytes at `offset`, without a look at the original.

    `ours`: the native engine wrote it.
    """
    if offset % 8:
        findings.add("the archive", "its member is not aligned to 8 bytes, as ld64 wants it")
    data = candidate[offset : offset + size]
    try:
        after = read(data)
        unwound = records(after, strict=ours)
        references = after.loaded_references()
    except Damaged as e:
        findings.add("damaged", str(e))
        return None
    second_reading(data, after.commands[0], len(after.entries), findings)
    if ours:  # what a linker of the platform writes is its own affair
        check_commands(data, after.commands[0], findings)
        check_sections_named(after, findings)
    allowed = constraints.check_personalities(after, unwound, findings)
    constraints.check_structure(after, findings)
    constraints.check_unwound(after, unwound, findings)
    constraints.check_marker(after, expectation, findings)
    return Alone(after, unwound, references, allowed)


class Sides(NamedTuple):
    """The members `used`, read side by side, and the result; `listed` are loaded always."""

    original: Archive
    used: list[int]
    before: Object
    after: Object
    every: Every
    listed: list[int]


class Seen(NamedTuple):
    """What was compared: where all went, what names mean there, how many bytes it was."""

    where: Locations
    definitions: Definitions
    compared: int


def compare_sides(
    sides: Sides,
    expectation: Expectation,
    read_of_it: tuple[set[bytes], Array, Records],
    findings: Findings,
    tolerated: tuple[bool, Ranges] | None = None,
) -> Seen | None:
    """Compare the result with its members by the link map. Raises `Damaged`.

    `read_of_it`: the personality routines that may stay external, the references of loaded
    sections, and the unwind records. `tolerated`, of a set: whether dead code leaves holes, and
    what is compared for another library.
    """
    original, used, before, after, every, listed = sides
    allowed, references, unwound = read_of_it
    assert expectation.link_map is not None
    rows, told = debug.part(after, expectation.link_map)
    where = locations(rows, used, before, after, findings)
    if findings:
        return None
    order = loading(original, expectation, lambda: contents(original), lambda: listed)
    choice = Choice(order, used)
    keeps_debug = compares_debug(expectation)
    holes, apart = tolerated or (keeps_debug, NOWHERE)
    sections.check_sections(before, after, where, holes, findings, apart)
    definitions = Definitions(before, where, choice)
    symbols.check_externals(before, after, definitions.chosen, allowed, findings)
    symbols.check_outside(before, after, every.read, findings)
    titles = [original.members[n].name for n in used]
    roots.check_roots(before, where, titles, findings)
    roots.check_order(before, after, where, choice, findings)
    roots.check_other_members(original, used, choice, findings)
    compared = compare.check(before, after, where, references, definitions, findings)
    commons = definitions.made.found
    alive = roots.living(before, where)
    made = (commons, references, alive)
    unwinds = records(before, where)
    symbols.check_locals(before, after, where, made, expectation.strip, findings)
    compare.check_unwind(before, after, where, unwinds, unwound, findings)
    if not findings and tolerated is None:
        classes.check(after, where, definitions, (compared, unwinds, alive), expectation, findings)
    _check_data_in_code(before, after, where, apart, findings)
    if keeps_debug:
        debug.check(before, after, where, debug.Told(told, titles, used), definitions, findings)
    return Seen(where, definitions, compared.octets)


def _check_data_in_code(
    before: Object, after: Object, where: Locations, apart: Ranges, findings: Findings
) -> None:
    """The list of data in code says of each piece what its member's did."""
    lists = [
        (file, data_in_code(before.octets, int(before.base[file]), commands))
        for file, commands in enumerate(before.commands)
        if commands.data_in_code[1]
    ]
    wanted: set[tuple[int, ...]] = set()
    if lists:
        rows = np.concatenate([rows for _, rows in lists])
        home = np.repeat([file for file, _ in lists], [len(rows) for _, rows in lists])
        rows[:, 0] = where.of_addresses(rows[:, 0] + (home << STEP))
        wanted = set(map(tuple, rows[rows[:, 0] >= 0].tolist()))
    listed: list[tuple[int, ...]] = []
    for file, commands in enumerate(after.commands):
        found = data_in_code(after.octets, int(after.base[file]), commands)
        found[:, 0] += file << STEP
        listed += map(tuple, found[~apart.have(found[:, 0])].tolist())
    if set(listed) != wanted or listed != sorted(listed):
        findings.add("data in code", "is not what the members say it is")


def names_defined(o: Object) -> set[bytes]:
    """The names of external symbols in a section, absolute ones, and commons."""
    numbers = o.externals()
    kind = o.entries["type"][numbers] & 0xE
    common = (kind == 0) & (o.entries["value"][numbers] > 0)
    return set(o.names(numbers[(kind == 0xE) | (kind == 0x2) | common]))


def read_original(original: Archive, used: Sequence[int]) -> Object:
    """Members by their numbers, side by side. Raises `ObjectError`."""
    if not used:
        return Object(np.zeros(0, np.uint8))
    try:
        together = read(*(original.data(original.members[n]) for n in used))
    except Damaged as e:
        raise damaged(original, used, e) from e
    _ = together.placed, together.undefined  # kept: they will be asked for
    return together


def _read_members(
    original: Archive, expectation: Expectation, ahead: Reading | None
) -> tuple[list[int], list[Object]]:
    """The positions of the members that are used, and these: side by side where all are known.

    Where there is no link map to say which were used it is each of the objects, and each by itself.
    """
    if expectation.link_map is None:
        used = [m.index for m in original.members if bytes(original.data(m)[:4]) == _MAGIC]
        return used, [read_original(original, [index]) for index in used]
    used = unique(expectation.link_map["member"]).tolist()
    used = [n for n in used if 0 <= n < len(original.members)]
    if not used:  # commons and absolute symbols are in no section: those that define the exports
        wanted = encoded(expectation.exports)
        index = original.symbols() or {}
        used = sorted({number for name, number in index.items() if name in wanted})
    return used, [taken(ahead, used, Object) or read_original(original, used)]


def damaged(original: Archive, used: Sequence[int], e: Damaged) -> ObjectError:
    member = original.members[used[e.file]]
    return ObjectError(str(e), path=str(original.path), member=member.name)


def names_undefined(
    original: Archive,
    after: Object,
    members: Iterable[Object],
    expectation: Expectation,
    findings: Findings,
) -> set[bytes]:
    """The names that the consumer supplies: only what the members left undefined as well."""
    names = {name for name, size in after.undefined if not size}
    before = {name for o in members for name, _ in o.undefined}
    index = original.symbols() or {}
    check_undefined(names - before, names & index.keys(), expectation, findings)
    return names


def locations(
    rows: Array, used: list[int], before: Object, after: Object, findings: Findings
) -> Locations:
    """Where everything went, checked to be inside of sections and not on top of each other.

    `used`: the positions in the archive of the files of `before`.
    """
    offset, size, out_offset = (rows[c].astype(np.int64) for c in ("offset", "size", "out_offset"))
    file = np.searchsorted(used, rows["member"])
    file = np.minimum(file, max(len(used) - 1, 0))
    known = is_among(rows["member"], np.array(used, np.int64))
    for member in unique(rows["member"][~known]).tolist():
        findings.add("placement", f"names member {member}, which is not there")
    if not len(used) or not known.all():
        return Locations(before, *np.zeros((5, 0), np.int64))
    number = rows["section"].astype(np.int64)
    outside = (number <= 0) | (number > np.diff(before.section_first)[file])
    for at in np.flatnonzero(outside).tolist():
        what = f"names section {int(number[at])} of member {int(rows['member'][at])}"
        findings.add("placement", what)
    section = np.where(outside, 0, before.section_first[file] + number)
    home = rows["out_section"].astype(np.int64)
    nowhere = (home <= 0) | (home > len(after.table))
    for value in home[nowhere].tolist():
        findings.add("placement", f"names section {value} of the result")
    home[nowhere] = 0
    limit = np.append(0, before.table["size"])[section]
    room = np.append(0, after.table["size"])[home]
    over = (offset < 0) | (size < 0) | (out_offset < 0)
    over |= (offset + size > limit) | (out_offset + size > room)
    for member in rows["member"][over & ~outside & ~nowhere].tolist():
        findings.add("placement", f"a piece of member {member} reaches over its section")
    address = np.append(0, after.table["address"])[home] + out_offset
    if not findings:
        taken = np.flatnonzero(size > 0)
        # all of __objc_imageinfo are one
        taken = taken[after.table["name"][home[taken] - 1] != b"__objc_imageinfo"]
        taken = taken[np.argsort(address[taken], kind="stable")]
        ends = (address + size)[taken]
        for at in np.flatnonzero(ends[:-1] > address[taken][1:]).tolist():
            findings.add("placement", f"two pieces overlap at {int(address[taken[at + 1]]):#x}")
    order = np.lexsort((size, offset, section))
    return Locations(before, *(c[order] for c in (section, offset, size, home, address)))
