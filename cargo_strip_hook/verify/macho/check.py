"""The order of the checks of a Mach-O result."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.verify.arrays import Array, is_among, unique
from cargo_strip_hook.verify.expectation import Expectation, Findings, Reading, Verified, taken
from cargo_strip_hook.verify.index import Listing
from cargo_strip_hook.verify.loading import loading
from cargo_strip_hook.verify.macho import compare, constraints, objc
from cargo_strip_hook.verify.macho.order import Choice, contents
from cargo_strip_hook.verify.macho.places import Places
from cargo_strip_hook.verify.macho.read import Damaged, Object, read
from cargo_strip_hook.verify.macho.unwind import records

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
    if offset % 8:
        findings.add("the archive", "its member is not aligned to 8 bytes, as ld64 wants it")
    try:
        after = read(memoryview(candidate)[offset : offset + size])
        unwound = records(after)
        references = after.loaded_references()
    except Damaged as e:
        findings.add("damaged", str(e))
        return Verified((), ())
    allowed = constraints.check_personalities(after, unwound, findings)
    constraints.check_structure(after, findings)
    constraints.check_unwound(after, unwound, findings)
    constraints.check_marker(after, expectation, findings)
    defined = _defined(after)
    _check_exports(defined, expectation, allowed, findings)
    _check_index(listing, expectation, allowed, findings)

    used, members = _read_members(original, expectation, ahead)
    objc.check_loaded(original, set(used), findings)
    undefined = _check_undefined(original, after, members, expectation, findings)
    constraints.check_versions(after, members, findings)
    pieces = compared = 0
    if expectation.link_map is None and not findings:
        from cargo_strip_hook.verify.macho.infer import check_by_names

        pieces, compared = check_by_names(
            dict(zip(used, members, strict=True)), after, unwound, findings
        )
    elif expectation.link_map is not None and not findings:
        [before] = members
        where = _places(expectation.link_map, used, before, after, findings)
        if not findings:
            pieces = len(expectation.link_map)
            try:
                order = loading(
                    original,
                    expectation,
                    lambda: contents(original),
                    lambda: objc.loaded_always(original),
                )
                choice = Choice(order, used)
                compared = compare.check(before, after, where, references, choice, findings)
                compare.check_unwind(before, after, where, unwound, findings)
            except Damaged as e:
                raise _damaged(original, used, e) from e
    return Verified(
        tuple(sorted(n.decode("utf-8", "surrogateescape") for n in defined - allowed)),
        tuple(sorted(n.decode("utf-8", "surrogateescape") for n in undefined)),
        pieces,
        compared,
        len(references),
        0,
        len(unwound),
    )


def _check_exports(
    defined: set[bytes], expectation: Expectation, allowed: set[bytes], findings: Findings
) -> None:
    wanted = {n.encode("utf-8", "surrogateescape") for n in expectation.exports}
    for name in sorted(wanted - defined):
        findings.add("missing export", name.decode("utf-8", "replace"))
    for name in sorted(defined - wanted - allowed):
        findings.add("leaked symbol", name.decode("utf-8", "replace"))


def _check_index(
    listing: Listing, expectation: Expectation, allowed: set[bytes], findings: Findings
) -> None:
    """The archive's index has each export once, and points at the object.

    Apple's libtool lists private external symbols, the `allowed` ones, as well.
    """
    if listing.index is None:
        findings.add("the archive's index", "is missing")
        return
    names = [name for name, _ in listing.index]
    wanted = {n.encode("utf-8", "surrogateescape") for n in expectation.exports}
    if len(set(names)) != len(names) or not wanted <= set(names) <= wanted | allowed:
        findings.add("the archive's index", "does not list the exports, each once")
    if any(place != listing.members[0][0] for _, place in listing.index):
        findings.add("the archive's index", "points at no member")


def _defined(o: Object) -> set[bytes]:
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
        raise _damaged(original, used, e) from e
    _ = together.sections, together.placed, together.undefined  # kept: they will be asked for
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
        wanted = {n.encode("utf-8", "surrogateescape") for n in expectation.exports}
        index = original.symbols() or {}
        used = sorted({number for name, number in index.items() if name in wanted})
    return used, [taken(ahead, used, Object) or read_original(original, used)]


def _damaged(original: Archive, used: Sequence[int], e: Damaged) -> ObjectError:
    member = original.members[used[e.file]]
    return ObjectError(str(e), path=str(original.path), member=member.name)


def _check_undefined(
    original: Archive,
    after: Object,
    members: Iterable[Object],
    expectation: Expectation,
    findings: Findings,
) -> set[bytes]:
    """The names that the consumer supplies: only what the members left undefined as well."""
    names = {name for name, size in after.undefined if not size}
    before = {name for o in members for name, _ in o.undefined}
    for name in sorted(names - before):
        findings.add(
            "undefined symbol", f"{name.decode('utf-8', 'replace')} was not undefined before"
        )
    index = original.symbols() or {}
    allowed = {n.encode("utf-8", "surrogateescape") for n in expectation.allowed_extra}
    for name in sorted((names & index.keys()) - allowed):
        findings.add(
            "undefined symbol", f"{name.decode('utf-8', 'replace')} is defined by the original"
        )
    return names


def _places(
    rows: Array, used: list[int], before: Object, after: Object, findings: Findings
) -> Places:
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
        return Places(before, *np.zeros((5, 0), np.int64))
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
    return Places(before, *(c[order] for c in (section, offset, size, home, address)))
