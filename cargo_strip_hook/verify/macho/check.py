"""The order of the checks of a Mach-O result."""

from __future__ import annotations

import mmap
from itertools import pairwise

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.errors import ObjectError
from cargo_strip_hook.verify.claim import Claim, Findings, Verified
from cargo_strip_hook.verify.index import Listing
from cargo_strip_hook.verify.macho import compare, demands
from cargo_strip_hook.verify.macho.read import Damaged, Object, Places, read
from cargo_strip_hook.verify.macho.unwind import records

_MAGIC = b"\xcf\xfa\xed\xfe"


def check_macho(
    original: Archive,
    listing: Listing,
    candidate: bytes | mmap.mmap | memoryview,
    claim: Claim,
    findings: Findings,
) -> Verified:
    """Compare the only object of `candidate` with the members of `original` it was made of.

    What is wrong goes to `findings`. Raises `ObjectError` for a damaged original.
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
    allowed = demands.check_personalities(after, unwound, findings)
    demands.check_structure(after, findings)
    demands.check_unwound(after, unwound, findings)
    demands.check_marker(after, claim, findings)
    outside = (after.symbols[n] for n in after.externals().tolist())
    defined = {s.name for s in outside if s.defined or s.common}
    _check_exports(defined, claim, allowed, findings)
    _check_index(listing, claim, allowed, findings)

    before = _read_members(original, claim)
    members = {index: o for index, (_, o) in before.items()}
    undefined = _check_undefined(original, after, members, claim, findings)
    demands.check_versions(after, members, findings)
    pieces = compared = 0
    if claim.placement is None and not findings:
        from cargo_strip_hook.verify.macho.infer import check_by_names

        pieces, compared = check_by_names(members, after, unwound, findings)
    elif claim.placement is not None and not findings:
        places = _places(claim, members, after, findings)
        if not findings:
            pieces = len(claim.placement)
            try:
                compared = compare.check(members, after, places, claim, references, findings)
                compare.check_unwind(members, after, places, unwound, findings)
            except Damaged as e:
                raise ObjectError(str(e), path=str(original.path)) from e
    return Verified(
        tuple(sorted(n.decode("utf-8", "replace") for n in defined - allowed)),
        tuple(sorted(n.decode("utf-8", "replace") for n in undefined)),
        pieces,
        compared,
        len(references),
        0,
        len(unwound),
    )


def _check_exports(
    defined: set[bytes], claim: Claim, allowed: set[bytes], findings: Findings
) -> None:
    wanted = {n.encode("utf-8", "surrogateescape") for n in claim.exports}
    for name in sorted(wanted - defined):
        findings.add("missing export", name.decode("utf-8", "replace"))
    for name in sorted(defined - wanted - allowed):
        findings.add("leaked symbol", name.decode("utf-8", "replace"))


def _check_index(listing: Listing, claim: Claim, allowed: set[bytes], findings: Findings) -> None:
    """The archive's index has each export once, and points at the object.

    Apple's libtool lists private external symbols, the `allowed` ones, as well.
    """
    if listing.index is None:
        findings.add("the archive's index", "is missing")
        return
    names = [name for name, _ in listing.index]
    wanted = {n.encode("utf-8", "surrogateescape") for n in claim.exports}
    if len(set(names)) != len(names) or not wanted <= set(names) <= wanted | allowed:
        findings.add("the archive's index", "does not list the exports, each once")
    if any(place != listing.members[0][0] for _, place in listing.index):
        findings.add("the archive's index", "points at no member")


def _read_members(original: Archive, claim: Claim) -> dict[int, tuple[str, Object]]:
    """The members that are used: all objects where the claim does not say which."""
    if claim.placement is None:
        used = [m.index for m in original.members if bytes(original.data(m)[:4]) == _MAGIC]
    else:
        used = sorted(set(claim.placement["member"].tolist()))
    found: dict[int, tuple[str, Object]] = {}
    for index in used:
        if not 0 <= index < len(original.members):
            continue
        member = original.members[index]
        try:
            found[index] = (member.name, read(original.data(member)))
        except Damaged as e:
            raise ObjectError(str(e), path=str(original.path), member=member.name) from e
    return found


def _check_undefined(
    original: Archive,
    after: Object,
    members: dict[int, Object],
    claim: Claim,
    findings: Findings,
) -> set[bytes]:
    """The names that the consumer supplies: only what the members left undefined as well."""
    names = {name for name, size in after.undefined if not size}
    before = {name for o in members.values() for name, _ in o.undefined}
    for name in sorted(names - before):
        findings.add(
            "undefined symbol", f"{name.decode('utf-8', 'replace')} was not undefined before"
        )
    index = original.symbols() or {}
    allowed = {n.encode("utf-8", "surrogateescape") for n in claim.allowed_extra}
    for name in sorted((names & index.keys()) - allowed):
        findings.add(
            "undefined symbol", f"{name.decode('utf-8', 'replace')} is defined by the original"
        )
    return names


def _places(
    claim: Claim, members: dict[int, Object], after: Object, findings: Findings
) -> dict[int, Places]:
    """Where everything went, checked to be inside of sections and not on top of each other."""
    rows = claim.placement
    assert rows is not None
    sizes = {m: np.array([0, *(s.size for s in o.sections)], np.int64) for m, o in members.items()}
    rows = rows[np.lexsort((rows["size"], rows["offset"], rows["section"], rows["member"]))]
    borders = np.flatnonzero(np.diff(rows["member"], prepend=-1, append=-1)).tolist()
    limit = np.zeros(len(rows), np.int64)
    for first, end in pairwise(borders):
        member = int(rows["member"][first])
        section, known = rows["section"][first:end], sizes.get(member, np.zeros(1, np.int64))
        outside = (section <= 0) | (section >= len(known))
        for number in section[outside].tolist():
            findings.add("placement", f"names section {number} of member {member}")
        limit[first:end] = np.where(outside, -1, known[np.where(outside, 0, section)])
    home = rows["out_section"].astype(np.int64)
    nowhere = (home <= 0) | (home > len(after.sections))
    for number in home[nowhere].tolist():
        findings.add("placement", f"names section {number} of the result")
    room = np.array([0, *(s.size for s in after.sections)], np.int64)
    start = np.array([0, *(s.address for s in after.sections)], np.int64)
    home[nowhere] = 0
    offset, size, out_offset = (rows[c].astype(np.int64) for c in ("offset", "size", "out_offset"))
    over = (offset < 0) | (size < 0) | (out_offset < 0)
    over |= (offset + size > limit) | (out_offset + size > room[home])
    for member in rows["member"][over & (limit >= 0) & ~nowhere].tolist():
        findings.add("placement", f"a piece of member {member} reaches over its section")
    if findings:
        return {}
    address = start[home] + out_offset
    shared = [n for n, s in enumerate(after.sections, 1) if s.name == b"__objc_imageinfo"]
    taken = np.flatnonzero(size > 0)  # all of __objc_imageinfo are one
    taken = taken[~np.isin(home[taken], shared)] if shared else taken
    taken = taken[np.argsort(address[taken], kind="stable")]
    ends = (address + size)[taken]
    for at in np.flatnonzero(ends[:-1] > address[taken][1:]).tolist():
        findings.add("placement", f"two pieces overlap at {int(address[taken[at + 1]]):#x}")
    return {
        int(rows["member"][first]): Places(
            *(c[first:end] for c in (rows["section"], offset, size, home, address))
        )
        for first, end in pairwise(borders)
    }
